//! The application: writers' transactions under the fence, step by step.

use regionwise_relocation::protocol::{Admission, admits};

use crate::broken::Broken;
use crate::world::{A, At, B, Config, OLD, Op, READY, S, WRITERS, World, Writer, epoch, give};

impl Config {
    fn declares(&self) -> bool {
        self.is(Broken::Declared)
    }

    /// The fence's decision about a user in a cluster.
    pub(crate) fn accepts(
        &self,
        world: &World,
        cluster: usize,
        user: usize,
        declared: Option<u8>,
    ) -> bool {
        if cluster == S && world.closed {
            return false;
        }
        if user == A {
            return cluster == S;
        }
        let route = world.clusters[cluster]
            .route
            .map(crate::world::Row::anonymous);
        let declared = declared.map(epoch);
        admits(route.as_ref(), declared, cluster == S, false) == Admission::Admit
    }

    /// The database refused: roll back and ask for the route again.
    fn refused(&self, world: &mut World, writer: usize) {
        let op = self.ops[writer];
        let to_b = matches!(op, Op::Give(_, B));
        let of_b = self.expected(world).of_b >> op.order() & 1 == 1;
        let cluster = if to_b || of_b { world.home() } else { S };
        let known = world.clusters[cluster].route.map_or(0, |row| row.epoch);
        let epoch = if self.declares() { known } else { 0 };
        world.writers[writer] = Writer {
            cluster,
            epoch,
            ..READY
        };
    }

    /// A commit changed these users' routes: a snapshot from before gets 40001 from FOR SHARE.
    pub(crate) fn route_changed(&self, world: &mut World, cluster: usize, users: u8) {
        for (number, writer) in world.writers.iter_mut().enumerate() {
            let open = writer.at > At::Ready && writer.at <= At::Read;
            if self.is_repeatable(number) && writer.cluster == cluster && open {
                writer.stale |= users;
            }
        }
    }

    /// Whether a home lock can be had; `writer` and `mover` do not stand in their own way.
    pub(crate) fn free(
        &self,
        world: &World,
        cluster: usize,
        user: usize,
        exclusive: bool,
        [writer, mover]: [usize; 2],
    ) -> bool {
        let by_writer = world.writers.iter().enumerate().any(|(number, other)| {
            let held = if exclusive {
                other.shared | other.exclusive
            } else {
                other.exclusive
            };
            number != writer && other.cluster == cluster && held >> user & 1 == 1
        });
        if by_writer || user == A {
            return !by_writer;
        }
        let by_mover = world.movers.iter().enumerate().any(|(number, other)| {
            number != mover
                && self
                    .holds(other, cluster)
                    .is_some_and(|theirs| theirs || exclusive)
        });
        let by_ghost = exclusive
            && !self.is(Broken::CopyNoLock)
            && world.ghost.is_some_and(|ghost| ghost.at == cluster);
        !(by_mover || by_ghost || world.ghost_fence[cluster])
    }

    fn find(&self, world: &World, cluster: usize, op: Op) -> Option<usize> {
        let data = &world.clusters[cluster];
        let there = data.rows >> op.order() & 1 == 1 && (op != Op::Delete || data.rows & OLD != 0);
        there.then_some(usize::from(data.of_b >> op.order() & 1))
    }

    pub(crate) fn writer_step(&self, world: &mut World, number: usize) -> bool {
        let op = self.ops[number];
        let me = world.writers[number];
        let again = Writer {
            cluster: me.cluster,
            epoch: me.epoch,
            ..READY
        };
        match me.at {
            At::Ready => match self.find(world, me.cluster, op) {
                None => {
                    self.refused(world, number);
                    return world.writers[number] != me;
                }
                Some(owner) => {
                    let at = if self.is(Broken::WriterNoLock) {
                        At::Read
                    } else {
                        At::Lock
                    };
                    world.writers[number] = Writer { owner, at, ..me };
                }
            },
            At::Lock | At::SecondLock => return self.lock(world, number),
            At::Read => return self.read(world, number),
            At::Recheck => {
                // REPEATABLE READ still sees its old snapshot: only the 40001 of `Read` protects it.
                let now = if self.is_repeatable(number) {
                    Some(me.owner)
                } else {
                    self.find(world, me.cluster, op)
                };
                match now {
                    None => self.refused(world, number),
                    Some(owner) if owner != me.owner && op.gives() => world.writers[number] = again,
                    Some(owner) if owner < me.owner && !self.is(Broken::WaitOutOfOrder) => {
                        world.writers[number] = again;
                    }
                    // Keeps the first lock, as the trigger does.
                    Some(owner) if owner != me.owner => {
                        world.writers[number] = Writer {
                            owner,
                            at: At::Lock,
                            ..me
                        };
                    }
                    Some(_) if self.waits_for_sharers(world, number) => return false,
                    Some(_) => {
                        let upgrades = op.gives() && self.is(Broken::GiveUpgrades);
                        world.writers[number].at = if upgrades { At::Upgrade } else { At::Commit };
                    }
                }
            }
            At::Upgrade => {
                let free = |user| {
                    self.free(
                        world,
                        me.cluster,
                        user,
                        true,
                        [number, crate::world::NOBODY],
                    )
                };
                if !free(A) || !free(B) {
                    return false;
                }
                world.writers[number] = Writer {
                    exclusive: 0b11,
                    at: At::Commit,
                    ..me
                };
            }
            At::Commit => self.commit(world, number),
            At::Done => return false,
        }
        true
    }

    fn lock(&self, world: &mut World, number: usize) -> bool {
        let op = self.ops[number];
        let me = world.writers[number];
        let user = match (op.gives(), me.at) {
            (true, At::Lock) => A,
            (true, _) => B,
            (false, _) => me.owner,
        };
        let shared = self.is(Broken::GiveShared) || self.is(Broken::GiveUpgrades);
        let exclusive = op.gives() && !shared;
        if !self.free(
            world,
            me.cluster,
            user,
            exclusive,
            [number, crate::world::NOBODY],
        ) {
            return false;
        }
        let writer = &mut world.writers[number];
        if exclusive {
            writer.exclusive |= 1 << user;
        } else {
            writer.shared |= 1 << user;
        }
        writer.at = if op.gives() && me.at == At::Lock {
            At::SecondLock
        } else {
            At::Read
        };
        true
    }

    fn read(&self, world: &mut World, number: usize) -> bool {
        let op = self.ops[number];
        let me = world.writers[number];
        let users: u8 = if op.gives() { 0b11 } else { 1 << me.owner };
        // FOR SHARE waits for an uncommitted bump, possible only with shared locks.
        let waits = self.is_repeatable(number)
            && !self.is(Broken::NoRevBump)
            && self
                .others(world, number)
                .any(|(other, writer)| writer.at == At::Commit && self.ops[other].gives());
        if waits {
            return false;
        }
        let declared = |user: usize| (self.declares() && user == B).then_some(me.epoch);
        let admitted = [A, B].into_iter().all(|user| {
            users >> user & 1 == 0 || self.accepts(world, me.cluster, user, declared(user))
        });
        if !admitted || me.stale & users != 0 {
            self.refused(world, number);
            return true;
        }
        let skips = self.is(Broken::NoSecondLookup);
        world.writers[number].at = if skips { At::Commit } else { At::Recheck };
        true
    }

    /// `UPDATE route SET rev` waits for those who hold it FOR SHARE, possible only with shared locks.
    fn waits_for_sharers(&self, world: &World, number: usize) -> bool {
        self.ops[number].gives()
            && !self.is(Broken::NoRevBump)
            && self.others(world, number).any(|(other, writer)| {
                let open = matches!(writer.at, At::Recheck | At::Commit);
                self.is_repeatable(other) && open && writer.shared != 0
            })
    }

    fn others<'w>(
        &self,
        world: &'w World,
        number: usize,
    ) -> impl Iterator<Item = (usize, &'w Writer)> {
        let cluster = world.writers[number].cluster;
        (0..self.ops.len().min(WRITERS))
            .map(|other| (other, &world.writers[other]))
            .filter(move |(other, writer)| *other != number && writer.cluster == cluster)
    }

    fn commit(&self, world: &mut World, number: usize) {
        let cluster = world.writers[number].cluster;
        let data = &mut world.clusters[cluster];
        match self.ops[number] {
            Op::Insert(_) => data.rows |= 4 << number,
            Op::Delete => data.rows &= !OLD,
            Op::Give(order, user) => {
                give(data, order, user);
                if !self.is(Broken::NoRevBump) {
                    self.route_changed(world, cluster, 0b11);
                }
            }
        }
        world.writers[number] = Writer {
            at: At::Done,
            cluster,
            ..READY
        };
    }
}
