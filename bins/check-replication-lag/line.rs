//! A connection that proves again and again that the server still takes new ones.
//!
//! A server whose postmaster hangs goes on answering open connections, and no user could log in. So a fresh
//! connection is made beside the old one every few intervals and takes its place.

use std::sync::Arc;
use std::time::Duration;

use regionwise_postgres::{Dsn, Error, Options, Session};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::observe::Terms;

const REDIAL_INTERVALS: u32 = 5;

pub(crate) struct Line {
    dsn: Arc<Dsn>,
    options: Options,
    session: Option<Session>,
    redial_every: Duration,
    redial_at: Instant,
    dialing: Option<JoinHandle<Result<Session, Error>>>,
}

impl Line {
    pub(crate) fn new(dsn: Arc<Dsn>, terms: &Terms) -> Self {
        let redial_every = terms.rule.interval * REDIAL_INTERVALS;
        Self {
            dsn,
            options: terms.options(),
            session: None,
            redial_every,
            redial_at: Instant::now(),
            dialing: None,
        }
    }

    /// A usable session. An error also when only *new* connections fail.
    pub(crate) async fn session(&mut self) -> Result<&mut Session, Error> {
        if let Some(dialing) = self.dialing.take_if(|dialing| dialing.is_finished()) {
            self.session = None;
            // A task that did not end by itself leaves no session, and the next lines make one.
            if let Ok(dialed) = dialing.await {
                self.session = Some(dialed?);
            }
        }
        let open = self.session.take().filter(Session::is_open);
        let session = match open {
            Some(session) => {
                self.dial_beside();
                session
            }
            None => {
                self.hang_up();
                self.redial_at = Instant::now() + self.redial_every;
                Session::open(&self.dsn, &self.options).await?
            }
        };
        Ok(self.session.insert(session))
    }

    fn dial_beside(&mut self) {
        if self.dialing.is_some() || Instant::now() < self.redial_at {
            return;
        }
        self.redial_at = Instant::now() + self.redial_every;
        let (dsn, options) = (Arc::clone(&self.dsn), self.options.clone());
        self.dialing = Some(tokio::spawn(
            async move { Session::open(&dsn, &options).await },
        ));
    }

    fn hang_up(&mut self) {
        if let Some(dialing) = self.dialing.take() {
            dialing.abort();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.hang_up();
    }
}
