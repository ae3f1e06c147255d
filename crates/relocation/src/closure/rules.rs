//! What the operator says about tables where their foreign keys do not say enough: `[migration.tables]` of
//! `regions.toml`, in the words of [`super::discover`].

use std::collections::BTreeMap;

use serde::Serialize;

use crate::catalog::TableName;

/// By table. A table without a rule is what its foreign keys make of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rules {
    pub tables: BTreeMap<TableName, TableRule>,
}

impl Rules {
    pub fn of(&self, table: &TableName) -> Option<&TableRule> {
        self.tables.get(table)
    }

    /// What was said about references through `columns`: one word for one of them counts for the whole key.
    pub fn other_user(&self, table: &TableName, columns: &[String]) -> Option<OtherUser> {
        let rule = self.of(table)?;
        columns
            .iter()
            .find_map(|column| rule.other_users.get(column))
            .copied()
    }

    /// Whether the rows of the table are said not to be a user's.
    pub fn keeps(&self, table: &TableName) -> bool {
        self.of(table).is_some_and(|rule| rule.stays || rule.shared)
    }

    pub fn shares(&self, table: &TableName) -> bool {
        self.of(table).is_some_and(|rule| rule.shared)
    }
}

/// At most one of `owner`, `owner_by`, `stays` and `shared`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableRule {
    pub owner: Option<OwnerRule>,
    /// Names of foreign keys: the first whose columns are not NULL leads to the user.
    pub owner_by: Vec<String>,
    /// Looks like a user's, and is not.
    pub stays: bool,
    /// Its rows must be at the target already, and equal, where a moving row refers to them.
    pub shared: bool,
    pub unowned: Option<Unowned>,
    /// By column.
    pub other_users: BTreeMap<String, OtherUser>,
}

/// A reference to the user that is no foreign key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnerRule {
    pub columns: Vec<String>,
    pub references: TableName,
    /// As many as `columns`; empty for the primary key.
    pub referenced: Vec<String>,
}

/// What becomes of rows whose every reference towards a user is NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unowned {
    Stay,
    Refuse,
}

/// What becomes of a row that refers to a row of a user who stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum OtherUser {
    SetNull,
    Refuse,
}
