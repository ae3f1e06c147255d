//! Statements around a purge: what the roles need for it, and what is left of rows that nobody owns.

use super::name::{identifier, list, table};
use super::owner::{NOBODY, owner};
use super::select;
use super::{MOVE_ROLE, VERIFY_ROLE};
use crate::closure::rules::OtherUser;
use crate::closure::{Closure, Discovered};

/// What the roles need in tables that stay: to see who refers, and to let go where the rule says so.
pub fn grants(found: &Discovered) -> String {
    let each = found.left_behind.iter().map(|left| {
        let (schema, name) = (identifier(&left.table.schema), table(&left.table));
        let columns = list(left.reference.columns.iter().map(String::as_str));
        let update = match left.then {
            OtherUser::SetNull => format!("GRANT UPDATE ({columns}) ON {name} TO {MOVE_ROLE};\n"),
            OtherUser::Refuse => String::new(),
        };
        format!(
            "GRANT USAGE ON SCHEMA {schema} TO {MOVE_ROLE}, {VERIFY_ROLE};\n\
             GRANT SELECT ON {name} TO {MOVE_ROLE}, {VERIFY_ROLE};\n{update}"
        )
    });
    each.collect()
}

/// Whether a user has a row in this database, in whatever table: one line or none. The user's own row is looked for first.
pub fn any_row(closure: &Closure, user: &str) -> String {
    let each: Vec<String> = (0..closure.tables.len())
        .map(|number| select::rows(closure, number, &[user], |_| "1".to_owned()))
        .collect();
    format!(
        "SELECT FROM ({}) AS found LIMIT 1",
        each.join(" UNION ALL ")
    )
}

/// Rows of a table whose user is not at home in this database and is not on the way: `state text, rows bigint`. `none`
/// is a user without a route, `lost` a reference that leads nowhere.
pub fn strangers(closure: &Closure, number: usize) -> String {
    format!(
        "SELECT CASE WHEN c.usr IS NULL THEN 'lost' ELSE coalesce(r.state, 'none') END AS state, count(*) AS rows \
         FROM (SELECT {} AS usr FROM {} t) AS c LEFT JOIN regionwise.route r ON r.usr = c.usr \
         WHERE c.usr IS NULL OR (c.usr <> {NOBODY} AND (r.usr IS NULL OR r.state IN ('staging', 'cancelled', 'purged'))) \
         GROUP BY 1 ORDER BY 1",
        owner(closure, number, "t"),
        table(&closure.tables[number].table.name)
    )
}

/// Rows of frozen users in each table, found both ways in one snapshot: `tab int, climbed bigint, found bigint`. Down
/// from the users as the mover copies, and up from every row as the fence looks it up.
pub fn selections(closure: &Closure) -> String {
    let chosen = format!(
        "{}::text IN (SELECT f.usr FROM regionwise.route f WHERE f.state = 'moved')",
        identifier(&closure.user_key().name)
    );
    let climbed: Vec<String> = (0..closure.tables.len())
        .map(|number| {
            format!(
                "SELECT {number} AS tab, count(*) AS rows FROM (SELECT {} AS usr FROM {} t) AS c \
                 JOIN regionwise.route r ON r.usr = c.usr AND r.state = 'moved'",
                owner(closure, number, "t"),
                table(&closure.tables[number].table.name)
            )
        })
        .collect();
    format!(
        "SELECT up.tab::int4 AS tab, up.rows AS climbed, down.rows AS found FROM ({}) AS up JOIN ({}) AS down ON down.tab = up.tab ORDER BY 1",
        climbed.join(" UNION ALL "),
        super::count::rows(closure, &chosen)
    )
}
