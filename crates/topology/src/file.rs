//! `regions.toml` as it is written: its keys, their types, their defaults.
//!
//! The doc comments here are the descriptions in the JSON schema and in `docs/regions-toml.md`; a type's `title` is
//! what an error message names as accepted. Values are still text: [`crate::resolve`] makes the model of them.

mod migration;
mod provision;
mod rollout;
mod words;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::Outage;

pub(crate) use migration::{MigrationFile, OwnerFile, RolesFile, SidesFile, TableFile};
pub(crate) use provision::{
    BackupFile, BudgetFile, Currency, DatabaseFile, ProvisionFile, RedisFile,
};
pub(crate) use rollout::{GatesFile, HealthFile, LagFile, RolloutFile};
pub(crate) use words::{
    Account, Address, Bucket, Condition, Country, DurationText, Endpoint, EnvironmentPrefix,
    FilePath, Identifier, Location, Name, Origin, Range, SecretReference, TableText, UrlPath, Word,
};

/// The JSON schema of [`File`], without references, so that a reader of one key sees everything about it.
pub(crate) fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<File>()
        .to_value();
    tidy(&mut schema);
    // serde_json keeps the order of insertion or not, as any crate of the build asks: the schema is the same either way.
    schema.sort_all_objects();
    schema
}

/// Takes out what TOML cannot say (null), what its parts say already (the default of a whole table) and the line
/// breaks of doc comments.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object
                .get("default")
                .is_some_and(|default| default.is_null() || default.is_object())
            {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    for (key, value) in only {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// One file that every regionwise binary reads.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "regions.toml")]
pub(crate) struct File {
    /// What is rolled out.
    pub(crate) product: ProductFile,
    /// How the controller (a laptop, a CI runner) reaches `region-host` on every server.
    pub(crate) ssh: SshFile,
    /// Places with users and API hosts, by name.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) regions: BTreeMap<Name, RegionFile>,
    /// Postgres writers with their standbys, by name. A cluster is not a region.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) clusters: BTreeMap<Name, ClusterFile>,
    /// Where rows of a kind may be, by name.
    #[serde(default)]
    pub(crate) residency: BTreeMap<Name, ResidencyFile>,
    /// The checks that decide whether a rollout goes on.
    #[serde(default)]
    pub(crate) gates: GatesFile,
    /// How a release moves.
    #[serde(default)]
    pub(crate) rollout: RolloutFile,
    /// The most that the servers may cost in a month, net: `provision-region` orders nothing beyond it.
    pub(crate) budget: Option<BudgetFile>,
    /// Which servers `provision-region` orders at Hetzner. Left out, they are there already.
    pub(crate) provision: Option<ProvisionFile>,
    /// Which users' rows `migrate-eu-users` moves, and where to.
    pub(crate) migration: Option<MigrationFile>,
    /// What GitHub knows of the regions.
    #[serde(default)]
    pub(crate) github: GithubFile,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProductFile {
    /// Name of the product, and of its state directory on every host.
    pub(crate) name: Name,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SshFile {
    /// The account that `region-host` runs as.
    #[serde(default = "default_user")]
    pub(crate) user: Account,
    /// File with the pinned host keys, relative to the directory of `regions.toml`. Keys are never learned at a
    /// deploy.
    pub(crate) known_hosts: FilePath,
    /// The private key: `env:NAME` holds the key itself, `file:PATH` names its file (`~/` is the home directory).
    pub(crate) identity: SecretReference,
    /// A host in between, where the servers let ssh in from there only. `known_hosts` pins its key, `provision.ssh_from` has its
    /// address, and its account is opened by every key that opens a server.
    #[schemars(title = "`{ address = .., user = .. }`, with `port` if it is not 22")]
    pub(crate) jump: Option<JumpFile>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JumpFile {
    /// Its address. `known_hosts` pins its key, and `provision.ssh_from` has it.
    pub(crate) address: Address,
    /// The account there, which every key opens that opens a server, and which may forward connections.
    pub(crate) user: Account,
    /// Port of its sshd.
    #[serde(default = "default_ssh_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) port: u16,
}

fn default_user() -> Account {
    Account("regionwise".to_owned())
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegionFile {
    /// Where the hosts stand.
    pub(crate) location: Location,
    /// Share of all users. The regions need not add up to 1. Rollouts go from the least to the most.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) traffic: f64,
    /// Other locations of the same network zone for `provision-region`, in this order, when `location` has no server left.
    #[serde(default)]
    pub(crate) fallback_locations: Vec<Location>,
    /// The cluster that owns the rows this region serves.
    pub(crate) cluster: Name,
    /// Where the users of this region arrive.
    pub(crate) url: Origin,
    /// Servers that run API slots behind their own HAProxy, by name.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) hosts: BTreeMap<Name, HostFile>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostFile {
    /// Address of the server, as the controller reaches it. `provision-region` writes it where it is left out; nothing else
    /// works before.
    pub(crate) address: Option<Address>,
    /// Port of its sshd.
    #[serde(default = "default_ssh_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) ssh_port: u16,
    /// Port of the host's own HAProxy. Left out, it is the port of the region's `url`, or where `tls` says otherwise
    /// than its scheme, 443 with TLS and 80 without.
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) http_port: Option<u16>,
    /// Whether the host's own HAProxy speaks TLS. Left out, it does when the region's `url` is `https`; `false` where a
    /// load balancer in front ends TLS.
    pub(crate) tls: Option<bool>,
}

fn default_ssh_port() -> u16 {
    22
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterFile {
    /// The residency of the rows it holds. Every node must then stand in one of its locations.
    pub(crate) residency: Option<Name>,
    /// The writer.
    #[schemars(title = "a node, as `{ name = .., location = .., dsn = .. }`")]
    pub(crate) primary: NodeFile,
    /// The physical standbys. `[]` says that there is none.
    #[schemars(title = "a list of nodes", extend("x-hint" = "write `standbys = []` if this cluster has none"))]
    pub(crate) standbys: Vec<NodeFile>,
    /// How many standbys must confirm a commit (`synchronous_standby_names = 'ANY n (..)'`).
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub(crate) sync: u32,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    /// Name of the Postgres server, unique in the file.
    pub(crate) name: Name,
    /// Where the server stands.
    pub(crate) location: Location,
    /// Its connection string, by reference.
    pub(crate) dsn: SecretReference,
    /// The region with which `provision-region` makes its server. Left out, it is the region of that location, or else the
    /// only one in its network zone.
    pub(crate) region: Option<Name>,
    /// The host, of any region, that carries this Postgres: it gets no server of its own then. The host's region must be in the
    /// same location.
    pub(crate) host: Option<Name>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResidencyFile {
    /// Countries of the users it is about.
    #[schemars(length(min = 1))]
    pub(crate) countries: Vec<Country>,
    /// The only locations that may hold a copy.
    #[schemars(length(min = 1))]
    pub(crate) locations: Vec<Location>,
    /// What these users get when all the locations are out. Checked for form only: no binary acts on it yet.
    #[serde(default = "default_outage")]
    pub(crate) outage: Outage,
    /// The token of a Hetzner project of its own for the servers that hold these rows, by reference. Left out, they are in
    /// the project of `provision.token`.
    pub(crate) token: Option<SecretReference>,
}

fn default_outage() -> Outage {
    Outage::FailClosed
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GithubFile {
    /// Regions whose environment must have a protection rule: `report-rollout environments` refuses a rollout when it has
    /// none, or does not exist.
    pub(crate) protected: Vec<Name>,
    /// The environment of a region is this and the region's name.
    pub(crate) environment_prefix: EnvironmentPrefix,
}

impl Default for GithubFile {
    fn default() -> Self {
        Self {
            protected: Vec::new(),
            environment_prefix: EnvironmentPrefix(String::new()),
        }
    }
}
