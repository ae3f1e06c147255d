//! Writes tokens through the writer and waits for them on the reader, as long as reads go to a standby.
//!
//! The row is this process's own: key (cluster, writer), the writer being a UUID of this start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::types::Type;

use crate::app::App;
use crate::database::{Database, DatabaseError, Parameter};
use crate::lag::{Bounds, TokenLag};
use crate::log;

/// Often enough to see a lag of 500 ms begin; four HOT updates a second are nothing to a primary.
const WRITE_EVERY: Duration = Duration::from_millis(250);

/// The precision of a small lag.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A large lag needs no such precision, and a standby that catches up has better things to do.
const POLL_AT_MOST_EVERY: Duration = Duration::from_millis(250);

/// The lag of one standby as this process sees it.
pub(crate) struct ReplicaLag {
    pub(crate) name: String,
    started: Instant,
    tokens: Mutex<TokenLag>,
}

impl ReplicaLag {
    pub(crate) fn of(name: String) -> Self {
        Self {
            name,
            started: Instant::now(),
            tokens: Mutex::default(),
        }
    }

    /// The lag now, or why it is not known.
    pub(crate) fn now(&self) -> Result<Bounds, String> {
        self.tokens().now(self.started.elapsed())
    }

    fn tokens(&self) -> MutexGuard<'_, TokenLag> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running heartbeat, if there is a standby to measure.
pub(crate) struct Heartbeat(Option<(Arc<Probe>, JoinHandle<()>)>);

/// One process's row, and connections of its own: a token that waited behind the product's requests would be late without
/// any lag.
struct Probe {
    write: Database,
    read: Database,
    cluster: String,
    writer: String,
}

pub(crate) fn start(app: &Arc<App>) -> anyhow::Result<Heartbeat> {
    let Some(databases) = &app.databases else {
        return Ok(Heartbeat(None));
    };
    let Some(replica) = databases.replica.clone() else {
        return Ok(Heartbeat(None));
    };
    let probe = Arc::new(Probe {
        write: databases.write.apart(),
        read: databases.read.apart(),
        cluster: databases.cluster.clone(),
        writer: random_uuid()?,
    });
    let running = Arc::clone(&probe);
    let task = tokio::spawn(async move {
        tokio::join!(running.write(&replica), running.poll(&replica));
    });
    Ok(Heartbeat(Some((probe, task))))
}

impl Heartbeat {
    /// Stops and takes the row away, so that rows do not pile up with every release.
    pub(crate) async fn stop(self) {
        let Some((probe, task)) = self.0 else { return };
        task.abort();
        let sql = "DELETE FROM regionwise.heartbeat WHERE cluster = $1 AND \
                   (writer = $2::uuid OR ts < clock_timestamp() - interval '1 day')";
        let parameters: [Parameter<'_>; 2] =
            [(&probe.cluster, Type::TEXT), (&probe.writer, Type::TEXT)];
        let delete = probe.write.query_once(sql, &parameters);
        // A row left behind is swept a day later by another process.
        let _ = timeout(Duration::from_secs(1), delete).await;
    }
}

impl Probe {
    async fn write(&self, replica: &ReplicaLag) {
        let mut ticks = interval(WRITE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        for number in 1_u64.. {
            ticks.tick().await;
            replica.tokens().sent(number, replica.started.elapsed());
            match self.write.batch(&self.token(number)).await {
                Ok(()) => {
                    replica
                        .tokens()
                        .committed(number, replica.started.elapsed());
                    failing = false;
                }
                Err(error) => {
                    let reason = reason("cannot write a token through the writer", &error);
                    replica.tokens().not_written(number, reason);
                    if !failing {
                        log::error("cannot write a heartbeat token", &error.into());
                    }
                    failing = true;
                }
            }
        }
    }

    /// `local`: with a dead synchronous standby the commit would wait without end, and its row stay invisible. The cluster
    /// and the writer are letters, digits and hyphens: nothing to quote.
    fn token(&self, number: u64) -> String {
        format!(
            "BEGIN; SET LOCAL synchronous_commit = local; \
             INSERT INTO regionwise.heartbeat (cluster, writer, seq) VALUES ('{}', '{}', {number}) \
             ON CONFLICT (cluster, writer) DO UPDATE SET seq = EXCLUDED.seq, ts = clock_timestamp(); COMMIT",
            self.cluster, self.writer
        )
    }

    async fn poll(&self, replica: &ReplicaLag) {
        let sql = "SELECT seq FROM regionwise.heartbeat WHERE cluster = $1 AND writer = $2::uuid";
        let parameters: [Parameter<'_>; 2] =
            [(&self.cluster, Type::TEXT), (&self.writer, Type::TEXT)];
        let mut failing = false;
        loop {
            let Some(waiting) = replica.tokens().waiting(replica.started.elapsed()) else {
                sleep(POLL_EVERY / 2).await;
                continue;
            };
            let sent = replica.started.elapsed();
            match self.read.query_repeatable(sql, &parameters).await {
                Ok(rows) => {
                    // No row is the same as an old one: the first token has not arrived.
                    let newest = rows.first().map_or(0, |row| row.get::<_, i64>(0));
                    replica
                        .tokens()
                        .polled(newest.unsigned_abs(), sent, replica.started.elapsed());
                    failing = false;
                }
                Err(error) => {
                    replica
                        .tokens()
                        .poll_failed(reason("cannot read the token through the reader", &error));
                    if !failing {
                        log::error("cannot read the heartbeat token", &error.into());
                    }
                    failing = true;
                }
            }
            sleep((waiting / 20).clamp(POLL_EVERY, POLL_AT_MOST_EVERY)).await;
        }
    }
}

/// One line with the innermost cause, for `/health/db`.
fn reason(action: &str, error: &DatabaseError) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    format!("{action}: {innermost}")
}

fn random_uuid() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("cannot get random bytes for the heartbeat's name: {error}"))?;
    // Version 4, variant 1 (RFC 9562).
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok(format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    ))
}

#[cfg(test)]
mod tests {
    use super::random_uuid;

    #[test]
    fn uuids_differ_and_have_version_four() {
        let (one, two) = (random_uuid().unwrap(), random_uuid().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "4");
    }
}
