//! What a run did, for people, programs and workflows.

use regionwise_cli::{Because as _, Failure, Finding, Level, Report, Table};
use regionwise_mover::{Ended, Ends, How, Pause, journal};
use regionwise_postgres::Error;
use regionwise_relocation::closure::plan::Plan;
use regionwise_rollout::Verdict;
use regionwise_topology::Migration;
use serde_json::json;

use crate::clusters::{before, midway, session};
use crate::counts::{Counts, millis, per_second};
use crate::run::{Way, chosen};

/// The result of a run that ended by itself.
pub(crate) fn of(
    ended: &Ended,
    counts: &Counts,
    ends: &Ends,
    way: Way,
    signal: Option<Verdict>,
) -> Report {
    let moved = moved(ended, counts);
    let (from, to) = (&ends.source.cluster, &ends.target.cluster);
    let (verdict, reason, summary) = match &ended.how {
        How::Finished if ended.remaining.set_aside > 0 => (
            Verdict::Pause,
            Some("set-aside"),
            format!(
                "{moved} users moved from `{from}` to `{to}`; {} are set aside and stay.",
                ended.remaining.set_aside
            ),
        ),
        How::Finished => (
            Verdict::Proceed,
            None,
            format!("{moved} users moved from `{from}` to `{to}`, every row proven."),
        ),
        How::Rehearsed => rehearsed(ended, counts, to),
        How::NothingToDo => (
            Verdict::Proceed,
            None,
            format!("Nobody is left to move from `{from}` to `{to}`."),
        ),
        How::Mismatch(mismatch) => (
            Verdict::Pause,
            Some("mismatch"),
            format!("Not equal: {mismatch}. The user works on at `{from}`; {moved} others moved."),
        ),
        How::Paused(why) => (
            Verdict::Pause,
            Some("paused"),
            format!("The run is paused: {why}. {moved} users moved."),
        ),
        How::Stopped => (
            signal.unwrap_or(Verdict::Terminated),
            None,
            format!(
                "Stopped at a safe point: {moved} users moved, {} wait.",
                ended.remaining.users
            ),
        ),
        How::OutOfTime => (
            Verdict::Pause,
            Some("out-of-time"),
            format!(
                "The time is over: {moved} users moved, {} wait.",
                ended.remaining.users
            ),
        ),
        How::Locked(run) => (
            Verdict::Locked,
            Some("other-plan"),
            format!("Run {run} of another plan is under way."),
        ),
        How::OtherShape(why) => (Verdict::Refused, Some("not-installed"), why.clone()),
    };
    let mut report = Report::new(verdict, summary);
    report.reason = reason.map(str::to_owned);
    let verb = match way {
        Way::There => "run",
        Way::Back => "revert",
    };
    match &ended.how {
        How::Finished | How::NothingToDo | How::Rehearsed => {
            if way == Way::There && !matches!(ended.how, How::Rehearsed) {
                report.hints.push("migrate-eu-users verify".to_owned());
            }
        }
        How::Paused(Pause::OtherSchema(_)) => {
            report.hints.push("migrate-eu-users install".to_owned());
            report
                .hints
                .push("migrate-eu-users plan: its hash is another one now".to_owned());
            report.hints.push(format!(
                "migrate-eu-users {verb} --plan HASH, with that hash: it takes over whom this run has begun"
            ));
        }
        How::Paused(Pause::Outpaced { .. }) => report.hints.push(format!(
            "the same `{verb}` again goes on: with more --lanes, or in a quieter hour"
        )),
        How::Mismatch(_) | How::Paused(Pause::Noted(_)) => {
            report
                .hints
                .push("migrate-eu-users status shows what is set aside".to_owned());
            report.hints.push(format!(
                "the same `{verb}` again, once the cause is found, goes on with those users"
            ));
        }
        How::Stopped | How::OutOfTime => report
            .hints
            .push(format!("the same `{verb}` again goes on, from any machine")),
        How::Locked(_) => report
            .hints
            .push("migrate-eu-users status shows who works on it; stop that run first".to_owned()),
        How::OtherShape(_) => report.hints.push("migrate-eu-users install".to_owned()),
    }
    for (state, users) in &counts.not_rehearsed {
        report.findings.push(Finding {
            level: Level::Warning,
            text: format!("{users} not rehearsed: `{to}` has a route of theirs already, `{state}`"),
        });
    }
    fill(&mut report, ended, counts);
    report
}

/// Ends as the run itself would; nothing is said of users whom it left out.
fn rehearsed(ended: &Ended, counts: &Counts, to: &str) -> (Verdict, Option<&'static str>, String) {
    let proven = format!(
        "{} rows were copied to `{to}`, proven and taken back; nobody moved",
        counts.rows
    );
    let left_out: usize = counts.not_rehearsed.values().sum();
    if ended.remaining.set_aside > 0 {
        let text = format!(
            "{proven}. {} users would be set aside.",
            ended.remaining.set_aside
        );
        return (Verdict::Pause, Some("set-aside"), text);
    }
    match (left_out, counts.rows) {
        (0, _) => (Verdict::Proceed, None, format!("{proven}.")),
        (_, 0) => {
            let text = format!("Nobody was rehearsed: {left_out} users are left out.");
            (Verdict::Pause, Some("not-rehearsed"), text)
        }
        (_, _) => {
            let text = format!("{proven}. {left_out} users were not rehearsed.");
            (Verdict::Proceed, None, text)
        }
    }
}

/// As the journal has it, and how many of them are this runner's: others share the run, and of a user whose answer was
/// lost only the journal knows.
fn moved(ended: &Ended, counts: &Counts) -> String {
    let all = ended.remaining.moved;
    if i64::try_from(counts.moved) == Ok(all) {
        return all.to_string();
    }
    format!("{all} ({} by this runner)", counts.moved)
}

fn fill(report: &mut Report, ended: &Ended, counts: &Counts) {
    let took = counts.took();
    let stall = |quantile: f64| counts.stalls.value_at_quantile(quantile);
    report.outputs.push(("run", ended.run.clone()));
    report
        .outputs
        .push(("moved", ended.remaining.moved.to_string()));
    report
        .outputs
        .push(("waiting", ended.remaining.users.to_string()));
    report
        .outputs
        .push(("set_aside", ended.remaining.set_aside.to_string()));
    for (reason, users) in &counts.set_aside {
        report.findings.push(Finding {
            level: Level::Warning,
            text: format!("{users} set aside: {reason}"),
        });
    }
    if let Some(reason) = &counts.waited_for {
        report.findings.push(Finding {
            level: Level::Notice,
            text: format!("the run waited, the last time because {reason}"),
        });
    }
    report.result = json!({
        "run": ended.run,
        "moved": ended.remaining.moved,
        "moved_here": counts.moved,
        "rows": counts.rows,
        "bytes": counts.bytes,
        "waiting": ended.remaining.users,
        "set_aside": ended.remaining.set_aside,
        "not_rehearsed": counts.not_rehearsed.values().sum::<usize>(),
        "came_again": counts.again,
        "taken_over": counts.taken_over,
        "reconnected": counts.reconnects,
        "waited_for": counts.waited_for,
        "seconds": took.as_secs_f64(),
        "users_per_second": per_second(counts.moved, took),
        "rows_per_second": per_second(counts.rows, took),
        "stall_us": {
            "p50": stall(0.5), "p99": stall(0.99), "max": counts.stalls.max(), "samples": counts.stalls.len(),
        },
        "mismatch": match &ended.how { How::Mismatch(mismatch) => Some(mismatch), _ => None },
        "timeline": counts.seconds.iter().map(|second| json!({
            "moved": second.moved, "longest_stall_us": u64::try_from(second.longest.as_micros()).unwrap_or(u64::MAX),
        })).collect::<Vec<_>>(),
    });
    if counts.moved == 0 {
        return;
    }
    report.tables.push(Table {
        header: vec![
            "users",
            "rows",
            "seconds",
            "users/s",
            "rows/s",
            "stall p50",
            "p99",
            "max",
        ],
        rows: vec![vec![
            counts.moved.to_string(),
            counts.rows.to_string(),
            format!("{:.1}", took.as_secs_f64()),
            per_second(counts.moved, took).to_string(),
            per_second(counts.rows, took).to_string(),
            millis(stall(0.5)),
            millis(stall(0.99)),
            millis(counts.stalls.max()),
        ]],
    });
    report.tables.push(timeline(counts));
}

/// Throughput and stalls over time, at most twenty lines.
fn timeline(counts: &Counts) -> Table {
    const LINES: usize = 20;
    const WIDTH: u64 = 40;
    let step = counts.seconds.len().div_ceil(LINES).max(1);
    let lines: Vec<(usize, u64, u64)> = counts
        .seconds
        .chunks(step)
        .enumerate()
        .map(|(line, seconds)| {
            let moved = seconds.iter().map(|second| second.moved).sum();
            let longest = seconds.iter().map(|second| second.longest).max();
            let longest = longest.map_or(0, |longest| {
                u64::try_from(longest.as_micros()).unwrap_or(u64::MAX)
            });
            (line * step, moved, longest)
        })
        .collect();
    let most = lines.iter().map(|(_, moved, _)| *moved).max().unwrap_or(0);
    Table {
        header: vec!["second", "users", "", "longest stall"],
        rows: lines
            .iter()
            .map(|(second, moved, longest)| {
                let width = usize::try_from(moved * WIDTH / most.max(1)).unwrap_or(0);
                vec![
                    second.to_string(),
                    moved.to_string(),
                    "█".repeat(width),
                    millis(*longest),
                ]
            })
            .collect(),
    }
}

/// What `run` would do.
pub(crate) async fn dry_run(
    plan: &Plan,
    ends: &Ends,
    migration: &Migration,
    way: Way,
) -> Result<Report, Failure> {
    let (from, to) = match way {
        Way::There => (&ends.source, &ends.target),
        Way::Back => (&ends.target, &ends.source),
    };
    let mut source = session(from).await?;
    let sql = journal::waiting(&plan.found.closure, &chosen(migration, way));
    let row = source.row(&sql).await.map_err(|error| {
        before(error, || {
            format!("cannot count who waits at cluster `{}`", from.cluster)
        })
    })?;
    let users: u64 = row
        .parse("count")
        .because(Verdict::Failed, || "cannot read a count".to_owned())?;
    let text = format!(
        "{users} users would move from `{}` to `{}`; nothing was changed.",
        from.cluster, to.cluster
    );
    let mut report = Report::new(Verdict::Proceed, text);
    report.outputs.push(("users", users.to_string()));
    report.result = json!({ "users": users, "plan": plan.hash.as_str() });
    Ok(report)
}

/// A cluster that could not be reached any more, or said what nobody expected. What moved by then stays moved.
pub(crate) fn lost(error: Error) -> Failure {
    midway(error, || "cannot go on with the run".to_owned()).with_hint(
        "the same command again goes on, from any machine; migrate-eu-users status shows how far it is",
    )
}
