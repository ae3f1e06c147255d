//! plan-topology: what follows from regions.toml, written down.
//!
//! `workflow` writes the rollout workflow for GitHub: one job per region, in the order of the rollout. It looks at nothing
//! but regions.toml, and changes nothing but the file that `--output` names.
//!
//! Ends 0, 2, or 12 (`--check`: the file is not what regions.toml says now).

mod workflow;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use regionwise_cli::{Common, Context, Failure, Report, WithCommon};

/// Write down what follows from regions.toml.
#[derive(Parser)]
#[command(name = "plan-topology", version)]
struct Args {
    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write the rollout workflow for these regions, for GitHub Actions.
    Workflow(workflow::Args),
}

impl WithCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() -> ExitCode {
    regionwise_cli::start(run)
}

async fn run(args: Args, _: &Context) -> Result<Report, Failure> {
    match &args.verb {
        Verb::Workflow(workflow) => workflow::run(&args.common, workflow),
    }
}
