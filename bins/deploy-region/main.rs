//! deploy-region: brings one release to one region, all its hosts or none, and says what is true afterwards.
//!
//! It never leaves a region half switched on purpose: nothing is switched when one host cannot prepare, all go back
//! when one cannot commit or the region does not look well. `close` marks what an operation brought as verified,
//! `status` shows what every host serves.
//!
//! Ends 0, 2, 11 (the release is bad, traffic was not touched), 12, 13 (taken back), 14, 20, 21, 22, 130, 143.

mod close;
mod deploy;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use regionwise_cli::{Common, Context, Failure, Report, WithCommon, duration};

/// Bring a release to one region: all its hosts, or none.
#[derive(Parser)]
#[command(
    name = "deploy-region",
    version,
    args_conflicts_with_subcommands = true
)]
struct Args {
    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    deploy: DeployArgs,
}

#[derive(Subcommand)]
enum Verb {
    /// Mark what an operation brought to the region as verified.
    Close(CloseArgs),
    /// Show what every host serves; changes nothing.
    Status(StatusArgs),
}

#[derive(ClapArgs)]
struct DeployArgs {
    /// The region to deploy to.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: Option<String>,

    /// The release file: name, artefact, env, config.
    #[arg(long, env = "REGIONWISE_RELEASE", value_name = "FILE")]
    release: Option<PathBuf>,

    /// Name of this operation, for locks, history and rollback; the same name resumes it.
    #[arg(long, env = "REGIONWISE_OPERATION", value_name = "ID")]
    operation: Option<String>,

    /// Wait this long for somebody else's lock.
    #[arg(long, env = "REGIONWISE_LOCK_WAIT", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    lock_wait: Duration,

    /// Go on although the hosts of the region serve different releases.
    #[arg(long, env = "REGIONWISE_ACCEPT_DRIFT")]
    accept_drift: bool,

    /// Go on although the release that serves now is unhealthy: this one is the cure.
    #[arg(long, env = "REGIONWISE_ACCEPT_UNHEALTHY")]
    accept_unhealthy: bool,

    /// Say what would happen, change nothing.
    #[arg(long, env = "REGIONWISE_DRY_RUN")]
    dry_run: bool,
}

#[derive(ClapArgs)]
struct CloseArgs {
    /// The region of the operation.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: String,

    /// The operation that is over.
    #[arg(long, env = "REGIONWISE_OPERATION", value_name = "ID")]
    operation: String,
}

#[derive(ClapArgs)]
struct StatusArgs {
    /// Only this region; all of them by default.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: Option<String>,
}

impl WithCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() -> ExitCode {
    regionwise_cli::start(run)
}

async fn run(args: Args, context: &Context) -> Result<Report, Failure> {
    match &args.verb {
        None => deploy::run(&args.common, &args.deploy, context).await,
        Some(Verb::Close(close)) => close::run(&args.common, close, context).await,
        Some(Verb::Status(status)) => {
            let looking = status::run(&args.common, status, context);
            context.signals.end(looking).await
        }
    }
}
