//! One endpoint of one target over time.

use std::time::Duration;

use super::{ERRORS_IN_A_ROW, Looked, Rule, STATE_CHANGES};
use crate::lag;
use crate::streak::{Seen, Streak};

/// Everything seen of one endpoint.
#[derive(Clone, Debug)]
pub struct Track {
    rule: Rule,
    streak: Streak,
    ever_good: bool,
    was_good: Option<bool>,
    changes: u32,
    looks: u32,
    last: Option<Looked>,
    /// The last answer that named dependencies, good or bad.
    failing: Vec<String>,
    latencies: Vec<Duration>,
    lag: lag::Track,
    /// Lag was measured at least once; from then on not knowing it counts.
    has_lag: bool,
    lag_is_bad: bool,
}

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not yet certain.
    Open,
    Good,
    Failed,
    /// Good and bad in turns.
    Flapping,
    /// Reads are too old for too long.
    LagTooLong,
    NotMeasured,
}

impl Standing {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Good => "good",
            Self::Failed => "failed",
            Self::Flapping => "flapping",
            Self::LagTooLong => "lagging",
            Self::NotMeasured => "not-measured",
        }
    }
}

impl Track {
    pub fn new(rule: Rule) -> Self {
        let lag = lag::Rule {
            threshold: rule.lag_threshold,
            sustained: rule.lag_sustained,
            // A probe that times out comes that much later than the next interval.
            interval: rule.interval + rule.timeout * 2,
            clear_for: Duration::ZERO,
            observe: Duration::ZERO,
            coarse: true,
        };
        Self {
            rule,
            streak: Streak::default(),
            ever_good: false,
            was_good: None,
            changes: 0,
            looks: 0,
            last: None,
            failing: Vec::new(),
            latencies: Vec::new(),
            lag: lag::Track::new(lag),
            has_lag: false,
            lag_is_bad: false,
        }
    }

    /// Takes the next look, which ended at `now`.
    pub fn take(&mut self, now: Duration, looked: Looked) {
        self.looks += 1;
        self.latencies.extend(looked.latency);
        let good = match looked.seen {
            Seen::Good => Some(true),
            Seen::Bad(_) => Some(false),
            Seen::Unmeasured(_) => None,
        };
        if let Some(good) = good {
            self.ever_good |= good;
            self.failing.clone_from(&looked.failing);
            if self
                .was_good
                .replace(good)
                .is_some_and(|before| before != good)
            {
                self.changes += 1;
            }
        }
        self.take_lag(now, &looked);
        self.streak.add(looked.seen.clone());
        self.last = Some(looked);
    }

    fn take_lag(&mut self, now: Duration, looked: &Looked) {
        self.has_lag |= looked.lag.is_some();
        if !self.has_lag {
            return;
        }
        let seen = match (&looked.seen, looked.lag) {
            (_, Some(lag)) => lag::Seen::Lag(lag::Bounds { min: lag, max: lag }),
            // Reads go to the primary: there is no lag to watch.
            (Seen::Good, None) => lag::Seen::Lag(lag::Bounds {
                min: Duration::ZERO,
                max: Duration::ZERO,
            }),
            (Seen::Bad(why) | Seen::Unmeasured(why), None) => lag::Seen::Unknown(lag::Cause {
                word: "unknown",
                detail: why.clone(),
            }),
        };
        self.lag_is_bad = looked.lag.is_some_and(|lag| lag > self.rule.lag_threshold);
        self.lag.take(&lag::Sample {
            from: now,
            to: now,
            seen,
        });
    }

    /// What is certain at `now`.
    pub fn standing(&self, now: Duration) -> Standing {
        let rule = &self.rule;
        let starting = !self.ever_good && now < rule.start_deadline;
        if starting {
            return Standing::Open;
        }
        if self.streak.bad() >= rule.failures {
            return Standing::Failed;
        }
        if self.changes > STATE_CHANGES {
            return Standing::Flapping;
        }
        if self.streak.unmeasured() >= ERRORS_IN_A_ROW {
            return Standing::NotMeasured;
        }
        if self.lag.over_for_too_long() {
            return Standing::LagTooLong;
        }
        if self.streak.good() >= rule.successes && !self.lag_is_bad {
            return Standing::Good;
        }
        Standing::Open
    }

    /// How many looks there were.
    pub fn looks(&self) -> u32 {
        self.looks
    }

    /// The last look.
    pub fn last(&self) -> Option<&Looked> {
        self.last.as_ref()
    }

    /// Dependencies that failed in the last answer that named any.
    pub fn failing(&self) -> &[String] {
        &self.failing
    }

    /// Why it is not good; empty when it is.
    pub fn why(&self) -> String {
        match self.last.as_ref().and_then(|last| last.lag) {
            Some(lag) if self.lag_is_bad => {
                let threshold = crate::spoken(self.rule.lag_threshold);
                format!("reads are {} old, over {threshold}", crate::spoken(lag))
            }
            _ if self.changes > STATE_CHANGES => {
                format!("good and bad in turns, {} changes", self.changes)
            }
            _ => self.streak.last().to_owned(),
        }
    }

    /// Median and highest latency of the answers.
    pub fn latency(&self) -> Option<(Duration, Duration)> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    pub(in crate::health) const RULE: Rule = Rule {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(2),
        failures: 3,
        successes: 3,
        max_failing_dependencies: 2,
        start_deadline: Duration::ZERO,
        at_least: Duration::ZERO,
        lag_threshold: Duration::from_millis(500),
        lag_sustained: Duration::from_secs(60),
        strict: false,
    };

    pub(in crate::health) fn looked(seen: Seen) -> Looked {
        Looked {
            seen,
            wrong_release: false,
            failing: Vec::new(),
            lag: None,
            status: None,
            release: None,
            latency: None,
        }
    }

    fn bad() -> Looked {
        looked(Seen::Bad("status 500".to_owned()))
    }

    fn unmeasured() -> Looked {
        looked(Seen::Unmeasured("dns".to_owned()))
    }

    fn good() -> Looked {
        looked(Seen::Good)
    }

    fn lag(millis: u64) -> Looked {
        Looked {
            lag: Some(ms(millis)),
            ..good()
        }
    }

    /// A look every second, the first at 0 s; the standing right after the last.
    fn after(rule: Rule, looks: impl IntoIterator<Item = Looked>) -> Standing {
        let mut track = Track::new(rule);
        let mut now = Duration::ZERO;
        for (second, looked) in (0..).zip(looks) {
            now = Duration::from_secs(second);
            track.take(now, looked);
        }
        track.standing(now)
    }

    fn of(looks: impl IntoIterator<Item = Looked>) -> Standing {
        after(RULE, looks)
    }

    #[test]
    fn three_in_a_row_decide() {
        assert_eq!(of([]), Standing::Open);
        assert_eq!(of([good(), good()]), Standing::Open);
        assert_eq!(of([good(), good(), good()]), Standing::Good);
        assert_eq!(of([bad(), bad()]), Standing::Open);
        assert_eq!(of([bad(), bad(), bad()]), Standing::Failed);
        assert_eq!(of([bad(), bad(), good(), bad(), bad()]), Standing::Open);
        assert_eq!(of([bad(), good(), good(), good()]), Standing::Good);
    }

    #[test]
    fn not_measurable_four_times_is_an_error_and_never_a_failure() {
        assert_eq!(
            of([unmeasured(), unmeasured(), unmeasured()]),
            Standing::Open
        );
        assert_eq!(
            of([unmeasured(), unmeasured(), unmeasured(), unmeasured()]),
            Standing::NotMeasured
        );
        assert_eq!(
            of([bad(), unmeasured(), bad(), unmeasured(), bad()]),
            Standing::Failed,
            "fail before error"
        );
    }

    #[test]
    fn more_than_three_changes_are_flapping_whatever_comes_last() {
        let flapping = [good(), bad(), good(), bad(), good()];
        assert_eq!(of(flapping.clone()), Standing::Flapping);
        assert_eq!(
            of(flapping.into_iter().chain([good(), good(), good()])),
            Standing::Flapping
        );
        assert_eq!(
            of([good(), bad(), good(), bad(), unmeasured(), bad()]),
            Standing::Open,
            "three changes"
        );
    }

    #[test]
    fn a_release_may_take_its_time_to_start_but_no_longer() {
        let slow = Rule {
            start_deadline: Duration::from_secs(60),
            ..RULE
        };
        let starting = |bads: usize| (0..bads).map(|_| bad());
        assert_eq!(after(slow, starting(60)), Standing::Open);
        assert_eq!(
            after(slow, starting(55).chain([good(), good(), good()])),
            Standing::Good
        );
        assert_eq!(after(slow, starting(61)), Standing::Failed);
        assert_eq!(
            after(slow, [good(), bad(), bad(), bad()]),
            Standing::Failed,
            "it had started"
        );
    }

    #[test]
    fn lag_over_the_threshold_pauses_after_a_minute_without_a_break() {
        let seconds = |count: usize, millis: u64| (0..count).map(move |_| lag(millis));
        assert_eq!(of(seconds(61, 600)), Standing::Open, "60 s");
        assert_eq!(of(seconds(62, 600)), Standing::LagTooLong, "61 s");
        assert_eq!(
            of(seconds(59, 600).chain([lag(10)]).chain(seconds(59, 600))),
            Standing::Open
        );
        assert_eq!(
            of(seconds(10, 10_000).chain(seconds(3, 10))),
            Standing::Good,
            "one spike of 10 s"
        );
        assert_eq!(
            of(seconds(3, 500)),
            Standing::Good,
            "exactly the threshold is allowed"
        );
    }

    #[test]
    fn latencies_are_those_of_the_answers() {
        let mut track = Track::new(RULE);
        assert_eq!(track.latency(), None);
        for millis in [5, 1, 9] {
            track.take(
                Duration::ZERO,
                Looked {
                    latency: Some(ms(millis)),
                    ..good()
                },
            );
        }
        track.take(Duration::ZERO, unmeasured());
        assert_eq!(track.latency(), Some((ms(5), ms(9))));
        assert_eq!((track.looks(), track.why().as_str()), (4, "dns"));
    }
}
