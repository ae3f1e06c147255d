//! One task per cluster: writes the tokens, reads the primary's facts, removes the row at the end.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use regionwise_postgres::heartbeat::{self, Standing, Writer};
use regionwise_postgres::replication::{self, Lsn, OLDEST_VERSION, Primary};
use regionwise_postgres::{Error, Kind, Session};
use regionwise_rollout::lag::{Refusal, Token};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use crate::clock::Clock;
use crate::line::Line;
use crate::observe::{Blocked, Event, cause};

/// Facts change slowly; they are read with every so many tokens.
const FACTS_EVERY: u32 = 5;
/// A standing writer is read twice at the start: once proves nothing.
const STANDING_READINGS: usize = 2;

/// What the standbys' tasks need to know about their primary.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) tokens: Vec<Token>,
    /// The end of the primary's WAL, and when the question for it was sent.
    pub(crate) flushed: Option<(Duration, Lsn)>,
    pub(crate) facts: Option<Primary>,
    pub(crate) standing: Vec<Standing>,
}

pub(crate) struct Task {
    pub(crate) cluster: usize,
    pub(crate) line: Line,
    pub(crate) writer: Writer,
    pub(crate) interval: Duration,
    pub(crate) clock: Clock,
    pub(crate) written: watch::Sender<Written>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) stop: watch::Receiver<bool>,
    /// A row may be there; also when the answer to the write never came.
    pub(crate) wrote: bool,
}

impl Task {
    /// Beats until it is told to stop. The result says whether the row is gone.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.beat() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        if !self.wrote {
            return Ok(());
        }
        let session = self.line.session().await?;
        self.writer.remove(session).await
    }

    async fn beat(&mut self) {
        let mut round = 0;
        loop {
            let from = self.clock.now();
            match self.round(round, from).await {
                Ok(()) => round += 1,
                Err(error) => self.tell(from, error, round == 0),
            }
            sleep_until(self.clock.at(from + jittered(self.interval))).await;
        }
    }

    async fn round(&mut self, round: u32, from: Duration) -> Result<(), Error> {
        let session = self.line.session().await?;
        if let Some(blocked) = unfit(session) {
            let _ = self.events.send(Event::Blocked {
                cluster: self.cluster,
                standby: None,
                blocked,
            });
            return Ok(());
        }
        if round.is_multiple_of(FACTS_EVERY) || self.written.borrow().facts.is_none() {
            let facts = replication::primary(session).await?;
            self.written
                .send_modify(|written| written.facts = Some(facts));
        }
        let sent = self.clock.now();
        self.wrote = true;
        let beat = self.writer.beat(session).await?;
        let token = Token {
            seq: beat.seq,
            sent,
            acked: self.clock.now(),
        };
        self.written.send_modify(|written| {
            written.tokens.push(token);
            written.flushed = Some((sent, beat.flush_lsn));
        });
        if self.written.borrow().standing.len() < STANDING_READINGS
            && from < self.interval * FACTS_EVERY
        {
            let standing = heartbeat::standing(session, &self.writer).await?;
            self.written
                .send_modify(|written| written.standing.extend(standing));
        }
        Ok(())
    }

    /// An error that waiting does not heal ends the gate; any other makes every standby of the cluster unknown.
    fn tell(&self, from: Duration, error: Error, first: bool) {
        let cluster = self.cluster;
        let event = match error.kind {
            Kind::ReadOnly => Event::Refused {
                cluster,
                standby: None,
                refusal: Refusal::PrimaryInRecovery,
            },
            Kind::Missing => Event::Blocked {
                cluster,
                standby: None,
                blocked: Blocked::no_table(&error),
            },
            Kind::Permission => Event::Blocked {
                cluster,
                standby: None,
                blocked: Blocked::permission(&error),
            },
            Kind::Auth | Kind::Tls if first => Event::Blocked {
                cluster,
                standby: None,
                blocked: Blocked::login(&error),
            },
            _ => Event::NoToken {
                cluster,
                from,
                to: self.clock.now(),
                cause: cause("primary", &error),
            },
        };
        // Nobody listens any more only when the run is over.
        let _ = self.events.send(event);
    }
}

/// Why a session cannot be used for measuring at all.
pub(crate) fn unfit(session: &Session) -> Option<Blocked> {
    if session.version() < OLDEST_VERSION {
        return Some(Blocked::too_old(session.place(), session.version()));
    }
    (!session.has_pg_monitor()).then(|| Blocked::blind(session.place()))
}

/// 80 to 120 % of the interval, so that the tokens never beat in time with something else.
fn jittered(interval: Duration) -> Duration {
    let random = RandomState::new().hash_one(0u8) % 1000;
    interval * 4 / 5 + interval * 2 / 5 * u32::try_from(random).unwrap_or(0) / 1000
}
