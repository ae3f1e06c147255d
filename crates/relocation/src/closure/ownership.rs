//! The graph of tables and the ways from each to a user. The best way has the fewest references that may be NULL, then
//! the fewest steps; two that are equally good are a question.

use std::collections::{BTreeMap, BTreeSet};

use super::refusal::{Path, Reason};
use super::rules::{OwnerRule, Rules};
use crate::catalog::{Action, Catalog, ForeignKey, Table, TableName, Type};

/// A reference from a table to another or to itself: a foreign key, or an owner rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    pub(super) parent: TableName,
    pub(super) parent_columns: Vec<String>,
    pub(super) operators: Vec<String>,
    pub(super) deferrable: bool,
    pub(super) nullable: bool,
    pub(super) on_delete: Action,
}

impl Edge {
    pub(super) fn path(&self) -> Path {
        Path {
            name: self.name.clone(),
            columns: self.columns.clone(),
            references: self.parent.clone(),
        }
    }

    fn same_reference(&self, other: &Self) -> bool {
        self.columns == other.columns
            && self.parent == other.parent
            && self.parent_columns == other.parent_columns
    }
}

/// How good a way to a user is: references on it that may be NULL, then steps.
type Cost = (usize, usize);

/// Who owns the rows of which table.
pub(super) struct Ownership {
    /// The links of every table that hangs on a user, the root aside.
    pub(super) links: BTreeMap<TableName, Vec<Edge>>,
    /// Ways that were not taken, where there was a choice.
    pub(super) over: BTreeMap<TableName, Vec<Edge>>,
    pub(super) refused: Vec<Reason>,
}

/// The catalog as a graph.
pub(super) struct Graph<'c> {
    pub(super) tables: BTreeMap<&'c TableName, &'c Table>,
    /// Foreign keys by referencing table, each reference once.
    pub(super) edges: BTreeMap<&'c TableName, Vec<Edge>>,
}

impl<'c> Graph<'c> {
    pub(super) fn of(catalog: &'c Catalog) -> Self {
        let tables: BTreeMap<_, _> = catalog.tables.iter().map(|t| (&t.name, t)).collect();
        let mut keys: Vec<&ForeignKey> = catalog.foreign_keys.iter().collect();
        keys.sort_by_key(|key| (&key.table, &key.name));
        let mut edges: BTreeMap<&TableName, Vec<Edge>> = BTreeMap::new();
        for key in keys {
            let Some(table) = tables.get(&key.table) else {
                continue;
            };
            let known = edges.entry(&key.table).or_default();
            let edge = edge(key, table);
            match known.iter_mut().find(|other| other.same_reference(&edge)) {
                // Declared twice, it waits for COMMIT only if both declarations let it.
                Some(other) => other.deferrable &= edge.deferrable,
                None => known.push(edge),
            }
        }
        Self { tables, edges }
    }

    pub(super) fn edges_of(&self, table: &TableName) -> &[Edge] {
        self.edges.get(table).map_or(&[], Vec::as_slice)
    }
}

fn edge(key: &ForeignKey, table: &Table) -> Edge {
    Edge {
        name: key.name.clone(),
        columns: key.columns.clone(),
        parent: key.references.clone(),
        parent_columns: key.referenced_columns.clone(),
        operators: key.operators.clone(),
        deferrable: key.deferrable,
        nullable: may_be_null(table, &key.columns),
        on_delete: key.on_delete,
    }
}

fn may_be_null(table: &Table, columns: &[String]) -> bool {
    columns
        .iter()
        .any(|name| table.column(name).is_none_or(|column| !column.not_null))
}

/// Walks from the root outwards, the nearest table first, so that no way leads in a circle.
pub(super) fn owners(graph: &Graph<'_>, root: &TableName, rules: &Rules) -> Ownership {
    let mut refused = Vec::new();
    let fixed = fixed_ways(graph, rules, &mut refused);
    let mut costs: BTreeMap<TableName, Cost> = BTreeMap::from([(root.clone(), (0, 0))]);
    let candidates: Vec<&TableName> = graph
        .tables
        .keys()
        .copied()
        .filter(|table| *table != root && !rules.keeps(table))
        .collect();
    while let Some((cost, table)) = candidates
        .iter()
        .filter(|table| !costs.contains_key(**table))
        .filter_map(|table| Some((reach(graph, &fixed, &costs, table)?, *table)))
        .min()
    {
        costs.insert(table.clone(), cost);
    }

    let mut ownership = Ownership {
        links: BTreeMap::new(),
        over: BTreeMap::new(),
        refused,
    };
    for (table, cost) in costs.iter().filter(|(table, _)| *table != root) {
        match fixed.get(table) {
            Some(ways) => drop(ownership.links.insert(table.clone(), ways.clone())),
            None => choose(graph, &costs, table, *cost, &mut ownership),
        }
    }
    let nowhere = fixed
        .iter()
        .filter(|(table, _)| !costs.contains_key(*table));
    let nowhere = nowhere.map(|(table, ways)| Reason::RuleLeadsNowhere {
        table: table.clone(),
        paths: ways.iter().map(Edge::path).collect(),
    });
    ownership.refused.extend(nowhere);
    ownership
}

/// The cost of the best way from the table to the root over tables that are reached already.
fn reach(
    graph: &Graph<'_>,
    fixed: &BTreeMap<TableName, Vec<Edge>>,
    costs: &BTreeMap<TableName, Cost>,
    table: &TableName,
) -> Option<Cost> {
    let onward = |edge: &&Edge| edge.parent != *table;
    match fixed.get(table) {
        None => graph
            .edges_of(table)
            .iter()
            .filter(onward)
            .filter_map(|edge| cost(costs, edge))
            .min(),
        Some(ways) => {
            let ways: Option<Vec<Cost>> = ways
                .iter()
                .filter(onward)
                .map(|edge| cost(costs, edge))
                .collect();
            // All of them: a parent stands before its children in the closure, whichever link a row uses.
            ways?.into_iter().max()
        }
    }
}

fn cost(costs: &BTreeMap<TableName, Cost>, edge: &Edge) -> Option<Cost> {
    let (nullable, steps) = costs.get(&edge.parent)?;
    Some((nullable + usize::from(edge.nullable), steps + 1))
}

fn choose(
    graph: &Graph<'_>,
    costs: &BTreeMap<TableName, Cost>,
    table: &TableName,
    best: Cost,
    ownership: &mut Ownership,
) {
    let (to_itself, onward): (Vec<&Edge>, Vec<&Edge>) = graph
        .edges_of(table)
        .iter()
        .filter(|edge| costs.contains_key(&edge.parent))
        .partition(|edge| edge.parent == *table);
    let (good, other): (Vec<&Edge>, Vec<&Edge>) = onward
        .into_iter()
        .partition(|edge| cost(costs, edge) == Some(best));
    let Some(first) = good.first().copied() else {
        return;
    };
    // A row of a tree without another reference belongs to the user of its parent.
    let trees: Vec<&Edge> = match first.nullable {
        true => to_itself,
        false => Vec::new(),
    };
    for equal in [&good, &trees] {
        if equal.len() > 1 {
            let paths = equal.iter().map(|edge| edge.path()).collect();
            ownership.refused.push(Reason::SeveralOwners {
                table: table.clone(),
                paths,
            });
        }
    }
    let links = [first].into_iter().chain(trees.first().copied());
    ownership
        .links
        .insert(table.clone(), links.cloned().collect());
    if !other.is_empty() {
        ownership
            .over
            .insert(table.clone(), other.into_iter().cloned().collect());
    }
}

/// The ways that `owner` and `owner_by` name.
fn fixed_ways(
    graph: &Graph<'_>,
    rules: &Rules,
    refused: &mut Vec<Reason>,
) -> BTreeMap<TableName, Vec<Edge>> {
    let mut fixed = BTreeMap::new();
    for (name, rule) in &rules.tables {
        let Some(table) = graph.tables.get(name) else {
            refused.push(Reason::RuleForUnknownTable {
                table: name.clone(),
            });
            continue;
        };
        if let Some(owner) = &rule.owner {
            match virtual_edge(graph, table, owner) {
                Ok(edge) => drop(fixed.insert(name.clone(), vec![edge])),
                Err(reason) => refused.push(*reason),
            }
        }
        if !rule.owner_by.is_empty() {
            let edges = graph.edges_of(name);
            let mut ways = Vec::new();
            for key in &rule.owner_by {
                match edges.iter().find(|edge| edge.name == *key) {
                    Some(edge) => ways.push(edge.clone()),
                    None => refused.push(Reason::RuleForUnknownKey {
                        table: name.clone(),
                        key: key.clone(),
                        known: edges.iter().map(|edge| edge.name.clone()).collect(),
                    }),
                }
            }
            if ways.len() == rule.owner_by.len() {
                fixed.insert(name.clone(), ways);
            }
        }
    }
    fixed
}

fn virtual_edge(graph: &Graph<'_>, table: &Table, owner: &OwnerRule) -> Result<Edge, Box<Reason>> {
    let Some(parent) = graph.tables.get(&owner.references) else {
        return Err(Box::new(Reason::RuleForUnknownTable {
            table: owner.references.clone(),
        }));
    };
    let parent_columns = match owner.referenced.is_empty() {
        true => &parent.primary_key,
        false => &owner.referenced,
    };
    if !is_unique(parent, parent_columns) || parent_columns.len() != owner.columns.len() {
        return Err(Box::new(Reason::OwnerNotUnique {
            table: table.name.clone(),
            references: parent.name.clone(),
            columns: parent_columns.clone(),
        }));
    }
    let pairs = owner.columns.iter().zip(parent_columns);
    let operators = pairs.map(|(child, referenced)| equality(table, child, parent, referenced));
    Ok(Edge {
        name: "owner".to_owned(),
        operators: operators.collect::<Result<_, _>>()?,
        columns: owner.columns.clone(),
        parent: parent.name.clone(),
        parent_columns: parent_columns.clone(),
        deferrable: false,
        nullable: may_be_null(table, &owner.columns),
        on_delete: Action::NoAction,
    })
}

fn is_unique(table: &Table, columns: &[String]) -> bool {
    let wanted: BTreeSet<&String> = columns.iter().collect();
    !columns.is_empty()
        && table
            .indexes
            .iter()
            .any(|index| index.unique && index.columns.iter().collect::<BTreeSet<_>>() == wanted)
}

fn equality(
    table: &Table,
    column: &str,
    parent: &Table,
    referenced: &str,
) -> Result<String, Box<Reason>> {
    let (kind, referenced_kind) = (kind_of(table, column)?, kind_of(parent, referenced)?);
    match &referenced_kind.equals {
        Some(operator) if kind.name == referenced_kind.name => Ok(operator.clone()),
        _ => Err(Box::new(Reason::OwnerTypesDiffer {
            table: table.name.clone(),
            column: column.to_owned(),
            kind: kind.name.clone(),
            referenced: format!("{}.{referenced}", parent.name),
            referenced_kind: referenced_kind.name.clone(),
        })),
    }
}

fn kind_of<'t>(table: &'t Table, column: &str) -> Result<&'t Type, Box<Reason>> {
    let found = table.column(column).map(|column| &column.kind);
    found.ok_or_else(|| {
        Box::new(Reason::RuleForUnknownColumn {
            table: table.name.clone(),
            column: column.to_owned(),
            known: table.columns.iter().map(|c| c.name.clone()).collect(),
        })
    })
}
