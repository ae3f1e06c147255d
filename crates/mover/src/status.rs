//! `status`: what the books of both clusters say. Looks into no table of the product, so it is quick at any time.

mod claims;
mod fence;

use regionwise_postgres::{Direct, Error, Kind};
use serde::Serialize;

use crate::ends::{End, Purpose};

pub use claims::{Aside, Claims, SetAside};
pub use fence::{Gate, Unguarded};

/// How long users may be between two homes before somebody should look.
const BETWEEN_HOMES: f64 = 5.0;

/// The books of one cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Books {
    pub cluster: String,
    pub runs: Vec<RunLine>,
    /// Users by the state of their route.
    pub routes: Vec<(String, i64)>,
    /// Routes that are `staging`, by the run that staged them.
    pub staging: Vec<Staging>,
    pub claims: Vec<Claims>,
    pub aside: SetAside,
    /// Refused writes since the installation.
    pub hits: i64,
    /// Notes of the fence about rows written since their users came.
    pub notes: i64,
    pub gate: Vec<Gate>,
    pub unguarded: Vec<Unguarded>,
    pub purged: Vec<Shipped>,
}

/// A run as its source or its target has it.
#[derive(Clone, Debug, Serialize)]
pub struct RunLine {
    pub run: String,
    pub direction: String,
    /// `guest` where the run brings users.
    pub state: String,
    pub note: Option<String>,
    pub started: String,
    pub finished: Option<String>,
    /// False after the purge.
    pub has_salt: bool,
    pub moved: i64,
    pub open: i64,
    pub aside: i64,
    pub batches: i64,
    pub batches_open: i64,
    /// Microseconds in which writers met the fence, of users who moved.
    pub stall_p50: Option<i64>,
    pub stall_p99: Option<i64>,
    pub stall_max: Option<i64>,
    pub shipped: Vec<Shipped>,
    /// Over all its batches; `None` when nothing was written down.
    pub bytes_per_second: Option<i64>,
}

/// Rows of one table.
#[derive(Clone, Debug, Serialize)]
pub struct Shipped {
    pub table: String,
    pub rows: i64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Staging {
    pub run: String,
    pub users: Vec<String>,
}

/// Users whom one cluster has released and the other has not taken over.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BetweenHomes {
    pub users: i64,
    /// Since the release of the first of them; `None` when of one nobody wrote down when it was.
    pub seconds: Option<f64>,
}

impl BetweenHomes {
    /// Whether a lease and a take-over would be long past. An age that is not known counts as one that is.
    pub fn are_left(&self) -> bool {
        self.users > 0 && self.seconds.is_none_or(|seconds| seconds > BETWEEN_HOMES)
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self.users, other.users) {
            (_, 0) => self,
            (0, _) => other,
            (ours, theirs) => Self {
                users: ours + theirs,
                seconds: self
                    .seconds
                    .zip(other.seconds)
                    .map(|(ours, theirs)| ours.max(theirs)),
            },
        }
    }
}

/// What one cluster says, or `None` when nothing is installed in it.
///
/// # Errors
/// The cluster cannot be reached.
pub async fn books(end: &End) -> Result<Option<(Books, Direct)>, Error> {
    let session = end.open(Purpose::Verify, "regionwise status").await?;
    let installed = session
        .query("SELECT version FROM regionwise.install", &[])
        .await;
    match installed {
        Err(error) if error.kind == Kind::Missing => return Ok(None),
        other => {
            if other?.is_empty() {
                return Ok(None);
            }
        }
    }
    let books = Books {
        cluster: end.cluster.clone(),
        runs: runs(&session).await?,
        routes: routes(&session).await?,
        staging: staging(&session).await?,
        claims: claims::claims(&session).await?,
        aside: claims::set_aside(&session).await?,
        hits: number(
            &session,
            "SELECT coalesce(pg_sequence_last_value('regionwise.hits'::regclass), 0)",
        )
        .await?,
        notes: number(&session, "SELECT count(*) FROM regionwise.dirty").await?,
        gate: fence::gate(&session).await?,
        unguarded: fence::unguarded(&session).await?,
        purged: shipped(&session, "purged", None).await?,
    };
    Ok(Some((books, session)))
}

/// Which users were released by `source` and are not served by `target`: staged there, or given up before the release came.
///
/// # Errors
/// A cluster cannot be reached.
pub async fn between_homes(source: &Direct, target: &Direct) -> Result<BetweenHomes, Error> {
    let arriving = "SELECT coalesce(array_agg(usr), '{}') FROM regionwise.route WHERE state IN ('staging', 'cancelled')";
    let released = "SELECT count(*), CASE WHEN count(*) = count(d.at) \
                 THEN extract(epoch FROM clock_timestamp() - min(d.at))::float8 END \
               FROM regionwise.route r LEFT JOIN regionwise.member m ON m.run = r.run AND m.usr = r.usr \
               CROSS JOIN LATERAL (SELECT max(j.at) AS at FROM regionwise.journal j WHERE j.run = m.run \
                 AND j.batch = m.batch AND j.step = 'route' AND j.facts ? 'moved') AS d \
               WHERE r.usr = ANY($1) AND r.state = 'moved'";
    let rows = target.query(arriving, &[]).await?;
    let users: Vec<String> = rows.first().map_or_else(Vec::new, |row| row.get(0));
    let rows = source.query(released, &[&users]).await?;
    Ok(rows
        .first()
        .map_or_else(BetweenHomes::default, |row| BetweenHomes {
            users: row.get(0),
            seconds: row.get(1),
        }))
}

async fn number(session: &Direct, sql: &str) -> Result<i64, Error> {
    let rows = session.query(sql, &[]).await?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or_else(|| session.unexpected("no number"))
}

async fn runs(session: &Direct) -> Result<Vec<RunLine>, Error> {
    let sql = "SELECT r.run, r.direction, r.state, nullif(r.note, ''), to_char(r.started AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
                 to_char(r.finished AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), r.salt IS NOT NULL, \
                 coalesce(m.moved, 0), coalesce(m.open, 0), coalesce(m.aside, 0), coalesce(b.batches, 0), coalesce(b.open, 0), \
                 m.stalls[1], m.stalls[2], m.stalls[3], (b.bytes / greatest(b.seconds, 0.001))::int8 \
               FROM regionwise.run r \
               LEFT JOIN LATERAL (SELECT count(*) FILTER (WHERE m.state = 'moved') AS moved, \
                   count(*) FILTER (WHERE m.state = 'open') AS open, count(*) FILTER (WHERE m.state = 'quarantined') AS aside, \
                   percentile_disc(ARRAY[0.5, 0.99, 1.0]) WITHIN GROUP (ORDER BY m.stall_us) FILTER (WHERE m.state = 'moved') AS stalls \
                 FROM regionwise.member m WHERE m.run = r.run) m ON true \
               LEFT JOIN LATERAL (SELECT count(*) AS batches, count(*) FILTER (WHERE b.state <> 'done') AS open, \
                   sum(b.bytes) AS bytes, extract(epoch FROM max(b.finished) - min(b.started)) AS seconds \
                 FROM regionwise.batch b WHERE b.run = r.run) b ON true \
               ORDER BY r.started, r.run";
    let mut found = Vec::new();
    for row in session.query(sql, &[]).await? {
        let run: String = row.get(0);
        found.push(RunLine {
            shipped: shipped(session, "shipped", Some(&run)).await?,
            run,
            direction: row.get(1),
            state: row.get(2),
            note: row.get(3),
            started: row.get(4),
            finished: row.get(5),
            has_salt: row.get(6),
            moved: row.get(7),
            open: row.get(8),
            aside: row.get(9),
            batches: row.get(10),
            batches_open: row.get(11),
            stall_p50: row.get(12),
            stall_p99: row.get(13),
            stall_max: row.get(14),
            bytes_per_second: row.get(15),
        });
    }
    Ok(found)
}

/// Rows by table, as the journal's lines of one step have them: a number, or an object with one.
async fn shipped(session: &Direct, step: &str, run: Option<&str>) -> Result<Vec<Shipped>, Error> {
    let sql = "SELECT t.key, sum(CASE jsonb_typeof(t.value) WHEN 'object' THEN (t.value ->> 'rows')::int8 \
                 WHEN 'number' THEN (t.value #>> '{}')::int8 END)::int8 \
               FROM regionwise.journal j CROSS JOIN LATERAL jsonb_each(j.facts -> 'tables') t \
               WHERE j.step = $1 AND ($2::text IS NULL OR j.run = $2) AND jsonb_typeof(j.facts -> 'tables') = 'object' \
               GROUP BY 1 ORDER BY 1";
    let rows = session.query(sql, &[&step, &run]).await?;
    Ok(rows
        .iter()
        .map(|row| Shipped {
            table: row.get(0),
            rows: row.get::<_, Option<i64>>(1).unwrap_or(0),
        })
        .collect())
}

async fn routes(session: &Direct) -> Result<Vec<(String, i64)>, Error> {
    let sql = "SELECT state, count(*) FROM regionwise.route WHERE usr <> '' GROUP BY 1 ORDER BY 1";
    let rows = session.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn staging(session: &Direct) -> Result<Vec<Staging>, Error> {
    let sql = "SELECT coalesce(run, ''), array_agg(usr ORDER BY usr) FROM regionwise.route WHERE state = 'staging' GROUP BY 1 ORDER BY 1";
    let rows = session.query(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Staging {
            run: row.get(0),
            users: row.get(1),
        })
        .collect())
}
