//! A switch on one host as a write-ahead record, and how a crash in the middle of it is settled.

use serde::{Deserialize, Serialize};

use crate::lease::{BootTime, Holder, OperationKind};
use crate::release::Digest;
use crate::slot::Slot;

/// What an operation needs from its lock to its commit when the release is prepared already, in milliseconds. It is
/// asked for this much of the deadline, so that the host does not go back in between.
const RESUME_NEEDS_MS: u64 = 3_000;

/// Written before anything moves, removed when nothing is left to settle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub operation: String,
    pub kind: OperationKind,
    pub fence: u64,
    /// What served before; `None` on the first deploy.
    pub from: Option<Place>,
    pub to: Place,
    /// When the host goes back alone, in milliseconds since boot; `None` for a rollback, which never goes forward again.
    pub deadline_ms: Option<u64>,
    pub boot_id: String,
    pub phase: Phase,
}

/// A release in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub slot: Slot,
    pub release: String,
    pub digest: Digest,
}

/// How far a switch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Map file and running proxy may differ.
    Switching,
    /// A request through the proxy was answered by the new release.
    Switched,
    /// The controller saw it work; only the record of that is still to be written.
    Confirmed,
}

/// What to do about an intent that somebody finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Its operation is still expected to confirm it.
    Leave,
    /// Back to what served before.
    Backwards,
    /// To where the rollback was going: its other end is the bad release.
    Forwards,
}

impl Intent {
    /// Whether the time for a confirm is over. A deadline of another boot is: its timer died with that boot.
    pub fn expired(&self, now: &BootTime) -> bool {
        self.expires_within(0, now)
    }

    fn expires_within(&self, ms: u64, now: &BootTime) -> bool {
        self.boot_id != now.boot_id
            || self
                .deadline_ms
                .is_some_and(|deadline| now.ms + ms >= deadline)
    }

    /// Settles the intent for `asker`: who takes the lock, or `None` for timer and boot.
    pub fn settle(&self, asker: Option<&Holder>, now: &BootTime) -> Settle {
        if self.phase == Phase::Confirmed {
            return Settle::Forwards;
        }
        match self.kind {
            OperationKind::Rollback => Settle::Forwards,
            OperationKind::Deploy | OperationKind::Close => match asker {
                // The same operation came back: it reads the truth and decides itself, as long as there is time to come
                // to its commit, which sets a new deadline. When it came to undo itself it has decided.
                Some(holder)
                    if holder.operation == self.operation
                        && holder.kind != OperationKind::Rollback
                        && !self.expires_within(RESUME_NEEDS_MS, now) =>
                {
                    Settle::Leave
                }
                Some(_) => Settle::Backwards,
                None if self.expired(now) => Settle::Backwards,
                None => Settle::Leave,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Intent, Phase, Place, Settle};
    use crate::lease::{BootTime, Holder, OperationKind};
    use crate::release::Digest;
    use crate::slot::Slot;

    fn holder(operation: &str, kind: OperationKind) -> Holder {
        Holder {
            operation: operation.into(),
            kind,
            undoes: None,
            who: "ci".into(),
        }
    }

    fn intent(kind: OperationKind, deadline_ms: Option<u64>) -> Intent {
        let to = Place {
            slot: Slot::Green,
            release: "v2".into(),
            digest: Digest::of(b"v2"),
        };
        Intent {
            operation: "op".into(),
            kind,
            fence: 1,
            from: None,
            to,
            deadline_ms,
            boot_id: "b1".into(),
            phase: Phase::Switching,
        }
    }

    fn at(ms: u64) -> BootTime {
        BootTime {
            boot_id: "b1".into(),
            ms,
        }
    }

    #[test]
    fn an_unconfirmed_deploy_goes_back_when_its_time_is_over_or_another_operation_comes() {
        let deploy = intent(OperationKind::Deploy, Some(8_000));
        assert_eq!(deploy.settle(None, &at(7_999)), Settle::Leave);
        assert_eq!(deploy.settle(None, &at(8_000)), Settle::Backwards);
        let other = holder("other", OperationKind::Deploy);
        assert_eq!(deploy.settle(Some(&other), &at(0)), Settle::Backwards);
    }

    #[test]
    fn an_operation_that_comes_back_goes_on_only_with_time_enough_to_come_to_its_commit() {
        let deploy = intent(OperationKind::Deploy, Some(8_000));
        let same = holder("op", OperationKind::Deploy);
        assert_eq!(deploy.settle(Some(&same), &at(4_999)), Settle::Leave);
        assert_eq!(deploy.settle(Some(&same), &at(5_000)), Settle::Backwards);
        assert_eq!(deploy.settle(Some(&same), &at(9_000)), Settle::Backwards);
    }

    #[test]
    fn an_operation_that_undoes_itself_does_not_wait_for_its_own_deadline() {
        let deploy = intent(OperationKind::Deploy, Some(100));
        let undo = holder("op", OperationKind::Rollback);
        assert_eq!(deploy.settle(Some(&undo), &at(0)), Settle::Backwards);
    }

    #[test]
    fn a_reboot_counts_as_an_expired_deadline() {
        let now = BootTime {
            boot_id: "b2".into(),
            ms: 0,
        };
        assert_eq!(
            intent(OperationKind::Deploy, Some(100)).settle(None, &now),
            Settle::Backwards
        );
    }

    #[test]
    fn a_confirm_that_was_written_down_is_never_taken_back() {
        let confirmed = Intent {
            phase: Phase::Confirmed,
            ..intent(OperationKind::Deploy, Some(100))
        };
        let rebooted = BootTime {
            boot_id: "b2".into(),
            ms: 0,
        };
        assert_eq!(confirmed.settle(None, &at(200)), Settle::Forwards);
        assert_eq!(confirmed.settle(None, &rebooted), Settle::Forwards);
    }

    #[test]
    fn a_crashed_rollback_never_puts_the_bad_release_back() {
        let rollback = intent(OperationKind::Rollback, None);
        assert_eq!(rollback.settle(None, &at(0)), Settle::Forwards);
        let other = holder("other", OperationKind::Deploy);
        assert_eq!(rollback.settle(Some(&other), &at(0)), Settle::Forwards);
    }
}
