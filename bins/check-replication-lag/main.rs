//! `check-replication-lag`: may a rollout go on, as far as the standbys are concerned?
//!
//! Writes one token row per cluster (`regionwise.heartbeat`), looks for it on every standby that `regions.toml` expects,
//! and pauses when one is over `gates.lag.threshold` behind, or unknown, for longer than `gates.lag.sustained`. Starts
//! from the expected standbys, never from those that happen to be connected. Changes nothing else and removes its row.
//!
//! Ends 0 `proceed`, 2 `invalid`, 10 `pause` with a reason (also when it could not measure), 12 `refused` for what no
//! waiting heals, 130 or 143 on a signal. Never 20 or 21.

mod clock;
mod clusters;
mod line;
mod observe;
mod primary;
mod report;
mod samples;
mod setup;
mod standby;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use regionwise_cli::{Common, Context, Failure, Report, WithCommon, duration};
use regionwise_rollout::lag::Rule;
use regionwise_topology::LagRule;

/// Pauses a rollout while a standby is too far behind for too long.
#[derive(Parser)]
#[command(name = "check-replication-lag", version)]
struct Args {
    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    command: Option<Command>,

    /// Look at this cluster; may be repeated. Without it, and without --region: at all of them.
    #[arg(
        long,
        env = "REGIONWISE_CLUSTER",
        value_name = "NAME",
        value_delimiter = ','
    )]
    cluster: Vec<String>,

    /// Look at the cluster that this region uses, besides those that --cluster names.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: Option<String>,

    /// How long to look; a gate that passes has looked this long. Default: sustained + clear_for of gates.lag.
    #[arg(long, env = "REGIONWISE_OBSERVE", value_name = "DURATION", value_parser = duration)]
    observe: Option<Duration>,

    /// Wait until every standby is clean for clear_for, this long at most, instead of pausing at the first breach.
    #[arg(long, env = "REGIONWISE_WAIT", value_name = "DURATION", value_parser = duration, conflicts_with = "observe")]
    wait: Option<Duration>,

    /// Write every sample to this file, one JSON object per line.
    #[arg(long, env = "REGIONWISE_SAMPLES", value_name = "FILE")]
    samples: Option<PathBuf>,

    /// Accept measurements that are less exact than half the threshold.
    #[arg(long, env = "REGIONWISE_COARSE")]
    coarse: bool,

    /// Also talk to Postgres without TLS on another machine, for example inside a WireGuard mesh.
    #[arg(long, env = "REGIONWISE_ALLOW_PLAINTEXT")]
    allow_plaintext: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show what a cluster needs before it can be measured: schema, table, grants.
    Setup(setup::Args),
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
    if let Some(Command::Setup(args)) = &args.command {
        return Ok(setup::report(args));
    }
    let topology = args.common.topology()?;
    let rule = rule(&args, &topology.lag)?;
    let chosen = clusters::chosen(&topology, &args, context)?;
    let samples = samples::File::create(args.samples.as_deref())?;
    let terms = observe::Terms {
        rule,
        wait: args.wait,
        timeout: topology.lag.timeout,
        plaintext: args.allow_plaintext,
    };
    let observed = observe::run(&chosen, &terms, samples, context).await?;
    Ok(report::of(&chosen, &terms, &observed))
}

fn rule(args: &Args, lag: &LagRule) -> Result<Rule, Failure> {
    let observe = args.observe.unwrap_or(lag.sustained + lag.clear_for);
    if observe < lag.clear_for {
        let (observe, clear_for) = (
            humantime::format_duration(observe),
            humantime::format_duration(lag.clear_for),
        );
        let text = format!("--observe {observe} is shorter than gates.lag.clear_for, {clear_for}");
        return Err(Failure::invalid(text));
    }
    Ok(Rule {
        threshold: lag.threshold,
        sustained: lag.sustained,
        interval: lag.interval,
        clear_for: lag.clear_for,
        observe,
        coarse: args.coarse,
    })
}
