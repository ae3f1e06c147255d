//! What `regions.toml` must keep: one function for each reason to refuse a file. Here are those that look at the file as a
//! whole, or at parts that must fit each other.

pub(crate) mod backup;
pub(crate) mod github;
pub(crate) mod migration;
pub(crate) mod provision;
pub(crate) mod values;

use std::collections::BTreeMap;

use crate::file::{ClusterFile, File, LagFile, Location, Name, NodeFile, RegionFile, RolloutFile};
use crate::model::{HealthRule, Host, LagRule, RolloutRule};
use crate::problem::{Finding, Key, listed, quoted, ticked};

use values::{is_name, secret, spelled};

// Regions and hosts.

pub(crate) fn cluster_unknown(key: &Key, region: &RegionFile, file: &File) -> Option<Finding> {
    (!file.clusters.contains_key(&region.cluster)).then(|| {
        unknown(
            &key.name("cluster"),
            &region.cluster,
            "cluster",
            names(&file.clusters),
        )
    })
}

/// Hosts of a region hold the rows of its cluster in memory: that is processing them there.
pub(crate) fn region_outside_residency(
    key: &Key,
    region: &RegionFile,
    file: &File,
) -> Option<Finding> {
    let cluster = file.clusters.get(&region.cluster)?;
    let residency = cluster.residency.as_ref()?;
    let allowed = &file.residency.get(residency)?.locations;
    (!allowed.contains(&region.location)).then(|| {
        let (cluster, residency) = (&region.cluster.0, &residency.0);
        outside(&key.name("location"), &region.location, residency, allowed).hint(format!(
            "this region serves cluster {}, whose rows residency {} binds",
            ticked(cluster),
            ticked(residency)
        ))
    })
}

pub(crate) fn hosts_with_one_name(file: &File) -> Vec<Finding> {
    let names = hosts(file).map(|(key, name)| (name.0.clone(), key));
    twice(names)
        .map(|(first, key, _)| {
            Finding::new(&key, format!("a name that `{first}` has too"), OWN_NAME)
        })
        .collect()
}

/// One server under two names would be switched twice and counted twice.
pub(crate) fn hosts_with_one_address(hosts: &[(Key, Host)]) -> Vec<Finding> {
    let mut findings = hosts_with_one_port(hosts, "ssh_port", |host| host.ssh_port);
    let same_proxy = hosts_with_one_port(hosts, "http_port", |host| host.http_port);
    for finding in same_proxy {
        if findings.iter().all(|known| known.key != finding.key) {
            findings.push(finding);
        }
    }
    findings
}

fn hosts_with_one_port(
    hosts: &[(Key, Host)],
    name: &str,
    port: impl Fn(&Host) -> u16,
) -> Vec<Finding> {
    let ports = hosts
        .iter()
        .map(|(key, host)| ((host.address, port(host)), key.clone()));
    twice(ports)
        .map(|(first, key, (address, port))| {
            let found = format!("{address} with {name} {port}, as is `{first}`");
            Finding::new(
                &key.name("address"),
                found,
                format!("an address and {name} of its own"),
            )
        })
        .collect()
}

// Clusters and residencies.

pub(crate) fn residency_unknown(key: &Key, cluster: &ClusterFile, file: &File) -> Option<Finding> {
    let residency = cluster.residency.as_ref()?;
    (!file.residency.contains_key(residency)).then(|| {
        unknown(
            &key.name("residency"),
            residency,
            "residency",
            names(&file.residency),
        )
    })
}

/// A standby holds every row of its cluster, so each node must stand where the rows may be.
pub(crate) fn nodes_outside_residency(
    key: &Key,
    cluster: &ClusterFile,
    file: &File,
) -> Vec<Finding> {
    let Some(residency) = &cluster.residency else {
        return Vec::new();
    };
    let Some(rule) = file.residency.get(residency) else {
        return Vec::new();
    };
    nodes(key, cluster)
        .filter(|(_, node)| !rule.locations.contains(&node.location))
        .map(|(key, node)| {
            let residency = &residency.0;
            outside(
                &key.name("location"),
                &node.location,
                residency,
                &rule.locations,
            )
            .hint(format!(
                "node {} would hold a copy of every row of residency {}",
                ticked(&node.name.0),
                ticked(residency)
            ))
        })
        .collect()
}

/// A commit would wait for a standby that is not there.
pub(crate) fn sync_exceeds_standbys(key: &Key, cluster: &ClusterFile) -> Option<Finding> {
    let standbys = cluster.standbys.len();
    (cluster.sync as usize > standbys).then(|| {
        let accepted = format!("at most the number of standbys, which is {standbys}");
        Finding::new(&key.name("sync"), cluster.sync.to_string(), accepted)
    })
}

pub(crate) fn nodes_with_one_name(file: &File) -> Vec<Finding> {
    let names = all_nodes(file).map(|(key, node)| (node.name.0.clone(), key));
    twice(names)
        .map(|(first, key, name)| {
            let found = format!("{}, as is `{first}.name`", quoted(&name));
            Finding::new(&key.name("name"), found, OWN_NAME)
        })
        .collect()
}

/// Two nodes with one connection string: the lag of a standby would be read from the primary, and always be 0.
pub(crate) fn nodes_with_one_dsn(file: &File) -> Vec<Finding> {
    let references = all_nodes(file).filter_map(|(key, node)| {
        Some((secret(&key, &node.dsn).ok()?.to_string(), key.name("dsn")))
    });
    twice(references)
        .map(|(first, key, reference)| {
            let found = format!("{}, as is `{first}`", quoted(&reference));
            Finding::new(&key, found, "a connection string of its own")
        })
        .collect()
}

/// A rule that binds no cluster protects nobody; most likely the cluster forgot to name it.
pub(crate) fn residency_unused(file: &File) -> Vec<Finding> {
    let named = || {
        file.clusters
            .values()
            .filter_map(|cluster| cluster.residency.as_ref())
    };
    if named().any(|name| !file.residency.contains_key(name)) {
        // One of these names was meant: `residency_unknown` says so.
        return Vec::new();
    }
    let used = |name: &Name| named().any(|other| other == name);
    file.residency
        .keys()
        .filter(|name| !used(name))
        .map(|name| {
            Finding::new(
                &residencies().name(&name.0),
                "a residency that no cluster has",
                "a residency of a cluster",
            )
            .hint(format!(
                "write `residency = {}` into the cluster that holds these rows",
                quoted(&name.0)
            ))
        })
        .collect()
}

/// The home of a user would not be decided.
pub(crate) fn country_twice(file: &File) -> Vec<Finding> {
    let countries = file.residency.iter().flat_map(|(name, residency)| {
        let list = residencies().name(&name.0).name("countries");
        residency
            .countries
            .iter()
            .enumerate()
            .map(move |(at, country)| (country.0.clone(), list.index(at)))
    });
    twice(countries)
        .map(|(first, key, country)| {
            let found = format!("{}, as is `{first}`", quoted(&country));
            Finding::new(&key, found, "each country once")
        })
        .collect()
}

// Gates and rollout.

/// The clean end of an observation could hold no probe at all, and no probe is not a clean one.
pub(crate) fn clear_for_holds_no_probe(
    key: &Key,
    rule: &LagRule,
    file: &LagFile,
) -> Option<Finding> {
    (rule.clear_for < rule.interval).then(|| {
        let accepted = format!("at least the interval, which is {}", spelled(rule.interval));
        Finding::new(&key.name("clear_for"), quoted(&file.clear_for.0), accepted)
    })
}

/// A breach could begin and end between two probes.
pub(crate) fn sustained_holds_no_probe(
    key: &Key,
    rule: &LagRule,
    file: &LagFile,
) -> Option<Finding> {
    (rule.sustained < rule.interval).then(|| {
        let accepted = format!("at least the interval, which is {}", spelled(rule.interval));
        Finding::new(&key.name("sustained"), quoted(&file.sustained.0), accepted)
    })
}

/// Hosts would switch back while `deploy-region` still looks at them: it gives an endpoint that changes its mind the time
/// for one more streak of each kind, and the last probe its whole timeout.
pub(crate) fn confirm_too_early(
    key: &Key,
    rule: &RolloutRule,
    health: &HealthRule,
    file: &RolloutFile,
) -> Option<Finding> {
    let streaks = health.interval * (health.failures + health.successes);
    let needed = rule.commit_window + rule.verify + streaks + health.timeout;
    (rule.confirm_within <= needed).then(|| {
        let accepted = format!(
            "longer than commit_window, verify, and of gates.health interval * (failures + successes) and timeout \
             together, which are {}",
            spelled(needed)
        );
        Finding::new(
            &key.name("confirm_within"),
            quoted(&file.confirm_within.0),
            accepted,
        )
    })
}

pub(crate) fn wave_of_unknown_region(key: &Key, waves: &[Vec<Name>], file: &File) -> Vec<Finding> {
    members(key, waves)
        .filter(|(_, name)| !file.regions.contains_key(name))
        .map(|(key, name)| unknown(&key, name, "region", names(&file.regions)))
        .collect()
}

pub(crate) fn region_in_two_waves(key: &Key, waves: &[Vec<Name>]) -> Vec<Finding> {
    twice(members(key, waves).map(|(key, name)| (name.0.clone(), key)))
        .map(|(first, key, name)| {
            let found = format!("{}, as is `{first}`", quoted(&name));
            Finding::new(&key, found, "each region once")
        })
        .collect()
}

pub(crate) fn region_in_no_wave(key: &Key, waves: &[Vec<Name>], file: &File) -> Option<Finding> {
    let missing = file
        .regions
        .keys()
        .filter(|name| !waves.iter().flatten().any(|member| member == *name));
    let missing = listed(missing.map(|name| name.0.as_str()));
    (!missing.is_empty()).then(|| {
        Finding::new(key, format!("without {missing}"), "each region once")
            .hint("without `waves` the regions go one by one in ascending traffic")
    })
}

pub(crate) fn wave_empty(key: &Key, waves: &[Vec<Name>]) -> Vec<Finding> {
    let empty = waves.iter().enumerate().filter(|(_, wave)| wave.is_empty());
    empty
        .map(|(at, _)| Finding::new(&key.index(at), "empty", "at least one region"))
        .collect()
}

const OWN_NAME: &str = "a name of its own";

fn unknown<'a>(
    key: &Key,
    name: &Name,
    of: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Finding {
    let accepted = match listed(known.clone()) {
        none if none.is_empty() => format!("a {of} of this file"),
        some => format!("a {of} of this file: {some}"),
    };
    Finding::new(key, quoted(&name.0), accepted).meant(&name.0, known)
}

fn outside(key: &Key, location: &Location, residency: &str, allowed: &[Location]) -> Finding {
    let allowed = listed(allowed.iter().map(|location| location.0.as_str()));
    Finding::new(
        key,
        quoted(&location.0),
        format!("a location of residency {}: {allowed}", ticked(residency)),
    )
}

/// Only what is a name: anything else has its own finding, and could be a secret in the wrong place.
fn names<T>(table: &BTreeMap<Name, T>) -> impl Iterator<Item = &str> + Clone {
    table
        .keys()
        .map(|name| name.0.as_str())
        .filter(|name| is_name(name))
}

fn hosts(file: &File) -> impl Iterator<Item = (Key, &Name)> {
    file.regions.iter().flat_map(|(name, region)| {
        let hosts = Key::default().name("regions").name(&name.0).name("hosts");
        region
            .hosts
            .keys()
            .map(move |host| (hosts.name(&host.0), host))
    })
}

fn all_nodes(file: &File) -> impl Iterator<Item = (Key, &NodeFile)> {
    let clusters = Key::default().name("clusters");
    file.clusters
        .iter()
        .flat_map(move |(name, cluster)| nodes(&clusters.name(&name.0), cluster))
}

fn nodes<'a>(
    key: &Key,
    cluster: &'a ClusterFile,
) -> impl Iterator<Item = (Key, &'a NodeFile)> + use<'a> {
    let standbys = key.name("standbys");
    let primary = std::iter::once((key.name("primary"), &cluster.primary));
    primary.chain(
        cluster
            .standbys
            .iter()
            .enumerate()
            .map(move |(at, node)| (standbys.index(at), node)),
    )
}

fn members<'a>(key: &Key, waves: &'a [Vec<Name>]) -> impl Iterator<Item = (Key, &'a Name)> {
    waves.iter().enumerate().flat_map(move |(at, wave)| {
        let wave_key = key.index(at);
        wave.iter()
            .enumerate()
            .map(move |(at, name)| (wave_key.index(at), name))
    })
}

fn residencies() -> Key {
    Key::default().name("residency")
}

/// Every item that came before under the same mark: (where first, where again, the mark).
fn twice<M: Ord + Clone>(
    items: impl Iterator<Item = (M, Key)>,
) -> impl Iterator<Item = (Key, Key, M)> {
    let mut seen: BTreeMap<M, Key> = BTreeMap::new();
    items.filter_map(move |(mark, key)| {
        if let Some(first) = seen.get(&mark) {
            return Some((first.clone(), key, mark));
        }
        seen.insert(mark, key);
        None
    })
}
