//! The end of a rollout: what its jobs say together, and the issue of one that waits for a person.

use regionwise_cli::{Because, Common, Context, Failure, Hint, Report, Table};
use regionwise_github::{Ensured, Error, Github};
use regionwise_rollout::Verdict;
use regionwise_rollout::jobs::{Ended, GoBack, ended};
use regionwise_rollout::paused::{Act, LABEL, Over, Pause, acts, run_marker, waits};
use regionwise_topology::OnFailure;
use serde_json::json;

use crate::github::{Api, Run, warning};
use crate::texts::{Rollout, release_name, row};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    api: Api,

    /// How the jobs ended: `${{ toJSON(needs) }}`. The job of a region has the region's name as its id.
    #[arg(
        long,
        env = "REGIONWISE_NEEDS",
        hide_env_values = true,
        value_name = "JSON"
    )]
    needs: String,

    /// The release: its name, or its file.
    #[arg(long, env = "REGIONWISE_RELEASE", value_name = "NAME")]
    release: String,

    /// The rollout whose operations are `ID-REGION`; by default `gh-` and the id of the run.
    #[arg(long, env = "REGIONWISE_ROLLOUT", value_name = "ID")]
    rollout: Option<String>,

    /// Sum up, and leave the issues as they are.
    #[arg(long, env = "REGIONWISE_DRY_RUN")]
    dry_run: bool,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let run = Run::read(context)?;
    let names: Vec<&str> = topology
        .regions
        .iter()
        .map(|region| region.name.as_str())
        .collect();
    let go_back = match topology.rollout.on_failure {
        OnFailure::All => GoBack::All,
        OnFailure::Region | OnFailure::None => GoBack::TheFailedOne,
    };
    let ended = ended(&args.needs, &names, go_back)
        .invalid(|| "cannot tell how the rollout ended".to_owned())
        .hint("REGIONWISE_NEEDS is `${{ toJSON(needs) }}`; write the workflow again: plan-topology workflow")?;
    let ended = match args.dry_run {
        true => ended.of_dry_run(),
        false => ended,
    };
    let id = args
        .rollout
        .clone()
        // A workflow's input that was left out.
        .filter(|id| !id.is_empty())
        .unwrap_or_else(|| format!("gh-{}", run.id));
    let rollout = Rollout {
        run: &run,
        release: release_name(&args.release),
        id: &id,
        dry_run: args.dry_run,
    };
    let mut report = report(&rollout, &ended);
    if args.dry_run {
        // Nothing was deployed: nothing waits, and no wait is over.
        return Ok(report);
    }
    let Some(token) = args.api.token(context)? else {
        report.findings.push(warning(
            "`GITHUB_TOKEN` is not set: no issue was opened or closed".to_owned(),
        ));
        return Ok(report);
    };
    let say = |line: &str| context.progress.say(line);
    let github = args.api.connect(&run, &token, &say)?;
    let settling = settle(
        &github,
        &rollout,
        &topology.product.name,
        &ended,
        &mut report,
    );
    let trouble = tokio::select! {
        settled = settling => settled.err().map(|error| (error.to_string(), error.kind.hint())),
        _ = context.signals.received() => Some(("stopped by a signal".to_owned(), None)),
    };
    // Whatever becomes of the issue, the verdict is the rollout's.
    if let Some((text, hint)) = trouble {
        let what = if waits(&ended) {
            "no issue tells of the rollout that waits"
        } else {
            "issues of earlier waits may still be open"
        };
        report.findings.push(warning(format!("{what}: {text}")));
        report.hints.extend(hint.map(str::to_owned));
    }
    Ok(report)
}

/// Opens, comments on and closes what follows from the end.
async fn settle(
    github: &Github<'_>,
    rollout: &Rollout<'_>,
    product: &str,
    ended: &Ended,
    report: &mut Report,
) -> Result<(), Error> {
    let mark = rollout.run.mark();
    let marker = run_marker(&mark);
    let issues = github.held_issues().await?;
    for act in acts(product, rollout.release, ended, &issues, &mark) {
        match act {
            Act::Open(pause) => open(github, rollout, &pause, ended, report).await?,
            Act::Comment(number) => {
                let text = rollout.again_comment(ended);
                github.ensure_comment(number, &marker, &text).await?;
                report.outputs.push(("issue", number.to_string()));
                report.hints.push(format!("issue #{number} goes on"));
            }
            Act::Close(number, over) => {
                let text = rollout.over_comment(over);
                github.ensure_comment(number, &marker, &text).await?;
                let reason = match over {
                    Over::Done => "completed",
                    Over::Back | Over::Replaced => "not_planned",
                };
                github.close_issue(number, reason).await?;
                report.hints.push(format!("issue #{number} is closed"));
            }
        }
    }
    Ok(())
}

async fn open(
    github: &Github<'_>,
    rollout: &Rollout<'_>,
    pause: &Pause,
    ended: &Ended,
    report: &mut Report,
) -> Result<(), Error> {
    let (title, body) = (rollout.title(pause, ended), rollout.body(pause, ended));
    let issue = github.ensure_issue(&pause.marker(), &title, &body).await?;
    let (opened, word) = match &issue {
        Ensured::Made(opened) => (opened, "opened"),
        Ensured::Already(opened) => (opened, "there already"),
    };
    report.outputs.push(("issue", opened.number.to_string()));
    report.hints.push(format!("issue {word}: {}", opened.url));
    if !opened.has_label {
        report.findings.push(warning(format!(
            "issue #{} has no label `{LABEL}`, so the next run will not find it: give it that label",
            opened.number
        )));
    }
    Ok(())
}

fn report(rollout: &Rollout<'_>, ended: &Ended) -> Report {
    let reason = match ended.verdict {
        Verdict::Proceed => "through",
        _ if ended.failed_region().is_some() => "stopped-in-a-region",
        _ => "stopped-before-all-regions",
    };
    let mut report = Report::new(ended.verdict, rollout.sentence(ended)).because(reason);
    report.tables.push(Table {
        header: vec!["region", "state", "verdict", "step", "serves", "back on"],
        rows: ended.regions.iter().map(|end| row(end).to_vec()).collect(),
    });
    report.hints = rollout.ways(ended);
    let failed = ended.failed_region().map(|end| end.region.clone());
    let done: Vec<&str> = ended.done().map(|end| end.region.as_str()).collect();
    report.outputs = vec![
        ("failed-region", failed.unwrap_or_default()),
        ("done-regions", done.join(" ")),
    ];
    report.result = json!({
        "release": rollout.release,
        "rollout": rollout.id,
        "place": ended.place,
        "regions": ended.regions,
    });
    report
}
