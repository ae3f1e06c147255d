//! Does the document have the shape of the schema: known keys, no key missing, the right types, numbers in range?
//!
//! `toml` with serde would stop at the first such problem. This walk finds all of them, takes what is accepted from
//! the schema that editors use, and knows which values are secrets.

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::{self, Document};
use crate::problem::{Finding, Key, closest, listed, quoted};

pub(crate) fn check(document: &Document<'_>, schema: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_table(&Key::default(), document.root(), schema, &mut findings);
    findings
}

fn check_value(
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    schema: &Value,
    findings: &mut Vec<Finding>,
) {
    let value = value.get_ref();
    if let Some(finding) = wrong_type(key, value, schema) {
        findings.push(finding);
        return;
    }
    findings.extend(not_a_choice(key, value, schema));
    findings.extend(out_of_range(key, value, schema));
    findings.extend(empty(key, value, schema));
    match value {
        DeValue::Table(table) => check_table(key, table, schema, findings),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_value(&key.index(index), item, &schema["items"], findings);
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}

fn check_table(key: &Key, table: &DeTable<'_>, schema: &Value, findings: &mut Vec<Finding>) {
    let mut misspelt = Vec::new();
    for (name, value) in table {
        let name = name.get_ref();
        let key = key.name(name);
        match schema["properties"]
            .get(name.as_ref())
            .or_else(|| values_of_map(schema))
        {
            Some(schema) => check_value(&key, value, schema, findings),
            None => {
                misspelt.extend(closest(name, known_keys(schema)));
                findings.push(unknown_key(&key, name, schema));
            }
        }
    }
    let required = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    // What is there under a misspelt key is not reported as missing too.
    let missing = required.filter(|name| !table.contains_key(*name) && !misspelt.contains(name));
    findings.extend(missing.map(|name| missing_key(&key.name(name), &schema["properties"][name])));
}

fn known_keys(schema: &Value) -> impl Iterator<Item = &str> {
    schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
}

/// The schema of the values of a table whose keys are names. The names themselves are for [`crate::rules`].
fn values_of_map(schema: &Value) -> Option<&Value> {
    schema["patternProperties"].as_object()?.values().next()
}

fn unknown_key(key: &Key, name: &str, schema: &Value) -> Finding {
    Finding::new(key, "not a key", listed(known_keys(schema))).meant(name, known_keys(schema))
}

fn missing_key(key: &Key, schema: &Value) -> Finding {
    let finding = Finding::new(key, "missing", accepted(schema));
    match schema["x-hint"].as_str() {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

fn wrong_type(key: &Key, value: &DeValue<'_>, schema: &Value) -> Option<Finding> {
    let fits = match value {
        DeValue::String(_) => schema["type"] == "string" || choices(schema).is_some(),
        DeValue::Integer(_) => schema["type"] == "integer" || schema["type"] == "number",
        DeValue::Float(_) => schema["type"] == "number",
        DeValue::Boolean(_) => schema["type"] == "boolean",
        DeValue::Datetime(_) => false,
        DeValue::Array(_) => schema["type"] == "array",
        DeValue::Table(_) => schema["type"] == "object",
    };
    (!fits).then(|| Finding::new(key, shown(value, schema), accepted(schema)))
}

fn not_a_choice(key: &Key, value: &DeValue<'_>, schema: &Value) -> Option<Finding> {
    let choices = choices(schema)?;
    let word = value.as_str()?;
    let finding =
        Finding::new(key, quoted(word), accepted(schema)).meant(word, choices.iter().copied());
    (!choices.contains(&word)).then_some(finding)
}

fn out_of_range(key: &Key, value: &DeValue<'_>, schema: &Value) -> Option<Finding> {
    let number = match value {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .map(|i| i as f64),
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => return None,
    };
    let (minimum, maximum) = (schema["minimum"].as_f64()?, schema["maximum"].as_f64()?);
    // TOML has nan, which is in no range, and integers that are in no i64.
    let inside = number.is_some_and(|number| (minimum..=maximum).contains(&number));
    (!inside).then(|| Finding::new(key, shown(value, schema), accepted(schema)))
}

fn empty(key: &Key, value: &DeValue<'_>, schema: &Value) -> Option<Finding> {
    let (length, minimum) = match value {
        DeValue::Array(items) => (items.len(), schema["minItems"].as_u64()?),
        DeValue::Table(table) => (table.len(), schema["minProperties"].as_u64()?),
        _ => return None,
    };
    (length == 0 && minimum > 0).then(|| Finding::new(key, "empty", "at least one entry"))
}

/// The value as far as it helps the reader and is no secret.
fn shown(value: &DeValue<'_>, schema: &Value) -> String {
    if schema["writeOnly"] == true {
        return "a literal value".to_owned();
    }
    let scalar = schema["type"] != "array" && schema["type"] != "object";
    match value {
        DeValue::String(text) if scalar => quoted(text),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        other => document::kind(other).to_owned(),
    }
}

/// What the schema accepts, in words.
pub(crate) fn accepted(schema: &Value) -> String {
    if let Some(title) = schema["title"].as_str() {
        return title.to_owned();
    }
    if let Some(choices) = choices(schema) {
        return choices
            .iter()
            .map(|choice| format!("\"{choice}\""))
            .collect::<Vec<_>>()
            .join(", ");
    }
    let (minimum, maximum) = (&schema["minimum"], &schema["maximum"]);
    match schema["type"].as_str() {
        Some("integer") => format!("a whole number from {minimum} to {maximum}"),
        Some("number") => format!("a number from {minimum} to {maximum}"),
        Some("array") => "a list".to_owned(),
        Some("object") if values_of_map(schema).is_some() => "one table for each name".to_owned(),
        Some("object") => {
            let required = schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            format!("a table with {}", listed(required))
        }
        Some(other) => format!("a {other}"),
        None => "a value of the schema".to_owned(),
    }
}

/// The words of an enum: `enum`, or one `const` for each when they are described.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema["enum"].as_array() {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    let variants = schema["oneOf"].as_array()?;
    Some(
        variants
            .iter()
            .filter_map(|variant| variant["const"].as_str())
            .collect(),
    )
}
