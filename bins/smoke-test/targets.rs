//! Who is asked what.

use std::time::Duration;

use regionwise_cli::{Because, Failure};
use regionwise_remote::http::{Probe, ProbeError};
use regionwise_rollout::Verdict;
use regionwise_rollout::health::Endpoint;
use regionwise_topology::{Region, Topology};

use crate::{Args, EndpointName};

/// Everybody that is asked.
pub(crate) struct Asked {
    /// Hosts and URL of the region.
    pub(crate) region: Vec<Question>,
    /// Hosts of the regions to compare with.
    pub(crate) untouched: Vec<Question>,
}

/// One address and what it is asked.
pub(crate) struct Question {
    pub(crate) probe: Probe,
    /// Endpoint and path.
    pub(crate) endpoints: Vec<(Endpoint, String)>,
}

pub(crate) fn of(topology: &Topology, region: &Region, args: &Args) -> Result<Asked, Failure> {
    let timeout = topology.health.timeout;
    let endpoints: Vec<(Endpoint, String)> = chosen(&args.endpoints)
        .into_iter()
        .map(|end| (end, args.paths.of(end, &topology.health).to_owned()))
        .collect();
    let mut probes = hosts(region, timeout)?;
    probes.push(usable(region, Probe::of_region(region, timeout))?);
    // Only the dependencies are compared.
    let full = vec![(
        Endpoint::Full,
        args.paths.of(Endpoint::Full, &topology.health).to_owned(),
    )];
    let mut untouched = Vec::new();
    for name in &args.compare_with {
        if *name == region.name {
            return Err(Failure::invalid(format!(
                "`{name}` cannot be compared with itself"
            )));
        }
        untouched.extend(hosts(args.common.region(topology, name)?, timeout)?);
    }
    let question = |endpoints: &Vec<(Endpoint, String)>| {
        let endpoints = endpoints.clone();
        move |probe| Question {
            probe,
            endpoints: endpoints.clone(),
        }
    };
    Ok(Asked {
        region: probes.into_iter().map(question(&endpoints)).collect(),
        untouched: untouched.into_iter().map(question(&full)).collect(),
    })
}

fn hosts(region: &Region, timeout: Duration) -> Result<Vec<Probe>, Failure> {
    region
        .hosts
        .iter()
        .map(|host| usable(region, Probe::of_host(region, host, timeout)))
        .collect()
}

fn usable(region: &Region, probe: Result<Probe, ProbeError>) -> Result<Probe, Failure> {
    probe.because(Verdict::Pause, || {
        format!("cannot prepare to ask region `{}`", region.name)
    })
}

fn chosen(names: &[EndpointName]) -> Vec<Endpoint> {
    let of = |name: &EndpointName| match name {
        EndpointName::Basic => Endpoint::Basic,
        EndpointName::Db => Endpoint::Db,
        EndpointName::Full => Endpoint::Full,
    };
    let named: Vec<Endpoint> = names.iter().map(of).collect();
    Endpoint::ALL
        .into_iter()
        .filter(|end| named.contains(end))
        .collect()
}
