//! The world of the model: two clusters, writers, movers, and the configuration of one exploration.
//!
//! User A stays at S, user B moves. Order 0 is A's and order 1 is B's, each a row of a child table; the grandchildren hang
//! on an order, so a change of an order's owner moves them too. A grandchild's insert stands for its update as well.

use regionwise_relocation::digest::Digest;
use regionwise_relocation::protocol::{Change, Epoch, Expected, Route, State, To, Token};

pub(crate) const S: usize = 0;
pub(crate) const T: usize = 1;
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
/// Bits of rows: 0 and 1 the orders, 2 to 4 the writers' grandchildren, 5 the one that was always there, under order 1.
pub(crate) const ORDERS: u8 = 0b11;
pub(crate) const OLD: u8 = 1 << 5;
pub(crate) const WRITERS: usize = 3;
pub(crate) const MOVERS: usize = 2;
/// Nobody of the writers, nobody of the movers.
pub(crate) const NOBODY: usize = usize::MAX;
/// Forward, back and forward again, with one that was cancelled.
pub(crate) const RUNS: usize = 4;
pub(crate) const RUN_NAMES: [&str; RUNS] = ["r0", "r1", "r2", "r3"];

/// `regionwise.route`, small enough for millions of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) state: State,
    pub(crate) epoch: u8,
    pub(crate) token: Option<u16>,
    pub(crate) digest: Option<u8>,
    pub(crate) run: Option<u8>,
}

pub(crate) fn epoch(small: u8) -> Epoch {
    Epoch::try_from(i64::from(small)).expect("not negative")
}

fn small_epoch(epoch: Epoch) -> u8 {
    u8::try_from(i64::from(epoch)).expect("few epochs")
}

/// The high byte is the generation.
pub(crate) fn token(small: u16) -> Token {
    let (generation, counter) = (i64::from(small >> 8), i64::from(small & 0xff));
    Token::try_from(generation << 40 | counter).expect("not negative")
}

pub(crate) fn small_token(token: Token) -> u16 {
    let whole = i64::from(token);
    let (generation, counter) = (whole >> 40, whole & 0xff_ffff_ffff);
    u16::try_from(generation << 8 | counter).expect("few claims")
}

/// The model's digest is the set of rows itself: equal exactly when the rows are.
pub(crate) fn digest(rows: u8) -> Digest {
    let mut bytes = [0; 32];
    bytes[0] = rows;
    Digest(bytes)
}

impl Row {
    pub(crate) fn route(self) -> Route {
        Route {
            run: self.run.map(|run| RUN_NAMES[usize::from(run)].to_owned()),
            ..self.anonymous()
        }
    }

    /// Without the run, for the fence.
    pub(crate) fn anonymous(self) -> Route {
        Route {
            state: self.state,
            epoch: epoch(self.epoch),
            token: self.token.map(token),
            digest: self.digest.map(digest),
            rows: None,
            run: None,
        }
    }

    pub(crate) fn of(route: &Route, run: Option<u8>) -> Self {
        Self {
            state: route.state,
            epoch: small_epoch(route.epoch),
            token: route.token.map(small_token),
            digest: route.digest.map(|digest| digest.0[0]),
            run,
        }
    }
}

/// A [`Change`], small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Set {
    pub(crate) from: Option<(State, u8, Option<u16>)>,
    pub(crate) to: (State, u8, u16),
    pub(crate) digest: Option<u8>,
    pub(crate) claim: Option<u16>,
}

impl Set {
    pub(crate) fn change(self) -> Change {
        Change {
            from: self.from.map(|(state, at, held)| Expected {
                state,
                epoch: epoch(at),
                token: held.map(token),
            }),
            to: To {
                state: self.to.0,
                epoch: epoch(self.to.1),
                token: token(self.to.2),
            },
            digest: self.digest.map(digest),
            claim: self.claim.map(token),
        }
    }

    pub(crate) fn of(change: &Change) -> Self {
        Self {
            from: change.from.map(|from| {
                (
                    from.state,
                    small_epoch(from.epoch),
                    from.token.map(small_token),
                )
            }),
            to: (
                change.to.state,
                small_epoch(change.to.epoch),
                small_token(change.to.token),
            ),
            digest: change.digest.map(|digest| digest.0[0]),
            claim: change.claim.map(small_token),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Stage,
    Release,
    /// By the transaction that holds a hot user's fence.
    FencedRelease,
    Activate,
    Cancel,
    Reopen,
    Purge,
    /// Only of broken variants: what should come first comes after it.
    ActivateFirst,
    ReopenFirst,
}

/// A call of `regionwise.change()` on its way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sent {
    pub(crate) step: Step,
    pub(crate) at: usize,
    pub(crate) run: u8,
    pub(crate) set: Set,
    /// B's rows there when it was sent.
    pub(crate) before: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cluster {
    pub(crate) rows: u8,
    /// Which orders belong to B; the others belong to A.
    pub(crate) of_b: u8,
    /// B's route. A's is `home` at S and none at T.
    pub(crate) route: Option<Row>,
    /// Journal: the purge was found in order and has begun.
    pub(crate) purging: bool,
}

/// Where a writer's transaction stands. READ COMMITTED: each step has its own snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) enum At {
    Ready,
    Lock,
    /// Change of owner only: B's lock after A's.
    SecondLock,
    Read,
    /// Find the owner again, then write; the write itself reads nothing.
    Recheck,
    Upgrade,
    Commit,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) at: At,
    /// What it remembers of the route: cluster and epoch.
    pub(crate) cluster: usize,
    pub(crate) epoch: u8,
    pub(crate) owner: usize,
    /// Home locks held, by user.
    pub(crate) shared: u8,
    pub(crate) exclusive: u8,
    /// REPEATABLE READ: users whose route changed since the snapshot.
    pub(crate) stale: u8,
}

pub(crate) const READY: Writer = Writer {
    at: At::Ready,
    cluster: S,
    epoch: 0,
    owner: A,
    shared: 0,
    exclusive: 0,
    stale: 0,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    Idle,
    Refused,
    Done,
    /// Reads the first route, then the second, and decides.
    Look,
    Decide,
    /// Has called `change()` and waits for the answer.
    Call,
    Copy,
    Mend,
    CopyCommit,
    MendCommit,
    /// Reads the target's digest.
    Digest,
    /// The rows changed since they were copied.
    Mismatch,
    /// A hot user's last delta under its own fence: an open transaction at the source.
    Fence,
    Delta,
    DeltaCommit,
    FenceCommit,
    Purge,
    PurgeCommit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mover {
    pub(crate) doing: Doing,
    pub(crate) source: usize,
    pub(crate) run: u8,
    pub(crate) token: u16,
    /// Routes as read, by cluster.
    pub(crate) seen: [Option<Row>; 2],
    pub(crate) call: Option<Sent>,
    /// Rows to insert and to delete, uncommitted.
    pub(crate) puts: u8,
    pub(crate) dels: u8,
    /// The connection with the fence is dead, and the mover has not noticed.
    pub(crate) lost: bool,
    /// Entered the move behind its commit point.
    pub(crate) late: bool,
}

pub(crate) const IDLE: Mover = Mover {
    doing: Doing::Idle,
    source: S,
    run: 0,
    token: 0,
    seen: [None; 2],
    call: None,
    puts: 0,
    dels: 0,
    lost: false,
    late: false,
};

/// A transaction whose client is gone. The server has not noticed, or the COMMIT is still on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ghost {
    pub(crate) at: usize,
    pub(crate) puts: u8,
    pub(crate) dels: u8,
    pub(crate) purges: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    pub(crate) source: usize,
    /// `batch.token`.
    pub(crate) claim: u16,
    /// Journal: nothing but the purge is left to do.
    pub(crate) done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) clusters: [Cluster; 2],
    pub(crate) writers: [Writer; WRITERS],
    pub(crate) movers: [Mover; MOVERS],
    pub(crate) runs: [Option<Run>; RUNS],
    pub(crate) claims: u8,
    /// Calls whose caller is gone: still executed, at any time.
    pub(crate) orphans: [Option<Sent>; 2],
    pub(crate) ghost: Option<Ghost>,
    /// A crashed mover's fence, by cluster.
    pub(crate) ghost_fence: [bool; 2],
    pub(crate) crashes: u8,
    pub(crate) losses: u8,
    pub(crate) cancels: u8,
    pub(crate) rots: u8,
    /// S and its claims before the release, while a promotion may still bring that back.
    pub(crate) saved: Option<(Cluster, [u16; RUNS])>,
    pub(crate) promoted: bool,
    /// S is promoted and not reconciled: the application stays out.
    pub(crate) closed: bool,
    /// Only for a reconcile without generations: it has raised the token.
    pub(crate) raised: bool,
    pub(crate) bad_purge: bool,
    pub(crate) went_back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Insert a grandchild under an order.
    Insert(u8),
    /// Give an order to a user.
    Give(u8, usize),
    /// Delete the old grandchild of order 1.
    Delete,
}

impl Op {
    pub(crate) fn order(self) -> u8 {
        match self {
            Self::Insert(order) | Self::Give(order, _) => order,
            Self::Delete => 1,
        }
    }

    pub(crate) fn gives(self) -> bool {
        matches!(self, Self::Give(..))
    }
}

/// One exploration: who writes, who moves, what may break, and which rules are left out.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) ops: &'static [Op],
    /// Writers in REPEATABLE READ, as a bit set; the others READ COMMITTED.
    pub(crate) repeatable: u8,
    pub(crate) movers: usize,
    pub(crate) claims: u8,
    pub(crate) crashes: u8,
    pub(crate) losses: u8,
    pub(crate) cancels: u8,
    /// Rows lost at T while they are staged.
    pub(crate) rots: u8,
    pub(crate) reverse: bool,
    /// A mismatch may be shipped under an interactive fence.
    pub(crate) hot: bool,
    /// Purge grandchildren and orders in two transactions.
    pub(crate) chunks: bool,
    /// S may be promoted to a standby without the release; `Some(true)`: only once T is active.
    pub(crate) promote: Option<bool>,
    /// A take-over terminates the older backends.
    pub(crate) terminate: bool,
    /// The target's route is read before the source's.
    pub(crate) target_first: bool,
    /// Claims without a fault beyond `claims`: somebody always starts `run` again.
    pub(crate) rescue: u8,
    pub(crate) broken: &'static [crate::broken::Broken],
}

pub(crate) const ONE: Config = Config {
    ops: &[],
    repeatable: 0,
    movers: 1,
    claims: 1,
    crashes: 0,
    losses: 0,
    cancels: 0,
    rots: 0,
    reverse: false,
    hot: false,
    chunks: false,
    promote: None,
    terminate: false,
    target_first: false,
    rescue: 0,
    broken: &[],
};

impl Config {
    pub(crate) fn is(&self, broken: crate::broken::Broken) -> bool {
        self.broken.contains(&broken)
    }

    pub(crate) fn is_repeatable(&self, writer: usize) -> bool {
        self.repeatable >> writer & 1 == 1
    }

    fn parent(&self, bit: u8) -> Option<u8> {
        if 1 << bit == OLD {
            return Some(1);
        }
        match self.ops.get(usize::from(bit) - 2) {
            Some(Op::Insert(order)) => Some(*order),
            Some(Op::Give(..) | Op::Delete) | None => None,
        }
    }

    /// The rows that a search down from the user finds.
    pub(crate) fn closure(&self, cluster: &Cluster, user: usize) -> u8 {
        let owned = if user == B {
            cluster.of_b
        } else {
            !cluster.of_b
        };
        let mine = cluster.rows & ORDERS & owned;
        (2..6).fold(mine, |found, bit| match self.parent(bit) {
            Some(order) if cluster.rows >> bit & 1 == 1 && mine >> order & 1 == 1 => {
                found | 1 << bit
            }
            Some(_) | None => found,
        })
    }

    pub(crate) fn orphans(&self, cluster: &Cluster) -> u8 {
        cluster.rows & !(self.closure(cluster, A) | self.closure(cluster, B))
    }

    /// What the acknowledged writes add up to.
    pub(crate) fn expected(&self, world: &World) -> Cluster {
        let mut sum = Cluster {
            rows: ORDERS | OLD,
            of_b: 0b10,
            ..world.clusters[S]
        };
        for (writer, op) in self.ops.iter().enumerate() {
            if world.writers[writer].at == At::Done {
                match *op {
                    Op::Insert(_) => sum.rows |= 4 << writer,
                    Op::Give(order, user) => give(&mut sum, order, user),
                    Op::Delete => sum.rows &= !OLD,
                }
            }
        }
        sum
    }
}

pub(crate) fn give(cluster: &mut Cluster, order: u8, user: usize) {
    cluster.of_b = cluster.of_b & !(1 << order) | u8::from(user == B) << order;
}

impl World {
    pub(crate) fn start() -> Self {
        let empty = Cluster {
            rows: 0,
            of_b: 0,
            route: None,
            purging: false,
        };
        let source = Cluster {
            rows: ORDERS | OLD,
            of_b: 0b10,
            route: Some(Row::of(&Route::home(), None)),
            ..empty
        };
        Self {
            clusters: [source, empty],
            writers: [READY; WRITERS],
            movers: [IDLE; MOVERS],
            runs: [None; RUNS],
            claims: 0,
            orphans: [None; 2],
            ghost: None,
            ghost_fence: [false; 2],
            crashes: 0,
            losses: 0,
            cancels: 0,
            rots: 0,
            saved: None,
            promoted: false,
            closed: false,
            raised: false,
            bad_purge: false,
            went_back: false,
        }
    }

    pub(crate) fn state(&self, cluster: usize) -> Option<State> {
        self.clusters[cluster].route.map(|row| row.state)
    }

    pub(crate) fn owns(&self, cluster: usize) -> bool {
        self.state(cluster).is_some_and(State::owns)
    }

    /// The cluster whose rows of B count: of the highest epoch; at one epoch the owner before the frozen copy.
    pub(crate) fn home(&self) -> usize {
        let rank = |cluster: usize| match self.clusters[cluster].route {
            Some(row) if row.state.owns() => 2 * i32::from(row.epoch) + 1,
            Some(row) if row.state == State::Moved => 2 * i32::from(row.epoch),
            Some(_) | None => -1,
        };
        if rank(T) > rank(S) { T } else { S }
    }

    /// Every promotion of S is a new timeline.
    pub(crate) fn timelines(&self) -> [u32; 2] {
        [1 + u32::from(self.promoted), 1]
    }
}
