//! Statements around a purge: who refers to the rows that go, and what is left of rows that nobody owns.
//!
//! The mover deletes with foreign keys switched off, so nothing cascades and nothing stops it. It notes what the rows
//! that go are referred to by, deletes, and asks afterwards: whoever committed a reference until then is seen.

use super::name::{column, equal, identifier, list, table};
use super::owner::{NOBODY, owner};
use super::select;
use super::{MOVE_ROLE, VERIFY_ROLE};
use crate::catalog::TableName;
use crate::closure::rules::OtherUser;
use crate::closure::{Closure, Discovered, Owner};

/// A way in which a row can refer to a row of the closure.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The table that refers.
    pub table: TableName,
    /// Its number, when it is in the closure.
    pub number: Option<usize>,
    pub columns: Vec<String>,
    /// The table of the closure that is referred to.
    pub to: usize,
    pub referenced: Vec<String>,
    /// referenced = referring, one per column.
    operators: Vec<String>,
    /// Whether the reference may be set to NULL when its row goes: only of tables that stay.
    pub set_null: bool,
}

/// Every reference to a table of the closure: of tables that stay, of other users' rows, and towards the owner.
pub fn incoming(found: &Discovered) -> Vec<Incoming> {
    let closure = &found.closure;
    let mut all: Vec<Incoming> = found
        .left_behind
        .iter()
        .map(|left| Incoming {
            table: left.table.clone(),
            number: None,
            columns: left.reference.columns.clone(),
            to: left.to,
            referenced: left.reference.referenced_columns.clone(),
            operators: left.reference.operators.clone(),
            set_null: left.then == OtherUser::SetNull,
        })
        .collect();
    for (number, member) in closure.tables.iter().enumerate() {
        for reference in &member.references {
            if let Some(to) = closure.position(&reference.references) {
                all.push(Incoming {
                    table: member.table.name.clone(),
                    number: Some(number),
                    columns: reference.columns.clone(),
                    to,
                    referenced: reference.referenced_columns.clone(),
                    operators: reference.operators.clone(),
                    set_null: false,
                });
            }
        }
        let Owner::Through(links) = &member.owner else {
            continue;
        };
        all.extend(links.iter().map(|link| Incoming {
            table: member.table.name.clone(),
            number: Some(number),
            columns: link.columns.clone(),
            to: link.parent,
            referenced: link.parent_columns.clone(),
            operators: link.operators.clone(),
            set_null: false,
        }));
    }
    all
}

impl Incoming {
    /// Makes, once in a session, the table that takes what is referred to; a COMMIT empties it.
    pub fn prepare(&self, closure: &Closure, place: usize) -> String {
        let to = &closure.tables[self.to].table.name;
        format!(
            "CREATE TEMPORARY TABLE {} ON COMMIT DELETE ROWS AS SELECT {} FROM {} WITH NO DATA",
            noted(place),
            list(self.referenced.iter().map(String::as_str)),
            table(to)
        )
    }

    /// Before the delete.
    pub fn note(&self, closure: &Closure, place: usize, users: &[&str]) -> String {
        let values: Vec<String> = self
            .referenced
            .iter()
            .map(|name| column("t", name))
            .collect();
        let rows = select::rows(closure, self.to, users, |_| values.join(", "));
        format!("INSERT INTO {} {rows}", noted(place))
    }

    /// Rows that may live without what goes.
    pub fn let_go(&self, place: usize) -> Option<String> {
        let nulls: Vec<String> = self
            .columns
            .iter()
            .map(|name| format!("{} = NULL", identifier(name)))
            .collect();
        self.set_null.then(|| {
            format!(
                "UPDATE {} t SET {} FROM {} r WHERE {}",
                table(&self.table),
                nulls.join(", "),
                noted(place),
                self.on()
            )
        })
    }

    /// After the delete, in a statement of its own: `usr text, rows bigint`; the user of a row of a table that stays is
    /// NULL.
    pub fn still_refer(&self, closure: &Closure, place: usize) -> String {
        let user = self.number.map_or_else(
            || "NULL::text".to_owned(),
            |number| owner(closure, number, "t"),
        );
        format!(
            "SELECT {user} AS usr, count(*) AS rows FROM {} t JOIN (SELECT DISTINCT * FROM {}) r ON {} GROUP BY 1",
            table(&self.table),
            noted(place),
            self.on()
        )
    }

    fn on(&self) -> String {
        equal("r", &self.referenced, &self.operators, "t", &self.columns)
    }
}

fn noted(place: usize) -> String {
    format!("pg_temp.regionwise_noted_{place}")
}

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
