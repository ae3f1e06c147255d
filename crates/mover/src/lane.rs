//! One lane: claims batch after batch and sees each through.
//!
//! What to do with a user follows from its two routes alone (`protocol::next`), so a batch that somebody else began, a
//! lost answer and a broken connection all go the same way: look at the routes, go on. The steps are in `work`.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use regionwise_postgres::{Direct, Error};
use regionwise_relocation::protocol::{Change, Token};
use tokio::time::sleep;

use crate::batch::Batch;
use crate::ends::{Ends, Purpose};
use crate::event::Event;
use crate::failpoint::Point;
use crate::journal::{self, Claim};
use crate::mismatch::Mismatch;
use crate::reconnect::Patience;
use crate::shared::{Shared, session_name};
use crate::terms::RECONNECT_WITHIN;

/// Four sessions and a number.
pub(crate) struct Lane {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: usize,
    pub(crate) read: Direct,
    pub(crate) write: Direct,
    pub(crate) source: Direct,
    pub(crate) target: Direct,
}

/// How a lane ends.
#[derive(Debug)]
pub(crate) enum LaneEnd {
    /// Nothing is left that anybody could claim.
    NothingLeft,
    Stopped,
    Mismatch(Mismatch),
    /// Nobody goes on before the fence is installed for the schema that is at this place now.
    OtherSchema(String),
}

/// Why a batch is not worked on further.
#[derive(Debug)]
pub(crate) enum Halt {
    Stopped,
    /// Somebody else has the batch.
    Superseded,
    /// The schema is another one than `install` saw: digests and copies would leave something out.
    OtherSchema(String),
    Mismatch(Mismatch),
    /// A cluster does not know the run: it was promoted, and had not got its row yet.
    NoSalt(Error),
    Database(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        match error.sqlstate() {
            Some("MV003") => Self::Superseded,
            Some("MV004") => Self::OtherSchema(error.place),
            Some("MV005") => Self::NoSalt(error),
            // A table, column or type is not there, or another one; 42501 is a missing privilege.
            Some(state) if state.starts_with("42") && state != "42501" => {
                Self::OtherSchema(error.place)
            }
            _ => Self::Database(error),
        }
    }
}

impl Lane {
    pub(crate) async fn open(shared: Arc<Shared>, number: usize) -> Result<Self, Error> {
        let name = session_name(&shared.run.id, None);
        let Ends { source, target } = &shared.ends;
        let (read, write, source, target) = tokio::try_join!(
            source.open(Purpose::Read, &name),
            target.open(Purpose::Write, &name),
            source.open(Purpose::Change, &name),
            target.open(Purpose::Change, &name),
        )?;
        Ok(Self {
            shared,
            number,
            read,
            write,
            source,
            target,
        })
    }

    /// The first time, too: a server that restarts at that moment is there again soon.
    pub(crate) async fn open_patiently(shared: Arc<Shared>, number: usize) -> Result<Self, Error> {
        let again = Arc::clone(&shared);
        let open = move || Self::open(Arc::clone(&again), number);
        match open().await {
            Ok(lane) => Ok(lane),
            Err(error) => {
                Patience::lasting(RECONNECT_WITHIN)
                    .open_again(error, shared.tells(number), open)
                    .await
            }
        }
    }

    /// Works until nothing is left, a stop is asked for, or something must be looked at.
    pub(crate) async fn run(mut self) -> Result<LaneEnd, Error> {
        loop {
            self.shared.unthrottled().await;
            if self.shared.is_stopping() {
                return Ok(LaneEnd::Stopped);
            }
            let Some(claim) = self.claim().await? else {
                let (left, halted) = self
                    .ask(move |lane| {
                        Box::pin(async move {
                            let run = &lane.shared.run.id;
                            let left = journal::remaining(&lane.source, run).await?;
                            Ok((left, journal::halted(&lane.source, run).await?))
                        })
                    })
                    .await?;
                if left.batches == left.paused || halted.is_some() {
                    return Ok(LaneEnd::NothingLeft);
                }
                // Somebody else holds the rest: ours when they are gone.
                sleep(journal::LEASE / 8).await;
                continue;
            };
            self.shared.tell(Event::Claimed {
                lane: self.number,
                batch: claim.batch,
                users: claim.users.len(),
                taken_over: claim.taken_over,
            });
            self.shared.held().insert(claim.batch, claim.token);
            let halt = Box::pin(self.see_through(&claim)).await;
            let token = self.shared.held().remove(&claim.batch);
            let (batch, token) = (claim.batch, token.unwrap_or(claim.token));
            match halt {
                Ok(()) | Err(Halt::Superseded) => {}
                Err(Halt::Stopped) => {
                    self.give_back(batch, token).await?;
                    return Ok(LaneEnd::Stopped);
                }
                Err(Halt::OtherSchema(place)) => {
                    self.give_back(batch, token).await?;
                    return Ok(LaneEnd::OtherSchema(place));
                }
                Err(Halt::Mismatch(mismatch)) => {
                    self.ask(move |lane| {
                        Box::pin(async move {
                            let run = &lane.shared.run.id;
                            journal::set_aside(&lane.source, run, batch, token).await
                        })
                    })
                    .await?;
                    return Ok(LaneEnd::Mismatch(mismatch));
                }
                Err(Halt::NoSalt(error) | Halt::Database(error)) => return Err(error),
            }
        }
    }

    /// Asks on this lane's sessions, and asks again when an answer was lost: it must do no harm twice.
    async fn ask<T>(
        &mut self,
        question: impl for<'a> Fn(&'a Self) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut patience = Patience::lasting(RECONNECT_WITHIN);
        loop {
            match question(self).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.reconnect(error, &mut patience).await?,
            }
        }
    }

    async fn give_back(&mut self, batch: i32, token: Token) -> Result<(), Error> {
        self.ask(move |lane| {
            Box::pin(async move {
                journal::give_back(&lane.source, &lane.shared.run.id, batch, token).await
            })
        })
        .await
    }

    async fn claim(&mut self) -> Result<Option<Claim>, Error> {
        let floor = Token::after([], self.shared.timelines);
        let claim = self
            .ask(move |lane| {
                Box::pin(async move {
                    let (run, holder) = (&lane.shared.run.id, &lane.shared.holder);
                    journal::claim(&lane.source, run, holder, floor).await
                })
            })
            .await?;
        if claim.is_some() {
            self.shared.hold.at(Point::Claimed).await;
        }
        Ok(claim)
    }

    /// A batch to its end, over as many broken connections as there are.
    async fn see_through(&mut self, claim: &Claim) -> Result<(), Halt> {
        let mut batch = Batch::new(claim);
        let mut patience = Patience::lasting(RECONNECT_WITHIN);
        if claim.taken_over {
            self.end_older_sessions(&batch).await;
        }
        let mut broke = false;
        let mut introduced = false;
        loop {
            let before = batch.open.len();
            let worked = async {
                if broke {
                    self.begin_again(&mut batch, claim.token).await?;
                }
                Box::pin(self.work(&mut batch)).await
            };
            match worked.await {
                Err(Halt::Database(error)) => {
                    if batch.open.len() < before {
                        patience.renew();
                    }
                    self.reconnect(error, &mut patience).await?;
                    broke = true;
                }
                Err(Halt::NoSalt(_)) if !introduced => {
                    match self.introduce().await {
                        Ok(()) => introduced = true,
                        Err(error) => self.reconnect(error, &mut patience).await?,
                    }
                    broke = true;
                }
                other => return other,
            }
        }
    }

    async fn introduce(&self) -> Result<(), Error> {
        let Shared {
            run,
            plan,
            direction,
            ..
        } = &*self.shared;
        journal::introduce(&self.target, run, plan, direction).await
    }

    /// A call without an answer, or rows without a COMMIT, may still arrive: they carry the old token. With the same one
    /// they could reach a user who is active by then.
    async fn begin_again(&self, batch: &mut Batch, claimed: Token) -> Result<(), Halt> {
        self.raise(batch, claimed).await?;
        let everybody = batch.open.clone();
        batch.forget(&everybody);
        batch.begun.extend(everybody);
        batch.proven.clear();
        batch.seals.clear();
        Ok(())
    }

    /// Opens all sessions again after a lost connection.
    async fn reconnect(&mut self, error: Error, patience: &mut Patience) -> Result<(), Error> {
        let (shared, number) = (Arc::clone(&self.shared), self.number);
        let again = Arc::clone(&shared);
        let open = move || Self::open(Arc::clone(&again), number);
        *self = patience
            .open_again(error, shared.tells(number), open)
            .await?;
        Ok(())
    }

    /// Makes the wait for a stopped mover's open transactions shorter. Only the raised token makes it safe, so it does no
    /// harm when this is not permitted.
    async fn end_older_sessions(&self, batch: &Batch) {
        let sql = "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid() \
                   AND application_name LIKE $1 AND application_name <> $2";
        let any = format!(
            "{} b{} t%",
            session_name(&self.shared.run.id, None),
            batch.number
        );
        let own = session_name(&self.shared.run.id, Some(batch));
        for session in [&self.source, &self.target] {
            // Not RESET ROLE: the session began with the mover's role, which may not end sessions of the login role.
            if session.batch("SET ROLE NONE").await.is_ok() {
                let _ = session.query(sql, &[&any, &own]).await;
                let _ = session
                    .batch(&format!("SET ROLE {}", crate::ends::MOVER_ROLE))
                    .await;
            }
        }
    }
}

pub(crate) fn borrowed(changes: &[(String, Change)]) -> Vec<(&str, Change)> {
    changes
        .iter()
        .map(|(user, change)| (user.as_str(), change.clone()))
        .collect()
}
