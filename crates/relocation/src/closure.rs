//! A user's rows: the root table and every table whose rows hang on a row of it.

mod discover;
mod fit;
mod lookalike;
mod order;
mod ownership;
pub mod plan;
pub mod refusal;
pub mod rules;
mod sequences;
mod servers;
mod shape;
mod sides;
mod tables;

use std::fmt;

use serde::Serialize;

use crate::catalog::{Column, Table, TableName};
use refusal::{Path, Reason};
use rules::{OtherUser, Unowned};

pub use discover::discover;
pub use servers::{refusals as server_refusals, warnings as server_warnings};
pub use shape::{Shape, shape};
pub use sides::refusals as side_refusals;
pub use tables::refusals as table_refusals;

/// Which tables move, and how each finds the user that owns a row.
#[derive(Clone, Debug, Serialize)]
pub struct Closure {
    /// Parents before children; the root first. A table's number here is part of every row digest.
    pub tables: Vec<Member>,
}

/// A table of the closure.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    pub table: Table,
    pub owner: Owner,
    /// Foreign keys that must hold at the target beside the owner's: to closure tables and to tables that do not move.
    pub references: Vec<Reference>,
}

/// How a row of a table finds its user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Owner {
    /// The row is the user; its primary key has one column.
    Root,
    /// Through the first of these links whose columns are not NULL. Never empty.
    Through(Vec<Link>),
}

/// A step from a row towards its user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Referencing columns.
    pub columns: Vec<String>,
    /// Index of the parent in [`Closure::tables`]: smaller than the child's own, or the child's own in a tree.
    pub parent: usize,
    pub parent_columns: Vec<String>,
    /// parent = child, one per column, schema-qualified.
    pub operators: Vec<String>,
    /// The child may be written before its parent in one transaction.
    pub deferrable: bool,
    /// Whether one of `columns` may be NULL.
    pub nullable: bool,
}

/// A foreign key of a closure table that is no owner link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reference {
    pub name: String,
    pub columns: Vec<String>,
    pub references: TableName,
    pub referenced_columns: Vec<String>,
    pub operators: Vec<String>,
}

/// What [`discover`] found out about one database.
#[derive(Clone, Debug, Serialize)]
pub struct Discovered {
    pub closure: Closure,
    /// What it decided by itself, for the operator to read.
    pub decided: Vec<Decision>,
    /// What it could not decide, and what stands against a migration in the catalog.
    pub refused: Vec<Reason>,
    /// References between rows that may belong to two users.
    pub crossings: Vec<Crossing>,
    /// Tables of the closure with rows that may be nobody's, and what becomes of those rows.
    pub unowned: Vec<(usize, Unowned)>,
    /// Tables that do not move and that moving rows refer to: those rows must be at the target, and equal.
    pub shared: Vec<TableName>,
    /// References from tables that stay to rows that go.
    pub left_behind: Vec<LeftBehind>,
}

/// A foreign key between closure tables that is no owner link, or one of the root to itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Crossing {
    /// Index in [`Closure::tables`].
    pub table: usize,
    /// Index in [`Member::references`].
    pub reference: usize,
    /// Index in [`Closure::tables`] of the table that it refers to.
    pub to: usize,
    /// What becomes of a row whose reference leads to a user who stays.
    pub then: OtherUser,
}

/// A foreign key of a table that stays to a closure table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftBehind {
    pub table: TableName,
    pub reference: Reference,
    /// Index in [`Closure::tables`].
    pub to: usize,
    /// `SetNull`, before the row that it refers to is purged, or `Refuse`.
    pub then: OtherUser,
}

/// What was decided without asking.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Decision {
    /// One way to a user was better than the others.
    Owner {
        table: TableName,
        path: Path,
        over: Vec<Path>,
    },
    /// Rows without another reference belong to the user of their parent in the same table.
    Tree { table: TableName, path: Path },
    /// A reference to a table of the closure is expected to stay within one user; `plan` counts those that do not.
    OneUser { table: TableName, path: Path },
    /// The id of a row of a table that is named beside it moves as it is.
    Polymorphic { table: TableName, id: String },
    /// Tables that nothing connects with a user.
    Apart { tables: usize },
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { table, path, over } => {
                let over: Vec<String> = over.iter().map(Path::to_string).collect();
                let over = over.join(" or ");
                write!(f, "{table} belongs to a user by {path}, not by {over}")
            }
            Self::Tree { table, path } => write!(
                f,
                "rows of {table} without another reference belong to the user of their parent, by {path}"
            ),
            Self::OneUser { table, path } => {
                write!(f, "{table} refers by {path} to rows of the same user")
            }
            Self::Polymorphic { table, id } => {
                write!(f, "{table}.{id} moves as it is, whatever it refers to")
            }
            Self::Apart { tables: 1 } => f.write_str("1 table is not about users"),
            Self::Apart { tables } => write!(f, "{tables} tables are not about users"),
        }
    }
}

impl Reference {
    pub(crate) fn path(&self) -> Path {
        Path {
            name: self.name.clone(),
            columns: self.columns.clone(),
            references: self.references.clone(),
        }
    }
}

impl Closure {
    pub fn root(&self) -> &Member {
        &self.tables[0]
    }

    /// The number of a table.
    pub fn position(&self, table: &TableName) -> Option<usize> {
        self.tables
            .iter()
            .position(|member| member.table.name == *table)
    }

    /// The column that names a user. `discover` refuses a root without exactly one key column.
    pub fn user_key(&self) -> &Column {
        let root = &self.root().table;
        root.column(&root.primary_key[0])
            .unwrap_or(&root.columns[0])
    }
}
