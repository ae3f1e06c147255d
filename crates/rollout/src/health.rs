//! What health endpoints say about a release: go on, pause, or roll back.
//!
//! Three endpoints, three questions, three consequences: `basic` (does the process answer?) and `full` (do its
//! dependencies?) can condemn a release; `db` (do the databases answer, how old are reads?) can only pause, because no
//! rollback heals a database. What could not be measured pauses too: **unknown is never ok**, and it is not the release's
//! fault either.

mod answer;
mod judge;
mod track;

use std::time::Duration;

pub use answer::{Looked, Reply, look};
pub use judge::{Ending, Looks, Reason, Target, judge};
pub use track::{Standing, Track};

/// Not measurable so often in a row, and nobody needs to look any longer.
const ERRORS_IN_A_ROW: u32 = 4;
/// An endpoint that changes its mind more often in one observation is bad, whatever its last answers were.
const STATE_CHANGES: u32 = 3;

/// The thresholds of one observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in a row that make an endpoint bad.
    pub failures: u32,
    /// Successes in a row that make it good.
    pub successes: u32,
    pub max_failing_dependencies: u32,
    /// Failures before the first success count only after this time.
    pub start_deadline: Duration,
    /// The observation lasts at least this long.
    pub at_least: Duration,
    pub lag_threshold: Duration,
    /// Lag over the threshold without a break for longer pauses.
    pub lag_sustained: Duration,
    /// One or two failing dependencies pause instead of being a warning.
    pub strict: bool,
}

impl Rule {
    /// When an observation that never settles is over.
    pub fn deadline(&self) -> Duration {
        let rounds = self.failures + self.successes + ERRORS_IN_A_ROW;
        // A probe that times out takes as long again to find out whether anybody is there.
        let round = self.interval + self.timeout * 2;
        self.at_least.max(self.start_deadline) + self.lag_sustained + round * rounds
    }
}

/// One of the three endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    Basic,
    Db,
    Full,
}

impl Endpoint {
    pub const ALL: [Self; 3] = [Self::Basic, Self::Db, Self::Full];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Db => "db",
            Self::Full => "full",
        }
    }
}
