//! The order of the tables: parents before children, and where foreign keys allow it, every table after all that it
//! refers to. It depends on names and references only, so that both clusters number their tables alike.

use std::collections::{BTreeMap, BTreeSet};

use super::ownership::Edge;
use crate::catalog::TableName;

pub(super) fn order<'e>(
    root: &'e TableName,
    links: &'e BTreeMap<TableName, Vec<Edge>>,
    edges_of: impl Fn(&'e TableName) -> &'e [Edge],
) -> Vec<&'e TableName> {
    let mut placed = vec![root];
    let mut waiting: BTreeSet<&TableName> = links.keys().collect();
    while !waiting.is_empty() {
        let stands = |edge: &Edge, table: &TableName| {
            edge.parent == *table || placed.contains(&&edge.parent)
        };
        let owned = waiting
            .iter()
            .copied()
            .filter(|table| links[*table].iter().all(|edge| stands(edge, table)));
        let mut owned = owned.peekable();
        let first = owned.peek().copied();
        let complete = owned.find(|table| {
            let within = |edge: &&Edge| edge.parent == *root || links.contains_key(&edge.parent);
            edges_of(table)
                .iter()
                .filter(within)
                .all(|edge| stands(edge, table))
        });
        // Tables that refer to each other: one of them comes first.
        let Some(next) = complete.or(first) else {
            break;
        };
        waiting.remove(next);
        placed.push(next);
    }
    placed
}
