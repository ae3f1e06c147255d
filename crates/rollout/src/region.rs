//! From the answers of a region's hosts to what happens to the whole region.
//!
//! A region is switched as one: nothing is switched when one host cannot prepare, all go back when one cannot commit.

use std::collections::BTreeSet;

use crate::verdict::Verdict;

/// What became of one request to one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Done,
    /// The release is bad there.
    Unhealthy,
    /// The host cannot: disk, proxy, process.
    Host,
    /// State there cannot be read.
    Corrupt,
    /// A safety rule forbids it.
    Refused,
    /// The request does not fit the host: version, name, hash.
    Invalid,
    /// Another operation has the lock, or took it.
    Locked,
    /// No answer: it may have happened or not.
    Lost,
}

/// Who gets the traffic of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Old,
    New,
    Mixed,
    Unknown,
}

impl Traffic {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
            Self::Mixed => "mixed",
            Self::Unknown => "unknown",
        }
    }
}

/// The verdict before anything was switched; `None` when every host is ready.
///
/// Refusals stand before the release's own fault, and that before a host's: what nobody may do is not worth a retry,
/// and a bad release stays bad on better hosts.
pub fn before_switch(outcomes: &[Outcome]) -> Option<Verdict> {
    let verdict_of = |outcome: Outcome| match outcome {
        Outcome::Done => None,
        Outcome::Invalid => Some(Verdict::Invalid),
        Outcome::Refused => Some(Verdict::Refused),
        Outcome::Unhealthy => Some(Verdict::RollBack),
        Outcome::Locked => Some(Verdict::Locked),
        // Nothing of the state there is known; the traffic was not touched all the same.
        Outcome::Corrupt => Some(Verdict::Unknown),
        Outcome::Host | Outcome::Lost => Some(Verdict::Unreachable),
    };
    let order = [
        Outcome::Invalid,
        Outcome::Refused,
        Outcome::Corrupt,
        Outcome::Unhealthy,
        Outcome::Locked,
        Outcome::Host,
        Outcome::Lost,
    ];
    order
        .into_iter()
        .find(|outcome| outcomes.contains(outcome))
        .and_then(verdict_of)
}

/// The verdict of a request that may itself have changed something: settled a switch, marked a release.
///
/// Unlike [`before_switch`] a lost answer is then not "provably nothing changed".
pub fn after_acting(outcomes: &[Outcome]) -> Option<Verdict> {
    if outcomes
        .iter()
        .any(|outcome| matches!(outcome, Outcome::Lost | Outcome::Corrupt))
    {
        Some(Verdict::Unknown)
    } else {
        before_switch(outcomes)
    }
}

/// The verdict after the hosts were told to take the switch back.
pub fn after_revert(outcomes: &[Outcome]) -> Verdict {
    if outcomes.iter().all(|outcome| *outcome == Outcome::Done) {
        Verdict::RolledBack
    } else if outcomes
        .iter()
        .any(|outcome| matches!(outcome, Outcome::Lost | Outcome::Corrupt))
    {
        // Its dead-man will have taken it back; nobody has seen it.
        Verdict::Unknown
    } else if outcomes.contains(&Outcome::Locked) {
        Verdict::Locked
    } else {
        Verdict::Mixed
    }
}

/// Where the hosts of a region would go back to, each by its own history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// No host has anything to undo.
    Stay,
    /// Every host that has something to undo goes to the same release.
    Release(String),
    /// They name different ones.
    Differ(BTreeSet<String>),
}

/// One target for the region: `None` stands for a host with nothing to undo.
pub fn agree<'a>(targets: impl IntoIterator<Item = Option<&'a str>>) -> Agreement {
    let names: BTreeSet<String> = targets
        .into_iter()
        .flatten()
        .map(ToOwned::to_owned)
        .collect();
    match names.len() {
        0 => Agreement::Stay,
        1 => names
            .into_iter()
            .next()
            .map_or(Agreement::Stay, Agreement::Release),
        _ => Agreement::Differ(names),
    }
}

#[cfg(test)]
mod tests {
    use super::{Agreement, Outcome, after_acting, after_revert, agree, before_switch};
    use crate::verdict::Verdict;

    use Outcome::{Done, Host, Lost, Refused, Unhealthy};

    #[test]
    fn one_host_that_cannot_prepare_stops_the_switch() {
        assert_eq!(before_switch(&[Done, Done]), None);
        assert_eq!(before_switch(&[Done, Unhealthy]), Some(Verdict::RollBack));
        assert_eq!(before_switch(&[Done, Host]), Some(Verdict::Unreachable));
        assert_eq!(before_switch(&[Done, Lost]), Some(Verdict::Unreachable));
    }

    #[test]
    fn a_lost_answer_to_a_request_that_acts_is_unknown() {
        assert_eq!(after_acting(&[Done, Lost]), Some(Verdict::Unknown));
        assert_eq!(after_acting(&[Done, Refused]), Some(Verdict::Refused));
        assert_eq!(after_acting(&[Done, Done]), None);
    }

    #[test]
    fn a_refusal_stands_before_a_bad_release_and_that_before_a_bad_host() {
        assert_eq!(
            before_switch(&[Unhealthy, Refused, Host]),
            Some(Verdict::Refused)
        );
        assert_eq!(before_switch(&[Host, Unhealthy]), Some(Verdict::RollBack));
    }

    #[test]
    fn rolled_back_is_said_only_when_every_host_said_so() {
        assert_eq!(after_revert(&[Done, Done]), Verdict::RolledBack);
        assert_eq!(after_revert(&[Done, Lost]), Verdict::Unknown);
        assert_eq!(after_revert(&[Done, Host]), Verdict::Mixed);
    }

    #[test]
    fn hosts_that_were_never_switched_do_not_disagree() {
        assert_eq!(agree([None, None]), Agreement::Stay);
        assert_eq!(agree([None, Some("v1")]), Agreement::Release("v1".into()));
        assert!(matches!(
            agree([Some("v1"), Some("v2")]),
            Agreement::Differ(_)
        ));
    }
}
