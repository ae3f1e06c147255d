//! What a host went through, and where a rollback leads.

use serde::{Deserialize, Serialize};

use crate::release::Digest;

/// One event in the life of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339, by the host's clock.
    pub at: String,
    /// The operation that caused it.
    pub operation: String,
    pub kind: EventKind,
    pub release: String,
    pub digest: Digest,
    /// The release before, for the kinds that change what serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What happened to `release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// It serves since now, brought by a deploy that is not yet confirmed.
    Switched,
    /// The controller saw it work through the proxies.
    Confirmed,
    /// It serves again: an unconfirmed switch was taken back.
    Reverted,
    /// It left, and nothing serves: the unconfirmed first switch was taken back.
    Emptied,
    /// It serves again: a rollback.
    RolledBack,
    /// A rollout with it was closed here.
    Verified,
    /// It never became healthy here.
    Rejected,
}

impl EventKind {
    /// Whether another release serves after it than before.
    pub const fn changes_traffic(self) -> bool {
        match self {
            Self::Switched | Self::Reverted | Self::Emptied | Self::RolledBack => true,
            Self::Confirmed | Self::Verified | Self::Rejected => false,
        }
    }
}

/// The release that serves, by the history alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    pub release: String,
    pub digest: Digest,
    /// The deploy that brought it here, also when a rollback returned to it.
    pub operation: String,
    pub verified: bool,
}

/// What a rollback would do on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Back to this release.
    Release { name: String, digest: Digest },
    /// The operation brought nothing that serves here: nothing to undo.
    Stay,
}

/// Why a rollback leads nowhere. None of these changes anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    #[error("nothing serves here, so there is nothing to go back from")]
    NothingServes,
    #[error("`{release}` is the first release here: no verified release served before it")]
    NothingBefore { release: String },
    #[error("`{release}` was brought by operation `{by}`, not by `{asked}`")]
    BroughtByAnother {
        release: String,
        by: String,
        asked: String,
    },
    #[error("release `{0}` never served here")]
    NeverServed(String),
}

impl Event {
    /// The same content under another name is another release: it was started with another env of its host, and somebody has
    /// to close it anew.
    pub fn is_about(&self, release: &str, digest: &Digest) -> bool {
        self.release == release && self.digest == *digest
    }
}

/// What serves after these events; `None` when nothing ever did.
pub fn serving(events: &[Event]) -> Option<Serving> {
    let last = events
        .iter()
        .rev()
        .find(|event| event.kind.changes_traffic())?;
    if last.kind == EventKind::Emptied {
        return None;
    }
    let brought = events
        .iter()
        .rev()
        .find(|e| e.kind == EventKind::Switched && e.is_about(&last.release, &last.digest));
    Some(Serving {
        release: last.release.clone(),
        digest: last.digest.clone(),
        operation: brought.unwrap_or(last).operation.clone(),
        verified: is_verified(events, &last.release, &last.digest),
    })
}

/// Where a rollback of `operation` (or of whatever serves) goes: `to`, or the last verified release before it.
///
/// # Errors
/// [`NoTarget`] when the safety rules leave no release to go to.
pub fn rollback_target(
    events: &[Event],
    operation: Option<&str>,
    to: Option<&str>,
) -> Result<Target, NoTarget> {
    let current = serving(events);
    if let Some(asked) = operation {
        match &current {
            None => return Ok(Target::Stay),
            Some(now) if !owns(events, now, asked) => {
                return if overtaken(events, asked) {
                    Err(NoTarget::BroughtByAnother {
                        release: now.release.clone(),
                        by: now.operation.clone(),
                        asked: asked.to_owned(),
                    })
                } else {
                    Ok(Target::Stay)
                };
            }
            Some(_) => {}
        }
    }
    let current = current.ok_or(NoTarget::NothingServes)?;
    if let Some(name) = to {
        return match events
            .iter()
            .rev()
            .find(|e| e.kind.changes_traffic() && e.release == name)
        {
            Some(event) if event.is_about(&current.release, &current.digest) => Ok(Target::Stay),
            Some(event) => Ok(Target::Release {
                name: event.release.clone(),
                digest: event.digest.clone(),
            }),
            None => Err(NoTarget::NeverServed(name.to_owned())),
        };
    }
    // Already gone back: a second rollback, by a person or by a workflow after the tool's own, must not go back twice.
    let last = events
        .iter()
        .rev()
        .find(|event| event.kind.changes_traffic());
    let gone_back = |e: &Event| matches!(e.kind, EventKind::RolledBack | EventKind::Reverted);
    if operation.is_none() && last.is_some_and(gone_back) {
        return Ok(Target::Stay);
    }
    // Looking back from the deploy that brought the current release: a rollback of a rollback does not go forward.
    let arrival = events
        .iter()
        .rposition(|e| {
            e.kind == EventKind::Switched && e.is_about(&current.release, &current.digest)
        })
        .unwrap_or(0);
    events[..arrival]
        .iter()
        .rev()
        .find(|e| {
            e.kind.changes_traffic()
                && !e.is_about(&current.release, &current.digest)
                && is_verified(events, &e.release, &e.digest)
        })
        .map(|e| Target::Release {
            name: e.release.clone(),
            digest: e.digest.clone(),
        })
        .ok_or(NoTarget::NothingBefore {
            release: current.release,
        })
}

/// Whether undoing `operation` means to leave `now`: it brought it, or it deployed it again before anybody had closed it.
fn owns(events: &[Event], now: &Serving, operation: &str) -> bool {
    let confirmed = |e: &Event| {
        e.kind == EventKind::Confirmed
            && e.operation == operation
            && e.is_about(&now.release, &now.digest)
    };
    now.operation == operation || (!now.verified && events.iter().any(confirmed))
}

/// Whether `operation` brought a release here that somebody else's deploy has replaced since.
///
/// False when it never switched, and when its switch was taken back: then nothing of it is here to undo.
fn overtaken(events: &[Event], operation: &str) -> bool {
    let Some(at) = events
        .iter()
        .rposition(|e| e.kind == EventKind::Switched && e.operation == operation)
    else {
        return false;
    };
    events[at + 1..]
        .iter()
        .find(|e| e.kind.changes_traffic())
        .is_some_and(|next| next.kind == EventKind::Switched)
}

fn is_verified(events: &[Event], release: &str, digest: &Digest) -> bool {
    events
        .iter()
        .any(|event| event.kind == EventKind::Verified && event.is_about(release, digest))
}

#[cfg(test)]
mod tests {
    use super::{Event, EventKind, NoTarget, Target, rollback_target, serving};
    use crate::release::Digest;

    /// `("switched", "op", "v2")` and so on.
    fn events(script: &[(EventKind, &str, &str)]) -> Vec<Event> {
        let event = |(kind, operation, release): &(EventKind, &str, &str)| Event {
            at: String::new(),
            operation: (*operation).into(),
            kind: *kind,
            release: (*release).into(),
            digest: Digest::of(release.as_bytes()),
            from: None,
            note: None,
        };
        script.iter().map(event).collect()
    }

    fn to(name: &str) -> Result<Target, NoTarget> {
        Ok(Target::Release {
            name: name.into(),
            digest: Digest::of(name.as_bytes()),
        })
    }

    use EventKind::{Confirmed, Reverted, RolledBack, Switched, Verified};

    #[test]
    fn goes_to_the_last_verified_release_not_to_the_last_tried() {
        let past = events(&[
            (Switched, "1", "v1"),
            (Verified, "1", "v1"),
            (Switched, "2", "v2"),
            (Confirmed, "2", "v2"),
            (Switched, "3", "v3"),
        ]);
        assert_eq!(rollback_target(&past, Some("3"), None), to("v1"));
        assert_eq!(rollback_target(&past, None, None), to("v1"));
    }

    #[test]
    fn the_first_deploy_cannot_be_rolled_back() {
        let past = events(&[(Switched, "1", "v1"), (Confirmed, "1", "v1")]);
        assert_eq!(
            rollback_target(&past, None, None),
            Err(NoTarget::NothingBefore {
                release: "v1".into()
            })
        );
        assert_eq!(
            rollback_target(&[], None, None),
            Err(NoTarget::NothingServes)
        );
    }

    #[test]
    fn an_operation_that_never_switched_or_was_taken_back_is_a_no_op() {
        let past = events(&[
            (Switched, "1", "v1"),
            (Verified, "1", "v1"),
            (Switched, "2", "v2"),
            (Reverted, "2", "v1"),
        ]);
        assert_eq!(rollback_target(&past, Some("2"), None), Ok(Target::Stay));
        assert_eq!(rollback_target(&past, Some("3"), None), Ok(Target::Stay));
        assert_eq!(rollback_target(&[], Some("1"), None), Ok(Target::Stay));
    }

    #[test]
    fn refuses_to_leave_a_release_that_another_operation_brought() {
        let past = events(&[
            (Switched, "1", "v1"),
            (Verified, "1", "v1"),
            (Switched, "2", "v2"),
            (Switched, "3", "v3"),
        ]);
        let found = rollback_target(&past, Some("2"), None);
        assert!(matches!(found, Err(NoTarget::BroughtByAnother { by, .. }) if by == "3"));
    }

    #[test]
    fn twice_is_not_two_releases_back_and_a_rollback_of_a_rollback_does_not_go_forward() {
        let mut script = vec![
            (Switched, "1", "v1"),
            (Verified, "1", "v1"),
            (Switched, "2", "v2"),
            (Verified, "2", "v2"),
        ];
        script.extend([(Switched, "3", "v3"), (RolledBack, "r", "v2")]);
        let past = events(&script);
        assert_eq!(rollback_target(&past, Some("3"), None), Ok(Target::Stay));
        assert_eq!(rollback_target(&past, None, None), Ok(Target::Stay));
        assert_eq!(rollback_target(&past, None, Some("v1")), to("v1"));
        assert_eq!(rollback_target(&past, None, Some("v3")), to("v3"));
        assert_eq!(rollback_target(&past, None, Some("v2")), Ok(Target::Stay));
        assert_eq!(
            rollback_target(&past, None, Some("v9")),
            Err(NoTarget::NeverServed("v9".into()))
        );
    }

    #[test]
    fn a_release_that_was_deployed_again_goes_back_to_what_it_replaced() {
        let past = events(&[
            (Switched, "1", "v1"),
            (Verified, "1", "v1"),
            (Switched, "2", "v2"),
            (Verified, "2", "v2"),
            (Switched, "3", "v1"),
        ]);
        assert_eq!(rollback_target(&past, Some("3"), None), to("v2"));
    }

    #[test]
    fn an_operation_that_found_the_unverified_release_there_may_take_it_away() {
        let mut past = events(&[
            (Switched, "1", "v1"),
            (Verified, "1", "v1"),
            (Switched, "2", "v2"),
            (Confirmed, "2", "v2"),
            (Confirmed, "3", "v2"),
        ]);
        assert_eq!(rollback_target(&past, Some("3"), None), to("v1"));
        // Once somebody closed it, it is no longer the newcomer's to undo.
        past.extend(events(&[(Verified, "2", "v2")]));
        assert_eq!(rollback_target(&past, Some("3"), None), Ok(Target::Stay));
    }

    #[test]
    fn an_operation_is_undone_also_after_another_one_on_top_of_it_went_back() {
        let past = events(&[
            (Switched, "1", "v1"),
            (Verified, "1", "v1"),
            (Switched, "2", "v2"),
            (Confirmed, "2", "v2"),
            (Switched, "3", "v3"),
            (Reverted, "3", "v2"),
        ]);
        assert_eq!(rollback_target(&past, Some("2"), None), to("v1"));
        assert_eq!(rollback_target(&past, None, None), Ok(Target::Stay));
    }

    #[test]
    fn nothing_serves_after_the_first_deploy_was_taken_back() {
        let past = events(&[(Switched, "1", "v1"), (EventKind::Emptied, "1", "v1")]);
        assert_eq!(serving(&past), None);
        assert_eq!(rollback_target(&past, Some("1"), None), Ok(Target::Stay));
    }

    #[test]
    fn serving_is_what_the_last_change_says() {
        let past = events(&[
            (Switched, "1", "v1"),
            (Verified, "1", "v1"),
            (Switched, "2", "v2"),
            (Reverted, "2", "v1"),
        ]);
        let now = serving(&past).unwrap();
        assert_eq!(
            (now.release.as_str(), now.operation.as_str(), now.verified),
            ("v1", "1", true)
        );
    }
}
