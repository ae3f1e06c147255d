//! Everything before the switch: the release comes to the hosts and becomes healthy beside what serves.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use regionwise_protocol::{Prepared, Reply, Request};
use regionwise_remote::ssh::AskError;
use regionwise_rollout::Verdict;
use regionwise_rollout::region::Traffic;

use super::{Run, Step, lost, millis, signalled, stop};
use crate::ending::Ending;
use crate::hosts::{Answers, QUICK, done, expect};

/// What a host may take beyond the release's own start deadline: stopping what was in the slot, writing it down.
const PREPARE_SLACK: Duration = Duration::from_secs(15);
/// An artefact at 1 MB/s and 100 MB; slower is a broken line.
const SEND_LIMIT: Duration = Duration::from_secs(120);

impl Run<'_> {
    /// Brings the artefact and the release to the hosts that lack them.
    pub(super) async fn send(&mut self) -> Step<()> {
        let begun = Instant::now();
        let known = self.hosts.has(&self.deploy.release.manifest).await;
        if let Some(ending) = self.unprepared(&known, "has", "cannot offer the release") {
            return stop(ending);
        }
        let lacking = |what: fn(&(bool, bool)) -> bool| -> Vec<String> {
            known
                .iter()
                .filter(|(_, answer)| answer.as_ref().is_ok_and(|has| !what(has)))
                .map(|(host, _)| host.clone())
                .collect()
        };
        let (artifact, whole) = (lacking(|has| has.0), lacking(|has| has.1));
        if !artifact.is_empty() {
            (self.say)(&format!(
                "sending {} bytes to {}.",
                self.deploy.release.size,
                artifact.join(", ")
            ));
        }
        let release = self.deploy.release;
        let put = Request::PutRelease {
            manifest: release.manifest.clone(),
            env: release.env.clone(),
            config: release.config.clone(),
        };
        let blob = Request::PutBlob {
            digest: release.manifest.artifact.clone(),
            size: release.size,
        };
        let sending = self
            .hosts
            .open
            .iter_mut()
            .filter(|connected| whole.contains(&connected.host.name));
        let sending = sending.map(async |connected| {
            let name = connected.host.name.clone();
            let sent = async {
                if artifact.contains(&name) {
                    let mut file =
                        tokio::fs::File::open(&release.artifact)
                            .await
                            .map_err(|error| AskError::Lost {
                                verb: "put-blob",
                                detail: format!(
                                    "cannot read `{}`: {error}",
                                    release.artifact.display()
                                ),
                            })?;
                    let reply = connected
                        .session
                        .put_blob(&blob, release.size, &mut file, SEND_LIMIT)
                        .await?;
                    expect(&blob, reply, done)?;
                }
                let reply = connected.session.ask(&put, QUICK).await?;
                expect(&put, reply, done)
            };
            (name.clone(), sent.await)
        });
        let sent: Answers<()> = join_all(sending).await;
        self.timings.push(("send", begun.elapsed()));
        match self.unprepared(&sent, "send", "cannot bring the release") {
            Some(ending) => stop(ending),
            None => Ok(()),
        }
    }

    pub(super) async fn prepare(&mut self) -> Step<Answers<Prepared>> {
        let begun = Instant::now();
        let release = self.deploy.release.manifest.name.clone();
        (self.say)(&format!(
            "preparing `{release}` beside what serves, on {}.",
            self.hosts.names().join(", ")
        ));
        let request = Request::Prepare {
            release,
            start_deadline_ms: millis(self.deploy.rule.start_deadline),
            // Hosts are asked on loopback: a tenth of the outside interval sees the start sooner and costs nothing.
            interval_ms: millis(self.deploy.health.interval / 10).max(20),
            successes: self.deploy.health.successes,
        };
        let limit = self.deploy.rule.start_deadline + PREPARE_SLACK;
        let mut stopped = self.deploy.stop.clone();
        let preparing = self.hosts.ask(&request, limit, |reply| match reply {
            Reply::Prepared(prepared) => Some(prepared),
            _ => None,
        });
        let answers = tokio::select! {
            answers = preparing => Ok(answers),
            verdict = signalled(&mut stopped) => Err(verdict),
        };
        self.timings.push(("prepare", begun.elapsed()));
        match answers {
            Err(verdict) => Err(self.stopped_before_the_switch(verdict).await),
            Ok(answers) => {
                match self.unprepared(&answers, "not-healthy", "cannot prepare the release") {
                    None => Ok(answers),
                    Some(ending) => {
                        if lost(&answers) {
                            self.reconnect().await?;
                        }
                        self.abandon().await;
                        stop(ending)
                    }
                }
            }
        }
    }

    /// The clean stop on a signal while nothing is switched.
    pub(super) async fn stopped_before_the_switch(&mut self, verdict: Verdict) -> Box<Ending> {
        // The answers of the old connections would come in between: talk on new ones.
        if let Err(taken_over) = self.reconnect().await {
            return taken_over;
        }
        self.abandon().await;
        let text = self.nothing_switched("stopped by a signal");
        Box::new(Ending::new(verdict, "signal", Traffic::Old, text))
    }

    /// Stops what was prepared. Traffic was never touched; a host that does not answer keeps an idle process.
    pub(super) async fn abandon(&mut self) {
        self.hosts.ask(&Request::Abandon, QUICK, done).await;
    }
}
