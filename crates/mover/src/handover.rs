//! P4 to P7: the source lets users go whose rows are proven, and the target takes them over.
//!
//! Both are one call per group. In between nobody takes the group's writes, so nothing else is done in between.

use std::collections::{HashMap, HashSet};
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use regionwise_relocation::digest::Digest;
use regionwise_relocation::protocol::{Change, State, step};
use tokio::time::sleep;

use crate::batch::Batch;
use crate::change::{self, Answer, Outcome, Seal};
use crate::event::Event;
use crate::failpoint::Point;
use crate::lane::{Halt, Lane, borrowed};
use crate::mend::{mend, under_fence};
use crate::mismatch;
use crate::ship::digests;
use crate::terms::{BATCH_ROWS, ROUNDS};

/// The first and the longest pause before busy users are tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// A busy user who was passed over this often gets its lock queued.
const PASSED_OVER: u32 = 20;

/// While a user's lock is queued its other writers wait: most of the time belongs to them.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// A group whose activation was answered.
struct Landed {
    changes: Vec<(String, Change)>,
    answers: HashMap<String, Answer>,
    since: Option<Instant>,
    stall: Duration,
}

/// What became of a group at the source.
#[derive(Default)]
struct Release {
    /// Released by this call, with what the target must do now, and since when nobody takes their writes.
    released: Vec<(String, Change)>,
    since: Option<Instant>,
    held: Duration,
    busy: Vec<String>,
    dirty: Vec<String>,
}

impl Lane {
    /// Hands over users whose rows are proven, round after round: who is busy or has written meanwhile comes again.
    pub(crate) async fn hand_over(
        &self,
        batch: &mut Batch,
        users: Vec<String>,
    ) -> Result<(), Halt> {
        let mut waiting = users;
        let mut pause = PAUSES.0;
        let mut passed_over = 0;
        while !waiting.is_empty() {
            let mut again = Vec::new();
            let mut dirty = Vec::new();
            let before = waiting.len();
            let wait = passed_over >= PASSED_OVER;
            let groups = match wait {
                true => waiting.iter().map(|user| vec![user.clone()]).collect(),
                false => batch.groups(&waiting),
            };
            let mut flying = FuturesUnordered::new();
            let mut halted = None;
            for group in groups {
                let turn = loop {
                    tokio::select! {
                        turn = Arc::clone(&self.shared.fences).acquire_owned() => break turn,
                        Some(landed) = flying.next() => {
                            if let Err(halt) = self.book(batch, landed).await {
                                halted.get_or_insert(halt);
                            }
                        }
                    }
                };
                if let Err(halt) = self.safe_point(batch) {
                    halted.get_or_insert(halt);
                }
                if halted.is_some() {
                    break;
                }
                match self.release(batch, &group, wait).await {
                    Ok(release) => {
                        again.extend(release.busy);
                        dirty.extend(release.dirty);
                        let seals = batch.seals.at_target(&release.released);
                        let landing =
                            self.activate(release.released, seals, release.since, release.held);
                        flying.push(async move {
                            let landed = landing.await;
                            drop(turn);
                            landed
                        });
                        // Polled once, so that it is sent: nobody serves these users now.
                        if let Some(Some(landed)) = flying.next().now_or_never()
                            && let Err(halt) = self.book(batch, landed).await
                        {
                            halted.get_or_insert(halt);
                        }
                    }
                    Err(halt) => {
                        halted = Some(halt);
                        break;
                    }
                }
            }
            // Whoever is released is seen through, whatever else went wrong.
            while let Some(landed) = flying.next().await {
                if let Err(halt) = self.book(batch, landed).await {
                    halted.get_or_insert(halt);
                }
            }
            if let Some(halt) = halted {
                return Err(halt);
            }
            if !dirty.is_empty() {
                again.extend(self.catch_up(batch, dirty).await?);
                pause = PAUSES.0;
            } else if again.len() == before {
                passed_over += 1;
                if passed_over >= PASSED_OVER {
                    self.tell_who_is_in_the_way(&again).await?;
                }
                sleep(pause).await;
                pause = (pause * 2).min(if wait { LONG_PAUSE } else { PAUSES.1 });
            }
            // Whoever's routes turned out to be others than thought is looked at again.
            again.retain(|user| batch.sources.contains_key(user));
            waiting = again;
        }
        Ok(())
    }

    /// Users who wrote since the copy: fetches what changed; whoever never stops writing is moved under its own fence.
    async fn catch_up(&self, batch: &mut Batch, dirty: Vec<String>) -> Result<Vec<String>, Halt> {
        self.shared.tell(Event::Again {
            lane: self.number,
            users: dirty.len(),
        });
        let (hot, others): (Vec<String>, Vec<String>) = dirty.into_iter().partition(|user| {
            let rounds = batch.rounds.entry(user.clone()).or_default();
            *rounds += 1;
            *rounds > ROUNDS
        });
        if !others.is_empty() {
            mend(self, batch, &others).await?;
        }
        for user in hot {
            self.safe_point(batch)?;
            if let Some(change) = under_fence(self, batch, &user).await? {
                let since = Some(Instant::now());
                let changes = vec![(user, change)];
                let seals = batch.seals.at_target(&changes);
                let landed = self.activate(changes, seals, since, Duration::ZERO).await?;
                self.land(batch, landed).await?;
            }
        }
        Ok(others
            .into_iter()
            .filter(|user| batch.proven.contains_key(user))
            .collect())
    }

    /// P4 to P6.
    async fn release(
        &self,
        batch: &mut Batch,
        group: &[String],
        wait: bool,
    ) -> Result<Release, Halt> {
        let mut changes = Vec::new();
        for user in group {
            let routes = (batch.sources.get(user), batch.targets.get(user));
            let (Some(source), Some(target)) = routes else {
                continue;
            };
            let Some(proven) = batch.proven.get(user) else {
                continue;
            };
            match step::release(source, target, batch.token, proven.digest) {
                Ok(change) => changes.push((user.clone(), change)),
                Err(_) => batch.forget(std::slice::from_ref(user)),
            }
        }
        self.shared.hold.at(Point::Releasing).await;
        let terms = change::Terms {
            run: &self.shared.run.id,
            wait,
            claim: Some((batch.number, batch.token)),
            seals: Some(&batch.seals.source),
        };
        let answers = change::apply(&self.source, terms, &borrowed(&changes)).await?;
        let mut release = Release {
            since: Some(Instant::now()),
            ..Release::default()
        };
        for (user, change) in changes {
            let Some(answer) = answers.get(&user) else {
                batch.forget(&[user]);
                continue;
            };
            release.held = release.held.max(answer.held);
            match answer.outcome {
                Outcome::Changed | Outcome::Done => match self.released(batch, &user, &change) {
                    Some(activation) => release.released.push((user, activation)),
                    None => batch.forget(&[user]),
                },
                Outcome::Busy => release.busy.push(user),
                Outcome::Differs => release.dirty.push(user),
                Outcome::Stale => batch.forget(&[user]),
            }
        }
        if !release.released.is_empty() {
            self.shared.hold.at(Point::Released).await;
        }
        Ok(release)
    }

    /// What the target must do for a user that the source has just released.
    pub(crate) fn released(
        &self,
        batch: &mut Batch,
        user: &str,
        release: &Change,
    ) -> Option<Change> {
        let source = change::after(release, batch.sources.get(user), &self.shared.run.id)?;
        let target = batch.targets.get(user)?;
        let activation = step::activate(&source, target, batch.token).ok();
        batch.sources.insert(user.to_owned(), source);
        activation
    }

    /// P7 for users that the source has released before: by this runner, or by one that died. Those with many rows last and
    /// one by one, so that the others are served meanwhile.
    pub(crate) async fn take_over(
        &self,
        batch: &mut Batch,
        changes: Vec<(String, Change)>,
    ) -> Result<(), Halt> {
        let (large, small): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(user, _)| {
            let rows = batch.sources.get(user).and_then(|route| route.rows);
            rows.is_none_or(|rows| rows > BATCH_ROWS)
        });
        let one_by_one = large.into_iter().map(|one| vec![one]);
        let mut halted = None;
        for changes in iter::once(small).chain(one_by_one) {
            if let Err(halt) = self.take_over_together(batch, changes).await {
                halted.get_or_insert(halt);
            }
        }
        halted.map_or(Ok(()), Err)
    }

    async fn take_over_together(
        &self,
        batch: &mut Batch,
        changes: Vec<(String, Change)>,
    ) -> Result<(), Halt> {
        let differing = self.seal(batch, &changes).await?;
        let (differ, equal): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|(user, _)| differing.contains(user));
        let seals = batch.seals.at_target(&equal);
        let mut landed = self.activate(equal, seals, None, Duration::ZERO).await?;
        let answers = differ
            .iter()
            .map(|(user, _)| (user.clone(), Answer::DIFFERS));
        landed.answers.extend(answers);
        landed.changes.extend(differ);
        self.land(batch, landed).await
    }

    /// Seals the rows at the target of users who have no seal, and says whose rows are not the released ones. Hashing takes as
    /// long as there are rows; the call that takes a user over has its lock, and must be short.
    async fn seal(
        &self,
        batch: &mut Batch,
        changes: &[(String, Change)],
    ) -> Result<HashSet<String>, Halt> {
        let unsealed: HashMap<&String, Digest> = changes
            .iter()
            .filter(|(user, _)| !batch.seals.target.contains_key(user))
            .filter_map(|(user, change)| Some((user, change.digest?)))
            .collect();
        if unsealed.is_empty() {
            return Ok(HashSet::new());
        }
        let users: Vec<String> = unsealed.keys().map(|user| (*user).clone()).collect();
        let found = digests(&self.write, &self.shared.run.id, &users).await?;
        let differing = unsealed
            .into_iter()
            .filter(|(user, released)| {
                let stored = found.rows.get(*user);
                stored.is_none_or(|stored| stored.digest != *released)
            })
            .map(|(user, _)| user.clone())
            .collect();
        batch.seals.target.extend(found.seals);
        Ok(differing)
    }

    async fn book(&self, batch: &mut Batch, landed: Result<Landed, Halt>) -> Result<(), Halt> {
        self.land(batch, landed?).await
    }

    /// P7: one call for a group.
    async fn activate(
        &self,
        changes: Vec<(String, Change)>,
        seals: HashMap<String, Seal>,
        since: Option<Instant>,
        held: Duration,
    ) -> Result<Landed, Halt> {
        let terms = change::Terms {
            seals: Some(&seals),
            ..self.waiting(None)
        };
        let answers = change::apply(&self.target, terms, &borrowed(&changes)).await?;
        Ok(Landed {
            stall: since.map_or(Duration::ZERO, |since| held + since.elapsed()),
            since,
            changes,
            answers,
        })
    }

    /// Books who is served by the target now. Whose rows there are not the released ones is mended from the source's
    /// frozen rows, once; if that does not help the source gets its user back.
    async fn land(&self, batch: &mut Batch, landed: Landed) -> Result<(), Halt> {
        let mut landed = landed;
        let mut mended: HashSet<String> = HashSet::new();
        let mut lost: Vec<String> = Vec::new();
        loop {
            let mut differ = Vec::new();
            let mut again = Vec::new();
            let mut moved = 0;
            let mut rows = 0;
            for (user, change) in landed.changes {
                match landed
                    .answers
                    .get(&user)
                    .map(|answer| (answer.outcome, answer.rows))
                {
                    Some((Outcome::Changed | Outcome::Done, its_rows)) => {
                        moved += 1;
                        rows += its_rows;
                        batch.settle(&user, "moved", None, landed.stall);
                    }
                    Some((Outcome::Differs, _)) => differ.push((user, change)),
                    // A stopped mover's transaction over these rows is not over yet.
                    Some((Outcome::Busy, _)) => again.push((user, change)),
                    Some((Outcome::Stale, _)) | None => batch.forget(&[user]),
                }
            }
            if moved > 0 {
                self.shared.hold.at(Point::Activated).await;
                self.shared.tell(Event::Moved {
                    lane: self.number,
                    stalls: vec![landed.stall; moved],
                    rows,
                });
            }
            for (user, change) in differ {
                // One by one: whoever can be mended is served again, whatever is the matter with the others.
                if mended.insert(user.clone()) && Box::pin(self.repair(batch, &user)).await? {
                    again.push((user, change));
                } else {
                    lost.push(user);
                }
            }
            if again.is_empty() {
                break;
            }
            let seals = batch.seals.at_target(&again);
            let since = landed.since;
            landed = self.activate(again, seals, since, Duration::ZERO).await?;
        }
        if lost.is_empty() {
            return Ok(());
        }
        Box::pin(self.take_back(batch, &lost)).await
    }

    /// Mends a user's rows from the source's frozen ones; false when they cannot be made equal.
    async fn repair(&self, batch: &mut Batch, user: &str) -> Result<bool, Halt> {
        let repaired = mend(self, batch, &[user.to_owned()]).await;
        match repaired {
            Err(Halt::Mismatch(_)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Says whose open transaction a user waits for.
    async fn tell_who_is_in_the_way(&self, users: &[String]) -> Result<(), Halt> {
        let sql = "SELECT a.pid, extract(epoch FROM clock_timestamp() - a.xact_start)::bigint FROM pg_locks l \
                   JOIN pg_stat_activity a USING (pid) JOIN regionwise.install i ON l.classid::bigint = i.class \
                   WHERE l.locktype = 'advisory' AND l.granted AND a.pid <> pg_backend_pid() \
                   AND l.objid::bigint IN (SELECT hashtext(u)::bigint & 4294967295 FROM unnest($1::text[]) u) \
                   ORDER BY a.xact_start LIMIT 1";
        let found = self.source.query(sql, &[&users]).await?;
        let (who, count) = (found.first(), users.len());
        let reason = match who {
            Some(row) => {
                let (pid, seconds): (i32, Option<i64>) = (row.get(0), row.get(1));
                let seconds = seconds.unwrap_or(0);
                format!(
                    "{count} users are in open transactions; that of pid {pid} is {seconds} s old"
                )
            }
            None => format!("{count} users are in open transactions"),
        };
        self.shared.tell(Event::Waiting { reason });
        Ok(())
    }

    /// The target cannot be made equal: its routes are cancelled, then the source's opened again, and the run pauses.
    async fn take_back(&self, batch: &mut Batch, users: &[String]) -> Result<(), Halt> {
        let mut found = None;
        for user in users {
            let located = mismatch::locate(&self.shared, &self.read, &self.write, user).await;
            found = found.or(located.ok());
            self.open_again(batch, user).await?;
        }
        batch.forget(users);
        Err(Halt::Mismatch(found.unwrap_or_default()))
    }

    /// Cancels a released user's move at the target, then opens the source again. Nobody serves the user meanwhile, so
    /// whoever is in the way is waited for; a runner that took over does it itself.
    pub(crate) async fn open_again(&self, batch: &mut Batch, user: &str) -> Result<(), Halt> {
        loop {
            self.look(batch).await?;
            let routes = (batch.sources.get(user), batch.targets.get(user));
            let (Some(source), Some(target)) = routes else {
                return Ok(());
            };
            if let Ok(change) = step::reopen(source, target, batch.token) {
                self.reopen(batch, vec![(user.to_owned(), change)]).await?;
            } else if source.state == State::Moved
                && let Ok(change) = step::cancel(source, target, batch.token)
            {
                self.give_up(batch, vec![(user.to_owned(), change)]).await?;
            } else {
                return Ok(());
            }
        }
    }
}
