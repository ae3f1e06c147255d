//! `lock` and `unlock`: one operation at a time, and no unsettled switch of another one left behind.

use regionwise_protocol::{Denial, DenialKind};
use regionwise_rollout::lease::{self, BootTime, Holder, Lease};
use regionwise_rollout::switch::Settle;

use crate::clock;
use crate::durable;
use crate::host::{Claim, Host};

impl Host {
    /// Takes the lock; says what had to be settled first.
    pub(crate) async fn lock(
        &self,
        holder: Holder,
        ttl_ms: u64,
    ) -> Result<(Claim, Option<String>), Denial> {
        let _state = self.lock_state().await?;
        let now = clock::boot_time()?;
        let current = self.lease()?;
        let granted = lease::acquire(current.as_ref(), holder.clone(), ttl_ms, &now)
            .map_err(|held| locked(&held, held.remaining_ms(&now)))?;
        // The fence is down before anything is written under it: the old holder is out from here on.
        durable::write(&self.layout, &self.layout.lease(), &granted)?;
        let settled = match self.settle_for(&holder, &now).await {
            Ok(settled) => settled,
            Err(denial) => {
                // Nobody got the lock, so nobody would give it back.
                let free = Lease {
                    holder: None,
                    ..granted
                };
                durable::write(&self.layout, &self.layout.lease(), &free)?;
                // A release that cannot serve again here is not the asker's release.
                let kind = match denial.kind {
                    DenialKind::Unhealthy => DenialKind::Host,
                    kind => kind,
                };
                return Err(Denial {
                    kind,
                    text: format!("cannot settle an unfinished switch: {}", denial.text),
                    hint: denial.hint,
                });
            }
        };
        Ok((
            Claim {
                holder,
                fence: granted.fence,
                ttl_ms,
            },
            settled,
        ))
    }

    /// Ends what another operation left unsettled.
    async fn settle_for(&self, holder: &Holder, now: &BootTime) -> Result<Option<String>, Denial> {
        let Some(intent) = self.intent()? else {
            return Ok(None);
        };
        match intent.settle(Some(holder), now) {
            Settle::Leave => Ok(None),
            how => {
                let by = format!("operation {}", holder.operation);
                self.settle(&intent, how, &by).await.map(Some)
            }
        }
    }

    /// Gives the lock back; the fence stays.
    pub(crate) async fn unlock(&self, claim: &Claim) -> Result<(), Denial> {
        let _state = self.lock_state().await?;
        match self.lease()? {
            Some(lease) if lease.fence == claim.fence => durable::write(
                &self.layout,
                &self.layout.lease(),
                &Lease {
                    holder: None,
                    ..lease
                },
            ),
            // Somebody took over: it is not ours to give back.
            _ => Ok(()),
        }
    }
}

fn locked(lease: &Lease, remaining_ms: u64) -> Denial {
    let who = match &lease.holder {
        Some(holder) => format!("{} `{}` of {}", holder.kind, holder.operation, holder.who),
        None => "nobody".to_owned(),
    };
    Denial::new(
        DenialKind::Locked,
        format!(
            "{who} holds the lock for another {:.1} s",
            remaining_ms as f64 / 1000.0
        ),
    )
    .with_hint("run it again then; a lock that nobody renews ends by itself, and deploy-region waits with --lock-wait")
}
