//! From a catalog to the closure: which tables hang on a user, how, and what is to be asked about it.

use std::collections::BTreeMap;

use super::ownership::{Edge, Graph, Ownership, owners};
use super::refusal::Reason;
use super::rules::{OtherUser, Rules};
use super::{
    Closure, Crossing, Decision, Discovered, LeftBehind, Link, Member, Owner, Reference, fit,
    lookalike, order,
};
use crate::catalog::{Catalog, Table, TableName};

/// Finds every table whose rows hang on a row of `root`.
///
/// # Errors
/// When there is no such root to begin from.
pub fn discover(
    catalog: &Catalog,
    root: &TableName,
    rules: &Rules,
) -> Result<Discovered, Box<Reason>> {
    let graph = Graph::of(catalog);
    let key = root_key(&graph, root)?;
    let ownership = owners(&graph, root, rules);
    let closure = closure(&graph, root, &ownership);

    let mut found = Discovered {
        decided: decisions(&ownership),
        refused: ownership.refused.clone(),
        crossings: Vec::new(),
        unowned: Vec::new(),
        shared: Vec::new(),
        left_behind: Vec::new(),
        closure,
    };
    unowned(&ownership, rules, &mut found);
    references(rules, &mut found);
    left_behind(&graph, rules, &mut found);
    found.refused.extend(fit::refusals(&graph, rules, &found));
    lookalike::judge(&graph, &key, rules, &mut found);
    found.decided.sort();
    Ok(found)
}

/// The name of the root's one key column.
fn root_key(graph: &Graph<'_>, root: &TableName) -> Result<String, Box<Reason>> {
    let Some(table) = graph.tables.get(root) else {
        return Err(Box::new(Reason::RootMissing { root: root.clone() }));
    };
    match table.primary_key.as_slice() {
        [key] => Ok(key.clone()),
        columns => Err(Box::new(Reason::RootKey {
            root: root.clone(),
            columns: columns.to_vec(),
        })),
    }
}

fn closure(graph: &Graph<'_>, root: &TableName, ownership: &Ownership) -> Closure {
    let order = order::order(root, &ownership.links, |table| graph.edges_of(table));
    let numbers: BTreeMap<&TableName, usize> = order
        .iter()
        .enumerate()
        .map(|(number, table)| (*table, number))
        .collect();
    let members = order.iter().map(|name| {
        let links = ownership.links.get(*name).map_or(&[][..], Vec::as_slice);
        let is_link = |edge: &&Edge| !links.contains(edge);
        Member {
            table: tidy(graph.tables[*name]),
            owner: match links {
                [] => Owner::Root,
                links => Owner::Through(
                    links
                        .iter()
                        .map(|edge| link(edge, numbers[&edge.parent]))
                        .collect(),
                ),
            },
            references: graph
                .edges_of(name)
                .iter()
                .filter(is_link)
                .map(reference)
                .collect(),
        }
    });
    Closure {
        tables: members.collect(),
    }
}

/// The table with its parts in an order that says nothing.
fn tidy(table: &Table) -> Table {
    let mut table = table.clone();
    table.indexes.sort_by(|a, b| a.name.cmp(&b.name));
    table.triggers.sort_by(|a, b| a.name.cmp(&b.name));
    table.partitions.sort();
    table.filtered_publications.sort();
    table.subscriptions.sort();
    table.rewrites.sort();
    table
}

fn link(edge: &Edge, parent: usize) -> Link {
    Link {
        columns: edge.columns.clone(),
        parent,
        parent_columns: edge.parent_columns.clone(),
        operators: edge.operators.clone(),
        deferrable: edge.deferrable,
        nullable: edge.nullable,
    }
}

fn reference(edge: &Edge) -> Reference {
    Reference {
        name: edge.name.clone(),
        columns: edge.columns.clone(),
        references: edge.parent.clone(),
        referenced_columns: edge.parent_columns.clone(),
        operators: edge.operators.clone(),
    }
}

fn decisions(ownership: &Ownership) -> Vec<Decision> {
    let mut decided = Vec::new();
    for (table, links) in &ownership.links {
        let table = || table.clone();
        if let (Some(over), [first, ..]) = (ownership.over.get(&table()), links.as_slice()) {
            decided.push(Decision::Owner {
                table: table(),
                path: first.path(),
                over: over.iter().map(Edge::path).collect(),
            });
        }
        let trees = links.iter().filter(|edge| edge.parent == table());
        decided.extend(trees.map(|edge| Decision::Tree {
            table: table(),
            path: edge.path(),
        }));
    }
    decided
}

/// Rows whose every link may be NULL.
fn unowned(ownership: &Ownership, rules: &Rules, found: &mut Discovered) {
    for (number, member) in found.closure.tables.iter().enumerate() {
        let Some(links) = ownership.links.get(&member.table.name) else {
            continue;
        };
        if !links.iter().all(|edge| edge.nullable) {
            continue;
        }
        let table = &member.table.name;
        match rules.of(table).and_then(|rule| rule.unowned) {
            Some(then) => found.unowned.push((number, then)),
            None => found.refused.push(Reason::Unowned {
                table: table.clone(),
                columns: links.iter().flat_map(|edge| edge.columns.clone()).collect(),
                on_delete: links[0].on_delete,
            }),
        }
    }
}

/// References of the closure that are no owner links: to users' rows, and to tables that do not move.
fn references(rules: &Rules, found: &mut Discovered) {
    let closure = &found.closure;
    for (number, member) in closure.tables.iter().enumerate() {
        for (at, reference) in member.references.iter().enumerate() {
            let table = member.table.name.clone();
            let path = reference.path();
            let Some(to) = closure.position(&reference.references) else {
                match rules.shares(&reference.references) {
                    true => found.shared.push(reference.references.clone()),
                    false => found.refused.push(Reason::RefersOutside { table, path }),
                }
                continue;
            };
            let said = rules.other_user(&table, &reference.columns);
            match said {
                // The user's own key says nothing about whose it is: it is mostly somebody else's.
                None if to == 0 => {
                    found
                        .refused
                        .push(Reason::RefersToOtherUser { table, path });
                    continue;
                }
                None => found.decided.push(Decision::OneUser { table, path }),
                Some(_) => {}
            }
            found.crossings.push(Crossing {
                table: number,
                reference: at,
                to,
                then: said.unwrap_or(OtherUser::Refuse),
            });
        }
    }
    found.shared.sort();
    found.shared.dedup();
}

/// Foreign keys of tables that stay to tables that go.
fn left_behind(graph: &Graph<'_>, rules: &Rules, found: &mut Discovered) {
    for (table, edges) in &graph.edges {
        if found.closure.position(table).is_some() {
            continue;
        }
        for edge in edges {
            let Some(to) = found.closure.position(&edge.parent) else {
                continue;
            };
            match rules.other_user(table, &edge.columns) {
                Some(then) => found.left_behind.push(LeftBehind {
                    table: (*table).clone(),
                    reference: reference(edge),
                    to,
                    then,
                }),
                None => found.refused.push(Reason::StaysButRefers {
                    table: (*table).clone(),
                    path: edge.path(),
                    on_delete: edge.on_delete,
                }),
            }
        }
    }
}
