//! Source and target compared: what the closure's tables must have in common. The order of columns, names of indexes and
//! of foreign keys, and defaults may differ.

use std::collections::{BTreeMap, BTreeSet};

use super::refusal::{Path, Reason, Refusal, Side};
use super::{Discovered, sequences};
use crate::catalog::{Catalog, Column, ForeignKey, Table, TableName};

/// `found` is what [`super::discover`] found at the source.
pub fn refusals(source: &Catalog, target: &Catalog, found: &Discovered) -> Vec<Refusal> {
    let there: BTreeMap<&TableName, &Table> = target.tables.iter().map(|t| (&t.name, t)).collect();
    let both = |reason| Refusal {
        at: Side::Both,
        reason,
    };
    let mut refused = Vec::new();
    for member in &found.closure.tables {
        let table = &member.table;
        match there.get(&table.name) {
            None => refused.push(missing(&table.name)),
            Some(other) => {
                refused.extend(kind_differs(table, other).map(both));
                refused.extend(columns_differ(table, other));
                refused.extend(primary_key_differs(table, other).map(both));
                refused.extend(partitions_differ(table, other));
            }
        }
    }
    let shared_there = |name: &&TableName| there.contains_key(name);
    let shared = found.shared.iter().filter(|name| !shared_there(name));
    refused.extend(shared.map(missing));
    refused.extend(keys_differ(source, target, found));
    refused.extend(
        sequences::overlaps(source, target, found)
            .into_iter()
            .map(both),
    );
    refused
}

fn missing(table: &TableName) -> Refusal {
    Refusal {
        at: Side::Target,
        reason: Reason::TableMissing {
            table: table.clone(),
        },
    }
}

fn kind_differs(source: &Table, target: &Table) -> Option<Reason> {
    let differs = source.kind != target.kind || source.persistence != target.persistence;
    differs.then(|| Reason::KindDiffers {
        table: source.name.clone(),
    })
}

fn columns_differ(source: &Table, target: &Table) -> Vec<Refusal> {
    let lacks = |at, column: &Column| Refusal {
        at,
        reason: Reason::ColumnMissing {
            table: source.name.clone(),
            column: column.name.clone(),
            kind: column.kind.name.clone(),
        },
    };
    let mut refused = Vec::new();
    for column in by_name(source) {
        match target.column(&column.name) {
            None => refused.push(lacks(Side::Target, column)),
            Some(other) => {
                let reasons = [
                    type_differs(source, column, other),
                    null_differs(source, column, other),
                    generated_differs(source, column, other),
                    collation_differs(source, column, other),
                ];
                refused.extend(reasons.into_iter().flatten().map(|reason| Refusal {
                    at: Side::Both,
                    reason,
                }));
            }
        }
    }
    let more = by_name(target)
        .into_iter()
        .filter(|column| source.column(&column.name).is_none());
    refused.extend(more.map(|column| lacks(Side::Source, column)));
    refused
}

fn by_name(table: &Table) -> Vec<&Column> {
    let mut columns: Vec<&Column> = table.columns.iter().collect();
    columns.sort_by_key(|column| &column.name);
    columns
}

fn type_differs(table: &Table, source: &Column, target: &Column) -> Option<Reason> {
    let (one, other) = (&source.kind, &target.kind);
    let differs = one.name != other.name || one.carries_oids != other.carries_oids;
    differs.then(|| Reason::TypeDiffers {
        table: table.name.clone(),
        column: source.name.clone(),
        source: one.name.clone(),
        target: other.name.clone(),
    })
}

fn null_differs(table: &Table, source: &Column, target: &Column) -> Option<Reason> {
    (source.not_null != target.not_null).then(|| Reason::NullDiffers {
        table: table.name.clone(),
        column: source.name.clone(),
    })
}

fn generated_differs(table: &Table, source: &Column, target: &Column) -> Option<Reason> {
    (source.generated != target.generated).then(|| Reason::GeneratedDiffers {
        table: table.name.clone(),
        column: source.name.clone(),
        source: source.generated.clone(),
        target: target.generated.clone(),
    })
}

fn collation_differs(table: &Table, source: &Column, target: &Column) -> Option<Reason> {
    (source.collation != target.collation).then(|| Reason::CollationDiffers {
        table: table.name.clone(),
        column: source.name.clone(),
        source: source.collation.clone(),
        target: target.collation.clone(),
    })
}

fn primary_key_differs(source: &Table, target: &Table) -> Option<Reason> {
    (source.primary_key != target.primary_key).then(|| Reason::PrimaryKeyDiffers {
        table: source.name.clone(),
        source: source.primary_key.clone(),
        target: target.primary_key.clone(),
    })
}

/// A row without its partition is an error in the middle of a copy, in one direction or the other.
fn partitions_differ(source: &Table, target: &Table) -> Vec<Refusal> {
    let names = |table: &Table| table.partitions.iter().cloned().collect::<BTreeSet<_>>();
    let (here, there) = (names(source), names(target));
    let lacks = |at, partition: &TableName| Refusal {
        at,
        reason: Reason::PartitionMissing {
            table: source.name.clone(),
            partition: partition.clone(),
        },
    };
    let at_target = here
        .difference(&there)
        .map(|name| lacks(Side::Target, name));
    let at_source = there
        .difference(&here)
        .map(|name| lacks(Side::Source, name));
    at_target.chain(at_source).collect()
}

/// Rows find their user, and are checked, by the same foreign keys on both sides. Their names do not matter.
fn keys_differ(source: &Catalog, target: &Catalog, found: &Discovered) -> Vec<Refusal> {
    let known = |table: &TableName| target.tables.iter().any(|other| other.name == *table);
    let keys = |catalog: &Catalog| -> BTreeMap<Meaning, Path> {
        let of_moving = catalog
            .foreign_keys
            .iter()
            .filter(|key| found.closure.position(&key.table).is_some() && known(&key.table));
        of_moving.map(|key| (meaning(key), path(key))).collect()
    };
    let (here, there) = (keys(source), keys(target));
    let lacks = |at, meaning: &Meaning, path: &Path| Refusal {
        at,
        reason: Reason::KeyMissing {
            table: meaning.0.clone(),
            path: path.clone(),
        },
    };
    let at_target = here
        .iter()
        .filter(|(meaning, _)| !there.contains_key(*meaning))
        .map(|(meaning, path)| lacks(Side::Target, meaning, path));
    let at_source = there
        .iter()
        .filter(|(meaning, _)| !here.contains_key(*meaning))
        .map(|(meaning, path)| lacks(Side::Source, meaning, path));
    at_target.chain(at_source).collect()
}

type Meaning = (TableName, Vec<(String, String, String)>, TableName, bool);

fn meaning(key: &ForeignKey) -> Meaning {
    let pairs = key.columns.iter().zip(&key.referenced_columns);
    let mut pairs: Vec<(String, String, String)> = pairs
        .zip(&key.operators)
        .map(|((column, referenced), operator)| {
            (column.clone(), referenced.clone(), operator.clone())
        })
        .collect();
    pairs.sort();
    (
        key.table.clone(),
        pairs,
        key.references.clone(),
        key.deferrable,
    )
}

fn path(key: &ForeignKey) -> Path {
    Path {
        name: key.name.clone(),
        columns: key.columns.clone(),
        references: key.references.clone(),
    }
}
