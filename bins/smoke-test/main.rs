//! `smoke-test`: is this release good in this region?
//!
//! Asks `/health/basic`, `/health/db` and `/health/full` of every host of the region, through the host's own proxy, and
//! of the region's URL, until the verdict is certain. Expects every answer to come from `--expect-release`. What the
//! endpoints answer is a contract: docs/health-endpoints.md.
//!
//! Ends 0 `proceed` (with warnings where one or two dependencies fail), 10 `pause` (databases, old reads, dependencies
//! that fail without this release too, anything that could not be measured), 11 `roll-back` (the release is bad here),
//! 2 `invalid`, 130 or 143 on a signal. Never 20 or 21. Changes nothing.

mod baseline;
mod observe;
mod report;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use regionwise_cli::{Common, Context, Failure, Report, WithCommon, duration};
use regionwise_rollout::health::{Endpoint, Rule};
use regionwise_topology::{HealthRule, Topology};

/// Decides whether a release is good in a region: go on, pause, or roll back.
#[derive(Parser)]
#[command(name = "smoke-test", version)]
struct Args {
    #[command(flatten)]
    common: Common,

    /// The region to look at.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: String,

    /// The release that must answer (`X-Release`). Without it, all hosts must answer as the same one.
    #[arg(long, env = "REGIONWISE_EXPECT_RELEASE", value_name = "NAME")]
    expect_release: Option<String>,

    /// Look at least this long, even when everything is good at once.
    #[arg(long = "for", env = "REGIONWISE_FOR", value_name = "DURATION", value_parser = duration, default_value = "0s")]
    at_least: Duration,

    /// Pause when one or two dependencies fail, instead of warning.
    #[arg(long, env = "REGIONWISE_STRICT")]
    strict: bool,

    /// Regions that this release has not reached: a dependency that fails there too is not its fault.
    #[arg(
        long,
        env = "REGIONWISE_COMPARE_WITH",
        value_name = "REGION",
        value_delimiter = ','
    )]
    compare_with: Vec<String>,

    /// What `smoke-test --format json` wrote before the deploy: a dependency that failed then is not this release's fault.
    #[arg(long, env = "REGIONWISE_BASELINE", value_name = "FILE")]
    baseline: Option<PathBuf>,

    /// The endpoints that the product has.
    #[arg(
        long,
        env = "REGIONWISE_ENDPOINTS",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "basic,db,full"
    )]
    endpoints: Vec<EndpointName>,

    #[command(flatten)]
    paths: Paths,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum EndpointName {
    Basic,
    Db,
    Full,
}

/// Where the product has its health endpoints.
#[derive(clap::Args, Clone)]
struct Paths {
    /// By default `gates.health.basic_path` of regions.toml.
    #[arg(long, env = "REGIONWISE_PATH_BASIC", value_name = "PATH")]
    path_basic: Option<String>,

    #[arg(
        long,
        env = "REGIONWISE_PATH_DB",
        value_name = "PATH",
        default_value = "/health/db"
    )]
    path_db: String,

    #[arg(
        long,
        env = "REGIONWISE_PATH_FULL",
        value_name = "PATH",
        default_value = "/health/full"
    )]
    path_full: String,
}

impl Paths {
    fn of<'a>(&'a self, endpoint: Endpoint, health: &'a HealthRule) -> &'a str {
        match endpoint {
            Endpoint::Basic => self.path_basic.as_ref().unwrap_or(&health.basic_path),
            Endpoint::Db => &self.path_db,
            Endpoint::Full => &self.path_full,
        }
    }
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
    let failed_before = baseline::failed_before(args.baseline.as_deref(), &args.region)?;
    let asked = targets::of(&topology, region, &args)?;
    let terms = observe::Terms {
        rule: rule(&topology, &args),
        expected: args.expect_release.as_deref(),
        failed_before,
    };
    let observed = observe::run(asked, &terms, context).await;
    Ok(report::of(&args, &terms, &observed))
}

fn rule(topology: &Topology, args: &Args) -> Rule {
    let health = &topology.health;
    Rule {
        interval: health.interval,
        timeout: health.timeout,
        failures: health.failures,
        successes: health.successes,
        max_failing_dependencies: health.max_failing_dependencies,
        // The release has started long ago: deploy-region waited for that.
        start_deadline: Duration::ZERO,
        at_least: args.at_least,
        lag_threshold: topology.lag.threshold,
        lag_sustained: topology.lag.sustained,
        strict: args.strict,
    }
}
