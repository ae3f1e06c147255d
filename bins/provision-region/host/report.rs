//! From what was seen on the server to the report. Pure.

use regionwise_cli::{Finding, Level, Report, Table};
use regionwise_provision::said::State;
use regionwise_provision::script::GUARD_SECONDS;
use regionwise_provision::step::Step;
use regionwise_rollout::Verdict;
use regionwise_topology::{Host, Region};
use serde_json::json;

use crate::apply::{Applied, Ending, Seen, meaning};

const AGAIN: &str = "run the same command again: it goes on where this one stopped";

pub(super) fn of(
    applied: &Applied,
    steps: &[Step],
    region: &Region,
    host: &Host,
    dry_run: bool,
) -> Report {
    let count = |state| {
        applied
            .steps
            .iter()
            .filter(|seen| seen.state == state)
            .count()
    };
    let (changed, would) = (count(State::Changed), count(State::Would));
    let mut report = verdict(applied, steps, &host.name, dry_run).in_region(&region.name);
    if matches!(applied.ending, Ending::Done) && !dry_run {
        report
            .hints
            .push("preflight --release RELEASE.toml".to_owned());
        report.hints.push(format!(
            "deploy-region --region {} --release RELEASE.toml --operation ID",
            region.name
        ));
    }
    let reason_of = |seen: &Seen| {
        let step = steps.iter().find(|step| step.name == seen.name);
        step.map_or("", |step| step.reason)
    };
    report.result = json!({
        "host": host.name,
        "address": host.address,
        "changed": changed > 0,
        "would_change": would,
        "steps": applied.steps.iter().map(|seen| json!({
            "step": seen.name,
            "state": seen.state.word(),
            "why": reason_of(seen),
        })).collect::<Vec<_>>(),
    });
    let rows = applied.steps.iter().filter(|seen| seen.state != State::Ok);
    report.tables.push(Table {
        header: vec!["step", "state", "why"],
        rows: rows
            .map(|seen| {
                vec![
                    seen.name.clone(),
                    seen.state.word().to_owned(),
                    reason_of(seen).to_owned(),
                ]
            })
            .collect(),
    });
    report
        .findings
        .extend(applied.notes.iter().map(|note| Finding {
            level: Level::Notice,
            text: note.clone(),
        }));
    report.outputs.push(("changed", (changed > 0).to_string()));
    report
}

fn verdict(applied: &Applied, steps: &[Step], host: &str, dry_run: bool) -> Report {
    let count = |state| {
        applied
            .steps
            .iter()
            .filter(|seen| seen.state == state)
            .count()
    };
    let changed = count(State::Changed);
    match &applied.ending {
        Ending::Done if dry_run => match count(State::Would) {
            0 => Report::new(Verdict::Proceed, format!("Nothing would change on `{host}`: it is a region host.")),
            would => Report::new(Verdict::Proceed, format!("{would} steps would change `{host}`; nothing was changed.")),
        },
        Ending::Done if changed == 0 => {
            Report::new(Verdict::Proceed, format!("`{host}` is a region host; nothing had to change."))
        }
        Ending::Done => Report::new(Verdict::Proceed, format!("`{host}` is a region host; {changed} steps changed it.")),
        Ending::Failed => failed(applied, steps, host),
        Ending::Locked => Report::new(Verdict::Locked, format!("Another run is setting `{host}` up."))
            .because("another-run")
            .with_hint("wait for its end, and run this again"),
        Ending::Pending => Report::new(
            Verdict::Locked,
            format!("An earlier run changed firewall or sshd of `{host}`, and nobody has confirmed it yet."),
        )
        .because("unconfirmed-change")
        .with_hint(format!("the server undoes it within {GUARD_SECONDS} s; run this again then")),
        Ending::Reverted(why) => Report::new(
            Verdict::RolledBack,
            format!("Nobody could log in to `{host}` after firewall and sshd changed: {why}. The server has undone both."),
        )
        .because("locked-out")
        .with_hint("check that the way to the server's ssh port is the one of regions.toml")
        .with_hint(AGAIN),
        Ending::Unconfirmed(why) => Report::new(
            Verdict::Unknown,
            format!("Nobody could log in to `{host}` after firewall and sshd changed, and the server was not seen again: {why}"),
        )
        .because("not-seen-again")
        .with_hint(format!("it undoes both {GUARD_SECONDS} s after the change; look from its console whether it did"))
        .with_hint(AGAIN),
        Ending::Lost(why) => Report::new(Verdict::Unknown, format!("Contact with `{host}` was lost on the way: {why}"))
            .because("contact-lost")
            .with_hint(AGAIN),
        Ending::NotOpened(error) => {
            let (verdict, hint) = meaning(error);
            Report::new(verdict, format!("Cannot log in to `{host}` as root: {error}")).with_hint(hint)
        }
        Ending::Stopped(verdict) => Report::new(
            *verdict,
            format!("Stopped by a signal; the step under way on `{host}` may be done in part."),
        )
        .with_hint(AGAIN),
    }
}

fn failed(applied: &Applied, steps: &[Step], host: &str) -> Report {
    let Some(seen) = applied
        .steps
        .iter()
        .find(|seen| seen.state == State::Failed)
    else {
        return Report::new(
            Verdict::Unknown,
            format!("A step failed on `{host}` and did not say which."),
        );
    };
    // A server of another kind is nothing that a second try mends.
    let verdict = if seen.name == "system" {
        Verdict::Refused
    } else {
        Verdict::Pause
    };
    let step = steps.iter().find(|step| step.name == seen.name);
    let mut report = Report::new(
        verdict,
        format!("Step `{}` failed on `{host}`: {}", seen.name, seen.text),
    );
    report.reason = Some(format!("step-{}", seen.name));
    report.findings.push(Finding {
        level: Level::Error,
        text: format!(
            "step `{}` ({}): {}",
            seen.name,
            step.map_or("", |step| step.reason),
            seen.text
        ),
    });
    if verdict == Verdict::Pause {
        report.hints.push(AGAIN.to_owned());
    }
    report
}

#[cfg(test)]
mod tests {
    use regionwise_provision::host::{self, Server, System};
    use regionwise_topology::Topology;

    use super::*;

    fn report(ending: Ending, seen: &[(&str, State)], dry_run: bool) -> Report {
        let text = include_str!("../../../examples/one-server.toml");
        let topology = Topology::parse("regions.toml", text).unwrap();
        let region = &topology.regions[0];
        let steps = seen.iter().map(|(name, state)| Seen {
            name: (*name).to_owned(),
            state: *state,
            text: "as it said".to_owned(),
        });
        let applied = Applied {
            steps: steps.collect(),
            ..Applied::ended(ending)
        };
        let known = host::steps(&Server::bare(System {
            ssh_port: 22,
            open: Vec::new(),
        }));
        of(&applied, &known, region, &region.hosts[0], dry_run)
    }

    #[test]
    fn every_ending_has_its_verdict() {
        let why = || "no route".to_owned();
        for (ending, verdict) in [
            (Ending::Done, Verdict::Proceed),
            (Ending::Locked, Verdict::Locked),
            (Ending::Pending, Verdict::Locked),
            (Ending::Reverted(why()), Verdict::RolledBack),
            (Ending::Unconfirmed(why()), Verdict::Unknown),
            (Ending::Lost(why()), Verdict::Unknown),
            (Ending::Stopped(Verdict::Terminated), Verdict::Terminated),
            // It names no step, so nobody knows what is true.
            (Ending::Failed, Verdict::Unknown),
        ] {
            assert_eq!(report(ending, &[], false).verdict, verdict);
        }
    }

    #[test]
    fn a_failed_step_says_what_and_why_and_only_a_foreign_system_is_refused() {
        let failed = report(Ending::Failed, &[("packages", State::Failed)], false);
        assert_eq!(failed.verdict, Verdict::Pause);
        assert_eq!(failed.reason.as_deref(), Some("step-packages"));
        assert!(failed.summary.ends_with("as it said"), "{}", failed.summary);
        assert!(
            failed.findings[0]
                .text
                .contains("they keep the server safe"),
            "{}",
            failed.findings[0].text
        );
        let refused = report(Ending::Failed, &[("system", State::Failed)], false);
        assert_eq!(refused.verdict, Verdict::Refused);
    }

    #[test]
    fn changed_is_what_changed_and_a_dry_run_claims_nothing() {
        let seen = [("system", State::Ok), ("packages", State::Changed)];
        let made = report(Ending::Done, &seen, false);
        assert_eq!(made.result["changed"], true);
        assert!(
            made.hints
                .iter()
                .any(|hint| hint.starts_with("deploy-region --region home"))
        );
        assert_eq!(
            report(Ending::Done, &seen[..1], false).result["changed"],
            false
        );
        let dry = report(Ending::Done, &[("packages", State::Would)], true);
        assert_eq!(
            (&dry.result["changed"], &dry.result["would_change"]),
            (&false.into(), &1.into())
        );
        assert!(
            dry.summary.ends_with("nothing was changed."),
            "{}",
            dry.summary
        );
        assert!(dry.hints.is_empty());
    }
}
