//! Upwards: an expression that finds the user of one row, as the fence and `verify` look it up.
//!
//! It is text, the user's key; the empty text for a row whose references are all NULL, which is nobody's; and NULL
//! where a reference leads to a row that is not there. Nobody is treated like a user who never moves, so that a row
//! can be taken over by a user under the same locks as any other change of owner.

use std::collections::BTreeSet;

use super::name::{column, equal, list, table};
use crate::catalog::{Column, Table};
use crate::closure::{Closure, Link, Member, Owner};

/// The key of nobody.
pub(super) const NOBODY: &str = "''";

/// Whether a link's column holds the user's key in the very text form of the user's row, so that the row itself need
/// not be looked up. Not so where equal values can be written in two ways: `citext`, `numeric`, `char(n)`.
pub(super) fn names_the_user(closure: &Closure, child: &Table, link: &Link) -> bool {
    let root = &closure.root().table;
    let [referencing] = link.columns.as_slice() else {
        return false;
    };
    let pair = (child.column(referencing), root.column(&root.primary_key[0]));
    let (Some(referencing), Some(key)) = pair else {
        return false;
    };
    link.parent == 0 && link.parent_columns == root.primary_key && same_text(referencing, key)
}

fn same_text(child: &Column, key: &Column) -> bool {
    let integer = |kind: &str| matches!(kind, "smallint" | "integer" | "bigint");
    let (child_kind, key_kind) = (child.kind.name.as_str(), key.kind.name.as_str());
    if integer(child_kind) && integer(key_kind) {
        return true;
    }
    // A collation of its own may call two spellings equal.
    let plain = child.collation.is_none() && key.collation.is_none();
    plain && child_kind == key_kind && matches!(child_kind, "uuid" | "text")
}

/// The user of the row that is called `row`.
pub(super) fn owner(closure: &Closure, number: usize, row: &str) -> String {
    Climb { closure, alias: 0 }.owner(number, row)
}

/// Whether finding the user needs no other row.
pub(super) fn is_direct(closure: &Closure, member: &Member) -> bool {
    match &member.owner {
        Owner::Root => true,
        Owner::Through(links) => links
            .iter()
            .all(|link| names_the_user(closure, &member.table, link)),
    }
}

/// That none of a link's columns is NULL.
pub(super) fn present(row: &str, link: &Link) -> String {
    let each: Vec<String> = link
        .columns
        .iter()
        .map(|name| format!("{} IS NOT NULL", column(row, name)))
        .collect();
    format!("({})", each.join(" AND "))
}

struct Climb<'a> {
    closure: &'a Closure,
    alias: usize,
}

impl Climb<'_> {
    fn owner(&mut self, number: usize, row: &str) -> String {
        let closure = self.closure;
        let member = &closure.tables[number];
        match &member.owner {
            Owner::Root => format!("{}::text", column(row, &member.table.primary_key[0])),
            Owner::Through(links) if links.iter().any(|link| link.parent == number) => {
                self.tree(number, links, row)
            }
            Owner::Through(links) => self.first(&member.table, links, row),
        }
    }

    /// The first link whose columns are not NULL decides.
    fn first(&mut self, child: &Table, links: &[Link], row: &str) -> String {
        if let [link] = links
            && !link.nullable
        {
            return self.through(child, link, row);
        }
        let cases: Vec<String> = links
            .iter()
            .map(|link| {
                format!(
                    " WHEN {} THEN {}",
                    present(row, link),
                    self.through(child, link, row)
                )
            })
            .collect();
        format!("CASE{} ELSE {NOBODY} END", cases.concat())
    }

    fn through(&mut self, child: &Table, link: &Link, row: &str) -> String {
        if names_the_user(self.closure, child, link) {
            return format!("{}::text", column(row, &link.columns[0]));
        }
        self.alias += 1;
        let parent = format!("p{}", self.alias);
        let found = self.owner(link.parent, &parent);
        let name = table(&self.closure.tables[link.parent].table.name);
        let on = equal(
            &parent,
            &link.parent_columns,
            &link.operators,
            row,
            &link.columns,
        );
        format!("(SELECT {found} FROM {name} {parent} WHERE {on})")
    }

    /// Climbs the tree until a row hangs on something else. UNION, not UNION ALL: rows in a ring must not turn for ever.
    fn tree(&mut self, number: usize, links: &[Link], row: &str) -> String {
        self.alias += 1;
        let (up, node) = (format!("up{}", self.alias), format!("n{}", self.alias));
        let table_of = &self.closure.tables[number].table;
        let name = table(&table_of.name);
        let carried_columns: BTreeSet<&String> =
            links.iter().flat_map(|link| &link.columns).collect();
        let carried = |from: &str| -> String {
            let each: Vec<String> = carried_columns
                .iter()
                .map(|name| column(from, name))
                .collect();
            each.join(", ")
        };
        let columns = list(carried_columns.iter().map(|name| name.as_str()));
        let mut cases = String::new();
        let mut climbs = Vec::new();
        for (index, link) in links.iter().enumerate() {
            if link.parent != number {
                cases = cases
                    + &format!(
                        " WHEN {} THEN {}",
                        present(&up, link),
                        self.through(table_of, link, &up)
                    );
                continue;
            }
            let on = equal(
                &node,
                &link.parent_columns,
                &link.operators,
                &up,
                &link.columns,
            );
            let hangs = hangs_on(&up, links, index);
            climbs.push(format!(
                "SELECT {} FROM {name} {node} WHERE {on} AND {hangs}",
                carried(&node)
            ));
        }
        let own: Vec<String> = (0..links.len())
            .filter(|index| links[*index].parent == number)
            .map(|index| format!("NOT ({})", hangs_on(&up, links, index)))
            .collect();
        let decided = if cases.is_empty() {
            NOBODY.to_owned()
        } else {
            format!("CASE{cases} ELSE {NOBODY} END")
        };
        format!(
            "(WITH RECURSIVE {up}({columns}) AS (SELECT {} UNION SELECT {node}.* FROM {up} CROSS JOIN LATERAL ({}) {node}({columns})) \
             SELECT {decided} FROM {up} WHERE {} LIMIT 1)",
            carried(row),
            climbs.join(" UNION ALL "),
            own.join(" AND "),
        )
    }
}

/// That `links[index]` is the first whose columns are not NULL.
pub(super) fn hangs_on(row: &str, links: &[Link], index: usize) -> String {
    let mut all: Vec<String> = links[..index]
        .iter()
        .map(|link| format!("NOT {}", present(row, link)))
        .collect();
    all.push(present(row, &links[index]));
    all.join(" AND ")
}
