//! What a person asks of a run.

use std::time::Duration;

use crate::throttle::Throttle;

/// How a run works; none of it changes what the plan moves.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Batches in work at the same time; `None`: as many as the way to the target has room for.
    pub lanes: Option<usize>,
    /// Users per batch, at most [`MOST_USERS`].
    pub batch_size: u32,
    /// After this time nothing new is begun.
    pub max_runtime: Option<Duration>,
    pub throttle: Throttle,
    /// Copy and prove, switch nobody, leave nothing.
    pub rehearse: bool,
}

/// The home locks of a batch stand in the server's lock table, which has room for a few thousand.
pub const MOST_USERS: u32 = 500;

/// What a batch may undo when it fails. One user with more rows is a batch of its own size all the same.
pub(crate) const BATCH_ROWS: u64 = 50_000;

/// Users whose home locks are taken together: what one of them waits for is the seal of all.
pub(crate) const GROUP_USERS: usize = 100;
/// About 4 ms of seals.
pub(crate) const GROUP_ROWS: u64 = 3_000;

/// How often a user's changes are fetched outside the fence before the last ones are fetched under it.
pub(crate) const ROUNDS: u32 = 4;

/// What the writers of a user who never stops writing wait for at most, while the last changes are sent under the user's own
/// lock: some round trips, and both servers list and hash the user's rows, which takes one or two seconds for each million.
/// A target that has stopped would keep them for the ten minutes that any statement has.
pub(crate) fn longest_fence(rows: u64) -> Duration {
    Duration::from_secs(5 + 2 * rows.div_ceil(1_000_000))
}

/// Times that this may take too long before the user is set aside.
pub(crate) const LONG_FENCES: u32 = 2;

/// How long a lane tries to reach a cluster again, or to get a lock on the run's own books, before the run gives up.
pub(crate) const RECONNECT_WITHIN: Duration = Duration::from_secs(60);

/// How long a user's rows and keys at the target are tried again while somebody keeps them locked, before the user is set
/// aside: as long as a run holds out otherwise.
pub(crate) const LOCKED_WITHIN: Duration = RECONNECT_WITHIN;
