//! `drain`: the old slot answers what it had accepted, then stays warm for a rollback.

use std::time::{Duration, Instant};

use regionwise_protocol::Denial;
use regionwise_rollout::slot::{Slot, SlotState};
use tokio::time::sleep;

use crate::clock;
use crate::host::{Claim, Host};
use crate::proxy;
use crate::traffic;

impl Host {
    /// Waits until no request is in flight on the old slot; returns how many were left at the deadline.
    pub(crate) async fn drain(&self, claim: &Claim, deadline: Duration) -> Result<u64, Denial> {
        let active = traffic::active(&self.layout)?;
        let old = active.map_or(Slot::Blue, Slot::other);
        let boot_id = clock::boot_time()?.boot_id;
        if !self
            .record(old)?
            .is_some_and(|record| record.process.alive(&boot_id))
        {
            return Ok(0);
        }
        let left = tokio::select! {
            left = self.wait_drained(old, deadline) => left?,
            denial = self.keep(claim) => return Err(denial),
        };
        let _state = self.lock_state().await?;
        self.renew(claim)?;
        self.set_state(old, SlotState::Warm)?;
        Ok(left)
    }

    async fn wait_drained(&self, slot: Slot, deadline: Duration) -> Result<u64, Denial> {
        let until = Instant::now() + deadline;
        loop {
            let left = proxy::in_flight(&self.layout, slot).await?;
            if left == 0 || Instant::now() >= until {
                return Ok(left);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
