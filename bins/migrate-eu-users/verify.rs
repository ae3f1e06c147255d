//! `verify`: proves again that everything moved so far is complete and equal, from any machine, without a right to write.

use std::fs;
use std::path::PathBuf;

use regionwise_cli::{Because as _, Common, Context, Failure, Finding, Level, Report, Table};
use regionwise_mover::{Check, Ends, Only, Verified, verify};
use regionwise_relocation::closure::Closure;
use regionwise_rollout::Verdict;
use serde_json::{Value, json};

use crate::clusters::{self, Access, Account, before};
use crate::plan::{self, Counted};

/// So many users are named in the report for people; the one for programs has all.
const NAMED: usize = 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    access: Access,

    /// Look only at what failed in this report of an earlier `verify --format json`: its users, and the counts of tables.
    #[arg(long, env = "REGIONWISE_ONLY", value_name = "REPORT")]
    only: Option<PathBuf>,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let migration = clusters::migration(&topology)?;
    let only = args.only.as_ref().map(failed_before).transpose()?;
    let ends = clusters::ends(common, context, migration, Account::Verify, &args.access)?;
    let plan = match plan::observe(&ends, migration, Counted::No).await? {
        Ok(observed) => observed.plan,
        Err(refused) => return Ok(plan::refusal(&refused)),
    };
    let closure: Closure = plan.found.closure;
    let work = context.progress.work("users proven", 0);
    let check = Check {
        ends: ends.clone(),
        shape: plan.source.as_str().to_owned(),
        closure,
        only,
    };
    let verified = Box::pin(verify(&check, |done| work.set(done, ""))).await;
    drop(work);
    let verified =
        verified.map_err(|error| before(error, || "cannot verify what moved".to_owned()))?;
    Ok(report(&verified, &ends, check.only.is_some()))
}

/// What stands in a report as wrong. A report that failed and names nothing to look at again is refused: looking at nobody
/// would prove nothing.
fn failed_before(path: &PathBuf) -> Result<Only, Failure> {
    let what = || format!("cannot use the report {}", path.display());
    let text = fs::read_to_string(path).invalid(what)?;
    let document: Value = serde_json::from_str(&text).invalid(what)?;
    let result = &document["result"];
    let (Some(wrong), Some(two_homes), Some(selections), Some(complete), Some(equal)) = (
        result["wrong"].as_array(),
        result["two_homes"].as_array(),
        result["selections"].as_array(),
        result["complete"].as_bool(),
        result["equal"].as_bool(),
    ) else {
        return Err(Failure::invalid(format!(
            "{} is no report of `migrate-eu-users verify --format json`",
            path.display()
        )));
    };
    let mut users: Vec<String> = wrong
        .iter()
        .map(|one| &one["user"])
        .chain(two_homes)
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    users.sort();
    users.dedup();
    let only = Only {
        users,
        selections: selections.iter().any(|one| one["climbed"] != one["found"]),
    };
    if !(complete && equal) && only.users.is_empty() && !only.selections {
        return Err(Failure::invalid(format!(
            "{} failed as a whole and names no user to look at again",
            path.display()
        ))
        .with_hint("migrate-eu-users verify, without --only"));
    }
    Ok(only)
}

fn report(verified: &Verified, ends: &Ends, only: bool) -> Report {
    let (complete, equal) = (verified.is_complete(), verified.is_equal());
    let touched = verified.touched.len();
    let (verdict, reason) = match (complete, equal) {
        (true, true) => (Verdict::Proceed, None),
        (false, _) => (Verdict::Pause, Some("incomplete")),
        (true, false) => (Verdict::Pause, Some("not-equal")),
    };
    let wrong = verified.wrong.len() + verified.two_homes.len();
    let who = if only {
        "of these users"
    } else {
        "users who moved"
    };
    let mut summary = format!(
        "{} {who}: {} verified with {} rows, {touched} have written since, {} purged, {wrong} wrong.",
        verified.users, verified.equal, verified.rows, verified.purged
    );
    if verified.not_moved > 0 {
        let home = format!(
            " {} are at home in one cluster, and the source has not given them away.",
            verified.not_moved
        );
        summary.push_str(&home);
    }
    if let Some(why) = &verified.other_shape {
        summary.clone_from(why);
    }
    let mut report = Report::new(verdict, summary);
    report.reason = reason.map(str::to_owned);
    findings(&mut report, verified, ends);
    if touched > 0 {
        report.tables.push(touched_table(verified));
    }
    if verified.other_shape.is_some() {
        report.hints.push("migrate-eu-users install".to_owned());
    } else if verdict != Verdict::Proceed {
        report
            .hints
            .push("migrate-eu-users verify --only REPORT looks at these users again".to_owned());
    }
    for (name, value) in [
        ("complete", complete.to_string()),
        ("equal", equal.to_string()),
        ("users", verified.users.to_string()),
        ("verified", verified.equal.to_string()),
        ("touched", touched.to_string()),
        ("purged", verified.purged.to_string()),
        ("wrong", wrong.to_string()),
    ] {
        report.outputs.push((name, value));
    }
    report.result = json!({
        "complete": complete,
        "equal": equal,
        "users": verified.users,
        "verified": verified.equal,
        "rows": verified.rows,
        "purged": verified.purged,
        "not_moved": verified.not_moved,
        "touched": verified.touched.iter()
            .map(|(user, rows)| json!({ "user": user, "rows": rows })).collect::<Vec<_>>(),
        "wrong": verified.wrong.iter()
            .map(|(user, wrong)| json!({ "user": user, "what": wrong, "text": wrong.to_string() }))
            .collect::<Vec<_>>(),
        "two_homes": verified.two_homes,
        "selections": verified.selections,
        "strangers": verified.strangers,
    });
    report
}

fn findings(report: &mut Report, verified: &Verified, ends: &Ends) {
    let error = |text: String| Finding {
        level: Level::Error,
        text,
    };
    let (from, to) = (&ends.source.cluster, &ends.target.cluster);
    let wrong = verified.wrong.iter();
    report.findings.extend(
        wrong
            .take(NAMED)
            .map(|(user, wrong)| error(format!("user {user}: {wrong}"))),
    );
    let two_homes = verified.two_homes.iter();
    report.findings.extend(two_homes.take(NAMED).map(|user| {
        error(format!(
            "user {user} is at home in both `{from}` and `{to}`"
        ))
    }));
    let more =
        verified.wrong.len().saturating_sub(NAMED) + verified.two_homes.len().saturating_sub(NAMED);
    if more > 0 {
        report
            .findings
            .push(error(format!("{more} more users are wrong")));
    }
    let disagree = verified.selections.iter().filter(|one| !one.agrees());
    report.findings.extend(disagree.map(|one| {
        error(format!(
            "{} has {} rows in `{from}` that belong to users who moved, and the way from those users finds {}",
            one.table, one.climbed, one.found
        ))
    }));
    report
        .findings
        .extend(verified.strangers.iter().map(|one| Finding {
            level: Level::Warning,
            text: format!(
                "{} rows of {} in `{}` are of users who are not at home there: {}",
                one.rows, one.table, one.cluster, one.state
            ),
        }));
}

fn touched_table(verified: &Verified) -> Table {
    let mut rows: Vec<Vec<String>> = verified
        .touched
        .iter()
        .take(NAMED)
        .map(|(user, rows)| vec![user.clone(), format!("touched: {rows} rows not comparable")])
        .collect();
    let more = verified.touched.len().saturating_sub(NAMED);
    if more > 0 {
        rows.push(vec!["..".to_owned(), format!("{more} more users")]);
    }
    Table {
        header: vec!["user", "written since"],
        rows,
    }
}
