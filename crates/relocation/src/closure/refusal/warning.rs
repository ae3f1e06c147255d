//! What stops nothing and should be known.

use std::fmt;

use serde::Serialize;

use super::Side;

/// What a person should know, and what stops nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Warning {
    CollationsChanged {
        at: Side,
        names: Vec<String>,
    },
    MajorsDiffer {
        source: u32,
        target: u32,
    },
    EncodingsDiffer {
        source: String,
        target: String,
    },
    /// A commit does not wait for a standby: a promotion may lose the commit point of a user.
    AsynchronousStandby {
        at: Side,
        standbys: u32,
    },
    NoStandby {
        at: Side,
    },
    FewLocks {
        at: Side,
        slots: u64,
        least: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CollationsChanged { at, names } => write!(
                f,
                "{at}: {} sort otherwise than when they were made; indexes on text may be wrong",
                names.join(", ")
            ),
            Self::MajorsDiffer { source, target } => write!(
                f,
                "the source is Postgres {}, the target {}: equal bytes are proven by known answers only",
                source / 10_000,
                target / 10_000
            ),
            Self::EncodingsDiffer { source, target } => write!(
                f,
                "the source stores text as {source}, the target as {target}: a character that the target lacks pauses its user"
            ),
            Self::AsynchronousStandby { at, standbys } => write!(
                f,
                "{at}: none of {standbys} standbys is synchronous; after a promotion, `migrate-eu-users reconcile` comes before writes"
            ),
            Self::NoStandby { at } => {
                write!(
                    f,
                    "{at}: no standby is connected; a lost disk loses what moved"
                )
            }
            Self::FewLocks { at, slots, least } => write!(
                f,
                "{at}: room for {slots} locks, and {least} are wanted; raise max_locks_per_transaction"
            ),
        }
    }
}
