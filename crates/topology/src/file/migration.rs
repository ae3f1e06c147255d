//! `[migration]`: whose rows move, and what becomes of those that others refer to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{Condition, DurationText, Identifier, Name, SecretReference, TableText};
use crate::model::{OtherUser, Shared, Unowned};

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
