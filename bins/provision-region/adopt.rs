//! `adopt`: our label on what was made by hand under the names that we want.

use regionwise_cli::{Common, Context, Failure, Report};
use regionwise_hetzner::Choice;
use regionwise_provision::{Change, Remedy};
use regionwise_rollout::Verdict;

use crate::look::{Api, World};
use crate::texts;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The region whose resources are taken over.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: String,

    /// Say what would be taken over, change nothing.
    #[arg(long, env = "REGIONWISE_DRY_RUN")]
    dry_run: bool,

    #[command(flatten)]
    api: Api,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let world = World::load(common, context).await?;
    let region = world.region(&args.region)?;
    let say = |line: &str| context.progress.say(format!("{}: {line}", region.name));
    let stop = || context.signals.now().is_some();
    let mut seen = tokio::select! {
        seen = world.look(region, &args.api, &say, &stop) => seen?,
        verdict = context.signals.received() => return Ok(Report::new(verdict, "Stopped by a signal; nothing was changed.")),
    };
    let mut adopted = Vec::new();
    for (project, plan) in seen.projects.iter().zip(&seen.plans) {
        for change in &plan.changes {
            let Change::Foreign(wanted, id) = change else {
                continue;
            };
            let what = format!("{} `{}`", wanted.kind().word(), wanted.name);
            if let Some(verdict) = context.signals.now() {
                let text = format!("Stopped by a signal; taken over: {}.", listed(&adopted));
                return Ok(Report::new(verdict, text));
            }
            if !args.dry_run {
                let labels = project
                    .hetzner
                    .mend(
                        wanted,
                        *id,
                        Remedy::Labels,
                        &project.inventory,
                        &Choice::default(),
                    )
                    .await;
                labels.map_err(|error| {
                    let text = format!(
                        "cannot take over {what}: {error}; taken over before: {}",
                        listed(&adopted)
                    );
                    Failure::new(Verdict::Unknown, text)
                        .with_hint("run it again: what is ours already stays as it is")
                })?;
            }
            adopted.push(what);
        }
    }
    if !args.dry_run && !adopted.is_empty() {
        seen = world
            .look(region, &args.api, &say, &stop)
            .await
            .map_err(|failure| {
                let text = format!(
                    "took over {}, and cannot see them now: {}",
                    listed(&adopted),
                    failure.error
                );
                Failure::new(Verdict::Unknown, text)
                    .with_hint(format!("provision-region drift --region {}", region.name))
            })?;
    }
    let (cost, hash) = (seen.cost(&world), texts::hash(&seen));
    let mut report = texts::report(Verdict::Proceed, region, &seen, &cost, &hash);
    report.summary = match (args.dry_run, adopted.is_empty()) {
        (_, true) => "There is nothing to take over; nothing was changed.".to_owned(),
        (true, false) => format!("Would take over {}; nothing was changed.", listed(&adopted)),
        (false, false) => format!("Took over {}.", listed(&adopted)),
    };
    texts::changed(&mut report, !args.dry_run && !adopted.is_empty());
    Ok(report.with_hint(format!(
        "provision-region --region {} --dry-run",
        region.name
    )))
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    }
}
