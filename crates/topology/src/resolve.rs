//! From the file to the model: reads every value, asks every rule of [`crate::rules`], and reports all that is broken.

mod migration;
mod provision;

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use crate::file::{
    BudgetFile, ClusterFile, Currency, DurationText, File, GithubFile, HealthFile, HostFile,
    LagFile, Name, NodeFile, RegionFile, ResidencyFile, RolloutFile,
};
use crate::model::{
    Budget, Cluster, Github, HealthRule, Host, Jump, LagRule, Node, Product, Region, Residency,
    RolloutRule, Ssh, Topology, Unaddressed,
};
use crate::problem::{Finding, Key};
use crate::rules::values::{self, Limits};
use crate::rules::{self, github};

/// Whether every host must have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    Required,
    /// Their servers may be still to be made.
    Pending,
}

pub(crate) fn resolve(file: &File, addresses: Addresses) -> Result<Topology, Vec<Finding>> {
    let mut found = Found::default();
    let topology = topology(file, &mut found);
    if addresses == Addresses::Required {
        found.all(rules::provision::hosts_without_address(file));
    }
    match topology {
        Some(topology) if found.0.is_empty() => Ok(topology),
        _ => Err(found.0),
    }
}

/// The broken rules so far. A value with a broken rule is `None`, and what is made of it too.
#[derive(Default)]
struct Found(Vec<Finding>);

impl Found {
    fn read<T>(&mut self, value: Result<T, Finding>) -> Option<T> {
        value.map_err(|finding| self.0.push(finding)).ok()
    }

    fn all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }
}

fn topology(file: &File, found: &mut Found) -> Option<Topology> {
    let root = Key::default();
    found.all(values::not_a_name(
        &root.name("product").name("name"),
        &file.product.name,
    ));
    let ssh = ssh(file, found);
    let regions = regions(file, found);
    let clusters = clusters(file, found);
    let residencies = residencies(file, found);
    let lag = lag(&file.gates.lag, found);
    let health = health(&file.gates.health, found);
    let rollout = rollout(&file.rollout, file, health.as_ref(), found);
    // Not `?`: a file without the section is complete, one with a broken section is not.
    let migration = match &file.migration {
        None => Some(None),
        Some(section) => migration::section(section, file, found).map(Some),
    };
    let provision = match &file.provision {
        None => Some(None),
        Some(section) => provision::section(section, file, found).map(Some),
    };
    let github = github_section(&file.github, file, found);
    let rollout = rollout?;
    Some(Topology {
        product: Product {
            name: file.product.name.0.clone(),
        },
        ssh: ssh?,
        regions: in_order(regions?, &rollout.waves),
        clusters: clusters?,
        residencies,
        lag: lag?,
        health: health?,
        rollout,
        budget: file.budget.as_ref().map(budget),
        provision: provision?,
        migration: migration?,
        github,
    })
}

fn ssh(file: &File, found: &mut Found) -> Option<Ssh> {
    let (key, ssh) = (Key::default().name("ssh"), &file.ssh);
    found.all(values::not_an_account(&key.name("user"), &ssh.user));
    found.all(values::not_a_path(
        &key.name("known_hosts"),
        &ssh.known_hosts,
    ));
    let identity = found.read(values::secret(&key.name("identity"), &ssh.identity));
    let jump = ssh.jump.as_ref().map(|jump| {
        let key = key.name("jump");
        found.all(values::not_an_account(&key.name("user"), &jump.user));
        let address = found.read(values::address(&key.name("address"), &jump.address))?;
        found.all(rules::provision::shut_out(
            &key.name("address"),
            address,
            file,
        ));
        Some(Jump {
            address,
            user: jump.user.0.clone(),
            port: jump.port,
        })
    });
    let jump = match jump {
        None => None,
        Some(jump) => Some(jump?),
    };
    Some(Ssh {
        user: ssh.user.0.clone(),
        known_hosts: ssh.known_hosts.0.clone(),
        identity: identity?,
        jump,
    })
}

fn regions(file: &File, found: &mut Found) -> Option<Vec<Region>> {
    let key = Key::default().name("regions");
    let mut hosts = Vec::new();
    let regions: Vec<Option<Region>> = file
        .regions
        .iter()
        .map(|(name, region)| {
            self::region(&key.name(&name.0), name, region, file, &mut hosts, found)
        })
        .collect();
    found.all(rules::hosts_with_one_name(file));
    found.all(rules::hosts_with_one_address(&hosts));
    regions.into_iter().collect()
}

fn region(
    key: &Key,
    name: &Name,
    region: &RegionFile,
    file: &File,
    all_hosts: &mut Vec<(Key, Host)>,
    found: &mut Found,
) -> Option<Region> {
    found.all(values::key_not_a_name(key, name));
    found.all(values::not_a_location(
        &key.name("location"),
        &region.location,
    ));
    found.all(rules::cluster_unknown(key, region, file));
    found.all(rules::region_outside_residency(key, region, file));
    found.all(rules::provision::fallbacks_outside_residency(
        key, region, file,
    ));
    for (at, location) in region.fallback_locations.iter().enumerate() {
        let key = key.name("fallback_locations").index(at);
        found.all(values::not_a_location(&key, location));
    }
    let url = found.read(values::origin(&key.name("url"), &region.url));
    let (addressed, unaddressed): (Vec<_>, Vec<_>) = region
        .hosts
        .iter()
        .partition(|(_, host)| host.address.is_some());
    let hosts: Vec<Option<Host>> = addressed
        .into_iter()
        .map(|(name, host)| {
            let key = key.name("hosts").name(&name.0);
            let host = self::host(&key, name, host, url.as_ref(), found)?;
            all_hosts.push((key, host.clone()));
            Some(host)
        })
        .collect();
    for (name, _) in &unaddressed {
        found.all(values::key_not_a_name(
            &key.name("hosts").name(&name.0),
            name,
        ));
    }
    let https = url.as_ref().is_some_and(|url| url.scheme() == "https");
    let unaddressed = unaddressed.into_iter().map(|(name, host)| {
        let tls = host.tls.unwrap_or(https);
        let port = if tls { 443 } else { 80 };
        Unaddressed {
            name: name.0.clone(),
            tls,
            standard_ports: host.ssh_port == 22 && host.http_port.is_none_or(|found| found == port),
        }
    });
    Some(Region {
        name: name.0.clone(),
        location: region.location.0.clone(),
        traffic: region.traffic,
        fallback_locations: region
            .fallback_locations
            .iter()
            .map(|location| location.0.clone())
            .collect(),
        cluster: region.cluster.0.clone(),
        url: url?,
        hosts: hosts.into_iter().collect::<Option<_>>()?,
        unaddressed: unaddressed.collect(),
    })
}

fn host(
    key: &Key,
    name: &Name,
    host: &HostFile,
    region: Option<&Url>,
    found: &mut Found,
) -> Option<Host> {
    found.all(values::key_not_a_name(key, name));
    let text = host.address.as_ref()?;
    let address = found.read(values::address(&key.name("address"), text));
    let region = region?;
    let region_tls = region.scheme() == "https";
    let tls = host.tls.unwrap_or(region_tls);
    let default_port = match tls {
        _ if tls == region_tls => region.port_or_known_default(),
        true => Some(443),
        false => Some(80),
    };
    Some(Host {
        name: name.0.clone(),
        address: address?,
        ssh_port: host.ssh_port,
        http_port: host.http_port.or(default_port)?,
        tls,
    })
}

fn clusters(file: &File, found: &mut Found) -> Option<BTreeMap<String, Cluster>> {
    let key = Key::default().name("clusters");
    let clusters: Vec<_> = file
        .clusters
        .iter()
        .map(|(name, cluster)| {
            let cluster = self::cluster(&key.name(&name.0), name, cluster, file, found)?;
            Some((name.0.clone(), cluster))
        })
        .collect();
    found.all(rules::nodes_with_one_name(file));
    found.all(rules::nodes_with_one_dsn(file));
    found.all(rules::provision::region_of_a_node_unknown(file));
    found.all(rules::provision::host_of_a_node_unfit(file));
    found.all(rules::provision::two_nodes_on_one_host(file));
    clusters.into_iter().collect()
}

fn cluster(
    key: &Key,
    name: &Name,
    cluster: &ClusterFile,
    file: &File,
    found: &mut Found,
) -> Option<Cluster> {
    found.all(values::key_not_a_name(key, name));
    found.all(rules::residency_unknown(key, cluster, file));
    found.all(rules::nodes_outside_residency(key, cluster, file));
    found.all(rules::sync_exceeds_standbys(key, cluster));
    let primary = node(&key.name("primary"), &cluster.primary, found);
    let standbys: Vec<Option<Node>> = cluster
        .standbys
        .iter()
        .enumerate()
        .map(|(at, standby)| node(&key.name("standbys").index(at), standby, found))
        .collect();
    Some(Cluster {
        name: name.0.clone(),
        residency: cluster
            .residency
            .as_ref()
            .map(|residency| residency.0.clone()),
        primary: primary?,
        standbys: standbys.into_iter().collect::<Option<_>>()?,
        sync: cluster.sync,
    })
}

fn node(key: &Key, node: &NodeFile, found: &mut Found) -> Option<Node> {
    found.all(values::not_a_name(&key.name("name"), &node.name));
    found.all(values::not_a_location(
        &key.name("location"),
        &node.location,
    ));
    let dsn = found.read(values::secret(&key.name("dsn"), &node.dsn));
    Some(Node {
        name: node.name.0.clone(),
        location: node.location.0.clone(),
        dsn: dsn?,
        region: node.region.as_ref().map(|region| region.0.clone()),
        host: node.host.as_ref().map(|host| host.0.clone()),
    })
}

fn residencies(file: &File, found: &mut Found) -> BTreeMap<String, Residency> {
    let key = Key::default().name("residency");
    found.all(rules::residency_unused(file));
    found.all(rules::country_twice(file));
    let residencies = file.residency.iter();
    residencies
        .map(|(name, rule)| {
            (
                name.0.clone(),
                residency(&key.name(&name.0), name, rule, found),
            )
        })
        .collect()
}

fn residency(key: &Key, name: &Name, residency: &ResidencyFile, found: &mut Found) -> Residency {
    found.all(values::key_not_a_name(key, name));
    for (at, country) in residency.countries.iter().enumerate() {
        found.all(values::not_a_country(
            &key.name("countries").index(at),
            country,
        ));
    }
    for (at, location) in residency.locations.iter().enumerate() {
        found.all(values::not_a_location(
            &key.name("locations").index(at),
            location,
        ));
    }
    let token = residency
        .token
        .as_ref()
        .and_then(|token| found.read(values::secret(&key.name("token"), token)));
    Residency {
        name: name.0.clone(),
        token,
        countries: residency
            .countries
            .iter()
            .map(|country| country.0.clone())
            .collect(),
        locations: residency
            .locations
            .iter()
            .map(|location| location.0.clone())
            .collect(),
        outage: residency.outage,
    }
}

fn lag(lag: &LagFile, found: &mut Found) -> Option<LagRule> {
    let key = Key::default().name("gates").name("lag");
    let mut read = |name, text: &DurationText, limits| duration(&key, name, text, limits, found);
    let threshold = read("threshold", &lag.threshold, Limits::LAG);
    let sustained = read("sustained", &lag.sustained, Limits::STEP);
    let interval = read("interval", &lag.interval, Limits::PROBE);
    let clear_for = read("clear_for", &lag.clear_for, Limits::STEP);
    let timeout = read("timeout", &lag.timeout, Limits::PROBE);
    let rule = LagRule {
        threshold: threshold?,
        sustained: sustained?,
        interval: interval?,
        clear_for: clear_for?,
        timeout: timeout?,
    };
    found.all(rules::clear_for_holds_no_probe(&key, &rule, lag));
    found.all(rules::sustained_holds_no_probe(&key, &rule, lag));
    Some(rule)
}

fn health(health: &HealthFile, found: &mut Found) -> Option<HealthRule> {
    let key = Key::default().name("gates").name("health");
    found.all(values::not_a_url_path(
        &key.name("basic_path"),
        &health.basic_path,
    ));
    let interval = duration(&key, "interval", &health.interval, Limits::PROBE, found);
    let timeout = duration(&key, "timeout", &health.timeout, Limits::PROBE, found);
    Some(HealthRule {
        basic_path: health.basic_path.0.clone(),
        interval: interval?,
        timeout: timeout?,
        failures: health.failures,
        successes: health.successes,
        max_failing_dependencies: health.max_failing_dependencies,
    })
}

fn rollout(
    rollout: &RolloutFile,
    file: &File,
    health: Option<&HealthRule>,
    found: &mut Found,
) -> Option<RolloutRule> {
    let key = Key::default().name("rollout");
    if let Some(waves) = &rollout.waves {
        let key = key.name("waves");
        found.all(rules::wave_of_unknown_region(&key, waves, file));
        found.all(rules::region_in_two_waves(&key, waves));
        found.all(rules::region_in_no_wave(&key, waves, file));
        found.all(rules::wave_empty(&key, waves));
    }
    let mut read = |name, text: &DurationText, limits| duration(&key, name, text, limits, found);
    let soak = read("soak", &rollout.soak, Limits::SOAK);
    let start_deadline = read("start_deadline", &rollout.start_deadline, Limits::STEP);
    let commit_window = read("commit_window", &rollout.commit_window, Limits::STEP);
    let verify = read("verify", &rollout.verify, Limits::STEP);
    let confirm_within = read("confirm_within", &rollout.confirm_within, Limits::CONFIRM);
    let drain = read("drain", &rollout.drain, Limits::STEP);
    let lock_ttl = read("lock_ttl", &rollout.lock_ttl, Limits::LOCK);
    let rule = RolloutRule {
        waves: waves(rollout.waves.as_deref(), file),
        on_failure: rollout.on_failure,
        soak: soak?,
        start_deadline: start_deadline?,
        commit_window: commit_window?,
        verify: verify?,
        confirm_within: confirm_within?,
        drain: drain?,
        lock_ttl: lock_ttl?,
    };
    found.all(health.and_then(|health| rules::confirm_too_early(&key, &rule, health, rollout)));
    Some(rule)
}

fn duration(
    key: &Key,
    name: &str,
    text: &DurationText,
    limits: Limits,
    found: &mut Found,
) -> Option<Duration> {
    found.read(values::duration(&key.name(name), text, limits))
}

/// The waves of the file, else one region at a time: fewest users first, equal shares by name.
fn waves(waves: Option<&[Vec<Name>]>, file: &File) -> Vec<Vec<String>> {
    if let Some(waves) = waves {
        return waves
            .iter()
            .map(|wave| wave.iter().map(|name| name.0.clone()).collect())
            .collect();
    }
    let mut regions: Vec<_> = file.regions.iter().collect();
    regions.sort_by(|(a, a_region), (b, b_region)| {
        a_region.traffic.total_cmp(&b_region.traffic).then(a.cmp(b))
    });
    regions
        .into_iter()
        .map(|(name, _)| vec![name.0.clone()])
        .collect()
}

/// The regions as the waves name them.
fn in_order(mut regions: Vec<Region>, waves: &[Vec<String>]) -> Vec<Region> {
    let place = |region: &Region| waves.iter().flatten().position(|name| *name == region.name);
    regions.sort_by_key(place);
    regions
}

fn budget(budget: &BudgetFile) -> Budget {
    let currency = match budget.currency {
        Currency::Usd => "USD",
        Currency::Eur => "EUR",
    };
    Budget {
        amount: budget.amount,
        currency: currency.to_owned(),
    }
}

fn github_section(section: &GithubFile, file: &File, found: &mut Found) -> Github {
    let key = Key::default().name("github");
    found.all(github::protected_region_unknown(&key, section, file));
    found.all(github::protected_region_twice(&key, section));
    found.all(values::not_an_environment_prefix(
        &key.name("environment_prefix"),
        &section.environment_prefix,
    ));
    Github {
        protected: section
            .protected
            .iter()
            .map(|name| name.0.clone())
            .collect(),
        environment_prefix: section.environment_prefix.0.clone(),
    }
}
