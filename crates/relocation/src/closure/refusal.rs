//! Why a migration must not begin: what is the matter, where, and the command or the lines of `regions.toml` that
//! settle it.
//!
//! Each reason is found by one function beside this file. The text shows names and numbers, never a row.

mod fix;
mod warning;
mod words;

use std::fmt;

use serde::Serialize;

use crate::catalog::{Action, TableName};

pub use warning::Warning;

/// One reason, and the cluster that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub at: Side,
    pub reason: Reason,
}

/// The clusters by their role in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Side {
    Source,
    Target,
    Both,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "at the source",
            Self::Target => "at the target",
            Self::Both => "at source and target",
        })
    }
}

/// A foreign key, or what a rule says in its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Path {
    pub name: String,
    pub columns: Vec<String>,
    pub references: TableName,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            columns,
            references,
        } = self;
        write!(f, "`{name}` ({} to {references})", columns.join(", "))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reason {
    // The root, and who owns what.
    RootMissing {
        root: TableName,
    },
    RootKey {
        root: TableName,
        columns: Vec<String>,
    },
    /// One key can be written in several ways, and a user is known by what is written.
    RootKeyText {
        root: TableName,
        column: String,
        kind: String,
    },
    SeveralOwners {
        table: TableName,
        paths: Vec<Path>,
    },
    /// Rows may be nobody's, and it is not said what becomes of them.
    Unowned {
        table: TableName,
        columns: Vec<String>,
        on_delete: Action,
    },
    LooksOwned {
        table: TableName,
        column: String,
        /// The column it looks like, as `orders.user_id`.
        like: String,
    },
    Polymorphic {
        table: TableName,
        id: String,
        kind: String,
    },
    RefersOutside {
        table: TableName,
        path: Path,
    },
    RefersToOtherUser {
        table: TableName,
        path: Path,
    },
    /// A table that stays refers to rows that go.
    StaysButRefers {
        table: TableName,
        path: Path,
        on_delete: Action,
    },

    // Rules of `regions.toml` that do not fit the catalog.
    RuleForUnknownTable {
        table: TableName,
    },
    RuleForUnknownColumn {
        table: TableName,
        column: String,
        known: Vec<String>,
    },
    RuleForUnknownKey {
        table: TableName,
        key: String,
        known: Vec<String>,
    },
    /// A word about another user, on a column that refers to none.
    RuleWithoutReference {
        table: TableName,
        column: String,
    },
    RuleLeadsNowhere {
        table: TableName,
        paths: Vec<Path>,
    },
    CannotBeNull {
        table: TableName,
        column: String,
    },
    ChangesOnTheWay {
        table: TableName,
        column: String,
    },
    OwnerTypesDiffer {
        table: TableName,
        column: String,
        kind: String,
        referenced: String,
        referenced_kind: String,
    },
    OwnerNotUnique {
        table: TableName,
        references: TableName,
        columns: Vec<String>,
    },

    // One table.
    NoPrimaryKey {
        table: TableName,
    },
    NoIndex {
        table: TableName,
        columns: Vec<String>,
        partitioned: bool,
    },
    NotValidated {
        table: TableName,
        key: String,
    },
    LocalType {
        table: TableName,
        column: String,
        kind: String,
    },
    NoBinaryForm {
        table: TableName,
        column: String,
        kind: String,
    },
    RowSecurity {
        table: TableName,
        role: String,
    },
    Unlogged {
        table: TableName,
    },
    Foreign {
        table: TableName,
    },
    Inherits {
        table: TableName,
    },
    Rewrites {
        table: TableName,
        rule: String,
    },
    /// Nobody would check it for rows that move.
    LateKey {
        table: TableName,
        key: String,
    },
    FilteredPublication {
        table: TableName,
        publication: String,
    },
    Subscription {
        table: TableName,
        subscription: String,
    },
    /// Fires after the fence and could change whose a row is.
    LateTrigger {
        table: TableName,
        trigger: String,
    },
    /// Fires for the mover too.
    AlwaysTrigger {
        table: TableName,
        trigger: String,
        enabled: char,
    },
    KeyOfOnePartition {
        table: TableName,
        partition: TableName,
        key: String,
    },

    // Source and target compared.
    TableMissing {
        table: TableName,
    },
    KindDiffers {
        table: TableName,
    },
    ColumnMissing {
        table: TableName,
        column: String,
        kind: String,
    },
    TypeDiffers {
        table: TableName,
        column: String,
        source: String,
        target: String,
    },
    NullDiffers {
        table: TableName,
        column: String,
    },
    GeneratedDiffers {
        table: TableName,
        column: String,
        source: Option<String>,
        target: Option<String>,
    },
    CollationDiffers {
        table: TableName,
        column: String,
        source: Option<String>,
        target: Option<String>,
    },
    PrimaryKeyDiffers {
        table: TableName,
        source: Vec<String>,
        target: Vec<String>,
    },
    KeyMissing {
        table: TableName,
        path: Path,
    },
    PartitionMissing {
        table: TableName,
        partition: TableName,
    },
    SequencesOverlap {
        table: TableName,
        column: String,
        source: Numbers,
        target: Numbers,
        /// A number that both can give.
        shared: i64,
    },

    // The servers.
    SameCluster {
        system_identifier: u64,
    },
    Standby,
    Pooled,
    NoEncoding,
    TooOld {
        version: u32,
    },
    Prepared {
        gid: String,
        tables: Vec<TableName>,
    },

    // What was counted.
    OtherUsersRows {
        table: TableName,
        columns: Vec<String>,
        references: TableName,
        rows: u64,
    },
    UnownedRows {
        table: TableName,
        rows: u64,
    },
}

/// What a sequence gives: `least`, `least + step`, .. `most`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Numbers {
    pub sequence: TableName,
    pub least: i64,
    pub most: i64,
    pub step: u64,
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sequence,
            least,
            most,
            step,
        } = self;
        write!(f, "{sequence} gives {least} to {most} in steps of {step}")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.reason)?;
        for line in self.reason.fix().lines() {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

/// Rights on single parameters, without which only a superuser could move users.
pub const OLDEST_VERSION: u32 = 150_000;

/// The name of the fence's row trigger: Postgres fires triggers of one kind in the order of their names.
pub const FENCE: &str = "~regionwise";
