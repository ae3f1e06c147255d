//! Statements over all rows of some users in one table.

use std::collections::BTreeSet;

use super::digest::{key, user_array};
use super::name::{array, column, equal, identifier, list, literal, table};
use super::owner::{names_the_user, owner, present};
use super::rows::{branches, equals};
use crate::catalog::{Column, TableName};
use crate::closure::{Closure, Link, Owner};

/// Sends the rows of `users`: first the user's key as text, then every column by name, generated ones too, because they
/// are part of the digest. Columns whose binary form holds OIDs go as text.
pub fn copy_out(closure: &Closure, number: usize, users: &[&str]) -> String {
    let member = &closure.tables[number];
    let columns: Vec<String> = member
        .columns_by_name()
        .into_iter()
        .map(|each| on_the_wire("t", each))
        .collect();
    let rows = rows(closure, number, users, |user| {
        format!("{user}, {}", columns.join(", "))
    });
    format!("COPY ({rows}) TO STDOUT (FORMAT binary)")
}

pub(super) fn on_the_wire(row: &str, of: &Column) -> String {
    let value = column(row, &of.name);
    if of.kind.carries_oids {
        format!("{value}::text")
    } else {
        value
    }
}

/// Takes rows in: what [`copy_out`] sends without the user and without generated columns. A table with columns that
/// travel as text takes them in its temporary table: [`temporary`] makes it before, [`insert`] empties it after.
pub fn copy_in(closure: &Closure, number: usize) -> String {
    let member = &closure.tables[number];
    let names = member.written_columns();
    let into = if member.travels_as_text() {
        temporary_name(number)
    } else {
        table(&member.table.name)
    };
    format!(
        "COPY {into} ({}) FROM STDIN (FORMAT binary)",
        list(names.iter().map(|each| each.name.as_str()))
    )
}

/// The temporary table of one transaction, for rows that do not go into their table directly.
pub fn temporary(closure: &Closure, number: usize) -> String {
    let columns: Vec<String> = closure.tables[number]
        .written_columns()
        .into_iter()
        .map(|each| {
            let kind = if each.kind.carries_oids {
                "text"
            } else {
                &each.kind.name
            };
            format!("{} {kind}", identifier(&each.name))
        })
        .collect();
    format!(
        "CREATE TEMPORARY TABLE IF NOT EXISTS {} ({}) ON COMMIT DROP",
        temporary_name(number),
        columns.join(", ")
    )
}

/// Of the table that [`temporary`] makes.
pub fn temporary_name(number: usize) -> String {
    format!("pg_temp.regionwise_{number}")
}

/// Moves what the temporary table holds into the table, and empties it.
pub fn insert(closure: &Closure, number: usize) -> String {
    let member = &closure.tables[number];
    let columns = member.written_columns();
    let names = list(columns.iter().map(|each| each.name.as_str()));
    let values: Vec<String> = columns.iter().map(|each| stored("s", each)).collect();
    let overriding = if member.has_identity_always() {
        " OVERRIDING SYSTEM VALUE"
    } else {
        ""
    };
    format!(
        "INSERT INTO {} ({names}){overriding} SELECT {} FROM {temporary} s; TRUNCATE {temporary}",
        table(&member.table.name),
        values.join(", "),
        temporary = temporary_name(number)
    )
}

/// A value of the temporary table in the column's own type.
pub(super) fn stored(row: &str, of: &Column) -> String {
    let value = column(row, &of.name);
    if of.kind.carries_oids {
        format!("{value}::{}", of.kind.name)
    } else {
        value
    }
}

/// Rows per user of one table: `usr text, rows bigint`. Users without rows are not listed.
pub fn counts(closure: &Closure, number: usize, users: &[&str]) -> String {
    let rows = rows(closure, number, users, |user| format!("{user} AS usr"));
    format!("SELECT usr, count(*) AS rows FROM ({rows}) AS found GROUP BY usr")
}

/// Deletes every row of `users` in one table; children first. Says with its row count how many.
pub fn delete(closure: &Closure, number: usize, users: &[&str]) -> String {
    let member = &closure.tables[number];
    let keys = list(member.table.primary_key.iter().map(String::as_str));
    let found: Vec<String> = member
        .table
        .primary_key
        .iter()
        .map(|name| column("t", name))
        .collect();
    let rows = rows(closure, number, users, |_| found.join(", "));
    format!(
        "DELETE FROM {} x USING ({rows}) AS d({keys}) WHERE {}",
        table(&member.table.name),
        same_key(closure, number, "x", "d")
    )
}

/// `left` and `right` have the same primary key.
pub(super) fn same_key(closure: &Closure, number: usize, left: &str, right: &str) -> String {
    let of = &closure.tables[number].table;
    let operators: Vec<String> = of
        .primary_key
        .iter()
        .map(|name| of.column(name).map_or("pg_catalog.=", equals).to_owned())
        .collect();
    equal(left, &of.primary_key, &operators, right, &of.primary_key)
}

/// Foreign keys of `users`' rows that lead nowhere: `constraint text, rows bigint`, one line for each that is broken.
/// The mover writes with foreign keys switched off, so this is their check.
///
/// A row that was found on its way down from its parent has that parent. A row that names its user has it if the user is
/// there, so only the rows of users who are not are looked at.
pub fn foreign_key_check(closure: &Closure, number: usize, users: &[&str]) -> Option<String> {
    let member = &closure.tables[number];
    let mut checks = Vec::new();
    for reference in &member.references {
        let link = Link {
            columns: reference.columns.clone(),
            parent: 0,
            parent_columns: reference.referenced_columns.clone(),
            operators: reference.operators.clone(),
            deferrable: false,
            nullable: true,
        };
        let broken = leads_nowhere(&link, &reference.references);
        checks.push((reference.name.clone(), link.columns, broken));
    }
    let mut orphans = None;
    if let Owner::Through(links) = &member.owner {
        let only = links.len() == 1 && links[0].parent != number;
        let direct = only && names_the_user(closure, &member.table, &links[0]);
        for link in links {
            let parent = &closure.tables[link.parent].table.name;
            let name = format!("{} to {parent}", link.columns.join(", "));
            if direct {
                orphans = Some((name, link));
            } else if !only {
                checks.push((name, link.columns.clone(), leads_nowhere(link, parent)));
            }
        }
    }
    let mut each = Vec::new();
    if let Some((name, link)) = orphans {
        each.push(format!(
            "SELECT {} AS constraint, count(*) AS rows FROM {} t WHERE {} OPERATOR(pg_catalog.=) ANY (ARRAY({})) HAVING count(*) > 0",
            literal(&name),
            table(&member.table.name),
            column("t", &link.columns[0]),
            missing_users(closure, users)
        ));
    }
    if !checks.is_empty() {
        let columns: BTreeSet<&str> = checks
            .iter()
            .flat_map(|(_, columns, _)| columns.iter().map(String::as_str))
            .collect();
        let columns: Vec<String> = columns.into_iter().map(|name| column("t", name)).collect();
        let rows = rows(closure, number, users, |_| columns.join(", "));
        for (name, _, broken) in &checks {
            each.push(format!(
                "SELECT {} AS constraint, count(*) AS rows FROM ({rows}) t WHERE {broken} HAVING count(*) > 0",
                literal(name)
            ));
        }
    }
    (!each.is_empty()).then(|| each.join(" UNION ALL "))
}

/// Of these users, those without a row.
fn missing_users(closure: &Closure, users: &[&str]) -> String {
    let root = &closure.root().table;
    let key = &root.primary_key[0];
    format!(
        "SELECT u FROM unnest({}) u WHERE NOT EXISTS (SELECT FROM {} p WHERE {} OPERATOR({}) u)",
        user_array(closure, users),
        table(&root.name),
        column("p", key),
        equals(closure.user_key())
    )
}

fn leads_nowhere(link: &Link, parent: &TableName) -> String {
    let on = equal(
        "p",
        &link.parent_columns,
        &link.operators,
        "t",
        &link.columns,
    );
    format!(
        "{} AND NOT EXISTS (SELECT FROM {} p WHERE {on})",
        present("t", link),
        table(parent)
    )
}

/// Rows per user, found the other way: every row of the table climbs to its user, as the fence does it. Slow, and the
/// reason that a wrong way down does not hide behind two equal digests. `usr text, rows bigint`.
pub fn climbed_counts(closure: &Closure, number: usize, users: &[&str]) -> String {
    format!(
        "SELECT usr, count(*) AS rows FROM (SELECT {} AS usr FROM {} t) AS climbed WHERE usr = ANY ({}) GROUP BY usr",
        owner(closure, number, "t"),
        table(&closure.tables[number].table.name),
        array(users.iter().copied(), "text")
    )
}

/// Rows of one table whose user has a route in one of `states`, by primary key: `usr text, key text[]`. For the janitor
/// and the audit.
pub fn climbed_keys(closure: &Closure, number: usize, states: &[&str]) -> String {
    let member = &closure.tables[number];
    format!(
        "SELECT climbed.usr, climbed.key FROM (SELECT {} AS usr, {} AS key FROM {} t) AS climbed \
         JOIN regionwise.route r ON r.usr = climbed.usr WHERE r.state = ANY ({})",
        owner(closure, number, "t"),
        key(member, "t"),
        table(&member.table.name),
        array(states.iter().copied(), "text")
    )
}

/// The rows of `users`, whatever is wanted of them; `what` is given the expression for the user.
pub(super) fn rows(
    closure: &Closure,
    number: usize,
    users: &[&str],
    what: impl Fn(&str) -> String,
) -> String {
    let keys = user_array(closure, users);
    let each: Vec<String> = branches(closure, number, "t", &keys)
        .iter()
        .map(|branch| branch.select(&what(&branch.user)))
        .collect();
    each.join(" UNION ALL ")
}
