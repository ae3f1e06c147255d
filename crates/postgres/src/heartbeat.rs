//! The token heartbeat: a row that counts up on the primary and is looked for on the standbys.
//!
//! Lag measured this way compares no clocks of different machines and is right where the usual signals are not: on an
//! idle cluster, on a cut link, with a frozen receiver.

use std::io;

use crate::connect::{Row, Session, literal};
use crate::error::{Error, Kind};
use crate::replication::Lsn;

/// Schema, table and grants that it needs.
pub const SCHEMA: &str = include_str!("heartbeat.sql");

/// A writer whose row is younger than this writes now.
const STANDING_WITHIN_SECONDS: f64 = 5.0;

/// Our row in one cluster.
#[derive(Clone, Debug)]
pub struct Writer {
    cluster: String,
    id: String,
    seq: u64,
}

/// A committed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    pub seq: u64,
    /// Where the primary's WAL ended just after it.
    pub flush_lsn: Lsn,
}

/// The row of somebody who wrote before we came, as the primary shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub writer: String,
    /// The primary's clock when it was read, in seconds.
    pub clock: f64,
    /// The primary's clock at its newest beat.
    pub beat: f64,
}

impl Writer {
    /// A writer that nobody else is.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(cluster: &str) -> Result<Self, io::Error> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let id = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            cluster: cluster.to_owned(),
            id,
            seq: 0,
        })
    }

    /// Writes the next token.
    ///
    /// A commit that waits for a dead synchronous standby would hang here, and the row would stay invisible on the
    /// primary too; the token's own commit therefore waits for the local disk only.
    ///
    /// # Errors
    /// By kind; `missing` when the table is not there, `permission` without the grants.
    pub async fn beat(&mut self, primary: &mut Session) -> Result<Beat, Error> {
        // Never the same number twice: a write without an answer may have been committed.
        self.seq += 1;
        let seq = self.seq;
        let sql = format!(
            "INSERT INTO regionwise.heartbeat (cluster, writer, seq, ts) \
             VALUES ({}, {}, {seq}, clock_timestamp()) \
             ON CONFLICT (cluster, writer) DO UPDATE SET seq = EXCLUDED.seq, ts = EXCLUDED.ts",
            literal(&self.cluster),
            literal(&self.id),
        );
        let after = "SELECT pg_catalog.pg_current_wal_flush_lsn() AS flush_lsn";
        let rows = primary
            .write("SET LOCAL synchronous_commit = local;", &sql, after)
            .await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::new(Kind::Unexpected, primary.place(), "no WAL position"))?;
        Ok(Beat {
            seq,
            flush_lsn: row.parse("flush_lsn")?,
        })
    }

    /// Removes our row; without it nothing of the run is left.
    ///
    /// # Errors
    /// By kind; `permission` where the role may not delete.
    pub async fn remove(&self, primary: &mut Session) -> Result<(), Error> {
        let sql = format!(
            "DELETE FROM regionwise.heartbeat WHERE {}",
            self.condition()
        );
        primary
            .write("SET LOCAL synchronous_commit = local;", &sql, "")
            .await?;
        Ok(())
    }

    /// The highest token that a statement sees, as an SQL expression.
    pub(crate) fn seen(&self) -> String {
        format!(
            "(SELECT seq FROM regionwise.heartbeat WHERE {})",
            self.condition()
        )
    }

    fn condition(&self) -> String {
        format!(
            "cluster = {} AND writer = {}",
            literal(&self.cluster),
            literal(&self.id)
        )
    }
}

/// The freshest writer that was here before us, if one writes at all.
///
/// # Errors
/// By kind.
pub async fn standing(primary: &mut Session, ours: &Writer) -> Result<Option<Standing>, Error> {
    let sql = format!(
        "SELECT writer, extract(epoch FROM clock_timestamp()) AS clock, extract(epoch FROM ts) AS beat FROM regionwise.heartbeat \
         WHERE cluster = {} AND writer <> {} \
         AND ts > clock_timestamp() - interval '{STANDING_WITHIN_SECONDS} seconds' ORDER BY ts DESC LIMIT 1",
        literal(&ours.cluster),
        literal(&ours.id),
    );
    let rows = primary.rows(&sql).await?;
    let standing = |row: &Row| {
        Ok(Standing {
            writer: row.parse("writer")?,
            clock: row.parse("clock")?,
            beat: row.parse("beat")?,
        })
    };
    rows.first().map(standing).transpose()
}

/// The primary's clock at the newest beat of `standing` that the standby has, in seconds; `None` when it has none.
///
/// # Errors
/// By kind.
pub async fn last_beat(
    standby: &mut Session,
    ours: &Writer,
    standing: &Standing,
) -> Result<Option<f64>, Error> {
    let sql = format!(
        "SELECT extract(epoch FROM ts) AS ts FROM regionwise.heartbeat WHERE cluster = {} AND writer = {}",
        literal(&ours.cluster),
        literal(&standing.writer),
    );
    let rows = standby.rows(&sql).await?;
    rows.first().map(|row| row.parse("ts")).transpose()
}

#[cfg(test)]
mod tests {
    use super::Writer;

    #[test]
    fn two_runs_never_share_a_row() {
        let (one, other) = (Writer::new("eu").unwrap(), Writer::new("eu").unwrap());
        assert_ne!(one.id, other.id);
        assert_eq!(one.id.len(), 32);
        assert!(one.condition().starts_with("cluster = 'eu' AND writer = '"));
    }
}
