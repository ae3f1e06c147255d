//! The automaton of one standby: runs of samples that are not ok, and how long the longest got.

use std::time::Duration;

use super::{Cause, Class, Rule, Sample, Seen};

/// What is known about one standby so far.
#[derive(Clone, Debug)]
pub struct Track {
    rule: Rule,
    /// Until when there are samples.
    last: Duration,
    run: Option<Run>,
    /// Length of the longest run.
    longest: Duration,
    /// The first run that got too long, as it was then.
    breach: Option<Run>,
    runs: u32,
    ok_since: Option<Duration>,
    answered: bool,
    unknown: Duration,
    grey: u32,
    estimates: Vec<Duration>,
    widths: Vec<Duration>,
    highest: Duration,
    last_cause: Option<Cause>,
    /// The newest lag; a token under way that is still young does not replace it.
    current: Option<Duration>,
    pub(super) points: Vec<Point>,
}

/// A stretch without an ok.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Start of the first probe that was not ok.
    start: Duration,
    /// How much longer than that it must already have been bad: a lag of 10 s was over 500 ms for 9.5 s.
    before: Duration,
    /// End of the last probe that was not ok.
    end: Duration,
    /// Somebody measured too much lag; without it the run is only unknown.
    pub(super) bad: bool,
    last_unknown: bool,
    /// Why the last probe of it had no answer.
    pub(super) cause: Option<Cause>,
}

impl Run {
    pub(super) fn length(&self) -> Duration {
        self.end.saturating_sub(self.start) + self.before
    }
}

/// One sample, for pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) at: Duration,
    /// `None` when nobody knows.
    pub(super) lag: Option<Duration>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers {
    pub p50: Option<Duration>,
    pub p95: Option<Duration>,
    pub last: Option<Duration>,
    /// The highest lag that is certain or estimated.
    pub max: Option<Duration>,
    /// Median distance between the bounds.
    pub width: Option<Duration>,
    pub tokens: usize,
    pub grey: u32,
    /// Longest stretch without an ok.
    pub longest: Duration,
    pub runs: u32,
    pub unknown: Duration,
    /// Share of the observed time in which somebody knew, 0.0 to 1.0.
    pub coverage: f64,
}

impl Track {
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            last: Duration::ZERO,
            run: None,
            longest: Duration::ZERO,
            breach: None,
            runs: 0,
            ok_since: None,
            answered: false,
            unknown: Duration::ZERO,
            grey: 0,
            estimates: Vec::new(),
            widths: Vec::new(),
            highest: Duration::ZERO,
            last_cause: None,
            current: None,
            points: Vec::new(),
        }
    }

    /// Takes the next sample; samples come in the order of time.
    pub fn take(&mut self, sample: &Sample) {
        self.silence(sample.from);
        self.remember(sample);
        match sample.seen.class(&self.rule) {
            Class::Pending => self.answered = true,
            Class::Ok => self.ok(sample.from),
            Class::Bad => self.not_ok(sample, true),
            Class::Grey { over } => {
                self.grey += 1;
                match over {
                    true => self.not_ok(sample, true),
                    false => self.ok(sample.from),
                }
            }
            Class::Unknown => self.not_ok(sample, false),
        }
        self.last = self.last.max(sample.to);
    }

    /// Time has passed until `now` without a sample.
    pub fn silence(&mut self, now: Duration) {
        if now.saturating_sub(self.last) <= self.rule.longest_gap() {
            return;
        }
        self.unknown += now.saturating_sub(self.last);
        let last = self.last;
        let run = self.open(last);
        run.end = now;
        run.last_unknown = true;
        // A probe that is still under way says nothing new; the one before it knew more.
        if run.cause.is_none() {
            let detail = format!("no sample for {}", crate::spoken(now.saturating_sub(last)));
            let cause = Cause {
                word: "gap",
                detail,
            };
            run.cause = Some(cause.clone());
            self.last_cause = Some(cause);
        }
        self.points.push(Point {
            at: last,
            lag: None,
        });
        self.last = now;
        self.measure_run();
    }

    fn ok(&mut self, from: Duration) {
        self.answered = true;
        if let Some(run) = &mut self.run {
            run.end = run.end.max(from);
        }
        self.measure_run();
        self.run = None;
        self.ok_since.get_or_insert(from);
    }

    fn not_ok(&mut self, sample: &Sample, bad: bool) {
        let threshold = self.rule.threshold;
        let was_unknown = self.run.as_ref().is_some_and(|run| run.last_unknown);
        if bad {
            self.answered = true;
        } else {
            let since = if was_unknown { self.last } else { sample.from };
            self.unknown += sample.to.saturating_sub(since);
        }
        let run = self.open(sample.from);
        run.end = run.end.max(sample.to);
        run.bad |= bad;
        run.last_unknown = !bad;
        if let Seen::Unknown(cause) = &sample.seen {
            run.cause = Some(cause.clone());
        }
        if let Seen::AtLeast(lag) = sample.seen {
            let known = sample.from.saturating_sub(run.start);
            run.before = run
                .before
                .max(lag.saturating_sub(threshold).saturating_sub(known));
        }
        self.measure_run();
    }

    fn open(&mut self, start: Duration) -> &mut Run {
        self.ok_since = None;
        if self.run.is_none() {
            self.runs += 1;
        }
        self.run.get_or_insert(Run {
            start,
            before: Duration::ZERO,
            end: start,
            bad: false,
            last_unknown: false,
            cause: None,
        })
    }

    fn measure_run(&mut self) {
        let Some(run) = &self.run else { return };
        self.longest = self.longest.max(run.length());
        if run.length() > self.rule.sustained && self.breach.is_none() {
            self.breach = Some(run.clone());
        }
    }

    fn remember(&mut self, sample: &Sample) {
        let lag = match &sample.seen {
            Seen::Lag(bounds) => {
                self.estimates.push(bounds.estimate());
                self.widths.push(bounds.width());
                Some(bounds.estimate())
            }
            Seen::AtLeast(lag) => Some(*lag),
            Seen::Unknown(cause) => {
                self.last_cause = Some(cause.clone());
                None
            }
        };
        self.highest = self.highest.max(lag.unwrap_or_default());
        if sample.seen.class(&self.rule) != Class::Pending {
            self.current = lag;
        }
        self.points.push(Point { at: sample.to, lag });
    }

    /// Whether a run was longer than allowed.
    pub(crate) fn over_for_too_long(&self) -> bool {
        self.breach.is_some()
    }

    /// The first run that was longer than allowed.
    pub(super) fn breach(&self) -> Option<&Run> {
        self.breach.as_ref()
    }

    /// The run that is going on.
    pub(super) fn open_run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// Whether this standby ever answered.
    pub(super) fn answered(&self) -> bool {
        self.answered
    }

    /// For how long every sample has been ok.
    pub(super) fn clean_for(&self) -> Duration {
        self.ok_since
            .map_or(Duration::ZERO, |since| self.last.saturating_sub(since))
    }

    /// Whether a token was ever seen to arrive.
    pub(super) fn measured(&self) -> usize {
        self.estimates.len()
    }

    /// The newest reason for not knowing.
    pub fn last_cause(&self) -> Option<&Cause> {
        self.last_cause.as_ref()
    }

    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The newest lag, for a progress line; `None` while unknown.
    pub fn now(&self) -> Option<Duration> {
        self.current
    }

    pub fn numbers(&self) -> Numbers {
        let observed = self.last.as_secs_f64();
        let known = (observed - self.unknown.as_secs_f64()).max(0.0);
        Numbers {
            p50: percentile(&self.estimates, 50),
            p95: percentile(&self.estimates, 95),
            last: self.now(),
            max: (!self.points.iter().all(|point| point.lag.is_none())).then_some(self.highest),
            width: percentile(&self.widths, 50),
            tokens: self.estimates.len(),
            grey: self.grey,
            longest: self.longest,
            runs: self.runs,
            unknown: self.unknown,
            coverage: if observed > 0.0 {
                known / observed
            } else {
                0.0
            },
        }
    }
}

fn percentile(values: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last * percent).div_ceil(100)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Bounds;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn rule() -> Rule {
        Rule {
            threshold: ms(500),
            sustained: seconds(60),
            interval: SECOND,
            clear_for: seconds(10),
            observe: seconds(70),
            coarse: false,
        }
    }

    fn ok() -> Seen {
        Seen::Lag(Bounds {
            min: ms(10),
            max: ms(30),
        })
    }

    fn bad() -> Seen {
        Seen::Lag(Bounds {
            min: ms(600),
            max: ms(640),
        })
    }

    fn unknown() -> Seen {
        Seen::Unknown(Cause {
            word: "timeout",
            detail: String::new(),
        })
    }

    fn at(time: Duration, seen: Seen) -> Sample {
        Sample {
            from: time,
            to: time,
            seen,
        }
    }

    fn after(samples: impl IntoIterator<Item = Sample>) -> Track {
        let mut track = Track::new(rule());
        samples.into_iter().for_each(|sample| track.take(&sample));
        track
    }

    /// One sample a second from `from` to `to`, both included.
    fn every_second(from: u64, to: u64, seen: fn() -> Seen) -> impl Iterator<Item = Sample> {
        (from..=to).map(move |second| at(seconds(second), seen()))
    }

    #[test]
    fn a_minute_is_allowed_and_one_sample_more_is_not() {
        let minute = after(every_second(0, 60, bad));
        assert_eq!(minute.longest, seconds(60));
        assert!(minute.breach().is_none());
        assert!(after(every_second(0, 61, bad)).breach().is_some());
    }

    #[test]
    fn one_ok_ends_a_run() {
        let track = after(
            every_second(0, 59, bad)
                .chain(every_second(60, 60, ok))
                .chain(every_second(61, 119, bad)),
        );
        assert!(track.breach().is_none());
        assert_eq!((track.runs, track.longest), (2, seconds(60)));
    }

    #[test]
    fn unknown_starts_and_continues_a_run() {
        let track = after(every_second(0, 30, unknown).chain(every_second(31, 61, bad)));
        let breach = track.breach().expect("61 s without an ok");
        assert!(breach.bad);
        assert_eq!(track.unknown, seconds(30));
        let silent = after(every_second(0, 61, unknown));
        assert!(!silent.breach().expect("61 s of unknown").bad);
        assert!(!silent.answered());
    }

    #[test]
    fn silence_is_unknown_for_its_whole_length() {
        let track = after([
            at(seconds(1), ok()),
            at(seconds(4), ok()),
            at(seconds(10), ok()),
        ]);
        assert_eq!(
            track.unknown,
            seconds(6),
            "3 s are within three intervals, 6 s are not"
        );
        assert_eq!(track.longest, seconds(6));
        assert!((track.numbers().coverage - 0.4).abs() < 1e-9);
        assert!(
            after([at(seconds(1), ok()), at(seconds(62), ok())])
                .breach()
                .is_some(),
            "found out afterwards"
        );
        let mut quiet = after([at(seconds(1), ok())]);
        quiet.silence(seconds(62));
        assert!(quiet.breach().is_some(), "nobody came back at all");
        assert!(
            after([at(seconds(61), ok())]).breach().is_some(),
            "the first sample may be late too"
        );
    }

    #[test]
    fn a_lag_of_a_minute_was_too_long_before_it_was_measured() {
        let early = after([at(seconds(1), Seen::AtLeast(seconds(70)))]);
        assert!(early.breach().is_some());
        let shorter = after([at(seconds(1), Seen::AtLeast(ms(60_500)))]);
        assert!(
            shorter.breach().is_none(),
            "60.5 s of lag were over 500 ms for exactly 60 s"
        );
        assert_eq!(shorter.longest, seconds(60));
    }

    #[test]
    fn a_token_under_way_neither_ends_a_run_nor_starts_one() {
        let young = || Seen::AtLeast(ms(300));
        assert!(after(every_second(0, 65, young)).run.is_none());
        let alternating =
            (0..=61).flat_map(|s| [at(seconds(s), bad()), at(seconds(s) + ms(300), young())]);
        assert!(
            after(alternating).breach().is_some(),
            "a steady delay of 600 ms with a token every second"
        );
    }

    #[test]
    fn bounds_on_both_sides_count_by_their_estimate_and_are_counted() {
        let over = || {
            Seen::Lag(Bounds {
                min: ms(400),
                max: ms(700),
            })
        };
        let under = || {
            Seen::Lag(Bounds {
                min: ms(300),
                max: ms(600),
            })
        };
        assert!(after(every_second(0, 61, over)).breach().is_some());
        let track = after(every_second(0, 61, under));
        assert_eq!((track.runs, track.grey), (0, 62));
    }

    #[test]
    fn clean_time_counts_from_the_first_ok_after_the_last_bad() {
        let track = after(every_second(0, 4, bad).chain(every_second(5, 12, ok)));
        assert_eq!(track.clean_for(), seconds(7));
        assert_eq!(after(every_second(0, 4, bad)).clean_for(), Duration::ZERO);
    }

    #[test]
    fn numbers_are_those_of_the_samples() {
        let values = (1..=100).map(|n| {
            at(
                ms(n * 100),
                Seen::Lag(Bounds {
                    min: ms(n),
                    max: ms(n + 20),
                }),
            )
        });
        let numbers = after(values).numbers();
        assert_eq!((numbers.p50, numbers.p95), (Some(ms(61)), Some(ms(106))));
        assert_eq!(
            (numbers.max, numbers.last, numbers.width),
            (Some(ms(110)), Some(ms(110)), Some(ms(20)))
        );
        assert_eq!(Track::new(rule()).numbers().max, None);
    }

    /// What the samples say, painted on a line of 100 ms ticks. Even places are instants, odd ones the time between
    /// two; ok is only where an ok sample says so.
    fn naive_longest(samples: &[Sample]) -> Duration {
        let place_of = |time: Duration| usize::try_from(time.as_millis() / 50).unwrap();
        let time_of = |place: usize| ms(u64::try_from(place - place % 2).unwrap() * 50);
        let end = samples.last().map_or(0, |sample| place_of(sample.to));
        let mut ok_at: Vec<bool> = (0..=end)
            .map(|place| naive_ok(samples, ms(place as u64 * 50)))
            .collect();
        let mut before_start = Duration::ZERO;
        for sample in samples {
            if let Seen::AtLeast(lag) = sample.seen {
                let over = lag.saturating_sub(ms(500));
                before_start = before_start.max(over.saturating_sub(sample.from));
                let first =
                    place_of(sample.from.saturating_sub(over)) + usize::from(over <= sample.from);
                ok_at[first..=place_of(sample.from)].fill(false);
            }
        }
        let mut longest = Duration::ZERO;
        let mut start: Option<usize> = None;
        for (place, is_ok) in ok_at.iter().enumerate() {
            if !is_ok || start.is_some() {
                let began = *start.get_or_insert(place);
                let before = if began == 0 {
                    before_start
                } else {
                    Duration::ZERO
                };
                longest = longest.max(time_of(place) - time_of(began) + before);
            }
            if *is_ok {
                start = None;
            }
        }
        longest
    }

    fn naive_ok(samples: &[Sample], time: Duration) -> bool {
        let before = samples.iter().rfind(|sample| sample.from <= time);
        let silent_from = before.map_or(Duration::ZERO, |sample| sample.to);
        let silent_to = samples
            .iter()
            .find(|sample| sample.from > time)
            .map_or(time, |sample| sample.from);
        let silent = silent_to.saturating_sub(silent_from) > seconds(3)
            && (time > silent_from || before.is_none());
        before.is_none_or(|sample| sample.seen.class(&rule()) == Class::Ok) && !silent
    }

    /// Samples as a prober makes them: in order, and no lag older than the last ok allows.
    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let steps = prop::collection::vec((1u64..40, 0u64..30, 0u8..60, 1u64..700), 1..90);
        (steps, 1u8..30).prop_map(|(steps, oks)| {
            let (mut now, mut last_ok) = (0, None);
            let mut samples = Vec::new();
            for (wait, took, kind, lag) in steps {
                now += wait;
                let from = now;
                let seen = match kind {
                    kind if kind < oks => ok(),
                    30..40 => bad(),
                    40..50 => unknown(),
                    _ => {
                        let most = last_ok.map_or(700, |ok| from - ok);
                        Seen::AtLeast(ms(500 + lag.min(most) * 100))
                    }
                };
                let quick = matches!(seen, Seen::Lag(_) | Seen::AtLeast(_));
                now += if quick { 0 } else { took };
                if matches!(seen.class(&rule()), Class::Ok) {
                    last_ok = Some(from);
                }
                samples.push(Sample {
                    from: ms(from * 100),
                    to: ms(now * 100),
                    seen,
                });
            }
            samples
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_automaton_agrees_with_a_naive_reading_of_the_whole_line(samples in samples()) {
            let track = after(samples.iter().cloned());
            let naive = naive_longest(&samples);
            prop_assert_eq!(track.longest, naive);
            prop_assert_eq!(track.breach().is_some(), naive > rule().sustained);
        }
    }
}
