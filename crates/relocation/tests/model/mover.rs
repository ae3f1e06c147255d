//! The mover: looks at both routes, asks [`protocol::next`], does that one thing, and looks again. This is the loop of
//! `migrate-eu-users run` with everything taken out that is not about order.

use regionwise_relocation::protocol::{self, Change, Next, Outcome, Settled, State};

use crate::broken::Broken;
use crate::world::{
    B, Config, Doing, IDLE, Mover, NOBODY, ORDERS, RUN_NAMES, Row, Sent, Set, Step, World, digest,
    token,
};

impl Config {
    /// The home lock of B that a mover's open transactions hold in a cluster: exclusive or shared.
    pub(crate) fn holds(&self, mover: &Mover, cluster: usize) -> Option<bool> {
        let source = cluster == mover.source;
        match mover.doing {
            Doing::Delta | Doing::DeltaCommit | Doing::FenceCommit if source => {
                (!mover.lost).then_some(true)
            }
            Doing::CopyCommit | Doing::MendCommit | Doing::DeltaCommit if !source => {
                (!self.is(Broken::CopyNoLock)).then_some(false)
            }
            Doing::PurgeCommit if source => (!self.is(Broken::PurgeNoLock)).then_some(false),
            Doing::Idle
            | Doing::Refused
            | Doing::Done
            | Doing::Look
            | Doing::Decide
            | Doing::Call
            | Doing::Copy
            | Doing::Mend
            | Doing::CopyCommit
            | Doing::MendCommit
            | Doing::Digest
            | Doing::Mismatch
            | Doing::Fence
            | Doing::Delta
            | Doing::DeltaCommit
            | Doing::FenceCommit
            | Doing::Purge
            | Doing::PurgeCommit => None,
        }
    }

    pub(crate) fn look_again(mover: &Mover) -> Mover {
        Mover {
            doing: Doing::Look,
            seen: [None; 2],
            call: None,
            puts: 0,
            dels: 0,
            lost: false,
            ..*mover
        }
    }

    pub(crate) fn ends(mover: &Mover, doing: Doing) -> Mover {
        Mover {
            doing,
            late: mover.late,
            ..IDLE
        }
    }

    pub(crate) fn mover_step(&self, world: &mut World, number: usize) -> bool {
        let me = world.movers[number];
        let target = 1 - me.source;
        match me.doing {
            Doing::Idle | Doing::Refused | Doing::Done => return false,
            Doing::Look | Doing::Mismatch => {
                let first = if self.target_first { target } else { me.source };
                let mut fresh = Self::look_again(&me);
                fresh.seen[first] = world.clusters[first].route;
                world.movers[number] = Mover {
                    doing: Doing::Decide,
                    ..fresh
                };
            }
            Doing::Decide => self.decide(world, number),
            Doing::Call => {
                let Some(sent) = me.call else { return false };
                let Some(outcome) = self.execute(world, &sent, number) else {
                    return false;
                };
                self.answered(world, number, sent, &outcome);
            }
            Doing::Copy => {
                let image = self.closure(&world.clusters[me.source], B);
                return self.write(world, number, image, [Doing::CopyCommit, Doing::Digest]);
            }
            Doing::Mend => return self.mend(world, number),
            Doing::CopyCommit => {
                write_rows(world, number, target);
                world.movers[number].doing = Doing::Digest;
            }
            Doing::MendCommit => {
                write_rows(world, number, target);
                world.movers[number] = Self::look_again(&me);
            }
            Doing::Digest => {
                let rows = self.closure(&world.clusters[target], B);
                self.send_release(world, number, rows);
            }
            Doing::Fence => return self.fence(world, number),
            Doing::Delta => {
                let image = self.closure(&world.clusters[me.source], B);
                return self.write(
                    world,
                    number,
                    image,
                    [Doing::DeltaCommit, Doing::FenceCommit],
                );
            }
            Doing::DeltaCommit => {
                write_rows(world, number, target);
                world.movers[number].doing = Doing::FenceCommit;
            }
            Doing::FenceCommit => self.fence_commit(world, number),
            Doing::Purge => return self.purge(world, number),
            Doing::PurgeCommit => self.purge_commit(world, number),
        }
        true
    }

    /// Reads the second route and chooses.
    fn decide(&self, world: &mut World, number: usize) {
        let mut me = world.movers[number];
        let (source, target) = (me.source, 1 - me.source);
        let second = if self.target_first { source } else { target };
        me.seen[second] = world.clusters[second].route;
        me.late |= me.seen[source].is_some_and(|row| row.state == State::Moved);
        let routes = me.seen.map(|row| row.map(Row::route));
        let (at_source, at_target) = (routes[source].as_ref(), routes[target].as_ref());
        let run = RUN_NAMES[usize::from(me.run)];
        let next = protocol::next(at_source, at_target, run, token(me.token));
        let next = self.break_next(next, &me);
        if let (Next::Settled(_), Some(run)) = (&next, &mut world.runs[usize::from(me.run)]) {
            run.done = true;
        }
        world.movers[number] = match next {
            Next::Stage(change) => self.calling(world, me, Step::Stage, &change),
            Next::Activate(change) => self.calling(world, me, Step::Activate, &change),
            Next::Cancel(change) => self.calling(world, me, Step::Cancel, &change),
            Next::Reopen(change) => self.calling(world, me, Step::Reopen, &change),
            Next::Copy => Mover {
                doing: Doing::Copy,
                ..me
            },
            Next::Settled(Settled::Moved) => Mover {
                doing: Doing::Purge,
                ..me
            },
            Next::Settled(Settled::Home) => Self::ends(&me, Doing::Done),
            Next::Elsewhere(_) | Next::Refuse(_) => Self::ends(&me, Doing::Refused),
        };
    }

    pub(crate) fn calling(&self, world: &World, me: Mover, step: Step, change: &Change) -> Mover {
        let at = match step {
            Step::Release
            | Step::FencedRelease
            | Step::Reopen
            | Step::ReopenFirst
            | Step::Purge => me.source,
            Step::Stage | Step::Activate | Step::ActivateFirst | Step::Cancel => 1 - me.source,
        };
        let sent = Sent {
            step,
            at,
            run: me.run,
            set: self.break_set(step, Set::of(change), &me),
            before: self.closure(&world.clusters[at], B),
        };
        Mover {
            doing: Doing::Call,
            call: Some(sent),
            ..me
        }
    }

    fn answered(&self, world: &mut World, number: usize, sent: Sent, outcome: &Outcome) {
        let me = world.movers[number];
        world.movers[number] = match (outcome, sent.step) {
            (Outcome::ClaimLost, _) => Self::ends(&me, Doing::Refused),
            (Outcome::Differs, Step::Release | Step::FencedRelease) => Mover {
                doing: Doing::Mismatch,
                call: None,
                ..me
            },
            (Outcome::Differs, _) => Mover {
                doing: Doing::Mend,
                call: None,
                ..me
            },
            (Outcome::Changed(_) | Outcome::Done, Step::Purge | Step::Reopen) => {
                Self::ends(&me, Doing::Done)
            }
            (Outcome::Changed(_), Step::ReopenFirst) => self.cancels_after_reopening(world, me),
            (Outcome::Changed(_), Step::ActivateFirst) => self.releases_after_activation(world, me),
            (Outcome::Changed(_) | Outcome::Done | Outcome::Stale, _) => Self::look_again(&me),
        };
        let took_over = matches!((outcome, sent.step), (Outcome::Changed(_), Step::Stage));
        if took_over && self.terminate && !self.is(Broken::TerminateFirst) {
            self.terminate_older(world, number);
        }
    }

    /// Older backends of the batch are gone on both sides, with whatever they had open.
    pub(crate) fn terminate_older(&self, world: &mut World, number: usize) {
        let mine = world.movers[number].token;
        for other in 0..world.movers.len() {
            let theirs = world.movers[other];
            if other != number && theirs.token < mine && Self::is_open(&theirs) {
                world.movers[other] = Self::look_again(&theirs);
            }
        }
        world.ghost = None;
        world.ghost_fence = [false; 2];
        world.orphans = [None; 2];
    }

    pub(crate) fn is_open(mover: &Mover) -> bool {
        match mover.doing {
            Doing::Call
            | Doing::CopyCommit
            | Doing::MendCommit
            | Doing::Delta
            | Doing::DeltaCommit
            | Doing::FenceCommit
            | Doing::PurgeCommit => true,
            Doing::Idle
            | Doing::Refused
            | Doing::Done
            | Doing::Look
            | Doing::Decide
            | Doing::Copy
            | Doing::Mend
            | Doing::Digest
            | Doing::Mismatch
            | Doing::Fence
            | Doing::Purge => false,
        }
    }

    fn send_release(&self, world: &mut World, number: usize, rows: u8) {
        let me = world.movers[number];
        if self.is(Broken::ActivateFirst) {
            world.movers[number] = self.activates_first(world, me, rows);
            return;
        }
        let routes = me.seen.map(|row| row.map(Row::route));
        world.movers[number] = match (&routes[me.source], &routes[1 - me.source]) {
            (Some(source), Some(target)) => {
                match protocol::release(source, target, token(me.token), digest(rows)) {
                    Ok(change) => self.calling(world, me, Step::Release, &change),
                    Err(_) => Self::ends(&me, Doing::Refused),
                }
            }
            (Some(_), None) | (None, _) => Self::ends(&me, Doing::Refused),
        };
    }

    /// Gives the move up.
    pub(crate) fn give_up(&self, world: &mut World, number: usize) -> bool {
        let mut me = world.movers[number];
        let (source, target) = (me.source, 1 - me.source);
        let second = if self.target_first { source } else { target };
        me.seen[second] = world.clusters[second].route;
        let Some(cancelling) = self.cancelling(world, me) else {
            return false;
        };
        world.movers[number] = cancelling;
        true
    }

    fn cancelling(&self, world: &World, me: Mover) -> Option<Mover> {
        let source = me.seen[me.source].map(Row::route)?;
        let target = me.seen[1 - me.source].map(Row::route)?;
        let change = protocol::cancel(&source, &target, token(me.token)).ok()?;
        if self.is(Broken::ReopenFirst) && source.state == State::Moved {
            return self.reopens_first(world, me, &source, &target);
        }
        Some(self.calling(world, me, Step::Cancel, &change))
    }

    /// Writes B's rows at the target so that they become `image`, in a transaction that stays open until its COMMIT.
    fn write(
        &self,
        world: &mut World,
        number: usize,
        image: u8,
        [commit, nothing]: [Doing; 2],
    ) -> bool {
        let me = world.movers[number];
        let target = 1 - me.source;
        if !self.may_enter(&me, world.clusters[target].route) {
            world.movers[number] = Self::ends(&me, Doing::Refused);
            return true;
        }
        if !self.is(Broken::CopyNoLock) && !self.free(world, target, B, false, [NOBODY, number]) {
            return false;
        }
        let there = self.closure(&world.clusters[target], B);
        let (puts, dels) = (image & !there, there & !image);
        if self.row_is_locked(world, number, target, puts | dels) {
            return false;
        }
        let doing = if puts | dels == 0 { nothing } else { commit };
        world.movers[number] = Mover {
            puts,
            dels,
            doing,
            ..me
        };
        if doing == Doing::Look {
            world.movers[number] = Self::look_again(&me);
        }
        true
    }

    fn may_enter(&self, me: &Mover, row: Option<Row>) -> bool {
        let held = if self.is(Broken::CopyAnyToken) {
            row.and_then(|row| row.token)
        } else {
            Some(me.token)
        };
        let during = match row {
            Some(row) if self.is(Broken::CopyAnyState) => row.state,
            Some(_) | None => State::Staging,
        };
        let run = RUN_NAMES[usize::from(me.run)];
        held.is_some_and(|held| {
            protocol::enters(row.map(Row::route).as_ref(), run, token(held), during)
        })
    }

    /// An open write of the same row.
    fn row_is_locked(&self, world: &World, number: usize, cluster: usize, rows: u8) -> bool {
        let by_mover = world.movers.iter().enumerate().any(|(other, mover)| {
            let writes = matches!(
                mover.doing,
                Doing::CopyCommit | Doing::MendCommit | Doing::DeltaCommit
            );
            other != number
                && writes
                && 1 - mover.source == cluster
                && (mover.puts | mover.dels) & rows != 0
        });
        let by_ghost = world
            .ghost
            .is_some_and(|ghost| ghost.at == cluster && (ghost.puts | ghost.dels) & rows != 0);
        by_mover || by_ghost
    }

    /// P7 found other rows: from the source's frozen ones, if those are still what was released.
    fn mend(&self, world: &mut World, number: usize) -> bool {
        let me = world.movers[number];
        let source = world.clusters[me.source];
        let image = self.closure(&source, B);
        let released = me.seen[me.source].and_then(|row| row.digest);
        let frozen = source.route.is_some_and(|row| row.state == State::Moved);
        if frozen && released == Some(image) {
            return self.write(world, number, image, [Doing::MendCommit, Doing::Look]);
        }
        world.movers[number] = self
            .cancelling(world, me)
            .unwrap_or_else(|| Self::look_again(&me));
        true
    }

    /// A hot user: the fence stays open over the last delta. One statement takes lock, row and claim, the next the digest.
    fn fence(&self, world: &mut World, number: usize) -> bool {
        let me = world.movers[number];
        if !self.free(world, me.source, B, true, [NOBODY, number]) {
            return false;
        }
        let row = world.clusters[me.source].route;
        let claimed = world.runs[usize::from(me.run)].is_some_and(|run| run.claim == me.token);
        world.movers[number] = if !claimed {
            Self::ends(&me, Doing::Refused)
        } else if row != me.seen[me.source] {
            Self::look_again(&me)
        } else {
            Mover {
                doing: Doing::Delta,
                ..me
            }
        };
        true
    }

    fn fence_commit(&self, world: &mut World, number: usize) {
        let me = world.movers[number];
        if me.lost && !self.is(Broken::FenceElsewhere) {
            world.movers[number] = Self::look_again(&me);
            return;
        }
        // The delta made the target equal to what the fence holds still: the digest is of the source, under the lock.
        let rows = self.closure(&world.clusters[1 - me.source], B);
        self.send_release(world, number, rows);
        let Some(mut sent) = world.movers[number].call else {
            return;
        };
        // Nothing is compared again: the lock was held since the digest was made. Or it was not.
        sent.step = Step::FencedRelease;
        sent.before = rows;
        if let Some(outcome) = self.execute(world, &sent, number) {
            self.answered(world, number, sent, &outcome);
        }
    }
}

/// COMMIT of a mover's rows.
pub(crate) fn write_rows(world: &mut World, number: usize, cluster: usize) {
    let mover = &mut world.movers[number];
    let (puts, dels) = (mover.puts, mover.dels);
    mover.puts = 0;
    mover.dels = 0;
    commit_rows(world, cluster, puts, dels);
}

pub(crate) fn commit_rows(world: &mut World, cluster: usize, puts: u8, dels: u8) {
    let data = &mut world.clusters[cluster];
    data.rows = data.rows & !dels | puts;
    data.of_b = data.of_b & !(dels & ORDERS) | puts & ORDERS;
}
