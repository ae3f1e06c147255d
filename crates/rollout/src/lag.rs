//! The gate "lag over a threshold for longer than a while", for one standby at a time.
//!
//! Lag is visibility lag: from a commit on the root primary to the first statement on the standby that sees it. A
//! [`Track`] takes samples in the order of time, all on one monotonic clock, and [`judge`] says what they allow. The rule
//! behind every line: **unknown is never ok**. A probe without an answer counts like one with too much lag, silence
//! between two samples counts like a probe without an answer, and only an observed, clean end lets a rollout go on.

mod chart;
mod reason;
mod state;
mod tokens;
mod track;

use std::time::Duration;

pub use chart::sparkline;
pub use reason::{Ending, Observed, Reason, Refusal, Warning, judge, wait, warnings};
pub use state::{Facts, Flow, PrimaryFacts, State, refusal};
pub use tokens::{Looks, StandingBeat, Token, behind_at_start};
pub use track::{Numbers, Track};

/// Missing samples: after this many intervals of silence nobody can say how the standby was.
const GAP_INTERVALS: u32 = 3;

/// The thresholds of one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub threshold: Duration,
    /// Strictly longer than this over the threshold, and the gate pauses.
    pub sustained: Duration,
    pub interval: Duration,
    /// The last part of the observation that must be clean.
    pub clear_for: Duration,
    /// A gate that passes has looked at least this long.
    pub observe: Duration,
    /// Accept measurements too uncertain for the threshold.
    pub coarse: bool,
}

impl Rule {
    pub(crate) fn longest_gap(&self) -> Duration {
        self.interval * GAP_INTERVALS
    }
}

/// The lag of one token lies between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub min: Duration,
    pub max: Duration,
}

impl Bounds {
    /// From the clock readings around a token: `sent` and `acked` at the primary, `unseen` when the last look that
    /// missed it was sent, `seen` when the first look that found it came back.
    pub fn of_token(
        sent: Duration,
        acked: Duration,
        unseen: Option<Duration>,
        seen: Duration,
    ) -> Self {
        let min = unseen.unwrap_or_default().saturating_sub(acked);
        Self {
            min,
            max: seen.saturating_sub(sent).max(min),
        }
    }

    pub fn estimate(&self) -> Duration {
        self.min + self.width() / 2
    }

    /// Two round trips and the time between two looks: how uncertain the measurement is.
    pub fn width(&self) -> Duration {
        self.max.saturating_sub(self.min)
    }
}

/// Why a probe has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// A word for programs: `timeout`, `refused`, `auth`, `starting-up`, `gap`.
    pub word: &'static str,
    /// The whole sentence, for people.
    pub detail: String,
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A token arrived.
    Lag(Bounds),
    /// A token is still missing after this time.
    AtLeast(Duration),
    Unknown(Cause),
}

/// One probe of one standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the probe was sent, since the start of the observation.
    pub from: Duration,
    /// When its answer, or the lack of one, was known.
    pub to: Duration,
    pub seen: Seen,
}

/// What a sample means under a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Ok,
    Bad,
    /// The bounds lie on both sides of the threshold; the estimate decides, and the report says how often.
    Grey {
        over: bool,
    },
    /// A token is under way, not yet longer than allowed: says nothing about ok or bad, only that somebody answers.
    Pending,
    Unknown,
}

impl Seen {
    pub(crate) fn class(&self, rule: &Rule) -> Class {
        let threshold = rule.threshold;
        match self {
            Self::Lag(bounds) if bounds.max <= threshold => Class::Ok,
            Self::Lag(bounds) if bounds.min > threshold => Class::Bad,
            Self::Lag(bounds) => Class::Grey {
                over: bounds.estimate() > threshold,
            },
            Self::AtLeast(lag) if *lag > threshold => Class::Bad,
            Self::AtLeast(_) => Class::Pending,
            Self::Unknown(_) => Class::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bounds;
    use std::time::Duration;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn bounds_hold_the_true_lag_whatever_the_round_trips_are() {
        // Commit at 120, visible at 300: 180 ms, seen through round trips of 40 and 60 ms.
        let bounds = Bounds::of_token(ms(100), ms(140), Some(ms(260)), ms(360));
        assert_eq!((bounds.min, bounds.max), (ms(120), ms(260)));
        assert_eq!(bounds.estimate(), ms(190));
        // Found by the first look: anything from nothing to the whole time.
        assert_eq!(
            Bounds::of_token(ms(100), ms(140), None, ms(170)).min,
            Duration::ZERO
        );
        // A look that was sent before the commit was acknowledged proves nothing.
        assert_eq!(
            Bounds::of_token(ms(100), ms(140), Some(ms(130)), ms(170)).min,
            Duration::ZERO
        );
    }
}
