//! What preflight found, and what that means for the rollout. Pure.

use regionwise_cli::{Finding, Level, Report, Table};
use regionwise_controller::Release;
use regionwise_rollout::Verdict;
use regionwise_topology::{OnFailure, Region, Topology};
use serde::Serialize;
use serde_json::json;

/// One thing in the way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    /// Region or cluster.
    pub(crate) place: String,
    /// Host or database node.
    pub(crate) part: String,
    /// The verdict of a rollout that would run into it: `invalid`, `refused` or `pause`.
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
    pub(crate) hint: Option<String>,
}

/// A gate ends only 0, 2, 10 or 12: what a deploy would call unreachable, unknown or locked holds the rollout here.
pub(crate) fn as_gate(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Invalid | Verdict::Refused => verdict,
        Verdict::Proceed
        | Verdict::Failed
        | Verdict::Pause
        | Verdict::RollBack
        | Verdict::RolledBack
        | Verdict::Mixed
        | Verdict::Unreachable
        | Verdict::Unknown
        | Verdict::Locked
        | Verdict::Interrupted
        | Verdict::Terminated => Verdict::Pause,
    }
}

/// Refused before invalid before pause: what nobody may do is said first.
pub(crate) fn verdict(found: &[Found]) -> Verdict {
    [Verdict::Refused, Verdict::Invalid, Verdict::Pause]
        .into_iter()
        .find(|verdict| found.iter().any(|found| found.verdict == *verdict))
        .unwrap_or(Verdict::Proceed)
}

pub(crate) fn report(
    found: &[Found],
    topology: &Topology,
    regions: &[&Region],
    release: Option<&Release>,
    clusters: usize,
) -> Report {
    let verdict = verdict(found);
    let hosts: usize = regions.iter().map(|region| region.hosts.len()).sum();
    let looked = format!(
        "{} regions, {hosts} hosts, {clusters} clusters",
        regions.len()
    );
    let subject = release.map_or("a rollout".to_owned(), |release| {
        format!("`{}`", release.manifest.name)
    });
    let summary = match found.len() {
        0 => format!("{subject} can start: {looked}, nothing in the way"),
        count => format!("{subject} cannot start: {count} obstacles in {looked}"),
    };
    let mut report = Report::new(verdict, summary).because(if found.is_empty() {
        "clear"
    } else {
        "obstacles"
    });
    report.tables.push(Table {
        header: vec!["where", "part", "verdict", "obstacle"],
        rows: found
            .iter()
            .map(|f| {
                vec![
                    f.place.clone(),
                    f.part.clone(),
                    f.verdict.to_string(),
                    f.text.clone(),
                ]
            })
            .collect(),
    });
    let level = |found: &Found| {
        if found.verdict == Verdict::Pause {
            Level::Warning
        } else {
            Level::Error
        }
    };
    report.findings.extend(found.iter().map(|found| Finding {
        level: level(found),
        text: format!("{} {}: {}", found.place, found.part, found.text),
    }));
    for hint in found.iter().filter_map(|found| found.hint.as_ref()) {
        if !report.hints.contains(hint) {
            report.hints.push(hint.clone());
        }
    }
    report.result = json!({
        "release": release.map(|release| &release.manifest),
        "regions": regions.iter().map(|region| &region.name).collect::<Vec<_>>(),
        "obstacles": found,
    });
    report.outputs = outputs(found, topology, regions, release);
    report
}

/// What a script needs to lead the rollout, in the order of the rollout.
fn outputs(
    found: &[Found],
    topology: &Topology,
    regions: &[&Region],
    release: Option<&Release>,
) -> Vec<(&'static str, String)> {
    let on_failure = match topology.rollout.on_failure {
        OnFailure::Region => "region",
        OnFailure::All => "all",
        OnFailure::None => "none",
    };
    let names: Vec<&str> = regions.iter().map(|region| region.name.as_str()).collect();
    let urls: Vec<&str> = regions
        .iter()
        .map(|region| region.url.as_str().trim_end_matches('/'))
        .collect();
    vec![
        ("obstacles", found.len().to_string()),
        (
            "release",
            release.map_or_else(String::new, |release| release.manifest.name.clone()),
        ),
        ("regions", names.join(" ")),
        ("urls", urls.join(" ")),
        ("soak_seconds", topology.rollout.soak.as_secs().to_string()),
        ("on_failure", on_failure.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use regionwise_rollout::Verdict;

    use super::{Found, as_gate, verdict};

    fn found(verdict: Verdict) -> Found {
        Found {
            place: "eu".into(),
            part: "eu-1".into(),
            verdict,
            text: String::new(),
            hint: None,
        }
    }

    #[test]
    fn a_gate_never_ends_in_a_verdict_of_binaries_that_act() {
        for verdict in Verdict::ALL {
            let gate = as_gate(verdict);
            assert!(
                matches!(gate, Verdict::Invalid | Verdict::Refused | Verdict::Pause),
                "{verdict} became {gate}"
            );
        }
    }

    #[test]
    fn the_strictest_obstacle_decides_and_none_means_proceed() {
        assert_eq!(verdict(&[]), Verdict::Proceed);
        assert_eq!(verdict(&[found(Verdict::Pause)]), Verdict::Pause);
        assert_eq!(
            verdict(&[found(Verdict::Pause), found(Verdict::Refused)]),
            Verdict::Refused
        );
        assert_eq!(
            verdict(&[found(Verdict::Invalid), found(Verdict::Pause)]),
            Verdict::Invalid
        );
    }
}
