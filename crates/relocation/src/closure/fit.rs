//! Do the rules of `regions.toml` about columns fit the catalog?

use super::Discovered;
use super::ownership::Graph;
use super::refusal::Reason;
use super::rules::{OtherUser, Rules};
use crate::catalog::{Table, TableName};

pub(super) fn refusals(graph: &Graph<'_>, rules: &Rules, found: &Discovered) -> Vec<Reason> {
    let mut refused = Vec::new();
    for (name, rule) in &rules.tables {
        // A table that is not there has its own refusal.
        let Some(table) = graph.tables.get(name) else {
            continue;
        };
        let moves = found.closure.position(name).is_some();
        for (column, said) in &rule.other_users {
            refused.extend(column_unknown(table, column).or_else(|| {
                refers_to_no_user(name, column, found)
                    .or_else(|| cannot_be_null(table, column, *said))
                    .or_else(|| changes_on_the_way(name, column, *said, moves))
            }));
        }
    }
    refused
}

fn column_unknown(table: &Table, column: &str) -> Option<Reason> {
    table
        .column(column)
        .is_none()
        .then(|| Reason::RuleForUnknownColumn {
            table: table.name.clone(),
            column: column.to_owned(),
            known: table.columns.iter().map(|c| c.name.clone()).collect(),
        })
}

/// The reference by which a row is its user's leads to no other.
fn refers_to_no_user(table: &TableName, column: &str, found: &Discovered) -> Option<Reason> {
    let names = |columns: &[String]| columns.iter().any(|name| name == column);
    let crosses = found.crossings.iter().any(|crossing| {
        let member = &found.closure.tables[crossing.table];
        member.table.name == *table && names(&member.references[crossing.reference].columns)
    });
    let left_behind = found
        .left_behind
        .iter()
        .any(|left| left.table == *table && names(&left.reference.columns));
    (!crosses && !left_behind).then(|| Reason::RuleWithoutReference {
        table: table.clone(),
        column: column.to_owned(),
    })
}

fn cannot_be_null(table: &Table, column: &str, said: OtherUser) -> Option<Reason> {
    let not_null = table.column(column).is_some_and(|column| column.not_null);
    (said == OtherUser::SetNull && not_null).then(|| Reason::CannotBeNull {
        table: table.name.clone(),
        column: column.to_owned(),
    })
}

/// A row that arrives otherwise than it left cannot be proven. Only a table that stays may lose its reference.
fn changes_on_the_way(
    table: &TableName,
    column: &str,
    said: OtherUser,
    moves: bool,
) -> Option<Reason> {
    (said == OtherUser::SetNull && moves).then(|| Reason::ChangesOnTheWay {
        table: table.clone(),
        column: column.to_owned(),
    })
}
