//! Foreign keys, and sequences with the columns that they number.

use std::collections::BTreeMap;

use regionwise_postgres::Row;
use regionwise_relocation::catalog::{Action, ForeignKey, Sequence, TableName};
use serde::Deserialize;

use super::{SurveyError, facts};

#[derive(Deserialize)]
struct RawKey {
    name: String,
    table: u32,
    columns: Vec<String>,
    references: (String, String),
    referenced_columns: Vec<String>,
    operators: Vec<String>,
    deferrable: bool,
    validated: bool,
    on_delete: char,
    on_update: char,
}

/// As they were declared: what Postgres makes of them for partitions has a parent and is left out.
pub(super) const KEYS: &str = "\
    SELECT json_build_object('name', k.conname, 'table', k.conrelid::bigint, \
        'columns', (SELECT json_agg(a.attname ORDER BY c.at) FROM unnest(k.conkey) WITH ORDINALITY AS c(num, at) \
            JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = c.num), \
        'references', json_build_array(n.nspname, r.relname), \
        'referenced_columns', (SELECT json_agg(a.attname ORDER BY c.at) \
            FROM unnest(k.confkey) WITH ORDINALITY AS c(num, at) \
            JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = c.num), \
        'operators', (SELECT json_agg(format('%I.%s', s.nspname, o.oprname) ORDER BY c.at) \
            FROM unnest(k.conpfeqop) WITH ORDINALITY AS c(oid, at) JOIN pg_operator AS o ON o.oid = c.oid \
            JOIN pg_namespace AS s ON s.oid = o.oprnamespace), \
        'deferrable', k.condeferrable, 'validated', k.convalidated, \
        'on_delete', k.confdeltype, 'on_update', k.confupdtype) AS key \
    FROM pg_constraint AS k JOIN pg_class AS r ON r.oid = k.confrelid JOIN pg_namespace AS n ON n.oid = r.relnamespace \
    WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY k.conrelid, k.conname";

pub(super) fn foreign_keys(
    answer: &[Row],
    names: &BTreeMap<u32, TableName>,
) -> Result<Vec<ForeignKey>, SurveyError> {
    let raw: Vec<RawKey> = facts(answer, "key")?;
    let mut keys: Vec<ForeignKey> = raw
        .into_iter()
        .filter_map(|raw| {
            let (schema, name) = raw.references;
            Some(ForeignKey {
                name: raw.name,
                // Tables that are not listed are not the application's.
                table: names.get(&raw.table)?.clone(),
                columns: raw.columns,
                references: TableName::new(schema, name),
                referenced_columns: raw.referenced_columns,
                operators: raw.operators,
                deferrable: raw.deferrable,
                validated: raw.validated,
                on_delete: action(raw.on_delete),
                on_update: action(raw.on_update),
            })
        })
        .collect();
    keys.sort_by(|a, b| (&a.table, &a.name).cmp(&(&b.table, &b.name)));
    Ok(keys)
}

fn action(letter: char) -> Action {
    match letter {
        'c' => Action::Cascade,
        'n' => Action::SetNull,
        'd' => Action::SetDefault,
        'r' => Action::Restrict,
        _ => Action::NoAction,
    }
}

#[derive(Deserialize)]
struct RawSequence {
    name: (String, String),
    table: Option<u32>,
    column: Option<String>,
    increment: i64,
    start: i64,
    minimum: i64,
    maximum: i64,
    last_value: Option<i64>,
    cycles: bool,
}

/// A column uses a sequence that it owns (serial, identity), and one that its default names.
pub(super) const SEQUENCES: &str = "\
    WITH users(seq, rel, num) AS (\
        SELECT d.objid, d.refobjid, d.refobjsubid FROM pg_depend AS d \
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') \
        AND d.refobjsubid > 0 \
        UNION SELECT d.refobjid, f.adrelid, f.adnum FROM pg_depend AS d JOIN pg_attrdef AS f ON f.oid = d.objid \
        WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass\
    ) \
    SELECT json_build_object('name', json_build_array(n.nspname, c.relname), 'table', u.rel::bigint, \
        'column', a.attname, 'increment', s.seqincrement, 'start', s.seqstart, 'minimum', s.seqmin, \
        'maximum', s.seqmax, 'cycles', s.seqcycle, \
        'last_value', CASE WHEN has_sequence_privilege(c.oid, 'USAGE, SELECT') \
            THEN pg_sequence_last_value(c.oid) END) AS sequence \
    FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace \
    LEFT JOIN users AS u ON u.seq = c.oid LEFT JOIN pg_attribute AS a ON a.attrelid = u.rel AND a.attnum = u.num \
    WHERE c.relpersistence <> 't' AND n.nspname <> 'regionwise'";

pub(super) fn sequences(
    answer: &[Row],
    names: &BTreeMap<u32, TableName>,
) -> Result<Vec<Sequence>, SurveyError> {
    let raw: Vec<RawSequence> = facts(answer, "sequence")?;
    let mut sequences: Vec<Sequence> = raw
        .into_iter()
        .map(|raw| {
            let (schema, name) = raw.name;
            let table = raw.table.and_then(|oid| names.get(&oid)).cloned();
            Sequence {
                name: TableName::new(schema, name),
                used_by: table.zip(raw.column),
                increment: raw.increment,
                start: raw.start,
                minimum: raw.minimum,
                maximum: raw.maximum,
                last_value: raw.last_value,
                cycles: raw.cycles,
            }
        })
        .collect();
    sequences.sort_by(|a, b| (&a.name, &a.used_by).cmp(&(&b.name, &b.used_by)));
    Ok(sequences)
}
