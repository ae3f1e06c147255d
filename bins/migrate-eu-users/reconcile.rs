//! `reconcile`: after a promotion, before writes open. A promoted cluster may have forgotten that users moved away.

use regionwise_cli::{Common, Context, Failure, Finding, Level, Report};
use regionwise_mover::{Reconciled, reconcile_routes};
use regionwise_postgres::Kind;
use regionwise_rollout::Verdict;
use serde_json::json;

use crate::clusters::{self, Access, Account, before};
use crate::report::lost;

/// So many users are named in the report for people; the one for programs has all.
const NAMED: usize = 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    access: Access,

    /// The cluster with a new primary.
    #[arg(long, env = "REGIONWISE_PROMOTED", value_name = "CLUSTER")]
    promoted: String,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let migration = clusters::migration(&topology)?;
    let ends = clusters::ends(common, context, migration, Account::Move, &args.access)?;
    let ends = match args.promoted.as_str() {
        name if name == ends.source.cluster => ends,
        name if name == ends.target.cluster => ends.reversed(),
        name => {
            return Err(Failure::invalid(format!(
                "`{name}` is no cluster of the migration; those are `{}` and `{}`",
                ends.source.cluster, ends.target.cluster
            )));
        }
    };
    let (promoted, other) = (&ends.source, &ends.target);
    let work = context.progress.work("routes compared", 0);
    let reconciled = reconcile_routes(promoted, other, |done| work.set(done, "")).await;
    drop(work);
    let reconciled = reconciled.map_err(|error| match error.kind {
        // Only when it connects, and it does so before it writes.
        Kind::Dns | Kind::Refused | Kind::Tls => {
            before(error, || "cannot compare the clusters".to_owned())
        }
        _ => lost(error),
    })?;
    Ok(report(&reconciled, &promoted.cluster, &other.cluster))
}

fn report(reconciled: &Reconciled, promoted: &str, other: &str) -> Report {
    let Reconciled {
        users,
        raised,
        fenced,
        proven,
        not_proven,
        busy,
        two_owners,
    } = reconciled;
    let counts = format!(
        "{users} routes of `{promoted}` compared with `{other}`: {raised} moves under way outdated, {fenced} users fenced, {proven} proven"
    );
    let (verdict, reason, summary) = match (two_owners.len(), busy.len()) {
        (0, 0) => (
            Verdict::Proceed,
            None,
            format!("Writes may open in `{promoted}`: {counts}."),
        ),
        (0, busy) => (
            Verdict::Pause,
            Some("busy"),
            format!(
                "{busy} users are locked all the time; keep writers out of `{promoted}`. {counts}."
            ),
        ),
        (two, _) => (
            Verdict::Refused,
            Some("two-owners"),
            format!(
                "{two} users are at home in both clusters, and not because of this promotion. {counts}."
            ),
        ),
    };
    let mut report = Report::new(verdict, summary);
    report.reason = reason.map(str::to_owned);
    if !two_owners.is_empty() {
        report.hints.push(format!(
            "keep the application out of `{promoted}`; decide for each of these users whose rows count, and give the other \
             cluster's route the state `moved` with the greater epoch by hand"
        ));
    } else if !busy.is_empty() {
        report
            .hints
            .push(format!("migrate-eu-users reconcile --promoted {promoted}"));
    }
    let two = two_owners.iter().take(NAMED);
    report.findings.extend(two.map(|user| Finding {
        level: Level::Error,
        text: format!("user {user} is at home in both clusters"),
    }));
    if !not_proven.is_empty() {
        report.findings.push(Finding {
            level: Level::Warning,
            text: format!(
                "the rows of {} users in `{promoted}` are not those that moved; they stay, and are never purged",
                not_proven.len()
            ),
        });
    }
    for (name, count) in [
        ("raised", *raised),
        ("fenced", *fenced),
        ("proven", *proven),
    ] {
        report.outputs.push((name, count.to_string()));
    }
    report
        .outputs
        .push(("not_proven", not_proven.len().to_string()));
    report
        .outputs
        .push(("two_owners", two_owners.len().to_string()));
    report.result = json!({
        "users": users,
        "raised": raised,
        "fenced": fenced,
        "proven": proven,
        "not_proven": not_proven,
        "busy": busy,
        "two_owners": two_owners,
    });
    report
}
