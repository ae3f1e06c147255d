//! Rules of `[provision]`, and of what stands elsewhere for `provision-region`.

use ipnet::IpNet;

use crate::file::{Address, File, Range, RegionFile, Word};
use crate::problem::{Finding, Key, quoted};

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
