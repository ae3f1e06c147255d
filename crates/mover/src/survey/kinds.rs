//! Types of columns, walked down to what they are made of: a domain over an array of a composite type with an oid in it
//! is all of that.

use std::collections::BTreeMap;

use regionwise_postgres::Row;
use regionwise_relocation::catalog::Type;
use serde::Deserialize;

use super::{SurveyError, facts};

/// By `pg_type.oid`. The names are without modifiers, which belong to a column.
pub(super) fn kinds(answer: &[Row]) -> Result<BTreeMap<u32, Type>, SurveyError> {
    let raw: Vec<RawKind> = facts(answer, "kind")?;
    Ok(raw
        .into_iter()
        .map(|raw| {
            let kind = Type {
                name: raw.name,
                send: raw.send,
                carries_oids: raw.carries_oids,
                local: raw.local,
                equals: raw.equals,
            };
            (raw.oid, kind)
        })
        .collect())
}

#[derive(Deserialize)]
struct RawKind {
    oid: u32,
    name: String,
    send: Option<String>,
    carries_oids: bool,
    local: bool,
    equals: Option<String>,
}

/// OIDs below are the same in every database of a major version (`FirstUnpinnedObjectId`).
const FIRST_OWN_OID: u32 = 12_000;

/// Values that are numbers of this very database: rows of catalogs, places in the WAL, transactions, tuples.
const LOCAL: &str = "'oid', 'regclass', 'regcollation', 'regconfig', 'regdictionary', 'regnamespace', 'regoper', \
    'regoperator', 'regproc', 'regprocedure', 'regrole', 'regtype', 'xid', 'xid8', 'cid', 'tid', 'pg_lsn', \
    'pg_snapshot', 'txid_snapshot', 'refcursor', 'aclitem'";

pub(super) fn sql(version: u32) -> String {
    let multirange = match version {
        140_000.. => {
            "UNION ALL SELECT r.rngtypid FROM pg_range AS r WHERE t.typtype = 'm' AND r.rngmultitypid = t.oid"
        }
        _ => "",
    };
    // The equality of a domain is that of its base type; an enum, array, composite or range has that of its kind.
    format!(
        "WITH RECURSIVE used(root) AS (\
            SELECT DISTINCT a.atttypid FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid \
            JOIN pg_namespace AS n ON n.oid = c.relnamespace \
            WHERE {OURS} AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped\
        ), walk(root, oid) AS (\
            SELECT root, root FROM used \
            UNION SELECT w.root, part.oid FROM walk AS w JOIN pg_type AS t ON t.oid = w.oid CROSS JOIN LATERAL (\
                SELECT t.typbasetype WHERE t.typtype = 'd' \
                UNION ALL SELECT t.typelem WHERE t.typcategory = 'A' AND t.typelem <> 0 \
                UNION ALL SELECT a.atttypid FROM pg_attribute AS a \
                    WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped \
                UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.typtype = 'r' AND r.rngtypid = t.oid \
                {multirange}\
            ) AS part(oid)\
        ), base(root, oid) AS (\
            SELECT root, root FROM used \
            UNION ALL SELECT b.root, t.typbasetype FROM base AS b JOIN pg_type AS t ON t.oid = b.oid \
            WHERE t.typtype = 'd'\
        ), summed AS (\
            SELECT w.root, \
                bool_or(t.typtype = 'c' OR (t.typcategory = 'A' AND t.typelem >= {FIRST_OWN_OID})) AS carries_oids, \
                bool_or(t.typname IN ({LOCAL}) AND t.typnamespace = 'pg_catalog'::regnamespace) AS local \
            FROM walk AS w JOIN pg_type AS t ON t.oid = w.oid GROUP BY w.root\
        ), based AS (\
            SELECT b.root, t.oid, t.typtype, t.typcategory, t.typelem FROM base AS b JOIN pg_type AS t ON t.oid = b.oid \
            WHERE t.typtype <> 'd'\
        ) \
        SELECT json_build_object('oid', t.oid::bigint, 'name', format_type(t.oid, NULL), \
            'send', (SELECT format('%I.%I', n.nspname, p.proname) FROM pg_proc AS p \
                JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE p.oid = t.typsend), \
            'carries_oids', s.carries_oids, 'local', s.local, \
            'equals', (SELECT format('%I.%s', n.nspname, o.oprname) FROM pg_opclass AS k \
                JOIN pg_am AS m ON m.oid = k.opcmethod AND m.amname = 'btree' \
                JOIN pg_amop AS e ON e.amopfamily = k.opcfamily AND e.amopstrategy = 3 \
                    AND e.amoplefttype = k.opcintype AND e.amoprighttype = k.opcintype \
                JOIN pg_operator AS o ON o.oid = e.amopopr JOIN pg_namespace AS n ON n.oid = o.oprnamespace \
                WHERE k.opcdefault AND k.opcintype IN (b.oid, CASE \
                    WHEN b.typtype = 'e' THEN 'anyenum'::regtype WHEN b.typtype = 'c' THEN 'record'::regtype \
                    WHEN b.typtype = 'r' THEN 'anyrange'::regtype \
                    WHEN b.typcategory = 'A' AND b.typelem <> 0 THEN 'anyarray'::regtype \
                    WHEN b.oid = 'varchar'::regtype THEN 'text'::regtype END) \
                ORDER BY k.opcintype = b.oid DESC LIMIT 1)) AS kind \
        FROM summed AS s JOIN pg_type AS t ON t.oid = s.root LEFT JOIN based AS b ON b.root = s.root"
    )
}

/// Tables that an application made: not the system's, not ours, not temporary, not a part of an extension.
pub(super) const OURS: &str = "c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'regionwise') AND n.nspname !~ '^pg_(toast|temp)' \
    AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
    AND d.objsubid = 0 AND d.deptype = 'e')";
