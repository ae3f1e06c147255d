//! The lab's `regions.toml`: the world as its controller sees it, with gates and windows short enough for tests.

use std::fmt::Write as _;
use std::time::Duration;

use crate::layout::{Block, CLUSTERS, NODES, NodePlan, Part, REGIONS, RegionPlan, WORLD};

/// Name of the variable with a node's DSN, for example `LAB_US_PRIMARY_DSN`.
pub(crate) fn dsn_variable(node: &str) -> String {
    format!("LAB_{}_DSN", upper(node))
}

/// Name of the variable with the superuser's DSN of a node, for tests.
pub(crate) fn admin_dsn_variable(node: &str) -> String {
    format!("LAB_{}_ADMIN_DSN", upper(node))
}

/// How long an API of the lab remembers a user's home: a move's grace must pass within a test.
pub(crate) const ROUTE_CACHE_TTL: Duration = Duration::from_secs(2);

/// What `migrate-eu-users` does with an account of its own.
#[derive(Clone, Copy)]
pub(crate) enum MigrationRole {
    Install,
    Move,
    Verify,
}

impl MigrationRole {
    pub(crate) const ALL: [Self; 3] = [Self::Install, Self::Move, Self::Verify];

    pub(crate) fn account(self) -> &'static str {
        match self {
            Self::Install => "regionwise_install",
            Self::Move => "regionwise_mover",
            Self::Verify => "regionwise_verifier",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Move => "move",
            Self::Verify => "verify",
        }
    }

    /// Name of the variable with its DSN, for example `LAB_US_INSTALL_DSN`.
    pub(crate) fn variable(self, cluster: &str) -> String {
        format!("LAB_{}_{}_DSN", upper(cluster), upper(self.word()))
    }
}

fn upper(node: &str) -> String {
    node.replace('-', "_").to_uppercase()
}

/// The whole file.
pub(crate) fn text(block: Block, account: &str) -> String {
    let mut text = format!(
        "# Written by `lab up`: three regions on this machine, all of them in {}.\n\
         [product]\n\
         name = \"shop\"\n\n\
         [ssh]\n\
         user = \"{account}\"\n\
         known_hosts = \"known_hosts\"\n\
         identity = \"file:deploy_key\"\n",
        block.network()
    );
    for region in &REGIONS {
        write_region(&mut text, block, region);
    }
    for cluster in &CLUSTERS {
        let _ = writeln!(text, "\n[clusters.{}]", cluster.name);
        if let Some(residency) = cluster.residency {
            let _ = writeln!(text, "residency = \"{residency}\"");
        }
        let primary = NODES
            .iter()
            .find(|node| node.name == cluster.primary)
            .map(node_entry);
        let _ = writeln!(text, "primary = {}", primary.unwrap_or_default());
        let standbys: Vec<String> = cluster
            .standbys()
            .map(|node| format!("  {},\n", node_entry(node)))
            .collect();
        let _ = writeln!(text, "standbys = [\n{}]", standbys.concat());
        if cluster.sync > 0 {
            let _ = writeln!(text, "sync = {}", cluster.sync);
        }
    }
    write_migration(&mut text);
    text.push_str(RULES);
    text
}

fn write_migration(text: &mut String) {
    let [from, to] = &CLUSTERS;
    let (from, to) = (from.name, to.name);
    let _ = writeln!(
        text,
        "\n[migration]\nfrom = \"{from}\"\nto = \"{to}\"\nroot = \"users\"\nroute_cache_ttl = \"{}s\"\n\n[migration.roles]",
        ROUTE_CACHE_TTL.as_secs()
    );
    for role in MigrationRole::ALL {
        let _ = writeln!(
            text,
            "{} = {{ from = \"env:{}\", to = \"env:{}\" }}",
            role.word(),
            role.variable(from),
            role.variable(to)
        );
    }
}

fn write_region(text: &mut String, block: Block, region: &RegionPlan) {
    let RegionPlan {
        name,
        location,
        traffic,
        cluster,
        ..
    } = region;
    let url = block.seen_from(WORLD, Part::Edge(name));
    let _ = writeln!(
        text,
        "\n[regions.{name}]\nlocation = \"{location}\"\ntraffic = {traffic:.2}\ncluster = \"{cluster}\"\nurl = \"http://{url}\""
    );
    for host in region.hosts {
        let ssh = block.seen_from(WORLD, Part::HostSsh(host));
        let http = block.seen_from(WORLD, Part::HostHttp(host));
        let _ = writeln!(
            text,
            "\n[regions.{name}.hosts.{host}]\naddress = \"{}\"\nssh_port = {}\nhttp_port = {}",
            ssh.ip(),
            ssh.port(),
            http.port()
        );
    }
}

fn node_entry(node: &NodePlan) -> String {
    let (name, location, dsn) = (node.name, node.location, dsn_variable(node.name));
    format!("{{ name = \"{name}\", location = \"{location}\", dsn = \"env:{dsn}\" }}")
}

/// The EU's own rule, and every window of a rollout scaled down: a test must see each of them pass.
const RULES: &str = r#"
[residency.eu]
countries = ["AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE", "IT", "LV", "LT",
  "LU", "MT", "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE", "IS", "LI", "NO"]
locations = ["fsn1", "nbg1", "hel1"]
outage = "fail-closed"

[gates.lag]
threshold = "500ms"
sustained = "3s"
interval = "400ms"
clear_for = "1s"
timeout = "2s"

[gates.health]
interval = "200ms"
timeout = "1s"
failures = 3
successes = 3
max_failing_dependencies = 2

[rollout]
waves = [["ap-singapore"], ["eu-central"], ["us-east"]]
on_failure = "region"
soak = "0s"
start_deadline = "10s"
commit_window = "3s"
verify = "1s"
confirm_within = "8s"
drain = "5s"
lock_ttl = "5s"
"#;

#[cfg(test)]
mod tests {
    use regionwise_topology::{Secret, Topology};

    use super::text;
    use crate::layout::{Block, hosts};

    #[test]
    fn every_binary_can_read_what_the_lab_writes() {
        let topology = Topology::parse(
            "regions.toml",
            &text(Block { a: 77, b: 3 }, "regionwise-lab"),
        )
        .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(topology.ssh.user, "regionwise-lab");
        let found: usize = topology
            .regions
            .iter()
            .map(|region| region.hosts.len())
            .sum();
        assert_eq!(found, hosts().count());
        let migration = topology.migration.as_ref().expect("a migration");
        assert_eq!(
            (migration.from.as_str(), migration.to.as_str()),
            ("us", "eu")
        );
        assert_eq!(
            migration.roles.mover.to,
            Secret::Env("LAB_EU_MOVE_DSN".to_owned())
        );
        let primary = &topology.clusters["us"].primary;
        assert_eq!(primary.dsn, Secret::Env("LAB_US_PRIMARY_DSN".to_owned()));
        assert_eq!(
            (topology.clusters["us"].sync, topology.clusters["eu"].sync),
            (0, 1)
        );
        let host = &topology.region("eu-central").expect("a region").hosts[0];
        assert_eq!(
            (
                host.address.to_string().as_str(),
                host.ssh_port,
                host.http_port
            ),
            ("127.77.3.125", 2222, 8080)
        );
    }
}
