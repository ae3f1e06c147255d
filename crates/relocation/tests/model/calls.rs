//! `regionwise.change()` in the model: the lock, then [`apply`], in one step. And what the broken variants make of it.

use regionwise_relocation::protocol::{
    self, Call, Change, Expected, Next, Outcome, Route, State, To, apply,
};

use crate::broken::Broken;
use crate::world::{
    B, Config, Mover, NOBODY, RUN_NAMES, RUNS, Row, S, Sent, Set, Step, T, World, digest, token,
};

impl Config {
    /// Executes a call, or `None` while somebody holds the home lock.
    pub(crate) fn execute(&self, world: &mut World, sent: &Sent, mover: usize) -> Option<Outcome> {
        if self.is_locked(sent.step) && !self.free(world, sent.at, B, true, [NOBODY, mover]) {
            return None;
        }
        let cluster = world.clusters[sent.at];
        let stale = match sent.step {
            Step::Release => self.is(Broken::OldSnapshot),
            Step::FencedRelease => true,
            Step::Stage
            | Step::Activate
            | Step::Cancel
            | Step::Reopen
            | Step::Purge
            | Step::ActivateFirst
            | Step::ReopenFirst => false,
        };
        let now = if stale {
            sent.before
        } else {
            self.closure(&cluster, B)
        };
        let row = cluster.route.map(Row::route);
        let change = self.break_expectation(sent, cluster.route).change();
        let found = if self.compares(sent.step) {
            Some(digest(now))
        } else {
            change.digest
        };
        let call = Call {
            run: RUN_NAMES[usize::from(sent.run)],
            claim: world.runs[usize::from(sent.run)].map(|run| token(run.claim)),
            digest: found,
            rows: u64::from(now.count_ones()),
        };
        let outcome = apply(row.as_ref(), &change, &call);
        if let Outcome::Changed(route) = &outcome {
            self.changed(world, sent, route);
        }
        Some(outcome)
    }

    fn changed(&self, world: &mut World, sent: &Sent, route: &Route) {
        let before = world.clusters[sent.at];
        let released = matches!(sent.step, Step::Release | Step::FencedRelease);
        if released && sent.at == S && self.promote.is_some() && !world.promoted {
            let claims = std::array::from_fn::<u16, RUNS, _>(|run| {
                world.runs[run].map_or(0, |run| run.claim)
            });
            world.saved = Some((before, claims));
        }
        let row = Row::of(route, Some(sent.run));
        world.went_back |= before
            .route
            .is_some_and(|old| old.epoch > row.epoch || old.token > row.token);
        let cluster = &mut world.clusters[sent.at];
        cluster.route = Some(row);
        cluster.purging = false;
        self.route_changed(world, sent.at, 1 << B);
    }

    fn is_locked(&self, step: Step) -> bool {
        !self.is(match step {
            Step::Stage => Broken::RaiseNoLock,
            Step::Release | Step::FencedRelease => Broken::ReleaseNoLock,
            Step::Activate | Step::ActivateFirst => Broken::ActivateNoLock,
            Step::Cancel | Step::Reopen | Step::ReopenFirst | Step::Purge => return true,
        })
    }

    fn compares(&self, step: Step) -> bool {
        !self.is(match step {
            Step::Release => Broken::ReleaseNoDigest,
            Step::Activate => Broken::ActivateNoDigest,
            Step::FencedRelease
            | Step::Stage
            | Step::Cancel
            | Step::Reopen
            | Step::Purge
            | Step::ActivateFirst
            | Step::ReopenFirst => return true,
        })
    }

    /// A broken `change()` that does not look at what it should compare.
    fn break_expectation(&self, sent: &Sent, row: Option<Row>) -> Set {
        let any_state = match sent.step {
            Step::Stage => self.is(Broken::StageAnyState),
            Step::Release | Step::FencedRelease => self.is(Broken::ReleaseAnyState),
            Step::Activate => self.is(Broken::ActivateAnyState),
            Step::Reopen => self.is(Broken::ReopenAnyState),
            Step::Cancel | Step::Purge | Step::ActivateFirst | Step::ReopenFirst => false,
        };
        let mut set = sent.set;
        if any_state {
            // All but the token, which is another rule.
            set.from = row.map(|row| (row.state, row.epoch, sent.set.from.and_then(|from| from.2)));
        }
        set
    }

    /// A broken computation of a change.
    pub(crate) fn break_set(&self, step: Step, mut set: Set, me: &Mover) -> Set {
        match step {
            Step::Stage if self.is(Broken::StageAnyToken) => {
                set.from = set.from.map(|from| (from.0, from.1, None));
            }
            Step::Activate if self.is(Broken::ActivateAnyToken) => {
                set.from = set.from.map(|from| (from.0, from.1, None));
            }
            Step::Cancel if self.is(Broken::CancelKeepsEpoch) => {
                set.to.1 = me.seen[1 - me.source].map_or(0, |row| row.epoch);
            }
            Step::Release | Step::FencedRelease => {
                if self.is(Broken::ReleaseNoClaim) {
                    set.claim = None;
                }
                if self.is(Broken::ReleaseKeepsEpoch) {
                    set.to.1 = me.seen[me.source].map_or(0, |row| row.epoch);
                }
                if self.is(Broken::ReleaseBehindTarget) {
                    set.to.1 = me.seen[me.source].map_or(0, |row| row.epoch) + 1;
                }
            }
            Step::Reopen | Step::ReopenFirst => {
                if self.is(Broken::ReopenNoClaim) {
                    set.claim = None;
                }
            }
            Step::Stage | Step::Activate | Step::Cancel | Step::Purge | Step::ActivateFirst => {}
        }
        set
    }

    /// A broken choice of the next step.
    pub(crate) fn break_next(&self, next: Next, me: &Mover) -> Next {
        let (Some(source), Some(target)) = (me.seen[me.source], me.seen[1 - me.source]) else {
            return next;
        };
        if self.is(Broken::RestageCancelled) && matches!(next, Next::Reopen(_) | Next::Cancel(_)) {
            return Next::Stage(by_hand(target, State::Staging, target.epoch, me.token));
        }
        let staged = source.state == State::Moved && target.state == State::Staging;
        if self.is(Broken::PurgeEarly) && staged && target.token == Some(me.token) {
            return Next::Settled(protocol::Settled::Moved);
        }
        let any_epoch = self.is(Broken::ActivateAnyEpoch) && target.token == Some(me.token);
        let any_token = self.is(Broken::ActivateAnyToken) && source.epoch > target.epoch;
        if staged && target.run == Some(me.run) && (any_epoch || any_token) {
            let change = by_hand(target, State::Active, source.epoch, me.token);
            return Next::Activate(Change {
                digest: source.digest.map(digest),
                ..change
            });
        }
        next
    }

    pub(crate) fn activates_first(&self, world: &World, me: Mover, rows: u8) -> Mover {
        let (Some(source), Some(target)) = (me.seen[me.source], me.seen[1 - me.source]) else {
            return me;
        };
        let change = by_hand(target, State::Active, source.epoch + 1, me.token);
        let change = Change {
            digest: Some(digest(rows)),
            ..change
        };
        self.calling(world, me, Step::ActivateFirst, &change)
    }

    pub(crate) fn releases_after_activation(&self, world: &World, me: Mover) -> Mover {
        let (Some(source), Some(rows)) =
            (me.seen[me.source], me.call.and_then(|sent| sent.set.digest))
        else {
            return me;
        };
        let change = by_hand(source, State::Moved, source.epoch + 1, me.token);
        let change = Change {
            digest: Some(digest(rows)),
            claim: Some(token(me.token)),
            ..change
        };
        self.calling(world, me, Step::Release, &change)
    }

    pub(crate) fn reopens_first(
        &self,
        world: &World,
        me: Mover,
        source: &Route,
        target: &Route,
    ) -> Option<Mover> {
        let cancelled = Route {
            state: State::Cancelled,
            epoch: source.epoch,
            ..target.clone()
        };
        let change = protocol::reopen(source, &cancelled, token(me.token)).ok()?;
        Some(self.calling(world, me, Step::ReopenFirst, &change))
    }

    pub(crate) fn cancels_after_reopening(&self, world: &World, me: Mover) -> Mover {
        let routes = me.seen.map(|row| row.map(Row::route));
        match (&routes[me.source], &routes[1 - me.source]) {
            (Some(source), Some(target)) => match protocol::cancel(source, target, token(me.token))
            {
                Ok(change) => self.calling(world, me, Step::Cancel, &change),
                Err(_) => Self::look_again(&me),
            },
            (Some(_), None) | (None, _) => Self::look_again(&me),
        }
    }
}

fn by_hand(seen: Row, state: State, epoch: u8, held: u16) -> Change {
    let route = seen.route();
    Change {
        from: Some(Expected {
            state: route.state,
            epoch: route.epoch,
            token: route.token,
        }),
        to: To {
            state,
            epoch: crate::world::epoch(epoch),
            token: token(held),
        },
        digest: None,
        claim: None,
    }
}

impl World {
    pub(crate) fn routes(&self) -> [Option<Route>; 2] {
        [S, T].map(|cluster| self.clusters[cluster].route.map(Row::route))
    }
}
