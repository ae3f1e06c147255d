//! provision-region: the servers of a region, ordered at Hetzner as regions.toml wants them.
//!
//! There is no state file: what carries our label is ours, a plan is the difference to regions.toml, and a run that was
//! killed anywhere is gone on with by running it again. `--dry-run` says what would be ordered and what it costs,
//! `status` and `drift` change nothing, `adopt` puts our label on what was made by hand. `host` turns one bare Debian or
//! Ubuntu server into a region host, over ssh as root.
//!
//! Ends 0; 2; 10 (a part is missing and the rest stands: sold out, busy, or differs); 12 (budget, somebody else's name,
//! protected, a plan that was not approved); 20 (nothing was changed); 21 (an order was sent and nobody knows its end).

mod addresses;
mod adopt;
mod apply;
mod destroy;
mod host;
mod look;
mod rebuild;
mod region;
mod setup;
mod status;
mod texts;
mod upgrade;
mod uploads;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use regionwise_cli::{Common, Context, Failure, Report, WithCommon};

/// Order the servers of a region as regions.toml wants them, or take them away.
#[derive(Parser)]
#[command(
    name = "provision-region",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Args {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    region: region::RegionArgs,

    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Turn a bare Debian or Ubuntu server into a region host; again: only what differs.
    Host(host::HostArgs),
    /// Show what is there; changes nothing.
    Status(status::Args),
    /// Compare what is there with regions.toml, and end 10 when it differs; changes nothing.
    Drift(status::Drift),
    /// Put another region-host on every host, one after the other, or go back to the one before.
    Upgrade(upgrade::Args),
    /// Put our label on resources that have the names of a region's and were made by hand.
    Adopt(adopt::Args),
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
        Some(Verb::Host(args)) => host::run(common, args, context).await,
        None if args.region.destroy => destroy::run(common, &args.region, context).await,
        None => region::run(common, &args.region, context).await,
        Some(Verb::Status(args)) => {
            let looking = Box::pin(status::run(common, args, context));
            context.signals.end(looking).await
        }
        Some(Verb::Drift(args)) => {
            let looking = Box::pin(status::drift(common, args, context));
            context.signals.end(looking).await
        }
        Some(Verb::Upgrade(args)) => upgrade::run(common, args, context).await,
        Some(Verb::Adopt(args)) => adopt::run(common, args, context).await,
    }
}
