//! Reads what one database says about its tables and about itself: the facts of `relocation::closure`.
//!
//! Everything comes from system catalogs, under one READ ONLY REPEATABLE READ snapshot, and locks nothing but the
//! catalogs. Details of tables come in portions, so that a schema with very many of them is held once, as facts, and
//! not a second time as an answer. Changes nothing, decides nothing.

mod keys;
mod kinds;
mod rules;
mod server;
mod tables;

use std::collections::BTreeMap;

use regionwise_postgres::{Error, Row, Session};
use regionwise_relocation::catalog::{Catalog, TableName};
use serde::de::DeserializeOwned;

pub use rules::rules;
pub use server::server;

/// A catalog that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    #[error(transparent)]
    Postgres(#[from] Error),
    /// An answer that is not what the statement asks for: a bug here, or a server that is not Postgres.
    #[error("unexpected answer about `{about}`")]
    Unexpected {
        about: &'static str,
        source: serde_json::Error,
    },
}

/// Tables whose details come in one answer. A thousand wide tables are a few megabytes of text.
const PORTION: usize = 1_000;

/// Reads the catalog of the session's database: one round trip, and one for each portion of tables.
///
/// # Errors
/// By kind. The session may then be inside of an aborted transaction, and must be dropped.
pub async fn catalog(session: &mut Session) -> Result<Catalog, SurveyError> {
    // A pooler would refuse or mix up a transaction over several answers. It is no end of a migration; what is read
    // through it only explains why.
    let (begin, commit) = match session.is_pooled() {
        false => (
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;",
            "COMMIT",
        ),
        true => ("", ""),
    };
    let version = session.version();
    let everything = format!(
        "{begin} {}; {}; {}; {}",
        tables::list_sql(version),
        kinds::sql(version),
        keys::KEYS,
        keys::SEQUENCES,
    );
    let answer = session.rows(&everything).await?;
    let listed = tables::listed(&answer)?;
    let kinds = kinds::kinds(&answer)?;
    let names: BTreeMap<u32, TableName> = listed.iter().flat_map(tables::Listed::all).collect();
    let foreign_keys = keys::foreign_keys(&answer, &names)?;
    let sequences = keys::sequences(&answer, &names)?;
    drop(answer);

    let mut found = Vec::with_capacity(listed.len());
    for portion in listed.chunks(PORTION) {
        let answer = session.rows(&tables::details_sql(portion, version)).await?;
        tables::add(portion, &answer, &kinds, &mut found)?;
    }
    if !commit.is_empty() {
        session.rows(commit).await?;
    }
    // By name as Rust compares it, whatever the database's collation.
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Catalog {
        tables: found,
        foreign_keys,
        sequences,
    })
}

/// The JSON objects in the column `about`, one for each row that has it: an answer may hold rows of several statements.
fn facts<T: DeserializeOwned>(rows: &[Row], about: &'static str) -> Result<Vec<T>, SurveyError> {
    let texts = rows.iter().filter_map(|row| row.text(about));
    texts
        .map(|text| {
            serde_json::from_str(text).map_err(|source| SurveyError::Unexpected { about, source })
        })
        .collect()
}
