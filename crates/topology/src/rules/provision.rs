//! Rules of `[provision]`, and of what stands elsewhere for `provision-region`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::file::{Address, File, Range, RegionFile, Word};
use crate::problem::{Finding, Key, quoted, ticked};

use super::values::not_a_word;
use super::{all_nodes, names, outside, twice, unknown};

/// Every other binary talks to the hosts.
pub(crate) fn hosts_without_address(file: &File) -> Vec<Finding> {
    let regions = Key::default().name("regions");
    let mut findings = Vec::new();
    for (region, of) in &file.regions {
        let key = regions.name(&region.0).name("hosts");
        for (name, _) in of.hosts.iter().filter(|(_, host)| host.address.is_none()) {
            let finding = Finding::new(
                &key.name(&name.0).name("address"),
                "missing",
                Address::ACCEPTED,
            );
            findings.push(match file.provision {
                Some(_) => finding.hint(format!(
                    "`provision-region --region {}` makes the server and writes it",
                    region.0
                )),
                None => finding,
            });
        }
    }
    findings
}

/// What serves the rows of a residency stays inside of it also when the first location is sold out.
pub(crate) fn fallbacks_outside_residency(
    key: &Key,
    region: &RegionFile,
    file: &File,
) -> Vec<Finding> {
    let residency = file
        .clusters
        .get(&region.cluster)
        .and_then(|cluster| cluster.residency.as_ref());
    let Some((name, rule)) = residency.and_then(|name| Some((name, file.residency.get(name)?)))
    else {
        return Vec::new();
    };
    let list = key.name("fallback_locations");
    region
        .fallback_locations
        .iter()
        .enumerate()
        .filter(|(_, location)| !rule.locations.contains(location))
        .map(|(at, location)| outside(&list.index(at), location, &name.0, &rule.locations))
        .collect()
}

pub(crate) fn region_of_a_node_unknown(file: &File) -> Vec<Finding> {
    all_nodes(file)
        .filter_map(|(key, node)| {
            let region = node.region.as_ref()?;
            let known = file.regions.contains_key(region);
            (!known).then(|| unknown(&key.name("region"), region, "region", names(&file.regions)))
        })
        .collect()
}

/// The host must be there, and where the node says that its rows are: the residency was checked for that place.
pub(crate) fn host_of_a_node_unfit(file: &File) -> Vec<Finding> {
    let hosts = || {
        file.regions
            .iter()
            .flat_map(|(region, of)| of.hosts.keys().map(move |host| (region, of, host)))
    };
    let mut findings = Vec::new();
    for (key, node) in all_nodes(file) {
        let Some(host) = &node.host else { continue };
        let Some((region, of, _)) = hosts().find(|(_, _, name)| *name == host) else {
            let known: Vec<&str> = hosts().map(|(_, _, name)| name.0.as_str()).collect();
            findings.push(unknown(&key.name("host"), host, "host", known.into_iter()));
            continue;
        };
        if node.location != of.location {
            let accepted = format!(
                "{}, where region {} and so its host {} stands",
                quoted(&of.location.0),
                ticked(&region.0),
                ticked(&host.0)
            );
            let found = quoted(&node.location.0);
            findings.push(Finding::new(&key.name("location"), found, accepted));
        }
        if node.region.as_ref().is_some_and(|named| named != region) {
            let accepted = format!("{}, the region of its host, or nothing", quoted(&region.0));
            let found = node.region.as_ref().map(|named| quoted(&named.0));
            let found = found.unwrap_or_default();
            findings.push(Finding::new(&key.name("region"), found, accepted));
        }
    }
    findings
}

/// They would share a port, a disk and a fate.
pub(crate) fn two_nodes_on_one_host(file: &File) -> Vec<Finding> {
    let hosts = all_nodes(file)
        .filter_map(|(key, node)| Some((node.host.as_ref()?.0.clone(), key.name("host"))));
    twice(hosts)
        .map(|(first, key, host)| {
            let found = format!("{}, as is `{first}`", quoted(&host));
            Finding::new(&key, found, "a host of its own")
        })
        .collect()
}

/// Nobody would know what to order.
pub(crate) fn nodes_without_types(file: &File) -> Option<Finding> {
    let database = file.provision.as_ref()?.database.as_ref()?;
    let (key, _) = all_nodes(file).find(|(_, node)| node.host.is_none())?;
    let types = Key::default()
        .name("provision")
        .name("database")
        .name("types");
    database.types.is_none().then(|| {
        Finding::new(&types, "missing", "a list of Hetzner's types").hint(format!(
            "it may be left out where every node has a `host`, and `{key}` has none"
        ))
    })
}

/// The host that everybody comes through must be let in.
pub(crate) fn shut_out(key: &Key, jump: IpAddr, file: &File) -> Vec<Finding> {
    let Some(provision) = &file.provision else {
        return Vec::new();
    };
    let ranges = provision.ssh_from.iter();
    // What is no range is found where it stands.
    let mut ranges = ranges.filter_map(|range| range.0.parse::<IpNet>().ok());
    match ranges.any(|range| range.contains(&jump)) {
        true => Vec::new(),
        false => vec![
            Finding::new(
                key,
                quoted(&jump.to_string()),
                "an address in `provision.ssh_from`",
            )
            .hint(format!(
                "add \"{}\" to provision.ssh_from",
                IpNet::from(jump)
            )),
        ],
    }
}

/// A host bit in a range is a slip that opens more, or less, than somebody meant.
pub(crate) fn range(key: &Key, range: &Range) -> Result<IpNet, Finding> {
    let parsed: Option<IpNet> = range.0.parse().ok();
    let Some(net) = parsed else {
        return Err(Finding::new(key, quoted(&range.0), Range::ACCEPTED));
    };
    if net != net.trunc() {
        let hint = format!("the range of that prefix is `{}`", net.trunc());
        return Err(Finding::new(key, quoted(&range.0), Range::ACCEPTED).hint(hint));
    }
    Ok(net)
}

pub(crate) fn not_types(key: &Key, types: &[Word]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = types
        .iter()
        .enumerate()
        .filter_map(|(at, word)| not_a_word(&key.index(at), word))
        .collect();
    let members = types
        .iter()
        .enumerate()
        .map(|(at, word)| (word.0.clone(), key.index(at)));
    findings.extend(twice(members).map(|(first, key, name)| {
        let found = format!("{}, as is `{first}`", quoted(&name));
        Finding::new(&key, found, "each type once")
    }));
    findings
}
