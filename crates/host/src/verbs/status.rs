//! `status`: what is observed here, never what was wanted.

use regionwise_protocol::{Denial, HostFacts, IntentView, LeaseView, ServingView, SlotView};
use regionwise_rollout::history::serving;
use regionwise_rollout::slot::{Slot, SlotState};
use rustix::fs::statvfs;
use std::time::Duration;

use crate::clock;
use crate::deny::OrDeny;
use crate::history;
use crate::host::Host;
use crate::proxy;
use crate::store::Store;
use crate::traffic;

/// Events that `status` shows.
const RECENT: usize = 20;
const PROBE_LIMIT: Duration = Duration::from_secs(1);

impl Host {
    pub(crate) async fn status(&self) -> Result<HostFacts, Denial> {
        let now = clock::boot_time()?;
        let past = history::read(&self.layout)?;
        let file = traffic::active(&self.layout).ok().flatten();
        let runtime = proxy::runtime(&self.layout).await;
        let disk = statvfs(self.layout.root()).or_host(|| "cannot measure the disk".to_owned())?;
        let slots = Slot::BOTH
            .into_iter()
            .map(|slot| self.slot_view(slot, &now.boot_id))
            .collect::<Result<_, _>>()?;
        Ok(HostFacts {
            helper: env!("CARGO_PKG_VERSION").to_owned(),
            serving: self.serving_view(file, &past.events)?,
            slots,
            file,
            runtime: runtime.as_ref().ok().copied().flatten(),
            proxy_error: runtime.err().map(|denial| denial.text),
            observed: self
                .release_at(self.settings.front(), PROBE_LIMIT)
                .await
                .ok(),
            intent: self.intent()?.map(|intent| IntentView {
                reverts_in_ms: intent
                    .deadline_ms
                    .map(|deadline| deadline.saturating_sub(now.ms)),
                operation: intent.operation,
                kind: intent.kind,
                to: intent.to.release,
            }),
            lease: self.lease()?.and_then(|lease| {
                let expires_in_ms = lease.remaining_ms(&now);
                Some(LeaseView {
                    holder: lease.holder?,
                    fence: lease.fence,
                    expires_in_ms,
                })
            }),
            disk_free_bytes: disk.f_bavail * disk.f_frsize,
            disk_total_bytes: disk.f_blocks * disk.f_frsize,
            clock_ms: clock::wall_ms(),
            releases: Store::new(&self.layout).names()?,
            history: past.events[past.events.len().saturating_sub(RECENT)..].to_vec(),
            history_broken_at: past.broken_at,
        })
    }

    fn slot_view(&self, slot: Slot, boot_id: &str) -> Result<SlotView, Denial> {
        Ok(match self.record(slot)? {
            None => SlotView {
                slot,
                state: SlotState::Empty,
                release: None,
                digest: None,
                pid: None,
                alive: false,
            },
            Some(record) => {
                let alive = record.process.alive(boot_id);
                SlotView {
                    slot,
                    state: record.state,
                    release: Some(record.release),
                    digest: Some(record.digest),
                    pid: alive.then_some(record.process.pid),
                    alive,
                }
            }
        })
    }

    /// What the map file leads to; operation and verification come from the history.
    fn serving_view(
        &self,
        file: Option<Slot>,
        events: &[regionwise_rollout::history::Event],
    ) -> Result<Option<ServingView>, Denial> {
        let Some(slot) = file else { return Ok(None) };
        let Some(record) = self.record(slot)? else {
            return Ok(None);
        };
        let known = serving(events)
            .filter(|now| now.release == record.release && now.digest == record.digest);
        Ok(Some(ServingView {
            slot,
            release: record.release,
            digest: record.digest,
            operation: known
                .as_ref()
                .map_or(record.operation, |now| now.operation.clone()),
            verified: known.is_some_and(|now| now.verified),
        }))
    }
}
