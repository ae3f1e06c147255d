//! The model for stateright, its properties, and the backward search for states that cannot be finished.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};

use regionwise_relocation::protocol::State;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use crate::world::{A, At, B, Config, Doing, MOVERS, Op, S, T, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Writer(usize),
    Mover(usize),
    /// A runner claims the batch of a run from this cluster.
    Start(usize, usize),
    /// The mover ships the last delta under its own fence; gives that fence back; gives the move up.
    Hot(usize),
    Unfence(usize),
    GiveUp(usize),
    Crash(usize),
    Lose(usize),
    Orphan(usize),
    Ghost(bool),
    GhostFence(usize),
    Rot,
    Promote,
    Reconcile,
}

impl Act {
    fn is_fault(self) -> bool {
        match self {
            Self::Crash(_) | Self::Lose(_) | Self::GiveUp(_) | Self::Rot | Self::Promote => true,
            Self::Writer(_)
            | Self::Mover(_)
            | Self::Start(..)
            | Self::Hot(_)
            | Self::Unfence(_)
            | Self::Orphan(_)
            | Self::Ghost(_)
            | Self::GhostFence(_)
            | Self::Reconcile => false,
        }
    }
}

impl Config {
    fn acts(&self, world: &World, acts: &mut Vec<Act>) {
        acts.extend((0..self.ops.len()).map(Act::Writer));
        for mover in 0..self.movers {
            acts.extend([
                Act::Mover(mover),
                Act::Start(mover, S),
                Act::Start(mover, T),
            ]);
            match world.movers[mover].doing {
                Doing::Mismatch if self.hot => acts.push(Act::Hot(mover)),
                Doing::Delta | Doing::FenceCommit => acts.push(Act::Unfence(mover)),
                Doing::Decide if world.cancels < self.cancels => acts.push(Act::GiveUp(mover)),
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
                | Doing::DeltaCommit
                | Doing::Purge
                | Doing::PurgeCommit => {}
            }
            if world.crashes < self.crashes {
                acts.push(Act::Crash(mover));
            }
            if world.losses < self.losses {
                acts.push(Act::Lose(mover));
            }
        }
        acts.extend([
            Act::Orphan(0),
            Act::Orphan(1),
            Act::Ghost(false),
            Act::Ghost(true),
        ]);
        acts.extend([Act::GhostFence(S), Act::GhostFence(T), Act::Reconcile]);
        if world.rots < self.rots {
            acts.push(Act::Rot);
        }
        if self.promote.is_some() {
            acts.push(Act::Promote);
        }
    }

    fn after(&self, last: &World, act: Act, faults: bool) -> Option<World> {
        let mut world = *last;
        let happens = match act {
            Act::Writer(writer) => self.writer_step(&mut world, writer),
            Act::Mover(mover) => self.mover_step(&mut world, mover),
            Act::Start(mover, source) => self.start(&mut world, mover, source, faults),
            Act::Hot(mover) => {
                world.movers[mover].doing = Doing::Fence;
                true
            }
            Act::Unfence(mover) => {
                world.movers[mover] = Self::look_again(&world.movers[mover]);
                true
            }
            Act::GiveUp(mover) => {
                world.cancels += 1;
                self.give_up(&mut world, mover)
            }
            Act::Crash(mover) => self.crash(&mut world, mover),
            Act::Lose(mover) => self.lose(&mut world, mover),
            Act::Orphan(slot) => self.orphan_arrives(&mut world, slot),
            Act::Ghost(commits) => self.ghost_ends(&mut world, commits),
            Act::GhostFence(cluster) => std::mem::take(&mut world.ghost_fence[cluster]),
            Act::Rot => self.rot(&mut world),
            Act::Promote => self.promote(&mut world, self.promote == Some(true)),
            Act::Reconcile => self.reconcile(&mut world),
        };
        happens.then_some(world)
    }

    fn is_complete(&self, world: &World) -> bool {
        // A change of owner between users with different homes is refused for ever: it need not succeed, only end.
        let ended =
            self.ops.iter().zip(&world.writers).all(|(op, writer)| {
                writer.at == At::Done || (writer.at == At::Ready && op.gives())
            });
        world.owns(T) && world.state(S) == Some(State::Purged) && ended
    }

    /// How many states there are, and from how many of them completion cannot be reached once faults stop.
    pub(crate) fn stuck(&self) -> (usize, usize, Option<World>) {
        let mut numbers: HashMap<World, u32, BuildHasherDefault<DefaultHasher>> =
            HashMap::default();
        let mut before: Vec<Vec<u32>> = vec![];
        let mut queue = VecDeque::new();
        let mut goal = vec![];
        numbers.insert(World::start(), 0);
        before.push(vec![]);
        queue.push_back(World::start());
        let mut acts = vec![];
        while let Some(world) = queue.pop_front() {
            let number = numbers[&world];
            if self.is_complete(&world) {
                goal.push(number);
            }
            acts.clear();
            self.acts(&world, &mut acts);
            for &act in &acts {
                let Some(then) = self.after(&world, act, true) else {
                    continue;
                };
                let fresh = u32::try_from(before.len()).expect("fewer states");
                let known = *numbers.entry(then).or_insert(fresh);
                if known == fresh {
                    before.push(vec![]);
                    queue.push_back(then);
                }
                if !act.is_fault() && self.after(&world, act, false).is_some() {
                    before[known as usize].push(number);
                }
            }
        }
        let mut good = vec![false; before.len()];
        for &number in &goal {
            good[number as usize] = true;
        }
        while let Some(number) = goal.pop() {
            for &earlier in &before[number as usize] {
                if !std::mem::replace(&mut good[earlier as usize], true) {
                    goal.push(earlier);
                }
            }
        }
        let first = good.iter().position(|good| !good);
        let first = first.and_then(|first| {
            numbers
                .iter()
                .find(|(_, number)| **number as usize == first)
        });
        let stuck = good.iter().filter(|good| !**good).count();
        (good.len(), stuck, first.map(|(world, _)| *world))
    }

    fn is_fenced(&self, world: &World, cluster: usize) -> bool {
        let by_mover = world
            .movers
            .iter()
            .any(|mover| self.holds(mover, cluster) == Some(true));
        world.ghost_fence[cluster] || by_mover
    }
}

impl Model for Config {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![World::start()]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        self.acts(world, acts);
    }

    fn next_state(&self, last: &World, act: Act) -> Option<World> {
        self.after(last, act, true)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(
                "I1 each acknowledged write exactly once",
                |config, world| {
                    let expected = config.expected(world);
                    let home = &world.clusters[world.home()];
                    config.closure(&world.clusters[S], A) == config.closure(&expected, A)
                        && config.closure(home, B) == config.closure(&expected, B)
                },
            ),
            // With declared epochs both routes may own the user; there I1 has to show the damage.
            Property::<Self>::always("I2 one side accepts writes", |config, world| {
                let open = |cluster| {
                    config.accepts(world, cluster, B, None) && !config.is_fenced(world, cluster)
                };
                config.is(crate::broken::Broken::Declared) || !(open(S) && open(T))
            }),
            Property::<Self>::always("I4 purged only where the user moved away", |_, world| {
                !world.bad_purge
            }),
            // Nor a row of anybody else where B lives.
            Property::<Self>::always("I6 no orphan at a home", |config, world| {
                let target = &world.clusters[T];
                (world.state(S) == Some(State::Staging) || config.orphans(&world.clusters[S]) == 0)
                    && (!world.owns(T) || target.rows == config.closure(target, B))
            }),
            Property::<Self>::always("epochs and tokens only grow", |_, world| !world.went_back),
            Property::<Self>::sometimes("completion", Self::is_complete),
            Property::<Self>::sometimes("redirected writer", |_, world| {
                world
                    .writers
                    .iter()
                    .any(|writer| writer.at == At::Done && writer.cluster == T)
            }),
            Property::<Self>::sometimes("zombie refused", |_, world| {
                world.owns(T)
                    && world
                        .movers
                        .iter()
                        .any(|mover| mover.doing == Doing::Refused)
            }),
            Property::<Self>::sometimes("mismatch", |_, world| {
                world
                    .movers
                    .iter()
                    .any(|mover| mover.doing == Doing::Mismatch)
            }),
            Property::<Self>::sometimes("mended", |_, world| {
                world
                    .movers
                    .iter()
                    .any(|mover| mover.doing == Doing::MendCommit)
            }),
            Property::<Self>::sometimes("delta under the fence", |_, world| {
                world
                    .movers
                    .iter()
                    .any(|mover| mover.doing == Doing::DeltaCommit)
            }),
            Property::<Self>::sometimes("take-over behind the commit point", |_, world| {
                world.owns(T)
                    && world
                        .movers
                        .iter()
                        .any(|mover| mover.late && mover.doing == Doing::Purge)
            }),
            Property::<Self>::sometimes("cancelled, source open again", |_, world| {
                world.state(T) == Some(State::Cancelled) && world.state(S) == Some(State::Active)
            }),
            Property::<Self>::sometimes("there and back", |_, world| {
                world.state(S) == Some(State::Active) && world.state(T) == Some(State::Purged)
            }),
        ]
    }
}

/// The goals that a case must reach, so that it cannot hold by doing nothing.
fn goals(config: &Config) -> Vec<&'static str> {
    let mut goals = vec!["completion"];
    if config.ops.iter().any(|op| !op.gives()) {
        goals.extend(["redirected writer", "mismatch"]);
    }
    if config.movers == MOVERS {
        goals.extend(["zombie refused", "take-over behind the commit point"]);
    }
    if config.cancels > 0 {
        goals.push("cancelled, source open again");
    }
    if config.reverse {
        goals.push("there and back");
    }
    if config.rots > 0 {
        goals.push("mended");
    }
    if config.hot && config.ops.iter().any(|op| *op != Op::Delete) {
        goals.push("delta under the fence");
    }
    goals
}

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) states: usize,
    /// Property, steps, and the way there.
    pub(crate) failed: Option<(&'static str, Vec<Act>, World)>,
    pub(crate) missing: Vec<&'static str>,
}

/// Breadth first. With one thread a failing trace is about the shortest.
pub(crate) fn explore(config: Config, threads: usize) -> Seen {
    let wanted = goals(&config);
    let checker = config
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut found = checker.discoveries();
    let failed = checker
        .model()
        .properties()
        .into_iter()
        .filter(|property| property.expectation == Expectation::Always)
        .find_map(|property| {
            found
                .remove(property.name)
                .map(|path| (property.name, path))
        });
    Seen {
        states: checker.unique_state_count(),
        failed: failed.map(|(name, path)| {
            let last = *path.last_state();
            (name, path.into_actions(), last)
        }),
        missing: wanted
            .into_iter()
            .filter(|goal| !found.contains_key(goal))
            .collect(),
    }
}
