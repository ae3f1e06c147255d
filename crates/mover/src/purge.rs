//! P9 to P12: deletes at the source the rows of users who are at home at the target, exactly those that are proven.
//!
//! First it waits and watches: nobody may still believe that these users live at the source. Then chunk by chunk, each
//! one transaction in which everything is proven once more before it is deleted. What does not agree stops the purge
//! with nothing of its chunk deleted; what is deleted cannot come back, so there is no going on in doubt.

mod chunk;
mod evidence;
mod quiet;
mod way_back;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::closure::Discovered;
use regionwise_relocation::sql::refer::incoming;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::change::routes;
use crate::ends::{Ends, Purpose};
use crate::failpoint::{Hold, Point};
use crate::journal;
use crate::layout::Layout;
use crate::verify::{Moved, Wrong};

pub use evidence::{Evidence, Slot, TableEvidence};
pub use quiet::Unquiet;

use chunk::{Chunk, Outcome, Purger};

/// Users whose rows go in one transaction.
const CHUNK_USERS: usize = 100;
/// Rows, as far as more than one user is concerned.
const CHUNK_ROWS: u64 = 50_000;

/// How long somebody's row locks may keep a chunk waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be deleted, and on which conditions.
pub struct Erasure {
    pub ends: Ends,
    pub found: Discovered,
    pub shape: String,
    /// At least as long as an API may believe an old route.
    pub grace: Duration,
    /// Users whose rows must stay.
    pub held: HashSet<String>,
    /// Bytes of WAL per second.
    pub wal_rate: Option<u64>,
    /// Whether source and target are expected to have a standby.
    pub standbys: [bool; 2],
    pub dry_run: bool,
    pub hold: Hold,
}

/// What a purge did.
#[derive(Debug)]
pub struct Erased {
    pub how: Ending,
    pub users: u64,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// Rows of tables that stay and let go of what went.
    pub let_go: u64,
    /// Users whose rows are still there, because the hold list names them.
    pub held: u64,
    /// Users whose rows must wait, and why.
    pub kept: Vec<(String, String)>,
    /// Runs whose salt is gone for ever.
    pub closed: Vec<String>,
    /// Whether logical decoding can tell the deletes from the application's own.
    pub has_origin: bool,
    pub evidence: Option<Evidence>,
}

#[derive(Debug)]
pub enum Ending {
    Finished,
    NothingToDo,
    /// So many users would be purged.
    Dry(u64),
    Unquiet(Unquiet),
    /// Nothing of this user's chunk was deleted.
    Wrong(String, Wrong),
    /// A transaction holds rows of the chunk for too long.
    Blocked,
    Stopped,
    OtherShape(String),
}

/// What the purge tells while it works.
#[derive(Clone, Debug)]
pub enum Step {
    /// Nobody must come for this long.
    Watching(Duration),
    Purged {
        users: u64,
        of: u64,
    },
}

/// Purges until nothing is left, something speaks against it, or `stop` says so.
///
/// # Errors
/// A cluster cannot be reached, or says something unexpected; every chunk is deleted whole or not at all.
pub async fn purge(
    task: Erasure,
    stop: watch::Receiver<bool>,
    tell: impl Fn(Step),
) -> Result<Erased, Error> {
    let name = "regionwise purge";
    let (source, target) = tokio::try_join!(
        task.ends.source.open(Purpose::Change, name),
        task.ends.target.open(Purpose::Change, name),
    )?;
    let mut erased = Erased {
        how: Ending::Finished,
        users: 0,
        rows: BTreeMap::new(),
        let_go: 0,
        held: 0,
        kept: Vec::new(),
        closed: Vec::new(),
        has_origin: false,
        evidence: None,
    };
    for session in [&source, &target] {
        if let Some(why) = journal::not_installed(session, &task.shape).await? {
            erased.how = Ending::OtherShape(why);
            return Ok(erased);
        }
    }
    let mut users = moved(&source).await?;
    let all = users.len();
    users.retain(|user| !task.held.contains(user));
    erased.held = u64::try_from(all - users.len()).unwrap_or(u64::MAX);
    let count = u64::try_from(users.len()).unwrap_or(u64::MAX);
    erased.kept = way_back::left(&source, &target, &task.found.closure, &task.held).await?;
    if task.dry_run {
        erased.how = Ending::Dry(count);
        return Ok(erased);
    }
    if users.is_empty() {
        erased.how = match erased.kept.is_empty() {
            true => Ending::NothingToDo,
            false => Ending::Finished,
        };
    } else {
        tell(Step::Watching(task.grace));
        let watched = quiet::watch(&source, &target, &task, stop.clone()).await?;
        erased.how = match watched {
            Some(quiet::Watched::Unquiet(unquiet)) => Ending::Unquiet(unquiet),
            Some(quiet::Watched::Stopped) => Ending::Stopped,
            None => Box::pin(carry_out(&task, users, &stop, &mut erased, &tell)).await?,
        };
    }
    close(&source, &target, &mut erased).await?;
    erased.evidence = Some(evidence::gather(&source, &task.found.closure).await?);
    Ok(erased)
}

/// Everybody whom the source has given away and whose rows it still has.
async fn moved(source: &Direct) -> Result<Vec<String>, Error> {
    let sql = "SELECT usr FROM regionwise.route WHERE state = 'moved' ORDER BY usr";
    let rows = source.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn carry_out(
    task: &Erasure,
    users: Vec<String>,
    stop: &watch::Receiver<bool>,
    erased: &mut Erased,
    tell: &impl Fn(Step),
) -> Result<Ending, Error> {
    let layouts = Layout::all(&task.found.closure);
    let incoming = incoming(&task.found);
    let purger = Purger::open(task, &layouts, &incoming).await?;
    erased.has_origin = purger.has_origin;
    let total = u64::try_from(users.len()).unwrap_or(u64::MAX);
    let mut waiting = users;
    // Users whose rows others refer to wait for those others, who may be purged in the same breath.
    let mut together: Vec<BTreeSet<String>> = Vec::new();
    let mut tried: HashSet<BTreeSet<String>> = HashSet::new();
    let began = Instant::now();
    let mut wal = 0;
    loop {
        let Some(keys) = next_keys(&purger.read, &mut waiting, &mut together).await? else {
            return Ok(Ending::Finished);
        };
        if *stop.borrow() {
            return Ok(Ending::Stopped);
        }
        let since = Instant::now();
        let outcome = loop {
            let outcome = purger.attempt(&keys).await?;
            if !matches!(outcome, Outcome::Busy) || since.elapsed() > PATIENCE {
                break outcome;
            }
            sleep(Duration::from_millis(50)).await;
        };
        match outcome {
            Outcome::Purged(chunk) => {
                task.hold.at(Point::Purged).await;
                wal += chunk.wal;
                add(erased, chunk);
                tell(Step::Purged {
                    users: erased.users,
                    of: total,
                });
                throttle(task.wal_rate, wal, began, stop.clone()).await;
            }
            Outcome::Busy => return Ok(Ending::Blocked),
            // A user who is on the way, or was given away without a proof, keeps its rows; a proof that does not hold
            // any more is another matter.
            Outcome::Wrong(user, wrong) if wrong.is_no_proof() => {
                erased.kept.push((user.clone(), wrong.to_string()));
                together.push(keys.into_iter().filter(|key| *key != user).collect());
            }
            Outcome::Wrong(user, wrong) => return Ok(Ending::Wrong(user, wrong)),
            Outcome::Referred(obstacles) => {
                let keys: BTreeSet<String> = keys.into_iter().collect();
                tried.insert(keys.clone());
                divide(keys, &obstacles, &tried, &mut together, erased);
            }
        }
    }
}

/// The next chunk: users who must go together first, else the next ones in key order, as many as fit.
async fn next_keys(
    source: &Direct,
    waiting: &mut Vec<String>,
    together: &mut Vec<BTreeSet<String>>,
) -> Result<Option<Vec<String>>, Error> {
    if let Some(group) = together.pop() {
        return Ok(Some(group.into_iter().collect()));
    }
    if waiting.is_empty() {
        return Ok(None);
    }
    let most = waiting.len().min(CHUNK_USERS);
    let known = routes(source, &waiting[..most]).await?;
    let mut rows = 0;
    let mut count = 0;
    for user in &waiting[..most] {
        rows += known.get(user).and_then(|route| route.rows).unwrap_or(0);
        if count > 0 && rows > CHUNK_ROWS {
            break;
        }
        count += 1;
    }
    Ok(Some(waiting.drain(..count).collect()))
}

/// Somebody refers to rows of this chunk. Who is referred to by a user that can be purged too goes with that user; who is
/// referred to by anybody else stays; the others of the chunk go on without it.
fn divide(
    keys: BTreeSet<String>,
    obstacles: &[chunk::Obstacle],
    tried: &HashSet<BTreeSet<String>>,
    together: &mut Vec<BTreeSet<String>>,
    erased: &mut Erased,
) {
    let mut group = keys.clone();
    group.extend(
        obstacles
            .iter()
            .filter_map(|each| each.reference.user.clone()),
    );
    let all_go = obstacles.iter().all(|each| each.may_go);
    if all_go && group.len() <= 5 * CHUNK_USERS && !tried.contains(&group) {
        together.push(group);
        return;
    }
    if keys.len() == 1 {
        let why = obstacles
            .first()
            .map_or_else(String::new, |each| each.reference.to_string());
        erased
            .kept
            .extend(keys.into_iter().map(|user| (user, why.clone())));
        return;
    }
    let keys: Vec<String> = keys.into_iter().collect();
    let (first, second) = keys.split_at(keys.len() / 2);
    together.push(second.iter().cloned().collect());
    together.push(first.iter().cloned().collect());
}

fn add(erased: &mut Erased, chunk: Chunk) {
    erased.users += chunk.users;
    erased.let_go += chunk.let_go;
    for (table, rows) in chunk.rows {
        *erased.rows.entry(table).or_default() += rows;
    }
}

/// Waits until what was written so far is no more than the rate allows.
async fn throttle(
    rate: Option<u64>,
    written: u64,
    began: Instant,
    mut stop: watch::Receiver<bool>,
) {
    let Some(rate) = rate.filter(|rate| *rate > 0) else {
        return;
    };
    let millis = written.saturating_mul(1000) / rate;
    let until = began + Duration::from_millis(millis);
    tokio::select! {
        () = tokio::time::sleep_until(until) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// What is kept for comparing goes where nothing is left to compare: notes of the fence, and salts of runs all of whose
/// users are purged.
async fn close(source: &Direct, target: &Direct, erased: &mut Erased) -> Result<(), Error> {
    let sql = "SELECT usr FROM regionwise.route WHERE state = 'purged' AND usr > $1 ORDER BY usr LIMIT 500";
    let mut last = String::new();
    loop {
        let rows = source.query(sql, &[&last]).await?;
        let users: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let Some(end) = users.last().cloned() else {
            break;
        };
        last = end;
        let done = "SELECT regionwise.unwatch($1)";
        target.query(done, &[&users]).await?;
    }
    let finished = "SELECT r.run FROM regionwise.run r WHERE r.state = 'finished' AND r.salt IS NOT NULL \
                    AND NOT EXISTS (SELECT FROM regionwise.route o WHERE o.run = r.run AND o.state IN ('moved', 'staging'))";
    for row in source.query(finished, &[]).await? {
        let run: String = row.get(0);
        // A move the other way may still stand on it.
        let used =
            "SELECT FROM regionwise.route WHERE run = $1 AND state IN ('moved', 'staging') LIMIT 1";
        if !target.query(used, &[&run]).await?.is_empty() {
            continue;
        }
        for session in [target, source] {
            let erase = "UPDATE regionwise.run SET salt = NULL WHERE run = $1";
            session.execute(erase, &[&run]).await?;
        }
        erased.closed.push(run);
    }
    Ok(())
}
