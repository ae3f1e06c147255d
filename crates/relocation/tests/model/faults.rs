//! What goes wrong: crashes, lost connections and answers, rows that rot, a promotion. And who starts a run again.

use regionwise_relocation::protocol::{Next, Reconcile, Settled, Token, next, reconcile};

use crate::broken::Broken;
use crate::mover::commit_rows;
use crate::world::{
    At, B, Config, Doing, Ghost, IDLE, Mover, NOBODY, READY, RUN_NAMES, RUNS, Row, Run, S, Sent,
    Set, Step, T, World, Writer, small_token, token,
};

impl Config {
    /// A runner claims the batch: a run that is not finished, or a new one from where the user lives.
    pub(crate) fn start(
        &self,
        world: &mut World,
        number: usize,
        source: usize,
        faults: bool,
    ) -> bool {
        let resting =
            |mover: &Mover| matches!(mover.doing, Doing::Idle | Doing::Refused | Doing::Done);
        if !resting(&world.movers[number]) || (world.closed && self.promote.is_some()) {
            return false;
        }
        let planned = world.claims < self.claims;
        let rescue = world.claims < self.claims + self.rescue && world.movers.iter().all(resting);
        if !planned && !rescue {
            return false;
        }
        let Some(run) = self.joins(world, source, planned && faults) else {
            return false;
        };
        let routes = world.routes();
        let claim = world.runs[run]
            .map(|run| token(run.claim))
            .filter(|_| world.runs[run].is_some_and(|run| run.claim > 0));
        let seen = routes
            .iter()
            .flatten()
            .filter_map(|route| route.token)
            .chain(claim);
        let held = small_token(Token::after(seen, self.timelines(world)));
        let done = world.runs[run].is_some_and(|run| run.done);
        world.runs[run] = Some(Run {
            source,
            claim: held,
            done,
        });
        world.claims += 1;
        let run = u8::try_from(run).expect("few runs");
        world.movers[number] = Mover {
            doing: Doing::Look,
            source,
            run,
            token: held,
            ..IDLE
        };
        if self.terminate && self.is(Broken::TerminateFirst) {
            self.terminate_older(world, number);
        }
        true
    }

    fn joins(&self, world: &World, source: usize, wish: bool) -> Option<usize> {
        let routes = world.routes();
        let latest = (0..RUNS)
            .rev()
            .find(|run| world.runs[*run].is_some_and(|run| run.source == source));
        let highest = token(u16::MAX);
        if let Some(run) = latest {
            if self.is_purgeable(world, source) {
                return Some(run);
            }
            match next(
                routes[source].as_ref(),
                routes[1 - source].as_ref(),
                RUN_NAMES[run],
                highest,
            ) {
                _ if world.runs[run].is_some_and(|run| run.done) => {}
                Next::Stage(_)
                | Next::Copy
                | Next::Activate(_)
                | Next::Cancel(_)
                | Next::Reopen(_) => return Some(run),
                Next::Settled(Settled::Moved | Settled::Home) => {}
                Next::Elsewhere(_) | Next::Refuse(_) => return None,
            }
        }
        // Forward is what is wanted in the end; backwards only while somebody wishes so.
        let wanted = source == S || (self.reverse && wish);
        let free = (0..RUNS).find(|run| world.runs[*run].is_none())?;
        let other = world.state(1 - source);
        let begun = other == Some(regionwise_relocation::protocol::State::Staging);
        (world.owns(source) && wanted && !begun).then_some(free)
    }

    fn is_purgeable(&self, world: &World, source: usize) -> bool {
        let routes = world.routes();
        match (&routes[source], &routes[1 - source]) {
            (Some(source), Some(target)) => {
                regionwise_relocation::protocol::may_purge(source, target).is_ok()
            }
            (Some(_), None) | (None, _) => false,
        }
    }

    fn timelines(&self, world: &World) -> [u32; 2] {
        if self.is(Broken::NoGeneration) {
            [1, 1]
        } else {
            world.timelines()
        }
    }

    /// kill -9, or the host: what was sent is still executed, what was open is still open until the server notices.
    pub(crate) fn crash(&self, world: &mut World, number: usize) -> bool {
        let me = world.movers[number];
        if matches!(me.doing, Doing::Idle | Doing::Refused | Doing::Done)
            || !leave(self, world, &me)
        {
            return false;
        }
        if self.holds(&me, me.source) == Some(true) {
            world.ghost_fence[me.source] = true;
        }
        world.crashes += 1;
        world.movers[number] = IDLE;
        true
    }

    /// The connection breaks. A mover that waits for an answer notices and looks again; one with an open fence does not.
    pub(crate) fn lose(&self, world: &mut World, number: usize) -> bool {
        let me = world.movers[number];
        match me.doing {
            Doing::Delta | Doing::FenceCommit if !me.lost => world.movers[number].lost = true,
            Doing::Call | Doing::CopyCommit | Doing::MendCommit | Doing::PurgeCommit => {
                if !leave(self, world, &me) {
                    return false;
                }
                world.movers[number] = if self.is(Broken::KeepsToken) {
                    Self::look_again(&me)
                } else {
                    // What it sent may still come: it claims again, which outdates it.
                    Self::ends(&me, Doing::Idle)
                };
            }
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
            | Doing::Delta
            | Doing::DeltaCommit
            | Doing::FenceCommit
            | Doing::Purge => return false,
        }
        world.losses += 1;
        true
    }

    /// A call without a caller arrives.
    pub(crate) fn orphan_arrives(&self, world: &mut World, slot: usize) -> bool {
        let Some(sent) = world.orphans[slot] else {
            return false;
        };
        let executed = self.execute(world, &sent, NOBODY).is_some();
        if executed {
            world.orphans[slot] = None;
        }
        executed
    }

    /// A transaction without a client ends.
    pub(crate) fn ghost_ends(&self, world: &mut World, commits: bool) -> bool {
        let Some(ghost) = world.ghost.take() else {
            return false;
        };
        if commits {
            commit_rows(world, ghost.at, ghost.puts, ghost.dels);
            world.clusters[ghost.at].purging |= ghost.purges && !self.is(Broken::PurgeForgets);
        }
        true
    }

    pub(crate) fn rot(&self, world: &mut World) -> bool {
        let staged = world.state(T) == Some(regionwise_relocation::protocol::State::Staging);
        let data = &mut world.clusters[T];
        if !staged || data.rows == 0 {
            return false;
        }
        data.rows &= !(1 << (7 - data.rows.leading_zeros()));
        world.rots += 1;
        true
    }

    /// The standby of S takes over without the release; what is open at S is gone.
    pub(crate) fn promote(&self, world: &mut World, late: bool) -> bool {
        if late && !world.owns(T) {
            return false;
        }
        let Some((before, claims)) = world.saved.take() else {
            return false;
        };
        world.clusters[S] = before;
        for (run, claim) in world.runs.iter_mut().zip(claims) {
            if let Some(run) = run.as_mut().filter(|run| run.source == S) {
                run.claim = claim;
                run.done = false;
            }
        }
        for writer in &mut world.writers {
            if writer.cluster == S && writer.at != At::Done {
                *writer = Writer {
                    epoch: writer.epoch,
                    ..READY
                };
            }
        }
        for mover in &mut world.movers {
            let called = mover.call.is_some_and(|sent| sent.at == S);
            let open = mover.source == S && Self::is_open(mover) && mover.doing != Doing::Call;
            if called || (open && !matches!(mover.doing, Doing::CopyCommit | Doing::MendCommit)) {
                *mover = Self::look_again(mover);
            }
        }
        for orphan in &mut world.orphans {
            *orphan = orphan.filter(|sent| sent.at != S);
        }
        world.ghost = world.ghost.filter(|ghost| ghost.at != S);
        world.ghost_fence[S] = false;
        world.promoted = true;
        world.closed = !self.is(Broken::NoReconcile) && !self.is(Broken::Declared);
        true
    }

    /// `reconcile`, one change at a time.
    pub(crate) fn reconcile(&self, world: &mut World) -> bool {
        if !world.closed {
            return false;
        }
        let [promoted, mut other] = world.routes();
        let timelines = self.timelines(world);
        if self.is(Broken::EpochsOnly) {
            // As if the token had been raised already.
            if let Some(route) = other.as_mut() {
                route.token = Some(Token::after([], timelines));
            }
        }
        if self.is(Broken::NoGeneration) && !world.raised {
            return self.raise_by_one(world);
        }
        let (at, run, change) = match reconcile(promoted.as_ref(), other.as_ref(), timelines) {
            Ok(Reconcile::Raise { run, change }) => (T, run, change),
            Ok(Reconcile::Fence { run, change } | Reconcile::Prove { run, change }) => {
                (S, run, change)
            }
            Ok(Reconcile::Open) => {
                world.closed = false;
                return true;
            }
            Err(_) => return false,
        };
        let proves = change.digest.is_some();
        let Some(run) = run.and_then(|run| RUN_NAMES.iter().position(|name| *name == run)) else {
            return false;
        };
        let sent = self.reconciling(at, run, Set::of(&change));
        let before = *world;
        let done = self.execute(world, &sent, NOBODY).is_some();
        if done && proves && *world == before {
            world.closed = false;
        }
        done
    }

    fn reconciling(&self, at: usize, run: usize, set: Set) -> Sent {
        let run = u8::try_from(run).expect("few runs");
        Sent {
            step: Step::Stage,
            at,
            run,
            set,
            before: 0,
        }
    }

    fn raise_by_one(&self, world: &mut World) -> bool {
        let Some(row) = world.clusters[T].route else {
            return false;
        };
        if !self.free(world, T, B, true, [NOBODY, NOBODY]) {
            return false;
        }
        let highest = world
            .clusters
            .iter()
            .filter_map(|cluster| cluster.route?.token)
            .max();
        let claims = world.runs.iter().flatten().map(|run| run.claim).max();
        let raised = highest.max(claims).map(|held| held + 1);
        world.clusters[T].route = Some(Row {
            token: raised,
            ..row
        });
        world.raised = true;
        true
    }
}

/// What a mover leaves behind on the servers; false when there is no room in the model.
fn leave(config: &Config, world: &mut World, me: &Mover) -> bool {
    match me.doing {
        Doing::Call => {
            let slot = world.orphans.iter().position(Option::is_none);
            let (Some(slot), Some(sent)) = (slot, me.call) else {
                return false;
            };
            world.orphans[slot] = Some(sent);
            true
        }
        Doing::CopyCommit | Doing::MendCommit | Doing::DeltaCommit | Doing::PurgeCommit
            if config.is_ghostly(me) =>
        {
            if world.ghost.is_some() {
                return false;
            }
            let purges = me.doing == Doing::PurgeCommit;
            let at = if purges { me.source } else { 1 - me.source };
            world.ghost = Some(Ghost {
                at,
                puts: me.puts,
                dels: me.dels,
                purges,
            });
            true
        }
        Doing::Idle
        | Doing::Refused
        | Doing::Done
        | Doing::Look
        | Doing::Decide
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
        | Doing::PurgeCommit => true,
    }
}

impl Config {
    fn is_ghostly(&self, me: &Mover) -> bool {
        me.puts | me.dels != 0
    }
}
