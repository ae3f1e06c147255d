//! rollback-region: one region back to the release before, from the warm slot where it still runs.
//!
//! With `--operation` it undoes only what that operation brought, and is a verified no-op where the region never left
//! its release. It touches no other region.
//!
//! Ends 0 (the region serves what it should), 2, 12 (nothing to go back to, or somebody else's release), 14, 20, 21, 22.

use std::process::ExitCode;

use clap::Parser;
use regionwise_cli::{Common, Context, Failure, Report, WithCommon, operation_id, report};
use regionwise_controller::{Operation, Rollback, rollback};

/// Bring one region back to the last verified release before this one.
#[derive(Parser)]
#[command(name = "rollback-region", version)]
struct Args {
    #[command(flatten)]
    common: Common,

    /// The region to bring back.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: String,

    /// Undo only this operation; refuse to leave a release that another one brought.
    #[arg(long, env = "REGIONWISE_OPERATION", value_name = "ID")]
    operation: Option<String>,

    /// Go to this release instead of the last verified one.
    #[arg(long, env = "REGIONWISE_TO", value_name = "RELEASE")]
    to: Option<String>,

    /// Say what would happen, change nothing.
    #[arg(long, env = "REGIONWISE_DRY_RUN")]
    dry_run: bool,
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
    let topology = args.common.topology()?;
    let region = args.common.region(&topology, &args.region)?;
    let undo = args
        .operation
        .as_deref()
        .map(|id| operation_id(Some(id), &region.name, context))
        .transpose()?;
    let id = match &undo {
        Some(undone) => format!("{undone}.rollback"),
        None => operation_id(None, &region.name, context)?,
    };
    let reach = context.reach(&args.common, &topology)?;
    let ending = rollback(
        &Rollback {
            region,
            access: &reach.access,
            operation: Operation {
                id: id.clone(),
                who: context.holder(),
                lock_ttl: topology.rollout.lock_ttl,
            },
            undo,
            to: args.to,
            rule: &topology.rollout,
            health: &topology.health,
            dry_run: args.dry_run,
        },
        &|line| context.progress.say(format!("{}: {line}", region.name)),
    )
    .await;
    Ok(report(&ending, &region.name, &id))
}
