//! Unfinished business: a switch that nobody confirmed, a boot, a process that died, a map that somebody emptied.

use std::time::{Duration, Instant};

use regionwise_protocol::Denial;
use regionwise_rollout::history::{EventKind, serving};
use regionwise_rollout::lease::OperationKind;
use regionwise_rollout::slot::{Slot, SlotState};
use regionwise_rollout::switch::{Intent, Settle};
use rustix::process::setsid;
use tokio::time::sleep;

use super::prepare::{Health, UNCONFIRMED_GRACE};
use crate::clock;
use crate::deny::{OrDeny, corrupt};
use crate::durable;
use crate::history;
use crate::host::Host;
use crate::proxy;
use crate::store::Store;
use crate::traffic;

/// For a release that served before and has to serve again at once.
const RESTART: Health = Health {
    deadline: Duration::from_secs(30),
    interval: Duration::from_millis(100),
    successes: 1,
};

/// How long the dead-man tries to go back on a host that cannot right now.
const DEAD_MAN_PATIENCE: Duration = Duration::from_secs(600);

impl Host {
    /// Ends an intent one way or the other and says what happened. The caller holds the state lock.
    pub(crate) async fn settle(
        &self,
        intent: &Intent,
        how: Settle,
        by: &str,
    ) -> Result<String, Denial> {
        match how {
            Settle::Leave => Ok(format!(
                "the switch to `{}` is left to its operation",
                intent.to.release
            )),
            Settle::Backwards => self.go_back(intent, by).await,
            Settle::Forwards => {
                self.lead_to(Some(intent.to.slot)).await?;
                let (kind, what) = match intent.kind {
                    OperationKind::Rollback => (EventKind::RolledBack, "rollback"),
                    OperationKind::Deploy | OperationKind::Close => {
                        (EventKind::Confirmed, "confirmed switch")
                    }
                };
                let by = Some(by.to_owned());
                self.note(&intent.operation, kind, &intent.to, None, by)?;
                durable::remove(&self.layout.intent())?;
                Ok(format!(
                    "the {what} to `{}` was finished",
                    intent.to.release
                ))
            }
        }
    }

    async fn go_back(&self, intent: &Intent, by: &str) -> Result<String, Denial> {
        let back = intent.from.as_ref();
        self.lead_to(back.map(|place| place.slot)).await?;
        let (kind, place) = back.map_or((EventKind::Emptied, &intent.to), |place| {
            (EventKind::Reverted, place)
        });
        self.note(
            &intent.operation,
            kind,
            place,
            Some(&intent.to),
            Some(by.to_owned()),
        )?;
        self.empty(intent.to.slot, SlotState::Failed, UNCONFIRMED_GRACE)
            .await?;
        durable::remove(&self.layout.intent())?;
        let to = back.map_or("nothing".to_owned(), |place| format!("`{}`", place.release));
        Ok(format!(
            "the unconfirmed switch to `{}` was taken back to {to}",
            intent.to.release
        ))
    }

    /// Makes file, running proxy and process agree on `slot`, and proves it by a request.
    async fn lead_to(&self, slot: Option<Slot>) -> Result<(), Denial> {
        if let Some(slot) = slot {
            self.revive(slot).await?;
        }
        if traffic::active(&self.layout)? != slot {
            // After a switch the standby map already says so: writing it again could fail on a full disk.
            let standby = std::fs::read_to_string(self.layout.standby_map());
            if standby.or_host(|| "cannot read the standby map".to_owned())? != traffic::text(slot)
            {
                traffic::prepare(&self.layout, slot)?;
            }
            traffic::exchange(&self.layout)?;
        }
        proxy::set_runtime(&self.layout, slot).await?;
        if let Some(slot) = slot {
            self.prove(&self.expect_record(slot)?.release).await?;
            self.set_state(slot, SlotState::Serving)?;
        }
        Ok(())
    }

    /// Starts the slot's release again when its process is gone.
    async fn revive(&self, slot: Slot) -> Result<(), Denial> {
        let record = self.expect_record(slot)?;
        if record.process.alive(&clock::boot_time()?.boot_id) {
            return Ok(());
        }
        let manifest = Store::new(&self.layout)
            .manifest(&record.release)?
            .ok_or_else(|| {
                corrupt(format!(
                    "release `{}` is gone from this host",
                    record.release
                ))
            })?;
        let record = self.start(slot, &manifest, &record.operation).await?;
        self.wait_healthy(slot, &record, RESTART).await
    }

    /// What boot and timer call: settles what is due, and brings file, proxy and process together.
    ///
    /// # Errors
    /// When the state cannot be read, or the release that should serve cannot.
    pub async fn reconcile(&self) -> Result<String, Denial> {
        let _state = self.lock_state().await?;
        if let Some(intent) = self.intent()? {
            let how = intent.settle(None, &clock::boot_time()?);
            return self.settle(&intent, how, "reconcile").await;
        }
        let slot = match traffic::active(&self.layout) {
            Ok(slot) => slot,
            Err(_) => self.restore_map()?,
        };
        self.lead_to(slot).await?;
        Ok(match slot {
            Some(slot) => format!("`{}` serves on {slot}", self.expect_record(slot)?.release),
            None => "nothing serves here".to_owned(),
        })
    }

    /// Writes a damaged map anew from history and slots.
    fn restore_map(&self) -> Result<Option<Slot>, Denial> {
        let past = history::read(&self.layout)?;
        let slot = match serving(&past.events) {
            None => None,
            Some(now) => {
                let mut holding = Slot::BOTH
                    .into_iter()
                    .filter_map(|slot| Some((slot, self.record(slot).ok()??)));
                let found = holding
                    .find(|(_, record)| {
                        record.release == now.release && record.digest == now.digest
                    })
                    .map(|(slot, _)| slot);
                Some(found.ok_or_else(|| {
                    corrupt(format!(
                        "no slot holds `{}`, which the history says serves",
                        now.release
                    ))
                })?)
            }
        };
        durable::replace(
            &self.layout,
            &self.layout.active_map(),
            traffic::text(slot).as_bytes(),
            0o644,
        )?;
        Ok(slot)
    }

    /// Waits for the confirm of the current intent; without one, goes back. Runs as a process of its own.
    ///
    /// # Errors
    /// When the state cannot be read or the way back fails; the next `lock` or `reconcile` tries again.
    pub async fn dead_man(&self) -> Result<(), Denial> {
        // Its own session: the end of the ssh connection must not end it. Fails only for a group leader, which is one.
        let _ = setsid();
        let Some(watched) = self.intent()? else {
            return Ok(());
        };
        let Some(deadline) = watched.deadline_ms else {
            return Ok(());
        };
        loop {
            let now = clock::boot_time()?;
            if now.ms >= deadline {
                break;
            }
            sleep(Duration::from_millis((deadline - now.ms).min(200))).await;
            if self
                .intent()?
                .is_none_or(|intent| intent.fence != watched.fence)
            {
                return Ok(());
            }
        }
        let give_up = Instant::now() + DEAD_MAN_PATIENCE;
        loop {
            match self.revert_unconfirmed(watched.fence).await {
                // A proxy that is down just now must not keep the unconfirmed release there.
                Err(_) if Instant::now() < give_up => sleep(Duration::from_secs(1)).await,
                ended => return ended,
            }
        }
    }

    async fn revert_unconfirmed(&self, fence: u64) -> Result<(), Denial> {
        let _state = self.lock_state().await?;
        match self.intent()? {
            Some(intent) if intent.fence == fence => {
                let how = intent.settle(None, &clock::boot_time()?);
                self.settle(&intent, how, "deadman").await.map(|_| ())
            }
            _ => Ok(()),
        }
    }
}
