//! `--rebuild HOST`: which server that is, what goes with its disk, and whether it was said twice.

use regionwise_cli::{Failure, Finding, Level, Report};
use regionwise_provision::recipes::{self, Machine};
use regionwise_provision::{Inventory, Kind, Role, Spec, Wanted};
use regionwise_rollout::Verdict;
use regionwise_topology::{Region, Topology};

use crate::look::Seen;

/// The server to rebuild.
pub(crate) struct Chosen {
    /// Which of the projects it is in.
    pub(crate) project: usize,
    pub(crate) wanted: Wanted,
    host: String,
    /// What goes with its disk: sentences without their periods.
    losses: Vec<String>,
    /// Why it may not go, and what to do.
    forbidden: Option<(String, &'static str)>,
}

impl Chosen {
    /// The server of that host or node of the region.
    pub(crate) fn of(
        topology: &Topology,
        region: &Region,
        seen: &Seen<'_>,
        host: &str,
    ) -> Result<Self, Failure> {
        let servers = seen.projects.iter().enumerate().flat_map(|(at, project)| {
            let wanted = project.wanted.iter();
            wanted.filter_map(move |wanted| match &wanted.spec {
                Spec::Server(server) => Some((at, wanted, server)),
                _ => None,
            })
        });
        let servers: Vec<_> = servers.collect();
        let Some((at, wanted, _)) = servers.iter().find(|(_, _, server)| server.host == host)
        else {
            let names: Vec<&str> = servers
                .iter()
                .map(|(_, _, server)| server.host.as_str())
                .collect();
            let text = format!("`{host}` is no server of region `{}`", region.name);
            return Err(
                Failure::invalid(text).with_hint(format!("its servers: {}", names.join(", ")))
            );
        };
        let projects = seen.projects.iter();
        let inventories: Vec<&Inventory> = projects.map(|project| &project.inventory).collect();
        let machines = recipes::machines(&topology.product.name, &inventories);
        let machine = machines.iter().find(|known| known.server == wanted.name);
        let Some(machine) = machine else {
            let text = format!("`{host}` has no server yet");
            return Err(Failure::invalid(text).with_hint(
                "it is ordered by a run without --rebuild, and born with fresh user data",
            ));
        };
        let (losses, mut forbidden) = goes(topology, machine);
        let server = seen.projects[*at]
            .inventory
            .named(Kind::Server, &wanted.name);
        if server.is_some_and(|server| server.protected) {
            let text = "it is protected in the console".to_owned();
            forbidden = forbidden.or(Some((
                text,
                "lift the protection if its disk may really go",
            )));
        }
        Ok(Self {
            project: *at,
            wanted: (*wanted).clone(),
            host: host.to_owned(),
            losses,
            forbidden,
        })
    }

    /// The flags that say it twice.
    pub(crate) fn flags(&self) -> String {
        format!(" --rebuild {0} --confirm {0}", self.host)
    }

    /// What goes, and what speaks against it, as findings.
    pub(crate) fn warn(&self, report: &mut Report) {
        let forbidden = self.forbidden.iter();
        let forbidden =
            forbidden.map(|(why, _)| format!("`{}` may not be rebuilt: {why}", self.host));
        let losses = self.losses.iter().cloned();
        report
            .findings
            .extend(losses.chain(forbidden).map(|text| Finding {
                level: Level::Warning,
                text,
            }));
    }

    /// Ends the run where it may not be, or was not said twice.
    pub(crate) fn refusal(&self, confirmed: Option<&str>, mut report: Report) -> Option<Report> {
        let host = &self.host;
        let (reason, text, hint) = match (&self.forbidden, confirmed) {
            (Some((why, hint)), _) => (
                "may-not-go",
                format!("`{host}` may not be rebuilt: {why}"),
                (*hint).to_owned(),
            ),
            (None, Some(named)) if named == host => return None,
            (None, _) => (
                "unconfirmed",
                format!("The disk of `{host}` would go"),
                format!("add --confirm {host}"),
            ),
        };
        report.verdict = Verdict::Refused;
        report.summary = format!("{text}; nothing was changed.");
        self.warn(&mut report);
        Some(report.because(reason).with_hint(hint))
    }
}

/// What goes with the disk of a server, and why it must not.
fn goes(topology: &Topology, machine: &Machine) -> (Vec<String>, Option<(String, &'static str)>) {
    let host = &machine.host;
    let mut losses = Vec::new();
    let mut forbidden = None;
    if let Some((cluster, node)) = recipes::node_on(topology, machine.role, host) {
        let is_primary = cluster.primary.name == node.name;
        let (node, cluster) = (&node.name, &cluster.name);
        match (is_primary, machine.volume) {
            (true, None) => {
                forbidden = Some((
                    format!("the rows of cluster {cluster} are on its own disk, as primary `{node}`"),
                    "make a standby the primary first: docs/provision-host.md",
                ));
            }
            (false, None) => losses.push(format!("standby `{node}` is copied anew")),
            (true, Some(_)) => losses.push(format!(
                "cluster {cluster} takes no write until its primary `{node}` is set up again; its volume stays"
            )),
            (false, Some(_)) => losses.push(format!("standby `{node}` is away; its volume stays")),
        }
    }
    match machine.role {
        Role::Api => losses.push(format!(
            "what `{host}` serves ends, and its slots are empty afterwards: deploy the region again"
        )),
        Role::Redis => losses.push(format!("what Redis on `{host}` has is gone")),
        Role::Database => {}
    }
    (losses, forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(role: Role, host: &str, volume: Option<i64>) -> (String, bool) {
        let text = include_str!("../../examples/from-nothing.toml");
        // One of its nodes lives on a host.
        let text = text.replace(
            "name = \"us-primary\",",
            "name = \"us-primary\", host = \"us-1\",",
        );
        let topology = Topology::parse_unprovisioned("regions.toml", text.as_bytes()).unwrap();
        let machine = Machine {
            server: format!("shop-{host}"),
            host: host.to_owned(),
            region: "us-east".to_owned(),
            role,
            address: [203, 0, 113, 7].into(),
            wireguard: None,
            certificate: None,
            renews: false,
            rows: None,
            settled: true,
            volume,
        };
        let (losses, forbidden) = goes(&topology, &machine);
        (losses.join("; "), forbidden.is_some())
    }

    #[test]
    fn rows_on_the_disk_of_a_primary_stand_in_the_way_and_those_of_a_standby_or_a_volume_do_not() {
        let (_, forbidden) = losses(Role::Api, "us-1", None);
        assert!(forbidden, "the primary of us is on it");
        let (text, forbidden) = losses(Role::Database, "eu-primary", Some(7));
        assert!(!forbidden && text.contains("takes no write"), "{text}");
        let (_, forbidden) = losses(Role::Database, "eu-primary", None);
        assert!(forbidden);
        let (text, forbidden) = losses(Role::Redis, "us-east-redis", None);
        assert!(!forbidden && text.contains("is gone"), "{text}");
        let (text, forbidden) = losses(Role::Api, "eu-1", None);
        assert!(
            !forbidden && text.contains("deploy the region again"),
            "{text}"
        );
    }
}
