//! `docs/regions.schema.json` and `docs/regions-toml.md` are written from the schema; these tests keep them so.
//! After a change to [`crate::file`]: `UPDATE=1 cargo test -p regionwise-topology`.
#![expect(
    clippy::disallowed_methods,
    reason = "tests read and write the checked-in files"
)]

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::{file, shape};

#[test]
fn the_checked_in_schema_is_the_one_of_the_code() {
    let text = serde_json::to_string_pretty(&file::schema()).unwrap() + "\n";
    same("docs/regions.schema.json", &text);
}

#[test]
fn the_reference_names_every_key_of_the_schema() {
    let path = root().join("docs/regions-toml.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page
        .split_once(BEGIN)
        .expect("the page marks where its tables begin");
    let (_, tail) = rest
        .split_once(END)
        .expect("the page marks where its tables end");
    let tables = tables(&file::schema());
    same(
        "docs/regions-toml.md",
        &format!("{head}{BEGIN}\n{tables}\n{END}{tail}"),
    );
}

const BEGIN: &str = "<!-- keys: written by UPDATE=1 cargo test -p regionwise-topology -->";
const END: &str = "<!-- end of keys -->";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn same(path: &str, wanted: &str) {
    let full = root().join(path);
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(&full, wanted).unwrap();
    }
    let present = std::fs::read_to_string(&full).unwrap_or_default();
    assert!(
        present == wanted,
        "{path} is out of date: UPDATE=1 cargo test -p regionwise-topology"
    );
}

/// One table for each section that has keys of its own.
fn tables(schema: &Value) -> String {
    let mut text = String::new();
    section("", schema, &mut text);
    text
}

fn section(path: &str, schema: &Value, text: &mut String) {
    if let Some(values) = schema["patternProperties"].as_object() {
        let path = format!("{path}.NAME");
        values
            .values()
            .for_each(|schema| section(&path, schema, text));
        return;
    }
    let (sections, values): (Vec<_>, Vec<_>) = keys(schema)
        .into_iter()
        .partition(|(_, schema)| is_section(schema));
    if !values.is_empty() {
        write!(text, "\n### `[{path}]`\n\n").unwrap();
        if let Some(description) = schema["description"].as_str() {
            write!(text, "{description}\n\n").unwrap();
        }
        rows(&values, schema, text);
    }
    for (name, schema) in sections {
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        section(&path, schema, text);
    }
    for (name, list) in values
        .iter()
        .filter(|(_, schema)| schema["items"]["properties"].is_object())
    {
        write!(
            text,
            "\nEach node, the primary or one of `{path}.{name}`:\n\n"
        )
        .unwrap();
        rows(&keys(&list["items"]), &list["items"], text);
    }
}

/// A table that is written under a header of its own, not inline.
fn is_section(schema: &Value) -> bool {
    schema["type"] == "object" && schema["title"].is_null()
}

/// What is required first, in the order of the code; the rest by name.
fn keys(schema: &Value) -> Vec<(&str, &Value)> {
    let mut keys: Vec<(&str, &Value)> = schema["properties"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, schema)| (name.as_str(), schema))
        .collect();
    let required = schema["required"].as_array();
    let place =
        |name: &str| required.and_then(|names| names.iter().position(|other| other == name));
    keys.sort_by_key(|(name, _)| (place(name).is_none(), place(name), *name));
    keys
}

fn rows(keys: &[(&str, &Value)], parent: &Value, text: &mut String) {
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    keys.iter()
        .for_each(|(name, schema)| row(name, schema, parent, text));
}

fn row(key: &str, schema: &Value, parent: &Value, text: &mut String) {
    let required = parent["required"]
        .as_array()
        .is_some_and(|keys| keys.iter().any(|name| name == key));
    let default = match (&schema["default"], required) {
        (_, true) => "required".to_owned(),
        (Value::Null, false) => "-".to_owned(),
        (default, false) => format!("`{default}`"),
    };
    let accepted = shape::accepted(schema).replace('|', "\\|");
    let accepted = match schema["items"]["title"].as_str() {
        Some(items) => format!("{accepted} of: {items}"),
        None => accepted,
    };
    let meaning = schema["description"]
        .as_str()
        .expect("every key has a doc comment");
    writeln!(text, "| `{key}` | {accepted} | {default} | {meaning} |").unwrap();
    for choice in schema["oneOf"].as_array().into_iter().flatten() {
        let meaning = choice["description"]
            .as_str()
            .expect("every choice has a doc comment");
        writeln!(text, "| | `{}` | | {meaning} |", choice["const"]).unwrap();
    }
}
