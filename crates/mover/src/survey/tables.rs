//! Tables with their columns, indexes and triggers.

use std::collections::BTreeMap;

use regionwise_postgres::Row;
use regionwise_relocation::catalog::{
    Column, Identity, Index, LateKey, Persistence, Table, TableKind, TableName, Trigger, Type,
};
use serde::Deserialize;

use super::kinds::OURS;
use super::{SurveyError, facts};

/// A table before its details are known.
#[derive(Deserialize)]
pub(super) struct Listed {
    oid: u32,
    schema: String,
    name: String,
    kind: String,
    persistence: String,
    row_security: bool,
    forced: bool,
    rows: f64,
    partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct Partition {
    oid: u32,
    schema: String,
    name: String,
}

impl Listed {
    /// The table and its partitions, by OID.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, TableName)> {
        let itself = (self.oid, TableName::new(&self.schema, &self.name));
        let partitions = self.partitions.iter();
        [itself]
            .into_iter()
            .chain(partitions.map(|part| (part.oid, TableName::new(&part.schema, &part.name))))
    }
}

pub(super) fn listed(answer: &[Row]) -> Result<Vec<Listed>, SurveyError> {
    facts(answer, "listed")
}

pub(super) fn list_sql(version: u32) -> String {
    // A partition that is being detached still holds rows of the table.
    format!(
        "WITH RECURSIVE below(root, oid) AS (\
            SELECT c.oid, i.inhrelid FROM pg_class AS c JOIN pg_inherits AS i ON i.inhparent = c.oid \
            WHERE c.relkind = 'p' AND NOT c.relispartition \
            UNION ALL SELECT b.root, i.inhrelid FROM below AS b JOIN pg_inherits AS i ON i.inhparent = b.oid\
        ), parts AS (\
            SELECT b.root, json_agg(json_build_object('oid', p.oid::bigint, 'schema', pn.nspname, 'name', p.relname) \
                ORDER BY pn.nspname, p.relname) AS list, \
                sum(greatest(p.reltuples, 0)) FILTER (WHERE p.relkind <> 'p') AS rows, \
                bool_and({}) FILTER (WHERE p.relkind <> 'p') AS unknown \
            FROM below AS b JOIN pg_class AS p ON p.oid = b.oid JOIN pg_namespace AS pn ON pn.oid = p.relnamespace \
            GROUP BY b.root\
        ) \
        SELECT json_build_object('oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, \
            'kind', c.relkind, 'persistence', c.relpersistence, \
            'row_security', c.relrowsecurity, 'forced', c.relforcerowsecurity, \
            'rows', CASE WHEN c.relkind <> 'p' THEN CASE WHEN {} THEN -1 ELSE c.reltuples END \
                WHEN parts.unknown THEN -1 ELSE coalesce(parts.rows, 0) END, \
            'partitions', coalesce(parts.list, '[]')) AS listed \
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN parts ON parts.root = c.oid \
        WHERE {OURS} AND NOT c.relispartition ORDER BY n.nspname, c.relname",
        never_analysed("p", version),
        never_analysed("c", version),
    )
}

/// Since 14 it is -1; before, it cannot be told from an empty table.
fn never_analysed(table: &str, version: u32) -> String {
    match version {
        140_000.. => format!("{table}.reltuples < 0"),
        _ => format!("({table}.reltuples = 0 AND {table}.relpages = 0)"),
    }
}

/// What a statement about many tables answers for one of them.
#[derive(Deserialize)]
struct Details {
    oid: u32,
    bytes: u64,
    inherits: bool,
    columns: Vec<RawColumn>,
    primary_key: Vec<String>,
    indexes: Vec<RawIndex>,
    triggers: Vec<RawTrigger>,
    rewrites: Vec<String>,
    late_keys: Vec<RawLateKey>,
    filtered: Vec<String>,
    subscriptions: Vec<String>,
}

#[derive(Deserialize)]
struct RawColumn {
    name: String,
    kind: u32,
    /// With its modifiers, where it has some.
    kind_name: String,
    not_null: bool,
    generated: bool,
    identity: String,
    default: Option<String>,
    collation: Option<String>,
}

#[derive(Deserialize)]
struct RawIndex {
    name: String,
    columns: Vec<String>,
    unique: bool,
}

#[derive(Deserialize)]
struct RawLateKey {
    schema: String,
    table: String,
    name: String,
}

#[derive(Deserialize)]
struct RawTrigger {
    name: String,
    before: bool,
    per_row: bool,
    enabled: char,
    function: String,
}

/// Adds the tables of a portion, as `answer` describes them.
pub(super) fn add(
    portion: &[Listed],
    answer: &[Row],
    kinds: &BTreeMap<u32, Type>,
    found: &mut Vec<Table>,
) -> Result<(), SurveyError> {
    let details: Vec<Details> = facts(answer, "details")?;
    let mut by_oid: BTreeMap<u32, Details> = details
        .into_iter()
        .map(|details| (details.oid, details))
        .collect();
    for listed in portion {
        // The one snapshot has them all.
        let Some(details) = by_oid.remove(&listed.oid) else {
            continue;
        };
        found.push(table(listed, details, kinds));
    }
    Ok(())
}

pub(super) fn details_sql(portion: &[Listed], version: u32) -> String {
    // Each table with itself and with each of its partitions.
    let mut members = Vec::new();
    for table in portion {
        members.extend(table.all().map(|(oid, _)| format!("({},{oid})", table.oid)));
    }
    let members = members.join(",");
    let filtered = match version {
        150_000.. => {
            "(SELECT coalesce(json_agg(DISTINCT p.pubname), '[]') FROM members AS m \
             JOIN pg_publication_rel AS r ON r.prrelid = m.oid AND r.prqual IS NOT NULL \
             JOIN pg_publication AS p ON p.oid = r.prpubid WHERE m.root = c.oid)"
        }
        // Row filters came with 15.
        _ => "'[]'::json",
    };
    // An index that leaves out nothing but NULL in its first column serves a look-up as a full one does.
    format!(
        "WITH members(root, oid) AS (SELECT v.root::oid, v.oid::oid FROM (VALUES {members}) AS v(root, oid)), \
        roots AS (SELECT DISTINCT root FROM members), \
        sizes AS (SELECT root, sum(pg_total_relation_size(oid)) AS bytes FROM members GROUP BY root), \
        columns AS (\
            SELECT a.attrelid, json_agg(json_build_object('name', a.attname, 'kind', a.atttypid::bigint, \
                'kind_name', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull, \
                'generated', a.attgenerated <> '', 'identity', a.attidentity, \
                'default', pg_get_expr(d.adbin, d.adrelid), \
                'collation', CASE WHEN a.attcollation <> t.typcollation THEN \
                    (SELECT format('%I.%I', n.nspname, l.collname) FROM pg_collation AS l \
                     JOIN pg_namespace AS n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) END\
                ) ORDER BY a.attnum) AS list \
            FROM roots JOIN pg_attribute AS a ON a.attrelid = roots.root JOIN pg_type AS t ON t.oid = a.atttypid \
            LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
            WHERE a.attnum > 0 AND NOT a.attisdropped GROUP BY a.attrelid\
        ), \
        heads AS (\
            SELECT x.indrelid, x.indexrelid, x.indisunique, x.indisprimary, x.indnkeyatts, x.indimmediate, \
                array_agg(a.attname ORDER BY k.at) FILTER (WHERE k.at < coalesce(cut.at, 1000)) AS names \
            FROM roots JOIN pg_index AS x ON x.indrelid = roots.root AND x.indisvalid \
            JOIN pg_class AS xc ON xc.oid = x.indexrelid JOIN pg_am AS m ON m.oid = xc.relam AND m.amname = 'btree' \
            CROSS JOIN LATERAL generate_series(0, x.indnkeyatts - 1) AS k(at) \
            LEFT JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[k.at] AND a.attnum <> 0 \
            LEFT JOIN LATERAL (SELECT min(e.at) AS at FROM generate_series(0, x.indnkeyatts - 1) AS e(at) \
                WHERE x.indkey[e.at] = 0) AS cut ON true \
            WHERE x.indpred IS NULL OR pg_get_expr(x.indpred, x.indrelid) = format('(%I IS NOT NULL)', \
                (SELECT f.attname FROM pg_attribute AS f WHERE f.attrelid = x.indrelid AND f.attnum = x.indkey[0])) \
            GROUP BY x.indrelid, x.indexrelid, x.indisunique, x.indisprimary, x.indnkeyatts, x.indimmediate\
        ), \
        indexes AS (\
            SELECT l.indrelid, json_agg(json_build_object('name', xc.relname, 'columns', l.names, \
                'unique', l.indisunique AND l.indimmediate AND cardinality(l.names) = l.indnkeyatts) \
                ORDER BY xc.relname) AS list, \
                (array_agg(to_json(l.names)) FILTER (WHERE l.indisprimary))[1] AS primary_key \
            FROM heads AS l JOIN pg_class AS xc ON xc.oid = l.indexrelid WHERE l.names IS NOT NULL GROUP BY l.indrelid\
        ), \
        triggers AS (\
            SELECT m.root, json_agg(json_build_object('name', g.tgname, 'before', g.tgtype & 2 <> 0, \
                'per_row', g.tgtype & 1 <> 0, 'enabled', g.tgenabled, \
                'function', format('%I.%I', n.nspname, p.proname)) ORDER BY g.tgname, m.oid) AS list \
            FROM members AS m JOIN pg_trigger AS g ON g.tgrelid = m.oid AND NOT g.tgisinternal AND g.tgparentid = 0 \
            JOIN pg_proc AS p ON p.oid = g.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace GROUP BY m.root\
        ), \
        late_keys AS (\
            SELECT m.root, json_agg(json_build_object('schema', n.nspname, 'table', r.relname, 'name', k.conname) \
                ORDER BY n.nspname, r.relname, k.conname) AS list \
            FROM members AS m JOIN pg_constraint AS k ON k.conrelid = m.oid AND k.contype IN ('p', 'u', 'x') \
                AND k.condeferrable AND k.conparentid = 0 \
            JOIN pg_class AS r ON r.oid = m.oid JOIN pg_namespace AS n ON n.oid = r.relnamespace GROUP BY m.root\
        ) \
        SELECT json_build_object('oid', c.oid::bigint, 'bytes', coalesce(sizes.bytes, 0), \
            'inherits', c.relkind <> 'p' AND EXISTS (SELECT FROM pg_inherits AS i \
                WHERE i.inhparent = c.oid OR i.inhrelid = c.oid), \
            'columns', coalesce(columns.list, '[]'), \
            'primary_key', coalesce(indexes.primary_key, '[]'), 'indexes', coalesce(indexes.list, '[]'), \
            'triggers', coalesce(triggers.list, '[]'), \
            'rewrites', (SELECT coalesce(json_agg(DISTINCT w.rulename), '[]') FROM members AS m \
                JOIN pg_rewrite AS w ON w.ev_class = m.oid WHERE m.root = c.oid), \
            'late_keys', coalesce(late_keys.list, '[]'), 'filtered', {filtered}, \
            'subscriptions', (SELECT coalesce(json_agg(DISTINCT s.subname), '[]') FROM members AS m \
                JOIN pg_subscription_rel AS r ON r.srrelid = m.oid JOIN pg_subscription AS s ON s.oid = r.srsubid \
                WHERE m.root = c.oid)) AS details \
        FROM roots JOIN pg_class AS c ON c.oid = roots.root LEFT JOIN sizes ON sizes.root = c.oid \
        LEFT JOIN columns ON columns.attrelid = c.oid LEFT JOIN indexes ON indexes.indrelid = c.oid \
        LEFT JOIN triggers ON triggers.root = c.oid \
        LEFT JOIN late_keys ON late_keys.root = c.oid"
    )
}

fn table(listed: &Listed, details: Details, kinds: &BTreeMap<u32, Type>) -> Table {
    let columns = details.columns.into_iter();
    Table {
        name: TableName::new(&listed.schema, &listed.name),
        kind: match listed.kind.as_str() {
            "p" => TableKind::Partitioned,
            "f" => TableKind::Foreign,
            _ => TableKind::Ordinary,
        },
        columns: columns.map(|raw| column(raw, kinds)).collect(),
        primary_key: details.primary_key,
        indexes: details
            .indexes
            .into_iter()
            .map(|raw| Index {
                name: raw.name,
                columns: raw.columns,
                unique: raw.unique,
            })
            .collect(),
        partitions: listed.all().skip(1).map(|(_, name)| name).collect(),
        triggers: details
            .triggers
            .into_iter()
            .map(|raw| Trigger {
                name: raw.name,
                before: raw.before,
                per_row: raw.per_row,
                enabled: raw.enabled,
                function: raw.function,
            })
            .collect(),
        row_security: listed.row_security,
        forced_row_security: listed.forced,
        estimated_rows: listed.rows as i64,
        bytes: details.bytes,
        filtered_publications: details.filtered,
        subscriptions: details.subscriptions,
        inherits: details.inherits,
        rewrites: details.rewrites,
        late_keys: details
            .late_keys
            .into_iter()
            .map(|raw| LateKey {
                on: TableName::new(raw.schema, raw.table),
                name: raw.name,
            })
            .collect(),
        persistence: match listed.persistence.as_str() {
            "u" => Persistence::Unlogged,
            _ => Persistence::Permanent,
        },
    }
}

fn column(raw: RawColumn, kinds: &BTreeMap<u32, Type>) -> Column {
    let (generated, default) = match raw.generated {
        true => (raw.default, None),
        false => (None, raw.default),
    };
    let kind = match kinds.get(&raw.kind) {
        Some(kind) => Type {
            name: raw.kind_name,
            ..kind.clone()
        },
        // Not among those of the same snapshot: nothing is known of it, and so it must not move.
        None => Type {
            name: raw.kind_name,
            send: None,
            carries_oids: false,
            local: true,
            equals: None,
        },
    };
    Column {
        name: raw.name,
        kind,
        not_null: raw.not_null,
        generated,
        identity: match raw.identity.as_str() {
            "a" => Some(Identity::Always),
            "d" => Some(Identity::ByDefault),
            _ => None,
        },
        default,
        collation: raw.collation,
    }
}
