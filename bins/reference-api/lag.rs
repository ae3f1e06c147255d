//! How far the reader is behind the writer, from numbered tokens. Pure: times come in as arguments.
//!
//! A token is a number written on the primary; it is visible once the reader answers with that number or a later one. All
//! times are this process's own monotonic clock, so no difference between servers' clocks can enter. For one token
//! lag is at least `last poll that did not see it - commit`, at most `first poll that saw it - start of the write`. While
//! a token is outstanding its lag rises; an idle database has no lag, because the tokens themselves are the traffic.

use std::collections::VecDeque;
use std::time::Duration;

/// Time on the monotonic clock, since the start of the heartbeat.
pub(crate) type Mono = Duration;

/// The worst token of this time is the lag: one slow token must still be seen by a probe every second.
const WINDOW: Duration = Duration::from_secs(1);

/// Without a token seen for this time, and none outstanding, nothing is known.
const STALE: Duration = Duration::from_secs(3);

/// At four tokens a second this is a standby that is 16 s behind; the oldest token tells how far.
const OUTSTANDING: usize = 64;

#[derive(Default)]
pub(crate) struct TokenLag {
    outstanding: VecDeque<Token>,
    seen: VecDeque<Sample>,
    /// Why the last write or poll failed; forgotten when the same works again.
    write_failure: Option<String>,
    poll_failure: Option<String>,
}

struct Token {
    number: u64,
    sent: Mono,
    committed: Option<Mono>,
    /// When the last poll that did not see it was sent.
    missed: Option<Mono>,
}

struct Sample {
    at: Mono,
    bounds: Bounds,
}

/// What the lag lies between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Bounds {
    /// The best single number: the middle.
    pub(crate) fn estimate(self) -> Duration {
        (self.min + self.max) / 2
    }
}

impl TokenLag {
    /// A token is about to be written.
    pub(crate) fn sent(&mut self, number: u64, now: Mono) {
        if self.outstanding.len() < OUTSTANDING {
            self.outstanding.push_back(Token {
                number,
                sent: now,
                committed: None,
                missed: None,
            });
        }
    }

    pub(crate) fn committed(&mut self, number: u64, now: Mono) {
        self.write_failure = None;
        if let Some(token) = self
            .outstanding
            .iter_mut()
            .find(|token| token.number == number)
        {
            token.committed = Some(now);
        }
    }

    /// The write failed: the token may or may not exist, so nothing is measured by it.
    pub(crate) fn not_written(&mut self, number: u64, reason: String) {
        self.write_failure = Some(reason);
        self.outstanding.retain(|token| token.number != number);
    }

    /// The reader answered with the newest token it has.
    pub(crate) fn polled(&mut self, newest: u64, sent: Mono, arrived: Mono) {
        self.poll_failure = None;
        while let Some(token) = self
            .outstanding
            .pop_front_if(|token| token.number <= newest)
        {
            self.seen.push_back(Sample {
                at: arrived,
                bounds: token.bounds(arrived),
            });
        }
        for token in &mut self.outstanding {
            if token.sent <= sent {
                token.missed = Some(sent);
            }
        }
        while self.seen.len() > 1
            && self
                .seen
                .front()
                .is_some_and(|sample| arrived - sample.at > STALE)
        {
            self.seen.pop_front();
        }
    }

    pub(crate) fn poll_failed(&mut self, reason: String) {
        self.poll_failure = Some(reason);
    }

    /// How long the oldest token has been waited for.
    pub(crate) fn waiting(&self, now: Mono) -> Option<Duration> {
        self.outstanding
            .front()
            .map(|token| now.saturating_sub(token.sent))
    }

    /// The lag now, or why it is not known.
    pub(crate) fn now(&self, now: Mono) -> Result<Bounds, String> {
        if let Some(reason) = self.poll_failure.as_ref().or(self.write_failure.as_ref()) {
            return Err(reason.clone());
        }
        let age = |sample: &Sample| now.saturating_sub(sample.at);
        let recent = self
            .seen
            .iter()
            .filter(|sample| age(sample) <= WINDOW)
            .map(|sample| sample.bounds);
        let waiting = self.outstanding.front().map(|token| token.bounds(now));
        // A token seen a while ago still says something when the newest one was sent just now.
        let last = self
            .seen
            .back()
            .filter(|sample| age(sample) <= STALE)
            .map(|sample| sample.bounds);
        recent
            .chain(waiting.filter(|_| last.is_some() || self.waiting(now) > Some(WINDOW)))
            .max_by_key(|bounds| bounds.estimate())
            .or(last)
            .ok_or_else(|| "no token has been seen yet".to_owned())
    }
}

impl Token {
    fn bounds(&self, now: Mono) -> Bounds {
        let min = match (self.missed, self.committed) {
            (Some(missed), Some(committed)) => missed.saturating_sub(committed),
            // Not known to be committed: perhaps it is not late at all.
            _ => Duration::ZERO,
        };
        Bounds {
            min,
            max: now.saturating_sub(self.sent).max(min),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bounds, TokenLag};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn bounds(min: u64, max: u64) -> Bounds {
        Bounds {
            min: ms(min),
            max: ms(max),
        }
    }

    #[test]
    fn lag_lies_between_the_last_poll_that_missed_the_token_and_the_first_that_saw_it() {
        let mut lag = TokenLag::default();
        lag.sent(1, ms(100));
        lag.committed(1, ms(110));
        lag.polled(0, ms(150), ms(152));
        lag.polled(1, ms(170), ms(175));
        assert_eq!(lag.now(ms(180)), Ok(bounds(40, 75)));
    }

    #[test]
    fn a_slow_way_to_the_writer_is_not_counted_as_least_lag() {
        let mut lag = TokenLag::default();
        lag.sent(1, ms(0));
        // Polled before the commit was known: says nothing about lag.
        lag.polled(0, ms(100), ms(101));
        lag.committed(1, ms(220));
        lag.polled(1, ms(221), ms(222));
        assert_eq!(lag.now(ms(230)), Ok(bounds(0, 222)));
    }

    #[test]
    fn lag_rises_while_a_token_is_outstanding() {
        let mut lag = TokenLag::default();
        lag.sent(1, ms(0));
        lag.committed(1, ms(1));
        lag.polled(1, ms(2), ms(3));
        lag.sent(2, ms(250));
        lag.committed(2, ms(251));
        for now in [1_000_u64, 5_000, 60_000] {
            lag.polled(1, ms(now - 2), ms(now - 1));
            assert_eq!(lag.now(ms(now)), Ok(bounds(now - 2 - 251, now - 250)));
        }
    }

    #[test]
    fn an_idle_moment_is_not_lag() {
        let mut lag = TokenLag::default();
        lag.sent(1, ms(0));
        lag.committed(1, ms(1));
        lag.polled(1, ms(2), ms(3));
        assert_eq!(lag.now(ms(2_900)), Ok(bounds(0, 3)));
    }

    #[test]
    fn the_worst_token_of_the_last_second_counts() {
        let mut lag = TokenLag::default();
        for (number, sent, seen) in [(1, 0, 400), (2, 500, 505)] {
            lag.sent(number, ms(sent));
            lag.committed(number, ms(sent + 1));
            lag.polled(number, ms(seen - 1), ms(seen));
        }
        assert_eq!(lag.now(ms(1_300)), Ok(bounds(0, 400)));
        assert_eq!(lag.now(ms(1_450)), Ok(bounds(0, 5)));
    }

    #[test]
    fn a_later_token_shows_that_an_earlier_one_lost_in_a_failover_will_not_come() {
        let mut lag = TokenLag::default();
        lag.sent(1, ms(0));
        lag.committed(1, ms(1));
        lag.sent(2, ms(250));
        lag.committed(2, ms(251));
        lag.polled(2, ms(260), ms(261));
        assert_eq!(lag.waiting(ms(300)), None);
    }

    #[test]
    fn nothing_seen_and_everything_failed_are_unknown_never_zero() {
        let mut lag = TokenLag::default();
        assert!(lag.now(ms(0)).is_err());

        lag.sent(1, ms(0));
        lag.not_written(1, "cannot write the token".to_owned());
        assert_eq!(lag.now(ms(10)), Err("cannot write the token".to_owned()));

        lag.sent(2, ms(20));
        lag.committed(2, ms(21));
        lag.polled(2, ms(22), ms(23));
        assert!(lag.now(ms(30)).is_ok());
        lag.poll_failed("cannot read the token".to_owned());
        assert_eq!(lag.now(ms(40)), Err("cannot read the token".to_owned()));
    }

    #[test]
    fn a_measurement_grows_old() {
        let mut lag = TokenLag::default();
        lag.sent(1, ms(0));
        lag.committed(1, ms(1));
        lag.polled(1, ms(2), ms(3));
        assert!(lag.now(ms(3_500)).is_err());
    }

    #[test]
    fn a_reader_that_never_shows_the_first_token_is_late_not_unknown() {
        let mut lag = TokenLag::default();
        lag.sent(1, ms(0));
        lag.committed(1, ms(1));
        lag.polled(0, ms(1_990), ms(1_995));
        assert_eq!(lag.now(ms(2_000)), Ok(bounds(1_989, 2_000)));
    }

    #[test]
    fn memory_is_bounded_while_a_reader_stands_still() {
        let mut lag = TokenLag::default();
        for number in 0..10_000 {
            lag.sent(number + 1, ms(number));
        }
        assert_eq!(lag.waiting(ms(10_000)), Some(ms(10_000)));
        assert_eq!(lag.outstanding.len(), super::OUTSTANDING);
    }
}
