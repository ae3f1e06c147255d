//! provision-region: makes servers into hosts of a region, and says what was missing.
//!
//! `host` turns one bare Debian or Ubuntu server into a region host, over ssh as root. Running it again changes only what
//! differs.

mod host;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use regionwise_cli::{Common, Context, Failure, Report, WithCommon};

/// Make servers into hosts of a region.
#[derive(Parser)]
#[command(name = "provision-region", version)]
struct Args {
    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Turn a bare Debian or Ubuntu server into a region host; again: only what differs.
    Host(host::HostArgs),
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
        Verb::Host(host) => host::run(&args.common, host, context).await,
    }
}
