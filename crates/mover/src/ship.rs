//! Copies the rows of users from the source to the target, and proves them there before the copy is committed.
//!
//! Three digests of every row must agree: of the bytes on the wire, of the source's rows in the snapshot they were read
//! from, and of what the target stored. Only rows of `staging` users are touched, under their home locks, so whoever
//! takes over waits until this transaction is over.

use std::collections::{BTreeMap, HashMap};
use std::io;

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::digest::{Digest, RowHasher, UserHasher};
use regionwise_relocation::protocol::{Change, Token};
use regionwise_relocation::sql::select;
use regionwise_relocation::tuple::{CopyReader, Malformed, TupleWriter};

use crate::batch::Seals;
use crate::change::{self, Seal, digest_of};
use crate::collect::Collector;
use crate::failpoint::Point;
use crate::lane::Lane;
use crate::layout::{Landing, Layout, land_and};
use crate::mismatch::{self, Mismatch};
use crate::referred::Reference;
use crate::terms::LOCKED_WITHIN;

/// What is sent to the target at once.
pub(crate) const PIECE: usize = 64 * 1024;

/// A server hashes the digests of a user's rows as one value, and no value of Postgres has more than 1 GB: 32 bytes each.
pub(crate) const MOST_ROWS: u64 = (1 << 30) / 32 - 1;

/// What a user's rows are, as far as this run has proven it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) digest: Digest,
    pub(crate) rows: u64,
}

impl Proven {
    /// A user without rows.
    pub(crate) fn of_nothing() -> Self {
        Self {
            digest: UserHasher::default().finish(),
            rows: 0,
        }
    }
}

/// What a copy brought.
pub(crate) struct Shipped {
    pub(crate) users: HashMap<String, Proven>,
    pub(crate) seals: Seals,
    pub(crate) tables: Sent,
}

/// Rows and bytes over the wire, by number of the table.
pub(crate) type Sent = BTreeMap<usize, (u64, u64)>;

/// Why a copy was taken back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unshipped {
    /// The copy is not equal: nothing of it stays.
    #[error("{0}")]
    Mismatch(Mismatch),
    /// The target has a row that excludes one of these (a unique key, a check): by table and constraint.
    #[error("`{constraint}` of {table} at the target excludes a row")]
    Conflict { table: String, constraint: String },
    /// A value that the target cannot hold: another encoding, a narrower type.
    #[error("the target does not take a value: {0}")]
    Value(Error),
    /// A row at the target would refer to a row that is not there: by table and foreign key.
    #[error("a row of {table} refers by `{key}` to a row that is not at the target")]
    Dangling { table: String, key: String },
    /// A row at the target would go that rows of others refer to.
    #[error("a row would go, or get another key, at the target: {0}")]
    Referred(Reference),
    #[error(
        "the user has more than {MOST_ROWS} rows, and Postgres cannot hash more of one user: a value has at most 1 GB"
    )]
    TooManyRows,
    /// Somebody keeps a lock for longer than the mover waits: it gives way, and comes again.
    #[error(
        "what its rows need stayed locked for {} s, by a transaction that is open there or a change of the schema: {}",
        LOCKED_WITHIN.as_secs(),
        .0
    )]
    Locked(Error),
    /// The user's writers have waited long enough: the lock is let go, and the sessions are gone.
    #[error("the last changes took longer than writers can be made to wait")]
    LongFence,
    #[error("another runner has taken over")]
    Superseded,
    #[error("{0}")]
    Database(Error),
    #[error("what the source sends is no COPY: {0}")]
    Wire(Malformed),
}

impl From<Error> for Unshipped {
    fn from(error: Error) -> Self {
        match error.sqlstate() {
            Some("MV003") => Self::Superseded,
            // Lock not available, deadlock.
            Some("55P03" | "40P01") => Self::Locked(error),
            // Unique, exclusion, check, not-null.
            Some("23505" | "23P01" | "23514" | "23502") => Self::Conflict {
                table: error.table().unwrap_or("?").to_owned(),
                constraint: error.constraint().unwrap_or("?").to_owned(),
            },
            // Not in the encoding (two), too long, out of range, of no date, no number.
            Some("22021" | "22P05" | "22001" | "22003" | "22008" | "22P02") => Self::Value(error),
            _ => Self::Database(error),
        }
    }
}

impl From<Malformed> for Unshipped {
    fn from(malformed: Malformed) -> Self {
        Self::Wire(malformed)
    }
}

/// What flew by.
struct Wire {
    rows: Collector,
    tables: Sent,
}

/// Copies all rows of `users`, whose target routes are `staging` with `token` and have no rows there yet.
///
/// A rehearsal stages them here, with `changes`, and takes everything back.
pub(crate) async fn ship(
    lane: &Lane,
    token: Token,
    users: &[String],
    changes: &[(&str, Change)],
) -> Result<Shipped, Unshipped> {
    let (source, target) = (&lane.read, &lane.write);
    source
        .batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let copied: Result<Shipped, Unshipped> = async {
        // Sent together: the order is kept, one round trip is enough.
        let (begun, staged, entered) = tokio::join!(
            target.batch("BEGIN"),
            change::apply(target, lane.waiting(None), changes),
            enter(lane, target, token, users)
        );
        begun?;
        staged?;
        entered?;
        let shipped = Box::pin(copy_and_prove(lane, source, target, users)).await?;
        lane.shared.hold.at(Point::Copied).await;
        Ok(shipped)
    }
    .await;
    let end = match (&copied, lane.shared.terms.rehearse) {
        (Ok(_), false) => "COMMIT",
        (Ok(_), true) | (Err(_), _) => "ROLLBACK",
    };
    let (read, written) = tokio::join!(source.batch("ROLLBACK"), target.batch(end));
    let shipped = copied?;
    read?;
    written?;
    Ok(shipped)
}

/// The mover's way past the fence, for this transaction and these users.
pub(crate) async fn enter(
    lane: &Lane,
    session: &Direct,
    token: Token,
    users: &[String],
) -> Result<(), Error> {
    let sql = "SELECT regionwise.enter($1, $2, $3, 'staging')";
    let run = &lane.shared.run.id;
    session
        .query(sql, &[run, &i64::from(token), &users])
        .await
        .map(drop)
}

async fn copy_and_prove(
    lane: &Lane,
    source: &Direct,
    target: &Direct,
    users: &[String],
) -> Result<Shipped, Unshipped> {
    let mut wire = Wire {
        rows: Collector::new(),
        tables: Sent::new(),
    };
    let mut landing = None;
    for (number, layout) in lane.shared.layouts.iter().enumerate() {
        landing = copy(lane, layout, source, target, users, &mut wire, landing).await?;
        if number == 0 {
            lane.shared.hold.at(Point::Copying).await;
        }
    }
    let run = lane.shared.run.id.as_str();
    let proof = async {
        tokio::join!(
            dangling(lane, target, users),
            digests(source, run, users),
            digests(target, run, users)
        )
    };
    let (dangling, sent, stored) = Box::pin(land_and(landing, target, proof)).await?;
    dangling?;
    let (sent, stored) = (sent?, stored?);
    let flown = wire.rows.finish().map_err(no_room(source))?;
    let mut shipped = Shipped {
        users: HashMap::new(),
        seals: Seals::default(),
        tables: wire.tables,
    };
    for user in users {
        let flown = flown.get(user).copied().unwrap_or_else(Proven::of_nothing);
        let (at_source, at_target) = (sent.rows.get(user), stored.rows.get(user));
        if at_source != Some(&flown) || at_target != Some(&flown) {
            let mismatch = mismatch::locate(&lane.shared, source, target, user).await?;
            return Err(Unshipped::Mismatch(mismatch));
        }
        shipped.users.insert(user.clone(), flown);
    }
    shipped.seals = Seals {
        source: sent.seals,
        target: stored.seals,
    };
    Ok(shipped)
}

/// One table, after `landing`; what is landing then. The target is asked to take rows only once the first is there: most
/// tables have none for a batch.
async fn copy<'a>(
    lane: &Lane,
    layout: &'a Layout,
    source: &Direct,
    target: &'a Direct,
    users: &[String],
    wire: &mut Wire,
    mut landing: Option<Landing<'a>>,
) -> Result<Option<Landing<'a>>, Unshipped> {
    let closure = &lane.shared.closure;
    let keys: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut out = source
        .copy_out(&select::copy_out(closure, layout.number.into(), &keys))
        .await?;
    let mut reader = CopyReader::new(layout.fields() + 1);
    let mut writer = TupleWriter::new();
    let hasher = RowHasher::new(&lane.shared.run.salt, layout.number);
    let mut sink = None;
    let mut any = false;
    let mut bytes = 0;
    while let Some(piece) = out.next().await? {
        bytes += u64::try_from(piece.len()).unwrap_or(0);
        reader.push(&piece);
        while let Some(tuple) = reader.next()? {
            any = true;
            let mut fields = tuple.fields();
            let user = fields
                .next()
                .flatten()
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .ok_or_else(|| source.unexpected("a row without its user"))?;
            let digest = hasher.digest(fields.clone());
            if wire.rows.push(user, digest).map_err(no_room(source))? > MOST_ROWS {
                return Err(Unshipped::TooManyRows);
            }
            writer.append(layout.passed_on(fields));
        }
        if any && writer.len() >= PIECE {
            let sink = match &mut sink {
                Some(sink) => sink,
                None => sink.insert(land_and(landing.take(), target, layout.open(target)).await??),
            };
            sink.send(writer.take()).await?;
        }
    }
    let rows = reader.finish()?;
    wire.tables.insert(layout.number.into(), (rows, bytes));
    if !any {
        return Ok(landing);
    }
    let mut sink = match sink {
        Some(sink) => sink,
        None => land_and(landing, target, layout.open(target)).await??,
    };
    writer.trailer();
    sink.send(writer.take()).await?;
    Ok(Some(Landing { layout, sink }))
}

/// What a server says of users' rows.
pub(crate) struct Digests {
    pub(crate) rows: HashMap<String, Proven>,
    pub(crate) seals: HashMap<String, Seal>,
}

/// Of the temporary file, which has nothing to do with the server; but whoever reads from there cannot go on.
fn no_room(session: &Direct) -> impl Fn(io::Error) -> Error {
    |error| {
        session.unexpected(format!(
            "more rows than are kept in memory, and their digests cannot be kept in a temporary file (TMPDIR): {error}"
        ))
    }
}

/// The users' digests, computed by the server.
pub(crate) async fn digests(
    session: &Direct,
    run: &str,
    users: &[String],
) -> Result<Digests, Error> {
    let sql = "SELECT usr, rows, digest, seal FROM regionwise.digests($1, $2)";
    let mut found = Digests {
        rows: HashMap::new(),
        seals: HashMap::new(),
    };
    for row in session.query(sql, &[&run, &users]).await? {
        let (user, count): (String, i64) = (row.get(0), row.get(1));
        let digest = digest_of(session, row.get(2))?;
        let rows = u64::try_from(count).map_err(|_| session.unexpected(format!("{count} rows")))?;
        let versions = digest_of(session, row.get(3))?;
        found.rows.insert(user.clone(), Proven { digest, rows });
        found.seals.insert(user, Seal { versions, digest });
    }
    Ok(found)
}

/// The versions of the users' rows, as the snapshot of `session` has them.
pub(crate) async fn seals(
    session: &Direct,
    users: &[String],
) -> Result<HashMap<String, Digest>, Error> {
    let sql = "SELECT usr, seal FROM regionwise.seals($1)";
    let rows = session.query(sql, &[&users]).await?;
    rows.iter()
        .map(|row| Ok((row.get(0), digest_of(session, row.get(1))?)))
        .collect()
}

/// Whether a row of these users refers to one that the target does not have; the mover writes with foreign keys off.
pub(crate) async fn dangling(
    lane: &Lane,
    target: &Direct,
    users: &[String],
) -> Result<(), Unshipped> {
    let keys: Vec<&str> = users.iter().map(String::as_str).collect();
    let closure = &lane.shared.closure;
    let checks: Vec<String> = (0..lane.shared.layouts.len())
        .filter_map(|number| {
            let check = select::foreign_key_check(closure, number, &keys)?;
            Some(format!("SELECT {number}, c.constraint FROM ({check}) c"))
        })
        .collect();
    if checks.is_empty() {
        return Ok(());
    }
    let broken = target.ask(&checks.join(" UNION ALL ")).await?;
    let Some(row) = broken.first() else {
        return Ok(());
    };
    let number: i32 = row.get(0);
    let table = usize::try_from(number)
        .ok()
        .and_then(|number| lane.shared.layouts.get(number))
        .map_or_else(String::new, |layout| layout.table.clone());
    Err(Unshipped::Dangling {
        table,
        key: row.get(1),
    })
}
