//! P12: where the bytes of deleted rows still are. A delete only marks them; what removes them is named with each place.

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::closure::Closure;
use regionwise_relocation::sql::name::{literal, table};
use serde::Serialize;

/// What is left at the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub tables: Vec<TableEvidence>,
    /// Everything deleted is in WAL before this position, and so in every archive and backup that has it.
    pub wal_until: String,
    /// What this server would replay after a crash begins here: older segments are recycled soon after.
    pub wal_kept_from: String,
    /// Who keeps older WAL.
    pub slots: Vec<Slot>,
    /// Connected standbys, and whether they have replayed the last delete; `None` when they do not say.
    pub standbys: Vec<(String, Option<bool>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableEvidence {
    pub table: String,
    /// Row versions that VACUUM has not removed, partitions and TOAST included; as the server estimates it.
    pub dead: i64,
    /// Whether every part of it was vacuumed after the last purge; `None` when nothing was purged yet.
    pub vacuumed: Option<bool>,
    /// Whether the planner's statistics, which hold values of rows, were made after the last purge.
    pub analyzed: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    pub name: String,
    pub active: bool,
    /// `None`: it keeps none.
    pub kept_from: Option<String>,
}

pub(super) async fn gather(source: &Direct, closure: &Closure) -> Result<Evidence, Error> {
    let sql = "SELECT pg_current_wal_insert_lsn()::text, (SELECT redo_lsn::text FROM pg_control_checkpoint())";
    let rows = source.query(sql, &[]).await?;
    let row = rows
        .first()
        .ok_or_else(|| source.unexpected("no position"))?;
    let mut evidence = Evidence {
        tables: tables(source, closure).await?,
        wal_until: row.get(0),
        wal_kept_from: row.get(1),
        ..Evidence::default()
    };
    let sql =
        "SELECT slot_name::text, active, restart_lsn::text FROM pg_replication_slots ORDER BY 1";
    for row in source.query(sql, &[]).await? {
        evidence.slots.push(Slot {
            name: row.get(0),
            active: row.get(1),
            kept_from: row.get(2),
        });
    }
    let sql = "SELECT coalesce(application_name, '?'), replay_lsn >= $1::text::pg_lsn FROM pg_stat_replication ORDER BY 1";
    for row in source.query(sql, &[&evidence.wal_until]).await? {
        evidence.standbys.push((row.get(0), row.get(1)));
    }
    Ok(evidence)
}

async fn tables(source: &Direct, closure: &Closure) -> Result<Vec<TableEvidence>, Error> {
    let names: Vec<String> = closure
        .tables
        .iter()
        .enumerate()
        .map(|(number, member)| format!("({number}, {})", literal(&table(&member.table.name))))
        .collect();
    let sql = format!(
        "WITH purge AS (SELECT max(at) AS at FROM regionwise.journal WHERE step = 'purged'), \
              part AS (SELECT n.number, n.name, coalesce(p.relid, n.name::regclass)::oid AS oid \
                       FROM (VALUES {}) AS n(number, name) LEFT JOIN LATERAL pg_partition_tree(n.name::regclass) p ON p.isleaf), \
              piece AS (SELECT number, name, oid FROM part UNION ALL \
                        SELECT part.number, part.name, c.reltoastrelid FROM part JOIN pg_class c ON c.oid = part.oid WHERE c.reltoastrelid <> 0) \
         SELECT piece.name, coalesce(sum(s.n_dead_tup), 0)::int8, \
                bool_and(coalesce(greatest(s.last_vacuum, s.last_autovacuum) > purge.at, false)) \
                  FILTER (WHERE purge.at IS NOT NULL), \
                bool_and(coalesce(greatest(s.last_analyze, s.last_autoanalyze) > purge.at, false)) \
                  FILTER (WHERE purge.at IS NOT NULL AND s.schemaname <> 'pg_toast') \
         FROM piece CROSS JOIN purge LEFT JOIN pg_stat_all_tables s ON s.relid = piece.oid \
         GROUP BY piece.number, piece.name ORDER BY piece.number",
        names.join(", ")
    );
    let rows = source.ask(&sql).await?;
    Ok(rows
        .iter()
        .map(|row| TableEvidence {
            table: row.get(0),
            dead: row.get(1),
            vacuumed: row.get(2),
            analyzed: row.get(3),
        })
        .collect())
}
