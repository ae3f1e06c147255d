//! Rows that a way back left at the source: of users whom it has begun to bring home, or who were given up on the way, and
//! who are still at home at the target. Nobody has proven these rows, so they stay, and their users are named.

use std::collections::HashSet;

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::closure::Closure;
use regionwise_relocation::sql::purge::any_row;

use crate::change::routes;

/// Users looked at together.
const PAGE: i64 = 500;

const WHY: &str = "a revert has begun to bring the user home and has not finished it, so these rows are not proven: \
                   migrate-eu-users revert --plan HASH goes on, and run moves the user again after it";

/// These users and why they keep their rows; nobody of `held`, who is asked to keep them.
pub(super) async fn left(
    source: &Direct,
    target: &Direct,
    closure: &Closure,
    held: &HashSet<String>,
) -> Result<Vec<(String, String)>, Error> {
    let sql = "SELECT usr FROM regionwise.route WHERE state IN ('staging', 'cancelled') \
               AND usr > $1 ORDER BY usr LIMIT $2";
    let mut last = String::new();
    let mut found = Vec::new();
    loop {
        let rows = source.query(sql, &[&last, &PAGE]).await?;
        let users: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let Some(end) = users.last().cloned() else {
            return Ok(found);
        };
        last = end;
        let there = routes(target, &users).await?;
        for user in users {
            let lives_there = there.get(&user).is_some_and(|route| route.state.owns());
            if lives_there
                && !held.contains(&user)
                && !source.ask(&any_row(closure, &user)).await?.is_empty()
            {
                found.push((user, WHY.to_owned()));
            }
        }
    }
}
