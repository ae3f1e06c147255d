//! `[gates]` and `[rollout]`: when a rollout goes on, and how fast.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{DurationText, Name, UrlPath};
use crate::model::OnFailure;

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GatesFile {
    /// Pauses a rollout when a standby is more than `threshold` behind for longer than `sustained`.
    pub(crate) lag: LagFile,
    /// When an endpoint counts as bad, and a release with it.
    pub(crate) health: HealthFile,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LagFile {
    /// A standby that is further behind is lagging.
    pub(crate) threshold: DurationText,
    /// Lagging for longer than this is a breach.
    pub(crate) sustained: DurationText,
    /// Time between two probes of one standby.
    pub(crate) interval: DurationText,
    /// The last part of the observation that must be clean.
    pub(crate) clear_for: DurationText,
    /// Upper limit for one probe, connecting included.
    pub(crate) timeout: DurationText,
}

// 500 ms for 60 s: a user who reads from a standby notices half a second, and a minute rules out a vacuum, a
// checkpoint or one large transaction. A probe gets 3 s because connecting across an ocean takes five round trips.
impl Default for LagFile {
    fn default() -> Self {
        Self {
            threshold: DurationText::new("500ms"),
            sustained: DurationText::new("60s"),
            interval: DurationText::new("1s"),
            clear_for: DurationText::new("10s"),
            timeout: DurationText::new("3s"),
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HealthFile {
    /// Where the product says that a process can serve; `region-host install --health-path` must name the same.
    pub(crate) basic_path: UrlPath,
    /// Time between two probes of one endpoint.
    pub(crate) interval: DurationText,
    /// Upper limit for one probe, connecting included.
    pub(crate) timeout: DurationText,
    /// Failures in a row that make an endpoint bad; right after a switch also as many between good answers.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) failures: u32,
    /// Successes in a row that make it good.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) successes: u32,
    /// More failing dependencies than this are bad for the release.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) max_failing_dependencies: u32,
}

impl Default for HealthFile {
    fn default() -> Self {
        Self {
            basic_path: UrlPath("/health/basic".to_owned()),
            interval: DurationText::new("2s"),
            timeout: DurationText::new("2s"),
            failures: 3,
            successes: 3,
            max_failing_dependencies: 2,
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RolloutFile {
    /// Names of regions, wave by wave; each wave waits for the one before. Left out, the regions go one by one in
    /// ascending traffic.
    #[schemars(title = "a list of waves, each a list of regions")]
    pub(crate) waves: Option<Vec<Vec<Name>>>,
    /// Which regions go back when one fails.
    pub(crate) on_failure: OnFailure,
    /// Wait between the gates and the close of a region. May be `0s`.
    pub(crate) soak: DurationText,
    /// How long a release may take to become healthy in its slot.
    pub(crate) start_deadline: DurationText,
    /// All hosts of a region must have switched within this time.
    pub(crate) commit_window: DurationText,
    /// How long `deploy-region` looks at the switched region before it confirms.
    pub(crate) verify: DurationText,
    /// Without a confirm in this time a host switches back by itself. Must be longer than `commit_window`, `verify`
    /// and the last probes together.
    pub(crate) confirm_within: DurationText,
    /// How long the old slot may finish its requests.
    pub(crate) drain: DurationText,
    /// A lock that its holder does not renew ends after this time.
    pub(crate) lock_ttl: DurationText,
}

impl Default for RolloutFile {
    fn default() -> Self {
        Self {
            waves: None,
            on_failure: OnFailure::Region,
            soak: DurationText::new("0s"),
            start_deadline: DurationText::new("60s"),
            commit_window: DurationText::new("5s"),
            verify: DurationText::new("30s"),
            confirm_within: DurationText::new("90s"),
            drain: DurationText::new("30s"),
            lock_ttl: DurationText::new("120s"),
        }
    }
}
