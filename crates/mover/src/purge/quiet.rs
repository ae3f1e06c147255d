//! The time before the first delete: nobody may still believe that the users live at the source.

use std::time::Duration;

use regionwise_postgres::{Direct, Error};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Erasure;
use crate::ends::MOVER_ROLE;

/// How often the fence's counter is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why the time was not quiet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unquiet {
    /// Writes came to the wrong side: by how much the counter moved.
    #[error(
        "{0} writes were refused meanwhile: somebody still takes the source for the home of users who moved"
    )]
    StaleWriters(i64),
    /// Open since before the watch began: by process, 0 for a prepared one.
    #[error("transactions are open that are older than the watch, by process: {0:?}")]
    OldTransactions(Vec<i32>),
    /// A standby has not written what the purge builds on.
    #[error("standby `{0}` of {1} has not written what the purge builds on")]
    StandbyBehind(String, String),
    /// How far it is, this account may not see.
    #[error(
        "how far standby `{0}` of {1} is, this account may not see; as a superuser: GRANT pg_read_all_stats TO {MOVER_ROLE}"
    )]
    StandbyHidden(String, String),
    /// There should be one.
    #[error("no standby of {0} is connected: it may promote one that has not seen the users move")]
    NoStandby(String),
}

pub(super) enum Watched {
    Unquiet(Unquiet),
    Stopped,
}

/// Watches for the grace. `None` when nothing happened.
pub(super) async fn watch(
    source: &Direct,
    target: &Direct,
    task: &Erasure,
    stop: watch::Receiver<bool>,
) -> Result<Option<Watched>, Error> {
    let before = hits(source).await?;
    let open = transactions(source).await?;
    let marks = [position(source).await?, position(target).await?];
    let until = Instant::now() + task.grace;
    while Instant::now() < until {
        if *stop.borrow() {
            return Ok(Some(Watched::Stopped));
        }
        sleep(LOOK_EVERY.min(until - Instant::now())).await;
        let came = hits(source).await? - before;
        if came != 0 {
            return Ok(Some(Watched::Unquiet(Unquiet::StaleWriters(came))));
        }
    }
    let still: Vec<i32> = transactions(source)
        .await?
        .into_iter()
        .filter(|one| open.contains(one))
        .map(|(pid, _)| pid)
        .collect();
    if !still.is_empty() {
        return Ok(Some(Watched::Unquiet(Unquiet::OldTransactions(still))));
    }
    let sides = [(source, &task.ends.source), (target, &task.ends.target)];
    for ((session, end), (mark, expected)) in sides.into_iter().zip(marks.iter().zip(task.standbys))
    {
        if let Some(unquiet) = standbys(session, &end.cluster, mark, expected).await? {
            return Ok(Some(Watched::Unquiet(unquiet)));
        }
    }
    Ok(None)
}

/// `last_value` of a sequence is the same before and after its first use; this is not.
async fn hits(source: &Direct) -> Result<i64, Error> {
    let sql = "SELECT coalesce(pg_sequence_last_value('regionwise.hits'::regclass), 0)";
    let rows = source.query(sql, &[]).await?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or_else(|| source.unexpected("no counter"))
}

/// Open transactions of this database by process and their own number. What pg_locks says needs no privilege.
async fn transactions(source: &Direct) -> Result<Vec<(i32, String)>, Error> {
    let sql = "SELECT l.pid, l.virtualtransaction FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
               WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND a.datname = current_database() \
               AND a.usesysid IS NOT NULL AND l.pid <> pg_backend_pid() \
               UNION ALL SELECT 0, gid FROM pg_prepared_xacts WHERE database = current_database()";
    let rows = source.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The end of the WAL: everything that moved is before it.
async fn position(session: &Direct) -> Result<String, Error> {
    let rows = session
        .query("SELECT pg_current_wal_lsn()::text", &[])
        .await?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or_else(|| session.unexpected("no position"))
}

async fn standbys(
    session: &Direct,
    cluster: &str,
    mark: &str,
    expected: bool,
) -> Result<Option<Unquiet>, Error> {
    // A position that is not shown is one that is not known; the state is NULL only for who may not see it.
    let sql = "SELECT application_name, coalesce(flush_lsn >= $1::text::pg_lsn, false), state IS NULL FROM pg_stat_replication \
               WHERE coalesce(application_name, '') NOT IN ('pg_basebackup', 'pg_receivewal') \
               AND coalesce(state, 'streaming') IN ('streaming', 'catchup') \
               AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = pid AND s.slot_type = 'logical')";
    let rows = session.query(sql, &[&mark]).await?;
    if rows.is_empty() && expected {
        return Ok(Some(Unquiet::NoStandby(cluster.to_owned())));
    }
    let behind = rows.iter().find(|row| !row.get::<_, bool>(1));
    Ok(behind.map(|row| {
        let name: Option<String> = row.get(0);
        let (name, cluster) = (name.unwrap_or_default(), cluster.to_owned());
        match row.get(2) {
            true => Unquiet::StandbyHidden(name, cluster),
            false => Unquiet::StandbyBehind(name, cluster),
        }
    }))
}
