//! The addresses of new servers, written into regions.toml where hosts have none.

use std::io::Write;

use regionwise_cli::{Because, Common, Failure, Hint};
use regionwise_provision::{Change, Detail, Kind, Role, Spec};
use regionwise_rollout::Verdict;
use regionwise_topology::{Host, Region};
use toml_edit::{DocumentMut, value};

use crate::look::Seen;

/// Host and address of every API server of the region that has one.
pub(crate) fn known(seen: &Seen<'_>) -> Vec<(String, String)> {
    let mut known = Vec::new();
    for project in &seen.projects {
        for wanted in &project.wanted {
            let Spec::Server(spec) = &wanted.spec else {
                continue;
            };
            let found = project.inventory.named(Kind::Server, &wanted.name);
            if let (Role::Api, Some(Detail::Server(server))) =
                (spec.role, found.map(|found| &found.detail))
                && let Some((_, address)) = &server.address
            {
                known.push((spec.host.clone(), address.clone()));
            }
        }
    }
    known
}

/// Hosts for which the file has another address than their server.
pub(crate) fn wrong(region: &Region, seen: &Seen<'_>) -> Vec<String> {
    let known = known(seen);
    let differs = |host: &Host| {
        let (_, address) = known.iter().find(|(name, _)| *name == host.name)?;
        let same = address.parse() == Ok(host.address);
        (!same).then(|| {
            format!(
                "{} has {address}, and the file says {}",
                host.name, host.address
            )
        })
    };
    region.hosts.iter().filter_map(differs).collect()
}

/// Hosts that the file has an address for, without a server, and without a kept primary IP that the next server would get.
pub(crate) fn lost(region: &Region, seen: &Seen<'_>) -> Vec<String> {
    let ordered = |host: &Host| {
        seen.changes().find_map(|change| match change {
            Change::Create(wanted) => match &wanted.spec {
                Spec::Server(spec) if spec.host == host.name => Some((&wanted.name, spec)),
                _ => None,
            },
            _ => None,
        })
    };
    let comes_back = |host: &Host, name: &str, locations: &[String]| {
        seen.projects.iter().any(|project| {
            let kept = project.inventory.kept_address(name, locations);
            matches!(kept.map(|kept| &kept.detail), Some(Detail::Address(address)) if address.text.parse() == Ok(host.address))
        })
    };
    let is_lost = |host: &&Host| {
        ordered(host).is_some_and(|(name, server)| !comes_back(host, name, &server.locations))
    };
    region
        .hosts
        .iter()
        .filter(is_lost)
        .map(|host| format!("{} ({})", host.name, host.address))
        .collect()
}

/// Writes them, with everything else in the file as it was; returns the names of the hosts.
pub(crate) fn write(
    common: &Common,
    region: &Region,
    seen: &Seen<'_>,
) -> Result<Vec<String>, Failure> {
    let new: Vec<(String, String)> = known(seen)
        .into_iter()
        .filter(|(host, _)| {
            region
                .unaddressed
                .iter()
                .any(|pending| pending.name == *host)
        })
        .collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let path = &common.config;
    let unwritten = || {
        let pairs: Vec<String> = new
            .iter()
            .map(|(host, address)| format!("{host} {address}"))
            .collect();
        format!(
            "the servers are there, and `{}` could not be changed: {}",
            path.display(),
            pairs.join(", ")
        )
    };
    let again = "write the addresses yourself, or make the file writable and run it again";
    let text = std::fs::read_to_string(path)
        .because(Verdict::Pause, unwritten)
        .hint(again)?;
    let mut document: DocumentMut = text
        .parse()
        .because(Verdict::Pause, unwritten)
        .hint(again)?;
    for (host, address) in &new {
        document["regions"][&region.name]["hosts"][host]["address"] = value(address);
    }
    let replace = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(common.directory())?;
        file.write_all(document.to_string().as_bytes())?;
        file.as_file()
            .set_permissions(std::fs::metadata(path)?.permissions())?;
        file.persist(path)?;
        Ok(())
    };
    replace().because(Verdict::Pause, unwritten).hint(again)?;
    Ok(new.into_iter().map(|(host, _)| host).collect())
}
