//! A batch in work: looks at its users' routes, does what they ask for, and looks again until everybody has an outcome.
//!
//! Handing over, the part that users wait for, is in `handover`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use regionwise_postgres::Error;
use regionwise_relocation::protocol::{Change, Next, Objection, Settled, State, Token, next, step};
use regionwise_relocation::sql::select;
use serde_json::json;
use tokio::time::sleep;

use crate::batch::Batch;
use crate::change::{self, Outcome};
use crate::event::Event;
use crate::failpoint::Point;
use crate::journal;
use crate::lane::{Halt, Lane, borrowed};
use crate::mend::mend;
use crate::reconnect::pause;
use crate::referred::{Reference, Ways};
use crate::shared::session_name;
use crate::ship::{Sent, Unshipped, enter, ship};
use crate::terms::LOCKED_WITHIN;

/// What the routes of a batch ask for.
#[derive(Default)]
struct Todo {
    stage: Vec<(String, Change)>,
    copy: Vec<String>,
    activate: Vec<(String, Change)>,
    cancel: Vec<(String, Change)>,
    reopen: Vec<(String, Change)>,
    raise_to: Option<Token>,
}

impl Lane {
    pub(crate) async fn work(&self, batch: &mut Batch) -> Result<(), Halt> {
        let name = session_name(&self.shared.run.id, Some(batch));
        let named = format!("SET application_name = '{name}'");
        let all = [&self.read, &self.write, &self.source, &self.target];
        let named = futures_util::future::join_all(all.map(|session| session.batch(&named)));
        let (named, looked, here, there) = tokio::join!(
            named,
            self.look(batch),
            journal::is_as_installed(&self.source),
            journal::is_as_installed(&self.target)
        );
        named.into_iter().collect::<Result<(), Error>>()?;
        looked?;
        for (session, as_installed) in [(&self.source, here?), (&self.target, there?)] {
            if !as_installed {
                return Err(Halt::OtherSchema(session.place().to_owned()));
            }
        }
        match self.turns(batch).await {
            Err(halt @ (Halt::Stopped | Halt::OtherSchema(_) | Halt::Mismatch(_))) => {
                // Who has moved by now has: nobody else would count them.
                self.write_down(batch).await?;
                Err(halt)
            }
            other => other,
        }
    }

    /// Until everybody has an outcome.
    async fn turns(&self, batch: &mut Batch) -> Result<(), Halt> {
        while !batch.open.is_empty() {
            self.look(batch).await?;
            self.safe_point_of_all(batch)?;
            let todo = self.decide(batch);
            if let Some(token) = todo.raise_to {
                self.raise(batch, token).await?;
                continue;
            }
            // Users between release and activation wait: they come first.
            self.take_over(batch, todo.activate).await?;
            self.give_up(batch, todo.cancel).await?;
            self.reopen(batch, todo.reopen).await?;
            if self.shared.terms.rehearse {
                self.rehearse(batch, todo.stage).await?;
                continue;
            }
            let mut ready = todo.copy;
            let staged = self.stage(batch, todo.stage).await?;
            if staged.iter().any(|user| batch.is_released(user)) {
                // Another runner's, and ours now: they do not wait for the proof of the others.
                continue;
            }
            ready.extend(staged);
            self.prove(batch, &ready).await?;
            ready.retain(|user| batch.proven.contains_key(user));
            self.hand_over(batch, ready).await?;
            self.write_down(batch).await?;
        }
        self.write_down(batch).await?;
        self.finish(batch).await
    }

    /// Here nobody is between two homes, so here a run may stop.
    pub(crate) fn safe_point(&self, batch: &Batch) -> Result<(), Halt> {
        if !self.shared.held().contains_key(&batch.number) {
            return Err(Halt::Superseded);
        }
        if self.shared.is_stopping() {
            return Err(Halt::Stopped);
        }
        Ok(())
    }

    /// A stop waits for users whom somebody has released and nobody serves yet.
    fn safe_point_of_all(&self, batch: &Batch) -> Result<(), Halt> {
        if batch.open.iter().any(|user| batch.is_released(user)) {
            return Ok(());
        }
        self.safe_point(batch)
    }

    /// Reads the routes that are not known.
    pub(crate) async fn look(&self, batch: &mut Batch) -> Result<(), Halt> {
        let unknown: Vec<String> = batch
            .open
            .iter()
            .filter(|user| !batch.sources.contains_key(*user))
            .cloned()
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let (sources, targets) = tokio::join!(
            change::routes(&self.source, &unknown),
            change::routes(&self.target, &unknown)
        );
        batch.sources.extend(sources?);
        batch.targets.extend(targets?);
        Ok(())
    }

    fn decide(&self, batch: &mut Batch) -> Todo {
        let mut todo = Todo::default();
        for user in batch.open.clone() {
            let (source, target) = (batch.sources.get(&user), batch.targets.get(&user));
            match next(source, target, &self.shared.run.id, batch.token) {
                Next::Stage(change) => {
                    if target.is_some() {
                        batch.begun.insert(user.clone());
                    }
                    todo.stage.push((user, change));
                }
                Next::Copy => todo.copy.push(user),
                Next::Activate(change) => todo.activate.push((user, change)),
                Next::Cancel(change) => todo.cancel.push((user, change)),
                Next::Reopen(change) => todo.reopen.push((user, change)),
                Next::Settled(Settled::Moved) => batch.settle(&user, "moved", None, Duration::ZERO),
                Next::Settled(Settled::Home) => {
                    self.stays(batch, &user, "given up at the activation".to_owned());
                }
                Next::Elsewhere(run) => {
                    self.stays(batch, &user, format!("run {run} is moving the user"));
                }
                Next::Refuse(Objection::Superseded { held, .. }) => {
                    todo.raise_to = todo.raise_to.max(Some(held));
                }
                Next::Refuse(objection) => self.stays(batch, &user, objection.to_string()),
            }
        }
        todo
    }

    /// A token above ours and `held`: the target may know one from a claim that this source has forgotten, or from a run
    /// the other way.
    pub(crate) async fn raise(&self, batch: &mut Batch, held: Token) -> Result<(), Halt> {
        let token = Token::after([held, batch.token], self.shared.timelines);
        let run = &self.shared.run.id;
        if !journal::raise(&self.source, run, batch.number, batch.token, token).await? {
            return Err(Halt::Superseded);
        }
        batch.token = token;
        self.shared.held().insert(batch.number, token);
        Ok(())
    }

    /// P1. The users that are staged by us then.
    async fn stage(
        &self,
        batch: &mut Batch,
        changes: Vec<(String, Change)>,
    ) -> Result<Vec<String>, Halt> {
        let staged = self.apply_at_target(batch, &changes).await?;
        if !staged.is_empty() {
            self.shared.hold.at(Point::Staged).await;
        }
        Ok(staged)
    }

    /// Gives a move up at the target; the source is opened again in the next turn.
    pub(crate) async fn give_up(
        &self,
        batch: &mut Batch,
        changes: Vec<(String, Change)>,
    ) -> Result<(), Halt> {
        if self.apply_at_target(batch, &changes).await?.is_empty() {
            return Ok(());
        }
        self.shared.hold.at(Point::Cancelled).await;
        Ok(())
    }

    async fn apply_at_target(
        &self,
        batch: &mut Batch,
        changes: &[(String, Change)],
    ) -> Result<Vec<String>, Halt> {
        let terms = self.waiting(None);
        let answers = change::apply(&self.target, terms, &borrowed(changes)).await?;
        let mut done = Vec::new();
        for (user, change) in changes {
            match answers.get(user).map(|answer| answer.outcome) {
                Some(Outcome::Changed | Outcome::Done) => {
                    let before = batch.targets.get(user);
                    match change::after(change, before, &self.shared.run.id) {
                        Some(route) => drop(batch.targets.insert(user.clone(), route)),
                        None => batch.forget(std::slice::from_ref(user)),
                    }
                    done.push(user.clone());
                }
                Some(Outcome::Busy | Outcome::Stale | Outcome::Differs) | None => {
                    batch.forget(std::slice::from_ref(user));
                }
            }
        }
        Ok(done)
    }

    /// Opens the source of users whose move was given up.
    pub(crate) async fn reopen(
        &self,
        batch: &mut Batch,
        changes: Vec<(String, Change)>,
    ) -> Result<(), Halt> {
        let terms = self.waiting(Some(batch));
        change::apply(&self.source, terms, &borrowed(&changes)).await?;
        let users: Vec<String> = changes.into_iter().map(|(user, _)| user).collect();
        batch.forget(&users);
        Ok(())
    }

    /// P2, P3: rows at the target that are proven equal. Whoever has none there is copied whole, the others get what
    /// differs.
    async fn prove(&self, batch: &mut Batch, users: &[String]) -> Result<(), Halt> {
        let (begun, fresh): (Vec<String>, Vec<String>) = users
            .iter()
            .filter(|user| !batch.proven.contains_key(*user))
            .cloned()
            .partition(|user| batch.begun.contains(user));
        if !fresh.is_empty() {
            self.copy(batch, fresh, &[]).await?;
        }
        if !begun.is_empty() {
            mend(self, batch, &begun).await?;
        }
        Ok(())
    }

    /// Copies and proves whoever is nowhere near the target yet, and leaves nothing there. Who has a route there may have
    /// rows there too, and these cannot be taken back to what they are now.
    async fn rehearse(
        &self,
        batch: &mut Batch,
        changes: Vec<(String, Change)>,
    ) -> Result<(), Halt> {
        let mut fresh = Vec::new();
        let mut known: BTreeMap<State, usize> = BTreeMap::new();
        for (user, change) in changes {
            match &change.from {
                None => fresh.push((user, change)),
                Some(route) => *known.entry(route.state).or_default() += 1,
            }
        }
        for (state, users) in known {
            self.shared.tell(Event::NotRehearsed {
                lane: self.number,
                users,
                state,
            });
        }
        let users: Vec<String> = fresh.iter().map(|(user, _)| user.clone()).collect();
        if !users.is_empty() {
            self.copy(batch, users, &fresh).await?;
        }
        for user in batch.open.clone() {
            batch.settle(&user, "stays", None, Duration::ZERO);
        }
        self.write_down(batch).await
    }

    /// Copies users; one who cannot be copied is found by halving and set aside, the others go on.
    async fn copy(
        &self,
        batch: &mut Batch,
        users: Vec<String>,
        changes: &[(String, Change)],
    ) -> Result<(), Halt> {
        let mut parts = vec![users];
        while let Some(users) = parts.pop() {
            self.safe_point(batch)?;
            batch.begun.extend(users.iter().cloned());
            let began = Instant::now();
            let staging: Vec<(&str, Change)> = borrowed(changes)
                .into_iter()
                .filter(|(user, _)| users.iter().any(|one| one == user))
                .collect();
            match Box::pin(ship(self, batch.token, &users, &staging)).await {
                Ok(shipped) => {
                    batch.add(&shipped.tables);
                    batch.prove(shipped.users, shipped.seals);
                    let (rows, bytes) = total(&shipped.tables);
                    self.shared.hold.at(Point::Shipped).await;
                    self.shared.tell(Event::Shipped {
                        lane: self.number,
                        batch: batch.number,
                        rows,
                        bytes,
                        took: began.elapsed(),
                    });
                }
                Err(why) => Box::pin(self.part(batch, &mut parts, users, why)).await?,
            }
        }
        Ok(())
    }

    /// Leaves in `parts` what to try again of users who could not be brought over together: both halves, or one alone as
    /// long as somebody's lock is waited for. Who is alone otherwise is set aside.
    ///
    /// # Errors
    /// What stops the whole batch is passed on.
    pub(crate) async fn part(
        &self,
        batch: &mut Batch,
        parts: &mut Vec<Vec<String>>,
        mut users: Vec<String>,
        why: Unshipped,
    ) -> Result<(), Halt> {
        match why {
            // The session went with a COPY that was refused at its start: the table itself is locked.
            Unshipped::Locked(error) if !self.write.is_open() => return Err(Halt::from(error)),
            Unshipped::Superseded => return Err(Halt::Superseded),
            Unshipped::Database(error) => return Err(Halt::from(error)),
            Unshipped::Mismatch(mismatch) => return Err(Halt::Mismatch(mismatch)),
            Unshipped::Conflict { .. }
            | Unshipped::Value(_)
            | Unshipped::Dangling { .. }
            | Unshipped::Referred(_)
            | Unshipped::Locked(_)
            | Unshipped::LongFence
            | Unshipped::TooManyRows
            | Unshipped::Wire(_) => {}
        }
        if let [user] = users.as_slice() {
            if let Unshipped::Locked(error) = &why
                && batch.locked_for(user) < LOCKED_WITHIN
            {
                // The others first, each of whom may be through before this one.
                parts.insert(0, users.clone());
                return self.pause_for_lock(batch, user, parts.len(), error).await;
            }
            return self.set_aside(batch, user, why.to_string()).await;
        }
        let second = users.split_off(users.len() / 2);
        // The last one is tried next: keys stay in order.
        parts.extend([second, users]);
        Ok(())
    }

    /// Between two attempts for a user whom somebody's lock keeps, when nobody else is left of the `parts` to try.
    async fn pause_for_lock(
        &self,
        batch: &mut Batch,
        user: &str,
        parts: usize,
        error: &Error,
    ) -> Result<(), Halt> {
        self.safe_point_of_all(batch)?;
        if parts == 1 {
            let reason = format!("a user's rows or keys are locked: {error}");
            self.shared.tell(Event::Waiting { reason });
            sleep(pause(batch.locked_for(user))).await;
        }
        Ok(())
    }

    /// A user who cannot be moved stays home; what is at the target of it goes away, unless somebody refers to it.
    pub(crate) async fn set_aside(
        &self,
        batch: &mut Batch,
        user: &str,
        mut reason: String,
    ) -> Result<(), Halt> {
        let routes = (batch.sources.get(user), batch.targets.get(user));
        if let (Some(source), Some(target)) = routes {
            if source.state == State::Moved {
                Box::pin(self.open_again(batch, user)).await?;
            } else if let Ok(change) = step::cancel(source, target, batch.token) {
                if let Some(reference) = self.clear(batch, user).await? {
                    reason = stays_there(&reason, self.write.place(), &reference.to_string());
                }
                let changes = vec![(user.to_owned(), change)];
                self.apply_at_target(batch, &changes).await?;
            }
        }
        self.stays(batch, user, reason);
        Ok(())
    }

    /// The user's move is over: set aside, and nothing of it is left to do.
    fn stays(&self, batch: &mut Batch, user: &str, reason: String) {
        self.shared.tell(Event::SetAside {
            lane: self.number,
            users: 1,
            reason: reason.clone(),
        });
        batch.settle(user, "quarantined", Some(reason), Duration::ZERO);
    }

    /// Deletes what was copied of a user who stays, because nobody will look at it again, and it is personal data. Nothing is
    /// deleted where others refer to it, for it may come again: who does.
    async fn clear(&self, batch: &Batch, user: &str) -> Result<Option<Reference>, Halt> {
        let users = [user.to_owned()];
        let (shared, write) = (&self.shared, &self.write);
        let ways = Ways::all(&shared.closure, &shared.incoming);
        write.batch("BEGIN").await?;
        let cleared: Result<Option<Reference>, Error> = async {
            enter(self, write, batch.token, &users).await?;
            let mut statements = ways.prepare();
            statements.extend(ways.note(&[user]));
            let tables = (0..shared.layouts.len()).rev();
            statements
                .extend(tables.map(|number| select::delete(&shared.closure, number, &[user])));
            write.batch(&statements.join("; ")).await?;
            let noted = ways.noted(write).await?;
            Ok(noted.references(write).await?.into_iter().next())
        }
        .await;
        let end = match cleared {
            Ok(None) => "COMMIT",
            Ok(Some(_)) | Err(_) => "ROLLBACK",
        };
        write.batch(end).await?;
        cleared.map_err(Halt::from)
    }

    async fn write_down(&self, batch: &mut Batch) -> Result<(), Halt> {
        if batch.settled.is_empty() {
            return Ok(());
        }
        journal::settle(
            &self.source,
            &self.shared.run.id,
            batch.token,
            &batch.settled,
        )
        .await?;
        batch.settled.clear();
        self.shared.hold.at(Point::Recorded).await;
        Ok(())
    }

    async fn finish(&self, batch: &Batch) -> Result<(), Halt> {
        let (rows, bytes) = total(&batch.sent);
        let tables: serde_json::Map<String, serde_json::Value> = batch
            .sent
            .iter()
            .filter_map(|(table, (rows, bytes))| {
                let layout = self.shared.layouts.get(*table)?;
                Some((
                    layout.table.clone(),
                    json!({ "rows": rows, "bytes": bytes }),
                ))
            })
            .collect();
        let facts =
            json!({ "tables": tables, "bytes": bytes, "ms": millis(batch.began.elapsed()) });
        let run = &self.shared.run.id;
        journal::note(&self.source, run, Some(batch.number), "shipped", &facts).await?;
        let (rows, bytes) = (signed(rows), signed(bytes));
        match journal::finish(&self.source, run, batch.number, batch.token, rows, bytes).await? {
            true => Ok(()),
            false => Err(Halt::Superseded),
        }
    }

    /// Waits for locks; with a batch also demands that its claim still holds.
    pub(crate) fn waiting<'a>(&'a self, claim: Option<&Batch>) -> change::Terms<'a> {
        change::Terms {
            run: &self.shared.run.id,
            wait: true,
            claim: claim.map(|batch| (batch.number, batch.token)),
            seals: None,
        }
    }
}

fn total(sent: &Sent) -> (u64, u64) {
    let each = sent.values();
    each.fold((0, 0), |all, table| (all.0 + table.0, all.1 + table.1))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Why a user is set aside of whom something stays at the target, too.
fn stays_there(reason: &str, place: &str, reference: &str) -> String {
    let why = if reason.ends_with(reference) {
        String::new()
    } else {
        format!(": {reference}")
    };
    format!("{reason}; what is at {place} of the user stays there{why}")
}
