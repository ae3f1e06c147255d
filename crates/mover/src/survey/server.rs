//! What a server says about itself.

use regionwise_postgres::Session;
use regionwise_relocation::catalog::{Prepared, Server, TableName};
use serde::Deserialize;

use super::{SurveyError, facts};

/// Reads the facts that decide whether a server can be an end of a migration.
///
/// # Errors
/// By kind.
pub async fn server(session: &mut Session) -> Result<Server, SurveyError> {
    let sql = format!(
        "SELECT pg_is_in_recovery() AS in_recovery, \
         (SELECT system_identifier FROM pg_control_system()) AS system_identifier, \
         current_database() AS database, current_user AS role, \
         CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END AS wal_file, \
         pg_encoding_to_char((SELECT encoding FROM pg_database WHERE datname = current_database())) AS encoding, \
         (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) AS bypasses, \
         current_setting('synchronous_standby_names') AS synchronous, \
         (SELECT count(*) FROM pg_stat_replication WHERE application_name <> 'pg_basebackup') AS standbys, \
         current_setting('max_locks_per_transaction')::bigint * (current_setting('max_connections')::bigint \
         + current_setting('max_prepared_transactions')::bigint) AS lock_slots, \
         (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM ({}) AS changed(name)) AS collations",
        changed_collations(session.version()),
    );
    let row = session.row(&sql).await?;
    let prepared: Vec<RawPrepared> = facts(&session.rows(PREPARED).await?, "prepared")?;
    let collations: Vec<Vec<String>> = facts(std::slice::from_ref(&row), "collations")?;
    Ok(Server {
        system_identifier: row.parse("system_identifier")?,
        database: row.parse("database")?,
        in_recovery: row.flag("in_recovery")?,
        timeline: row.text("wal_file").and_then(timeline),
        version: session.version(),
        encoding: row.parse("encoding")?,
        changed_collations: collations.into_iter().flatten().collect(),
        lock_slots: row.parse("lock_slots")?,
        prepared: prepared.into_iter().map(RawPrepared::known).collect(),
        pooled: session.is_pooled(),
        role: row.parse("role")?,
        bypasses_row_security: row.flag("bypasses")?,
        synchronous: row.parse("synchronous")?,
        standbys: row.parse("standbys")?,
    })
}

/// Collations of the database, and since 15 its default, whose library has another version now. The built-in ones of
/// libc count only where something uses them; whether it does, nobody can say cheaply.
fn changed_collations(version: u32) -> &'static str {
    match version {
        150_000.. => {
            "SELECT format('%I', collname) FROM pg_collation \
             WHERE collversion <> pg_collation_actual_version(oid) \
             UNION ALL SELECT 'the default collation' FROM pg_database WHERE datname = current_database() \
             AND datcollversion <> pg_database_collation_actual_version(oid)"
        }
        _ => {
            "SELECT format('%I', collname) FROM pg_collation \
             WHERE collversion <> pg_collation_actual_version(oid)"
        }
    }
}

/// What a prepared transaction has locked stands in pg_locks under a virtual transaction of its own.
const PREPARED: &str = "\
    SELECT json_build_object('gid', p.gid, 'tables', coalesce((\
        SELECT json_agg(DISTINCT jsonb_build_array(n.nspname, c.relname)) FROM pg_locks AS own \
        JOIN pg_locks AS held ON held.virtualtransaction = own.virtualtransaction AND held.pid IS NULL \
        AND held.locktype = 'relation' \
        JOIN pg_class AS c ON c.oid = held.relation JOIN pg_namespace AS n ON n.oid = c.relnamespace \
        WHERE own.locktype = 'transactionid' AND own.pid IS NULL AND own.transactionid = p.transaction \
        AND c.relkind IN ('r', 'p')), '[]')) AS prepared \
    FROM pg_prepared_xacts AS p WHERE p.database = current_database() ORDER BY p.gid";

#[derive(Deserialize)]
struct RawPrepared {
    gid: String,
    tables: Vec<(String, String)>,
}

impl RawPrepared {
    fn known(self) -> Prepared {
        let tables = self.tables.into_iter();
        Prepared {
            gid: self.gid,
            tables: tables
                .map(|(schema, name)| TableName::new(schema, name))
                .collect(),
        }
    }
}

/// The name of the current WAL file tells it sooner than the control file does.
fn timeline(wal_file: &str) -> Option<u32> {
    u32::from_str_radix(wal_file.get(..8)?, 16).ok()
}
