//! One monotonic clock for the whole run: everything is measured since its start.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }

    /// The instant at which the clock shows `time`.
    pub(crate) fn at(&self, time: Duration) -> Instant {
        self.0 + time
    }
}
