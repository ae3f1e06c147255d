//! Quoting of names and values.

use crate::catalog::TableName;

/// A name, always in quotes: what needs none today may be a keyword tomorrow.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant that means the same whatever `standard_conforming_strings` says.
pub fn literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

pub fn table(name: &TableName) -> String {
    format!("{}.{}", identifier(&name.schema), identifier(&name.name))
}

/// `alias.column`.
pub(super) fn column(row: &str, column: &str) -> String {
    format!("{row}.{}", identifier(column))
}

/// The names of columns, in quotes, with commas.
pub(super) fn list<'a>(columns: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = columns.into_iter().map(identifier).collect();
    quoted.join(", ")
}

/// Values as an array of `kind`.
pub(super) fn array<'a>(values: impl IntoIterator<Item = &'a str>, kind: &str) -> String {
    let quoted: Vec<String> = values.into_iter().map(literal).collect();
    format!("ARRAY[{}]::{kind}[]", quoted.join(","))
}

/// `left = right`, column by column, with the given operators.
pub(super) fn equal(
    left: &str,
    left_columns: &[String],
    operators: &[String],
    right: &str,
    right_columns: &[String],
) -> String {
    let pairs = left_columns.iter().zip(operators).zip(right_columns);
    let each: Vec<String> = pairs
        .map(|((l, operator), r)| {
            format!(
                "{} OPERATOR({operator}) {}",
                column(left, l),
                column(right, r)
            )
        })
        .collect();
    each.join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::{array, identifier, literal};

    #[test]
    fn quotes_in_names_and_values_are_doubled() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("o'neill"), "'o''neill'");
        assert_eq!(array(["1", "'"], "text"), "ARRAY['1','''']::text[]");
    }

    #[test]
    fn a_backslash_is_a_backslash_under_every_setting() {
        assert_eq!(literal("a\\b'"), "E'a\\\\b'''");
    }
}
