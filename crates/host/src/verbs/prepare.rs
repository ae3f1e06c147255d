//! `prepare` and `abandon`: a release becomes healthy in the idle slot while the other one serves.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use regionwise_protocol::{Denial, DenialKind, Prepared};
use regionwise_rollout::history::EventKind;
use regionwise_rollout::release::Manifest;
use regionwise_rollout::slot::{Slot, SlotState};
use tokio::time::sleep;

use crate::clock;
use crate::deny::{OrDeny, host, invalid};
use crate::history::{self, Entry};
use crate::host::{Claim, Host, SlotRecord};
use crate::process::{self, Program};
use crate::store::Store;
use crate::traffic;

/// How long a slot that is needed may take to stop what ran in it. Its requests were drained before.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// The same for a release that nobody confirmed: a controller that was told to stop waits for it, and has 7 s for all.
pub(super) const UNCONFIRMED_GRACE: Duration = Duration::from_secs(3);
/// One answer of a healthy process on loopback.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// When a process counts as healthy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health {
    pub(crate) deadline: Duration,
    pub(crate) interval: Duration,
    /// Good answers in a row.
    pub(crate) successes: u32,
}

impl Host {
    pub(crate) async fn prepare(
        &self,
        claim: &Claim,
        release: &str,
        health: Health,
    ) -> Result<Prepared, Denial> {
        let begun = Instant::now();
        let state = self.lock_state().await?;
        self.renew(claim)?;
        let manifest = Store::new(&self.layout)
            .manifest(release)?
            .ok_or_else(|| invalid(format!("release `{release}` is not on this host")))?;
        let boot_id = clock::boot_time()?.boot_id;
        let active = traffic::active(&self.layout)?;
        // The same content under another name is another release: its process has to answer with that name.
        let is_it = |record: &SlotRecord| {
            record.release == release
                && record.digest == manifest.digest()
                && record.process.alive(&boot_id)
        };
        if let Some(slot) = active
            && self.record(slot)?.is_some_and(|record| is_it(&record))
        {
            return Ok(Prepared {
                slot,
                already_serving: true,
                warm: true,
                took_ms: millis(begun),
            });
        }
        let idle = active.map_or(Slot::Blue, Slot::other);
        let running = self.record(idle)?.filter(is_it);
        let warm = running.is_some();
        let record = match running {
            Some(record) => SlotRecord {
                operation: claim.operation().to_owned(),
                ..record
            },
            None => self.start(idle, &manifest, claim.operation()).await?,
        };
        self.put_record(
            idle,
            &SlotRecord {
                state: SlotState::Starting,
                ..record.clone()
            },
        )?;
        // From here on the switch itself needs no disk space.
        traffic::prepare(&self.layout, Some(idle))?;
        drop(state);

        let health = if warm { health.once() } else { health };
        let healthy = tokio::select! {
            healthy = self.wait_healthy(idle, &record, health) => healthy,
            denial = self.keep(claim) => return Err(denial),
        };
        let _state = self.lock_state().await?;
        self.renew(claim)?;
        match healthy {
            Ok(()) => {
                self.set_state(idle, SlotState::Healthy)?;
                Ok(Prepared {
                    slot: idle,
                    already_serving: false,
                    warm,
                    took_ms: millis(begun),
                })
            }
            Err(denial) => {
                self.empty(idle, SlotState::Failed, UNCONFIRMED_GRACE)
                    .await?;
                let entry = Entry {
                    operation: claim.operation(),
                    kind: EventKind::Rejected,
                    release,
                    digest: &record.digest,
                    from: None,
                    note: Some(denial.text.lines().next().unwrap_or_default().to_owned()),
                };
                history::append(&self.layout, entry)?;
                Err(denial)
            }
        }
    }

    /// Stops what this operation prepared, unless it serves.
    pub(crate) async fn abandon(&self, claim: &Claim) -> Result<(), Denial> {
        let _state = self.lock_state().await?;
        self.renew(claim)?;
        let active = traffic::active(&self.layout)?;
        for slot in Slot::BOTH.into_iter().filter(|slot| active != Some(*slot)) {
            if self
                .record(slot)?
                .is_some_and(|record| record.operation == claim.operation())
            {
                self.empty(slot, SlotState::Empty, UNCONFIRMED_GRACE)
                    .await?;
            }
        }
        Ok(())
    }

    /// Stops what runs in a slot.
    pub(crate) async fn empty(
        &self,
        slot: Slot,
        state: SlotState,
        grace: Duration,
    ) -> Result<(), Denial> {
        if let Some(record) = self.record(slot)? {
            record
                .process
                .stop(&clock::boot_time()?.boot_id, grace)
                .await?;
        }
        self.set_state(slot, state)
    }

    /// Starts a release in a slot, in place of whatever ran there.
    pub(crate) async fn start(
        &self,
        slot: Slot,
        manifest: &Manifest,
        operation: &str,
    ) -> Result<SlotRecord, Denial> {
        self.empty(slot, SlotState::Empty, STOP_GRACE).await?;
        let address = self.settings.address(slot);
        // A release that cannot listen would be called bad; the port's holder is the host's affair.
        TcpListener::bind(address)
            .or_host(|| format!("cannot use slot {slot} at {address}, something listens there"))?;
        let directory = self.layout.release(&manifest.name);
        let mut env = crate::settings::host_env(&self.layout)?;
        env.extend(Store::new(&self.layout).env(manifest)?);
        env.extend(
            [
                ("LISTEN_ADDRESS", address.to_string()),
                ("PORT", address.port().to_string()),
                ("RELEASE", manifest.name.clone()),
                ("SLOT", slot.to_string()),
                (
                    "CONFIG_FILE",
                    directory.join("config").display().to_string(),
                ),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let path = self.layout.blob(&manifest.artifact);
        if !path.is_file() {
            return Err(host(format!(
                "the artefact of release `{}` is no longer on this host",
                manifest.name
            )));
        }
        let log = self.layout.log(slot);
        let boot_id = clock::boot_time()?.boot_id;
        let waiting = process::start(
            Program {
                path: &path,
                directory: &directory,
                env,
                log: &log,
            },
            &boot_id,
        )?;
        let record = SlotRecord {
            release: manifest.name.clone(),
            digest: manifest.digest(),
            operation: operation.to_owned(),
            state: SlotState::Starting,
            process: waiting.process.clone(),
        };
        self.put_record(slot, &record)?;
        waiting.go()?;
        Ok(record)
    }

    /// Waits until the slot answers as its release, several times in a row.
    ///
    /// A refused connection is "still starting"; a dead process ends the wait at once.
    pub(crate) async fn wait_healthy(
        &self,
        slot: Slot,
        record: &SlotRecord,
        health: Health,
    ) -> Result<(), Denial> {
        let boot_id = clock::boot_time()?.boot_id;
        let address = self.settings.address(slot);
        let until = Instant::now() + health.deadline;
        let mut in_a_row = 0;
        let mut last;
        loop {
            match self.release_at(address, PROBE_LIMIT).await {
                Ok(release) if release == record.release => {
                    in_a_row += 1;
                    if in_a_row >= health.successes {
                        return Ok(());
                    }
                    last = String::new();
                }
                Ok(other) => {
                    in_a_row = 0;
                    last = format!("it calls itself `{}`", other.escape_debug());
                }
                Err(reason) => {
                    in_a_row = 0;
                    last = reason;
                }
            }
            let cause = if !record.process.alive(&boot_id) {
                format!("its process ended ({last})")
            } else if Instant::now() >= until {
                format!(
                    "not healthy within {}: {last}",
                    humantime::format_duration(health.deadline)
                )
            } else {
                sleep(health.interval).await;
                continue;
            };
            let log = process::last_lines(&self.layout.log(slot));
            return Err(Denial::new(
                DenialKind::Unhealthy,
                format!(
                    "release `{}` did not become healthy on {slot}: {cause}\n{log}",
                    record.release
                ),
            ));
        }
    }
}

impl Health {
    /// For a process that was healthy before: one good answer will do.
    pub(crate) fn once(self) -> Self {
        Self {
            successes: 1,
            ..self
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
