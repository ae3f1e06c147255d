//! `status`: what moved, what waits and what is set aside, from the journals alone. Quick, and useful when one cluster is
//! gone.

use regionwise_cli::{Common, Context, Failure, Finding, Level, Report, Table};
use regionwise_mover::status::{self, BetweenHomes, Books, RunLine};
use regionwise_mover::{End, Ends};
use regionwise_postgres::{Direct, Error};
use regionwise_rollout::Verdict;
use serde_json::json;

use crate::clusters::{self, Access, Account};
use crate::counts::millis;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    access: Access,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let migration = clusters::migration(&topology)?;
    let ends = clusters::ends(common, context, migration, Account::Verify, &args.access)?;
    let (source, target) = tokio::join!(status::books(&ends.source), status::books(&ends.target));
    let mut seen = [
        Seen::of(&ends.source, source),
        Seen::of(&ends.target, target),
    ];
    let between = between(&mut seen).await;
    Ok(report(&seen, between, &ends))
}

/// What one cluster said.
struct Seen {
    cluster: String,
    books: Option<Books>,
    session: Option<Direct>,
    trouble: Option<String>,
}

impl Seen {
    fn of(end: &End, books: Result<Option<(Books, Direct)>, Error>) -> Self {
        let cluster = end.cluster.clone();
        let (books, session, trouble) = match books {
            Ok(Some((books, session))) => (Some(books), Some(session), None),
            Ok(None) => {
                let text = format!("nothing is installed in cluster `{cluster}`");
                (None, None, Some(text))
            }
            Err(error) => {
                let text = format!("cannot read the journal of cluster `{cluster}`: {error}");
                (None, None, Some(text))
            }
        };
        Self {
            cluster,
            books,
            session,
            trouble,
        }
    }
}

/// Users between two homes, whichever way they go. Unknown when one cluster does not answer.
async fn between(seen: &mut [Seen; 2]) -> Option<BetweenHomes> {
    let mut found = BetweenHomes::default();
    for (from, to) in [(0, 1), (1, 0)] {
        let (source, target) = (seen[from].session.as_ref()?, seen[to].session.as_ref()?);
        match status::between_homes(source, target).await {
            Ok(between) => found = found.and(between),
            Err(error) => {
                seen[from].trouble = Some(format!("cannot see who is between two homes: {error}"));
                return None;
            }
        }
    }
    Some(found)
}

fn report(seen: &[Seen; 2], between: Option<BetweenHomes>, ends: &Ends) -> Report {
    let trouble: Vec<&String> = seen.iter().filter_map(|one| one.trouble.as_ref()).collect();
    let stuck = between.as_ref().is_some_and(BetweenHomes::are_left);
    let books = seen.iter().filter_map(|one| one.books.as_ref());
    let unguarded = books.clone().any(|books| !books.unguarded.is_empty());
    let (verdict, reason) = match (trouble.is_empty(), stuck, unguarded) {
        (false, _, _) => (Verdict::Pause, Some("unreadable")),
        (true, true, _) => (Verdict::Pause, Some("between-homes")),
        (true, false, true) => (Verdict::Pause, Some("not-fenced")),
        (true, false, false) => (Verdict::Proceed, None),
    };
    let mut report = Report::new(verdict, summary(seen, ends));
    report.reason = reason.map(str::to_owned);
    let error = |text: String| Finding {
        level: Level::Error,
        text,
    };
    report
        .findings
        .extend(trouble.into_iter().cloned().map(error));
    if let Some(between) = between.as_ref().filter(|between| between.users > 0) {
        report.findings.push(Finding {
            level: if stuck { Level::Error } else { Level::Notice },
            text: match between.seconds {
                Some(seconds) => format!(
                    "{} users are between two homes since {seconds:.1} s and cannot write",
                    between.users
                ),
                None => format!(
                    "{} users are between two homes, nobody knows since when, and cannot write",
                    between.users
                ),
            },
        });
        if stuck {
            report
                .hints
                .push("run the plan again: it takes over at once".to_owned());
        }
    }
    for books in books.clone() {
        findings(&mut report, books, seen);
    }
    let runs = books.clone().flat_map(|books| {
        let own = books.runs.iter().filter(|run| run.state != "guest");
        own.map(|run| line(&books.cluster, run))
    });
    report.tables.push(Table {
        header: vec![
            "run",
            "from",
            "way",
            "state",
            "started",
            "moved",
            "waiting",
            "set aside",
            "batches",
            "stall p50",
            "p99",
            "max",
        ],
        rows: runs.collect(),
    });
    report.tables.push(shipped(seen));
    report.result = json!({
        "clusters": books.clone().collect::<Vec<_>>(),
        "between_homes": between,
    });
    let count = |which: &str| -> i64 {
        let routes = seen[0].books.iter().flat_map(|books| &books.routes);
        routes
            .filter(|(state, _)| state == which)
            .map(|(_, users)| users)
            .sum()
    };
    report
        .outputs
        .push(("moved", (count("moved") + count("purged")).to_string()));
    report.outputs.push(("purged", count("purged").to_string()));
    let between = between.map_or_else(|| "unknown".to_owned(), |between| between.users.to_string());
    report.outputs.push(("between_homes", between));
    report
}

fn summary(seen: &[Seen; 2], ends: &Ends) -> String {
    let states = |one: &Seen| match &one.books {
        None => format!("`{}` unknown", one.cluster),
        Some(books) => {
            let each: Vec<String> = books
                .routes
                .iter()
                .map(|(state, users)| format!("{users} {state}"))
                .collect();
            let each = if each.is_empty() {
                "nobody".to_owned()
            } else {
                each.join(", ")
            };
            format!("`{}` {each}", one.cluster)
        }
    };
    format!(
        "From `{}` to `{}`: {}; {}.",
        ends.source.cluster,
        ends.target.cluster,
        states(&seen[0]),
        states(&seen[1])
    )
}

fn findings(report: &mut Report, books: &Books, seen: &[Seen; 2]) {
    let cluster = &books.cluster;
    let mut say = |level: Level, text: String| report.findings.push(Finding { level, text });
    for one in &books.unguarded {
        say(
            Level::Error,
            format!(
                "{} in `{cluster}` lacks triggers of the fence ({}): migrate-eu-users install",
                one.table,
                one.lacks.join(", ")
            ),
        );
    }
    for gate in &books.gate {
        let age = gate.seconds.map_or_else(
            || "an unknown time".to_owned(),
            |seconds| format!("{seconds:.0} s"),
        );
        say(
            Level::Warning,
            format!(
                "process {} in `{cluster}` writes very many users since {age}: nobody moves meanwhile",
                gate.pid
            ),
        );
    }
    for claim in &books.claims {
        let until = if claim.seconds_left < 0.0 {
            "anybody may take it over".to_owned()
        } else {
            format!("for {:.1} s more", claim.seconds_left)
        };
        say(
            Level::Notice,
            format!(
                "batch {} of run {} is held by {}, {until}",
                claim.batch, claim.run, claim.holder
            ),
        );
    }
    for one in &books.aside.named {
        let why = one.reason.as_deref().unwrap_or("no reason is written down");
        say(
            Level::Warning,
            format!("user {} is set aside in run {}: {why}", one.user, one.run),
        );
    }
    let named = i64::try_from(books.aside.named.len()).unwrap_or(i64::MAX);
    if books.aside.users > named {
        say(
            Level::Warning,
            format!("{} more users are set aside", books.aside.users - named),
        );
    }
    for staging in &books.staging {
        let runs = seen.iter().filter_map(|one| one.books.as_ref());
        let over = runs
            .flat_map(|books| &books.runs)
            .any(|run| run.run == staging.run && run.state == "finished");
        if over {
            say(
                Level::Warning,
                format!(
                    "{} users are still `staging` in `{cluster}` of run {}, which is over: personal data that nobody uses",
                    staging.users.len(),
                    staging.run
                ),
            );
        }
    }
    if books.hits > 0 {
        say(
            Level::Notice,
            format!(
                "the fence of `{cluster}` has refused {} writes since its installation",
                books.hits
            ),
        );
    }
}

fn line(cluster: &str, run: &RunLine) -> Vec<String> {
    let stall = |micros: Option<i64>| {
        micros
            .and_then(|micros| u64::try_from(micros).ok())
            .map_or_else(|| "-".to_owned(), millis)
    };
    let state = match &run.note {
        Some(note) => format!("{}: {note}", run.state),
        None => run.state.clone(),
    };
    vec![
        run.run.clone(),
        cluster.to_owned(),
        run.direction.clone(),
        state,
        run.started.clone(),
        run.moved.to_string(),
        run.open.to_string(),
        run.aside.to_string(),
        format!("{} of {} open", run.batches_open, run.batches),
        stall(run.stall_p50),
        stall(run.stall_p99),
        stall(run.stall_max),
    ]
}

/// Rows by run and table, and what was purged. What was not written down is not there.
fn shipped(seen: &[Seen; 2]) -> Table {
    let mut rows = Vec::new();
    for books in seen.iter().filter_map(|one| one.books.as_ref()) {
        for run in &books.runs {
            let rate = run
                .bytes_per_second
                .map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
            rows.extend(run.shipped.iter().map(|one| {
                vec![
                    run.run.clone(),
                    one.table.clone(),
                    one.rows.to_string(),
                    rate.clone(),
                ]
            }));
        }
        rows.extend(books.purged.iter().map(|one| {
            vec![
                format!("purge of `{}`", books.cluster),
                one.table.clone(),
                one.rows.to_string(),
                "-".to_owned(),
            ]
        }));
    }
    Table {
        header: vec!["run", "table", "rows", "bytes/s of the run"],
        rows,
    }
}
