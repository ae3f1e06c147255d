//! How an operation on a region ended, host by host.

use std::time::Duration;

use regionwise_rollout::Verdict;
use regionwise_rollout::region::Traffic;
use serde::Serialize;

/// The result of one operation on one region.
#[derive(Clone, Debug)]
pub struct Ending {
    pub verdict: Verdict,
    /// One sentence: what is true now.
    pub summary: String,
    /// Why, as a word for programs.
    pub reason: &'static str,
    pub traffic: Traffic,
    /// Whether this run changed which release serves.
    pub changed: bool,
    pub hosts: Vec<HostEnding>,
    pub hints: Vec<String>,
    /// Steps and how long each took, in order.
    pub timings: Vec<(&'static str, Duration)>,
}

/// What one host ended on.
#[derive(Clone, Debug, Serialize)]
pub struct HostEnding {
    pub host: String,
    /// `None` when it is not known, or nothing serves.
    pub release: Option<String>,
    /// What happened there; empty when all went well.
    pub note: String,
}

impl Ending {
    pub(crate) fn new(
        verdict: Verdict,
        reason: &'static str,
        traffic: Traffic,
        summary: impl Into<String>,
    ) -> Self {
        Self {
            verdict,
            summary: summary.into(),
            reason,
            traffic,
            changed: false,
            hosts: Vec::new(),
            hints: Vec::new(),
            timings: Vec::new(),
        }
    }

    #[must_use]
    pub(crate) fn with_hosts(mut self, hosts: Vec<HostEnding>) -> Self {
        self.hosts = hosts;
        self
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn changed(mut self, changed: bool) -> Self {
        self.changed = changed;
        self
    }
}
