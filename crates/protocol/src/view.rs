//! What a host says about itself: slots, traffic, lease, intent, history.

use regionwise_rollout::history::Event;
use regionwise_rollout::lease::{Holder, OperationKind};
use regionwise_rollout::release::Digest;
use regionwise_rollout::slot::{Slot, SlotState};
use serde::{Deserialize, Serialize};

/// Everything `status` observes on a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostFacts {
    pub helper: String,
    pub serving: Option<ServingView>,
    pub slots: Vec<SlotView>,
    /// The slot that the map file names.
    pub file: Option<Slot>,
    /// The slot that the running proxy uses; `None` with `proxy` set when it uses none.
    pub runtime: Option<Slot>,
    /// Why the proxy could not be asked.
    pub proxy_error: Option<String>,
    /// The `X-Release` of a request through the proxy.
    pub observed: Option<String>,
    pub intent: Option<IntentView>,
    pub lease: Option<LeaseView>,
    pub disk_free_bytes: u64,
    pub disk_total_bytes: u64,
    /// Wall clock of the host, milliseconds since 1970.
    pub clock_ms: u64,
    pub releases: Vec<String>,
    /// The last events, oldest first.
    pub history: Vec<Event>,
    /// The first history line whose hash does not fit.
    pub history_broken_at: Option<u64>,
}

/// A slot as observed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SlotView {
    pub slot: Slot,
    pub state: SlotState,
    pub release: Option<String>,
    pub digest: Option<Digest>,
    pub pid: Option<u32>,
    /// Whether that very process lives (same pid and start time).
    pub alive: bool,
}

/// The release that gets this host's traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingView {
    pub slot: Slot,
    pub release: String,
    pub digest: Digest,
    /// The operation that brought it.
    pub operation: String,
    /// Whether a rollout with it was closed here.
    pub verified: bool,
}

/// Who has the lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseView {
    pub holder: Holder,
    pub fence: u64,
    /// Zero when it is over.
    pub expires_in_ms: u64,
}

/// A switch that was begun and not yet confirmed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IntentView {
    pub operation: String,
    pub kind: OperationKind,
    pub to: String,
    /// Until the host goes back alone; `None` for a rollback.
    pub reverts_in_ms: Option<u64>,
}
