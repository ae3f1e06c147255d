//! `commit`, `confirm`, `revert`, `close`: the crash-safe switch.
//!
//! Order of a switch: write-ahead record; dead-man armed; maps exchanged and synced; running proxy told and read back;
//! a request through the proxy answered by the new release; record advanced.

use std::process::Stdio;
use std::time::{Duration, Instant};

use regionwise_protocol::{Denial, DenialKind, Switched};
use regionwise_rollout::history::{Event, EventKind, serving};
use regionwise_rollout::lease::OperationKind;
use regionwise_rollout::slot::{Slot, SlotState};
use regionwise_rollout::switch::{Intent, Phase, Place, Settle};
use tokio::time::sleep;

use crate::clock;
use crate::deny::{OrDeny, host, refused};
use crate::durable;
use crate::history::{self, Entry};
use crate::host::{Claim, Host, SlotRecord};
use crate::process;
use crate::proxy;
use crate::traffic;

/// The proxy uses the new map at once; what needs more than this to answer is not healthy.
const PROOF_LIMIT: Duration = Duration::from_secs(2);

impl Host {
    /// Switches to `release`, which this operation prepared. A deploy must be confirmed in `confirm_within`.
    pub(crate) async fn commit(
        &self,
        claim: &Claim,
        release: &str,
        confirm_within: Duration,
    ) -> Result<Switched, Denial> {
        let begun = Instant::now();
        let _state = self.lock_state().await?;
        self.renew(claim)?;
        let now = clock::boot_time()?;
        let deadline_ms = now.ms + u64::try_from(confirm_within.as_millis()).unwrap_or(u64::MAX);
        let active = traffic::active(&self.layout)?;
        if let Some(mut intent) = self.intent()? {
            // Whoever comes back has the whole time again: with the rest of it the host might go back while it looks.
            intent.deadline_ms = intent.deadline_ms.map(|_| deadline_ms);
            return self
                .commit_again(claim, &intent, release, active, begun)
                .await;
        }
        let from = active.map(|slot| self.place(slot)).transpose()?;
        if from.as_ref().is_some_and(|place| place.release == release) {
            self.prove(release).await?;
            return Ok(Switched {
                release: Some(release.to_owned()),
                already: true,
                took_us: micros(begun),
            });
        }
        let slot = active.map_or(Slot::Blue, Slot::other);
        let record = self.expect_record(slot)?;
        if record.release != release
            || record.operation != claim.operation()
            || record.state != SlotState::Healthy
        {
            return Err(host(format!(
                "`{release}` is not prepared: slot {slot} holds `{}`, {}, by operation `{}`",
                record.release, record.state, record.operation
            )));
        }
        self.still_answers(slot, release).await?;
        let deploy = claim.kind() != OperationKind::Rollback;
        let intent = Intent {
            operation: claim.operation().to_owned(),
            kind: claim.kind(),
            fence: claim.fence,
            from,
            to: self.place(slot)?,
            deadline_ms: deploy.then_some(deadline_ms),
            boot_id: now.boot_id,
            phase: Phase::Switching,
        };
        durable::write(&self.layout, &self.layout.intent(), &intent)?;
        if deploy {
            self.arm_dead_man()?;
        }
        traffic::exchange(&self.layout)?;
        if let Err(denial) = self.finish_switch(&intent).await {
            // The lock is ours and the controller is there: go back now instead of at the deadline.
            let how = if deploy {
                Settle::Backwards
            } else {
                Settle::Forwards
            };
            let settled = self
                .settle(&intent, how, "a switch that could not be proven")
                .await;
            if deploy || settled.is_err() {
                return Err(denial);
            }
        }
        Ok(Switched {
            release: Some(record.release),
            already: false,
            took_us: micros(begun),
        })
    }

    /// Since it became healthy the other hosts may have taken their time. Asked once more before users are sent there.
    async fn still_answers(&self, slot: Slot, release: &str) -> Result<(), Denial> {
        let address = self.settings.address(slot);
        let problem = match self.release_at(address, PROOF_LIMIT).await {
            Ok(found) if found == release => return Ok(()),
            Ok(found) => format!("`{}` answers", found.escape_debug()),
            Err(reason) => reason,
        };
        Err(Denial::new(
            DenialKind::Unhealthy,
            format!("`{release}` no longer answers on {slot}: {problem}"),
        ))
    }

    /// The operation asks again after its connection broke.
    async fn commit_again(
        &self,
        claim: &Claim,
        intent: &Intent,
        release: &str,
        active: Option<Slot>,
        begun: Instant,
    ) -> Result<Switched, Denial> {
        if intent.operation != claim.operation()
            || intent.kind != claim.kind()
            || intent.to.release != release
        {
            return Err(host(format!(
                "a switch of operation `{}` is not settled",
                intent.operation
            )));
        }
        if intent.deadline_ms.is_some() && intent.phase != Phase::Confirmed {
            durable::write(&self.layout, &self.layout.intent(), intent)?;
            // The one that watches the old deadline finds that it is not over, and ends.
            self.arm_dead_man()?;
        }
        if active != Some(intent.to.slot) {
            traffic::exchange(&self.layout)?;
        }
        self.finish_switch(intent).await?;
        Ok(Switched {
            release: Some(intent.to.release.clone()),
            already: true,
            took_us: micros(begun),
        })
    }

    /// From exchanged maps to a proven and recorded switch.
    async fn finish_switch(&self, intent: &Intent) -> Result<(), Denial> {
        proxy::set_runtime(&self.layout, Some(intent.to.slot)).await?;
        self.prove(&intent.to.release).await?;
        if intent.phase == Phase::Switching {
            let switched = Intent {
                phase: Phase::Switched,
                ..intent.clone()
            };
            durable::write(&self.layout, &self.layout.intent(), &switched)?;
            let kind = match intent.kind {
                OperationKind::Rollback => EventKind::RolledBack,
                OperationKind::Deploy | OperationKind::Close => EventKind::Switched,
            };
            self.note(
                &intent.operation,
                kind,
                &intent.to,
                intent.from.as_ref(),
                None,
            )?;
        }
        self.set_state(intent.to.slot, SlotState::Serving)?;
        if let Some(from) = &intent.from {
            self.set_state(from.slot, SlotState::Draining)?;
        }
        if intent.kind == OperationKind::Rollback {
            // Nothing is left to decide: a rollback needs no confirm.
            durable::remove(&self.layout.intent())?;
        }
        Ok(())
    }

    /// A request through the proxy must be answered by `release`.
    pub(crate) async fn prove(&self, release: &str) -> Result<(), Denial> {
        let until = Instant::now() + PROOF_LIMIT;
        loop {
            let seen = self.release_at(self.settings.front(), PROOF_LIMIT).await;
            let problem = match seen {
                Ok(found) if found == release => return Ok(()),
                Ok(found) => format!("`{}` answers", found.escape_debug()),
                Err(reason) => reason,
            };
            if Instant::now() >= until {
                return Err(Denial::new(
                    DenialKind::Unhealthy,
                    format!("`{release}` does not answer through the proxy: {problem}"),
                ));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The controller saw the release work: the switch stays.
    pub(crate) async fn confirm(&self, claim: &Claim) -> Result<(), Denial> {
        let _state = self.lock_state().await?;
        self.renew(claim)?;
        match self.intent()? {
            Some(intent) if intent.operation == claim.operation() => {
                let confirmed = intent.phase == Phase::Confirmed;
                if !confirmed && intent.expired(&clock::boot_time()?) {
                    // One millisecond late is late: the dead-man may be on its way.
                    self.settle(&intent, Settle::Backwards, "a confirm after the deadline")
                        .await?;
                    return Err(refused(format!(
                        "the confirm came too late, `{}` was taken back",
                        intent.to.release
                    )));
                }
                // Once this is down, no crash, boot or dead-man takes the switch back.
                let intent = Intent {
                    phase: Phase::Confirmed,
                    ..intent
                };
                durable::write(&self.layout, &self.layout.intent(), &intent)?;
                let from = intent.from.as_ref();
                self.note(
                    claim.operation(),
                    EventKind::Confirmed,
                    &intent.to,
                    from,
                    None,
                )?;
                durable::remove(&self.layout.intent())
            }
            Some(intent) => Err(host(format!(
                "a switch of operation `{}` is not settled",
                intent.operation
            ))),
            None => self.confirm_serving(claim),
        }
    }

    /// A deploy of what serves already: recorded, so that its `close` finds it.
    fn confirm_serving(&self, claim: &Claim) -> Result<(), Denial> {
        let past = history::read(&self.layout)?;
        let ours = |event: &&Event| event.operation == claim.operation();
        // Only the last change counts: another operation may have brought the release again since.
        let last_change = past
            .events
            .iter()
            .rfind(|event| event.kind.changes_traffic());
        if let Some(event) = last_change.filter(ours)
            && matches!(event.kind, EventKind::Reverted | EventKind::Emptied)
        {
            let by = event.note.as_deref().unwrap_or("the host");
            return Err(refused(format!("the switch was taken back by {by}")));
        }
        let slot = traffic::active(&self.layout)?.ok_or_else(|| host("nothing serves here"))?;
        let place = self.place(slot)?;
        let known = past.events.iter().rfind(ours).is_some_and(|event| {
            matches!(event.kind, EventKind::Confirmed | EventKind::Verified)
                && event.is_about(&place.release, &place.digest)
        });
        if known {
            return Ok(());
        }
        self.note(claim.operation(), EventKind::Confirmed, &place, None, None)
    }

    /// Takes an unconfirmed switch of this operation back; nothing to do is fine.
    pub(crate) async fn revert(&self, claim: &Claim) -> Result<Switched, Denial> {
        let begun = Instant::now();
        let _state = self.lock_state().await?;
        self.renew(claim)?;
        let already = match self.intent()? {
            Some(intent) => {
                let confirmed = intent.phase == Phase::Confirmed;
                let how = if confirmed {
                    Settle::Forwards
                } else {
                    Settle::Backwards
                };
                self.settle(&intent, how, "the controller").await?;
                confirmed
            }
            None => true,
        };
        let serving = traffic::active(&self.layout)?
            .map(|slot| self.expect_record(slot))
            .transpose()?;
        if let Some(record) = &serving {
            self.prove(&record.release).await?;
        }
        Ok(Switched {
            release: serving.map(|record| record.release),
            already,
            took_us: micros(begun),
        })
    }

    /// Marks what serves as verified, when `operation` brought or confirmed it.
    pub(crate) async fn close(&self, claim: &Claim, operation: &str) -> Result<(), Denial> {
        let _state = self.lock_state().await?;
        self.renew(claim)?;
        if let Some(intent) = self.intent()? {
            return Err(refused(format!(
                "a switch of operation `{}` is not settled",
                intent.operation
            )));
        }
        let past = history::read(&self.layout)?;
        let now = serving(&past.events).ok_or_else(|| refused("nothing serves here"))?;
        let brought = past.events.iter().any(|event| {
            event.operation == operation
                && event.is_about(&now.release, &now.digest)
                && matches!(event.kind, EventKind::Switched | EventKind::Confirmed)
        });
        if !brought {
            return Err(refused(format!(
                "operation `{operation}` did not bring `{}`, which serves here; `{}` did",
                now.release, now.operation
            )));
        }
        if now.verified {
            return Ok(());
        }
        let slot = traffic::active(&self.layout)?.ok_or_else(|| host("nothing serves here"))?;
        self.note(
            operation,
            EventKind::Verified,
            &self.place(slot)?,
            None,
            None,
        )
    }

    pub(crate) fn place(&self, slot: Slot) -> Result<Place, Denial> {
        let SlotRecord {
            release, digest, ..
        } = self.expect_record(slot)?;
        Ok(Place {
            slot,
            release,
            digest,
        })
    }

    pub(crate) fn note(
        &self,
        operation: &str,
        kind: EventKind,
        place: &Place,
        from: Option<&Place>,
        note: Option<String>,
    ) -> Result<(), Denial> {
        let from = from.map(|from| from.release.as_str());
        history::append(
            &self.layout,
            Entry {
                operation,
                kind,
                release: &place.release,
                digest: &place.digest,
                from,
                note,
            },
        )
    }

    /// Starts the process that goes back when nobody confirms. It outlives the connection.
    fn arm_dead_man(&self) -> Result<(), Denial> {
        let action = || "cannot arm the dead-man".to_owned();
        process::this_program()
            .arg("dead-man")
            .arg("--root")
            .arg(self.layout.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .or_host(action)?;
        Ok(())
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
