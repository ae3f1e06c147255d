//! What stands in the way, found before anything is changed; with `--dry-run`, what would happen.

use std::time::Instant;

use regionwise_protocol::HostFacts;
use regionwise_remote::ssh::AskError;
use regionwise_rollout::Verdict;
use regionwise_rollout::region::{Traffic, before_switch};

use super::{Run, Step, stop};
use crate::ending::{Ending, HostEnding};
use crate::hosts::{Answers, first_error, notes, outcomes};
use crate::obstacles::{Limits, obstacles};
use crate::status::{Consistency, consistency, drifted};

impl Run<'_> {
    /// Looks at every host; changes nothing.
    pub(super) async fn before_the_lock(&mut self) -> Step<()> {
        let begun = Instant::now();
        let facts = self.hosts.status().await;
        let limits = Limits {
            artifact: Some(self.deploy.release.size),
            accept_unhealthy: self.deploy.accept_unhealthy,
            clock_ms: (self.deploy.clock_ms)(),
            round_trip: begun.elapsed(),
        };
        if let Some(verdict) = before_switch(&outcomes(&facts)) {
            let text = format!(
                "cannot read the state of {}: {}",
                self.deploy.region.name,
                first_error(&facts)
            );
            return stop(
                Ending::new(verdict, "no-status", Traffic::Unknown, text)
                    .with_hosts(notes(&facts, |_| None)),
            );
        }
        let mut found = Vec::new();
        for (host, answer) in &facts {
            let Ok(facts) = answer else { continue };
            found.extend(
                obstacles(facts, &limits)
                    .into_iter()
                    .map(|obstacle| (host.clone(), obstacle)),
            );
        }
        if let Some((host, worst)) = found
            .iter()
            .min_by_key(|(_, obstacle)| obstacle.verdict != Verdict::Refused)
        {
            let text = format!(
                "cannot deploy to {}: {host}: {}",
                self.deploy.region.name, worst.text
            );
            let hosts = found
                .iter()
                .map(|(host, obstacle)| HostEnding {
                    host: host.clone(),
                    release: None,
                    note: obstacle.text.clone(),
                })
                .collect();
            let mut ending =
                Ending::new(worst.verdict, "obstacle", Traffic::Old, text).with_hosts(hosts);
            ending.hints.extend(worst.hint.clone());
            return stop(ending);
        }
        let known: Answers<(bool, bool)> = self.hosts.has(&self.deploy.release.manifest).await;
        if let Some(ending) = self.unprepared(&known, "has", "cannot offer the release") {
            return stop(ending);
        }
        if self.deploy.dry_run {
            return stop(self.plan(&facts, &known));
        }
        self.timings.push(("look", begun.elapsed()));
        Ok(())
    }

    /// What would happen, host by host.
    pub(super) fn plan(
        &self,
        facts: &[(String, Result<HostFacts, AskError>)],
        known: &Answers<(bool, bool)>,
    ) -> Ending {
        let release = &self.deploy.release.manifest.name;
        let hosts = facts
            .iter()
            .zip(known)
            .filter_map(|((host, facts), (_, known))| {
                let (facts, (artifact, whole)) = (facts.as_ref().ok()?, known.as_ref().ok()?);
                let now = facts.serving.as_ref().map(|now| now.release.clone());
                let send = match (artifact, whole) {
                    (_, true) => "is there".to_owned(),
                    (true, false) => "its artefact is there".to_owned(),
                    (false, false) => format!("{} bytes to send", self.deploy.release.size),
                };
                let slot = facts.file.map_or("blue", |slot| slot.other().name());
                let note = match &now {
                    Some(now) if now == release => format!("`{release}` serves already"),
                    Some(now) => format!(
                        "`{release}` {send}; would start on {slot} and take over from `{now}`"
                    ),
                    None => format!("`{release}` {send}; would start on {slot} and be the first"),
                };
                Some(HostEnding {
                    host: host.clone(),
                    release: now,
                    note,
                })
            });
        let hosts = hosts.collect();
        let text = format!(
            "would deploy `{release}` to {}; nothing was changed",
            self.deploy.region.name
        );
        Ending::new(Verdict::Proceed, "dry-run", Traffic::Old, text).with_hosts(hosts)
    }

    /// The hosts must serve the same before, else there is no single release to go back to.
    pub(super) async fn agree(&mut self) -> Step<()> {
        let facts = self.hosts.status().await;
        if let Some(ending) = self.unprepared(&facts, "no-status", "cannot compare the hosts") {
            return stop(ending);
        }
        let known: Vec<(&str, &HostFacts)> = facts
            .iter()
            .filter_map(|(host, answer)| Some((host.as_str(), answer.as_ref().ok()?)))
            .collect();
        let target = self.deploy.release.manifest.digest();
        let id = self.deploy.operation.id.as_str();
        // Where the release serves already, also by an earlier attempt of ours, is not where to go back to.
        let from = known
            .iter()
            .filter_map(|(_, facts)| facts.serving.as_ref())
            .find(|now| now.digest != target);
        let nothing_before = known.iter().any(|(_, facts)| facts.serving.is_none());
        self.before = match from {
            Some(now) => Some(now.release.clone()),
            None if nothing_before => None,
            None => Some(self.deploy.release.manifest.name.clone()),
        };
        let facts = known.iter().map(|(_, facts)| *facts);
        if drifted(facts, Some(&target), Some(id)) && !self.deploy.accept_drift {
            let problems = match consistency(known.iter().copied()) {
                Consistency::Differs(problems) => problems.join("; "),
                Consistency::One(_) | Consistency::Nothing => "the hosts differ".to_owned(),
            };
            let text = format!("cannot deploy to {}: {problems}", self.deploy.region.name);
            return stop(
                Ending::new(Verdict::Refused, "drift", Traffic::Mixed, text)
                    .with_hint(format!(
                        "deploy-region status --region {}",
                        self.deploy.region.name
                    ))
                    .with_hint("deploy with --accept-drift to bring every host to this release"),
            );
        }
        Ok(())
    }
}
