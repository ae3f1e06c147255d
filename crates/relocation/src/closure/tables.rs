//! What stands against moving the rows of a table, seen from one cluster. One function for each reason.

use std::collections::{BTreeMap, BTreeSet};

use super::refusal::{FENCE, Reason};
use super::{Discovered, Owner};
use crate::catalog::{Catalog, Persistence, Server, Table, TableKind, TableName};

/// Triggers of the fence itself, which this project made.
const OUR_SCHEMA: &str = "regionwise.";

/// Everything about the tables of the closure, by table.
pub fn refusals(catalog: &Catalog, server: &Server, found: &Discovered) -> Vec<Reason> {
    let mut refused = Vec::new();
    for member in &found.closure.tables {
        let table = &member.table;
        refused.extend(foreign(table));
        refused.extend(no_primary_key(table));
        refused.extend(unlogged(table));
        refused.extend(inherits(table));
        refused.extend(row_security(table, server));
        refused.extend(local_types(table));
        refused.extend(no_binary_form(table));
        refused.extend(rewrites(table));
        refused.extend(late_keys(table));
        refused.extend(filtered_publications(table));
        refused.extend(subscriptions(table));
        refused.extend(late_triggers(table));
        refused.extend(always_triggers(table));
    }
    refused.extend(root_key_text(&found.closure.root().table));
    refused.extend(no_index(catalog, found));
    refused.extend(not_validated(catalog, found));
    refused.extend(keys_of_one_partition(catalog, found));
    refused.extend(prepared(server, found));
    refused
}

fn foreign(table: &Table) -> Option<Reason> {
    (table.kind == TableKind::Foreign).then(|| Reason::Foreign {
        table: table.name.clone(),
    })
}

fn no_primary_key(table: &Table) -> Option<Reason> {
    (table.primary_key.is_empty() && table.kind != TableKind::Foreign).then(|| {
        Reason::NoPrimaryKey {
            table: table.name.clone(),
        }
    })
}

fn unlogged(table: &Table) -> Option<Reason> {
    (table.persistence == Persistence::Unlogged).then(|| Reason::Unlogged {
        table: table.name.clone(),
    })
}

fn inherits(table: &Table) -> Option<Reason> {
    table.inherits.then(|| Reason::Inherits {
        table: table.name.clone(),
    })
}

fn row_security(table: &Table, server: &Server) -> Option<Reason> {
    let hides = table.row_security || table.forced_row_security;
    (hides && !server.bypasses_row_security).then(|| Reason::RowSecurity {
        table: table.name.clone(),
        role: server.role.clone(),
    })
}

/// Functions that send the binary form of types whose text follows `DateStyle`, `TimeZone`, `bytea_output`,
/// `extra_float_digits` and the like; of a domain it is its base type's. Arrays, rows and ranges may hold one.
const TEXT_FOLLOWS_SETTINGS: [&str; 14] = [
    "array_send",
    "byteasend",
    "cash_send",
    "date_send",
    "float4send",
    "float8send",
    "interval_send",
    "multirange_send",
    "range_send",
    "record_send",
    "timestamp_send",
    "timestamptz_send",
    "timetz_send",
    "xml_send",
];

fn root_key_text(root: &Table) -> Option<Reason> {
    let [key] = root.primary_key.as_slice() else {
        return None;
    };
    let column = root.column(key)?;
    let send = column.kind.send.as_deref()?;
    let name = send.strip_prefix("pg_catalog.")?;
    TEXT_FOLLOWS_SETTINGS
        .contains(&name)
        .then(|| Reason::RootKeyText {
            root: root.name.clone(),
            column: key.clone(),
            kind: column.kind.name.clone(),
        })
}

fn local_types(table: &Table) -> Vec<Reason> {
    let local = table.columns.iter().filter(|column| column.kind.local);
    local
        .map(|column| Reason::LocalType {
            table: table.name.clone(),
            column: column.name.clone(),
            kind: column.kind.name.clone(),
        })
        .collect()
}

/// Columns that travel as text need none.
fn no_binary_form(table: &Table) -> Vec<Reason> {
    let mute = table.columns.iter().filter(|column| {
        column.kind.send.is_none() && !column.kind.local && !column.kind.carries_oids
    });
    mute.map(|column| Reason::NoBinaryForm {
        table: table.name.clone(),
        column: column.name.clone(),
        kind: column.kind.name.clone(),
    })
    .collect()
}

fn rewrites(table: &Table) -> Vec<Reason> {
    let rules = table.rewrites.iter();
    rules
        .map(|rule| Reason::Rewrites {
            table: table.name.clone(),
            rule: rule.clone(),
        })
        .collect()
}

/// The check that comes late is a trigger, and the mover writes in the replica role, in which it does not fire: the target
/// would take two rows with one key. Of foreign keys the mover looks itself.
fn late_keys(table: &Table) -> Vec<Reason> {
    let keys = table.late_keys.iter();
    keys.map(|key| Reason::LateKey {
        table: key.on.clone(),
        key: key.name.clone(),
    })
    .collect()
}

fn filtered_publications(table: &Table) -> Vec<Reason> {
    let publications = table.filtered_publications.iter();
    publications
        .map(|publication| Reason::FilteredPublication {
            table: table.name.clone(),
            publication: publication.clone(),
        })
        .collect()
}

fn subscriptions(table: &Table) -> Vec<Reason> {
    let subscriptions = table.subscriptions.iter();
    subscriptions
        .map(|subscription| Reason::Subscription {
            table: table.name.clone(),
            subscription: subscription.clone(),
        })
        .collect()
}

/// Only a trigger that fires before the row is written can still change it.
fn late_triggers(table: &Table) -> Vec<Reason> {
    let late = table.triggers.iter().filter(|trigger| {
        trigger.before
            && trigger.per_row
            && trigger.enabled != 'D'
            && trigger.name.as_str() > FENCE
            && !trigger.function.starts_with(OUR_SCHEMA)
    });
    late.map(|trigger| Reason::LateTrigger {
        table: table.name.clone(),
        trigger: trigger.name.clone(),
    })
    .collect()
}

/// The mover writes in the replica role, so that triggers of the application stay silent; these would not.
fn always_triggers(table: &Table) -> Vec<Reason> {
    let always = table.triggers.iter().filter(|trigger| {
        matches!(trigger.enabled, 'A' | 'R') && !trigger.function.starts_with(OUR_SCHEMA)
    });
    always
        .map(|trigger| Reason::AlwaysTrigger {
            table: table.name.clone(),
            trigger: trigger.name.clone(),
            enabled: trigger.enabled,
        })
        .collect()
}

/// Every reference to a row that is copied, compared and deleted by user: the owner's, the others, and those of tables
/// that stay.
fn no_index(catalog: &Catalog, found: &Discovered) -> Vec<Reason> {
    let tables: BTreeMap<&TableName, &Table> =
        catalog.tables.iter().map(|t| (&t.name, t)).collect();
    let mut wanted: BTreeSet<(&TableName, &[String])> = BTreeSet::new();
    for member in &found.closure.tables {
        if let Owner::Through(links) = &member.owner {
            wanted.extend(
                links
                    .iter()
                    .map(|link| (&member.table.name, &*link.columns)),
            );
        }
    }
    for key in &catalog.foreign_keys {
        if found.closure.position(&key.references).is_some() {
            wanted.insert((&key.table, &key.columns));
        }
    }
    wanted
        .into_iter()
        .filter_map(|(name, columns)| {
            let table = tables.get(name)?;
            (!table.is_indexed(columns)).then(|| Reason::NoIndex {
                table: name.clone(),
                columns: columns.to_vec(),
                partitioned: table.kind == TableKind::Partitioned,
            })
        })
        .collect()
}

fn not_validated(catalog: &Catalog, found: &Discovered) -> Vec<Reason> {
    let doubtful = catalog.foreign_keys.iter().filter(|key| {
        let Some(child) = found.closure.position(&key.table) else {
            return false;
        };
        let parent = found.closure.position(&key.references);
        !key.validated && parent.is_some_and(|parent| is_owner(found, child, &key.columns, parent))
    });
    let mut refused: Vec<Reason> = doubtful
        .map(|key| Reason::NotValidated {
            table: key.table.clone(),
            key: key.name.clone(),
        })
        .collect();
    refused.sort_by_key(Reason::to_string);
    refused
}

fn is_owner(found: &Discovered, child: usize, columns: &[String], parent: usize) -> bool {
    match &found.closure.tables[child].owner {
        Owner::Root => false,
        Owner::Through(links) => links
            .iter()
            .any(|link| link.columns == columns && link.parent == parent),
    }
}

/// A foreign key of a partition alone leads some rows to a user and others not; one that refers to a partition alone
/// does not see rows in the others.
fn keys_of_one_partition(catalog: &Catalog, found: &Discovered) -> Vec<Reason> {
    let partitions: BTreeMap<&TableName, &TableName> = catalog
        .tables
        .iter()
        .flat_map(|table| table.partitions.iter().map(|name| (name, &table.name)))
        .collect();
    let moves = |table: &TableName| found.closure.position(table).is_some();
    let mut refused: Vec<Reason> = catalog
        .foreign_keys
        .iter()
        .filter_map(|key| {
            let of = partitions.get(&key.table).copied();
            let to = partitions.get(&key.references).copied();
            let partition = match (of, to) {
                (Some(of), _) if moves(of) || moves(to.unwrap_or(&key.references)) => &key.table,
                (None, Some(to)) if moves(to) => &key.references,
                _ => return None,
            };
            Some(Reason::KeyOfOnePartition {
                table: partitions[partition].clone(),
                partition: partition.clone(),
                key: key.name.clone(),
            })
        })
        .collect();
    refused.sort_by_key(Reason::to_string);
    refused
}

/// It holds its locks, the home lock among them, until somebody ends it.
fn prepared(server: &Server, found: &Discovered) -> Vec<Reason> {
    let moving: BTreeSet<&TableName> = found
        .closure
        .tables
        .iter()
        .flat_map(|member| {
            [&member.table.name]
                .into_iter()
                .chain(&member.table.partitions)
        })
        .collect();
    let mut refused: Vec<Reason> = server
        .prepared
        .iter()
        .filter_map(|prepared| {
            let mut tables: Vec<TableName> = prepared.tables.clone();
            tables.retain(|table| moving.contains(table));
            tables.sort();
            (!tables.is_empty()).then(|| Reason::Prepared {
                gid: prepared.gid.clone(),
                tables,
            })
        })
        .collect();
    refused.sort_by_key(Reason::to_string);
    refused
}
