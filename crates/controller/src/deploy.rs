//! One release to one region: prepare all, commit all, verify, confirm.
//!
//! Nothing is switched when one host cannot prepare; all go back when one cannot commit, when the region does not
//! look well through its proxies, or when a signal comes before the confirm.

mod bring;
mod look;
mod switch;

use std::time::{Duration, Instant};

use regionwise_protocol::{Reply, Switched};
use regionwise_remote::ssh::AskError;
use regionwise_rollout::Verdict;
use regionwise_rollout::lease::OperationKind;
use regionwise_rollout::region::{Traffic, after_acting, before_switch};
use regionwise_topology::{HealthRule, Region, RolloutRule};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::Narrator;
use crate::ending::Ending;
use crate::hosts::{Access, Answers, Hosts, Operation, first_error, hints, notes, outcomes};
use crate::release::Release;
use crate::unreached::not_opened;

/// How often a held lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(500);

/// Everything one deploy needs.
pub struct Deploy<'a> {
    pub region: &'a Region,
    pub access: &'a Access,
    pub operation: Operation,
    pub release: &'a Release,
    pub rule: &'a RolloutRule,
    pub health: &'a HealthRule,
    /// Wait this long for somebody else's lock.
    pub lock_wait: Duration,
    /// Go on although the hosts serve different releases.
    pub accept_drift: bool,
    /// Go on although what serves now is unhealthy.
    pub accept_unhealthy: bool,
    /// Look, say what would happen, change nothing.
    pub dry_run: bool,
    /// The controller's wall clock, milliseconds since 1970.
    pub clock_ms: fn() -> u64,
    /// Becomes the verdict of a clean stop when a signal comes.
    pub stop: watch::Receiver<Option<Verdict>>,
}

/// Brings the release to the region, or leaves the region as it was, and says which.
pub async fn deploy(deploy: &Deploy<'_>, say: Narrator<'_>) -> Ending {
    let begun = Instant::now();
    let mut stopped = deploy.stop.clone();
    let (hosts, failed) = tokio::select! {
        opened = Hosts::open(deploy.region, deploy.access) => opened,
        verdict = signalled(&mut stopped) => return Ending::new(verdict, "signal", Traffic::Old, "stopped while connecting; nothing was changed"),
    };
    if !failed.is_empty() {
        hosts.close().await;
        return not_opened(&failed);
    }
    let mut run = Run {
        deploy,
        say,
        hosts,
        before: None,
        timings: vec![("connect", begun.elapsed())],
    };
    let looked = tokio::select! {
        looked = run.before_the_lock() => looked,
        verdict = signalled(&mut stopped) => stop(Ending::new(verdict, "signal", Traffic::Old, "stopped before the lock; nothing was changed")),
    };
    let mut ending = match looked {
        Ok(()) => run.locked().await,
        Err(ending) => *ending,
    };
    ending.timings = run.timings;
    run.hosts.close().await;
    ending
}

/// An ending that stops the run early.
type Step<T> = Result<T, Box<Ending>>;

struct Run<'a> {
    deploy: &'a Deploy<'a>,
    say: Narrator<'a>,
    hosts: Hosts,
    /// What every host served before, if they agreed.
    before: Option<String>,
    timings: Vec<(&'static str, Duration)>,
}

impl Run<'_> {
    /// Everything that needs the lock; gives it back at the end, whatever happened.
    async fn locked(&mut self) -> Ending {
        let mut stopped = self.deploy.stop.clone();
        let locked = tokio::select! {
            locked = self.lock() => locked,
            verdict = signalled(&mut stopped) => {
                // Some locks may be ours already. One that is somebody else's stays so.
                let _ = self.reconnect().await;
                self.hosts.unlock().await;
                stop(Ending::new(verdict, "signal", Traffic::Old, "stopped while waiting for the lock; nothing was changed"))
            }
        };
        if let Err(ending) = locked {
            return *ending;
        }
        let ending = match self.switch().await {
            Ok(ending) => ending,
            Err(ending) => *ending,
        };
        self.hosts.unlock().await;
        ending
    }

    async fn lock(&mut self) -> Step<()> {
        let begun = Instant::now();
        let mut said = false;
        loop {
            let (host, error) = match self
                .hosts
                .lock(&self.deploy.operation, OperationKind::Deploy)
                .await
            {
                Ok(settled) => {
                    settled
                        .iter()
                        .for_each(|what| (self.say)(&format!("{what}.")));
                    self.timings.push(("lock", begun.elapsed()));
                    return Ok(());
                }
                Err(failed) => failed,
            };
            let answers: Answers<()> = vec![(host.clone(), Err(error))];
            let verdict = after_acting(&outcomes(&answers)).unwrap_or(Verdict::Unknown);
            if verdict == Verdict::Locked && begun.elapsed() < self.deploy.lock_wait {
                if !said {
                    (self.say)(&format!("waiting for the lock: {}", first_error(&answers)));
                    said = true;
                }
                sleep(LOCK_RETRY).await;
                continue;
            }
            let text = format!(
                "cannot lock {}: {}",
                self.deploy.region.name,
                first_error(&answers)
            );
            let mut ending = Ending::new(verdict, "locked", Traffic::Old, text);
            ending.hints.extend(hints(&answers));
            return stop(ending);
        }
    }

    async fn switch(&mut self) -> Step<Ending> {
        self.agree().await?;
        let mut stopped = self.deploy.stop.clone();
        let sent = tokio::select! {
            sent = self.send() => sent,
            verdict = signalled(&mut stopped) => Err(self.stopped_before_the_switch(verdict).await),
        };
        sent?;
        let prepared = self.prepare().await?;
        if prepared.iter().all(|(_, answer)| {
            answer
                .as_ref()
                .is_ok_and(|prepared| prepared.already_serving)
        }) {
            (self.say)("every host serves it already.");
        }
        self.commit().await?;
        self.verify().await?;
        self.confirm().await?;
        Ok(self.finish(&prepared).await)
    }

    /// The ending when a step before the switch failed somewhere.
    fn unprepared<T>(
        &self,
        answers: &Answers<T>,
        reason: &'static str,
        action: &str,
    ) -> Option<Ending> {
        let verdict = before_switch(&outcomes(answers))?;
        let text = self.nothing_switched(&format!("{action}: {}", first_error(answers)));
        let mut ending =
            Ending::new(verdict, reason, Traffic::Old, text).with_hosts(notes(answers, |_| None));
        ending.hints.extend(hints(answers));
        Some(ending)
    }

    fn nothing_switched(&self, why: &str) -> String {
        let region = &self.deploy.region.name;
        match &self.before {
            Some(name) => format!("nothing was switched in {region}, `{name}` serves: {why}"),
            None => format!("nothing was switched in {region}: {why}"),
        }
    }
}

/// Waits for a signal.
pub(crate) async fn signalled(stop: &mut watch::Receiver<Option<Verdict>>) -> Verdict {
    loop {
        if let Some(verdict) = *stop.borrow_and_update() {
            return verdict;
        }
        if stop.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

pub(crate) fn switched(reply: Reply) -> Option<Switched> {
    match reply {
        Reply::Switched(switched) => Some(switched),
        _ => None,
    }
}

fn lost<T>(answers: &Answers<T>) -> bool {
    answers
        .iter()
        .any(|(_, answer)| matches!(answer, Err(AskError::Lost { .. })))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn stop<T>(ending: Ending) -> Step<T> {
    Err(Box::new(ending))
}
