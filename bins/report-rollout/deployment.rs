//! One region's deploy as GitHub shows it beside the environment.

use clap::{ArgGroup, ValueEnum};
use regionwise_cli::{Common, Context, Failure, Report, operation_id};
use regionwise_github::{Deployment, Ensured, NewDeployment};
use regionwise_rollout::Verdict;
use regionwise_rollout::deployment::{State, description, follows_from};
use serde_json::json;

use crate::github::{Api, Run, failure, variable};
use crate::texts::release_name;

#[derive(clap::Args)]
#[command(group(ArgGroup::new("end").required(true).args(["state", "verdict"])))]
pub(crate) struct Args {
    #[command(flatten)]
    api: Api,

    /// The region that is deployed to.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: String,

    /// The release: its name, or its file.
    #[arg(long, env = "REGIONWISE_RELEASE", value_name = "NAME")]
    release: String,

    /// The deploy's operation: one operation is one Deployment, however often it is told.
    #[arg(long, env = "REGIONWISE_OPERATION", value_name = "ID")]
    operation: String,

    /// The status to show.
    #[arg(long, env = "REGIONWISE_STATE")]
    state: Option<StateArg>,

    /// Instead of a state: the last verdict of the region's job, empty when it had none.
    #[arg(long, env = "REGIONWISE_VERDICT", value_name = "WORD", value_parser = last_verdict)]
    verdict: Option<Last>,

    /// Instead of `github.environment_prefix` of regions.toml.
    #[arg(long, env = "REGIONWISE_ENVIRONMENT_PREFIX", value_name = "PREFIX")]
    environment_prefix: Option<String>,

    /// Say what would be shown, tell GitHub nothing.
    #[arg(long, env = "REGIONWISE_DRY_RUN")]
    dry_run: bool,
}

/// States as flags write them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    InProgress,
    Pending,
    Success,
    Failure,
    Inactive,
    Error,
}

/// The last verdict of a job, if it had one.
#[derive(Clone, Copy, Debug)]
struct Last(Option<Verdict>);

fn last_verdict(word: &str) -> Result<Last, String> {
    match word {
        "" => Ok(Last(None)),
        word => Verdict::of_word(word)
            .map(|verdict| Last(Some(verdict)))
            .ok_or_else(|| "a verdict of README.md, or nothing".to_owned()),
    }
}

impl Args {
    fn state(&self) -> State {
        match self.state {
            Some(StateArg::InProgress) => State::InProgress,
            Some(StateArg::Pending) => State::Pending,
            Some(StateArg::Success) => State::Success,
            Some(StateArg::Failure) => State::Failure,
            Some(StateArg::Inactive) => State::Inactive,
            Some(StateArg::Error) => State::Error,
            None => follows_from(self.verdict.and_then(|last| last.0)),
        }
    }
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let region = common.region(&topology, &args.region)?;
    let operation = operation_id(Some(&args.operation), &region.name, context)?;
    let environment = match &args.environment_prefix {
        Some(prefix) => format!("{prefix}{}", region.name),
        None => topology.environment_of(region),
    };
    let release = release_name(&args.release);
    let state = args.state();
    let run = Run::read(context)?;
    let sha = variable(context, "GITHUB_SHA")?;
    let wanted = NewDeployment {
        environment: &environment,
        sha: &sha,
        release,
        operation: &operation,
        description: &description(None, release, &operation),
    };
    let text = description(args.verdict.and_then(|last| last.0), release, &operation);
    let shown = format!("`{environment}` shows `{}` as {}", release, state.word());
    if args.dry_run {
        let report = Report::new(Verdict::Proceed, format!("dry run: then {shown}"));
        return Ok(report.in_region(&region.name).because("dry-run"));
    }
    let token = args.api.needed_token(context)?;
    let say = |line: &str| context.progress.say(line);
    let github = args.api.connect(&run, &token, &say)?;

    let telling = async {
        let deployment = github.ensure_deployment(&wanted).await?;
        let (log, site) = (run.url(), region.url.as_str().trim_end_matches('/'));
        let status = github
            .ensure_status(deployment.get(), state, &text, (&log, site))
            .await?;
        Ok((deployment, status))
    };
    let told = tokio::select! {
        told = telling => told,
        signal = context.signals.received() => {
            let text = format!("stopped by a signal: `{environment}` may not show `{release}` yet");
            return Ok(Report::new(signal, text).in_region(&region.name));
        }
    };
    let (deployment, status) = told
        .map_err(|error| failure(error, format!("cannot show `{release}` in `{environment}`")))?;
    let changed = made(&deployment) || made(&status);
    let Deployment { id, .. } = deployment.get();
    let reason = if changed { "shown" } else { "already-shown" };
    let mut report = Report::new(Verdict::Proceed, shown)
        .in_region(&region.name)
        .because(reason);
    report.result = json!({
        "deployment": id,
        "environment": environment,
        "operation": operation,
        "state": state.word(),
        "changed": changed,
    });
    report.outputs.push(("deployment", id.to_string()));
    report.outputs.push(("state", state.word().to_owned()));
    Ok(report)
}

fn made<T>(ensured: &Ensured<T>) -> bool {
    match ensured {
        Ensured::Already(_) => false,
        Ensured::Made(_) => true,
    }
}
