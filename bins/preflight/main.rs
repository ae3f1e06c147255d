//! preflight: asks every region, before wave one, whether a rollout could start, and names everything in the way at once.
//!
//! Looks at configuration, release, ssh, helper versions, locks, disk, proxy, clocks, unsettled switches, database
//! logins and roles. Changes nothing: no lock is taken, nothing is sent.
//!
//! Ends 0 (nothing in the way), 2 (configuration), 10 (in the way now, or could not be looked at), 12 (a safety rule).

mod databases;
mod found;
mod hosts;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use futures_util::future::join_all;
use regionwise_cli::{Because, Common, Context, Failure, Hint, Report, WithCommon};
use regionwise_controller::Release;
use regionwise_topology::{Cluster, Region, Topology};

use found::Found;

/// Look at every region before a rollout starts; change nothing.
#[derive(Parser)]
#[command(name = "preflight", version)]
struct Args {
    #[command(flatten)]
    common: Common,

    /// The release file that is to be rolled out.
    #[arg(long, env = "REGIONWISE_RELEASE", value_name = "FILE")]
    release: Option<PathBuf>,

    /// Look only at these regions; all of them by default.
    #[arg(
        long = "region",
        env = "REGIONWISE_REGION",
        value_name = "NAME",
        value_delimiter = ','
    )]
    regions: Vec<String>,

    /// Say explicitly that this region is not part of the rollout.
    #[arg(
        long = "exclude-region",
        env = "REGIONWISE_EXCLUDE_REGION",
        value_name = "NAME",
        value_delimiter = ','
    )]
    excluded: Vec<String>,

    /// The rollout that is to start, as scripts/rollout names it: what its operations `ID-REGION` left behind when they
    /// died is theirs to resume, and not in the way.
    #[arg(long, env = "REGIONWISE_ROLLOUT", value_name = "ID")]
    rollout: Option<String>,

    /// Do not hold it against a host that the release which serves now is unhealthy.
    #[arg(long, env = "REGIONWISE_ACCEPT_UNHEALTHY")]
    accept_unhealthy: bool,

    /// Also log in to databases on other machines without TLS, for example inside a WireGuard mesh.
    #[arg(long, env = "REGIONWISE_ALLOW_PLAINTEXT")]
    allow_plaintext: bool,

    /// Leave the databases alone: for a controller that has no logins.
    #[arg(long, env = "REGIONWISE_SKIP_DATABASES")]
    skip_databases: bool,
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
    let regions = chosen(&args, &topology)?;
    let release = load(&args)?;
    let reach = context.reach(&args.common, &topology)?;
    let clusters = if args.skip_databases {
        Vec::new()
    } else {
        clusters_of(&topology, &regions)
    };
    let logins = databases::logins(&clusters, context, args.common.directory());

    let of_hosts = join_all(regions.iter().map(async |region| {
        let ours = args
            .rollout
            .as_ref()
            .map(|rollout| format!("{rollout}-{}", region.name));
        let asked = hosts::Asked {
            release: release.as_ref(),
            ours: ours.as_deref(),
            accept_unhealthy: args.accept_unhealthy,
        };
        hosts::look(region, &reach.access, &asked).await
    }));
    let of_databases = databases::look(&logins.ready, topology.lag.timeout, args.allow_plaintext);
    let looking = async { tokio::join!(of_hosts, of_databases) };
    let (by_region, by_node) = tokio::select! {
        looked = looking => looked,
        signal = context.signals.received() => {
            return Ok(Report::new(signal, "stopped by a signal before every answer had come"));
        }
    };
    let found: Vec<Found> = by_region
        .into_iter()
        .flatten()
        .chain(logins.missing)
        .chain(by_node)
        .collect();
    Ok(found::report(
        &found,
        &topology,
        &regions,
        release.as_ref(),
        clusters.len(),
    ))
}

/// The regions this rollout is about, in its order.
fn chosen<'a>(args: &Args, topology: &'a Topology) -> Result<Vec<&'a Region>, Failure> {
    for name in args.regions.iter().chain(&args.excluded) {
        args.common.region(topology, name)?;
    }
    let asked = |region: &&Region| args.regions.is_empty() || args.regions.contains(&region.name);
    let kept = |region: &&Region| !args.excluded.contains(&region.name);
    let regions: Vec<&Region> = topology.regions.iter().filter(asked).filter(kept).collect();
    if regions.is_empty() {
        return Err(Failure::invalid("no region is left to look at"));
    }
    Ok(regions)
}

fn load(args: &Args) -> Result<Option<Release>, Failure> {
    args.release
        .as_deref()
        .map(Release::load)
        .transpose()
        .invalid(|| "cannot load the release".to_owned())
        .hint(
            "a release file names `name`, `artifact`, and where needed `sha256`, `config`, `[env]`",
        )
}

fn clusters_of<'a>(topology: &'a Topology, regions: &[&Region]) -> Vec<&'a Cluster> {
    topology
        .clusters
        .values()
        .filter(|cluster| regions.iter().any(|region| region.cluster == cluster.name))
        .collect()
}
