//! `plan`: what would move, how it hangs on the user, what speaks against it. Changes nothing on either side.

use regionwise_cli::{Because as _, Common, Context, Failure, Finding, Level, Report, Table};
use regionwise_mover::{Ends, plan as facts, survey};
use regionwise_postgres::{Error, Kind};
use regionwise_relocation::catalog::TableName;
use regionwise_relocation::closure::plan::{Cluster, Counts, Facts, Plan};
use regionwise_relocation::closure::refusal::Refusal;
use regionwise_relocation::closure::rules::Rules;
use regionwise_rollout::Verdict;
use regionwise_topology::Migration;
use serde_json::json;

use crate::clusters::{self, Access, Account, before};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    access: Access,

    /// For CI: look at the schema alone, count nothing, and end 12 when something speaks against the plan.
    #[arg(long, env = "REGIONWISE_CHECK")]
    check: bool,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let migration = clusters::migration(&topology)?;
    let ends = clusters::ends(common, context, migration, Account::Move, &args.access)?;
    let counted = if args.check {
        Counted::No
    } else {
        Counted::Yes
    };
    match observe(&ends, migration, counted).await? {
        Ok(observed) => Ok(report(migration, &observed)),
        Err(refused) => Ok(refusal(&refused)),
    }
}

/// Whether rows are counted: over many users that takes a while.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Yes,
    No,
}

/// A plan with what it was made from.
pub(crate) struct Observed {
    pub(crate) plan: Plan,
    pub(crate) counts: Option<Counts>,
}

/// Reads both clusters and makes the plan; the inner error are reasons why there is none at all.
pub(crate) async fn observe(
    ends: &Ends,
    migration: &Migration,
    counted: Counted,
) -> Result<Result<Observed, Vec<Refusal>>, Failure> {
    let root = table(&migration.root);
    let rules: Rules = survey::rules(migration);
    let (mut source, mut target) = tokio::try_join!(
        clusters::session(&ends.source),
        clusters::session(&ends.target)
    )?;
    let (here, there) = tokio::join!(facts::see(&mut source), facts::see(&mut target));
    let here = here.because(Verdict::Unreachable, || {
        format!(
            "cannot read the catalog of cluster `{}`",
            ends.source.cluster
        )
    })?;
    let there = there.because(Verdict::Unreachable, || {
        format!(
            "cannot read the catalog of cluster `{}`",
            ends.target.cluster
        )
    })?;
    let counts = match counted {
        Counted::Yes => facts::count(&mut source, &here.catalog, &root, &rules, &migration.users)
            .await
            .map_err(|error| uncounted(error, &ends.source.cluster))?,
        Counted::No => None,
    };
    let plan = Plan::make(&Facts {
        source: Cluster {
            catalog: &here.catalog,
            server: &here.server,
        },
        target: Cluster {
            catalog: &there.catalog,
            server: &there.server,
        },
        root: &root,
        rules: &rules,
        users: &migration.users,
        counts: counts.as_ref(),
    });
    Ok(plan.map(|plan| Observed { plan, counts }))
}

/// Before `install` the mover's account may not read the product's tables: it is `install` that grants it.
fn uncounted(error: Error, cluster: &str) -> Failure {
    let lacks_rights = error.kind == Kind::Permission;
    let failure = before(error, || match lacks_rights {
        true => format!(
            "cannot count the users who would move: the account of `migration.roles.move` may not read the product's \
             tables in cluster `{cluster}`"
        ),
        false => "cannot count the rows of the users that `migration.users` chooses".to_owned(),
    });
    match lacks_rights {
        true => failure.with_hint(
            "migrate-eu-users install --mover ROLE first: it gives this account, by its role, what it needs",
        ),
        false => failure,
    }
}

fn table(name: &str) -> TableName {
    match name.split_once('.') {
        Some((schema, name)) => TableName::new(schema, name),
        None => TableName::new("public", name),
    }
}

/// There is not even a closure.
pub(crate) fn refusal(refused: &[Refusal]) -> Report {
    let mut report = Report::new(Verdict::Refused, "There is no plan: nothing can be moved.");
    report.reason = Some("no-plan".to_owned());
    report.result = json!({ "refused": refused });
    report.findings.extend(refused.iter().map(error));
    report
}

fn error(refusal: &Refusal) -> Finding {
    Finding {
        level: Level::Error,
        text: refusal.to_string(),
    }
}

fn report(migration: &Migration, observed: &Observed) -> Report {
    let plan = &observed.plan;
    let users = observed.counts.as_ref().and_then(|counts| counts.users);
    let (verdict, summary) = match (plan.refused.len(), users) {
        (0, Some(users)) => (
            Verdict::Proceed,
            format!(
                "{users} users can move from `{}` to `{}`; the plan is {}",
                migration.from,
                migration.to,
                plan.hash.as_str()
            ),
        ),
        (0, None) => (
            Verdict::Proceed,
            format!(
                "every table is classified; the plan is {}",
                plan.hash.as_str()
            ),
        ),
        (1, _) => (
            Verdict::Refused,
            "1 reason speaks against the plan.".to_owned(),
        ),
        (reasons, _) => (
            Verdict::Refused,
            format!("{reasons} reasons speak against the plan."),
        ),
    };
    let mut report = Report::new(verdict, summary);
    if verdict == Verdict::Refused {
        report.reason = Some("plan-refused".to_owned());
    } else {
        report.hints.push(format!(
            "migrate-eu-users run --plan {} --dry-run",
            plan.hash
        ));
    }
    report.tables.push(tree(plan));
    report.findings.extend(plan.refused.iter().map(error));
    report
        .findings
        .extend(plan.warnings.iter().map(|warning| Finding {
            level: Level::Warning,
            text: warning.to_string(),
        }));
    report
        .findings
        .extend(plan.decided.iter().map(|decision| Finding {
            level: Level::Notice,
            text: decision.to_string(),
        }));
    report.outputs.push(("plan", plan.hash.as_str().to_owned()));
    if let Some(users) = users {
        report.outputs.push(("users", users.to_string()));
    }
    report.result = json!({ "plan": plan, "users": users });
    report
}

fn tree(plan: &Plan) -> Table {
    let unknown = || "?".to_owned();
    Table {
        header: vec!["table", "rows", "bytes", "hangs on the user"],
        rows: plan
            .tree
            .iter()
            .map(|branch| {
                vec![
                    format!("{}{}", "  ".repeat(branch.depth), branch.table),
                    branch.rows.map_or_else(unknown, |rows| rows.to_string()),
                    branch.bytes.map_or_else(unknown, |bytes| bytes.to_string()),
                    branch.how.clone(),
                ]
            })
            .collect(),
    }
}
