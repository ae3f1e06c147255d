//! Who refers to rows that go: noted before they go, asked for afterwards, in the transaction that deletes them.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::closure::Closure;
use regionwise_relocation::sql::refer::Incoming;

/// Rows that refer to rows that went.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    table: String,
    /// Whether the table stays when users move.
    stays: bool,
    /// Whose rows they are, if they are somebody's.
    pub(crate) user: Option<String>,
    rows: i64,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, rows, .. } = self;
        let refer = if *rows == 1 { "refers" } else { "refer" };
        match rows {
            1 => write!(f, "a row of {table}")?,
            _ => write!(f, "{rows} rows of {table}")?,
        }
        match &self.user {
            _ if self.stays => write!(f, ", a table that stays, {refer} to it"),
            Some(user) => write!(f, ", of user {user}, {refer} to it"),
            None => write!(f, ", of nobody, {refer} to it"),
        }
    }
}

/// Ways in which rows that go can be referred to, each with its number among all that the session knows.
pub(crate) struct Ways<'a> {
    closure: &'a Closure,
    ways: Vec<(usize, &'a Incoming)>,
}

impl<'a> Ways<'a> {
    pub(crate) fn all(closure: &'a Closure, incoming: &'a [Incoming]) -> Self {
        let ways = incoming.iter().enumerate().collect();
        Self { closure, ways }
    }

    /// Those to rows of these tables.
    pub(crate) fn to(mut self, tables: &BTreeSet<usize>) -> Self {
        self.ways.retain(|(_, way)| tables.contains(&way.to));
        self
    }

    /// Statements that come first in a session.
    pub(crate) fn prepare(&self) -> Vec<String> {
        self.each(|place, way| way.prepare(self.closure, place))
    }

    /// Statements before all rows of `users` are deleted.
    pub(crate) fn note(&self, users: &[&str]) -> Vec<String> {
        self.each(|place, way| way.note(self.closure, place, users))
    }

    /// Statements before rows are deleted or changed whose keys are in the temporary tables of the transaction.
    pub(crate) fn note_keyed(&self) -> Vec<String> {
        self.each(|place, way| way.note_keyed(self.closure, place))
    }

    /// Statements after a change: what is there as before may be referred to.
    pub(crate) fn keep(&self) -> Vec<String> {
        self.each(|place, way| way.keep(self.closure, place))
    }

    fn each(&self, statement: impl Fn(usize, &Incoming) -> String) -> Vec<String> {
        let ways = self.ways.iter();
        ways.map(|(place, way)| statement(*place, way)).collect()
    }

    /// Only those by which something that is gone could be referred to.
    pub(crate) async fn noted(mut self, session: &Direct) -> Result<Self, Error> {
        if !self.ways.is_empty() {
            let asked = self.each(|place, _| Incoming::is_noted(place));
            let rows = session.ask(&asked.join(" UNION ALL ")).await?;
            let noted: HashSet<i32> = rows.iter().map(|row| row.get(0)).collect();
            self.ways.retain(|(place, _)| {
                i32::try_from(*place).is_ok_and(|place| noted.contains(&place))
            });
        }
        Ok(self)
    }

    /// Sets references to NULL that may live without what went: how many.
    pub(crate) async fn let_go(&self, session: &Direct) -> Result<u64, Error> {
        let mut rows = 0;
        for (place, way) in &self.ways {
            if let Some(sql) = way.let_go(*place) {
                rows += session.execute(&sql, &[]).await?;
            }
        }
        Ok(rows)
    }

    /// Who still refers to what is gone: in a snapshot from after the delete, so that whoever made it wait is seen.
    pub(crate) async fn references(&self, session: &Direct) -> Result<Vec<Reference>, Error> {
        let mut found = Vec::new();
        for (place, way) in &self.ways {
            let sql = way.still_refer(self.closure, *place);
            for row in session.ask(&sql).await? {
                let user: Option<String> = row.get(0);
                found.push(Reference {
                    table: way.table.to_string(),
                    stays: way.number.is_none(),
                    user: user.filter(|user| !user.is_empty()),
                    rows: row.get(1),
                });
            }
        }
        Ok(found)
    }
}
