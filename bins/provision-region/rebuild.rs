//! `--rebuild HOST`: which server that is, what goes with its disk, and whether it was said twice.
//!
//! Where rows are, the server is asked: the file says only where they should be.

use std::net::IpAddr;
use std::time::Duration;

use regionwise_cli::{Failure, Finding, Level, Report};
use regionwise_provision::recipes::{self, Machine};
use regionwise_provision::{Change, Inventory, Kind, REBUILD, Role, Spec, Wanted};
use regionwise_remote::root::RootLogin;
use regionwise_rollout::Verdict;
use regionwise_topology::{Region, Topology};

use crate::addresses;
use crate::destroy::starved;
use crate::look::Seen;

/// A server that is up answers within this.
const ASKED_WITHIN: Duration = Duration::from_secs(30);

/// Prints `rows`, the part and the place for every cluster of ours, and `looked` at the end.
const LOOK: &str = "top=/var/lib/postgresql/regionwise
mountpoint -q $top && place=volume || place=disk
for there in $top/[0-9][0-9]/PG_VERSION; do
  [ -s \"$there\" ] || continue
  [ -e \"${there%/PG_VERSION}/standby.signal\" ] && part=standby || part=primary
  echo \"rows $part $place\"
done
echo looked";

/// Which rows are on a server, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// None that are not elsewhere, too: on a volume that stays, or with the primary.
    Safe,
    OnDisk,
    /// It could not be asked.
    Unknown,
}

/// The server to rebuild.
pub(crate) struct Chosen {
    /// Which of the projects it is in.
    pub(crate) project: usize,
    pub(crate) wanted: Wanted,
    /// Where it can be asked.
    pub(crate) address: IpAddr,
    host: String,
    /// Whether the file has a node on it.
    carries_node: bool,
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
        let half_done = server.is_some_and(|server| server.labels.contains_key(REBUILD));
        if !machine.settled && !half_done {
            let text = "it has not had its first session".to_owned();
            forbidden = forbidden.or(Some((
                text,
                "run it without --rebuild: that goes on with it",
            )));
        }
        // A set-up would not follow, and the server would be left with nothing on it.
        if seen.changes().any(Change::is_grave) || !addresses::wrong(region, seen).is_empty() {
            let text = "something in this region differs that only a person may change".to_owned();
            forbidden = forbidden.or(Some((text, "run it without --rebuild first: it says what")));
        }
        Ok(Self {
            project: *at,
            wanted: (*wanted).clone(),
            address: machine.address,
            host: host.to_owned(),
            carries_node: recipes::node_on(topology, machine.role, host).is_some(),
            losses,
            forbidden,
        })
    }

    /// Asks the server for rows that would go with its disk. What could not be seen needs another word of whoever runs this.
    pub(crate) async fn ask(&mut self, login: &RootLogin, confirmed: Option<&str>) {
        let (mut rows, mut looked) = (Rows::Safe, false);
        let ran = login
            .run(LOOK, &[], ASKED_WITHIN, &mut |line| match line {
                "rows primary disk" => rows = Rows::OnDisk,
                "looked" => looked = true,
                _ => {}
            })
            .await;
        if ran.is_err() || !looked {
            rows = Rows::Unknown;
        }
        let host = &self.host;
        let against = against(rows, self.carries_node, confirmed == Some(host));
        self.forbidden = self.forbidden.take().or(against);
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

/// What speaks against a rebuild in what the server said of its rows.
fn against(rows: Rows, carries_node: bool, confirmed: bool) -> Option<(String, &'static str)> {
    match rows {
        Rows::OnDisk => Some((
            "a primary has its rows on its own disk".to_owned(),
            "make a standby the primary first, or move the rows to a volume: docs/provision-host.md",
        )),
        Rows::Unknown if carries_node && !confirmed => Some((
            "nobody could look whether rows are on its disk".to_owned(),
            "add --confirm-data with its name if there are none, or if they may go",
        )),
        Rows::Safe | Rows::Unknown => None,
    }
}

/// What goes with the disk of a server, and why it must not.
fn goes(topology: &Topology, machine: &Machine) -> (Vec<String>, Option<(String, &'static str)>) {
    let host = &machine.host;
    let mut losses = Vec::new();
    let mut forbidden = None;
    if let Some((cluster, node)) = recipes::node_on(topology, machine.role, host) {
        let is_primary = cluster.primary.name == node.name;
        losses.extend(starved(cluster, |gone| gone.name == node.name));
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
    fn a_server_says_of_every_cluster_of_ours_what_it_is_and_where() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().display().to_string();
        let look = LOOK.replace("/var/lib/postgresql/regionwise", &top);
        let said = || {
            let output = std::process::Command::new("sh")
                .args(["-c", &look])
                .output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert_eq!(said(), "looked\n");
        let cluster = directory.path().join("15");
        std::fs::create_dir(&cluster).unwrap();
        assert_eq!(said(), "looked\n");
        std::fs::write(cluster.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(said(), "rows primary disk\nlooked\n");
        std::fs::write(cluster.join("standby.signal"), "").unwrap();
        assert_eq!(said(), "rows standby disk\nlooked\n");
    }

    #[test]
    fn what_the_server_says_of_its_rows_counts_and_silence_needs_another_word() {
        for carries in [true, false] {
            assert_eq!(against(Rows::Safe, carries, false), None);
            for confirmed in [true, false] {
                let (why, _) = against(Rows::OnDisk, carries, confirmed).unwrap();
                assert!(why.contains("on its own disk"), "{why}");
                let silent = against(Rows::Unknown, carries, confirmed);
                assert_eq!(silent.is_some(), carries && !confirmed);
            }
        }
    }

    #[test]
    fn rows_on_the_disk_of_a_primary_stand_in_the_way_and_those_of_a_standby_or_a_volume_do_not() {
        let (_, forbidden) = losses(Role::Api, "us-1", None);
        assert!(forbidden, "the primary of us is on it");
        let (text, forbidden) = losses(Role::Database, "eu-primary", Some(7));
        assert!(!forbidden && text.contains("takes no write"), "{text}");
        let (_, forbidden) = losses(Role::Database, "eu-primary", None);
        assert!(forbidden);
        let (text, forbidden) = losses(Role::Database, "eu-nbg", Some(7));
        assert!(
            !forbidden && text.contains("every commit of cluster `eu` waits"),
            "{text}"
        );
        let (text, forbidden) = losses(Role::Redis, "us-east-redis", None);
        assert!(!forbidden && text.contains("is gone"), "{text}");
        let (text, forbidden) = losses(Role::Api, "eu-1", None);
        assert!(
            !forbidden && text.contains("deploy the region again"),
            "{text}"
        );
    }
}
