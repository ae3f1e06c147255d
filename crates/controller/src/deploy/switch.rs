//! The switch itself: commit, look, confirm, drain; or all hosts back.

use std::collections::BTreeSet;
use std::time::Instant;

use regionwise_protocol::{Prepared, Reply, Request, Switched};
use regionwise_remote::ssh::AskError;
use regionwise_rollout::Verdict;
use regionwise_rollout::lease::OperationKind;
use regionwise_rollout::region::{Outcome, Traffic, after_revert};

use super::{Run, Step, lost, millis, signalled, stop, switched};
use crate::ending::{Ending, HostEnding};
use crate::hosts::{Answers, Hosts, QUICK, done, first_error, notes, outcomes, taken_over};
use crate::rollback::lead_back;
use crate::verify::{Verified, verify};

impl Run<'_> {
    pub(super) async fn commit(&mut self) -> Step<()> {
        let begun = Instant::now();
        let release = self.deploy.release.manifest.name.clone();
        let rule = self.deploy.rule;
        let request = Request::Commit {
            release: release.clone(),
            confirm_within_ms: millis(rule.confirm_within),
        };
        let answers = self.hosts.ask(&request, rule.commit_window, switched).await;
        self.timings.push(("commit", begun.elapsed()));
        if answers.iter().all(|(_, answer)| answer.is_ok()) {
            let switched = answers
                .iter()
                .filter(|(_, answer)| answer.as_ref().is_ok_and(|switched| !switched.already));
            let names: Vec<&str> = switched.map(|(host, _)| host.as_str()).collect();
            if !names.is_empty() {
                (self.say)(&format!(
                    "`{release}` takes the traffic on {}.",
                    names.join(", ")
                ));
            }
            return Ok(());
        }
        if taken_over(&answers) {
            return stop(self.taken_over(&first_error(&answers)));
        }
        let why = format!("not every host could switch: {}", first_error(&answers));
        stop(self.go_back("commit-failed", &why, lost(&answers)).await)
    }

    pub(super) async fn verify(&mut self) -> Step<()> {
        let begun = Instant::now();
        let mut stopped = self.deploy.stop.clone();
        let looking = verify(self.deploy, self.before.as_deref(), &mut self.hosts);
        let found = tokio::select! {
            found = looking => Ok(found),
            verdict = signalled(&mut stopped) => Err(verdict),
        };
        self.timings.push(("verify", begun.elapsed()));
        match found {
            Ok(Verified::Good) => Ok(()),
            Ok(Verified::Bad(why)) => stop(self.go_back("verify-failed", &why, false).await),
            Ok(Verified::NotMeasured(why)) => {
                // Unknown is never ok: what cannot be seen is not confirmed.
                stop(self.go_back("verify-not-measurable", &why, false).await)
            }
            Ok(Verified::Lost(why)) => stop(self.go_back("contact-lost", &why, true).await),
            Ok(Verified::TakenOver(why)) => stop(self.taken_over(&why)),
            Err(verdict) => {
                let mut ending = self.go_back("signal", "stopped by a signal", true).await;
                if ending.verdict == Verdict::RolledBack {
                    ending.verdict = verdict;
                }
                stop(ending)
            }
        }
    }

    pub(super) async fn confirm(&mut self) -> Step<()> {
        let begun = Instant::now();
        let mut answers = self.hosts.ask(&Request::Confirm, QUICK, done).await;
        if lost(&answers) {
            // A confirm can be said twice; only its answer was lost.
            self.reconnect().await?;
            answers = self.hosts.ask(&Request::Confirm, QUICK, done).await;
        }
        if taken_over(&answers) {
            return stop(self.taken_over(&first_error(&answers)));
        }
        self.timings.push(("confirm", begun.elapsed()));
        let complete = self.hosts.open.len() == self.deploy.region.hosts.len();
        if complete && answers.iter().all(|(_, answer)| answer.is_ok()) {
            return Ok(());
        }
        let why = if complete {
            first_error(&answers)
        } else {
            "contact to a host was lost".to_owned()
        };
        stop(self.go_back("confirm-failed", &why, lost(&answers)).await)
    }

    /// All hosts back to what they served before, and what is true after that.
    pub(super) async fn go_back(
        &mut self,
        reason: &'static str,
        why: &str,
        reconnect: bool,
    ) -> Ending {
        let begun = Instant::now();
        (self.say)(&format!("going back: {why}"));
        if reconnect && let Err(taken_over) = self.reconnect().await {
            return *taken_over;
        }
        let mut reverted = self.hosts.ask(&Request::Revert, QUICK * 2, switched).await;
        if lost(&reverted) && !reconnect {
            if let Err(taken_over) = self.reconnect().await {
                return *taken_over;
            }
            reverted = self.hosts.ask(&Request::Revert, QUICK * 2, switched).await;
        }
        if taken_over(&reverted) {
            return self.taken_over(&first_error(&reverted));
        }
        let new = &self.deploy.release.manifest.name;
        let still_new = |answers: &Answers<Switched>| {
            answers.iter().any(|(_, answer)| {
                answer
                    .as_ref()
                    .is_ok_and(|s| s.release.as_ref() == Some(new))
            })
        };
        // A redeploy of what served already has nothing to go back to; a host that confirmed needs a rollback.
        let away = self.before.as_ref() != Some(new);
        if still_new(&reverted) && away {
            reverted = lead_back(
                &mut self.hosts,
                &self.deploy.operation,
                self.before.clone(),
                self.deploy.rule,
                self.deploy.health,
            )
            .await;
        }
        self.timings.push(("go back", begun.elapsed()));
        let mut seen: Vec<Outcome> = outcomes(&reverted);
        seen.resize(self.deploy.region.hosts.len(), Outcome::Lost);
        let verdict = match after_revert(&seen) {
            // Every host did what it was asked, and they do not serve the same now: one had nothing to go back to.
            Verdict::RolledBack if (away && still_new(&reverted)) || differ(&reverted) => {
                Verdict::Mixed
            }
            verdict => verdict,
        };
        let hosts = notes(&reverted, |switched| switched.release.clone());
        let region = &self.deploy.region.name;
        let back = hosts.iter().find_map(|host| host.release.as_ref());
        let back = back.map_or("nothing serves, as before".to_owned(), |name| {
            format!("`{name}` serves again")
        });
        let (traffic, text) = match verdict {
            Verdict::RolledBack => (
                Traffic::Old,
                format!("`{new}` was taken back in {region}, {back}: {why}"),
            ),
            Verdict::Mixed => (
                Traffic::Mixed,
                format!("`{new}` could not be taken back on every host of {region}: {why}"),
            ),
            _ => (
                Traffic::Unknown,
                format!(
                    "`{new}` was to be taken back in {region}, and not every host answered; each goes back alone within {:.0} s: {why}",
                    self.deploy.rule.confirm_within.as_secs_f64()
                ),
            ),
        };
        let ending = Ending::new(verdict, reason, traffic, text).with_hosts(hosts);
        match verdict {
            Verdict::RolledBack => ending,
            _ => ending
                .with_hint(format!(
                    "rollback-region --region {region} --operation {}",
                    self.deploy.operation.id
                ))
                .with_hint(format!("deploy-region status --region {region}")),
        }
    }

    /// New connections under the same operation: the lock is ours again at once, unless somebody took over.
    ///
    /// A host that cannot be reached or gives no lock is no longer among ours: whoever counts them sees it missing.
    pub(super) async fn reconnect(&mut self) -> Step<()> {
        let (hosts, _) = Hosts::open(self.deploy.region, self.deploy.access).await;
        // The old connections go first, and with them the verbs that they still run.
        self.hosts = hosts;
        let locked = self
            .hosts
            .lock_where_possible(&self.deploy.operation, OperationKind::Deploy, None)
            .await;
        match locked {
            Ok(_) => Ok(()),
            Err((host, error)) => stop(self.taken_over(&format!("{host}: {error}"))),
        }
    }

    /// The loser of a takeover changes nothing any more, not even back: what serves is the other one's.
    pub(super) fn taken_over(&self, why: &str) -> Ending {
        let region = &self.deploy.region.name;
        let text = format!("{region} belongs to another operation now: {why}");
        Ending::new(Verdict::Locked, "taken-over", Traffic::Unknown, text)
            .with_hint(format!("deploy-region status --region {region}"))
    }

    pub(super) async fn finish(&mut self, prepared: &Answers<Prepared>) -> Ending {
        let begun = Instant::now();
        let request = Request::Drain {
            deadline_ms: millis(self.deploy.rule.drain),
        };
        let limit = self.deploy.rule.drain + QUICK;
        let mut stopped = self.deploy.stop.clone();
        let draining = self.hosts.ask(&request, limit, |reply| match reply {
            Reply::Drained { left } => Some(left),
            _ => None,
        });
        let drained = tokio::select! {
            drained = draining => Some(drained),
            _ = signalled(&mut stopped) => None,
        };
        let drained = match drained {
            Some(drained) => drained,
            // The release is confirmed, a signal cannot take that back; only the wait ends.
            None => {
                let given_up = |host| {
                    let detail = "a signal ended the wait".to_owned();
                    (
                        host,
                        Err(AskError::Lost {
                            verb: "drain",
                            detail,
                        }),
                    )
                };
                let drained = self.hosts.names().into_iter().map(given_up).collect();
                let _ = self.reconnect().await;
                drained
            }
        };
        self.timings.push(("drain", begun.elapsed()));
        let release = &self.deploy.release.manifest.name;
        let hosts = drained
            .iter()
            .map(|(host, answer)| HostEnding {
                host: host.clone(),
                release: Some(release.clone()),
                note: match answer {
                    Ok(0) => String::new(),
                    Ok(left) => format!("{left} requests were still open on the old slot"),
                    Err(error) => format!("cannot drain the old slot: {error}"),
                },
            })
            .collect();
        let unchanged = prepared
            .iter()
            .all(|(_, answer)| answer.as_ref().is_ok_and(|p| p.already_serving));
        let count = self.deploy.region.hosts.len();
        let verb = if unchanged {
            "served already"
        } else {
            "serves"
        };
        let text = format!(
            "`{release}` {verb} in {} on {count} of {count} hosts",
            self.deploy.region.name
        );
        Ending::new(Verdict::Proceed, "serving", Traffic::New, text)
            .with_hosts(hosts)
            .changed(!unchanged)
    }
}

/// Whether the hosts ended on different releases.
fn differ(answers: &Answers<Switched>) -> bool {
    let served: BTreeSet<Option<&String>> = answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .map(|switched| switched.release.as_ref())
        .collect();
    served.len() > 1
}
