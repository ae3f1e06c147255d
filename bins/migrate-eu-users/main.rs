//! migrate-eu-users: moves users' rows between two live Postgres clusters, with every row proven.
//!
//! `install` puts the fence into both clusters, `plan` says what would move and why not, `run` moves under live writes,
//! `verify` proves again, `revert` moves back, `purge` deletes what is proven elsewhere. A user is never writable in two
//! clusters, and no crash loses a write: every change of a home is one compare-and-set under the user's home lock.
//!
//! Ends 0, 2, 10 (a row is not equal, or users are set aside), 12 (the plan refuses), 20 (nothing was begun), 21 (contact
//! lost midway: run it again), 22 (another plan's run is under way), 130, 143 (a clean stop at a safe point).

mod clusters;
mod counts;
mod install;
mod plan;
mod purge;
mod reconcile;
mod report;
mod run;
mod status;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use regionwise_cli::{Common, Context, Failure, Report, WithCommon};

/// Move users' rows between two live Postgres clusters, with every row proven.
#[derive(Parser)]
#[command(name = "migrate-eu-users", version)]
struct Args {
    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Put the fence, the routes and the journal into both clusters.
    Install(install::Args),
    /// Show what would move, what speaks against it, and the plan's hash; changes nothing.
    Plan(plan::Args),
    /// Move the users of a plan.
    Run(run::Args),
    /// Prove again that everything moved so far is complete and equal.
    Verify(verify::Args),
    /// Show what moved, what waits and what is set aside, from the journal alone.
    Status(status::Args),
    /// Move users back the same way; only what differs is sent.
    Revert(run::Args),
    /// After a promotion: compare both clusters' routes before writes open.
    Reconcile(reconcile::Args),
    /// Delete at the source exactly the rows that are proven at the target.
    Purge(purge::Args),
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
    let (common, signals) = (&args.common, &context.signals);
    match &args.verb {
        Verb::Install(args) => install::run(common, args, context).await,
        Verb::Plan(args) => {
            signals
                .end(Box::pin(plan::run(common, args, context)))
                .await
        }
        Verb::Run(args) => run::run(common, args, context, run::Way::There).await,
        Verb::Verify(args) => {
            signals
                .end(Box::pin(verify::run(common, args, context)))
                .await
        }
        Verb::Status(args) => {
            signals
                .end(Box::pin(status::run(common, args, context)))
                .await
        }
        Verb::Revert(args) => run::run(common, args, context, run::Way::Back).await,
        Verb::Reconcile(args) => reconcile::run(common, args, context).await,
        Verb::Purge(args) => purge::run(common, args, context).await,
    }
}
