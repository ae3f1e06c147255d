//! What a region needs at the provider, from regions.toml alone.

use std::collections::BTreeSet;

use ipnet::IpNet;
use regionwise_topology::{Provision, Region, Secret, Topology};
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::needs::World;
use crate::ownership::Labels;

/// In the order in which they are made: what comes later refers to what comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    SshKey,
    PlacementGroup,
    Network,
    Firewall,
    Server,
    /// A primary IP. It is born with its server and outlives it.
    Address,
    Volume,
    Balancer,
}

impl Kind {
    /// Of all, in the order in which they are made.
    pub const ALL: [Self; 8] = [
        Self::SshKey,
        Self::PlacementGroup,
        Self::Network,
        Self::Firewall,
        Self::Server,
        Self::Address,
        Self::Volume,
        Self::Balancer,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::SshKey => "ssh key",
            Self::PlacementGroup => "placement group",
            Self::Network => "network",
            Self::Firewall => "firewall",
            Self::Server => "server",
            Self::Address => "primary ip",
            Self::Volume => "volume",
            Self::Balancer => "load balancer",
        }
    }
}

/// What a server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Api,
    Database,
    Redis,
}

impl Role {
    /// The role of that word.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Api, Self::Database, Self::Redis];
        all.into_iter().find(|role| role.word() == word)
    }

    pub const fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Database => "database",
            Self::Redis => "redis",
        }
    }
}

/// One resource as it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Wanted {
    pub name: String,
    pub labels: Labels,
    pub spec: Spec,
}

/// What is special about a kind. Resources name each other; ids are the provider's.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spec {
    /// Type and base64 of the key.
    SshKey(String),
    /// Of the type `spread`: no two of its servers share a machine.
    PlacementGroup,
    Network {
        zone: String,
        range: IpNet,
    },
    Firewall(BTreeSet<FirewallRule>),
    Server(ServerSpec),
    Address {
        server: String,
    },
    Volume {
        server: String,
        size_gb: u32,
    },
    Balancer(BalancerSpec),
}

#[derive(Clone, Debug, Serialize)]
pub struct ServerSpec {
    /// Its name in regions.toml; of a Redis server, which has none there, a name of ours.
    pub host: String,
    pub role: Role,
    /// The best first, as `locations`.
    pub types: Vec<String>,
    pub locations: Vec<String>,
    pub image: String,
    /// Type and base64 of the keys that open root's account.
    pub ssh_keys: Vec<String>,
    pub placement_group: String,
    pub network: String,
    pub firewall: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct BalancerSpec {
    pub types: Vec<String>,
    pub locations: Vec<String>,
    pub network: String,
    /// Of its targets.
    pub selector: String,
    /// Name of the certificate in the project with which it ends TLS on port 443; without one it serves port 80.
    pub certificate: Option<String>,
    /// What it asks the hosts.
    pub health_path: String,
}

/// What may come in. Everything else is dropped; what goes out is not restricted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FirewallRule {
    pub protocol: Protocol,
    /// As Hetzner writes it; `None` with ICMP.
    pub port: Option<String>,
    pub sources: BTreeSet<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Icmp,
    Tcp,
    Udp,
    /// One that we never ask for.
    Other,
}

impl Spec {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::SshKey(_) => Kind::SshKey,
            Self::PlacementGroup => Kind::PlacementGroup,
            Self::Network { .. } => Kind::Network,
            Self::Firewall(_) => Kind::Firewall,
            Self::Server(_) => Kind::Server,
            Self::Address { .. } => Kind::Address,
            Self::Volume { .. } => Kind::Volume,
            Self::Balancer(_) => Kind::Balancer,
        }
    }
}

impl Wanted {
    pub const fn kind(&self) -> Kind {
        self.spec.kind()
    }
}

/// Why regions.toml does not say what to order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    #[error("location `{location}` of {what} is none of the provider's: {known}")]
    Location {
        what: String,
        location: String,
        known: String,
    },
    #[error("no region, or more than one, is in the network zone of node `{node}` ({zone})")]
    Node { node: String, zone: String },
    #[error(
        "fallback location `{location}` of region `{region}` is in another network zone than `{first}`"
    )]
    Zone {
        region: String,
        location: String,
        first: String,
    },
    #[error(
        "node `{node}` is to live on host `{host}`, whose project is not the one of the node's rows"
    )]
    Project { node: String, host: String },
    #[error("there is no range left for the private network of zone `{zone}`")]
    Range { zone: String },
    #[error("the load balancer of region `{region}` is to serve https and has no certificate")]
    Certificate { region: String },
    #[error(
        "host `{host}` is to speak TLS, and the load balancer of its region speaks plain HTTP with its hosts"
    )]
    Tls { host: String },
    #[error("two servers would have the name `{name}`")]
    Name { name: String },
    #[error(
        "host `{host}` is to listen on other ports than 22 and 80, which is what the firewall and the load balancer know"
    )]
    Port { host: String },
    #[error(
        "`{name}` is no name for a server: at most {} characters, and no `-` at its end",
        NAME_LIMIT
    )]
    Unnameable { name: String },
    #[error(
        "region `{region}` has {count} {role} servers, and a placement group takes {}",
        GROUP_LIMIT
    )]
    Crowded {
        region: String,
        role: &'static str,
        count: usize,
    },
}

/// RFC 1123 allows 63 characters, a volume's name 64, and a volume is named after its server, with `-data` behind it.
pub(crate) const NAME_LIMIT: usize = 59;
/// Servers of one placement group, at Hetzner.
pub(crate) const GROUP_LIMIT: usize = 10;

impl Undecided {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Location { .. } => "write one of them as `location`",
            Self::Node { .. } => "say it: `region = \"NAME\"` in that node of regions.toml",
            Self::Zone { .. } => {
                "a region's servers share a private network, and that is in one zone"
            }
            Self::Project { .. } => {
                "give the node a server of its own: leave out `host`; or put it on a host of a region that its cluster serves"
            }
            Self::Range { .. } => {
                "delete a network that is not needed any more, or use a newer version of regionwise"
            }
            Self::Tls { .. } => "write `tls = false` for it: TLS ends at the load balancer",
            Self::Port { .. } => "leave `ssh_port` and `http_port` out",
            Self::Name { .. } | Self::Unnameable { .. } => "give it another name in regions.toml",
            Self::Crowded { .. } => "make another region of some of them",
            Self::Certificate { .. } => {
                "make one in the project (managed ones renew themselves) and name it: provision.load_balancer.certificate"
            }
        }
    }
}

/// What one project of the provider is to hold for a region. More than one where a residency has a project of its own.
#[derive(Clone, Debug)]
pub struct Project<'a> {
    pub token: &'a Secret,
    /// In the order in which it is made.
    pub wanted: Vec<Wanted>,
}

/// The token of every project that may hold something of the product.
pub fn tokens<'a>(topology: &'a Topology, provision: &'a Provision) -> Vec<&'a Secret> {
    let mut tokens = vec![&provision.token];
    for residency in topology.residencies.values() {
        if let Some(token) = residency
            .token
            .as_ref()
            .filter(|token| !tokens.contains(token))
        {
            tokens.push(token);
        }
    }
    tokens
}

/// A private network of ours that is there.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// Of its project.
    pub token: &'a Secret,
    pub name: String,
    pub range: IpNet,
}

/// What the region needs, by project. `ssh_keys` are type and base64 of the keys that open root's account; `networks` are all
/// that are there, in all projects: a new one gets a range of its own, because WireGuard is to join them.
///
/// # Errors
/// [`Undecided`]
pub fn wanted<'a>(
    topology: &'a Topology,
    provision: &'a Provision,
    region: &'a Region,
    catalogue: &Catalogue,
    ssh_keys: &[String],
    networks: &[Known<'_>],
) -> Result<Vec<Project<'a>>, Undecided> {
    let world = World {
        topology,
        provision,
        region,
        catalogue,
        ssh_keys,
    };
    let mut projects: Vec<Project<'a>> = Vec::new();
    for (token, machine) in world.machines()? {
        let at = projects.iter().position(|project| project.token == token);
        let at = at.unwrap_or_else(|| {
            projects.push(Project {
                token,
                wanted: Vec::new(),
            });
            projects.len() - 1
        });
        projects[at].wanted.extend(machine);
    }
    world.check(&projects)?;
    let mut taken: BTreeSet<IpNet> = networks.iter().map(|known| known.range).collect();
    for project in &mut projects {
        let around = world.around(project, networks, &mut taken)?;
        project.wanted.extend(around);
        project
            .wanted
            .sort_by_key(|wanted| (wanted.kind(), wanted.name.clone()));
    }
    Ok(projects)
}
