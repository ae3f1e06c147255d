//! Observes both clusters for a plan. Only reads, each cluster under one snapshot for its catalog.

use regionwise_postgres::{Error, Session};
use regionwise_relocation::catalog::{Catalog, Server, TableName};
use regionwise_relocation::closure::discover;
use regionwise_relocation::closure::plan::{Counted, Counts};
use regionwise_relocation::closure::rules::Rules;
use regionwise_relocation::closure::{Closure, Discovered};
use regionwise_relocation::sql::count;

use crate::survey::{self, SurveyError};

/// What one cluster says of itself.
pub struct Seen {
    pub catalog: Catalog,
    pub server: Server,
}

/// Reads one cluster.
///
/// # Errors
/// By kind, or an answer that makes no sense.
pub async fn see(session: &mut Session) -> Result<Seen, SurveyError> {
    let server = survey::server(session).await?;
    let catalog = survey::catalog(session).await?;
    Ok(Seen { catalog, server })
}

/// Counts what would move from the source: `None` where there is no closure to count.
///
/// # Errors
/// By kind; a condition that is no SQL is among them.
pub async fn count(
    session: &mut Session,
    catalog: &Catalog,
    root: &TableName,
    rules: &Rules,
    chosen: &str,
) -> Result<Option<Counts>, Error> {
    let Ok(found) = discover(catalog, root, rules) else {
        return Ok(None);
    };
    let mut counts = Counts {
        users: Some(number(session, &count::users(&found.closure, chosen)).await?),
        ..Counts::default()
    };
    for row in session.rows(&count::rows(&found.closure, chosen)).await? {
        let table: usize = row.parse("tab")?;
        let rows: u64 = row.parse("rows")?;
        if let Some(member) = found.closure.tables.get(table) {
            let bytes = bytes(&found.closure, table, rows);
            counts
                .tables
                .insert(member.table.name.clone(), Counted { rows, bytes });
        }
    }
    exceptions(session, &found, chosen, &mut counts).await?;
    Ok(Some(counts))
}

/// Rows that rules are about.
async fn exceptions(
    session: &mut Session,
    found: &Discovered,
    chosen: &str,
    counts: &mut Counts,
) -> Result<(), Error> {
    let tables = &found.closure.tables;
    for (table, _) in &found.unowned {
        if let Some(sql) = count::unowned(&found.closure, *table) {
            let rows = number(session, &sql).await?;
            counts
                .unowned
                .insert(tables[*table].table.name.clone(), rows);
        }
    }
    for crossing in &found.crossings {
        let sql = count::crossing(&found.closure, crossing, chosen);
        let member = &tables[crossing.table];
        let key = (
            member.table.name.clone(),
            member.references[crossing.reference].columns.clone(),
        );
        let rows = number(session, &sql).await?;
        counts.crossing.insert(key, rows);
    }
    Ok(())
}

/// The table's own share, as far as it is known how many rows it has.
fn bytes(closure: &Closure, number: usize, rows: u64) -> Option<u64> {
    let table = &closure.tables[number].table;
    let all = u64::try_from(table.estimated_rows)
        .ok()
        .filter(|all| *all > 0)?;
    let share = u128::from(table.bytes) * u128::from(rows) / u128::from(all);
    u64::try_from(share).ok()
}

async fn number(session: &mut Session, sql: &str) -> Result<u64, Error> {
    session.row(sql).await?.parse("count")
}
