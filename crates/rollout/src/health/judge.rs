//! From all endpoints to one ending. A failure stands before an error, an error before doubt, doubt before a pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::{Endpoint, Rule, Standing, Track};

/// Somebody who was asked, with what was seen of each endpoint.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub tracks: BTreeMap<Endpoint, Track>,
}

/// One observation.
#[derive(Clone, Copy, Debug)]
pub struct Looks<'a> {
    /// Hosts and URL of the region that is judged.
    pub region: &'a [Target],
    /// Hosts of regions that the release has not reached.
    pub untouched: &'a [Target],
    /// Dependencies that failed before the deploy.
    pub failed_before: &'a BTreeSet<String>,
    pub rule: &'a Rule,
}

/// How an observation ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With what a person should know.
    Proceed(Vec<Reason>),
    Pause(Vec<Reason>),
    RollBack(Vec<Reason>),
}

/// One thing that counts against going on, or is worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// For programs: `basic-failing`, `db-failing`, `lagging`, `dependencies-failing`, `external`, `not-measured`, ..
    pub word: &'static str,
    /// Empty when it is about several.
    pub target: String,
    pub text: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target.as_str() {
            "" => f.write_str(&self.text),
            target => write!(f, "`{target}`: {}", self.text),
        }
    }
}

/// What the looks so far decide; `None` while the observation has to go on.
pub fn judge(looks: &Looks<'_>, now: Duration) -> Option<Ending> {
    let bad = release_is_bad(looks, now);
    if !bad.is_empty() {
        return Some(Ending::RollBack(bad));
    }
    let over = now >= looks.rule.deadline();
    if !over && (now < looks.rule.at_least || has_open(looks, now)) {
        return None;
    }
    // In the order of how certain they are.
    let doubts: Vec<Reason> = [
        zero_looks(looks),
        not_measured(looks, now),
        never_settled(looks, now),
        database(looks, now),
        external(looks, now),
        several_releases(looks),
        if looks.rule.strict {
            degraded(looks)
        } else {
            Vec::new()
        },
    ]
    .concat();
    if doubts.is_empty() {
        Some(Ending::Proceed(degraded(looks)))
    } else {
        Some(Ending::Pause(doubts))
    }
}

fn failing_dependencies(targets: &[Target]) -> BTreeSet<String> {
    let tracks = targets.iter().flat_map(|target| target.tracks.values());
    tracks
        .flat_map(|track| track.failing().iter().cloned())
        .collect()
}

impl Looks<'_> {
    /// Dependencies that fail now or failed before without this release.
    fn external(&self) -> BTreeSet<String> {
        self.failed_before
            .union(&failing_dependencies(self.untouched))
            .cloned()
            .collect()
    }

    /// Dependencies that fail in the judged region.
    pub fn failing(&self) -> BTreeSet<String> {
        failing_dependencies(self.region)
    }

    fn tracks(&self) -> impl Iterator<Item = (&Target, Endpoint, &Track)> {
        self.region.iter().flat_map(|target| {
            target
                .tracks
                .iter()
                .map(move |(end, track)| (target, *end, track))
        })
    }
}

fn has_open(looks: &Looks<'_>, now: Duration) -> bool {
    let untouched = looks
        .untouched
        .iter()
        .flat_map(|target| target.tracks.values());
    looks
        .tracks()
        .map(|(_, _, track)| track)
        .chain(untouched)
        .any(|track| track.standing(now) == Standing::Open)
}

/// Failures that only this release explains.
fn release_is_bad(looks: &Looks<'_>, now: Duration) -> Vec<Reason> {
    looks
        .tracks()
        .filter_map(|(target, end, track)| condemned(looks, now, target, end, track))
        .collect()
}

fn condemned(
    looks: &Looks<'_>,
    now: Duration,
    target: &Target,
    end: Endpoint,
    track: &Track,
) -> Option<Reason> {
    let failed = matches!(track.standing(now), Standing::Failed | Standing::Flapping);
    let wrong_release = track.last().is_some_and(|looked| looked.wrong_release);
    let word = match end {
        Endpoint::Basic | Endpoint::Full if failed && wrong_release => "wrong-release",
        Endpoint::Basic if failed => "basic-failing",
        Endpoint::Full if failed && !is_external(looks, track) && compared(looks, now) => {
            match track.failing() {
                [] => "full-failing",
                _ => "dependencies-failing",
            }
        }
        Endpoint::Basic | Endpoint::Db | Endpoint::Full => return None,
    };
    Some(Reason {
        word,
        target: target.name.clone(),
        text: format!("/health/{}: {}", end.word(), track.why()),
    })
}

/// Without the dependencies that fail elsewhere or failed before, there would not be too many.
fn is_external(looks: &Looks<'_>, track: &Track) -> bool {
    let external = looks.external();
    let own = track
        .failing()
        .iter()
        .filter(|name| !external.contains(*name))
        .count();
    !track.failing().is_empty() && own <= looks.rule.max_failing_dependencies as usize
}

/// Whether the untouched regions have said what they can.
fn compared(looks: &Looks<'_>, now: Duration) -> bool {
    let mut tracks = looks
        .untouched
        .iter()
        .flat_map(|target| target.tracks.values());
    now >= looks.rule.deadline() || tracks.all(|track| track.standing(now) != Standing::Open)
}

fn zero_looks(looks: &Looks<'_>) -> Vec<Reason> {
    let none =
        looks.tracks().next().is_none() || looks.tracks().any(|(_, _, track)| track.looks() == 0);
    let reason = || Reason {
        word: "no-samples",
        target: String::new(),
        text: "nothing was measured".to_owned(),
    };
    none.then(reason).into_iter().collect()
}

fn not_measured(looks: &Looks<'_>, now: Duration) -> Vec<Reason> {
    with_standing(looks, now, Standing::NotMeasured, "not-measured")
}

fn never_settled(looks: &Looks<'_>, now: Duration) -> Vec<Reason> {
    let mut reasons = with_standing(looks, now, Standing::Open, "never-settled");
    for reason in &mut reasons {
        reason
            .text
            .push_str(" (neither good nor bad often enough in a row)");
    }
    reasons
}

fn database(looks: &Looks<'_>, now: Duration) -> Vec<Reason> {
    let of_db = |(_, end, _): &(&Target, Endpoint, &Track)| *end == Endpoint::Db;
    looks
        .tracks()
        .filter(of_db)
        .filter_map(|(target, end, track)| {
            let word = match track.standing(now) {
                Standing::LagTooLong => "lagging",
                Standing::Failed | Standing::Flapping => "db-failing",
                Standing::Open | Standing::Good | Standing::NotMeasured => return None,
            };
            Some(reason(word, target, end, track))
        })
        .collect()
}

fn external(looks: &Looks<'_>, now: Duration) -> Vec<Reason> {
    let condemned = looks.tracks().filter(|(_, end, track)| {
        let failed = matches!(track.standing(now), Standing::Failed | Standing::Flapping);
        *end == Endpoint::Full && failed && is_external(looks, track)
    });
    condemned
        .map(|(target, _, track)| {
            let known = looks.external();
            let (external, own): (Vec<&String>, Vec<&String>) = track
                .failing()
                .iter()
                .partition(|name| known.contains(*name));
            let listed = |names: &[&String]| {
                names
                    .iter()
                    .map(|name| name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let only = match own.is_empty() {
                true => String::new(),
                false => format!("; only here: {}", listed(&own)),
            };
            let text = format!(
                "/health/full: fail without this release too: {}{only}",
                listed(&external)
            );
            Reason {
                word: "external",
                target: target.name.clone(),
                text,
            }
        })
        .collect()
}

fn several_releases(looks: &Looks<'_>) -> Vec<Reason> {
    let releases: BTreeSet<&str> = looks
        .tracks()
        .filter_map(|(_, _, track)| track.last()?.release.as_deref())
        .collect();
    if releases.len() < 2 {
        return Vec::new();
    }
    let names: Vec<String> = releases.iter().map(|name| format!("`{name}`")).collect();
    let text = format!("several releases answer: {}", names.join(", "));
    vec![Reason {
        word: "releases-differ",
        target: String::new(),
        text,
    }]
}

/// One or two dependencies failing.
fn degraded(looks: &Looks<'_>) -> Vec<Reason> {
    let failing = looks
        .tracks()
        .filter(|(_, _, track)| !track.failing().is_empty());
    failing
        .map(|(target, _, track)| Reason {
            word: "degraded",
            target: target.name.clone(),
            text: format!("/health/full: fails: {}", track.failing().join(", ")),
        })
        .collect()
}

fn with_standing(
    looks: &Looks<'_>,
    now: Duration,
    standing: Standing,
    word: &'static str,
) -> Vec<Reason> {
    let those = looks
        .tracks()
        .filter(|(_, _, track)| track.standing(now) == standing);
    those
        .map(|(target, end, track)| reason(word, target, end, track))
        .collect()
}

fn reason(word: &'static str, target: &Target, end: Endpoint, track: &Track) -> Reason {
    Reason {
        word,
        target: target.name.clone(),
        text: format!("/health/{}: {}", end.word(), track.why()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::track::tests::{RULE, looked};
    use super::super::{Endpoint, Looked, Rule, Track};
    use super::{Ending, Looks, Target, judge};
    use crate::streak::Seen;

    fn good() -> Looked {
        Looked {
            release: Some("v2".to_owned()),
            ..looked(Seen::Good)
        }
    }

    fn bad() -> Looked {
        looked(Seen::Bad("status 500".to_owned()))
    }

    fn unmeasured() -> Looked {
        looked(Seen::Unmeasured(
            "no address for `eu.shop.example`".to_owned(),
        ))
    }

    fn failing(names: &[&str]) -> Looked {
        let failing: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let seen = if failing.len() > 2 {
            Seen::Bad(failing.join(", "))
        } else {
            Seen::Good
        };
        Looked {
            failing,
            ..looked(seen)
        }
    }

    /// A look a second.
    fn target(name: &str, rule: Rule, ends: &[(Endpoint, &[Looked])]) -> Target {
        let tracks = ends.iter().map(|(end, looks)| {
            let mut track = Track::new(rule);
            for (second, looked) in (0..).zip(*looks) {
                track.take(Duration::from_secs(second), looked.clone());
            }
            (*end, track)
        });
        Target {
            name: name.to_owned(),
            tracks: tracks.collect(),
        }
    }

    fn three(looked: fn() -> Looked) -> [Looked; 3] {
        [looked(), looked(), looked()]
    }

    fn healthy(name: &str) -> Target {
        let good = three(good);
        target(
            name,
            RULE,
            &[
                (Endpoint::Basic, &good),
                (Endpoint::Db, &good),
                (Endpoint::Full, &good),
            ],
        )
    }

    fn ending(
        region: &[Target],
        untouched: &[Target],
        before: &[&str],
        rule: Rule,
        now: Duration,
    ) -> String {
        let failed_before: BTreeSet<String> =
            before.iter().map(|name| (*name).to_owned()).collect();
        let looks = Looks {
            region,
            untouched,
            failed_before: &failed_before,
            rule: &rule,
        };
        let words = |reasons: &[super::Reason]| {
            reasons.iter().map(|r| r.word).collect::<Vec<_>>().join(" ")
        };
        match judge(&looks, now) {
            None => "-".to_owned(),
            Some(Ending::Proceed(reasons)) => {
                format!("proceed {}", words(&reasons)).trim().to_owned()
            }
            Some(Ending::Pause(reasons)) => format!("pause {}", words(&reasons)),
            Some(Ending::RollBack(reasons)) => format!("roll-back {}", words(&reasons)),
        }
    }

    fn of(region: &[Target]) -> String {
        ending(region, &[], &[], RULE, Duration::from_secs(2))
    }

    fn with_full(name: &str, looks: &[Looked]) -> Target {
        let mut target = healthy(name);
        target
            .tracks
            .extend(self::target(name, RULE, &[(Endpoint::Full, looks)]).tracks);
        target
    }

    #[test]
    fn all_good_proceeds_and_one_open_endpoint_waits() {
        assert_eq!(of(&[healthy("eu-1"), healthy("eu-2")]), "proceed");
        let young = target("eu-2", RULE, &[(Endpoint::Basic, &[good()])]);
        assert_eq!(of(&[healthy("eu-1"), young]), "-");
    }

    #[test]
    fn one_failing_host_condemns_the_release_at_once() {
        let broken = target(
            "eu-2",
            RULE,
            &[(Endpoint::Basic, &three(bad)), (Endpoint::Full, &[good()])],
        );
        assert_eq!(of(&[healthy("eu-1"), broken]), "roll-back basic-failing");
    }

    #[test]
    fn a_database_pauses_and_never_rolls_back() {
        let broken = target(
            "eu-1",
            RULE,
            &[(Endpoint::Basic, &three(good)), (Endpoint::Db, &three(bad))],
        );
        assert_eq!(of(&[broken]), "pause db-failing");
    }

    #[test]
    fn failure_stands_before_error_and_error_before_a_pass() {
        let blind: Vec<Looked> = (0..4).map(|_| unmeasured()).collect();
        let unseen = target("eu-2", RULE, &[(Endpoint::Basic, &blind)]);
        assert_eq!(of(&[healthy("eu-1"), unseen.clone()]), "pause not-measured");
        let broken = target("eu-1", RULE, &[(Endpoint::Basic, &three(bad))]);
        assert_eq!(of(&[broken, unseen]), "roll-back basic-failing");
    }

    #[test]
    fn nothing_measured_is_never_a_pass() {
        assert_eq!(
            ending(&[], &[], &[], RULE, RULE.deadline()),
            "pause no-samples"
        );
        let empty = target("eu-1", RULE, &[(Endpoint::Basic, &[])]);
        assert_eq!(
            ending(&[empty], &[], &[], RULE, RULE.deadline()),
            "pause no-samples never-settled"
        );
    }

    #[test]
    fn two_failing_dependencies_warn_and_three_condemn() {
        let two = with_full("eu-1", &three(|| failing(&["mail", "tax"])));
        assert_eq!(of(std::slice::from_ref(&two)), "proceed degraded");
        let strict = Rule {
            strict: true,
            ..RULE
        };
        assert_eq!(
            ending(&[two], &[], &[], strict, Duration::from_secs(2)),
            "pause degraded"
        );
        let three_failing = with_full("eu-1", &three(|| failing(&["mail", "search", "tax"])));
        assert_eq!(of(&[three_failing]), "roll-back dependencies-failing");
    }

    #[test]
    fn what_fails_elsewhere_or_failed_before_is_not_this_release() {
        let region = [with_full(
            "eu-1",
            &three(|| failing(&["mail", "search", "tax"])),
        )];
        let at = Duration::from_secs(2);
        assert_eq!(ending(&region, &[], &["mail"], RULE, at), "pause external");
        assert_eq!(
            ending(&region, &[], &["geocoder"], RULE, at),
            "roll-back dependencies-failing"
        );
        let same = with_full("us-1", &three(|| failing(&["mail", "tax", "search"])));
        assert_eq!(ending(&region, &[same], &[], RULE, at), "pause external");
        assert_eq!(
            ending(&region, &[healthy("us-1")], &[], RULE, at),
            "roll-back dependencies-failing"
        );
    }

    #[test]
    fn a_comparison_is_waited_for_and_does_not_hold_up_for_ever() {
        let region = [with_full(
            "eu-1",
            &three(|| failing(&["mail", "search", "tax"])),
        )];
        let silent = target("us-1", RULE, &[(Endpoint::Full, &[])]);
        let untouched = [silent];
        assert_eq!(
            ending(&region, &untouched, &[], RULE, Duration::from_secs(2)),
            "-"
        );
        assert_eq!(
            ending(&region, &untouched, &[], RULE, RULE.deadline()),
            "roll-back dependencies-failing"
        );
    }

    #[test]
    fn an_observation_lasts_at_least_as_long_as_asked() {
        let long = Rule {
            at_least: Duration::from_secs(30),
            ..RULE
        };
        let region = [healthy("eu-1")];
        assert_eq!(
            ending(&region, &[], &[], long, Duration::from_secs(29)),
            "-"
        );
        assert_eq!(
            ending(&region, &[], &[], long, Duration::from_secs(30)),
            "proceed"
        );
    }

    #[test]
    fn without_an_expected_release_the_hosts_must_agree() {
        let other = || Looked {
            release: Some("v1".to_owned()),
            ..good()
        };
        let old = target("eu-2", RULE, &[(Endpoint::Basic, &three(other))]);
        assert_eq!(of(&[healthy("eu-1"), old]), "pause releases-differ");
    }

    #[test]
    fn an_observation_that_never_settles_pauses_at_its_deadline() {
        let torn = target(
            "eu-1",
            RULE,
            &[(Endpoint::Basic, &[good(), good(), bad(), bad()])],
        );
        let region = [torn];
        assert_eq!(
            ending(
                &region,
                &[],
                &[],
                RULE,
                RULE.deadline() - Duration::from_millis(1)
            ),
            "-"
        );
        assert_eq!(
            ending(&region, &[], &[], RULE, RULE.deadline()),
            "pause never-settled"
        );
    }

    #[test]
    fn reasons_name_who_and_what() {
        let broken = target("eu-2", RULE, &[(Endpoint::Basic, &three(bad))]);
        let looks = Looks {
            region: &[broken],
            untouched: &[],
            failed_before: &BTreeSet::new(),
            rule: &RULE,
        };
        let Some(Ending::RollBack(reasons)) = judge(&looks, Duration::from_secs(2)) else {
            panic!("not condemned")
        };
        assert_eq!(reasons[0].to_string(), "`eu-2`: /health/basic: status 500");
        assert_eq!(looks.failing(), BTreeSet::new());
    }
}
