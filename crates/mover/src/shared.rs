//! What all lanes of a run share, and how they hear of each other: a stop, the throttle, the claims that are held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regionwise_postgres::Error;
use regionwise_relocation::closure::Closure;
use regionwise_relocation::protocol::Token;
use regionwise_relocation::sql::refer::Incoming;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::batch::Batch;
use crate::ends::Ends;
use crate::event::Event;
use crate::failpoint::Hold;
use crate::journal::Run;
use crate::layout::Layout;
use crate::terms::Terms;

/// What all lanes of a run share.
pub(crate) struct Shared {
    pub(crate) ends: Ends,
    pub(crate) run: Run,
    /// The plan's hash.
    pub(crate) plan: String,
    pub(crate) direction: &'static str,
    /// As it stands in the journal and in `pg_stat_activity`.
    pub(crate) holder: String,
    pub(crate) closure: Closure,
    /// How rows of the closure can be referred to at the target, as far as the plan has looked there.
    pub(crate) incoming: Vec<Incoming>,
    pub(crate) layouts: Vec<Layout>,
    pub(crate) terms: Terms,
    /// Batches that this runner works on at the same time.
    pub(crate) lanes: usize,
    pub(crate) timelines: [u32; 2],
    pub(crate) hold: Hold,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// Groups of this runner that may be between the source's release and the target's activation. They compete for the
    /// same processors, so whoever has to wait, waits before its fence.
    pub(crate) fences: Arc<Semaphore>,
    /// Set once: nothing new is begun, what is begun comes to a safe point.
    pub(crate) stop: watch::Receiver<bool>,
    /// Why everything waits, while it does.
    pub(crate) throttled: watch::Receiver<Option<String>>,
    /// Batches that this runner holds; renewing takes out what somebody else has taken over.
    pub(crate) held: Mutex<HashMap<i32, Token>>,
}

impl Shared {
    pub(crate) fn tell(&self, event: Event) {
        // Nobody watches any more: the run goes on all the same.
        let _ = self.events.send(event);
    }

    /// Tells that the sessions of a lane broke.
    pub(crate) fn tells(&self, lane: usize) -> impl FnOnce(&Error) {
        move |error| {
            self.tell(Event::Reconnecting {
                lane: Some(lane),
                error: error.to_string(),
            });
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, HashMap<i32, Token>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the throttle says so, or until the run stops.
    pub(crate) async fn unthrottled(&self) {
        let (mut throttled, mut stop) = (self.throttled.clone(), self.stop.clone());
        let free = throttled.wait_for(Option::is_none);
        let stopping = stop.wait_for(|stop| *stop);
        tokio::select! {
            _ = free => {}
            _ = stopping => {}
        }
    }
}

/// What `pg_stat_activity` shows: whose session it is, and in a lane for which claim.
pub(crate) fn session_name(run: &str, batch: Option<&Batch>) -> String {
    match batch {
        Some(batch) => format!("regionwise {run} b{} t{}", batch.number, batch.token),
        None => format!("regionwise {run}"),
    }
}
