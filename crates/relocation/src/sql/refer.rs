//! Who refers to rows that go.
//!
//! The mover deletes with foreign keys switched off, so nothing cascades and nothing stops it. It notes what the rows
//! that go are referred to by, deletes, and asks afterwards: whoever committed a reference until then is seen, and who
//! comes later waits for the delete and fails at the foreign key.

use super::delta::{keys_name, looked_up};
use super::name::{column, equal, identifier, list, table};
use super::owner::owner;
use super::select;
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

/// Every reference to a table of the closure: of tables that stay, of other users' rows, and towards the owner. Tables
/// that stay are those of the cluster that `found` was discovered in.
pub fn incoming(found: &Discovered) -> Vec<Incoming> {
    let left_behind = found.left_behind.iter().map(|left| Incoming {
        table: left.table.clone(),
        number: None,
        columns: left.reference.columns.clone(),
        to: left.to,
        referenced: left.reference.referenced_columns.clone(),
        operators: left.reference.operators.clone(),
        set_null: left.then == OtherUser::SetNull,
    });
    left_behind
        .chain(incoming_of_users(&found.closure))
        .collect()
}

/// Those of users' rows alone.
pub fn incoming_of_users(closure: &Closure) -> Vec<Incoming> {
    let mut all = Vec::new();
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
    /// Makes, once in a session, the table that takes what is referred to; a COMMIT empties it. `place` is this way's
    /// own among all ways of the session.
    pub fn prepare(&self, closure: &Closure, place: usize) -> String {
        let to = &closure.tables[self.to].table.name;
        format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {} ON COMMIT DELETE ROWS AS SELECT {} FROM {} WITH NO DATA",
            noted(place),
            list(self.referenced.iter().map(String::as_str)),
            table(to)
        )
    }

    /// Before all rows of `users` are deleted.
    pub fn note(&self, closure: &Closure, place: usize, users: &[&str]) -> String {
        let rows = select::rows(closure, self.to, users, |_| self.values());
        format!("INSERT INTO {} {rows}", noted(place))
    }

    /// Before rows are deleted or changed whose keys are in the table of [`super::delta::temporary_keys`].
    pub fn note_keyed(&self, closure: &Closure, place: usize) -> String {
        format!(
            "INSERT INTO {} SELECT {} FROM {} k CROSS JOIN LATERAL {}",
            noted(place),
            self.values(),
            keys_name(self.to),
            looked_up(closure, self.to, "t", "k", "t.*", "true")
        )
    }

    /// After the change: what is there as before may be referred to.
    pub fn keep(&self, closure: &Closure, place: usize) -> String {
        let present = equal(
            "t",
            &self.referenced,
            &self.operators,
            "r",
            &self.referenced,
        );
        format!(
            "DELETE FROM {} r WHERE EXISTS (SELECT FROM {} t WHERE {present} OFFSET 0)",
            noted(place),
            table(&closure.tables[self.to].table.name),
        )
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

    /// Whether something is noted: `place int4`, or no line.
    pub fn is_noted(place: usize) -> String {
        format!(
            "SELECT {place}::int4 AS place WHERE EXISTS (SELECT FROM {})",
            noted(place)
        )
    }

    /// Of a row `t` of the table that is referred to.
    fn values(&self) -> String {
        let values: Vec<String> = self
            .referenced
            .iter()
            .map(|name| column("t", name))
            .collect();
        values.join(", ")
    }

    fn on(&self) -> String {
        equal("r", &self.referenced, &self.operators, "t", &self.columns)
    }
}

fn noted(place: usize) -> String {
    format!("pg_temp.regionwise_noted_{place}")
}
