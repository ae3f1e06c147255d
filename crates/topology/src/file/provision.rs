//! `[budget]` and `[provision]`: what is ordered, and for how much.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{Bucket, Endpoint, FilePath, Location, Name, Range, SecretReference, Word};

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

/// The currency of the amount.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) enum Currency {
    #[serde(rename = "USD")]
    Usd,
    #[serde(rename = "EUR")]
    Eur,
}
