//! How an endpoint answered lately: good, bad and unmeasured answers in a row.

/// One look at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Good,
    /// It answered, and not well.
    Bad(String),
    /// Nothing was learnt about it: the network between, a name that does not resolve.
    Unmeasured(String),
}

/// Answers in a row. A good one ends every bad streak; a bad one counts as unmeasured too, so that an endpoint that
/// alternates between bad and silent cannot hide behind either.
#[derive(Clone, Debug, Default)]
pub struct Streak {
    good: u32,
    bad: u32,
    unmeasured: u32,
    last: String,
    relapses: Relapses,
}

/// Bad answers after a good one: what an endpoint that was up already has no excuse for.
#[derive(Clone, Debug, Default)]
struct Relapses {
    was_good: bool,
    count: u32,
    last: String,
}

impl Streak {
    pub fn add(&mut self, seen: Seen) {
        match seen {
            Seen::Good => {
                self.good += 1;
                (self.bad, self.unmeasured) = (0, 0);
                self.last.clear();
                self.relapses.was_good = true;
            }
            Seen::Bad(why) => {
                self.good = 0;
                self.bad += 1;
                self.unmeasured += 1;
                if self.relapses.was_good {
                    self.relapses.count += 1;
                    self.relapses.last.clone_from(&why);
                }
                self.last = why;
            }
            Seen::Unmeasured(why) => {
                self.good = 0;
                self.unmeasured += 1;
                self.last = why;
            }
        }
    }

    pub const fn good(&self) -> u32 {
        self.good
    }

    pub const fn bad(&self) -> u32 {
        self.bad
    }

    /// Answers in a row that were not good, measured or not.
    pub const fn unmeasured(&self) -> u32 {
        self.unmeasured
    }

    /// Bad answers since the first good one, in a row or not, and the last of them.
    pub fn relapses(&self) -> (u32, &str) {
        (self.relapses.count, &self.relapses.last)
    }

    /// Why the last answer was not good; empty when it was.
    pub fn last(&self) -> &str {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen, Streak};

    #[test]
    fn silence_between_bad_answers_does_not_end_the_bad_streak() {
        let mut streak = Streak::default();
        for seen in [
            Seen::Bad("500".into()),
            Seen::Unmeasured("dns".into()),
            Seen::Bad("500".into()),
        ] {
            streak.add(seen);
        }
        assert_eq!(
            (streak.bad(), streak.unmeasured(), streak.good()),
            (2, 3, 0)
        );
        streak.add(Seen::Good);
        assert_eq!(
            (streak.bad(), streak.unmeasured(), streak.good()),
            (0, 0, 1)
        );
    }

    #[test]
    fn only_bad_answers_after_a_good_one_are_relapses() {
        let mut streak = Streak::default();
        let bad = || Seen::Bad("500".into());
        for seen in [
            bad(),
            bad(),
            Seen::Good,
            bad(),
            Seen::Unmeasured("dns".into()),
            Seen::Good,
            bad(),
            Seen::Good,
        ] {
            streak.add(seen);
        }
        assert_eq!(streak.relapses(), (2, "500"));
        assert_eq!((streak.good(), streak.last()), (1, ""));
    }
}
