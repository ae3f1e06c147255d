//! What each server of a product is to be: from regions.toml, from what the provider has, and from what the servers say of
//! themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use regionwise_topology::{Cluster, Node, Region, Topology};

use crate::host::{
    Account, AccountKind, Api, Backup, Bouncer, Database, Mesh, Migration, Opening, Part, Peer,
    Redis, Replica, Server, Source, System, Transport, Upstream, mesh,
};
use crate::inventory::{Detail, Inventory, volume_name};
use crate::ownership::{FINAL_KEY, HOST_KEY, REGION, ROLE, WIREGUARD, wireguard_key};
use crate::wanted::{Kind, Role};

/// Of WireGuard, on every server.
pub const MESH_PORT: u16 = 51820;
pub(crate) const POSTGRES_PORT: u16 = 5432;
const REDIS_PORT: u16 = 6379;

/// A server of ours that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The provider's name.
    pub server: String,
    /// Its name in regions.toml; of a Redis server a name of ours.
    pub host: String,
    pub region: String,
    pub role: Role,
    pub address: IpAddr,
    /// Base64; `None`: nobody has asked it yet.
    pub wireguard: Option<String>,
    /// The fact of that name.
    pub certificate: Option<String>,
    /// Whether its next certificate is to take over.
    pub renews: bool,
    /// Whether it has a Postgres with rows; `None`: nobody has asked it.
    pub rows: Option<bool>,
    /// Whether it has had its first session.
    pub settled: bool,
    /// Id of the volume for its data.
    pub volume: Option<i64>,
}

/// Who logs in to the database of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logins {
    /// Name of the product's database.
    pub database: String,
    pub accounts: Vec<Account>,
    /// `None`: no users' rows leave this cluster or come to it, or nobody has said with which accounts.
    pub migration: Option<Migration>,
}

/// When in a run a server is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It belongs to another region, and learns of new servers: in the mesh, and as standbys of its primary.
    Peers,
    Whole,
    /// It belongs to another region, and needs a node that is there by now: a standby its primary, a host its way to the rows.
    Dependent,
    /// A primary again, once its standbys are there: from now on commits wait for them, and there are backups.
    Synchronous,
}

/// What a recipe follows from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub topology: &'a Topology,
    pub machines: &'a [Machine],
    /// Of the `region-host` for the hosts, hexadecimal.
    pub region_host_sha256: &'a str,
    /// By cluster.
    pub logins: &'a BTreeMap<String, Logins>,
    /// By cluster; one that is not here has none.
    pub backups: &'a BTreeMap<String, Backup>,
    /// Who may log in to Redis; `None`: nobody has said it.
    pub redis_account: Option<&'a str>,
}

/// What one server is to be, and what cannot be made yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub server: Server,
    /// Sentences without their periods.
    pub missing: Vec<String>,
}

/// Our servers in all projects that have a public address.
pub fn machines(product: &str, inventories: &[&Inventory]) -> Vec<Machine> {
    let mut machines = Vec::new();
    for inventory in inventories {
        let ours = inventory
            .resources
            .iter()
            .filter(|found| found.is_ours(product));
        for found in ours {
            let Detail::Server(server) = &found.detail else {
                continue;
            };
            let role = found.labels.get(ROLE).and_then(|word| Role::of(word));
            let host = found.name.strip_prefix(&format!("{product}-"));
            let address = server.address.as_ref();
            let (Some(role), Some(host), Some(region), Some(address)) = (
                role,
                host,
                found.labels.get(REGION),
                address.and_then(|(_, text)| text.parse().ok()),
            ) else {
                continue;
            };
            machines.push(Machine {
                server: found.name.clone(),
                host: host.to_owned(),
                region: region.clone(),
                role,
                address,
                wireguard: found
                    .labels
                    .get(WIREGUARD)
                    .and_then(|key| wireguard_key(key)),
                certificate: None,
                renews: false,
                rows: None,
                settled: found.labels.contains_key(FINAL_KEY)
                    && !found.labels.contains_key(HOST_KEY),
                volume: inventory.id(Kind::Volume, &volume_name(&found.name)),
            });
        }
    }
    machines.sort_by(|one, other| one.server.cmp(&other.server));
    machines
}

/// Whether the servers of the product talk to each other: with databases or Redis they do, hosts alone do not.
pub fn has_mesh(topology: &Topology) -> bool {
    topology
        .provision
        .as_ref()
        .is_some_and(|provision| provision.database.is_some() || provision.redis.is_some())
}

/// The node of a cluster that lives on that server.
pub fn node_on<'t>(
    topology: &'t Topology,
    role: Role,
    host: &str,
) -> Option<(&'t Cluster, &'t Node)> {
    let ordered = topology
        .provision
        .as_ref()
        .is_some_and(|provision| provision.database.is_some());
    if !ordered {
        return None;
    }
    let mut nodes = topology.clusters.values().flat_map(|cluster| {
        let nodes = std::iter::once(&cluster.primary).chain(&cluster.standbys);
        nodes.map(move |node| (cluster, node))
    });
    nodes.find(|(_, node)| match role {
        Role::Database => node.host.is_none() && node.name == host,
        Role::Api => node.host.as_deref() == Some(host),
        Role::Redis => false,
    })
}

/// The clusters that a region is about: the one that it serves from, and those with a node among these servers of its.
pub fn clusters_about<'t>(
    topology: &'t Topology,
    region: &Region,
    servers: &[(Role, &str)],
) -> Vec<&'t Cluster> {
    let here = |cluster: &&Cluster| {
        cluster.name == region.cluster
            || servers.iter().any(|(role, host)| {
                let found = node_on(topology, *role, host);
                found.is_some_and(|(of, _)| of.name == cluster.name)
            })
    };
    topology.clusters.values().filter(here).collect()
}

/// Those clusters among [`clusters_about`] that would be gone with their servers. Of databases that somebody else sets up
/// nobody here knows.
pub fn clusters_without_backup<'t>(
    topology: &'t Topology,
    region: &Region,
    servers: &[(Role, &str)],
) -> Vec<&'t str> {
    let provision = topology.provision.as_ref();
    let Some(provision) = provision.filter(|provision| provision.database.is_some()) else {
        return Vec::new();
    };
    clusters_about(topology, region, servers)
        .into_iter()
        .map(|cluster| cluster.name.as_str())
        .filter(|name| !provision.backups.contains_key(*name))
        .collect()
}

/// From where accounts may log in to a node besides the servers of the product.
pub(crate) fn clients_from_outside(topology: &Topology) -> &[IpNet] {
    let provision = topology.provision.as_ref();
    let database = provision.and_then(|provision| provision.database.as_ref());
    database.map_or(&[], |database| &database.clients)
}

/// What may come in to a server, for the firewall of its own.
pub fn openings(topology: &Topology, role: Role, host: &str) -> Vec<Opening> {
    let mut open = Vec::new();
    if role == Role::Api {
        open.extend([80, 443].map(Opening::anywhere));
    }
    if has_mesh(topology) {
        // It answers nobody who has not one of its keys.
        open.push(Opening {
            transport: Transport::Udp,
            port: MESH_PORT,
            from: Source::Anywhere,
        });
    }
    let in_the_mesh = |port| Opening {
        transport: Transport::Tcp,
        port,
        from: Source::Mesh,
    };
    let clients = clients_from_outside(topology);
    if node_on(topology, role, host).is_some() {
        if !clients.is_empty() {
            open.push(Opening {
                transport: Transport::Tcp,
                port: POSTGRES_PORT,
                from: Source::Ranges(clients.to_vec()),
            });
        }
        open.push(in_the_mesh(POSTGRES_PORT));
    }
    if role == Role::Redis {
        open.push(in_the_mesh(REDIS_PORT));
    }
    open
}

impl Facts<'_> {
    /// What this server is to be in this phase.
    pub fn recipe(&self, machine: &Machine, phase: Phase) -> Recipe {
        let mut missing = Vec::new();
        let open = openings(self.topology, machine.role, &machine.host);
        let database = self.database(machine, phase, &mut missing);
        let whole = phase == Phase::Whole;
        let server = Server {
            system: System { ssh_port: 22, open },
            mesh: has_mesh(self.topology).then(|| self.mesh(machine)),
            database,
            bouncer: self.bouncer(machine, phase, &mut missing),
            redis: whole.then(|| self.redis(machine, &mut missing)).flatten(),
            api: (whole && machine.role == Role::Api).then(|| self.api(machine)),
        };
        Recipe { server, missing }
    }

    /// What a server needs to make its keys: a standby makes its certificate before its primary has one, and the other way round.
    pub fn for_keys(&self, machine: &Machine) -> Server {
        let mut server = self.recipe(machine, Phase::Peers).server;
        if let Some((cluster, node)) = node_on(self.topology, machine.role, &machine.host)
            && let Some(logins) = self.logins.get(&cluster.name)
            && server.database.is_none()
        {
            let part = Part::Primary {
                first: false,
                standbys: Vec::new(),
                known: Vec::new(),
                sync: 0,
                complete: false,
                last: false,
            };
            server.database = Some(self.node(machine, cluster, node, logins, part));
        }
        server
    }

    /// Where the others reach a server.
    pub fn address(&self, machine: &Machine) -> Ipv6Addr {
        mesh::address(&self.topology.product.name, &machine.server)
    }

    fn api(&self, machine: &Machine) -> Api {
        Api {
            app: self.topology.product.name.clone(),
            account: self.topology.ssh.user.clone(),
            address: machine.address,
            http_port: 80,
            health_path: self.topology.health.basic_path.clone(),
            region_host_sha256: self.region_host_sha256.to_owned(),
        }
    }

    /// Servers that have not said their key yet are no peers yet: they are of a later run.
    fn mesh(&self, machine: &Machine) -> Mesh {
        let others = self.machines.iter();
        let others = others.filter(|other| other.server != machine.server);
        let peers = others.filter_map(|other| {
            Some(Peer {
                name: other.server.clone(),
                public_key: other.wireguard.clone()?,
                endpoint: Some(other.address),
            })
        });
        Mesh {
            product: self.topology.product.name.clone(),
            name: machine.server.clone(),
            port: MESH_PORT,
            peers: peers.collect(),
        }
    }

    /// A host's way to the cluster of its region. Also a host elsewhere gets it anew: a node may have moved.
    fn bouncer(
        &self,
        machine: &Machine,
        phase: Phase,
        missing: &mut Vec<String>,
    ) -> Option<Bouncer> {
        if machine.role != Role::Api || phase == Phase::Peers {
            return None;
        }
        let cluster = &self.topology.region(&machine.region)?.cluster;
        let cluster = self.topology.clusters.get(cluster)?;
        // Whose database is set up by somebody else leads to it in another way.
        let logins = self.logins.get(&cluster.name)?;
        let app = |account: &&Account| account.kind == AccountKind::App;
        let account = logins.accounts.iter().find(app)?;
        let Some(write) = self.upstream(machine, &cluster.primary) else {
            let primary = &cluster.primary.name;
            missing.push(format!("`{}` has no way to `{primary}` yet", machine.host));
            return None;
        };
        let near = |node: &&Node| {
            let lives = self.lives(node);
            lives.is_some_and(|lives| lives.region == machine.region)
        };
        let read = cluster.standbys.iter().filter(near);
        let read = read.filter_map(|node| self.upstream(machine, node)).next();
        Some(Bouncer {
            cluster: cluster.name.clone(),
            database: logins.database.clone(),
            account: account.name.clone(),
            read: read.unwrap_or_else(|| write.clone()),
            write,
        })
    }

    /// A node as that server reaches it; `None` until it has said its certificate.
    fn upstream(&self, machine: &Machine, node: &Node) -> Option<Upstream> {
        let lives = self.lives(node)?;
        let address = if lives.server == machine.server {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(self.address(lives))
        };
        Some(Upstream {
            node: node.name.clone(),
            address,
            port: POSTGRES_PORT,
            certificate: lives.certificate.clone()?,
        })
    }

    fn redis(&self, machine: &Machine, missing: &mut Vec<String>) -> Option<Redis> {
        if machine.role != Role::Redis {
            return None;
        }
        let Some(account) = self.redis_account else {
            missing.push(format!("Redis on `{}` has no password", machine.host));
            return None;
        };
        Some(Redis {
            listen: vec![IpAddr::V6(self.address(machine))],
            account: account.to_owned(),
        })
    }

    fn database(
        &self,
        machine: &Machine,
        phase: Phase,
        missing: &mut Vec<String>,
    ) -> Option<Database> {
        let (cluster, node) = node_on(self.topology, machine.role, &machine.host)?;
        // A cluster that the region has nothing to do with has none here.
        let logins = self.logins.get(&cluster.name)?;
        let part = if node.name == cluster.primary.name {
            // Without it in the recipe the primary would no longer let it in: a bad line must not end a replication.
            if let Some(standby) = cluster.standbys.iter().find(|node| self.is_unasked(node)) {
                missing.push(format!(
                    "primary `{}` is left as it is: its standby `{}` could not be asked",
                    node.name, standby.name
                ));
                return None;
            }
            let replica = |node: &Node| match self.replica(node) {
                Some(replica) if replica.certificate.is_some() => Ok(replica),
                _ => Err(format!("standby `{}` is not there yet", node.name)),
            };
            let (standbys, absent): (Vec<_>, Vec<_>) = cluster
                .standbys
                .iter()
                .map(replica)
                .partition(Result::is_ok);
            let all = absent.is_empty();
            missing.extend(absent.into_iter().filter_map(Result::err));
            Part::Primary {
                first: !cluster.standbys.iter().any(|node| self.may_have_rows(node)),
                standbys: standbys.into_iter().filter_map(Result::ok).collect(),
                known: cluster
                    .standbys
                    .iter()
                    .map(|node| node.name.clone())
                    .collect(),
                sync: cluster.sync,
                complete: all,
                last: phase == Phase::Synchronous,
            }
        } else {
            if phase == Phase::Peers {
                return None;
            }
            let primary = self.replica(&cluster.primary);
            match primary.filter(|primary| primary.certificate.is_some()) {
                Some(primary) => Part::Standby { primary },
                None => {
                    missing.push(format!(
                        "standby `{}` waits for its primary `{}`",
                        node.name, cluster.primary.name
                    ));
                    return None;
                }
            }
        };
        Some(self.node(machine, cluster, node, logins, part))
    }

    /// What it said counts. A server that nobody has logged in to has no Postgres yet; of any other nobody knows.
    fn may_have_rows(&self, node: &Node) -> bool {
        self.lives(node)
            .is_some_and(|machine| machine.rows.unwrap_or(machine.settled))
    }

    fn node(
        &self,
        machine: &Machine,
        cluster: &Cluster,
        node: &Node,
        logins: &Logins,
        part: Part,
    ) -> Database {
        Database {
            cluster: cluster.name.clone(),
            node: node.name.clone(),
            part,
            volume: machine.volume,
            database: logins.database.clone(),
            accounts: logins.accounts.clone(),
            migration: logins.migration.clone(),
            clients: self.clients(cluster),
            // Whoever else is to reach it is in the mesh.
            listen: match clients_from_outside(self.topology) {
                [] => Vec::new(),
                _ => vec![machine.address],
            },
            backup: self.backups.get(&cluster.name).cloned(),
        }
    }

    /// The server of a node.
    fn lives(&self, node: &Node) -> Option<&Machine> {
        self.machines.iter().find(|machine| {
            let found = node_on(self.topology, machine.role, &machine.host);
            found.is_some_and(|(_, found)| found.name == node.name)
        })
    }

    /// It is set up, and nobody knows its certificate just now.
    fn is_unasked(&self, node: &Node) -> bool {
        self.lives(node)
            .is_some_and(|machine| machine.settled && machine.certificate.is_none())
    }

    fn replica(&self, node: &Node) -> Option<Replica> {
        let machine = self.lives(node)?;
        Some(Replica {
            node: node.name.clone(),
            server: machine.server.clone(),
            address: self.address(machine),
            certificate: machine.certificate.clone(),
        })
    }

    /// Hosts of the regions that the cluster serves, its other nodes, and whom regions.toml names.
    fn clients(&self, cluster: &Cluster) -> Vec<IpNet> {
        let serves = |region: &str| {
            let found = self.topology.region(region);
            found.is_some_and(|region| region.cluster == cluster.name)
        };
        let may = |machine: &&Machine| {
            let node = node_on(self.topology, machine.role, &machine.host);
            (machine.role == Role::Api && serves(&machine.region))
                || node.is_some_and(|(of, _)| of.name == cluster.name)
        };
        let machines = self.machines.iter().filter(may);
        machines
            .map(|machine| IpNet::V6(Ipv6Net::from(self.address(machine))))
            .chain(clients_from_outside(self.topology).iter().copied())
            .collect()
    }
}
