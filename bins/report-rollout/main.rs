//! report-rollout: all that a rollout says to GitHub, and asks of it, in a binary of its own.
//!
//! `environments` is a gate: what regions.toml wants protected is protected. `deployment` shows one region's deploy as
//! a Deployment. `finish` reads how the jobs ended, sums up, and keeps the one issue of a rollout that waits for a person.
//! None of them touches a region, and no trouble with GitHub becomes a verdict about a release.
//!
//! `environments` ends 0, 2, 10 (could not be read), 12 (unprotected or missing). `deployment` ends 0, 2, 10 (GitHub does
//! not know). `finish` ends as the rollout did, or 2.

mod deployment;
mod environments;
mod finish;
mod github;
mod texts;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use regionwise_cli::{Common, Context, Failure, Report, WithCommon};

/// Tell GitHub how a rollout goes, and ask whether its environments are protected.
#[derive(Parser)]
#[command(name = "report-rollout", version)]
struct Args {
    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Refuse when an environment that must be protected is not, or does not exist; changes nothing.
    Environments(environments::Args),
    /// Show one region's deploy as a GitHub Deployment with a status.
    Deployment(deployment::Args),
    /// Sum up the rollout from its jobs; open, comment on or close the issue of one that waits.
    Finish(finish::Args),
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
    let common = &args.common;
    match &args.verb {
        Verb::Environments(args) => {
            let looking = Box::pin(environments::run(common, args, context));
            context.signals.end(looking).await
        }
        // Stopped between two requests they are whole again at the next call.
        Verb::Deployment(args) => deployment::run(common, args, context).await,
        Verb::Finish(args) => finish::run(common, args, context).await,
    }
}
