//! One server's state, opened: the pieces that every verb needs.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use regionwise_protocol::{Denial, DenialKind};
use regionwise_rollout::lease::{Holder, Lease, OperationKind};
use regionwise_rollout::release::Digest;
use regionwise_rollout::slot::{Slot, SlotState};
use regionwise_rollout::switch::Intent;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::clock;
use crate::deny::{OrDeny, host};
use crate::durable;
use crate::layout::Layout;
use crate::process::Process;
use crate::proxy;
use crate::settings::Settings;

/// Another verb on this host holds the state for moments only; longer means that it hangs.
const STATE_PATIENCE: Duration = Duration::from_secs(10);

/// An installed host.
pub struct Host {
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) client: reqwest::Client,
}

/// What stands in `slots/<slot>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    pub(crate) release: String,
    pub(crate) digest: Digest,
    /// The operation that started it.
    pub(crate) operation: String,
    pub(crate) state: SlotState,
    pub(crate) process: Process,
}

/// The right to change this host, as one connection got it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) holder: Holder,
    pub(crate) fence: u64,
    pub(crate) ttl_ms: u64,
}

impl Claim {
    pub(crate) fn operation(&self) -> &str {
        &self.holder.operation
    }

    pub(crate) fn kind(&self) -> OperationKind {
        self.holder.kind
    }
}

/// Held while files change. Free the moment its process dies.
pub(crate) struct StateLock {
    _file: File,
}

impl Host {
    /// Opens the host below `root`.
    ///
    /// # Errors
    /// When `install` did not run there, or its settings cannot be read.
    pub fn open(root: PathBuf) -> Result<Self, Denial> {
        let layout = Layout::new(root);
        let settings = Settings::load(&layout)?;
        Ok(Self {
            layout,
            settings,
            client: proxy::client()?,
        })
    }

    /// Who answers a health request at `address`.
    pub(crate) async fn release_at(
        &self,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<String, String> {
        proxy::release_at(&self.client, address, &self.settings.health_path, limit).await
    }

    pub(crate) async fn lock_state(&self) -> Result<StateLock, Denial> {
        let path = self.layout.state_lock();
        let action = || format!("cannot lock `{}`", path.display());
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .or_host(action)?;
        let until = Instant::now() + STATE_PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(StateLock { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error).or_host(action),
            }
        }
    }

    pub(crate) fn lease(&self) -> Result<Option<Lease>, Denial> {
        durable::read(&self.layout.lease())
    }

    /// Checks that `claim` still holds, and prolongs it.
    pub(crate) fn renew(&self, claim: &Claim) -> Result<(), Denial> {
        let now = clock::boot_time()?;
        match self.lease()? {
            Some(lease) if lease.fence == claim.fence && lease.holder.is_some() => {
                let renewed = Lease {
                    expires_ms: now.ms + claim.ttl_ms,
                    boot_id: now.boot_id,
                    ..lease
                };
                durable::write(&self.layout, &self.layout.lease(), &renewed)
            }
            lease => {
                let by = lease.and_then(|lease| lease.holder).map_or_else(
                    || "it was given back".to_owned(),
                    |holder| {
                        format!(
                            "{} `{}` of {} took over",
                            holder.kind, holder.operation, holder.who
                        )
                    },
                );
                Err(Denial::new(
                    DenialKind::Locked,
                    format!("operation `{}` lost its lock: {by}", claim.operation()),
                ))
            }
        }
    }

    /// Prolongs `claim` for as long as a verb waits for something else; returns when somebody took over.
    pub(crate) async fn keep(&self, claim: &Claim) -> Denial {
        loop {
            sleep(Duration::from_millis((claim.ttl_ms / 3).max(1))).await;
            let renewed = match self.lock_state().await {
                Ok(_state) => self.renew(claim),
                Err(denial) => Err(denial),
            };
            if let Err(denial) = renewed {
                return denial;
            }
        }
    }

    pub(crate) fn intent(&self) -> Result<Option<Intent>, Denial> {
        durable::read(&self.layout.intent())
    }

    pub(crate) fn record(&self, slot: Slot) -> Result<Option<SlotRecord>, Denial> {
        durable::read(&self.layout.slot(slot))
    }

    pub(crate) fn put_record(&self, slot: Slot, record: &SlotRecord) -> Result<(), Denial> {
        durable::write(&self.layout, &self.layout.slot(slot), record)
    }

    pub(crate) fn set_state(&self, slot: Slot, state: SlotState) -> Result<(), Denial> {
        match self.record(slot)? {
            Some(record) if record.state != state => {
                self.put_record(slot, &SlotRecord { state, ..record })
            }
            _ => Ok(()),
        }
    }

    /// The record of a slot, for a step that cannot go on without one.
    pub(crate) fn expect_record(&self, slot: Slot) -> Result<SlotRecord, Denial> {
        self.record(slot)?
            .ok_or_else(|| host(format!("slot {slot} is empty")))
    }
}
