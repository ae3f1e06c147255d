//! `install`: the fence, the routes and the journal in both clusters. Permanent: it is the residency guard too.

use regionwise_cli::{Common, Context, Failure, Finding, Level, Report};
use regionwise_mover::{End, Ends};
use regionwise_postgres::{Kind, Row};
use regionwise_relocation::closure::{Closure, Discovered};
use regionwise_relocation::sql::install::{self, Terms};
use regionwise_relocation::sql::name;
use regionwise_relocation::sql::purge;
use regionwise_rollout::Verdict;
use serde_json::json;

use crate::clusters::{self, Access, Account, before, midway};
use crate::plan::{self, Counted};

/// Of the advisory locks, where nothing else was chosen: "regi" in ASCII.
const CLASS: i32 = 0x7265_6769;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    access: Access,

    /// Show the SQL for both clusters, run nothing.
    #[arg(long)]
    print: bool,

    /// Take everything away again; refused while a user has moved.
    #[arg(long, conflicts_with = "print")]
    remove: bool,

    /// Users whose rows are in the target before the fence comes live there.
    #[arg(long, env = "REGIONWISE_ADOPT")]
    adopt: bool,

    /// They do not: rows of theirs are left over from a copy, and nobody may write them.
    #[arg(long, env = "REGIONWISE_NO_ADOPT", conflicts_with = "adopt")]
    no_adopt: bool,

    /// Login role that may move users; may be repeated.
    #[arg(
        long,
        env = "REGIONWISE_MOVER",
        value_name = "ROLE",
        value_delimiter = ','
    )]
    mover: Vec<String>,

    /// Login role that may only verify; may be repeated.
    #[arg(
        long,
        env = "REGIONWISE_VERIFIER",
        value_name = "ROLE",
        value_delimiter = ','
    )]
    verifier: Vec<String>,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let migration = clusters::migration(&topology)?;
    let ends = clusters::ends(common, context, migration, Account::Install, &args.access)?;
    let observed = match plan::observe(&ends, migration, Counted::No).await? {
        Ok(observed) if observed.plan.refused.is_empty() => observed,
        Ok(observed) => return Ok(plan::refusal(&observed.plan.refused)),
        Err(refused) => return Ok(plan::refusal(&refused)),
    };
    let found = &observed.plan.found;
    let closure = &found.closure;
    let shape = observed.plan.source.as_str();
    let scripts = [(&ends.source, true), (&ends.target, false)]
        .map(|(end, signup)| (end, script(found, args, end, signup, shape)));
    if args.print {
        return Ok(printed(&scripts));
    }
    if !args.adopt && !args.no_adopt && !args.remove && are_there(&ends.target, closure).await? {
        return Ok(undecided(&ends.target));
    }
    let mut missing = Vec::new();
    for (number, (end, script)) in scripts.iter().enumerate() {
        let rows = apply(end, script, args, number > 0).await?;
        missing.extend(rows.iter().filter_map(|row| lacks(end, row)));
        context
            .progress
            .say(format!("Cluster `{}` is done.", end.cluster));
    }
    Ok(done(args, &ends, closure, missing))
}

/// What a cluster lacks that this account cannot give, and what a superuser runs there.
struct Lack {
    text: String,
    fix: String,
}

fn lacks(end: &End, row: &Row) -> Option<Lack> {
    let (lacks, fix) = (row.text("lacks")?, row.text("fix")?);
    Some(Lack {
        text: format!("in cluster `{}` {lacks}", end.cluster),
        fix: format!("as a superuser in `{}`: {fix}", end.cluster),
    })
}

/// One transaction in one cluster, after `other_is_done`.
async fn apply(
    end: &End,
    script: &str,
    args: &Args,
    other_is_done: bool,
) -> Result<Vec<Row>, Failure> {
    let doing = if args.remove {
        "remove the fence from"
    } else {
        "install the fence in"
    };
    let what = || format!("cannot {doing} cluster `{}`", end.cluster);
    let written = async {
        let mut session = clusters::connect(end).await?;
        session.write("", script, "").await
    };
    written.await.map_err(|error| {
        // The server's own refusal says that the transaction is undone; silence, or a server that goes away, does not.
        let is_undone = !matches!(
            error.kind,
            Kind::Timeout | Kind::Lost | Kind::ShuttingDown | Kind::Protocol | Kind::Unexpected
        );
        if is_undone && !other_is_done {
            return before(error, what);
        }
        midway(error, what).with_hint(
            "the clusters are done one after the other, each whole or not at all: mend the cause, then the same command again",
        )
    })
}

/// Whether the target has users and no fence yet: it cannot be seen whether they live there.
async fn are_there(target: &End, closure: &Closure) -> Result<bool, Failure> {
    let mut session = clusters::session(target).await?;
    let sql = format!(
        "SELECT to_regclass('regionwise.install') IS NULL AND EXISTS (SELECT FROM {}) AS undecided",
        name::table(&closure.root().table.name)
    );
    let row = session
        .row(&sql)
        .await
        .and_then(|row| row.flag("undecided"));
    row.map_err(|error| {
        before(error, || {
            format!("cannot look for users in cluster `{}`", target.cluster)
        })
    })
}

fn undecided(target: &End) -> Report {
    let text = format!(
        "Cluster `{}` has users already, and nothing says whether they live there.",
        target.cluster
    );
    Report::new(Verdict::Refused, text)
        .because("undecided-users")
        .with_hint("install --adopt: they live there, and go on to write there")
        .with_hint("install --no-adopt: they are left over from a copy, and nobody may write them")
}

fn script(found: &Discovered, args: &Args, end: &End, signup: bool, shape: &str) -> String {
    if args.remove {
        return install::remove(&found.closure);
    }
    let script = install::script(
        &found.closure,
        &Terms {
            cluster: end.cluster.clone(),
            class: CLASS,
            signup,
            adopt: args.adopt,
            shape: shape.to_owned(),
            movers: args.mover.clone(),
            verifiers: args.verifier.clone(),
        },
    );
    // Rows go from the source alone, at a purge and on the way back.
    match signup {
        true => script + &purge::grants(found),
        false => script,
    }
}

fn printed(scripts: &[(&End, String); 2]) -> Report {
    let text: Vec<String> = scripts
        .iter()
        .map(|(end, script)| {
            format!(
                "-- cluster {}: run it as one simple query\nBEGIN;\n{script}COMMIT;\n",
                end.cluster
            )
        })
        .collect();
    let mut report = Report::new(Verdict::Proceed, text.join("\n"));
    report.result = json!({
        "sql": scripts.iter().map(|(end, script)| json!({ "cluster": end.cluster, "sql": script })).collect::<Vec<_>>()
    });
    report
}

fn done(args: &Args, ends: &Ends, closure: &Closure, missing: Vec<Lack>) -> Report {
    let tables = closure.tables.len();
    let (source, target) = (&ends.source.cluster, &ends.target.cluster);
    let summary = if args.remove {
        format!("The fence is gone from {tables} tables of `{source}` and `{target}`.")
    } else {
        format!("The fence guards {tables} tables of `{source}` and `{target}`.")
    };
    let mut report = Report::new(Verdict::Proceed, summary);
    report.result = json!({ "tables": tables, "clusters": [source, target] });
    for lack in missing {
        report.findings.push(Finding {
            level: Level::Warning,
            text: lack.text,
        });
        report.hints.push(lack.fix);
    }
    if !args.remove {
        report.hints.push("migrate-eu-users plan".to_owned());
    }
    report
}
