//! The hosts of one region: reachable, healthy, free, agreed, and able to take the release.

use std::time::Instant;

use regionwise_cli::wall_ms;
use regionwise_controller::{
    Access, Consistency, Hosts, Limits, Release, consistency, drifted, not_opened, obstacles,
    outcome,
};
use regionwise_protocol::HostFacts;
use regionwise_remote::ssh::AskError;
use regionwise_rollout::Verdict;
use regionwise_rollout::region::before_switch;
use regionwise_topology::Region;

use crate::found::{Found, as_gate};

/// What the rollout would want of the hosts.
pub(crate) struct Asked<'a> {
    pub(crate) release: Option<&'a Release>,
    /// The operation that may have died here before: what it left behind is its own to resume.
    pub(crate) ours: Option<&'a str>,
    pub(crate) accept_unhealthy: bool,
}

/// Everything in the way in this region.
pub(crate) async fn look(region: &Region, access: &Access, asked: &Asked<'_>) -> Vec<Found> {
    let (mut hosts, failed) = Hosts::open(region, access).await;
    let mut found = Vec::new();
    for one in &failed {
        let ending = not_opened(std::slice::from_ref(one));
        found.push(Found {
            hint: ending.hints.first().cloned(),
            ..of(region, &one.host, as_gate(ending.verdict), ending.summary)
        });
    }
    let begun = Instant::now();
    let answers = hosts.status().await;
    let limits = Limits {
        artifact: asked.release.map(|r| r.size),
        accept_unhealthy: asked.accept_unhealthy,
        clock_ms: wall_ms(),
        round_trip: begun.elapsed(),
    };
    let mut known: Vec<(String, HostFacts)> = Vec::new();
    for (host, answer) in answers {
        match answer {
            Err(error) => found.push(denied(region, &host, &error)),
            Ok(facts) => {
                found.extend(of_host(region, &host, &facts, &limits, asked.ours));
                known.push((host, facts));
            }
        }
    }
    found.extend(drift(region, &known, asked));
    if let Some(release) = asked.release {
        for (host, answer) in hosts.has(&release.manifest).await {
            found.extend(answer.err().map(|error| denied(region, &host, &error)));
        }
    }
    hosts.close().await;
    found
}

fn of_host(
    region: &Region,
    host: &str,
    facts: &HostFacts,
    limits: &Limits,
    ours: Option<&str>,
) -> Vec<Found> {
    let mut found: Vec<Found> = obstacles(facts, limits)
        .into_iter()
        .map(|obstacle| Found {
            hint: obstacle.hint,
            ..of(region, host, as_gate(obstacle.verdict), obstacle.text)
        })
        .collect();
    let foreign = |operation: &str| ours != Some(operation);
    let lease = facts.lease.as_ref().filter(|lease| lease.expires_in_ms > 0);
    if let Some(lease) = lease.filter(|lease| foreign(&lease.holder.operation)) {
        let holder = &lease.holder;
        let seconds = lease.expires_in_ms as f64 / 1000.0;
        let text = format!(
            "{} `{}` of {} holds the lock for another {seconds:.1} s",
            holder.kind, holder.operation, holder.who
        );
        found.push(of(region, host, Verdict::Pause, text));
    }
    if let Some(intent) = facts
        .intent
        .as_ref()
        .filter(|intent| foreign(&intent.operation))
    {
        let text = format!(
            "the switch of operation `{}` to `{}` is not settled",
            intent.operation, intent.to
        );
        let hint = format!(
            "rollback-region --region {} --operation {}",
            region.name, intent.operation
        );
        found.push(Found {
            hint: Some(hint),
            ..of(region, host, Verdict::Pause, text)
        });
    }
    found
}

/// Hosts that serve different releases leave nothing single to go back to.
fn drift(region: &Region, known: &[(String, HostFacts)], asked: &Asked<'_>) -> Option<Found> {
    let target = asked.release.map(|release| release.manifest.digest());
    let facts = known.iter().map(|(_, facts)| facts);
    if !drifted(facts, target.as_ref(), asked.ours) {
        return None;
    }
    let text = match consistency(known.iter().map(|(host, facts)| (host.as_str(), facts))) {
        Consistency::Differs(problems) => problems.join("; "),
        Consistency::One(_) | Consistency::Nothing => "the hosts differ".to_owned(),
    };
    let hint = format!("deploy-region status --region {}", region.name);
    Some(Found {
        hint: Some(hint),
        ..of(region, "all hosts", Verdict::Refused, text)
    })
}

fn denied(region: &Region, host: &str, error: &AskError) -> Found {
    let verdict = before_switch(&[outcome::<()>(&Err(error.clone()))]).unwrap_or(Verdict::Pause);
    let hint = match error {
        AskError::Denied(denial) => denial.hint.clone(),
        AskError::Lost { .. } => None,
    };
    Found {
        hint,
        ..of(region, host, as_gate(verdict), error.to_string())
    }
}

fn of(region: &Region, part: &str, verdict: Verdict, text: String) -> Found {
    Found {
        place: region.name.clone(),
        part: part.to_owned(),
        verdict,
        text,
        hint: None,
    }
}
