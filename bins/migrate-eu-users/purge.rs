//! `purge`: deletes at the source exactly the rows that are proven at the target, and says where their bytes still are.
//!
//! The plan's hash is the approval; there is no question on the way. What is deleted is not there to be moved back.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use regionwise_cli::{
    Because as _, Common, Context, Failure, Finding, Level, Report, Table, duration,
};
use regionwise_mover::{Ending, Ends, Erased, Erasure, Evidence, Hold, Step, purge};
use regionwise_rollout::Verdict;
use regionwise_topology::{Migration, Topology};
use serde_json::json;
use tokio::sync::watch;

use crate::clusters::{self, Access, Account};
use crate::plan::{self, Counted};
use crate::report::lost;
use crate::run::unapproved;

/// So many users are named in the report for people; the one for programs has all.
const NAMED: usize = 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    access: Access,

    /// The hash that `plan` showed: its first 16 digits, or more. It is the approval.
    #[arg(long, env = "REGIONWISE_PLAN", value_name = "HASH")]
    plan: String,

    /// Watch for stale writers this long before the first delete; not less than `migration.route_cache_ttl`, which it is
    /// when left out.
    #[arg(long, env = "REGIONWISE_GRACE", value_name = "DURATION", value_parser = duration)]
    grace: Option<Duration>,

    /// A file with users whose rows must stay, one key per line.
    #[arg(long, env = "REGIONWISE_HOLD", value_name = "FILE")]
    hold: Option<PathBuf>,

    /// Write no more WAL than this, in MB per second.
    #[arg(long, env = "REGIONWISE_WAL_RATE", value_name = "MB",
          value_parser = clap::value_parser!(u64).range(1..))]
    wal_rate: Option<u64>,

    /// Say whose rows would go, change nothing.
    #[arg(long, env = "REGIONWISE_DRY_RUN")]
    dry_run: bool,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let migration = clusters::migration(&topology)?;
    let grace = grace(args, migration)?;
    let held = args
        .hold
        .as_ref()
        .map_or_else(|| Ok(HashSet::new()), held)?;
    let hold = Hold::parse(
        context.variable("REGIONWISE_HOLD_AT"),
        context.variable("REGIONWISE_HOLD_FILE"),
    )
    .invalid(|| "cannot use REGIONWISE_HOLD_AT".to_owned())?;
    let ends = clusters::ends(common, context, migration, Account::Move, &args.access)?;
    let plan = match plan::observe(&ends, migration, Counted::No).await? {
        Ok(observed) => observed.plan,
        Err(refused) => return Ok(plan::refusal(&refused)),
    };
    if let Some(report) = unapproved(&plan, &args.plan) {
        return Ok(report);
    }
    if !plan.refused.is_empty() {
        return Ok(plan::refusal(&plan.refused));
    }
    let task = Erasure {
        ends: ends.clone(),
        shape: plan.source.as_str().to_owned(),
        found: plan.found,
        grace,
        held,
        wal_rate: args.wal_rate.map(|rate| rate.saturating_mul(1_000_000)),
        standbys: [&migration.from, &migration.to].map(|name| has_standby(&topology, name)),
        dry_run: args.dry_run,
        hold,
    };
    let erased = carry_out(task, context).await?;
    Ok(report(&erased, &ends, context.signals.now()))
}

fn grace(args: &Args, migration: &Migration) -> Result<Duration, Failure> {
    let least = migration.route_cache_ttl;
    match args.grace {
        Some(grace) if grace < least => Err(Failure::invalid(format!(
            "the grace of {} ms is shorter than `migration.route_cache_ttl`, {} ms",
            grace.as_millis(),
            least.as_millis()
        ))),
        Some(grace) => Ok(grace),
        None => Ok(least),
    }
}

fn held(path: &PathBuf) -> Result<HashSet<String>, Failure> {
    let text = fs::read_to_string(path)
        .invalid(|| format!("cannot read the list of users to keep, {}", path.display()))?;
    let lines = text.lines().map(str::trim);
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

fn has_standby(topology: &Topology, name: &str) -> bool {
    let cluster = topology.clusters.get(name);
    cluster.is_some_and(|cluster| !cluster.standbys.is_empty())
}

/// Purges, shows how it goes, and passes a signal on.
async fn carry_out(task: Erasure, context: &Context) -> Result<Erased, Failure> {
    let (stop, stopping) = watch::channel(false);
    let work = context.progress.work("purge", 0);
    let tell = |step: Step| match step {
        Step::Watching(grace) => context.progress.say(format!(
            "Watches for {} ms whether anybody still comes to the old home.",
            grace.as_millis()
        )),
        Step::Purged { users, of } => {
            work.set_total(of);
            work.set(users, "");
        }
    };
    let mut running = std::pin::pin!(purge(task, stopping, tell));
    let mut signalled = std::pin::pin!(context.signals.received());
    let mut asked = false;
    let erased = loop {
        tokio::select! {
            erased = &mut running => break erased,
            _ = &mut signalled, if !asked => {
                asked = true;
                context.progress.say("Stops after the chunk that it works on.");
                stop.send_replace(true);
            }
        }
    };
    erased.map_err(lost)
}

fn report(erased: &Erased, ends: &Ends, signal: Option<Verdict>) -> Report {
    let from = &ends.source.cluster;
    let rows: u64 = erased.rows.values().sum();
    let done = format!(
        "the rows of {} users, {rows} in all, are deleted in `{from}`",
        erased.users
    );
    let (verdict, reason, summary) = match &erased.how {
        Ending::Finished if !erased.kept.is_empty() => (
            Verdict::Pause,
            Some("kept"),
            format!(
                "{} users keep their rows, and why stands below; {done}.",
                erased.kept.len()
            ),
        ),
        Ending::Finished => (Verdict::Proceed, None, capital(&format!("{done}."))),
        Ending::NothingToDo => (
            Verdict::Proceed,
            None,
            format!("Nobody who moved away has rows in `{from}` that may go."),
        ),
        Ending::Dry(users) => (
            Verdict::Proceed,
            None,
            format!("The rows of {users} users would be deleted in `{from}`; nothing was changed."),
        ),
        Ending::Unquiet(unquiet) => (
            Verdict::Pause,
            Some("not-quiet"),
            format!("Nothing was deleted: {unquiet}."),
        ),
        Ending::Wrong(user, wrong) => (
            Verdict::Pause,
            Some("not-equal"),
            format!("Nothing of user {user} was deleted: {wrong}. Before that, {done}."),
        ),
        Ending::Blocked => (
            Verdict::Pause,
            Some("blocked"),
            format!("Somebody keeps rows locked that should go. Before that, {done}."),
        ),
        Ending::Stopped => (
            signal.unwrap_or(Verdict::Terminated),
            None,
            format!("Stopped between two chunks: {done}."),
        ),
        Ending::OtherShape(why) => (Verdict::Refused, Some("not-installed"), why.clone()),
    };
    let mut report = Report::new(verdict, summary);
    report.reason = reason.map(str::to_owned);
    match &erased.how {
        Ending::Wrong(..) => report.hints.push("migrate-eu-users verify".to_owned()),
        Ending::OtherShape(_) => report.hints.push("migrate-eu-users install".to_owned()),
        Ending::Unquiet(_) | Ending::Blocked | Ending::Stopped => report
            .hints
            .push("the same `purge` again goes on with who is left".to_owned()),
        Ending::Finished | Ending::NothingToDo | Ending::Dry(_) => {}
    }
    fill(&mut report, erased, from);
    report
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn fill(report: &mut Report, erased: &Erased, from: &str) {
    let rows: u64 = erased.rows.values().sum();
    let dry = match erased.how {
        Ending::Dry(users) => Some(users),
        Ending::Finished
        | Ending::NothingToDo
        | Ending::Unquiet(_)
        | Ending::Wrong(..)
        | Ending::Blocked
        | Ending::Stopped
        | Ending::OtherShape(_) => None,
    };
    for (name, value) in [
        ("users", erased.users.to_string()),
        ("rows", rows.to_string()),
        ("held", erased.held.to_string()),
        ("kept", erased.kept.len().to_string()),
    ] {
        report.outputs.push((name, value));
    }
    let wrong = match &erased.how {
        Ending::Wrong(user, wrong) => Some(json!({ "user": user, "what": wrong })),
        Ending::Finished
        | Ending::NothingToDo
        | Ending::Dry(_)
        | Ending::Unquiet(_)
        | Ending::Blocked
        | Ending::Stopped
        | Ending::OtherShape(_) => None,
    };
    report.result = json!({
        "users": erased.users,
        "would_go": dry,
        "rows": erased.rows,
        "let_go": erased.let_go,
        "held": erased.held,
        "kept": erased.kept.iter()
            .map(|(user, why)| json!({ "user": user, "why": why })).collect::<Vec<_>>(),
        "wrong": wrong,
        "closed_runs": erased.closed,
        "has_origin": erased.has_origin,
        "evidence": erased.evidence,
    });
    let notice = |text: String| Finding {
        level: Level::Notice,
        text,
    };
    report
        .findings
        .extend(erased.kept.iter().take(NAMED).map(|(user, why)| Finding {
            level: Level::Warning,
            text: format!("user {user} keeps its rows: {why}"),
        }));
    if erased.users > 0 && !erased.has_origin {
        report.findings.push(notice(
            "the deletes carry no replication origin: change data capture cannot tell them from the application's own"
                .to_owned(),
        ));
    }
    if erased.held > 0 {
        report.findings.push(notice(format!(
            "{} users are on the list of those whose rows must stay",
            erased.held
        )));
    }
    if let Some(evidence) = &erased.evidence {
        show(report, evidence, from);
    }
}

/// Where bytes of deleted rows may still be, and what removes them.
fn show(report: &mut Report, evidence: &Evidence, from: &str) {
    let yes_no = |known: Option<bool>| match known {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    report.tables.push(Table {
        header: vec!["table", "dead rows", "vacuumed since", "analyzed since"],
        rows: evidence
            .tables
            .iter()
            .map(|one| {
                vec![
                    one.table.clone(),
                    one.dead.to_string(),
                    yes_no(one.vacuumed).to_owned(),
                    yes_no(one.analyzed).to_owned(),
                ]
            })
            .collect(),
    });
    let mut say = |text: String| {
        report.findings.push(Finding {
            level: Level::Notice,
            text,
        });
    };
    let stale: Vec<&str> = evidence
        .tables
        .iter()
        .filter(|one| one.vacuumed == Some(false) || one.analyzed == Some(false))
        .map(|one| one.table.as_str())
        .collect();
    if !stale.is_empty() {
        say(format!(
            "deleted rows are still in the files of `{from}` and in its statistics: VACUUM (ANALYZE) {}; a page that also holds a live row keeps old bytes until it is rewritten (VACUUM FULL)",
            stale.join(", ")
        ));
    }
    say(format!(
        "WAL before {} holds the deleted rows; `{from}` keeps segments from {}",
        evidence.wal_until, evidence.wal_kept_from
    ));
    for slot in &evidence.slots {
        if let Some(kept_from) = &slot.kept_from {
            say(format!("slot `{}` keeps WAL from {kept_from}", slot.name));
        }
    }
    for (standby, replayed) in &evidence.standbys {
        match replayed {
            Some(true) => {}
            Some(false) => say(format!(
                "standby `{standby}` has not replayed the last delete"
            )),
            None => say(format!(
                "standby `{standby}` does not say what it has replayed"
            )),
        }
    }
    say("regions.toml knows nothing of backups: those made before this purge hold the rows until their retention ends"
        .to_owned());
    say("caches, search indexes, queues and logs outside of Postgres are not looked at".to_owned());
}
