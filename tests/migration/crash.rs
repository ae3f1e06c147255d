//! The crash matrix: at every point of the protocol everything that can happen to a mover, its connections and its
//! servers, while the product writes; then another runner goes on from an empty directory.
//!
//! One test for each point, with a cell for each direction and fault. A cell ends with the ledger's check.

#![expect(
    clippy::print_stdout,
    clippy::use_debug,
    reason = "what a failing cell says is what repeats it"
)]

use std::fmt;
use std::time::{Duration, Instant};

use regionwise_mover::Point;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::task::{JoinHandle, LocalSet};

use crate::dice::{self, Dice};
use crate::ledger::{Checked, Ledger};
use crate::servers::Server;
use crate::world::{Finished, Running, Servers, USERS, WIDE, World, eventually};

/// Cells at work at the same time, in all tests: most of the time they wait for a lease.
static PLACES: Semaphore = Semaphore::const_new(5);

/// Servers that are crashed, by one cell at a time.
static BRITTLE: std::sync::LazyLock<[Server; 2]> =
    std::sync::LazyLock::new(|| [Server::start("brittle-us"), Server::start("brittle-eu")]);
static BRITTLE_TURN: Mutex<bool> = Mutex::const_new(false);

/// What happens to a mover that has come to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    /// SIGTERM: it may finish what it has begun.
    Term,
    /// Stopped while another takes over and finishes; then it goes on.
    Zombie,
    /// All its connections break; it may connect again.
    Cut,
    /// What it says next arrives; the answers do not.
    Mute,
    /// The server crashes under it.
    CrashSource,
    CrashTarget,
}

impl Fault {
    pub(crate) const ALL: [Self; 7] = [
        Self::Kill,
        Self::Term,
        Self::Zombie,
        Self::Cut,
        Self::Mute,
        Self::CrashSource,
        Self::CrashTarget,
    ];

    pub(crate) fn breaks_a_server(self) -> bool {
        matches!(self, Self::CrashSource | Self::CrashTarget)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Run,
    Revert,
    Purge,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "run",
            Self::Revert => "revert",
            Self::Purge => "purge",
        })
    }
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) verb: Verb,
    pub(crate) point: Point,
    pub(crate) fault: Fault,
    pub(crate) seed: u64,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            point,
            fault,
            seed,
        } = self;
        write!(f, "{verb} at {point}: {fault:?}, SEED={seed}")
    }
}

/// All cells of a point.
async fn matrix(point: Point) {
    let seed = dice::seed();
    let verbs: &[Verb] = match point {
        Point::Purging | Point::Purged => &[Verb::Purge],
        // Who comes back finds the own rows there: only what differs is sent, nothing is copied whole.
        Point::Copying | Point::Copied | Point::Shipped => &[Verb::Run],
        _ => &[Verb::Run, Verb::Revert],
    };
    let cells = verbs.iter().flat_map(|verb| {
        Fault::ALL.map(|fault| Cell {
            verb: *verb,
            point,
            fault,
            seed,
        })
    });
    // To repeat one cell: SEED=.. CELL='run at released: Kill'.
    let only = std::env::var("CELL").unwrap_or_default();
    let cells = cells.filter(|cell| cell.to_string().starts_with(&only));
    let here = LocalSet::new();
    let going: Vec<(Cell, JoinHandle<Checked>)> = cells
        .map(|cell| (cell, here.spawn_local(go(cell))))
        .collect();
    here.await;
    let mut failed = Vec::new();
    for (cell, going) in going {
        match going.await {
            Ok(checked) => println!("{cell}: {checked}"),
            Err(_) => failed.push(cell.to_string()),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

async fn go(cell: Cell) -> Checked {
    let _place = PLACES.acquire().await.unwrap();
    if !cell.fault.breaks_a_server() {
        return tried(cell, World::ready().await).await;
    }
    let (_turn, world) = brittle().await;
    tried(cell, world).await
}

/// A world whose servers may be crashed, as long as the turn lasts.
pub(crate) async fn brittle() -> (MutexGuard<'static, bool>, World) {
    let mut made = BRITTLE_TURN.lock().await;
    let servers = Servers {
        us: &BRITTLE[0],
        eu: &BRITTLE[1],
    };
    if !*made {
        World::template(servers, &WIDE, USERS).await;
        *made = true;
    }
    (made, World::copy(servers, &WIDE, USERS).await)
}

async fn tried(cell: Cell, world: World) -> Checked {
    let plan = world.plan().await;
    if cell.verb != Verb::Run {
        world.moving("run", &plan, &[]).finish().await.expect(0);
    }
    let ledger = Ledger::open(&world, &Dice::new(cell.seed), Duration::from_millis(6)).await;
    ledger.goes_on(3).await;
    let verb = cell.verb.to_string();
    let call = || match cell.verb {
        Verb::Run | Verb::Revert => world.moving(&verb, &plan, &["--lanes", "2"]),
        Verb::Purge => world.tool(&[&verb, "--plan", &plan]),
    };
    let mut first = call().hold(cell.point.word()).start();
    if !first.is_held().await {
        panic!("{cell}: never came there: {:?}", first.finish().await);
    }
    strike(&world, cell.fault, first, || call().start()).await;
    call().finish().await.expect(0);
    ledger.goes_on(2).await;
    let checked = ledger.close(&world).await;
    arrived(&world, cell.verb).await;
    checked
}

/// Lets the fault happen to a mover that holds, and sees it to its end. `another` begins a second one.
pub(crate) async fn strike(
    world: &World,
    fault: Fault,
    first: Running,
    another: impl Fn() -> Running,
) {
    match fault {
        Fault::Kill => first.kill().await,
        Fault::Term => {
            let pid = first.pid();
            first.signal("TERM");
            first.release();
            let ended = first.finish().await;
            // Without a code it was not listening yet, and had done nothing.
            assert!(matches!(ended.code, Some(143 | 0) | None), "{ended:?}");
            assert_eq!(world.left_between(pid).await, Vec::<String>::new());
            world.no_locks_left().await;
        }
        Fault::Zombie => {
            first.signal("STOP");
            let other = another().finish().await;
            // A purge does not go past an open transaction at the old home, not even a stopped purge's.
            let waits = other.code == Some(10) && other.json["reason"] == "not-quiet";
            assert!(other.code == Some(0) || waits, "{other:?}");
            first.signal("CONT");
            first.release();
            may_be_lost(&first.finish().await);
        }
        Fault::Cut => {
            first.links.iter().for_each(crate::link::Link::cut);
            first.release();
            may_be_lost(&first.finish().await);
        }
        Fault::Mute => {
            mute(world, &first).await;
            may_be_lost(&first.finish().await);
        }
        Fault::CrashSource | Fault::CrashTarget => {
            let server = match fault {
                Fault::CrashSource => world.us.server,
                _ => world.eu.server,
            };
            let crash = tokio::task::spawn_blocking(|| server.crash());
            crash.await.unwrap();
            first.release();
            may_be_lost(&first.finish().await);
        }
    }
}

/// Lets it say one thing whose answer never comes.
async fn mute(world: &World, mover: &Running) {
    let before = mover.links.each_ref().map(crate::link::Link::sent);
    mover.links.iter().for_each(crate::link::Link::mute);
    mover.release();
    let said = || {
        mover
            .links
            .iter()
            .zip(before)
            .any(|(link, before)| link.sent() > before)
    };
    let began = Instant::now();
    while !said() && began.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let sql = "SELECT string_agg(concat_ws(' ', wait_event, left(query, 80)), '; ') FROM pg_stat_activity \
               WHERE usename = 'carrier' AND state = 'active' AND wait_event IS DISTINCT FROM 'ClientRead' \
               AND datname = current_database()";
    // A COPY that was asked for is active too, and waits for rows that never come: its answer is lost already.
    for database in [&world.us, &world.eu] {
        let admin = database.admin().await;
        eventually("the server has answered", async || {
            admin.text(sql).await.map_or(Ok(()), Err)
        })
        .await;
    }
    mover.links.iter().for_each(|link| {
        link.up();
        link.cut();
    });
}

/// A mover that has lost its connections, or what it worked on, ends well or says that it does not know.
fn may_be_lost(ended: &Finished) {
    assert!(matches!(ended.code, Some(0 | 20 | 21)), "{ended:?}");
}

/// Everybody is where the last command was to bring them, and nothing else is left of it.
pub(crate) async fn arrived(world: &World, verb: Verb) {
    let there = match verb {
        Verb::Run | Verb::Purge => world.chosen().await,
        Verb::Revert => Vec::new(),
    };
    assert_eq!(world.at_home(&world.eu).await, *there);
    world.nobody_lost().await;
    world.no_locks_left().await;
    if verb == Verb::Purge {
        let left = world.dump(&world.us).await;
        let left: Vec<&String> = there
            .iter()
            .filter(|user| left.contains_key(*user))
            .collect();
        assert!(left.is_empty(), "rows of {left:?} are still at the source");
    }
    for database in [&world.us, &world.eu] {
        assert_eq!(world.leftovers(database).await, Vec::<String>::new());
    }
}

/// C10: killed between the two commits, while another runner waits already. Nobody has to do anything.
#[tokio::test]
async fn users_between_two_homes_are_served_again_within_a_lease() {
    let world = World::ready().await;
    let plan = world.plan().await;
    let seed = dice::seed();
    let ledger = Ledger::open(&world, &Dice::new(seed), Duration::from_millis(6)).await;
    let call = || world.moving("run", &plan, &["--lanes", "1"]);
    let mut first = call().hold("released").start();
    assert!(first.is_held().await);
    let second = call().start();
    let waits = "SELECT count(DISTINCT split_part(application_name, ' ', 2)) || ' ' || count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND usename = 'carrier' AND application_name LIKE 'regionwise control%'";
    let admin = world.us.admin().await;
    eventually("the second runner waits", async || {
        match admin.text(waits).await {
            Some(seen) if seen.ends_with(" 2") => Ok(()),
            seen => Err(seen.unwrap_or_default()),
        }
    })
    .await;
    let between = world.between().await;
    assert!(!between.is_empty());
    first.kill().await;
    let killed = Instant::now();
    eventually("served again", async || {
        let still = world.between().await;
        let still: Vec<&String> = still.iter().filter(|user| between.contains(user)).collect();
        if still.is_empty() {
            Ok(())
        } else {
            Err(format!("{still:?}"))
        }
    })
    .await;
    let after = killed.elapsed();
    println!("SEED={seed}: served again after {after:?}");
    second.finish().await.expect(0);
    ledger.goes_on(2).await;
    ledger.close(&world).await;
    arrived(&world, Verb::Run).await;
    // The lease, the look for the next batch, and the check of the rows; the rest is for a loaded machine.
    assert!(after < Duration::from_secs(6), "{after:?}");
}

/// At the target something changes a value whenever it is mended, and a staged row is not what it was: users whom the
/// source has released cannot be made equal.
async fn spoil(world: &World) {
    let eu = world.eu.admin().await;
    eu.must(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.price := NEW.price + 1; RETURN NEW; END $$;
         DO $$ DECLARE t text; BEGIN
           ALTER TABLE labels DISABLE TRIGGER USER;
           UPDATE labels SET price = price + 0.5;
           FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'labels'::regclass AND NOT tgisinternal LOOP
             EXECUTE format('ALTER TABLE labels ENABLE ALWAYS TRIGGER %I', t);
           END LOOP; END $$;
         CREATE TRIGGER spoil BEFORE INSERT OR UPDATE ON labels FOR EACH ROW EXECUTE FUNCTION spoil();
         ALTER TABLE labels ENABLE ALWAYS TRIGGER spoil",
    )
    .await;
}

/// P7 fails for good, and whatever happens to the runner that gives the users back.
#[tokio::test]
async fn cancelled() {
    let seed = dice::seed();
    let here = LocalSet::new();
    let going: Vec<(Fault, JoinHandle<()>)> = Fault::ALL
        .into_iter()
        .filter(|fault| !fault.breaks_a_server())
        .map(|fault| (fault, here.spawn_local(given_back(fault, seed))))
        .collect();
    here.await;
    for (fault, going) in going {
        assert!(going.await.is_ok(), "{fault:?}, SEED={seed}");
    }
}

async fn given_back(fault: Fault, seed: u64) {
    let _place = PLACES.acquire().await.unwrap();
    let world = World::ready().await;
    let plan = world.plan().await;
    let ledger = Ledger::open(&world, &Dice::new(seed), Duration::from_millis(6)).await;
    // The plan would refuse such a trigger, so it comes when the run is under way.
    // One batch: the second runner waits for this one and has nothing else to do.
    let words = ["run", "--plan", &plan, "--batch-size", "12", "--lanes", "1"];
    let call = || world.tool(&words);
    let mut first = call().hold("released").start();
    assert!(first.is_held().await);
    let mut second = call().hold("cancelled").start();
    let between = world.between().await;
    let waits = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'regionwise control%'";
    let admin = world.us.admin().await;
    eventually("the second runner has looked at the plan", async || {
        let seen = admin.text(waits).await.unwrap_or_default();
        if seen == "2" { Ok(()) } else { Err(seen) }
    })
    .await;
    spoil(&world).await;
    first.kill().await;
    if !second.is_held().await {
        panic!("never came there: {:?}", second.finish().await);
    }
    if fault == Fault::Kill {
        second.kill().await;
    } else {
        strike_paused(&world, fault, second).await;
    }
    world
        .eu
        .admin()
        .await
        .must("DROP TRIGGER spoil ON labels; DROP FUNCTION spoil")
        .await;
    let ended = call().finish().await;
    assert!(matches!(ended.code, Some(10 | 0)), "{ended:?}");
    assert!(world.between().await.is_empty(), "of {between:?}");
    ledger.goes_on(2).await;
    ledger.close(&world).await;
    world.nobody_lost().await;
    world.no_locks_left().await;
}

/// As [`strike`], for a runner that is about to pause.
async fn strike_paused(world: &World, fault: Fault, runner: Running) {
    match fault {
        Fault::Term => runner.signal("TERM"),
        Fault::Cut => runner.links.iter().for_each(crate::link::Link::cut),
        Fault::Mute => mute(world, &runner).await,
        Fault::Zombie => {
            runner.signal("STOP");
            tokio::time::sleep(Duration::from_secs(3)).await;
            runner.signal("CONT");
        }
        Fault::Kill | Fault::CrashSource | Fault::CrashTarget => {}
    }
    runner.release();
    let ended = runner.finish().await;
    assert!(matches!(ended.code, Some(0 | 10 | 21 | 143)), "{ended:?}");
}

/// One test for each point, of the same name.
macro_rules! points {
    ($($name:ident: $point:ident,)*) => {
        $(#[tokio::test]
        async fn $name() {
            matrix(Point::$point).await;
        })*

        #[test]
        fn every_point_has_a_test() {
            let tested = [("cancelled", Point::Cancelled), $((stringify!($name), Point::$point)),*];
            for point in Point::ALL {
                assert!(tested.contains(&(point.word(), point)), "{point}");
            }
        }
    };
}

points! {
    prepared: Prepared,
    claimed: Claimed,
    staged: Staged,
    copying: Copying,
    copied: Copied,
    shipped: Shipped,
    releasing: Releasing,
    released: Released,
    activated: Activated,
    mending: Mending,
    mended: Mended,
    recorded: Recorded,
    purging: Purging,
    purged: Purged,
}
