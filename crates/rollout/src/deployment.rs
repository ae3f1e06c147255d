//! A region's deploy as GitHub shows it: one Deployment for each operation, and its status.

use std::fmt::Write as _;

use crate::verdict::Verdict;

/// GitHub refuses a longer description.
const DESCRIPTION_LIMIT: usize = 140;

/// States of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    InProgress,
    /// Held: the release is there, and the rollout waits for a person.
    Pending,
    Success,
    Failure,
    Inactive,
    /// Nobody knows, or the run stopped for a reason that is not the release's.
    Error,
}

impl State {
    pub const ALL: [Self; 6] = [
        Self::InProgress,
        Self::Pending,
        Self::Success,
        Self::Failure,
        Self::Inactive,
        Self::Error,
    ];

    /// GitHub's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Inactive => "inactive",
            Self::Error => "error",
        }
    }
}

/// What a region's last verdict means for its deployment; `None` is a job that ended without one.
///
/// `failure` says that the release was tried and is not what serves; `error` that nobody knows what serves, or that the
/// run stopped for another reason than the release. Only what was closed is a `success`: on GitHub it makes the deployment before it inactive.
pub const fn follows_from(verdict: Option<Verdict>) -> State {
    match verdict {
        Some(Verdict::Proceed) => State::Success,
        Some(Verdict::Pause) => State::Pending,
        Some(Verdict::RollBack | Verdict::RolledBack) => State::Failure,
        Some(
            Verdict::Failed
            | Verdict::Invalid
            | Verdict::Refused
            | Verdict::Mixed
            | Verdict::Unreachable
            | Verdict::Unknown
            | Verdict::Locked
            | Verdict::Interrupted
            | Verdict::Terminated,
        )
        | None => State::Error,
    }
}

/// One status of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: String,
    pub description: String,
    pub log_url: String,
    pub environment_url: String,
}

/// The line beside the state, within GitHub's limit.
pub fn description(verdict: Option<Verdict>, release: &str, operation: &str) -> String {
    let mut text = format!("{release} by {operation}");
    if let Some(verdict) = verdict {
        // Writing to a String does not fail.
        let _ = write!(text, ": {verdict}");
    }
    if text.chars().count() > DESCRIPTION_LIMIT {
        text = text.chars().take(DESCRIPTION_LIMIT - 2).collect();
        text.push_str("..");
    }
    text
}

/// Whether GitHub already says so. Only the newest status counts: a run that is tried again goes back to `in_progress`.
pub fn says_so(newest: Option<&Status>, wanted: &Status) -> bool {
    newest == Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::{State, Status, description, follows_from, says_so};
    use crate::verdict::Verdict;

    #[test]
    fn every_verdict_has_its_state_and_only_proceed_is_a_success() {
        for verdict in Verdict::ALL {
            let state = follows_from(Some(verdict));
            assert_eq!(
                state == State::Success,
                verdict == Verdict::Proceed,
                "{verdict}"
            );
            assert_ne!(state, State::InProgress, "{verdict} is an end");
        }
        assert_eq!(follows_from(None), State::Error);
        assert_eq!(follows_from(Some(Verdict::Pause)), State::Pending);
        assert_eq!(follows_from(Some(Verdict::RolledBack)), State::Failure);
        assert_eq!(follows_from(Some(Verdict::Unknown)), State::Error);
    }

    #[test]
    fn a_description_never_exceeds_what_github_takes() {
        let verdict = Some(Verdict::Proceed);
        assert_eq!(description(verdict, "v2", "7-eu"), "v2 by 7-eu: proceed");
        assert_eq!(description(None, "v2", "7-eu"), "v2 by 7-eu");
        let long = description(None, &"ä".repeat(200), "7-eu");
        assert_eq!(long.chars().count(), 140);
        assert!(long.ends_with(".."), "{long}");
    }

    #[test]
    fn only_the_newest_status_counts() {
        let status = |state: &str| Status {
            state: state.to_owned(),
            description: "v2".to_owned(),
            log_url: "https://log".to_owned(),
            environment_url: "https://eu".to_owned(),
        };
        assert!(!says_so(None, &status("success")));
        assert!(says_so(Some(&status("success")), &status("success")));
        assert!(!says_so(Some(&status("failure")), &status("in_progress")));
    }
}
