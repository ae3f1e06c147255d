//! Downwards: from users to their rows, table by table, along indexes.
//!
//! A table with several owner links gives one branch for each, and the branches have no row in common. The columns that
//! find a row are the same that [`super::owner`] climbs, but nothing else is: `verify` sets one against the other.

use super::name::{column, equal, table};
use super::owner::{hangs_on, names_the_user};
use crate::catalog::{Column, Table};
use crate::closure::{Closure, Link, Owner};

/// The column of a tree's recursion that carries the user.
const USER: &str = "\"regionwise user\"";

/// One way from users to the rows of a table.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// What follows FROM; the rows themselves are called as the caller wished.
    pub(super) from: String,
    /// What follows WHERE.
    pub(super) condition: String,
    /// The user's key in its own type.
    pub(super) key: String,
    /// The user's key as text.
    pub(super) user: String,
}

impl Branch {
    pub(super) fn select(&self, what: &str) -> String {
        format!("SELECT {what} FROM {} WHERE {}", self.from, self.condition)
    }
}

/// The branches of table `number`, whose rows are called `alias`, for the users in the array `keys`.
pub(super) fn branches(closure: &Closure, number: usize, alias: &str, keys: &str) -> Vec<Branch> {
    let mut descent = Descent {
        closure,
        keys,
        alias: 0,
    };
    descent.branches(number, alias)
}

struct Descent<'a> {
    closure: &'a Closure,
    keys: &'a str,
    alias: usize,
}

impl Descent<'_> {
    fn branches(&mut self, number: usize, alias: &str) -> Vec<Branch> {
        let member = &self.closure.tables[number];
        let name = table(&member.table.name);
        match &member.owner {
            Owner::Root => {
                let key = column(alias, &member.table.primary_key[0]);
                let equals = equals(self.closure.user_key());
                vec![Branch {
                    from: format!("{name} {alias}"),
                    condition: format!("{key} OPERATOR({equals}) ANY ({})", self.keys),
                    user: format!("{key}::text"),
                    key,
                }]
            }
            Owner::Through(links) if links.iter().any(|link| link.parent == number) => {
                vec![self.tree(number, links, alias)]
            }
            Owner::Through(links) => (0..links.len())
                .flat_map(|index| self.through(number, links, index, alias))
                .collect(),
        }
    }

    fn through(&mut self, number: usize, links: &[Link], index: usize, alias: &str) -> Vec<Branch> {
        let link = &links[index];
        let child = &self.closure.tables[number].table;
        let name = table(&child.name);
        // The link itself is not NULL where it joins; only the earlier ones need a word.
        let first = if index == 0 {
            String::new()
        } else {
            format!(" AND {}", hangs_on(alias, links, index))
        };
        if names_the_user(self.closure, child, link) {
            let key = column(alias, &link.columns[0]);
            return vec![Branch {
                from: format!("{name} {alias}"),
                condition: format!("{key} OPERATOR(pg_catalog.=) ANY ({}){first}", self.keys),
                user: format!("{key}::text"),
                key: format!("{key}::{}", self.closure.user_key().kind.name),
            }];
        }
        self.alias += 1;
        let parent = format!("d{}", self.alias);
        let on = equal(
            &parent,
            &link.parent_columns,
            &link.operators,
            alias,
            &link.columns,
        );
        let above = self.branches(link.parent, &parent);
        above
            .into_iter()
            .map(|branch| Branch {
                from: format!(
                    "{} CROSS JOIN LATERAL {}",
                    branch.from,
                    below(
                        &format!(
                            "SELECT {} FROM {name} {alias} WHERE {on}",
                            whole(child, alias)
                        ),
                        alias
                    )
                ),
                condition: format!("{}{first}", branch.condition),
                key: branch.key,
                user: branch.user,
            })
            .collect()
    }

    /// Rows that hang on something else first, then those that hang on these, and so on.
    fn tree(&mut self, number: usize, links: &[Link], alias: &str) -> Branch {
        self.alias += 1;
        let (down, top, node) = (
            format!("down{}", self.alias),
            format!("t{}", self.alias),
            format!("n{}", self.alias),
        );
        let of = &self.closure.tables[number].table;
        let name = table(&of.name);
        let (mut tops, mut nodes) = (Vec::new(), Vec::new());
        for (index, link) in links.iter().enumerate() {
            if link.parent == number {
                let on = equal(
                    &down,
                    &link.parent_columns,
                    &link.operators,
                    &node,
                    &link.columns,
                );
                nodes.push(format!(
                    "SELECT {} FROM {name} {node} WHERE {on} AND {}",
                    whole(of, &node),
                    hangs_on(&node, links, index)
                ));
            } else {
                for branch in self.through(number, links, index, &top) {
                    tops.push(branch.select(&format!(
                        "{} AS {USER}, {}",
                        branch.key,
                        whole(of, &top)
                    )));
                }
            }
        }
        // All ways down stand in one LATERAL: Postgres allows a recursion to be mentioned once.
        let recursion = format!(
            "SELECT {down}.{USER}, {node}.* FROM {down} CROSS JOIN LATERAL {}",
            below(&nodes.join(" UNION ALL "), &node)
        );
        Branch {
            from: format!(
                "(WITH RECURSIVE {down} AS (({}) UNION ALL {recursion}) SELECT * FROM {down}) {alias}",
                tops.join(" UNION ALL "),
            ),
            condition: "true".to_owned(),
            key: format!("{alias}.{USER}"),
            user: format!("{alias}.{USER}::text"),
        }
    }
}

/// All columns of a row and what tells its versions apart, which a subquery does not pass on by itself.
fn whole(of: &Table, alias: &str) -> String {
    let columns = of.columns.iter().map(|each| column(alias, &each.name));
    let version = ["tableoid", "ctid", "xmin"].map(|name| format!("{alias}.{name}"));
    let all: Vec<String> = version.into_iter().chain(columns).collect();
    all.join(", ")
}

/// Names one version of a row, 14 bytes: whoever writes the row makes another one. Rewriting a table (VACUUM FULL) does
/// too, freezing does not.
pub(super) fn version(alias: &str) -> String {
    format!("oidsend({alias}.tableoid) || tidsend({alias}.ctid) || xidsend({alias}.xmin)")
}

/// Rows that hang on the row to their left, looked up for each such row. OFFSET 0 keeps the planner from turning the join
/// round: without statistics, as at a target that has just been filled, it would read the whole table for every batch.
fn below(rows: &str, alias: &str) -> String {
    format!("({rows} OFFSET 0) {alias}")
}

/// The equality of a column's own type.
pub(super) fn equals(column: &Column) -> &str {
    column.kind.equals.as_deref().unwrap_or("pg_catalog.=")
}
