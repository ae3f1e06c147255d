//! The closure as a person reads it: each table below the one through which it hangs on a user.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::catalog::TableName;
use crate::closure::{Closure, Link, Owner};

/// What was counted for the users who move. A number that is not there was not counted, which is not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub users: Option<u64>,
    pub tables: BTreeMap<TableName, Counted>,
    /// Rows whose every link is NULL, by table.
    pub unowned: BTreeMap<TableName, u64>,
    /// Rows of moving users that refer to a row of a user who stays, by table and referring columns.
    pub crossing: BTreeMap<(TableName, Vec<String>), u64>,
}

/// Rows of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub rows: u64,
    /// As stored, large values included; an estimate from the size of the table unless measured.
    pub bytes: Option<u64>,
}

/// A table in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Branch {
    pub table: TableName,
    /// 0 for the root.
    pub depth: usize,
    /// `by user_id`, `by order_id, else by parent_id`; empty for the root.
    pub how: String,
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
}

pub(super) fn branches(closure: &Closure, counts: Option<&Counts>) -> Vec<Branch> {
    let mut branches = Vec::new();
    below(closure, counts, 0, 0, &mut branches);
    branches
}

fn below(
    closure: &Closure,
    counts: Option<&Counts>,
    number: usize,
    depth: usize,
    branches: &mut Vec<Branch>,
) {
    let Some(member) = closure.tables.get(number) else {
        return;
    };
    let table = &member.table.name;
    let counted = counts.and_then(|counts| counts.tables.get(table));
    branches.push(Branch {
        table: table.clone(),
        depth,
        how: how(closure, number, &member.owner),
        rows: counted.map(|counted| counted.rows),
        bytes: counted.and_then(|counted| counted.bytes),
    });
    let children = closure.tables.iter().enumerate().filter(
        |(_, member)| matches!(&member.owner, Owner::Through(links) if links[0].parent == number),
    );
    for (child, _) in children.filter(|(child, _)| *child != number) {
        below(closure, counts, child, depth + 1, branches);
    }
}

fn how(closure: &Closure, number: usize, owner: &Owner) -> String {
    let Owner::Through(links) = owner else {
        return String::new();
    };
    let first = links.first().map(|link| link.parent);
    let by = |link: &Link| {
        let columns = link.columns.join(", ");
        match link.parent {
            parent if parent == number => format!("by {columns} of its tree"),
            parent if Some(parent) == first => format!("by {columns}"),
            parent => format!("by {columns} to {}", closure.tables[parent].table.name),
        }
    };
    let ways: Vec<String> = links.iter().map(by).collect();
    ways.join(", else ")
}

pub(super) fn lines(branches: &[Branch]) -> Vec<String> {
    let name = |branch: &Branch| format!("{}{}", "  ".repeat(branch.depth), branch.table);
    let rows = |branch: &Branch| match branch.rows {
        Some(rows) => format!("{} rows", grouped(rows)),
        None => "rows unknown".to_owned(),
    };
    let bytes = |branch: &Branch| branch.bytes.map_or_else(|| "size unknown".to_owned(), size);
    let widest = |text: &dyn Fn(&Branch) -> String| {
        let widths = branches.iter().map(|branch| text(branch).chars().count());
        widths.max().unwrap_or_default()
    };
    let widths = (widest(&name), widest(&rows), widest(&bytes));
    branches
        .iter()
        .map(|branch| {
            let line = format!(
                "{:<w0$}  {:>w1$}  {:>w2$}  {}",
                name(branch),
                rows(branch),
                bytes(branch),
                branch.how,
                w0 = widths.0,
                w1 = widths.1,
                w2 = widths.2,
            );
            line.trim_end().to_owned()
        })
        .collect()
}

/// 1,234,567
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, word) in units {
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return format!("{}.{} {word}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::{grouped, size};

    #[test]
    fn numbers_are_fit_to_be_read() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (372_000, "372,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(45 << 20), "45.0 MiB");
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }
}
