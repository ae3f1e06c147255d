//! What makes a run wait: standbys that lag, busy servers, a query, a flag file, a command.
//!
//! Looked at outside of every fence only. What cannot be measured holds the run: unknown is never ok.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use regionwise_postgres::{Direct, Error};
use tokio::process::Command;
use tokio::time::timeout;

/// Conditions under which a run waits. All of them are optional, each on its own is enough.
#[derive(Clone, Debug, Default)]
pub struct Throttle {
    /// A standby of either cluster has replayed less than this far.
    pub max_lag: Option<Duration>,
    /// More sessions than this are active on either primary, ours left out.
    pub max_active: Option<u32>,
    /// A query on the source that says `true` while the run must wait.
    pub query: Option<String>,
    /// A file that exists while the run must wait.
    pub file: Option<PathBuf>,
    /// A shell command that fails while the run must wait.
    pub command: Option<String>,
}

/// How long a query or a command may take before it counts as not answered.
const PATIENCE: Duration = Duration::from_secs(5);

impl Throttle {
    /// Whether there is any condition.
    pub(crate) fn is_set(&self) -> bool {
        let Self {
            max_lag,
            max_active,
            query,
            file,
            command,
        } = self;
        max_lag.is_some()
            || max_active.is_some()
            || query.is_some()
            || file.is_some()
            || command.is_some()
    }

    /// Why the run must wait now, with what was seen; `None` when it may go on.
    pub(crate) async fn reason(&self, source: &Direct, target: &Direct) -> Option<String> {
        if let Some(file) = self.file.as_ref().filter(|file| file.exists()) {
            return Some(format!("the file {} exists", file.display()));
        }
        if let Some(limit) = self.max_lag {
            for session in [source, target] {
                if let Some(reason) = known(lag(session, limit)).await {
                    return Some(reason);
                }
            }
        }
        if let Some(limit) = self.max_active {
            for session in [source, target] {
                if let Some(reason) = known(active(session, limit)).await {
                    return Some(reason);
                }
            }
        }
        if let Some(query) = &self.query
            && let Some(reason) = known(asked(source, query)).await
        {
            return Some(reason);
        }
        if let Some(command) = &self.command {
            return refused(command).await;
        }
        None
    }
}

async fn known(looked: impl Future<Output = Result<Option<String>, Error>>) -> Option<String> {
    match timeout(PATIENCE, looked).await {
        Ok(Ok(reason)) => reason,
        Ok(Err(error)) => Some(unmeasured(error)),
        Err(_) => Some(unmeasured(format_args!(
            "no answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

/// What holds a run while nobody knows whether it may go on.
pub(crate) fn unmeasured(why: impl fmt::Display) -> String {
    format!("the throttle cannot be measured: {why}")
}

async fn lag(session: &Direct, limit: Duration) -> Result<Option<String>, Error> {
    // A standby that has replayed everything has no lag, however old its last report is.
    let sql = "SELECT application_name, \
                      CASE WHEN replay_lsn = pg_current_wal_lsn() THEN 0 \
                           ELSE extract(epoch FROM replay_lag) END::float8, state \
               FROM pg_stat_replication WHERE state IS NULL OR state IN ('streaming', 'catchup')";
    for row in session.query(sql, &[]).await? {
        let name = row.get::<_, Option<&str>>(0).unwrap_or("?");
        let seconds: Option<f64> = row.get(1);
        match seconds {
            Some(seconds) if seconds <= limit.as_secs_f64() => {}
            Some(seconds) => {
                return Ok(Some(format!(
                    "standby `{name}` of {} lags {seconds:.1} s, more than {:.1} s",
                    session.place(),
                    limit.as_secs_f64()
                )));
            }
            None => {
                return Ok(Some(format!(
                    "the lag of standby `{name}` of {} is unknown",
                    session.place()
                )));
            }
        }
    }
    Ok(None)
}

async fn active(session: &Direct, limit: u32) -> Result<Option<String>, Error> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
               AND backend_type = 'client backend' AND application_name NOT LIKE 'regionwise %'";
    let rows = session.query(sql, &[]).await?;
    let count: i64 = rows.first().map_or(i64::MAX, |row| row.get(0));
    Ok((count > i64::from(limit)).then(|| {
        format!(
            "{count} sessions are active on {}, more than {limit}",
            session.place()
        )
    }))
}

async fn asked(session: &Direct, query: &str) -> Result<Option<String>, Error> {
    let rows = session.query(query, &[]).await?;
    let answer = rows
        .first()
        .and_then(|row| row.try_get::<_, Option<bool>>(0).ok().flatten());
    Ok(match answer {
        Some(false) => None,
        Some(true) => Some("the pause query says true".to_owned()),
        None => Some("the pause query did not answer with one boolean".to_owned()),
    })
}

async fn refused(command: &str) -> Option<String> {
    let run = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    match timeout(PATIENCE, run).await {
        Ok(Ok(status)) if status.success() => None,
        Ok(Ok(status)) => Some(format!("the pause command ends with {status}")),
        Ok(Err(error)) => Some(format!("the pause command cannot start: {error}")),
        Err(_) => Some(format!(
            "the pause command takes longer than {} s",
            PATIENCE.as_secs()
        )),
    }
}
