//! What equal digests cannot show: that the way down to a user's rows finds all of them, and rows that nobody owns.

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::closure::Closure;
use regionwise_relocation::sql::purge;
use serde::Serialize;

use crate::layout::Layout;

/// Rows of one table that belong to users whom the source has given away, counted in two ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Selection {
    pub table: String,
    /// Of all rows of the table those that climb to such a user, as the fence climbs.
    pub climbed: i64,
    /// Found from the users downwards, as the mover copies.
    pub found: i64,
}

impl Selection {
    pub fn agrees(&self) -> bool {
        self.climbed == self.found
    }
}

/// Rows in a cluster that does not own their user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Strangers {
    pub cluster: String,
    pub table: String,
    /// The user's state there; `none` without a route, `lost` when the row leads to no user.
    pub state: String,
    pub rows: i64,
}

pub(super) async fn selections(
    source: &Direct,
    closure: &Closure,
    layouts: &[Layout],
) -> Result<Vec<Selection>, Error> {
    let rows = source.ask(&purge::selections(closure)).await?;
    if rows.len() != layouts.len() {
        return Err(source.unexpected(format!("counts of {} tables", rows.len())));
    }
    Ok(rows
        .iter()
        .zip(layouts)
        .map(|(row, layout)| Selection {
            table: layout.table.clone(),
            climbed: row.get(1),
            found: row.get(2),
        })
        .collect())
}

pub(super) async fn strangers(
    session: &Direct,
    cluster: &str,
    closure: &Closure,
    layouts: &[Layout],
) -> Result<Vec<Strangers>, Error> {
    let mut found = Vec::new();
    for (number, layout) in layouts.iter().enumerate() {
        let rows = session.ask(&purge::strangers(closure, number)).await?;
        found.extend(rows.iter().map(|row| Strangers {
            cluster: cluster.to_owned(),
            table: layout.table.clone(),
            state: row.get(0),
            rows: row.get(1),
        }));
    }
    Ok(found)
}
