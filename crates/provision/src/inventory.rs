//! What there is, as far as a plan compares it.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::ownership::{Labels, PRODUCT};
use crate::wanted::{FirewallRule, Kind};

/// All resources of one project, whoever's they are: a name that is taken is part of the truth.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Whose resources are ours.
    pub product: String,
    pub resources: Vec<Resource>,
}

#[derive(Clone, Debug)]
pub struct Resource {
    pub id: i64,
    pub name: String,
    pub labels: Labels,
    /// Whether the provider refuses to delete it.
    pub protected: bool,
    pub detail: Detail,
}

/// What is compared, by kind.
#[derive(Clone, Debug)]
pub enum Detail {
    /// Type and base64 of the key, without its comment.
    SshKey(String),
    PlacementGroup,
    Network(Network),
    Firewall(Firewall),
    Server(Server),
    Address(Address),
    Volume(Volume),
    Balancer(Balancer),
}

#[derive(Clone, Debug)]
pub struct Network {
    pub range: Option<IpNet>,
    /// Network zones that have a subnet.
    pub zones: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub struct Firewall {
    pub rules: BTreeSet<FirewallRule>,
}

#[derive(Clone, Debug)]
pub struct Server {
    /// As the API says it; `running` is the only one in which it is up.
    pub status: String,
    pub kind: String,
    pub location: String,
    /// Id and text of its public IPv4 address.
    pub address: Option<(i64, String)>,
    /// Ids.
    pub firewalls: BTreeSet<i64>,
    pub networks: BTreeSet<i64>,
    pub placement_group: Option<i64>,
}

/// A primary IP.
#[derive(Clone, Debug)]
pub struct Address {
    pub location: String,
    pub text: String,
    /// Whether it goes with its server.
    pub auto_delete: bool,
    /// Id of the server that has it.
    pub server: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct Volume {
    pub size_gb: u32,
    pub location: String,
    /// Id of the server that has it.
    pub server: Option<i64>,
}

/// A load balancer.
#[derive(Clone, Debug)]
pub struct Balancer {
    pub kind: String,
    pub location: String,
    pub address: Option<String>,
    pub networks: BTreeSet<i64>,
    /// Label selectors of the targets that it reaches over the private network.
    pub selectors: BTreeSet<String>,
    /// How many targets there are beside those.
    pub further_targets: usize,
    pub services: Vec<Service>,
    /// Ids of the servers that it finds healthy, for every service.
    pub healthy: BTreeSet<i64>,
}

/// What a load balancer listens for, and how it knows who is healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub port: u16,
    /// Port of the targets.
    pub destination: u16,
    /// `http`, `https` or `tcp`.
    pub protocol: String,
    /// Ids.
    pub certificates: Vec<i64>,
    pub health_path: Option<String>,
}

impl Detail {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::SshKey(_) => Kind::SshKey,
            Self::PlacementGroup => Kind::PlacementGroup,
            Self::Network(_) => Kind::Network,
            Self::Firewall(_) => Kind::Firewall,
            Self::Server(_) => Kind::Server,
            Self::Address(_) => Kind::Address,
            Self::Volume(_) => Kind::Volume,
            Self::Balancer(_) => Kind::Balancer,
        }
    }
}

impl Resource {
    pub const fn kind(&self) -> Kind {
        self.detail.kind()
    }

    pub fn is_ours(&self, product: &str) -> bool {
        self.labels
            .get(PRODUCT)
            .is_some_and(|owner| owner == product)
    }
}

impl Inventory {
    /// The resource of that kind and name: ours, if there is one, else anybody's. Networks may have one name twice; of ours the
    /// oldest counts.
    pub fn named(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.resources
            .iter()
            .filter(|resource| resource.kind() == kind && resource.name == name)
            .min_by_key(|resource| (!resource.is_ours(&self.product), resource.id))
    }

    /// The address that an earlier server of ours left, where the next one of that name may have it.
    pub fn kept_address(&self, server: &str, locations: &[String]) -> Option<&Resource> {
        let found = self.named(Kind::Address, &address_name(server))?;
        let Detail::Address(address) = &found.detail else {
            return None;
        };
        let fits = address.server.is_none() && locations.contains(&address.location);
        (fits && found.is_ours(&self.product)).then_some(found)
    }

    /// The entry of that key, type and base64, under whatever name: the provider has each key once.
    pub fn ssh_key(&self, key: &str) -> Option<&Resource> {
        self.resources
            .iter()
            .find(|resource| matches!(&resource.detail, Detail::SshKey(known) if known == key))
    }

    /// Takes in what a request answered, in place of what was known of it.
    pub fn take(&mut self, resource: Resource) {
        self.resources
            .retain(|known| known.kind() != resource.kind() || known.id != resource.id);
        self.resources.push(resource);
    }

    /// The provider's number of the resource of that kind and name.
    pub fn id(&self, kind: Kind, name: &str) -> Option<i64> {
        self.named(kind, name).map(|resource| resource.id)
    }
}

/// The name of a server's address.
pub(crate) fn address_name(server: &str) -> String {
    format!("{server}-ipv4")
}

/// The name of a server's volume.
pub(crate) fn volume_name(server: &str) -> String {
    format!("{server}-data")
}
