//! The validated model of `regions.toml`: what every binary works with.
//!
//! A [`Topology`] exists only after every rule of `rules.rs` held, so the code that uses it need not check
//! references, duplicates or ranges again. Nothing here reads a file, the environment or the clock.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// Everything that `regions.toml` says.
#[derive(Clone, Debug)]
pub struct Topology {
    pub product: Product,
    pub ssh: Ssh,
    /// In the order of a rollout: the waves if the file names them, else ascending traffic, then name.
    pub regions: Vec<Region>,
    pub clusters: BTreeMap<String, Cluster>,
    pub residencies: BTreeMap<String, Residency>,
    pub lag: LagRule,
    pub health: HealthRule,
    pub rollout: RolloutRule,
    pub budget: Option<Budget>,
    /// `None` when the servers are not ours to order.
    pub provision: Option<Provision>,
    pub migration: Option<Migration>,
    pub github: Github,
}

impl Topology {
    /// The region of that name.
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// The cluster that owns the rows which `region` serves.
    pub fn cluster_of(&self, region: &Region) -> &Cluster {
        // `rules::cluster_exists` refused every file in which this look-up could fail.
        &self.clusters[&region.cluster]
    }

    /// The GitHub environment of that region.
    pub fn environment_of(&self, region: &Region) -> String {
        format!("{}{}", self.github.environment_prefix, region.name)
    }
}

/// What is rolled out.
#[derive(Clone, Debug)]
pub struct Product {
    /// Also the name of the state directory on every host. `^[a-z][a-z0-9-]{1,30}$`.
    pub name: String,
}

/// How the controller reaches `region-host`.
#[derive(Clone, Debug)]
pub struct Ssh {
    pub user: String,
    /// Pinned host keys, relative to the directory of `regions.toml`.
    pub known_hosts: String,
    /// The private key, or where its file is.
    pub identity: Secret,
    /// `None`: servers are reached directly.
    pub jump: Option<Jump>,
}

/// A host between the controller and the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    pub address: IpAddr,
    pub user: String,
    pub port: u16,
}

/// A place with users and API hosts.
#[derive(Clone, Debug)]
pub struct Region {
    pub name: String,
    /// Hetzner's code, for example `fsn1`.
    pub location: String,
    /// Share of all users, 0.0 to 1.0. The regions need not add up to 1.
    pub traffic: f64,
    /// Where else in its network zone `provision-region` may order its servers, the best first.
    pub fallback_locations: Vec<String>,
    /// Name of the cluster that owns the rows this region serves.
    pub cluster: String,
    /// Where users of this region arrive.
    pub url: Url,
    /// Empty only when none has an address yet.
    pub hosts: Vec<Host>,
    /// Hosts whose address is not known, because their server is still to be made. Only
    /// [`Topology::parse_unprovisioned`] leaves any.
    pub unaddressed: Vec<Unaddressed>,
}

/// One server that runs API slots behind its own HAProxy.
#[derive(Clone, Debug)]
pub struct Host {
    pub name: String,
    pub address: IpAddr,
    pub ssh_port: u16,
    /// Port of the host's own HAProxy.
    pub http_port: u16,
    /// Whether that HAProxy speaks TLS, or something in front of it.
    pub tls: bool,
}

/// A host without an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unaddressed {
    pub name: String,
    /// Whether its HAProxy will speak TLS.
    pub tls: bool,
    /// Whether it will listen on 22, and on 80 or, with TLS, 443.
    pub standard_ports: bool,
}

/// One Postgres writer and its standbys. Not the same thing as a region.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    /// Name of the residency rule for the rows it holds, if any.
    pub residency: Option<String>,
    pub primary: Node,
    /// Empty only when the file says `standbys = []`.
    pub standbys: Vec<Node>,
    /// How many of the standbys must confirm a commit (`synchronous_standby_names = 'ANY n (..)'`).
    pub sync: u32,
}

/// One Postgres server.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub location: String,
    pub dsn: Secret,
    /// The region that its server is made with, where the file says so.
    pub region: Option<String>,
    /// The host that carries it; `None`: it has a server of its own.
    pub host: Option<String>,
}

/// Where rows of a kind may be.
#[derive(Clone, Debug)]
pub struct Residency {
    pub name: String,
    /// ISO 3166 codes of the users it is about.
    pub countries: Vec<String>,
    /// Locations that may hold a copy.
    pub locations: Vec<String>,
    pub outage: Outage,
    /// Of the Hetzner project that holds these rows only; `None` where they share [`Provision::token`]'s.
    pub token: Option<Secret>,
}

/// What users of a residency get when all its locations are out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outage {
    /// 503 with Retry-After.
    FailClosed,
    /// Only nodes inside the residency take over.
    IntraOnly,
}

/// The gate "replication lag over `threshold` for longer than `sustained`".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagRule {
    pub threshold: Duration,
    pub sustained: Duration,
    /// Time between two probes of one standby.
    pub interval: Duration,
    /// The last part of the observation that must be clean.
    pub clear_for: Duration,
    /// Upper limit for one probe, connecting included.
    pub timeout: Duration,
}

/// The rules of `smoke-test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthRule {
    /// The endpoint that says whether a process can serve.
    pub basic_path: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in a row that make an endpoint bad.
    pub failures: u32,
    /// Successes in a row that make it good.
    pub successes: u32,
    /// More failing dependencies than this are bad for the release.
    pub max_failing_dependencies: u32,
}

/// How a release moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutRule {
    /// Names of regions, wave by wave. Every region stands in exactly one.
    pub waves: Vec<Vec<String>>,
    pub on_failure: OnFailure,
    /// Wait between the gates and `close`.
    pub soak: Duration,
    /// How long a release may take to become healthy in its slot.
    pub start_deadline: Duration,
    /// All hosts of a region must have switched within this time.
    pub commit_window: Duration,
    /// How long `deploy-region` looks at the switched region before it confirms.
    pub verify: Duration,
    /// Without a confirm in this time a host switches back by itself. Greater than `commit_window + verify`, and what
    /// the last probes take.
    pub confirm_within: Duration,
    /// How long the old slot may finish its requests.
    pub drain: Duration,
    /// A lock that its holder does not renew ends after this time.
    pub lock_ttl: Duration,
}

/// Which regions go back when one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Only the region that failed.
    Region,
    /// Also the regions that finished before it.
    All,
    /// No region: the rollout stops and a person decides.
    None,
}

/// The most that the servers may cost in a month.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    pub amount: f64,
    /// `USD` or `EUR`.
    pub currency: String,
}

/// Which servers `provision-region` orders at Hetzner.
#[derive(Clone, Debug)]
pub struct Provision {
    pub token: Secret,
    /// Hetzner's name of the image of new servers.
    pub image: String,
    /// Files with the public keys that open root's account, relative to the directory of `regions.toml`. Never empty.
    pub root_keys: Vec<String>,
    /// From where the servers may be reached by ssh. Never empty.
    pub ssh_from: Vec<IpNet>,
    /// Hetzner's types for the hosts, the best first. Never empty, as are the other lists of types.
    pub api: Vec<String>,
    pub database: Option<DatabaseServers>,
    /// The one Redis server of a region.
    pub redis: Option<RedisServers>,
    /// The one load balancer of a region.
    pub load_balancer: Option<BalancerServers>,
    /// By cluster; one that is not here has none.
    pub backups: BTreeMap<String, Backup>,
}

/// The load balancer of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerServers {
    pub types: Vec<String>,
    /// Hetzner's name of the certificate that ends TLS.
    pub certificate: Option<String>,
}

/// The Redis server of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisServers {
    pub types: Vec<String>,
    /// Of its one account; `None`: it is not set up.
    pub password: Option<Secret>,
}

/// The servers of the nodes of all clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseServers {
    /// Empty only where every node has a host.
    pub types: Vec<String>,
    /// Of the volume that holds the data, 10 to 10240; `None` is the server's own disk.
    pub volume_gb: Option<u32>,
    /// Connection string of the account that owns the product's database.
    pub app: Option<Secret>,
    /// From where accounts may log in besides the servers of the product.
    pub clients: Vec<IpNet>,
}

/// Where the backups of one cluster go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// `https`, a host, and a port if it is not 443.
    pub endpoint: Url,
    /// `[a-z0-9.-]+`
    pub bucket: String,
    /// Where the store stands; the residency of the cluster allows it.
    pub location: String,
    /// What the store calls its region.
    pub region: String,
    pub key: Secret,
    pub secret: Secret,
    pub passphrase: Secret,
    /// 2 to 365.
    pub keep_days: u16,
    /// File with the authority's certificate, relative to the directory of `regions.toml`; `None` are the public ones.
    pub ca: Option<String>,
}

/// What GitHub knows of the regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Github {
    /// Names of the regions whose environment must have a protection rule.
    pub protected: Vec<String>,
    /// The environment of a region is this and the region's name.
    pub environment_prefix: String,
}

/// Whose rows move, and where to.
#[derive(Clone, Debug)]
pub struct Migration {
    /// Name of the cluster that the rows leave.
    pub from: String,
    /// Name of another cluster, that they move to.
    pub to: String,
    /// `users` or `shop.users`: the table with one row for each user.
    pub root: String,
    /// Who moves: an SQL condition over the columns of `root`.
    pub users: String,
    /// How long an API may go on with what it remembers of a user's home.
    pub route_cache_ttl: Duration,
    pub roles: Roles,
    /// What the foreign keys do not say, by table, named as `root` is.
    pub tables: BTreeMap<String, TableRule>,
}

/// The accounts of a migration, by what they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    pub install: Sides,
    pub mover: Sides,
    pub verify: Sides,
}

/// One connection string for each cluster of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sides {
    pub from: Secret,
    pub to: Secret,
}

/// What the foreign keys of a table do not say. At most one of `owner`, `owner_by`, `stays` and `shared`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableRule {
    pub owner: Option<OwnerRule>,
    pub owner_by: Vec<String>,
    pub stays: bool,
    pub unowned: Option<Unowned>,
    pub shared: Option<Shared>,
    /// By column.
    pub other_users: BTreeMap<String, OtherUser>,
}

/// A reference to the user that is no foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRule {
    pub columns: Vec<String>,
    pub references: String,
    /// As many as `columns`; empty for the primary key.
    pub referenced: Vec<String>,
}

/// What becomes of rows whose reference to their user is NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unowned {
    /// They are nobody's, and stay.
    Stay,
    /// There must be none.
    Refuse,
}

/// How a table that does not move serves users on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shared {
    /// What a user refers to must be there already, with the same content.
    Reference,
}

/// What becomes of a row that refers to a row of another user, when only one of the two moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OtherUser {
    /// In a table that stays: the reference becomes NULL when the row it leads to goes, at a purge or on the way back.
    SetNull,
    /// There must be none.
    Refuse,
}

/// A secret by reference: the file never holds the secret itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// `env:NAME`
    Env(String),
    /// `file:PATH`, relative to the directory of `regions.toml`; `~/` stands for the home directory.
    File(String),
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
