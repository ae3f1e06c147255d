//! One step up: the parents of single rows, on the way to their user.
//!
//! Where a parent was deleted, its children went with it by ON DELETE CASCADE. The fence lets them go without a word,
//! so whoever asks why a row is gone has to ask for its parents too.

use super::delta::{ORDER, named};
use super::digest::key;
use super::name::{equal, table};
use super::owner::hangs_on;
use super::select::same_key;
use crate::closure::{Closure, Owner};

/// Of the rows with these keys: `place int8, tab int4, key text[]`, place counted from 1. `None` for the root.
pub fn parents(closure: &Closure, number: usize, keys: &[Vec<String>]) -> Option<String> {
    let member = &closure.tables[number];
    let Owner::Through(links) = &member.owner else {
        return None;
    };
    let each: Vec<String> = links
        .iter()
        .enumerate()
        .map(|(index, link)| {
            let parent = &closure.tables[link.parent];
            format!(
                "SELECT k.{ORDER}, {}::int4 AS tab, {} AS key FROM {} JOIN {} t ON {} JOIN {} p ON {} WHERE {}",
                link.parent,
                key(parent, "p"),
                named(closure, number, keys),
                table(&member.table.name),
                same_key(closure, number, "t", "k"),
                table(&parent.table.name),
                equal("p", &link.parent_columns, &link.operators, "t", &link.columns),
                hangs_on("t", links, index),
            )
        })
        .collect();
    Some(each.join(" UNION ALL "))
}
