//! How much would move: what `plan` shows. Over all users that a condition chooses, so slow on purpose and read-only.

use super::name::{equal, identifier, table};
use super::owner::{owner, present};
use super::rows::branches;
use crate::closure::{Closure, Crossing, Owner};

/// How many users a condition over the root table's columns chooses: `count`.
pub fn users(closure: &Closure, chosen: &str) -> String {
    let root = table(&closure.root().table.name);
    format!("SELECT count(*) FROM {root} WHERE ({chosen})")
}

/// Rows of all chosen users, one line for each table: `tab int, rows bigint`.
pub fn rows(closure: &Closure, chosen: &str) -> String {
    let keys = keys(closure, chosen);
    let each: Vec<String> = (0..closure.tables.len())
        .map(|number| {
            let rows: Vec<String> = branches(closure, number, "t", &keys)
                .iter()
                .map(|branch| branch.select("1"))
                .collect();
            let rows = rows.join(" UNION ALL ");
            format!("SELECT {number} AS tab, count(*) AS rows FROM ({rows}) AS found")
        })
        .collect();
    each.join(" UNION ALL ")
}

/// Rows of one table whose every reference towards a user is NULL: `count`.
pub fn unowned(closure: &Closure, number: usize) -> Option<String> {
    let member = &closure.tables[number];
    let Owner::Through(links) = &member.owner else {
        return None;
    };
    let nobody: Vec<String> = links
        .iter()
        .map(|link| format!("NOT {}", present("t", link)))
        .collect();
    Some(format!(
        "SELECT count(*) FROM {} t WHERE {}",
        table(&member.table.name),
        nobody.join(" AND ")
    ))
}

/// Rows of chosen users that refer to a row of a user who is not chosen: `count`.
pub fn crossing(closure: &Closure, crossing: &Crossing, chosen: &str) -> String {
    let member = &closure.tables[crossing.table];
    let reference = &member.references[crossing.reference];
    let keys = keys(closure, chosen);
    let rows: Vec<String> = branches(closure, crossing.table, "t", &keys)
        .iter()
        .map(|branch| branch.select("t.*"))
        .collect();
    let on = equal(
        "p",
        &reference.referenced_columns,
        &reference.operators,
        "t",
        &reference.columns,
    );
    format!(
        "SELECT count(*) FROM ({}) AS t JOIN {} p ON {on} WHERE {} NOT IN (SELECT {}::text FROM {} WHERE ({chosen}))",
        rows.join(" UNION ALL "),
        table(&reference.references),
        owner(closure, crossing.to, "p"),
        identifier(&closure.user_key().name),
        table(&closure.root().table.name),
    )
}

fn keys(closure: &Closure, chosen: &str) -> String {
    format!(
        "ARRAY(SELECT {} FROM {} WHERE ({chosen}))",
        identifier(&closure.user_key().name),
        table(&closure.root().table.name)
    )
}
