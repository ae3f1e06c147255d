//! What the lab consists of and where each part listens: regions, hosts, clusters, addresses, link delays.
//!
//! Pure. Every lab owns one block 127.A.B.0/24, so all ports are fixed and never raced for. A part has one
//! address inside its region and, where somebody in another region (or `world`: the controller and the users)
//! reaches it, one more address per such region. Behind those stands the link proxy.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// The pseudo-region of the controller and of all users.
pub const WORLD: &str = "world";

/// Port on which the guard reserves the block.
pub const RESERVATION_PORT: u16 = 7400;
pub const HTTP_PORT: u16 = 8080;
pub const SSH_PORT: u16 = 2222;
pub const POSTGRES_PORT: u16 = 5432;
pub const BOUNCER_PORT: u16 = 6432;
pub const REDIS_PORT: u16 = 6379;
/// Ports of the slots blue and green on every host.
pub const SLOT_PORTS: [u16; 2] = [3001, 3002];
const FIRST_DEPENDENCY_PORT: u16 = 7501;

/// A place with hosts.
#[derive(Debug)]
pub struct RegionPlan {
    pub name: &'static str,
    pub location: &'static str,
    pub traffic: f64,
    pub cluster: &'static str,
    /// The node from which its hosts read.
    pub reads: &'static str,
    pub hosts: &'static [&'static str],
}

pub const REGIONS: [RegionPlan; 3] = [
    RegionPlan {
        name: "us-east",
        location: "ash",
        traffic: 0.55,
        cluster: "us",
        reads: "us-primary",
        hosts: &["us-1", "us-2"],
    },
    RegionPlan {
        name: "eu-central",
        location: "fsn1",
        traffic: 0.30,
        cluster: "eu",
        reads: "eu-nbg",
        hosts: &["eu-1", "eu-2"],
    },
    RegionPlan {
        name: "ap-singapore",
        location: "sin",
        traffic: 0.15,
        cluster: "us",
        reads: "us-sin",
        hosts: &["sin-1"],
    },
];

/// One Postgres writer and its standbys.
#[derive(Debug)]
pub struct ClusterPlan {
    pub name: &'static str,
    pub residency: Option<&'static str>,
    pub primary: &'static str,
    /// How many standbys must confirm a commit.
    pub sync: u32,
    /// First id of its users and orders; the step is the number of clusters, so ids never meet.
    pub id_offset: u32,
}

pub const CLUSTERS: [ClusterPlan; 2] = [
    ClusterPlan {
        name: "us",
        residency: None,
        primary: "us-primary",
        sync: 0,
        id_offset: 1,
    },
    ClusterPlan {
        name: "eu",
        residency: Some("eu"),
        primary: "eu-primary",
        sync: 1,
        id_offset: 2,
    },
];

/// One Postgres server.
#[derive(Debug)]
pub struct NodePlan {
    pub name: &'static str,
    pub cluster: &'static str,
    pub location: &'static str,
    /// The region whose links its traffic takes.
    pub region: &'static str,
}

pub const NODES: [NodePlan; 6] = [
    NodePlan {
        name: "us-primary",
        cluster: "us",
        location: "ash",
        region: "us-east",
    },
    NodePlan {
        name: "us-sin",
        cluster: "us",
        location: "sin",
        region: "ap-singapore",
    },
    NodePlan {
        name: "us-dr",
        cluster: "us",
        location: "nbg1",
        region: "eu-central",
    },
    NodePlan {
        name: "eu-primary",
        cluster: "eu",
        location: "fsn1",
        region: "eu-central",
    },
    NodePlan {
        name: "eu-nbg",
        cluster: "eu",
        location: "nbg1",
        region: "eu-central",
    },
    NodePlan {
        name: "eu-hel",
        cluster: "eu",
        location: "hel1",
        region: "eu-central",
    },
];

/// What the product calls besides its own servers.
pub const DEPENDENCIES: [&str; 5] = ["payments", "mail", "search", "geocoder", "tax"];

/// One-way delays between regions; every other pair has none.
const DELAYS: [(&str, &str, u64); 3] = [
    ("us-east", "eu-central", 45),
    ("us-east", "ap-singapore", 110),
    ("eu-central", "ap-singapore", 80),
];

/// How long a byte travels from one region to the other while nobody disturbs the link.
pub fn delay(from: &str, to: &str) -> Duration {
    let known = DELAYS
        .iter()
        .find(|(a, b, _)| (*a, *b) == (from, to) || (*b, *a) == (from, to));
    Duration::from_millis(known.map_or(0, |(_, _, millis)| *millis))
}

/// Every ordered pair of regions, `world` included.
pub fn pairs() -> Vec<(&'static str, &'static str)> {
    let names = || REGIONS.iter().map(|region| region.name).chain([WORLD]);
    names()
        .flat_map(|from| {
            names()
                .filter(move |to| *to != from)
                .map(move |to| (from, to))
        })
        .collect()
}

/// All hosts, each with its region.
pub fn hosts() -> impl Iterator<Item = (&'static RegionPlan, &'static str)> {
    REGIONS
        .iter()
        .flat_map(|region| region.hosts.iter().map(move |host| (region, *host)))
}

impl NodePlan {
    pub fn is_primary(&self) -> bool {
        CLUSTERS.iter().any(|cluster| cluster.primary == self.name)
    }

    /// The primary of the same cluster.
    pub fn primary(&self) -> &'static NodePlan {
        // The tables above are checked by `every_name_in_the_tables_exists`.
        NODES
            .iter()
            .find(|node| node.cluster == self.cluster && node.is_primary())
            .unwrap_or(&NODES[0])
    }
}

impl ClusterPlan {
    pub fn standbys(&self) -> impl Iterator<Item = &'static NodePlan> {
        NODES
            .iter()
            .filter(|node| node.cluster == self.name && !node.is_primary())
    }
}

/// A block 127.A.B.0/24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub a: u8,
    pub b: u8,
}

/// What a region offers to itself and to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The load balancer of a region.
    Edge(&'static str),
    Bouncer(&'static str),
    Redis(&'static str),
    HostHttp(&'static str),
    HostSsh(&'static str),
    Node(&'static str),
}

/// One TCP proxy of a link: somebody in `from` reaches `part`, which is in `to`, by connecting to `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    pub from: &'static str,
    pub to: &'static str,
    pub part: Part,
    pub listen: SocketAddrV4,
    pub target: SocketAddrV4,
}

// Last octets. World sees a part at its own octet + 100, a region sees a foreign node at 200 + 10 * region + node.
const DEPENDENCIES_OCTET: u8 = 2;
const REGION_OCTET: u8 = 10;
const REGION_STRIDE: u8 = 10;
const FIRST_HOST: u8 = 5;
const NODE_OCTET: u8 = 60;
const WORLD_SHIFT: u8 = 100;
const CROSSING_OCTET: u8 = 200;

impl Block {
    /// For example `127.44.8.0/24`.
    pub fn network(self) -> String {
        format!("127.{}.{}.0/24", self.a, self.b)
    }

    /// Reads `44.8`, as the supervisor is told its block.
    pub fn parse(text: &str) -> Option<Self> {
        let (a, b) = text.split_once('.')?;
        Some(Self {
            a: a.parse().ok()?,
            b: b.parse().ok()?,
        })
    }

    fn at(self, octet: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(127, self.a, self.b, octet), port)
    }

    /// Bound by the guard for the lab's whole life: whoever cannot bind it takes another block.
    pub fn reservation(self) -> SocketAddrV4 {
        self.at(1, RESERVATION_PORT)
    }

    /// An address nobody uses, to see whether a port is taken on every address at once.
    pub fn spare(self, port: u16) -> SocketAddrV4 {
        self.at(254, port)
    }

    /// The stub that stands for the named dependency, if there is one.
    pub fn dependency(self, name: &str) -> Option<SocketAddrV4> {
        let ports = FIRST_DEPENDENCY_PORT..;
        let (_, port) = DEPENDENCIES
            .iter()
            .zip(ports)
            .find(|(known, _)| **known == name)?;
        Some(self.at(DEPENDENCIES_OCTET, port))
    }

    /// Where the part itself listens.
    pub fn inside(self, part: Part) -> SocketAddrV4 {
        self.at(part.octet(), part.port())
    }

    /// Where somebody in region `from` reaches the part.
    pub fn seen_from(self, from: &str, part: Part) -> SocketAddrV4 {
        if from == part.region() {
            return self.inside(part);
        }
        match REGIONS.iter().position(|region| region.name == from) {
            Some(index) => {
                let node = part.octet() - NODE_OCTET;
                self.at(
                    CROSSING_OCTET + octet(index) * REGION_STRIDE + node,
                    part.port(),
                )
            }
            None => self.at(part.octet() + WORLD_SHIFT, part.port()),
        }
    }

    /// Every proxy the lab needs; without clusters only those to hosts and edges.
    pub fn crossings(self, clusters: bool) -> Vec<Crossing> {
        let mut wanted: Vec<(&str, Part)> = Vec::new();
        for region in &REGIONS {
            wanted.push((WORLD, Part::Edge(region.name)));
            for host in region.hosts {
                wanted.extend([(WORLD, Part::HostHttp(host)), (WORLD, Part::HostSsh(host))]);
            }
        }
        if clusters {
            for node in &NODES {
                wanted.push((WORLD, Part::Node(node.name)));
                wanted.push((node.region, Part::Node(node.primary().name)));
            }
            for region in &REGIONS {
                wanted.push((region.name, Part::Node(region.reads)));
                wanted.push((region.name, Part::Node(region.primary())));
                let others = region.other_clusters();
                wanted.extend(others.map(|other| (region.name, Part::Node(other.primary))));
            }
        }
        let mut crossings: Vec<Crossing> = Vec::new();
        for (from, part) in wanted {
            let (to, listen, target) =
                (part.region(), self.seen_from(from, part), self.inside(part));
            if from != to && !crossings.iter().any(|crossing| crossing.listen == listen) {
                crossings.push(Crossing {
                    from,
                    to,
                    part,
                    listen,
                    target,
                });
            }
        }
        crossings
    }
}

impl RegionPlan {
    /// The node to which its hosts write.
    pub fn primary(&self) -> &'static str {
        CLUSTERS
            .iter()
            .find(|cluster| cluster.name == self.cluster)
            .map_or(self.reads, |cluster| cluster.primary)
    }

    /// The clusters that are not its own: some of the users who come in here are at home there.
    pub fn other_clusters(&self) -> impl Iterator<Item = &'static ClusterPlan> {
        CLUSTERS
            .iter()
            .filter(|cluster| cluster.name != self.cluster)
    }
}

/// Under this name a region's PgBouncer leads to the writer of another cluster.
pub(crate) fn other_database(cluster: &ClusterPlan) -> String {
    format!("shop_{}", cluster.name)
}

impl Part {
    fn octet(self) -> u8 {
        let region = |name: &str| {
            let index = REGIONS
                .iter()
                .position(|region| region.name == name)
                .unwrap_or_default();
            REGION_OCTET + octet(index) * REGION_STRIDE
        };
        match self {
            Self::Edge(name) => region(name),
            Self::Bouncer(name) => region(name) + 1,
            Self::Redis(name) => region(name) + 2,
            Self::HostHttp(host) | Self::HostSsh(host) => {
                let home = self.region();
                let among = hosts()
                    .filter(|(plan, _)| plan.name == home)
                    .position(|(_, name)| name == host);
                region(home) + FIRST_HOST + octet(among.unwrap_or_default())
            }
            Self::Node(name) => {
                NODE_OCTET
                    + octet(
                        NODES
                            .iter()
                            .position(|node| node.name == name)
                            .unwrap_or_default(),
                    )
            }
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Edge(_) | Self::HostHttp(_) => HTTP_PORT,
            Self::Bouncer(_) => BOUNCER_PORT,
            Self::Redis(_) => REDIS_PORT,
            Self::HostSsh(_) => SSH_PORT,
            Self::Node(_) => POSTGRES_PORT,
        }
    }

    /// The region it is in.
    pub fn region(self) -> &'static str {
        match self {
            Self::Edge(name) | Self::Bouncer(name) | Self::Redis(name) => name,
            Self::HostHttp(host) | Self::HostSsh(host) => hosts()
                .find(|(_, name)| *name == host)
                .map_or(WORLD, |(region, _)| region.name),
            Self::Node(name) => NODES
                .iter()
                .find(|node| node.name == name)
                .map_or(WORLD, |node| node.region),
        }
    }
}

/// The tables are short: an index always fits an octet.
fn octet(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        Block, CLUSTERS, DEPENDENCIES, NODES, NodePlan, Part, REGIONS, WORLD, delay, hosts, pairs,
    };

    const BLOCK: Block = Block { a: 77, b: 3 };

    #[test]
    fn every_name_in_the_tables_exists() {
        let node = |name| NODES.iter().find(|node| node.name == name);
        for region in &REGIONS {
            assert!(
                CLUSTERS
                    .iter()
                    .any(|cluster| cluster.name == region.cluster),
                "{}",
                region.cluster
            );
            assert_eq!(node(region.reads).expect("reads").cluster, region.cluster);
            assert_eq!(
                node(region.primary()).expect("primary").cluster,
                region.cluster
            );
        }
        for node in &NODES {
            assert!(
                REGIONS.iter().any(|region| region.name == node.region),
                "{}",
                node.region
            );
            assert_eq!(node.primary().cluster, node.cluster);
            assert!(node.primary().is_primary());
        }
    }

    #[test]
    fn no_two_parts_share_an_address() {
        let mut parts: Vec<Part> = NODES.iter().map(|node| Part::Node(node.name)).collect();
        for region in &REGIONS {
            parts.extend([
                Part::Edge(region.name),
                Part::Bouncer(region.name),
                Part::Redis(region.name),
            ]);
        }
        for (_, host) in hosts() {
            parts.extend([Part::HostHttp(host), Part::HostSsh(host)]);
        }
        let mut seen = BTreeSet::from([BLOCK.reservation()]);
        seen.extend(
            DEPENDENCIES
                .iter()
                .filter_map(|name| BLOCK.dependency(name)),
        );
        let before = seen.len();
        let listening = parts.iter().map(|part| BLOCK.inside(*part));
        let crossings = BLOCK.crossings(true);
        let expected = before + parts.len() + crossings.len();
        seen.extend(listening.chain(crossings.iter().map(|crossing| crossing.listen)));
        assert_eq!(seen.len(), expected);
    }

    #[test]
    fn a_standby_in_another_region_streams_through_the_link() {
        let primary = Part::Node("us-primary");
        for region in ["ap-singapore", "eu-central"] {
            let seen = BLOCK.seen_from(region, primary);
            let crossing = BLOCK
                .crossings(true)
                .into_iter()
                .find(|crossing| crossing.listen == seen);
            let crossing = crossing.expect("a proxy");
            assert_eq!((crossing.from, crossing.to), (region, "us-east"));
            assert_eq!(crossing.target, BLOCK.inside(primary));
        }
        assert_eq!(BLOCK.seen_from("us-east", primary), BLOCK.inside(primary));
    }

    #[test]
    fn other_regions_reach_the_writer_of_the_eu_cluster_and_none_of_its_standbys() {
        let crossings = BLOCK.crossings(true);
        let from = |node: &str| -> BTreeSet<&str> {
            crossings
                .iter()
                .filter(|crossing| crossing.part == Part::Node(node_named(node).name))
                .map(|crossing| crossing.from)
                .collect()
        };
        assert_eq!(
            from("eu-primary"),
            BTreeSet::from([WORLD, "us-east", "ap-singapore"])
        );
        for standby in ["eu-nbg", "eu-hel"] {
            assert_eq!(from(standby), BTreeSet::from([WORLD]), "{standby}");
        }
    }

    fn node_named(name: &str) -> &'static NodePlan {
        NODES.iter().find(|node| node.name == name).expect("a node")
    }

    #[test]
    fn delays_are_symmetric_and_world_has_none() {
        for (from, to) in pairs() {
            assert_eq!(delay(from, to), delay(to, from));
            assert_eq!(delay(from, to).is_zero(), from == WORLD || to == WORLD);
        }
        assert_eq!(pairs().len(), 12);
    }
}
