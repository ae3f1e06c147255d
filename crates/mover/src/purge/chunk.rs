//! One chunk of a purge: one transaction at the source, which proves, deletes, looks who refers to what went, and marks
//! the users as purged.

use std::collections::{BTreeMap, HashMap};

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::protocol::{Change, Route, State, Token, may_purge, purge};
use regionwise_relocation::sql::refer::Incoming;
use regionwise_relocation::sql::select;
use serde_json::json;

use super::{Erasure, Moved};
use crate::change::{self, routes};
use crate::ends::Purpose;
use crate::failpoint::Point;
use crate::journal;
use crate::layout::Layout;
use crate::mismatch::Sides;
use crate::referred::{Reference, Ways};
use crate::verify::{Found, Wrong, prove};

/// The sessions of a purge.
pub(super) struct Purger<'a> {
    task: &'a Erasure,
    layouts: &'a [Layout],
    ways: Ways<'a>,
    /// At the source, in the replica role: the application's triggers have nothing to say about a row that moved.
    write: Direct,
    /// At the source.
    pub(super) read: Direct,
    target: Direct,
    pub(super) has_origin: bool,
}

/// What a chunk came to.
pub(super) enum Outcome {
    Purged(Chunk),
    /// Somebody holds a lock that it needs.
    Busy,
    Wrong(String, Wrong),
    /// Rows that stay refer to rows that would go.
    Referred(Vec<Obstacle>),
}

pub(super) struct Chunk {
    pub(super) users: u64,
    pub(super) rows: BTreeMap<String, u64>,
    pub(super) let_go: u64,
    /// Bytes of WAL that were written meanwhile.
    pub(super) wal: u64,
}

/// Rows that refer to what would go.
pub(super) struct Obstacle {
    pub(super) reference: Reference,
    /// Whether they are of a user who can be purged too.
    pub(super) may_go: bool,
}

/// Why a chunk is rolled back.
enum Back {
    Outcome(Outcome),
    Database(Error),
}

impl From<Error> for Back {
    fn from(error: Error) -> Self {
        match error.sqlstate() {
            // Lock not available, deadlock, serialization failure; and a route that changed under us is looked at again.
            Some("55P03" | "40P01" | "40001") => Self::Outcome(Outcome::Busy),
            Some(_) | None => Self::Database(error),
        }
    }
}

impl<'a> Purger<'a> {
    pub(super) async fn open(
        task: &'a Erasure,
        layouts: &'a [Layout],
        incoming: &'a [Incoming],
    ) -> Result<Self, Error> {
        let name = "regionwise purge";
        let (write, read, target) = tokio::try_join!(
            task.ends.source.open(Purpose::Write, name),
            task.ends.source.open(Purpose::Change, name),
            task.ends.target.open(Purpose::Read, name),
        )?;
        // Not had: it must be made by a superuser once, and only one session at a time has it.
        let origin = "SELECT pg_replication_origin_session_setup('regionwise')";
        let has_origin = match write.query(origin, &[]).await {
            Ok(_) => true,
            Err(error) if error.sqlstate().is_some() => false,
            Err(error) => return Err(error),
        };
        let ways = Ways::all(&task.found.closure, incoming);
        write.batch(&ways.prepare().join("; ")).await?;
        Ok(Self {
            task,
            layouts,
            ways,
            write,
            read,
            target,
            has_origin,
        })
    }

    /// Deletes the rows of these users, all of them or none.
    pub(super) async fn attempt(&self, users: &[String]) -> Result<Outcome, Error> {
        let (write, target) = (&self.write, &self.target);
        let before = position(&self.read).await?;
        let done = async {
            // READ COMMITTED: what is asked after the delete must see what others committed until then.
            write.batch("BEGIN").await?;
            target
                .batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                .await?;
            self.delete(users).await
        };
        let done: Result<Chunk, Back> = done.await;
        let end = match &done {
            Ok(_) => "COMMIT",
            Err(_) => "ROLLBACK",
        };
        let (written, read) = tokio::join!(write.batch(end), target.batch("ROLLBACK"));
        let mut chunk = match done {
            Ok(chunk) => chunk,
            Err(Back::Outcome(outcome)) => return Ok(outcome),
            Err(Back::Database(error)) => return Err(error),
        };
        written?;
        read?;
        let after = position(&self.read).await?;
        chunk.wal = u64::try_from(after - before).unwrap_or(0);
        Ok(Outcome::Purged(chunk))
    }

    async fn delete(&self, users: &[String]) -> Result<Chunk, Back> {
        let write = &self.write;
        let here = routes(write, users).await?;
        let tokens = self.enter(&here).await?;
        // Only now, under the home locks of the source, nothing can happen to the target's routes either.
        let mut there = routes(&self.target, users).await?;
        let mut changes: HashMap<String, Vec<(String, Change)>> = HashMap::new();
        let mut moved = Vec::new();
        for (user, source) in here {
            let target = there.remove(&user);
            let Some(run) = source.run.clone().filter(|_| tokens.contains_key(&user)) else {
                continue;
            };
            if let Some(target) = &target
                && let Ok(change) = purge(&source, target)
            {
                changes.entry(run).or_default().push((user.clone(), change));
            }
            moved.push(Moved {
                user,
                source,
                target,
            });
        }
        self.prove(&moved).await?;
        let users: Vec<&str> = moved.iter().map(|moved| moved.user.as_str()).collect();
        let wanted: u64 = moved.iter().filter_map(|moved| moved.source.rows).sum();
        let mut deleted = 0;
        let mut chunk = Chunk {
            users: u64::try_from(users.len()).unwrap_or(u64::MAX),
            rows: BTreeMap::new(),
            let_go: 0,
            wal: 0,
        };
        let Some(run) = moved.first().and_then(|moved| moved.source.run.clone()) else {
            return Ok(chunk);
        };
        write.batch(&self.ways.note(&users).join("; ")).await?;
        for number in (0..self.layouts.len()).rev() {
            let sql = select::delete(&self.task.found.closure, number, &users);
            let rows = write.execute(&sql, &[]).await?;
            deleted += rows;
            if rows > 0 {
                chunk.rows.insert(self.layouts[number].table.clone(), rows);
            }
        }
        if deleted != wanted {
            let user = moved[0].user.clone();
            let wrong = Wrong::OtherCount { wanted, deleted };
            return Err(Back::Outcome(Outcome::Wrong(user, wrong)));
        }
        chunk.let_go = self.ways.let_go(write).await?;
        let obstacles = self.obstacles(&users).await?;
        if !obstacles.is_empty() {
            return Err(Back::Outcome(Outcome::Referred(obstacles)));
        }
        for (run, changes) in changes {
            self.mark(&run, &changes).await?;
        }
        let facts = json!({ "users": chunk.users, "tables": chunk.rows, "let_go": chunk.let_go });
        journal::note(write, &run, None, "purged", &facts).await?;
        self.task.hold.at(Point::Purging).await;
        Ok(chunk)
    }

    /// The mover's way past the fence, and one purge at a time: by token, as the routes have it.
    async fn enter(&self, here: &HashMap<String, Route>) -> Result<HashMap<String, Token>, Back> {
        let mut tokens = HashMap::new();
        let mut groups: BTreeMap<(String, i64), Vec<String>> = BTreeMap::new();
        for (user, route) in here {
            // Somebody else has purged it, or it is on its way back.
            if route.state != State::Moved {
                continue;
            }
            if let (Some(run), Some(token)) = (&route.run, route.token) {
                tokens.insert(user.clone(), token);
                groups
                    .entry((run.clone(), i64::from(token)))
                    .or_default()
                    .push(user.clone());
            }
        }
        for ((run, token), mut users) in groups {
            users.sort();
            let one = "SELECT FROM regionwise.run WHERE run = $1 FOR UPDATE";
            self.write.query(one, &[&run]).await?;
            let sql = "SELECT regionwise.enter($1, $2, $3, 'moved')";
            match self.write.query(sql, &[&run, &token, &users]).await {
                Err(error) if error.sqlstate() == Some("MV003") => {
                    return Err(Back::Outcome(Outcome::Busy));
                }
                other => drop(other?),
            }
        }
        Ok(tokens)
    }

    /// Rows here and at the target, once more.
    async fn prove(&self, moved: &[Moved]) -> Result<(), Back> {
        let sides = Sides {
            closure: &self.task.found.closure,
            layouts: self.layouts,
            source: &self.write,
            target: &self.target,
        };
        let mut found = prove(&sides, moved).await?;
        for each in moved {
            let wrong = match found.remove(&each.user) {
                Some(Found::Equal { .. } | Found::Touched { .. }) => None,
                Some(Found::Wrong(wrong)) => Some(wrong),
                Some(Found::Purged | Found::NotMoved | Found::TwoHomes) | None => {
                    Some(Wrong::NotProven)
                }
            };
            let allowed = each
                .target
                .as_ref()
                .is_some_and(|target| may_purge(&each.source, target).is_ok());
            if let Some(wrong) = wrong.or((!allowed).then_some(Wrong::NotProven)) {
                return Err(Back::Outcome(Outcome::Wrong(each.user.clone(), wrong)));
            }
        }
        Ok(())
    }

    async fn obstacles(&self, purged: &[&str]) -> Result<Vec<Obstacle>, Back> {
        let references = self.ways.references(&self.write).await?;
        let users: Vec<String> = references
            .iter()
            .filter_map(|each| each.user.clone())
            .collect();
        let known = routes(&self.write, &users).await?;
        let may_go = |user: &String| {
            !self.task.held.contains(user)
                && !purged.contains(&user.as_str())
                && known
                    .get(user)
                    .is_some_and(|route| route.state == State::Moved)
        };
        let each = references.into_iter().map(|reference| Obstacle {
            may_go: reference.user.as_ref().is_some_and(may_go),
            reference,
        });
        Ok(each.collect())
    }

    async fn mark(&self, run: &str, changes: &[(String, Change)]) -> Result<(), Back> {
        let terms = change::Terms {
            run,
            wait: true,
            claim: None,
            seals: None,
        };
        let borrowed = crate::lane::borrowed(changes);
        let answers = change::apply(&self.write, terms, &borrowed).await?;
        let all = changes.iter().all(|(user, _)| {
            answers
                .get(user)
                .is_some_and(|answer| answer.outcome == change::Outcome::Changed)
        });
        match all {
            true => Ok(()),
            // A writer holds the home lock to hear that it is at the wrong side.
            false => Err(Back::Outcome(Outcome::Busy)),
        }
    }
}

async fn position(source: &Direct) -> Result<i64, Error> {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8";
    let rows = source.query(sql, &[]).await?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or_else(|| source.unexpected("no position"))
}
