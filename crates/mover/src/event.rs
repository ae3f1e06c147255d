//! What happens in a run, as it happens: for progress, stalls and the report. Nothing here carries a user's key.

use std::time::Duration;

use regionwise_relocation::protocol::State;

/// Something a person who watches wants to know.
#[derive(Clone, Debug)]
pub enum Event {
    /// So many users wait for a move now.
    Placed { users: u64 },
    /// A lane has begun, or gone on with, a batch.
    Claimed {
        lane: usize,
        batch: i32,
        users: usize,
        taken_over: bool,
    },
    /// Rows of a batch are at the target, proven equal to the source's and to what went over the wire.
    Shipped {
        lane: usize,
        batch: i32,
        rows: u64,
        bytes: u64,
        took: Duration,
    },
    /// Users are served by the target now; for each, how long its writers met the fence, and its rows.
    Moved {
        lane: usize,
        stalls: Vec<Duration>,
        rows: u64,
    },
    /// Users wrote meanwhile and come again with what they changed.
    Again { lane: usize, users: usize },
    /// Users could not be moved and stay where they are.
    SetAside {
        lane: usize,
        users: usize,
        reason: String,
    },
    /// A rehearsal leaves users out: the target has routes of them already, in this state.
    NotRehearsed {
        lane: usize,
        users: usize,
        state: State,
    },
    /// The run waits: for what, and what it sees.
    Waiting { reason: String },
    /// What it waited for is over.
    GoesOn,
    /// A connection of a lane, or of the run itself, broke, or waited too long for a lock; it is opened again, and what is
    /// true is looked at.
    Reconnecting { lane: Option<usize>, error: String },
}
