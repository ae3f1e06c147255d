//! One region back to the release before: warm where the old slot still runs, else started again.
//!
//! Unlike a deploy, a rollback is not held up by one host: the bad release leaves wherever it can, and what could not
//! be done is the verdict.

use std::time::{Duration, Instant};

use regionwise_protocol::{Reply, Request, Switched};
use regionwise_remote::ssh::AskError;
use regionwise_rollout::Verdict;
use regionwise_rollout::lease::OperationKind;
use regionwise_rollout::region::{Agreement, Outcome, Traffic, after_revert, agree, before_switch};
use regionwise_topology::{HealthRule, Region, RolloutRule};

use crate::Narrator;
use crate::deploy::{millis, switched};
use crate::ending::{Ending, HostEnding};
use crate::hosts::{
    Access, Answers, Hosts, Locked, Operation, QUICK, first_error, hints, notes, outcome, outcomes,
};
use crate::status::{Consistency, consistency};
use crate::unreached::not_opened;

/// Everything one rollback needs.
pub struct Rollback<'a> {
    pub region: &'a Region,
    pub access: &'a Access,
    /// The rollback's own name.
    pub operation: Operation,
    /// Only undo this operation; anybody else's release is left alone.
    pub undo: Option<String>,
    /// Go to this release instead of the last verified one.
    pub to: Option<String>,
    pub rule: &'a RolloutRule,
    pub health: &'a HealthRule,
    pub dry_run: bool,
}

/// Brings the region back, or finds that there is nothing to undo, and says what is true then.
pub async fn rollback(rollback: &Rollback<'_>, say: Narrator<'_>) -> Ending {
    let begun = Instant::now();
    let (mut hosts, failed) = Hosts::open(rollback.region, rollback.access).await;
    if hosts.open.is_empty() {
        return not_opened(&failed);
    }
    let missing: Vec<HostEnding> = failed
        .iter()
        .map(|failed| HostEnding {
            host: failed.host.clone(),
            release: None,
            note: failed.error.to_string(),
        })
        .collect();
    let mut ending = if rollback.dry_run {
        plan(rollback, &mut hosts).await
    } else {
        locked(rollback, &mut hosts, say).await
    };
    hosts.close().await;
    if !missing.is_empty() && ending.verdict == Verdict::Proceed {
        ending.verdict = Verdict::Unknown;
        ending.reason = "host-unreachable";
        ending.traffic = Traffic::Unknown;
        ending.summary = format!(
            "{}; {} could not be reached",
            ending.summary, missing[0].host
        );
        ending.hints.push(format!(
            "deploy-region status --region {}",
            rollback.region.name
        ));
    }
    ending.hosts.extend(missing);
    ending.timings.push(("total", begun.elapsed()));
    ending
}

async fn plan(rollback: &Rollback<'_>, hosts: &mut Hosts) -> Ending {
    match target(rollback, hosts).await {
        Err(ending) => *ending,
        Ok(Agreement::Stay) => Ending::new(
            Verdict::Proceed,
            "dry-run",
            Traffic::Old,
            format!("nothing to undo in {}", rollback.region.name),
        ),
        Ok(Agreement::Release(name)) => {
            let text = format!(
                "would bring {} back to `{name}`; nothing was changed",
                rollback.region.name
            );
            Ending::new(Verdict::Proceed, "dry-run", Traffic::New, text)
        }
        Ok(Agreement::Differ(names)) => differ(rollback, &names),
    }
}

async fn locked(rollback: &Rollback<'_>, hosts: &mut Hosts, say: Narrator<'_>) -> Ending {
    let kind = OperationKind::Rollback;
    let Locked { settled, failed } = match hosts
        .lock_where_possible(&rollback.operation, kind, rollback.undo.as_deref())
        .await
    {
        Ok(locked) => locked,
        Err(refused) => return not_locked(rollback, vec![refused]),
    };
    if hosts.open.is_empty() {
        return not_locked(rollback, failed);
    }
    settled.iter().for_each(|what| say(&format!("{what}.")));
    let mut ending = match target(rollback, hosts).await {
        Err(ending) => *ending,
        Ok(Agreement::Differ(names)) => differ(rollback, &names),
        Ok(Agreement::Stay) => stay(rollback, hosts, !settled.is_empty()).await,
        Ok(Agreement::Release(name)) => {
            say(&format!(
                "going back to `{name}` on {}.",
                hosts.names().join(", ")
            ));
            go(rollback, hosts, &name).await
        }
    };
    hosts.unlock().await;
    let failed: Answers<()> = failed
        .into_iter()
        .map(|(host, error)| (host, Err(error)))
        .collect();
    if !failed.is_empty() && ending.verdict == Verdict::Proceed {
        ending.verdict = after_revert(&outcomes(&failed));
        ending.reason = "rollback-incomplete";
        ending.traffic = Traffic::Unknown;
        ending.summary = format!("{}, but not on {}", ending.summary, first_error(&failed));
        ending.hints.extend(hints(&failed));
        ending.hints.push(format!(
            "deploy-region status --region {}",
            rollback.region.name
        ));
    }
    ending.hosts.extend(notes(&failed, |()| None));
    ending
}

/// The ending when no host gave its lock, or one said that it is somebody else's.
fn not_locked(rollback: &Rollback<'_>, failed: Vec<(String, AskError)>) -> Ending {
    let answers: Answers<()> = failed
        .into_iter()
        .map(|(host, error)| (host, Err(error)))
        .collect();
    let found = outcomes(&answers);
    let verdict = if found.contains(&Outcome::Lost) || found.contains(&Outcome::Corrupt) {
        // Contact was lost while a switch may have been settled.
        Verdict::Unknown
    } else {
        before_switch(&found).unwrap_or(Verdict::Unknown)
    };
    let text = format!(
        "cannot lock {}: {}",
        rollback.region.name,
        first_error(&answers)
    );
    let mut ending = Ending::new(verdict, "locked", Traffic::Unknown, text)
        .with_hosts(notes(&answers, |()| None));
    ending.hints.extend(hints(&answers));
    ending
}

/// Where every host would go, as one.
async fn target(rollback: &Rollback<'_>, hosts: &mut Hosts) -> Result<Agreement, Box<Ending>> {
    let request = Request::Target {
        operation: rollback.undo.clone(),
        to: rollback.to.clone(),
    };
    let answers = hosts
        .ask(&request, QUICK, |reply| match reply {
            Reply::Target { release, serving } => Some((release, serving)),
            _ => None,
        })
        .await;
    // A host that cannot say keeps nobody else on the bad release; one that refuses speaks for the region.
    let blocked = |answer: &Result<_, AskError>| {
        !matches!(
            outcome(answer),
            Outcome::Done | Outcome::Host | Outcome::Lost | Outcome::Corrupt
        )
    };
    let leads = answers
        .iter()
        .any(|(_, answer)| matches!(answer, Ok((Some(_), _))));
    let partly = leads && !answers.iter().any(|(_, answer)| blocked(answer));
    if let Some(verdict) = before_switch(&outcomes(&answers)).filter(|_| !partly) {
        let text = format!(
            "cannot roll back {}: {}",
            rollback.region.name,
            first_error(&answers)
        );
        let mut ending = Ending::new(verdict, "no-target", Traffic::Unknown, text)
            .with_hosts(notes(&answers, |(_, serving)| serving.clone()));
        ending.hints.extend(hints(&answers));
        return Err(Box::new(ending));
    }
    Ok(agree(
        answers
            .iter()
            .filter_map(|(_, answer)| answer.as_ref().ok())
            .map(|(release, _)| release.as_deref()),
    ))
}

fn differ(rollback: &Rollback<'_>, names: &std::collections::BTreeSet<String>) -> Ending {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = format!(
        "the hosts of {} would go back to different releases: {}",
        rollback.region.name,
        names.join(", ")
    );
    Ending::new(Verdict::Refused, "targets-differ", Traffic::Mixed, text)
        .with_hint("name one of them with --to")
}

/// Nothing to undo: looked at all the same, because "it never left" is a claim too.
async fn stay(rollback: &Rollback<'_>, hosts: &mut Hosts, settled: bool) -> Ending {
    let facts = hosts.status().await;
    let region = &rollback.region.name;
    let shown = notes(&facts, |facts| {
        facts.serving.as_ref().map(|now| now.release.clone())
    });
    if facts.iter().any(|(_, answer)| answer.is_err()) {
        let text = format!("cannot verify {region}: {}", first_error(&facts));
        return Ending::new(Verdict::Unknown, "no-status", Traffic::Unknown, text)
            .with_hosts(shown);
    }
    let known = facts
        .iter()
        .filter_map(|(host, answer)| Some((host.as_str(), answer.as_ref().ok()?)));
    match consistency(known) {
        Consistency::One(name) => {
            let (reason, text) = if settled {
                ("settled", format!("`{name}` serves in {region} again"))
            } else {
                (
                    "nothing-to-undo",
                    format!("`{name}` serves in {region}, nothing to undo"),
                )
            };
            Ending::new(Verdict::Proceed, reason, Traffic::Old, text)
                .changed(settled)
                .with_hint(format!(
                    "to go further back: rollback-region --region {region} --to RELEASE"
                ))
        }
        Consistency::Nothing => {
            let text = format!("nothing serves in {region}, as before");
            Ending::new(Verdict::Proceed, "nothing-to-undo", Traffic::Old, text).changed(settled)
        }
        Consistency::Differs(problems) => {
            let text = format!(
                "the hosts of {region} do not agree: {}",
                problems.join("; ")
            );
            Ending::new(Verdict::Mixed, "hosts-differ", Traffic::Mixed, text)
                .with_hint(format!("rollback-region --region {region} --to RELEASE"))
        }
    }
    .with_hosts(shown)
}

async fn go(rollback: &Rollback<'_>, hosts: &mut Hosts, name: &str) -> Ending {
    let begun = Instant::now();
    let answers = switch_to(hosts, name, rollback.rule, rollback.health).await;
    let back = begun.elapsed();
    let region = &rollback.region.name;
    let shown = notes(&answers, |switched| switched.release.clone());
    let mut ending = match after_revert(&outcomes(&answers)) {
        Verdict::RolledBack => {
            let text = format!("`{name}` serves in {region} again");
            Ending::new(Verdict::Proceed, "rolled-back", Traffic::Old, text)
        }
        verdict => {
            let traffic = if verdict == Verdict::Mixed {
                Traffic::Mixed
            } else {
                Traffic::Unknown
            };
            let text = format!(
                "`{name}` does not serve on every host of {region}: {}",
                first_error(&answers)
            );
            Ending::new(verdict, "rollback-incomplete", traffic, text)
                .with_hint(format!("deploy-region status --region {region}"))
        }
    };
    ending.timings.push(("traffic back", back));
    let drain = Request::Drain {
        deadline_ms: millis(rollback.rule.drain),
    };
    hosts
        .ask(&drain, rollback.rule.drain + QUICK, |reply| {
            matches!(reply, Reply::Drained { .. }).then_some(())
        })
        .await;
    ending.with_hosts(shown).changed(true)
}

/// Prepares and commits `name` wherever that works.
async fn switch_to(
    hosts: &mut Hosts,
    name: &str,
    rule: &RolloutRule,
    health: &HealthRule,
) -> Answers<Switched> {
    let prepare = Request::Prepare {
        release: name.to_owned(),
        start_deadline_ms: millis(rule.start_deadline),
        interval_ms: millis(health.interval / 10).max(20),
        successes: health.successes,
    };
    let prepared = hosts
        .ask(&prepare, rule.start_deadline + QUICK, |reply| {
            matches!(reply, Reply::Prepared(_)).then_some(())
        })
        .await;
    let commit = Request::Commit {
        release: name.to_owned(),
        confirm_within_ms: 0,
    };
    let committed = hosts
        .ask(
            &commit,
            rule.commit_window.max(Duration::from_secs(5)),
            switched,
        )
        .await;
    // The reason why a host did not switch is the reason why it could not prepare.
    prepared
        .into_iter()
        .zip(committed)
        .map(|((host, prepared), (_, committed))| (host, prepared.and(committed)))
        .collect()
}

/// A deploy that was confirmed on some hosts only leads those back as a rollback of itself, to what served before.
pub(crate) async fn lead_back(
    hosts: &mut Hosts,
    operation: &Operation,
    before: Option<String>,
    rule: &RolloutRule,
    health: &HealthRule,
) -> Answers<Switched> {
    let failed = |hosts: &Hosts, detail: &str| -> Answers<Switched> {
        let lost = || AskError::Lost {
            verb: "lock",
            detail: detail.to_owned(),
        };
        hosts
            .names()
            .into_iter()
            .map(|host| (host, Err(lost())))
            .collect()
    };
    if let Err((host, error)) = hosts.lock(operation, OperationKind::Rollback).await {
        return failed(hosts, &format!("{host}: {error}"));
    }
    let request = Request::Target {
        operation: Some(operation.id.clone()),
        to: before,
    };
    let targets = hosts
        .ask(&request, QUICK, |reply| match reply {
            Reply::Target { release, .. } => Some(release),
            _ => None,
        })
        .await;
    let known = targets
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .map(Option::as_deref);
    match agree(known) {
        Agreement::Release(name) => switch_to(hosts, &name, rule, health).await,
        Agreement::Stay => hosts.ask(&Request::Revert, QUICK, switched).await,
        Agreement::Differ(_) => failed(hosts, "the hosts would go back to different releases"),
    }
}
