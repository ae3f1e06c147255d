//! The one issue of a rollout that waits for a person: when it is opened, commented on and closed.
//!
//! A pause is a release in a region. An issue says which one by a marker that GitHub does not show, so that a title may
//! be edited, and the same pause never opens a second issue.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::jobs::{Ended, RegionEnd, State};
use crate::verdict::Verdict;

/// The label that every such issue has, and by which it is found.
pub const LABEL: &str = "rollout-held";

/// An open issue that has the label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIssue {
    pub number: u64,
    pub body: String,
    /// Bodies of its comments.
    pub comments: Vec<String>,
}

impl OpenIssue {
    /// Whether this run has said its word here already.
    fn told_by(&self, run: &str) -> bool {
        let marker = run_marker(run);
        [&self.body]
            .into_iter()
            .chain(&self.comments)
            .any(|text| text.lines().any(|line| line == marker))
    }
}

/// What an issue is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    pub product: String,
    pub release: String,
    /// The region, or the job before all regions.
    pub place: String,
}

impl Pause {
    /// The line that marks an issue of this pause.
    pub fn marker(&self) -> String {
        format!(
            "{}release={} place={} -->",
            product_marker(&self.product),
            escaped(&self.release),
            escaped(&self.place)
        )
    }

    /// The pause of this product that an issue is about; `None` for everybody else's issue.
    pub fn of_issue(product: &str, body: &str) -> Option<Self> {
        let start = product_marker(product);
        let rest = body.lines().find_map(|line| line.strip_prefix(&start))?;
        let (release, place) = rest
            .strip_prefix("release=")?
            .strip_suffix(" -->")?
            .split_once(" place=")?;
        Some(Self {
            product: product.to_owned(),
            release: unescaped(release),
            place: unescaped(place),
        })
    }
}

fn product_marker(product: &str) -> String {
    format!("<!-- regionwise held product={product} ")
}

/// The line that says which run and attempt wrote a text.
pub fn run_marker(run: &str) -> String {
    format!("<!-- regionwise run={} -->", escaped(run))
}

/// Nothing in a name may end the comment or the word.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');

fn escaped(name: &str) -> String {
    let escaped = utf8_percent_encode(name, &PLAIN).to_string();
    // Two hyphens end a comment for some readers.
    escaped.replace("--", "-%2D")
}

fn unescaped(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// Why a pause is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The region has a closed release: this one, or one that came after it.
    Done,
    /// The region is verified on the release before.
    Back,
    /// Another release waits there now.
    Replaced,
}

/// What is to be done about issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Open(Pause),
    /// The pause goes on.
    Comment(u64),
    Close(u64, Over),
}

/// Whether somebody must decide or look before anything goes on.
pub const fn needs_a_person(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Pause
        | Verdict::Mixed
        | Verdict::Unknown
        | Verdict::Failed
        | Verdict::RollBack => true,
        // The region is back, nothing was changed, or a person stopped it: the red run says enough.
        Verdict::Proceed
        | Verdict::Invalid
        | Verdict::Refused
        | Verdict::RolledBack
        | Verdict::Unreachable
        | Verdict::Locked
        | Verdict::Interrupted
        | Verdict::Terminated => false,
    }
}

/// Whether the rollout waits for a person: because of its verdict, or because the release serves in a region that nobody has
/// closed.
pub fn waits(ended: &Ended) -> bool {
    let is_held = |end: &RegionEnd| end.state == State::Held;
    needs_a_person(ended.verdict) || ended.failed_region().is_some_and(is_held)
}

/// What the end of this run means for the issues that are open. `run` is the run with its attempt: asked again for the
/// same one, nothing is said twice.
pub fn acts(
    product: &str,
    release: &str,
    ended: &Ended,
    issues: &[OpenIssue],
    run: &str,
) -> Vec<Act> {
    let waiting = ended
        .place
        .as_ref()
        .filter(|_| waits(ended))
        .map(|place| Pause {
            product: product.to_owned(),
            release: release.to_owned(),
            place: place.clone(),
        });
    let mut acts = Vec::new();
    let mut known = false;
    for issue in issues {
        let Some(pause) = Pause::of_issue(product, &issue.body) else {
            continue;
        };
        if waiting.as_ref() == Some(&pause) {
            // Two of them are left from a time when the label was missing: both are told.
            known = true;
            if !issue.told_by(run) {
                acts.push(Act::Comment(issue.number));
            }
            continue;
        }
        let over = over(&pause, ended, waiting.as_ref());
        acts.extend(over.map(|over| Act::Close(issue.number, over)));
    }
    acts.extend(waiting.filter(|_| !known).map(Act::Open));
    acts
}

fn over(pause: &Pause, ended: &Ended, waiting: Option<&Pause>) -> Option<Over> {
    let replaced = waiting.is_some_and(|waiting| waiting.place == pause.place);
    match ended.regions.iter().find(|end| end.region == pause.place) {
        Some(end) => match end.state {
            State::Done => Some(Over::Done),
            State::Back => Some(Over::Back),
            State::Held => replaced.then_some(Over::Replaced),
            // The older release may well still wait there.
            State::Stopped | State::Look | State::NotReached | State::LeftOut | State::Clear => {
                None
            }
        },
        None if replaced => Some(Over::Replaced),
        // It waited before all regions: over as soon as a region was reached.
        None => ended.done().next().map(|_| Over::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::{Act, OpenIssue, Over, Pause, acts, needs_a_person, run_marker};
    use crate::jobs::{Ended, RegionEnd, State};
    use crate::verdict::Verdict;

    fn end(verdict: Verdict, place: Option<&str>, states: [State; 2]) -> Ended {
        let region = |(region, state): (&str, State)| RegionEnd {
            region: region.to_owned(),
            state,
            verdict: None,
            step: String::new(),
            release: String::new(),
            previous: String::new(),
        };
        Ended {
            verdict,
            place: place.map(str::to_owned),
            regions: ["eu", "us"].into_iter().zip(states).map(region).collect(),
        }
    }

    fn held() -> Ended {
        end(Verdict::Pause, Some("eu"), [State::Held, State::NotReached])
    }

    fn pause(release: &str, place: &str) -> Pause {
        Pause {
            product: "shop".to_owned(),
            release: release.to_owned(),
            place: place.to_owned(),
        }
    }

    fn issue(number: u64, pause: &Pause, run: &str) -> OpenIssue {
        OpenIssue {
            number,
            body: format!("text\n{}\n{}\n", pause.marker(), run_marker(run)),
            comments: Vec::new(),
        }
    }

    fn asked(ended: &Ended, issues: &[OpenIssue]) -> Vec<Act> {
        acts("shop", "v2", ended, issues, "7.1")
    }

    #[test]
    fn the_first_pause_opens_an_issue_and_the_next_run_comments_on_it() {
        assert_eq!(asked(&held(), &[]), [Act::Open(pause("v2", "eu"))]);
        let open = issue(4, &pause("v2", "eu"), "6.1");
        assert_eq!(asked(&held(), &[open]), [Act::Comment(4)]);
    }

    #[test]
    fn the_same_run_says_nothing_twice() {
        let open = issue(4, &pause("v2", "eu"), "7.1");
        assert_eq!(asked(&held(), &[open]), []);
        let mut commented = issue(4, &pause("v2", "eu"), "6.1");
        commented.comments.push(run_marker("7.1"));
        assert_eq!(asked(&held(), &[commented]), []);
        let other_attempt = issue(4, &pause("v2", "eu"), "7.2");
        assert_eq!(asked(&held(), &[other_attempt]), [Act::Comment(4)]);
    }

    #[test]
    fn an_issue_is_closed_when_its_region_is_done_or_back() {
        let open = [issue(4, &pause("v2", "eu"), "6.1")];
        let through = end(Verdict::Proceed, None, [State::Done; 2]);
        assert_eq!(asked(&through, &open), [Act::Close(4, Over::Done)]);
        let back = end(
            Verdict::RolledBack,
            Some("eu"),
            [State::Back, State::NotReached],
        );
        assert_eq!(asked(&back, &open), [Act::Close(4, Over::Back)]);
        // It went on, and is held further on.
        let further = end(Verdict::Pause, Some("us"), [State::Done, State::Held]);
        assert_eq!(
            asked(&further, &open),
            [Act::Close(4, Over::Done), Act::Open(pause("v2", "us"))]
        );
    }

    #[test]
    fn a_pause_that_this_run_did_not_touch_stays_open() {
        let open = [issue(4, &pause("v1", "eu"), "6.1")];
        for state in [State::LeftOut, State::NotReached, State::Stopped] {
            let ended = end(Verdict::Refused, Some("us"), [state, State::Stopped]);
            assert_eq!(asked(&ended, &open), [], "{state:?}");
        }
    }

    #[test]
    fn a_newer_release_that_waits_in_the_same_region_replaces_the_pause() {
        let open = [issue(4, &pause("v1", "eu"), "6.1")];
        assert_eq!(
            asked(&held(), &open),
            [Act::Close(4, Over::Replaced), Act::Open(pause("v2", "eu"))]
        );
        // Of what failed there nobody knows whether the older release has left.
        let failed = end(
            Verdict::Failed,
            Some("eu"),
            [State::Look, State::NotReached],
        );
        assert_eq!(asked(&failed, &open), [Act::Open(pause("v2", "eu"))]);
    }

    #[test]
    fn a_wait_before_all_regions_is_over_when_a_region_is_done() {
        let waits = end(Verdict::Pause, Some("preflight"), [State::NotReached; 2]);
        assert_eq!(asked(&waits, &[]), [Act::Open(pause("v2", "preflight"))]);
        let open = [issue(4, &pause("v2", "preflight"), "6.1")];
        let through = end(Verdict::Proceed, None, [State::Done; 2]);
        assert_eq!(asked(&through, &open), [Act::Close(4, Over::Done)]);
    }

    #[test]
    fn issues_of_others_are_left_alone() {
        let mut foreign = issue(1, &pause("v2", "eu"), "6.1");
        foreign.body = foreign.body.replace("product=shop ", "product=shop-two ");
        let unmarked = OpenIssue {
            number: 2,
            body: "the rollout is held in eu".to_owned(),
            comments: Vec::new(),
        };
        let through = end(Verdict::Proceed, None, [State::Done; 2]);
        assert_eq!(asked(&through, &[foreign, unmarked]), []);
    }

    #[test]
    fn every_verdict_either_waits_for_a_person_or_opens_nothing() {
        for verdict in Verdict::ALL {
            let ended = end(verdict, Some("eu"), [State::Look, State::NotReached]);
            assert_eq!(
                asked(&ended, &[]).len(),
                usize::from(needs_a_person(verdict))
            );
        }
        assert!(!needs_a_person(Verdict::RolledBack));
    }

    #[test]
    fn a_release_that_serves_and_is_not_closed_waits_for_a_person_whatever_the_word() {
        let there = end(
            Verdict::Invalid,
            Some("eu"),
            [State::Held, State::NotReached],
        );
        assert_eq!(asked(&there, &[]), [Act::Open(pause("v2", "eu"))]);
        let not_there = end(
            Verdict::Invalid,
            Some("eu"),
            [State::Stopped, State::NotReached],
        );
        assert_eq!(asked(&not_there, &[]), []);
    }

    #[test]
    fn a_marker_survives_any_name_and_stays_one_comment() {
        for name in ["v2", "a--b", "x --> y", "ä % %2d", "a\nb=c place=d"] {
            let pause = pause(name, "eu");
            let marker = pause.marker();
            assert_eq!(Pause::of_issue("shop", &marker), Some(pause), "{marker}");
            let inside = marker.trim_start_matches("<!--").trim_end_matches("-->");
            assert!(!inside.contains("--") && !inside.contains('\n'), "{marker}");
        }
    }
}
