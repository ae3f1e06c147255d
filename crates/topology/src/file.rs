//! `regions.toml` as it is written: its keys, their types, their defaults.
//!
//! The doc comments here are the descriptions in the JSON schema and in `docs/regions-toml.md`; a type's `title` is
//! what an error message names as accepted. Values are still text: [`crate::resolve`] makes the model of them.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{OnFailure, OtherUser, Outage, Shared, Unowned};

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

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GatesFile {
    /// Pauses a rollout when a standby is more than `threshold` behind for longer than `sustained`.
    pub(crate) lag: LagFile,
    /// When an endpoint counts as bad, and a release with it.
    pub(crate) health: HealthFile,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LagFile {
    /// A standby that is further behind is lagging.
    pub(crate) threshold: DurationText,
    /// Lagging for longer than this is a breach.
    pub(crate) sustained: DurationText,
    /// Time between two probes of one standby.
    pub(crate) interval: DurationText,
    /// The last part of the observation that must be clean.
    pub(crate) clear_for: DurationText,
    /// Upper limit for one probe, connecting included.
    pub(crate) timeout: DurationText,
}

// 500 ms for 60 s: a user who reads from a standby notices half a second, and a minute rules out a vacuum, a
// checkpoint or one large transaction. A probe gets 3 s because connecting across an ocean takes five round trips.
impl Default for LagFile {
    fn default() -> Self {
        Self {
            threshold: DurationText::new("500ms"),
            sustained: DurationText::new("60s"),
            interval: DurationText::new("1s"),
            clear_for: DurationText::new("10s"),
            timeout: DurationText::new("3s"),
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HealthFile {
    /// Where the product says that a process can serve; `region-host install --health-path` must name the same.
    pub(crate) basic_path: UrlPath,
    /// Time between two probes of one endpoint.
    pub(crate) interval: DurationText,
    /// Upper limit for one probe, connecting included.
    pub(crate) timeout: DurationText,
    /// Failures in a row that make an endpoint bad; right after a switch also as many between good answers.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) failures: u32,
    /// Successes in a row that make it good.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) successes: u32,
    /// More failing dependencies than this are bad for the release.
    #[schemars(range(min = 0, max = 100))]
    pub(crate) max_failing_dependencies: u32,
}

impl Default for HealthFile {
    fn default() -> Self {
        Self {
            basic_path: UrlPath("/health/basic".to_owned()),
            interval: DurationText::new("2s"),
            timeout: DurationText::new("2s"),
            failures: 3,
            successes: 3,
            max_failing_dependencies: 2,
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RolloutFile {
    /// Names of regions, wave by wave; each wave waits for the one before. Left out, the regions go one by one in
    /// ascending traffic.
    #[schemars(title = "a list of waves, each a list of regions")]
    pub(crate) waves: Option<Vec<Vec<Name>>>,
    /// Which regions go back when one fails.
    pub(crate) on_failure: OnFailure,
    /// Wait between the gates and the close of a region. May be `0s`.
    pub(crate) soak: DurationText,
    /// How long a release may take to become healthy in its slot.
    pub(crate) start_deadline: DurationText,
    /// All hosts of a region must have switched within this time.
    pub(crate) commit_window: DurationText,
    /// How long `deploy-region` looks at the switched region before it confirms.
    pub(crate) verify: DurationText,
    /// Without a confirm in this time a host switches back by itself. Must be longer than `commit_window`, `verify`
    /// and the last probes together.
    pub(crate) confirm_within: DurationText,
    /// How long the old slot may finish its requests.
    pub(crate) drain: DurationText,
    /// A lock that its holder does not renew ends after this time.
    pub(crate) lock_ttl: DurationText,
}

impl Default for RolloutFile {
    fn default() -> Self {
        Self {
            waves: None,
            on_failure: OnFailure::Region,
            soak: DurationText::new("0s"),
            start_deadline: DurationText::new("60s"),
            commit_window: DurationText::new("5s"),
            verify: DurationText::new("30s"),
            confirm_within: DurationText::new("90s"),
            drain: DurationText::new("30s"),
            lock_ttl: DurationText::new("120s"),
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetFile {
    /// Money for one month.
    #[schemars(range(min = 1.0, max = 1_000_000_000.0))]
    pub(crate) amount: f64,
    pub(crate) currency: Currency,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProvisionFile {
    /// The API token of the Hetzner project, with the right to write, by reference.
    #[serde(default = "default_token")]
    pub(crate) token: SecretReference,
    /// The image of new servers.
    #[serde(default = "default_image")]
    pub(crate) image: Word,
    /// Files with the public keys that open root's account, relative to the directory of `regions.toml`. The key of `[ssh]`
    /// should not be among them: it may deploy, and nothing else.
    #[schemars(length(min = 1))]
    pub(crate) root_keys: Vec<FilePath>,
    /// From where the servers may be reached by ssh.
    #[schemars(length(min = 1))]
    pub(crate) ssh_from: Vec<Range>,
    /// The servers of `regions.NAME.hosts`.
    pub(crate) api: ServersFile,
    /// A server with a volume for every node of `clusters` that no host carries. Left out, none is ordered, and no Postgres is
    /// set up.
    pub(crate) database: Option<DatabaseFile>,
    /// One Redis server for each region. Left out, none is ordered.
    pub(crate) redis: Option<RedisFile>,
    /// One load balancer for each region. Left out, none is ordered.
    pub(crate) load_balancer: Option<BalancerFile>,
    /// Where the backups of a cluster go, by the cluster's name. One that is not here has none.
    #[serde(default)]
    pub(crate) backup: BTreeMap<Name, BackupFile>,
}

fn default_token() -> SecretReference {
    SecretReference("env:HCLOUD_TOKEN".to_owned())
}

fn default_image() -> Word {
    Word("debian-12".to_owned())
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a table with `types`, a list of Hetzner's types")]
pub(crate) struct ServersFile {
    /// Hetzner's types that will do, the best first. One that a location does not sell, or has not left, is passed over.
    #[schemars(length(min = 1))]
    pub(crate) types: Vec<Word>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a table with `types`, a list of Hetzner's types")]
pub(crate) struct BalancerFile {
    /// As for `api`.
    #[schemars(length(min = 1))]
    pub(crate) types: Vec<Word>,
    /// Name of the certificate, in the Hetzner project, with which it ends TLS. Needed where a region's `url` is `https`.
    pub(crate) certificate: Option<Word>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a table with `types`, `volume_gb`, `app` and `clients`")]
pub(crate) struct DatabaseFile {
    /// As for `api`. Left out where every node has a `host`.
    #[schemars(length(min = 1))]
    pub(crate) types: Option<Vec<Word>>,
    /// Size of the volume that holds the data, in GB. Left out, it lies on the server's own disk.
    #[schemars(range(min = 10, max = 10240))]
    pub(crate) volume_gb: Option<u32>,
    /// A connection string, by reference, whose user is to own the product's database in every cluster, and whose password it
    /// gets. Left out, that account is made by a person.
    pub(crate) app: Option<SecretReference>,
    /// From where accounts may log in besides the servers of the product: whoever runs `check-replication-lag` or
    /// `migrate-eu-users`. Each node then listens on its public address, too, for these only.
    #[serde(default)]
    pub(crate) clients: Vec<Range>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupFile {
    /// The S3-compatible store, at Hetzner `https://LOCATION.your-objectstorage.com`.
    pub(crate) endpoint: Endpoint,
    /// A bucket that is there, and of nobody else.
    pub(crate) bucket: Bucket,
    /// Where the store stands: a location of the cluster's residency.
    pub(crate) location: Location,
    /// What the store calls its region, for example `us-east-1`. Left out, `location`.
    pub(crate) region: Option<Location>,
    /// The access key, by reference.
    pub(crate) key: SecretReference,
    /// The secret that belongs to `key`, by reference.
    pub(crate) secret: SecretReference,
    /// What the backups are encrypted with, by reference, before they leave the server. Without it they are lost.
    pub(crate) passphrase: SecretReference,
    /// How many days one can go back, at least.
    #[serde(default = "default_keep_days")]
    #[schemars(range(min = 2, max = 365))]
    pub(crate) keep_days: u16,
    /// File with the certificate of the authority that vouches for a store of your own. Left out, the public ones do.
    pub(crate) ca: Option<FilePath>,
}

fn default_keep_days() -> u16 {
    14
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a table with `types`, a list of Hetzner's types")]
pub(crate) struct RedisFile {
    /// As for `api`.
    #[schemars(length(min = 1))]
    pub(crate) types: Vec<Word>,
    /// The password of the one account, named like the product, by reference. Left out, Redis is not set up on the server.
    pub(crate) password: Option<SecretReference>,
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

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MigrationFile {
    /// The cluster that the rows leave.
    pub(crate) from: Name,
    /// The cluster that they move to.
    pub(crate) to: Name,
    /// The table with one row for each user; `SCHEMA.TABLE` outside of `public`.
    pub(crate) root: TableText,
    /// How long an API may go on with what it remembers of a user's home. Rows are not deleted before.
    pub(crate) route_cache_ttl: DurationText,
    /// Who moves: a condition over the columns of `root`. Left out, the column `billing_country` holds a country of the
    /// residency of cluster `to`.
    pub(crate) users: Option<Condition>,
    /// The accounts, by what they do. Left out, everything is done as the clusters' `primary.dsn` says.
    #[serde(default)]
    pub(crate) roles: RolesFile,
    /// What the foreign keys do not say, by table (`SCHEMA.TABLE` outside of `public`).
    #[serde(default)]
    pub(crate) tables: BTreeMap<TableText, TableFile>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RolesFile {
    /// Owns the tables and installs the fence. Left out, it is the `primary.dsn` of each cluster.
    pub(crate) install: Option<SidesFile>,
    /// Reads, writes and deletes the rows that move. Left out, it is `install`.
    #[serde(rename = "move")]
    pub(crate) mover: Option<SidesFile>,
    /// Only reads. Left out, it is `move`.
    pub(crate) verify: Option<SidesFile>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    title = "`{ from = .., to = .. }`, the connection string at each cluster as `env:NAME` or `file:PATH`"
)]
pub(crate) struct SidesFile {
    /// The connection string at cluster `from`, by reference.
    pub(crate) from: SecretReference,
    /// The connection string at cluster `to`, by reference.
    pub(crate) to: SecretReference,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TableFile {
    /// How a row finds its user where no foreign key says it.
    pub(crate) owner: Option<OwnerFile>,
    /// Names of the foreign keys that lead to a row's user, where more than one could: the first that is not NULL does.
    pub(crate) owner_by: Vec<Identifier>,
    /// The table looks like a user's, and yet its rows stay where they are.
    pub(crate) stays: bool,
    /// What becomes of rows whose reference to their user is NULL.
    pub(crate) unowned: Option<Unowned>,
    /// Rows that users have in common, in a table that does not move.
    pub(crate) shared: Option<Shared>,
    /// What columns mean, by name.
    pub(crate) columns: BTreeMap<Identifier, ColumnFile>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    title = "`{ columns = [..], references = \"TABLE\" }`, with `referenced = [..]` if that is not the table's primary key"
)]
pub(crate) struct OwnerFile {
    /// Columns of the table, in the order of `referenced`.
    #[schemars(length(min = 1))]
    pub(crate) columns: Vec<Identifier>,
    /// The table that they lead to.
    pub(crate) references: TableText,
    /// Columns of that table. Left out, they are its primary key.
    #[serde(default)]
    pub(crate) referenced: Vec<Identifier>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnFile {
    /// What becomes of a row that refers through this column to a row of a user who stays.
    pub(crate) other_user: OtherUser,
}

/// The currency of the amount.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) enum Currency {
    #[serde(rename = "USD")]
    Usd,
    #[serde(rename = "EUR")]
    Eur,
}

/// A string with a meaning: what is accepted, and the pattern with which an editor checks it.
macro_rules! text {
    ($name:ident, $accepted:literal, $($keyword:literal: $value:tt),+) => {
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
        pub(crate) struct $name(pub(crate) String);

        impl $name {
            pub(crate) const ACCEPTED: &str = $accepted;
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "title": Self::ACCEPTED, $($keyword: $value),+ })
            }
        }
    };
}

text!(
    Name,
    "a name of 2 to 31 characters `a-z`, `0-9` and `-` that begins with a letter",
    "pattern": "^[a-z][a-z0-9-]{1,30}$"
);
text!(
    Location,
    "a location in lower case, for example `ash`, `fsn1`, `hel1`, `hil`, `nbg1` or `sin`",
    "pattern": "^[a-z][a-z0-9-]{1,30}$"
);
text!(
    Word,
    "a name as Hetzner writes it, for example `cpx42` or `debian-12`",
    "pattern": "^[a-z][a-z0-9.-]{1,62}$"
);
text!(
    Range,
    "a range of addresses, for example `198.51.100.7/32` or `2001:db8::/48`",
    "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"
);
text!(
    Account,
    "the name of a Unix account",
    "pattern": "^[a-z_][a-z0-9_-]{0,31}$"
);
text!(
    FilePath,
    "the path of a file",
    "pattern": "^[^\\x00-\\x1f\\x7f]+$"
);
text!(
    Address,
    "the IPv4 or IPv6 address of one server",
    "pattern": "^[0-9a-fA-F.:]+$"
);
text!(
    Origin,
    "`http://HOST` or `https://HOST`, with a port if needed and nothing after it",
    "pattern": "^[hH][tT][tT][pP][sS]?://[^/?#@\\s]+/?$"
);
text!(
    Endpoint,
    "`https://HOST`, with a port if needed and nothing after it",
    "pattern": "^https://[^/?#@\\s]+/?$"
);
text!(
    Bucket,
    "the name of a bucket: 3 to 63 of `a-z`, `0-9`, `.` and `-`",
    "pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
);
text!(
    UrlPath,
    "the path of a URL, for example `/health/basic`",
    "pattern": "^/[^?#\\s\\x00-\\x1f\\x7f]*$"
);
text!(
    SecretReference,
    "`env:NAME` or `file:PATH`",
    "pattern": "^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\\x00-\\x1f\\x7f]+)$",
    "writeOnly": true
);
text!(
    DurationText,
    "a duration, for example \"500ms\", \"60s\" or \"2m\"",
    "pattern": "^([0-9]+(ms|s|m|h))+$"
);
text!(
    EnvironmentPrefix,
    "up to 100 letters, digits, `.`, `_`, `-` and `/`",
    "pattern": "^[A-Za-z0-9._/-]{0,100}$"
);
text!(
    Country,
    "an ISO 3166 country code of two capitals, for example `DE`",
    "pattern": "^[A-Z]{2}$"
);

text!(
    TableText,
    "`TABLE`, or `SCHEMA.TABLE` outside of `public`, as Postgres stores the name",
    "pattern": "^[^.\"\\x00-\\x1f\\x7f]{1,63}(\\.[^.\"\\x00-\\x1f\\x7f]{1,63})?$"
);
text!(
    Identifier,
    "a name as Postgres stores it",
    "pattern": "^[^\"\\x00-\\x1f\\x7f]{1,63}$"
);
text!(
    Condition,
    "an SQL condition on one line, without `;`, for example `billing_country IN ('DE', 'FR')`",
    "pattern": "^[^;\\x00-\\x1f\\x7f]*[^;\\s\\x00-\\x1f\\x7f][^;\\x00-\\x1f\\x7f]*$"
);

impl DurationText {
    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}
