//! What is the matter, on one line.

use std::fmt;

use super::{OLDEST_VERSION, Path, Reason};
use crate::catalog::{Action, TableName};

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootMissing { root } => write!(f, "there is no table {root}"),
            Self::RootKey { root, columns } if columns.is_empty() => {
                write!(f, "{root} has no primary key, so nothing names a user")
            }
            Self::RootKey { root, columns } => write!(
                f,
                "the primary key of {root} has {} columns ({}); a user needs one",
                columns.len(),
                columns.join(", ")
            ),
            Self::RootKeyText { root, column, kind } => write!(
                f,
                "{root}.{column} is {kind}, whose text may depend on settings of the session: the fence would take one user for two"
            ),
            Self::SeveralOwners { table, paths } => {
                write!(f, "{table} has several ways to a user: {}", these(paths))
            }
            Self::Unowned {
                table,
                columns,
                on_delete,
            } => {
                let columns = columns.join(", ");
                match on_delete {
                    Action::SetNull | Action::SetDefault => write!(
                        f,
                        "{table} hangs on a user only by {columns}, which is emptied when the user goes: the rows may not be the user's at all"
                    ),
                    Action::NoAction | Action::Restrict | Action::Cascade => write!(
                        f,
                        "{table} hangs on a user only by {columns}, which may be NULL"
                    ),
                }
            }
            Self::LooksOwned {
                table,
                column,
                like,
            } => write!(
                f,
                "{table}.{column} looks like {like}, but no foreign key says so"
            ),
            Self::Polymorphic { table, id, kind } => write!(
                f,
                "{table}.{id} may mean a user's row: {kind} says of which table"
            ),
            Self::RefersOutside { table, path } => {
                write!(f, "{table} refers by {path} to a table that does not move")
            }
            Self::RefersToOtherUser { table, path } => {
                write!(f, "{table} refers by {path} to users who may stay behind")
            }
            Self::StaysButRefers {
                table,
                path,
                on_delete,
            } => {
                let then = match on_delete {
                    Action::Cascade => "which would delete its rows with the user's",
                    Action::SetNull | Action::SetDefault => "which would change its rows",
                    Action::NoAction | Action::Restrict => "which keeps the user's rows there",
                };
                write!(f, "{table} stays, but refers by {path}, {then}")
            }
            Self::RuleForUnknownTable { table } => {
                write!(
                    f,
                    "regions.toml has a rule for table {table}, which is not there"
                )
            }
            Self::RuleForUnknownColumn { table, column, .. } => {
                write!(
                    f,
                    "regions.toml names column {table}.{column}, which is not there"
                )
            }
            Self::RuleForUnknownKey { table, key, .. } => write!(
                f,
                "regions.toml names foreign key `{key}` of {table}, which is not there"
            ),
            Self::RuleWithoutReference { table, column } => write!(
                f,
                "regions.toml says `other_user` for {table}.{column}, which refers to no user's row"
            ),
            Self::RuleLeadsNowhere { table, paths } => {
                write!(
                    f,
                    "the way of {table} to a user leads nowhere: {}",
                    these(paths)
                )
            }
            Self::CannotBeNull { table, column } => write!(
                f,
                "regions.toml wants {table}.{column} set to NULL, which it cannot be"
            ),
            Self::ChangesOnTheWay { table, column } => write!(
                f,
                "regions.toml wants {table}.{column} set to NULL in rows that move, which could not be proven equal then"
            ),
            Self::OwnerTypesDiffer {
                table,
                column,
                kind,
                referenced,
                referenced_kind,
            } => write!(
                f,
                "the owner rule of {table} compares {column}, which is {kind}, with {referenced}, which is {referenced_kind}"
            ),
            Self::OwnerNotUnique {
                table,
                references,
                columns,
            } => write!(
                f,
                "the owner rule of {table} leads to {references} ({}), which is not unique",
                columns.join(", ")
            ),
            Self::NoPrimaryKey { table } => write!(
                f,
                "{table} has no primary key: its rows cannot be told apart"
            ),
            Self::NoIndex { table, columns, .. } => write!(
                f,
                "no index on {table} ({}): each user would be a scan of the table",
                columns.join(", ")
            ),
            Self::NotValidated { table, key } => write!(
                f,
                "foreign key `{key}` of {table} is not valid: rows may have no owner"
            ),
            Self::LocalType {
                table,
                column,
                kind,
            } => write!(
                f,
                "{table}.{column} is {kind}, whose values mean nothing in another database"
            ),
            Self::NoBinaryForm {
                table,
                column,
                kind,
            } => write!(f, "{table}.{column} is {kind}, which has no binary form"),
            Self::RowSecurity { table, role } => {
                write!(f, "policies of {table} may hide rows from role `{role}`")
            }
            Self::Unlogged { table } => write!(
                f,
                "{table} is unlogged: a crash empties it, and no standby has it"
            ),
            Self::Foreign { table } => {
                write!(f, "{table} is a foreign table: its rows are elsewhere")
            }
            Self::Inherits { table } => {
                write!(f, "{table} is part of a table inheritance")
            }
            Self::Rewrites { table, rule } => {
                write!(
                    f,
                    "rewrite rule `{rule}` changes what statements on {table} do"
                )
            }
            Self::LateKey { table, key } => write!(
                f,
                "constraint `{key}` of {table} is DEFERRABLE: Postgres would not check it for rows that move"
            ),
            Self::FilteredPublication { table, publication } => write!(
                f,
                "publication `{publication}` sends only some rows of {table}: writes may fail for want of a replica identity"
            ),
            Self::Subscription {
                table,
                subscription,
            } => write!(
                f,
                "subscription `{subscription}` writes into {table}, and would get stuck at the fence"
            ),
            Self::LateTrigger { table, trigger } => write!(
                f,
                "trigger `{trigger}` of {table} fires after the fence and could change whose a row is"
            ),
            Self::AlwaysTrigger {
                table,
                trigger,
                enabled,
            } => {
                let how = if *enabled == 'R' { "REPLICA" } else { "ALWAYS" };
                write!(
                    f,
                    "trigger `{trigger}` of {table} is ENABLE {how}: it would fire for rows that move"
                )
            }
            Self::KeyOfOnePartition {
                table,
                partition,
                key,
            } => write!(
                f,
                "foreign key `{key}` holds for partition {partition} only, not for all of {table}"
            ),
            Self::TableMissing { table } => write!(f, "there is no table {table}"),
            Self::KindDiffers { table } => write!(
                f,
                "{table} is partitioned, unlogged or foreign on one side only"
            ),
            Self::ColumnMissing {
                table,
                column,
                kind,
            } => write!(f, "there is no column {table}.{column} ({kind})"),
            Self::TypeDiffers {
                table,
                column,
                source,
                target,
            } => write!(
                f,
                "{table}.{column} is {source} at the source and {target} at the target"
            ),
            Self::NullDiffers { table, column } => {
                write!(f, "{table}.{column} may be NULL on one side only")
            }
            Self::GeneratedDiffers {
                table,
                column,
                source,
                target,
            } => write!(
                f,
                "{table}.{column} is generated from {} at the source and from {} at the target",
                or_nothing(source.as_deref()),
                or_nothing(target.as_deref())
            ),
            Self::CollationDiffers {
                table,
                column,
                source,
                target,
            } => write!(
                f,
                "{table}.{column} sorts by {} at the source and by {} at the target",
                or_default(source.as_deref()),
                or_default(target.as_deref())
            ),
            Self::PrimaryKeyDiffers {
                table,
                source,
                target,
            } => write!(
                f,
                "the primary key of {table} is ({}) at the source and ({}) at the target",
                source.join(", "),
                target.join(", ")
            ),
            Self::KeyMissing { table, path } => {
                write!(f, "there is no such foreign key of {table} as {path}")
            }
            Self::PartitionMissing { table, partition } => {
                write!(f, "{table} has no partition {partition}")
            }
            Self::SequencesOverlap {
                table,
                column,
                source,
                target,
                shared,
            } => write!(
                f,
                "both sides can give {table}.{column} the number {shared}: {source} at the source, {target} at the target"
            ),
            Self::SameCluster { system_identifier } => write!(
                f,
                "both are one server, or a copy of it: system identifier {system_identifier}"
            ),
            Self::Standby => f.write_str("the server is a standby"),
            Self::Pooled => f.write_str("a pooler stands in front of the server"),
            Self::NoEncoding => f.write_str("the database is SQL_ASCII: its text may be anything"),
            Self::TooOld { version } => write!(
                f,
                "the server is Postgres {}; the least is {}",
                version / 10_000,
                OLDEST_VERSION / 10_000
            ),
            Self::Prepared { gid, tables } => {
                let tables: Vec<String> = tables.iter().map(TableName::to_string).collect();
                write!(
                    f,
                    "prepared transaction `{gid}` holds locks of {}",
                    tables.join(", ")
                )
            }
            Self::OtherUsersRows {
                table,
                columns,
                references,
                rows,
            } => write!(
                f,
                "{rows} rows of {table} refer by {} to rows of {references} whose user stays",
                columns.join(", ")
            ),
            Self::UnownedRows { table, rows } => {
                write!(f, "{rows} rows of {table} are nobody's")
            }
        }
    }
}

fn these(paths: &[Path]) -> String {
    let paths: Vec<String> = paths.iter().map(Path::to_string).collect();
    paths.join(", ")
}

fn or_nothing(expression: Option<&str>) -> String {
    expression.map_or_else(|| "nothing".to_owned(), |text| format!("`{text}`"))
}

fn or_default(collation: Option<&str>) -> &str {
    collation.unwrap_or("the default")
}
