//! Whether the fence stands everywhere, and who holds everybody up.

use regionwise_postgres::{Direct, Error};
use serde::Serialize;

/// A transaction over very many users: nobody moves while it is open.
#[derive(Clone, Debug, Serialize)]
pub struct Gate {
    pub pid: i32,
    /// `None` when the account may not see it.
    pub seconds: Option<f64>,
}

/// A partition, or a table, that lacks triggers of the fence.
#[derive(Clone, Debug, Serialize)]
pub struct Unguarded {
    pub table: String,
    pub lacks: Vec<String>,
}

pub(super) async fn gate(session: &Direct) -> Result<Vec<Gate>, Error> {
    let sql = "SELECT l.pid, extract(epoch FROM clock_timestamp() - a.xact_start)::float8 FROM pg_locks l \
               LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
               WHERE l.relation = 'regionwise.gate'::regclass AND l.mode = 'ShareLock' AND l.granted AND l.pid IS NOT NULL \
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1";
    let rows = session.query(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Gate {
            pid: row.get(0),
            seconds: row.get(1),
        })
        .collect())
}

/// A table with one trigger of the fence must have all, each of its partitions too, and each of them must be ENABLE ALWAYS.
pub(super) async fn unguarded(session: &Direct) -> Result<Vec<Unguarded>, Error> {
    let sql = "WITH fenced AS (SELECT DISTINCT tgrelid FROM pg_trigger WHERE tgname LIKE '~regionwise%' AND tgparentid = 0), \
                    part AS (SELECT tgrelid AS oid FROM fenced \
                             UNION SELECT p.relid FROM fenced CROSS JOIN LATERAL pg_partition_tree(fenced.tgrelid) p) \
               SELECT part.oid::regclass::text, array_agg(wanted.name ORDER BY wanted.name) \
               FROM part CROSS JOIN unnest(ARRAY['~regionwise', '~regionwise_s', '~regionwise_t']) AS wanted(name) \
               WHERE NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = part.oid AND g.tgname = wanted.name AND g.tgenabled = 'A') \
               GROUP BY 1 ORDER BY 1";
    let rows = session.query(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Unguarded {
            table: row.get(0),
            lacks: row.get(1),
        })
        .collect())
}
