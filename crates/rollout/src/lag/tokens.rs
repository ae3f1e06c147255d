//! From tokens written on the primary and looks at a standby to samples. All times are of one monotonic clock.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Bounds, Rule, Sample, Seen};

/// The writer beats at least this often; a beat that is missing may be this much younger than the one before it.
const WRITER_INTERVAL: Duration = Duration::from_secs(1);
/// A token's own "not yet" is never further back than a few looks.
const LOOKS: usize = 8;

/// A committed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub seq: u64,
    /// Before the write was sent.
    pub sent: Duration,
    /// When its commit was known.
    pub acked: Duration,
}

/// What one standby has shown so far.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    /// When each of the last looks was sent, and the token that it saw.
    looks: VecDeque<(Duration, u64)>,
    reported: u64,
}

impl Looks {
    /// A look that was sent at `from`, came back at `to` and saw the token `seen` (0 for none). `None` when it says
    /// nothing new: every token was seen before.
    pub fn look(
        &mut self,
        tokens: &[Token],
        rule: &Rule,
        from: Duration,
        to: Duration,
        seen: u64,
    ) -> Option<Sample> {
        let missing = tokens
            .iter()
            .find(|token| token.seq > seen && token.acked < from);
        let waits = missing.map(|token| from.saturating_sub(token.acked));
        let newest = tokens.iter().rfind(|token| token.seq <= seen);
        let arrived = newest
            .filter(|token| token.seq > self.reported)
            .map(|token| {
                let unseen = self
                    .looks
                    .iter()
                    .rfind(|(_, saw)| *saw < token.seq)
                    .map(|(sent, _)| *sent);
                self.reported = token.seq;
                Bounds::of_token(token.sent, token.acked, unseen, to)
            });
        self.looks.push_back((from, seen));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        let seen = match (waits, arrived) {
            // The token that is missing for too long counts, not the older one that came at last.
            (Some(waits), _) if waits > rule.threshold => Seen::AtLeast(waits),
            (_, Some(bounds)) => Seen::Lag(bounds),
            (Some(waits), None) => Seen::AtLeast(waits),
            (None, None) => return None,
        };
        Some(Sample { from, to, seen })
    }
}

/// The newest beat of another writer: on the primary, and what the standby shows of it. Read on the primary first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StandingBeat {
    /// The primary's clock at the reading.
    pub clock: f64,
    /// The primary's clock at the beat that the primary has.
    pub primary: f64,
    /// The primary's clock at the beat that the standby has; `None` when it has none.
    pub standby: Option<f64>,
}

impl StandingBeat {
    /// How far behind the standby must have been before we came. Both stamps are the primary's, so no skew enters.
    pub fn at_least(&self) -> Duration {
        match self.standby {
            Some(standby) if standby < self.primary => {
                Duration::try_from_secs_f64(self.clock - standby)
                    .unwrap_or_default()
                    .saturating_sub(WRITER_INTERVAL)
            }
            // It has everything, or it never had this writer's row: nothing to say about time.
            Some(_) | None => Duration::ZERO,
        }
    }
}

/// What two readings in a row prove. One alone could meet a writer that has just come back after a long pause.
pub fn behind_at_start(first: &StandingBeat, second: &StandingBeat) -> Option<Duration> {
    let least = first.at_least().min(second.at_least());
    (!least.is_zero()).then_some(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const RULE: Rule = Rule {
        threshold: ms_const(500),
        sustained: ms_const(60_000),
        interval: ms_const(1000),
        clear_for: ms_const(10_000),
        observe: ms_const(70_000),
        coarse: false,
    };

    const fn ms_const(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn token(seq: u64, sent: u64) -> Token {
        Token {
            seq,
            sent: ms(sent),
            acked: ms(sent + 10),
        }
    }

    #[test]
    fn a_token_that_arrives_lies_between_the_look_that_missed_it_and_the_one_that_found_it() {
        let tokens = [token(1, 1000)];
        let mut looks = Looks::default();
        assert_eq!(
            looks.look(&tokens, &RULE, ms(1005), ms(1015), 0),
            None,
            "sent before the commit was known"
        );
        let waiting = looks.look(&tokens, &RULE, ms(1050), ms(1060), 0).unwrap();
        assert_eq!(waiting.seen, Seen::AtLeast(ms(40)));
        let found = looks.look(&tokens, &RULE, ms(1100), ms(1110), 1).unwrap();
        assert_eq!(
            found.seen,
            Seen::Lag(Bounds {
                min: ms(40),
                max: ms(110)
            })
        );
        assert_eq!(
            looks.look(&tokens, &RULE, ms(1200), ms(1210), 1),
            None,
            "idle and caught up: nothing new"
        );
    }

    #[test]
    fn a_token_seen_before_its_commit_was_known_keeps_its_true_bounds() {
        let mut looks = Looks::default();
        looks.look(&[], &RULE, ms(1001), ms(1003), 0);
        assert_eq!(looks.look(&[], &RULE, ms(1004), ms(1006), 1), None);
        let late = looks
            .look(&[token(1, 1000)], &RULE, ms(1030), ms(1032), 1)
            .unwrap();
        assert_eq!(
            late.seen,
            Seen::Lag(Bounds {
                min: ms(0),
                max: ms(32)
            })
        );
    }

    #[test]
    fn catching_up_is_judged_by_the_newest_token() {
        let tokens = [token(1, 1000), token(2, 2000), token(3, 3000)];
        let mut looks = Looks::default();
        assert_eq!(
            looks
                .look(&tokens, &RULE, ms(3050), ms(3051), 0)
                .unwrap()
                .seen,
            Seen::AtLeast(ms(2040))
        );
        let caught_up = looks.look(&tokens, &RULE, ms(3100), ms(3101), 3).unwrap();
        assert_eq!(
            caught_up.seen,
            Seen::Lag(Bounds {
                min: ms(40),
                max: ms(101)
            })
        );
    }

    #[test]
    fn the_oldest_missing_token_counts_when_it_is_missing_for_too_long() {
        let tokens = [token(1, 1000), token(2, 2000), token(3, 3000)];
        let mut looks = Looks::default();
        let behind = looks.look(&tokens, &RULE, ms(3020), ms(3021), 1).unwrap();
        assert_eq!(behind.seen, Seen::AtLeast(ms(1010)));
    }

    #[test]
    fn a_standing_writer_tells_the_lag_from_before_we_came() {
        let beat = |clock, primary, standby| StandingBeat {
            clock,
            primary,
            standby,
        };
        let behind = beat(1000.0, 999.8, Some(929.0));
        assert_eq!(behind.at_least(), Duration::from_secs(70));
        assert_eq!(
            behind_at_start(&behind, &beat(1001.0, 1000.9, Some(929.0))),
            Some(Duration::from_secs(70))
        );
        let resumed = beat(1001.0, 1000.9, Some(1000.9));
        assert_eq!(
            behind_at_start(&behind, &resumed),
            None,
            "the writer had paused, not the standby"
        );
        assert_eq!(
            beat(1000.0, 996.0, Some(996.0)).at_least(),
            Duration::ZERO,
            "a writer that has just died"
        );
        assert_eq!(beat(1000.0, 996.0, None).at_least(), Duration::ZERO);
    }
}
