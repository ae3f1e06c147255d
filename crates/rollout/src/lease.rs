//! Who may change a host: a lease with an owner, an expiry and a fence.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an operation wants of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    Deploy,
    Rollback,
    Close,
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Close => "close",
        })
    }
}

/// Who wants the lock, or has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub operation: String,
    pub kind: OperationKind,
    /// The only operation whose lock a rollback takes while it lives; `None`: whoever's deploy it is. An older
    /// controller does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
    /// A CI run's URL, or user and machine.
    pub who: String,
}

impl Holder {
    /// Whether it may take a live lock of `other`.
    fn outranks(&self, other: &Self) -> bool {
        self.kind == OperationKind::Rollback
            && other.kind == OperationKind::Deploy
            && self
                .undoes
                .as_ref()
                .is_none_or(|undone| *undone == other.operation)
    }
}

/// The lock on one host, as stored there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// `None` once it was given back. The fence stays, so that it only ever grows.
    pub holder: Option<Holder>,
    pub fence: u64,
    /// Milliseconds since the host booted (`CLOCK_BOOTTIME`): a wrong wall clock cannot end or prolong it.
    pub expires_ms: u64,
    /// The boot that `expires_ms` counts from.
    pub boot_id: String,
}

/// Where a host's clock stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootTime {
    pub boot_id: String,
    pub ms: u64,
}

impl Lease {
    /// Milliseconds until the lease ends: zero when it is given back, run out, or from another boot.
    pub fn remaining_ms(&self, now: &BootTime) -> u64 {
        if self.holder.is_none() || self.boot_id != now.boot_id {
            return 0;
        }
        self.expires_ms.saturating_sub(now.ms)
    }
}

/// Grants the lock to `holder` for `ttl_ms`, or returns who has it.
///
/// A holder gets its own lease again (a connection that broke), anybody gets one that ended, and a rollback takes the
/// deploy's at once that it is to undo: waiting out a bad deploy would keep its release in front of users. Another
/// deploy is not its business: its run only waited for the lock, or lost it.
///
/// # Errors
/// The lease that stands in the way.
pub fn acquire(
    current: Option<&Lease>,
    holder: Holder,
    ttl_ms: u64,
    now: &BootTime,
) -> Result<Lease, Lease> {
    let granted = |fence| Lease {
        holder: Some(holder.clone()),
        fence,
        expires_ms: now.ms.saturating_add(ttl_ms),
        boot_id: now.boot_id.clone(),
    };
    let Some(lease) = current else {
        return Ok(granted(1));
    };
    let over = lease.remaining_ms(now) == 0;
    let free = match &lease.holder {
        None => true,
        Some(other) if other.operation == holder.operation => true,
        Some(other) => over || holder.outranks(other),
    };
    if free {
        Ok(granted(lease.fence + 1))
    } else {
        Err(lease.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{BootTime, Holder, Lease, OperationKind, acquire};

    fn holder(operation: &str, kind: OperationKind) -> Holder {
        Holder {
            operation: operation.into(),
            kind,
            undoes: None,
            who: "ci".into(),
        }
    }

    fn at(ms: u64) -> BootTime {
        BootTime {
            boot_id: "b1".into(),
            ms,
        }
    }

    fn held(kind: OperationKind) -> Lease {
        acquire(None, holder("a", kind), 1000, &at(0)).unwrap()
    }

    #[test]
    fn a_live_lease_keeps_others_out_until_it_ends() {
        let lease = held(OperationKind::Deploy);
        let other = || holder("b", OperationKind::Deploy);
        assert_eq!(
            acquire(Some(&lease), other(), 1000, &at(999)),
            Err(lease.clone())
        );
        let taken = acquire(Some(&lease), other(), 1000, &at(1000)).unwrap();
        assert_eq!(taken.fence, lease.fence + 1);
    }

    #[test]
    fn a_rollback_takes_a_deploys_lease_and_nobody_takes_a_rollbacks() {
        let rollback = || holder("b", OperationKind::Rollback);
        assert!(acquire(Some(&held(OperationKind::Deploy)), rollback(), 1000, &at(1)).is_ok());
        assert!(
            acquire(
                Some(&held(OperationKind::Rollback)),
                rollback(),
                1000,
                &at(1)
            )
            .is_err()
        );
        assert!(
            acquire(
                Some(&held(OperationKind::Rollback)),
                holder("c", OperationKind::Deploy),
                1,
                &at(1)
            )
            .is_err()
        );
    }

    #[test]
    fn a_rollback_of_one_operation_takes_that_operations_lease_and_no_other() {
        let lease = held(OperationKind::Deploy);
        let undo = |operation: &str| Holder {
            undoes: Some(operation.into()),
            ..holder("b", OperationKind::Rollback)
        };
        assert!(acquire(Some(&lease), undo("a"), 1000, &at(1)).is_ok());
        assert_eq!(
            acquire(Some(&lease), undo("c"), 1000, &at(1)),
            Err(lease.clone())
        );
        assert!(acquire(Some(&lease), undo("c"), 1000, &at(1000)).is_ok());
    }

    #[test]
    fn the_same_operation_comes_back_at_once_with_a_higher_fence() {
        let lease = held(OperationKind::Deploy);
        assert_eq!(
            acquire(
                Some(&lease),
                holder("a", OperationKind::Deploy),
                1000,
                &at(1)
            )
            .unwrap()
            .fence,
            2
        );
    }

    #[test]
    fn a_reboot_ends_every_lease() {
        let now = BootTime {
            boot_id: "b2".into(),
            ms: 0,
        };
        assert!(
            acquire(
                Some(&held(OperationKind::Rollback)),
                holder("b", OperationKind::Deploy),
                1000,
                &now
            )
            .is_ok()
        );
    }
}
