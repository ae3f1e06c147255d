//! What one Postgres database says about its tables: the input of [`crate::closure`] and of every refusal.
//!
//! Read by `mover::survey`; tests write it by hand. Names are as Postgres stores them, unquoted.

use std::fmt;

use serde::Serialize;

/// Everything that matters about the user tables of one database.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Catalog {
    /// Ordinary tables and the roots of partitioned ones, sorted by name. Partitions stand inside their root.
    pub tables: Vec<Table>,
    pub foreign_keys: Vec<ForeignKey>,
    pub sequences: Vec<Sequence>,
}

/// A table's name, with its schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            name: name.into(),
        }
    }

    /// `users` or `shop.users`, as [`fmt::Display`] writes it.
    pub fn written(text: &str) -> Self {
        match text.split_once('.') {
            Some((schema, name)) => Self::new(schema, name),
            None => Self::new("public", text),
        }
    }
}

/// As people write it: without quotes, without `public`.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema.as_str() {
            "public" => f.write_str(&self.name),
            schema => write!(f, "{schema}.{}", self.name),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Table {
    pub name: TableName,
    pub kind: TableKind,
    /// In the order of the table; dropped columns are not listed.
    pub columns: Vec<Column>,
    /// Column names of the primary key, in key order; empty without one.
    pub primary_key: Vec<String>,
    /// Valid B-tree indexes with their leading columns, in order, the primary key and unique keys among them. Partial ones
    /// only where they leave out nothing but NULL in the first column.
    pub indexes: Vec<Index>,
    /// All partitions below a partitioned table, at every level.
    pub partitions: Vec<TableName>,
    pub triggers: Vec<Trigger>,
    /// Whether policies hide rows from somebody (`relrowsecurity`).
    pub row_security: bool,
    /// Whether policies hide rows from the owner too (`relforcerowsecurity`).
    pub forced_row_security: bool,
    /// `pg_class.reltuples`, partitions included; -1 when it was never analysed.
    pub estimated_rows: i64,
    /// `pg_total_relation_size`, partitions, TOAST and indexes included.
    pub bytes: u64,
    /// Names of publications that send only some of its rows.
    pub filtered_publications: Vec<String>,
    /// Names of subscriptions that write into it.
    pub subscriptions: Vec<String>,
    /// Whether other tables inherit from it, without being its partitions, or it from them.
    pub inherits: bool,
    /// Names of rewrite rules (`CREATE RULE`), which turn a statement into another one.
    pub rewrites: Vec<String>,
    /// Unique keys, primary keys and exclusions that are checked late, its partitions' own among them.
    pub late_keys: Vec<LateKey>,
    pub persistence: Persistence,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether every one of `columns` leads an index of exactly these columns, in any order.
    pub fn is_indexed(&self, columns: &[String]) -> bool {
        self.indexes.iter().any(|index| {
            index.columns.len() >= columns.len()
                && columns
                    .iter()
                    .all(|column| index.columns[..columns.len()].contains(column))
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TableKind {
    Ordinary,
    Partitioned,
    /// `foreign` tables, whose rows are elsewhere.
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Persistence {
    Permanent,
    Unlogged,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    pub name: String,
    pub kind: Type,
    pub not_null: bool,
    /// The expression of `GENERATED ALWAYS AS (..) STORED`.
    pub generated: Option<String>,
    pub identity: Option<Identity>,
    /// The default's expression, as Postgres prints it.
    pub default: Option<String>,
    /// Not the type's own default collation.
    pub collation: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Identity {
    Always,
    ByDefault,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Type {
    /// `format_type`, for example `numeric(10,2)` or `public.mood[]`; usable in a cast.
    pub name: String,
    /// The function that makes the binary form (`pg_type.typsend`), schema-qualified; `None` when the type has none.
    pub send: Option<String>,
    /// Whether the binary form holds type OIDs, which differ between databases: arrays of non-built-in types, composites.
    pub carries_oids: bool,
    /// Whether a value of it means nothing in another database: `oid`, `xid`, `regclass`, `pg_lsn`, and what holds one.
    pub local: bool,
    /// The operator of its default B-tree class that says equal, schema-qualified for `OPERATOR(..)`, for example
    /// `pg_catalog.=` or `public.=`; `None` when it has no such class.
    pub equals: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Index {
    pub name: String,
    pub columns: Vec<String>,
    pub unique: bool,
}

/// A `DEFERRABLE` constraint that an index holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LateKey {
    /// The table, or the one partition that has it.
    pub on: TableName,
    pub name: String,
}

/// As its author made it; what Postgres makes for foreign keys is not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trigger {
    pub name: String,
    pub before: bool,
    pub per_row: bool,
    /// `O`, `R`, `A` or `D` of `pg_trigger.tgenabled`.
    pub enabled: char,
    /// The function, schema-qualified.
    pub function: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignKey {
    pub name: String,
    pub table: TableName,
    pub columns: Vec<String>,
    pub references: TableName,
    pub referenced_columns: Vec<String>,
    /// One per column, schema-qualified for `OPERATOR(..)`: referenced = referencing (`pg_constraint.conpfeqop`).
    pub operators: Vec<String>,
    pub deferrable: bool,
    pub validated: bool,
    pub on_delete: Action,
    pub on_update: Action,
}

/// What a foreign key does with its rows when the row they refer to changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    NoAction,
    Restrict,
    Cascade,
    SetNull,
    SetDefault,
}

/// A sequence, once for every column that takes its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sequence {
    pub name: TableName,
    /// The column that takes its values, if one does.
    pub used_by: Option<(TableName, String)>,
    pub increment: i64,
    pub start: i64,
    pub minimum: i64,
    pub maximum: i64,
    /// `pg_sequence_last_value`; `None` before its first use, and where the role may not see it.
    pub last_value: Option<i64>,
    /// Whether it begins again at its end.
    pub cycles: bool,
}

/// What one server says about itself and the database, as the session's role sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    pub system_identifier: u64,
    pub database: String,
    pub in_recovery: bool,
    /// `None` while in recovery.
    pub timeline: Option<u32>,
    /// `150018` for 15.18.
    pub version: u32,
    /// `UTF8`, `SQL_ASCII`, ...
    pub encoding: String,
    /// Collations whose library sorts otherwise than when they were made.
    pub changed_collations: Vec<String>,
    /// Entries of the shared lock table: `max_locks_per_transaction * (max_connections + max_prepared_transactions)`.
    pub lock_slots: u64,
    pub prepared: Vec<Prepared>,
    /// A pooler stands between.
    pub pooled: bool,
    /// The role of the session.
    pub role: String,
    /// Superuser or BYPASSRLS: policies hide no row from it.
    pub bypasses_row_security: bool,
    /// `synchronous_standby_names`
    pub synchronous: String,
    /// Connected standbys.
    pub standbys: u32,
}

/// A prepared transaction of the database, which holds its locks until somebody ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prepared {
    pub gid: String,
    /// What it has locked; a partition counts as itself.
    pub tables: Vec<TableName>,
}
