//! What the controller and `region-host` say to each other over one ssh connection. Pure types, versioned.
//!
//! The controller writes one [`Request`] as a JSON line; `region-host` answers with any number of
//! [`Reply::Progress`] lines and then exactly one other [`Reply`]. A blob follows its `put-blob` request as
//! `size` raw bytes. When the controller closes its side, `region-host` ends with [`Reply::Bye`]: without that last
//! line the connection broke, and what was under way is unknown.

mod message;
mod view;

pub use message::{Denial, DenialKind, Prepared, Reply, Request, Switched};
pub use view::{HostFacts, IntentView, LeaseView, ServingView, SlotView};

/// Version of these messages. A controller speaks to a `region-host` of this version and of the one before.
pub const VERSION: u32 = 1;

/// The oldest version that is still understood.
pub const OLDEST: u32 = 1;

/// A line longer than this is not one of ours.
pub const LINE_LIMIT: usize = 1024 * 1024;
