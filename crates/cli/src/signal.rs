//! INT and TERM as values: a run decides itself where it can stop.

use std::io;

use regionwise_rollout::Verdict;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::report::Report;

/// Whether somebody asked this run to stop.
#[derive(Clone)]
pub struct Signals {
    received: watch::Receiver<Option<Verdict>>,
}

impl Signals {
    /// Starts to listen; from here on the signals no longer end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (send, received) = watch::channel(None);
        tokio::spawn(async move {
            let verdict = tokio::select! {
                _ = interrupt.recv() => Verdict::Interrupted,
                _ = terminate.recv() => Verdict::Terminated,
            };
            // Nobody left to tell means that the run is over anyway.
            let _ = send.send(Some(verdict));
            // Later signals change nothing: the first one already asks for a clean stop.
            std::future::pending::<()>().await;
        });
        Ok(Self { received })
    }

    /// The verdict of a clean stop, once a signal came.
    pub fn now(&self) -> Option<Verdict> {
        *self.received.borrow()
    }

    /// Runs what only reads, and so may be dropped at any moment, to its end or to the first signal.
    ///
    /// # Errors
    /// Those of `reading`.
    pub async fn end<E>(
        &self,
        reading: impl Future<Output = Result<Report, E>>,
    ) -> Result<Report, E> {
        tokio::select! {
            done = reading => done,
            verdict = self.received() => Ok(Report::new(verdict, "Stopped by a signal; nothing was changed.")),
        }
    }

    /// For code that waits for a signal among other things.
    pub fn watch(&self) -> watch::Receiver<Option<Verdict>> {
        self.received.clone()
    }

    /// Waits for the first signal.
    pub async fn received(&self) -> Verdict {
        let mut received = self.received.clone();
        loop {
            if let Some(verdict) = *received.borrow_and_update() {
                return verdict;
            }
            if received.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
