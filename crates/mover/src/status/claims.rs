//! Who works on what, and what nobody works on any more.

use regionwise_postgres::{Direct, Error};
use serde::Serialize;

/// So many users that are set aside are named; the rest is counted.
const NAMED: i64 = 20;

/// A batch that somebody holds.
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    pub run: String,
    pub batch: i32,
    pub holder: String,
    pub users: i32,
    /// Until somebody else may take it over; negative when they may.
    pub seconds_left: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct SetAside {
    pub users: i64,
    pub named: Vec<Aside>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Aside {
    pub run: String,
    pub user: String,
    pub reason: Option<String>,
}

pub(super) async fn claims(session: &Direct) -> Result<Vec<Claims>, Error> {
    let sql = "SELECT run, batch, holder, coalesce(users, 0), extract(epoch FROM expires - clock_timestamp())::float8 \
               FROM regionwise.batch WHERE state = 'open' AND holder IS NOT NULL AND expires IS NOT NULL ORDER BY run, batch";
    let rows = session.query(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Claims {
            run: row.get(0),
            batch: row.get(1),
            holder: row.get(2),
            users: row.get(3),
            seconds_left: row.get(4),
        })
        .collect())
}

pub(super) async fn set_aside(session: &Direct) -> Result<SetAside, Error> {
    let sql = "SELECT run, usr, reason, count(*) OVER () FROM regionwise.member WHERE state = 'quarantined' \
               ORDER BY run, usr LIMIT $1";
    let rows = session.query(sql, &[&NAMED]).await?;
    Ok(SetAside {
        users: rows.first().map_or(0, |row| row.get(3)),
        named: rows
            .iter()
            .map(|row| Aside {
                run: row.get(0),
                user: row.get(1),
                reason: row.get(2),
            })
            .collect(),
    })
}
