//! Statements over single rows, named by their primary keys: what brings the target up to date with the source.
//!
//! Keys are what `regionwise.row_digests` gives, text per column. Rows that changed are updated in place: a row that is
//! deleted and inserted again answers a waiting writer with `UPDATE 0`, and his write is lost.

use super::name::{array, column, identifier, list, table};
use super::owner::owner;
use super::select::{on_the_wire, same_key, stored, temporary_name};
use crate::catalog::{Column, Identity, Table};
use crate::closure::Closure;

/// Sends the rows with these keys, as [`super::select::copy_out`] does, but with the key's place in `keys`, from 1, instead
/// of the user. Rows that are no longer there are not sent.
pub fn copy_out(closure: &Closure, number: usize, keys: &[Vec<String>]) -> String {
    let member = &closure.tables[number];
    let columns: Vec<String> = member
        .columns_by_name()
        .into_iter()
        .map(|each| on_the_wire("t", each))
        .collect();
    format!(
        "COPY (SELECT k.{ORDER}, {} FROM {} CROSS JOIN LATERAL {}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        named(closure, number, keys),
        looked_up(closure, number, "t", "k", "t.*", "true")
    )
}

/// Rows of the table that have the key of the row to their left, each looked up by itself. OFFSET 0 keeps the planner from
/// turning the join round: of neither table, just filled, does it know how many rows there are.
pub(super) fn looked_up(
    closure: &Closure,
    number: usize,
    alias: &str,
    left: &str,
    what: &str,
    also: &str,
) -> String {
    format!(
        "(SELECT {what} FROM {} {alias} WHERE {} AND {also} OFFSET 0) {alias}",
        table(&closure.tables[number].table.name),
        same_key(closure, number, alias, left)
    )
}

/// Where a row stands; with the partition, because places are counted in each of them.
const PLACE: &str = "x.ctid AS at, x.tableoid AS part";

/// Takes rows into the temporary table, which [`super::select::temporary`] has made.
pub fn copy_in(closure: &Closure, number: usize) -> String {
    let names = closure.tables[number].written_columns();
    format!(
        "COPY {} ({}) FROM STDIN (FORMAT binary)",
        temporary_name(number),
        list(names.iter().map(|each| each.name.as_str()))
    )
}

/// Whether a row may become another one: it is of somebody who is being moved here, or its parent went in this
/// transaction. A row with the same key that somebody else owns excludes the one that comes, as a unique key does.
fn taken(closure: &Closure, number: usize, row: &str) -> String {
    format!(
        "EXISTS (SELECT FROM (SELECT {} AS usr OFFSET 0) o WHERE o.usr IS NULL \
         OR EXISTS (SELECT FROM regionwise.route r WHERE r.usr = o.usr AND r.state = 'staging'))",
        owner(closure, number, row)
    )
}

/// Rows of the temporary table that are in the table already. The key is set too: equal keys can be written in two ways
/// (`citext`, `numeric`), and the row must be the source's byte for byte.
pub fn update(closure: &Closure, number: usize) -> Option<String> {
    let member = &closure.tables[number];
    let columns: Vec<String> = member
        .written_columns()
        .into_iter()
        .filter(|each| can_be_set(each))
        .map(|each| format!("{} = {}", identifier(&each.name), stored("s", each)))
        .collect();
    if columns.is_empty() {
        return None;
    }
    Some(format!(
        "UPDATE {} t SET {} FROM {} s CROSS JOIN LATERAL {} WHERE t.ctid = x.at AND t.tableoid = x.part",
        table(&member.table.name),
        columns.join(", "),
        temporary_name(number),
        looked_up(
            closure,
            number,
            "x",
            "s",
            PLACE,
            &taken(closure, number, "x")
        )
    ))
}

/// Postgres lets nobody set an identity column that is GENERATED ALWAYS.
fn can_be_set(column: &Column) -> bool {
    column.identity != Some(Identity::Always)
}

/// Rows of the temporary table that the table does not have.
pub fn insert(closure: &Closure, number: usize) -> String {
    let member = &closure.tables[number];
    let columns = member.written_columns();
    let values: Vec<String> = columns.iter().map(|each| stored("s", each)).collect();
    let overriding = if member.has_identity_always() {
        " OVERRIDING SYSTEM VALUE"
    } else {
        ""
    };
    let name = table(&member.table.name);
    format!(
        "INSERT INTO {name} ({}){overriding} SELECT {} FROM {} s \
         WHERE NOT EXISTS (SELECT FROM {name} t WHERE {} AND {} OFFSET 0)",
        list(columns.iter().map(|each| each.name.as_str())),
        values.join(", "),
        temporary_name(number),
        same_key(closure, number, "t", "s"),
        taken(closure, number, "t")
    )
}

/// The temporary table of one transaction for the keys of rows that the source does not have as they are.
pub fn temporary_keys(closure: &Closure, number: usize) -> String {
    let of = &closure.tables[number].table;
    let columns: Vec<String> = of
        .primary_key
        .iter()
        .map(|name| format!("{} {}", identifier(name), kind(of, name)))
        .collect();
    format!(
        "CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP",
        keys_name(number),
        columns.join(", ")
    )
}

pub(super) fn keys_name(number: usize) -> String {
    format!("pg_temp.regionwise_keys_{number}")
}

/// Into the table that [`temporary_keys`] makes.
pub fn note_keys(closure: &Closure, number: usize, keys: &[Vec<String>]) -> String {
    let names: Vec<String> = closure.tables[number]
        .table
        .primary_key
        .iter()
        .map(|name| column("k", name))
        .collect();
    format!(
        "INSERT INTO {} SELECT {} FROM {}",
        keys_name(number),
        names.join(", "),
        named(closure, number, keys)
    )
}

/// What [`delete`] needs to find a key among the rows that stay.
pub fn index(closure: &Closure, number: usize) -> String {
    let key = &closure.tables[number].table.primary_key;
    format!(
        "CREATE INDEX ON {} ({})",
        temporary_name(number),
        list(key.iter().map(String::as_str))
    )
}

/// Deletes the rows whose keys are noted, as far as they belong to `users`. With `changed` there is a temporary table of
/// rows that came, and what has its key there stays, to be updated in place. Children first.
pub fn delete(closure: &Closure, number: usize, users: &[&str], changed: bool) -> String {
    let stays = if changed {
        format!(
            " WHERE NOT EXISTS (SELECT FROM {} s WHERE {} OFFSET 0)",
            temporary_name(number),
            same_key(closure, number, "s", "k")
        )
    } else {
        String::new()
    };
    let owned = format!(
        "{} = ANY ({})",
        owner(closure, number, "x"),
        array(users.iter().copied(), "text")
    );
    format!(
        "DELETE FROM {} t USING (SELECT x.at, x.part FROM {} k CROSS JOIN LATERAL {}{stays}) d \
         WHERE t.ctid = d.at AND t.tableoid = d.part",
        table(&closure.tables[number].table.name),
        keys_name(number),
        looked_up(closure, number, "x", "k", PLACE, &owned)
    )
}

fn kind<'a>(of: &'a Table, name: &str) -> &'a str {
    of.column(name)
        .map_or("text", |each| each.kind.name.as_str())
}

/// The column of [`named`] that counts; no column of a key is called so.
pub(super) const ORDER: &str = "\"regionwise place\"";

/// The keys as a table `k` in the types of the primary key.
pub(super) fn named(closure: &Closure, number: usize, keys: &[Vec<String>]) -> String {
    let of = &closure.tables[number].table;
    let arrays: Vec<String> = of
        .primary_key
        .iter()
        .enumerate()
        .map(|(place, name)| {
            let values = keys
                .iter()
                .filter_map(|key| key.get(place))
                .map(String::as_str);
            array(values, kind(of, name))
        })
        .collect();
    format!(
        "ROWS FROM ({}) WITH ORDINALITY AS k({}, {ORDER})",
        arrays
            .iter()
            .map(|each| format!("unnest({each})"))
            .collect::<Vec<_>>()
            .join(", "),
        list(of.primary_key.iter().map(String::as_str))
    )
}
