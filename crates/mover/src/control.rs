//! The sessions of a run beside those of its lanes: they join it, sweep, and write down how it ends.

use regionwise_postgres::{Direct, Error};
use tokio::sync::mpsc;

use crate::ends::{Ends, Purpose};
use crate::event::Event;
use crate::reconnect::Patience;
use crate::shared::session_name;
use crate::terms::RECONNECT_WITHIN;

/// One session at each end, opened again when one of them breaks.
pub(crate) struct Control {
    ends: Ends,
    events: mpsc::UnboundedSender<Event>,
    source: Direct,
    target: Direct,
}

impl Control {
    pub(crate) async fn open(
        ends: &Ends,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, Error> {
        let (source, target) = sessions(ends).await?;
        Ok(Self {
            ends: ends.clone(),
            events,
            source,
            target,
        })
    }

    /// Asks the source and the target, and asks again when an answer was lost: it must do no harm twice.
    pub(crate) async fn ask<T>(
        &mut self,
        question: impl AsyncFn(&Direct, &Direct) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut patience = Patience::lasting(RECONNECT_WITHIN);
        loop {
            let error = match question(&self.source, &self.target).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let tell = |error: &Error| {
                // Nobody watches any more: the run goes on all the same.
                let _ = self.events.send(Event::Reconnecting {
                    lane: None,
                    error: error.to_string(),
                });
            };
            let open = || sessions(&self.ends);
            (self.source, self.target) = patience.open_again(error, tell, open).await?;
        }
    }
}

async fn sessions(ends: &Ends) -> Result<(Direct, Direct), Error> {
    let name = session_name("control", None);
    tokio::try_join!(
        ends.source.open(Purpose::Book, &name),
        ends.target.open(Purpose::Book, &name),
    )
}
