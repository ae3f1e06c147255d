//! Brings the target's rows of a user up to date with the source's, sending only what differs.
//!
//! For users who wrote after the copy, whose copy somebody else began, who come back, and for a repair from frozen rows.
//! Rows are updated in place: deleted and inserted again, a waiting writer would find nothing (`UPDATE 0`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::time::{Duration, Instant};

use regionwise_postgres::{CopyIn, Direct, Error};
use regionwise_relocation::digest::RowHasher;
use regionwise_relocation::protocol::{Change, step};
use regionwise_relocation::sql::delta;
use regionwise_relocation::tuple::{CopyReader, TupleWriter};
use tokio::time::{interval, timeout};

use crate::batch::{Batch, Seals};
use crate::change::{self, Answer, Outcome, Seal};
use crate::event::Event;
use crate::failpoint::Point;
use crate::lane::{Halt, Lane};
use crate::mismatch;
use crate::referred::Ways;
use crate::rows::{CLOSE, Comparison, Listing, Lone, RowDigest};
use crate::ship::{
    Digests, MOST_ROWS, PIECE, Proven, Sent, Unshipped, dangling, digests, enter, seals,
};
use crate::terms::{LONG_FENCES, longest_fence};

/// Rows that differ are sent when so many are known: about 3 MB of keys.
const PORTION: usize = 20_000;

/// Well below what the server takes for silence (`idle_in_transaction_session_timeout`, 5 s).
const BEAT: Duration = Duration::from_secs(1);

/// What users' rows at the target are afterwards, and what was sent for it.
struct Mended {
    users: HashMap<String, Proven>,
    seals: Seals,
    sent: Sent,
}

impl Mended {
    fn book(self, batch: &mut Batch) {
        batch.add(&self.sent);
        batch.prove(self.users, self.seals);
    }
}

/// Makes the target's rows of these users equal to the source's and proves them, or sets aside who cannot be.
pub(crate) async fn mend(lane: &Lane, batch: &mut Batch, users: &[String]) -> Result<(), Halt> {
    let mut parts = vec![users.to_vec()];
    while let Some(users) = parts.pop() {
        for user in &users {
            batch.proven.remove(user);
            batch.seals.remove(user);
        }
        let began = Instant::now();
        match Box::pin(attempt(lane, batch, &users)).await {
            Ok(mended) => {
                lane.shared.tell(Event::Shipped {
                    lane: lane.number,
                    batch: batch.number,
                    rows: mended.users.values().map(|proven| proven.rows).sum(),
                    bytes: mended.sent.values().map(|(_, bytes)| bytes).sum(),
                    took: began.elapsed(),
                });
                mended.book(batch);
            }
            Err(why) if comes_anew(batch, &users, &why) => parts.push(users),
            Err(why) => Box::pin(lane.part(batch, &mut parts, users, why)).await?,
        }
    }
    Ok(())
}

/// Rows of one user that have exchanged values of a unique key exclude each other while one is updated before the other.
/// Whether it is tried once more for that reason, with what differs deleted first and inserted again.
fn comes_anew(batch: &mut Batch, users: &[String], why: &Unshipped) -> bool {
    let ([user], Unshipped::Conflict { .. }) = (users, why) else {
        return false;
    };
    batch.proven.remove(user);
    batch.seals.remove(user);
    batch.anew.insert(user.clone())
}

/// The last changes of a user who never stops writing: under its own fence, in one transaction at the source that ends
/// with the commit point. What the target must do then; `None` when the user has to be looked at again.
pub(crate) async fn under_fence(
    lane: &Lane,
    batch: &mut Batch,
    user: &str,
) -> Result<Option<Change>, Halt> {
    let users = [user.to_owned()];
    let session = &lane.source;
    let anew = batch.anew.contains(user);
    let longest = longest_fence(batch.proven.get(user).map_or(0, |proven| proven.rows));
    if batch.long_fences.get(user) >= Some(&LONG_FENCES) {
        let reason = format!(
            "the last changes of a user who never stops writing took longer than {} s, {LONG_FENCES} times: they are sent \
             under the user's lock",
            longest.as_secs()
        );
        lane.set_aside(batch, user, reason).await?;
        return Ok(None);
    }
    let released = async {
        // Before the fence: nobody but this lane writes there.
        let there = begin(lane, batch, &users).await;
        let held = async {
            let there = there?;
            session.batch("BEGIN").await?;
            let hold = "SELECT regionwise.lock_homes($1)";
            session.query(hold, &[&users.as_slice()]).await?;
            Ok(there)
        };
        let held: Result<Listing<'_>, Unshipped> = held.await;
        let mended = async {
            let brought = async {
                let there = held?;
                // Begun under the lock, so it sees all that was ever written.
                let here = snapshot(lane, &users).await?;
                Box::pin(bring(lane, anew, here, there, &users)).await
            };
            end(lane, brought.await).await
        };
        let mended = while_held(session, longest, Box::pin(mended)).await?;
        mended.book(batch);
        release_held(lane, batch, user).await
    };
    let released: Result<Option<Change>, Unshipped> = Box::pin(released).await;
    if let Err(Unshipped::LongFence) = released {
        *batch.long_fences.entry(user.to_owned()).or_default() += 1;
    }
    let end = match &released {
        Ok(Some(_)) => "COMMIT",
        Ok(None) | Err(_) => "ROLLBACK",
    };
    session.batch(end).await?;
    match released {
        Ok(change) => {
            if change.is_some() {
                lane.shared.hold.at(Point::Released).await;
            }
            Ok(change)
        }
        // Not had within the time that writers can be made to wait: it comes again.
        Err(Unshipped::Locked(error)) => {
            if error.place == lane.write.place() {
                // What is locked at the target is waited for without the user's lock.
                batch.proven.remove(user);
                batch.seals.remove(user);
            }
            batch.forget(&users);
            Ok(None)
        }
        Err(Unshipped::Superseded) => Err(Halt::Superseded),
        Err(Unshipped::Database(error)) => Err(Halt::from(error)),
        Err(Unshipped::Mismatch(mismatch)) => Err(Halt::Mismatch(mismatch)),
        Err(obstacle) => {
            if comes_anew(batch, &users, &obstacle) {
                batch.forget(&users);
            } else {
                lane.set_aside(batch, user, obstacle.to_string()).await?;
            }
            Ok(None)
        }
    }
}

/// P6 in the transaction that holds the fence.
async fn release_held(
    lane: &Lane,
    batch: &mut Batch,
    user: &str,
) -> Result<Option<Change>, Unshipped> {
    let (Some(source), Some(target), Some(proven)) = (
        batch.sources.get(user),
        batch.targets.get(user),
        batch.proven.get(user),
    ) else {
        return Ok(None);
    };
    let Ok(release) = step::release(source, target, batch.token, proven.digest) else {
        return Ok(None);
    };
    let release_under = async |seals| {
        let terms = change::Terms {
            seals,
            ..lane.waiting(Some(batch))
        };
        let changes = [(user, release.clone())];
        change::apply(&lane.source, terms, &changes).await
    };
    let mut answers = release_under(Some(&batch.seals.source)).await?;
    let differs = |answers: &HashMap<String, Answer>| {
        let answer = answers.get(user);
        answer.is_some_and(|answer| answer.outcome == Outcome::Differs)
    };
    if differs(&answers) {
        // A table that was rewritten under us (VACUUM FULL) breaks the seal of the same rows.
        answers = release_under(None).await?;
    }
    match answers.get(user).map(|answer| answer.outcome) {
        Some(Outcome::Changed | Outcome::Done) => Ok(lane.released(batch, user, &release)),
        Some(Outcome::Differs) => {
            // Under the fence nobody writes: this is no change of the user's, the rows are not equal.
            let users = [user.to_owned()];
            let found =
                mismatch::locate(&lane.shared, &lane.source, &lane.write, &users[0]).await?;
            Err(Unshipped::Mismatch(found))
        }
        Some(Outcome::Busy | Outcome::Stale) | None => {
            batch.forget(&[user.to_owned()]);
            Ok(None)
        }
    }
}

/// Waits for `work`, and says something in the transaction of `session` meanwhile: the server ends one that is silent, as
/// that of a mover that has stopped. After `longest` the session ends with its locks, and `work` with its own sessions.
async fn while_held<T>(
    session: &Direct,
    longest: Duration,
    work: impl Future<Output = Result<T, Unshipped>>,
) -> Result<T, Unshipped> {
    let beating = async {
        let mut work = pin!(work);
        let mut beat = interval(BEAT);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = beat.tick() => session.batch("").await?,
            }
        }
    };
    match timeout(longest, beating).await {
        Ok(done) => done,
        Err(_) => {
            session.close();
            Err(Unshipped::LongFence)
        }
    }
}

async fn attempt(lane: &Lane, batch: &Batch, users: &[String]) -> Result<Mended, Unshipped> {
    let mended = async {
        let (here, there) = tokio::join!(snapshot(lane, users), begin(lane, batch, users));
        let anew = users.iter().any(|user| batch.anew.contains(user));
        Box::pin(bring(lane, anew, here?, there?, users)).await
    };
    end(lane, mended.await).await
}

/// Rows as they are at the source now, all in one snapshot: what is listed is what is sent.
async fn snapshot<'a>(lane: &'a Lane, users: &[String]) -> Result<Listing<'a>, Error> {
    let source = &lane.read;
    let (begun, here) = tokio::join!(
        source.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        Listing::open(source, &lane.shared.run.id, users)
    );
    begun?;
    here
}

/// Opens the transaction at the target, with the rows that are there.
async fn begin<'a>(
    lane: &'a Lane,
    batch: &Batch,
    users: &[String],
) -> Result<Listing<'a>, Unshipped> {
    let target = &lane.write;
    // Sent together: the order is kept, one round trip is enough.
    let (begun, entered, there) = tokio::join!(
        target.batch("BEGIN"),
        enter(lane, target, batch.token, users),
        Listing::open(target, &lane.shared.run.id, users)
    );
    begun?;
    entered?;
    Ok(there?)
}

/// Sends what differs, and proves what the target has then. With `anew` rows that changed are deleted and inserted.
async fn bring(
    lane: &Lane,
    anew: bool,
    here: Listing<'_>,
    there: Listing<'_>,
    users: &[String],
) -> Result<Mended, Unshipped> {
    let source = &lane.read;
    let mut comparison = Comparison::new(here, there);
    let mut delta = Delta::new(lane, anew);
    while let Some(lone) = comparison.next().await? {
        if comparison.most_rows() > MOST_ROWS {
            finish(delta.copying.take()).await?;
            return Err(Unshipped::TooManyRows);
        }
        delta.note(lone);
        if delta.noted >= PORTION {
            Box::pin(delta.send()).await?;
            // The next rows of the comparison come over the same session.
            finish(delta.copying.take()).await?;
        }
    }
    let wanted = comparison.here();
    source.batch(CLOSE).await?;
    Box::pin(delta.send()).await?;
    let (applied, seals) = tokio::join!(Box::pin(delta.apply(users)), seals(source, users));
    let (stored, sent, altered) = applied?;
    for user in users {
        let wanted = wanted.get(user).copied();
        let wanted = wanted.unwrap_or_else(Proven::of_nothing);
        if stored.rows.get(user) != Some(&wanted) || altered.contains(user) {
            let found = mismatch::locate(&lane.shared, source, &lane.write, user).await?;
            return Err(Unshipped::Mismatch(found));
        }
    }
    lane.shared.hold.at(Point::Mending).await;
    let source = seals?
        .into_iter()
        .filter_map(|(user, versions)| {
            let digest = stored.rows.get(&user)?.digest;
            Some((user, Seal { versions, digest }))
        })
        .collect();
    Ok(Mended {
        users: stored.rows,
        seals: Seals {
            source,
            target: stored.seals,
        },
        sent,
    })
}

/// Ends the transactions at both sides.
async fn end(lane: &Lane, mended: Result<Mended, Unshipped>) -> Result<Mended, Unshipped> {
    let end = match mended {
        Ok(_) => "COMMIT",
        Err(_) => "ROLLBACK",
    };
    let (read, written) = tokio::join!(lane.read.batch("ROLLBACK"), lane.write.batch(end));
    let mended = mended?;
    read?;
    written?;
    lane.shared.hold.at(Point::Mended).await;
    Ok(mended)
}

/// What the target lacks, has otherwise, or has too much. It is collected there, in temporary tables of the transaction, and
/// applied when all of it is known: deletes come first, because what takes their place may need their unique keys.
///
/// One round trip to the target per table with new rows: the end of one COPY and the start of the next go together.
struct Delta<'a> {
    lane: &'a Lane,
    /// Nothing is updated in place.
    anew: bool,
    /// Not sent yet, by table.
    fetch: BTreeMap<usize, Vec<RowDigest>>,
    delete: BTreeMap<usize, Vec<Vec<String>>>,
    noted: usize,
    /// Statements that go ahead of the next COPY.
    prepare: Vec<String>,
    copying: Option<CopyIn<'a>>,
    /// Tables of which keys were noted at the target as not at the source.
    deleting: BTreeSet<usize>,
    sent: Sent,
    /// Users whose rows came over the wire as others than the source has hashed.
    altered: HashSet<String>,
}

impl<'a> Delta<'a> {
    fn new(lane: &'a Lane, anew: bool) -> Self {
        Self {
            lane,
            anew,
            fetch: BTreeMap::new(),
            delete: BTreeMap::new(),
            noted: 0,
            prepare: Vec::new(),
            copying: None,
            deleting: BTreeSet::new(),
            sent: Sent::new(),
            altered: HashSet::new(),
        }
    }

    fn note(&mut self, lone: Lone) {
        self.noted += 1;
        match lone {
            Lone::Here(row) => self.fetch.entry(row.table).or_default().push(row),
            Lone::There(row) => self.delete.entry(row.table).or_default().push(row.key),
        }
    }

    /// Brings what is noted to the temporary tables. The last COPY stays open.
    async fn send(&mut self) -> Result<(), Unshipped> {
        let closure = &self.lane.shared.closure;
        self.noted = 0;
        for (number, keys) in std::mem::take(&mut self.delete) {
            if self.deleting.insert(number) {
                self.prepare.push(delta::temporary_keys(closure, number));
            }
            self.prepare.push(delta::note_keys(closure, number, &keys));
        }
        let fetch = std::mem::take(&mut self.fetch);
        if fetch.is_empty() && !self.prepare.is_empty() {
            let prepare = std::mem::take(&mut self.prepare).join("; ");
            let copying = self.copying.take();
            let (finished, prepared) =
                tokio::join!(finish(copying), self.lane.write.batch(&prepare));
            finished?;
            prepared?;
        }
        for (number, rows) in fetch {
            self.copy(number, &rows).await?;
        }
        Ok(())
    }

    /// Rows of one table, hashed on the wire.
    async fn copy(&mut self, number: usize, rows: &[RowDigest]) -> Result<(), Unshipped> {
        let (shared, source) = (&self.lane.shared, &self.lane.read);
        let layout = &shared.layouts[number];
        let mut sink = Box::pin(self.open(number)).await?;
        let keys: Vec<Vec<String>> = rows.iter().map(|row| row.key.clone()).collect();
        let hasher = RowHasher::new(&shared.run.salt, layout.number);
        let mut reader = CopyReader::new(layout.fields() + 1);
        let mut writer = TupleWriter::new();
        let mut bytes = 0;
        let sql = delta::copy_out(&shared.closure, number, &keys);
        let mut out = source.copy_out(&sql).await?;
        while let Some(piece) = out.next().await? {
            bytes += u64::try_from(piece.len()).unwrap_or(0);
            reader.push(&piece);
            while let Some(tuple) = reader.next()? {
                let mut fields = tuple.fields();
                let row = fields
                    .next()
                    .flatten()
                    .and_then(|place| <[u8; 8]>::try_from(place).ok())
                    .map(i64::from_be_bytes)
                    .and_then(|place| usize::try_from(place - 1).ok())
                    .and_then(|place| rows.get(place))
                    .ok_or_else(|| source.unexpected("a row that nobody asked for"))?;
                if hasher.digest(fields.clone()) != row.digest {
                    self.altered.insert(row.user.clone());
                }
                writer.append(layout.passed_on(fields));
            }
            if writer.len() >= PIECE {
                sink.send(writer.take()).await?;
            }
        }
        let arrived = reader.finish()?;
        writer.trailer();
        sink.send(writer.take()).await?;
        self.copying = Some(sink);
        let sent = self.sent.entry(number).or_default();
        sent.0 += arrived;
        sent.1 += bytes;
        Ok(())
    }

    /// A COPY into the table's temporary table, behind the end of the COPY before it.
    async fn open(&mut self, number: usize) -> Result<CopyIn<'a>, Error> {
        let (target, shared) = (&self.lane.write, &self.lane.shared);
        let mut prepare = std::mem::take(&mut self.prepare);
        prepare.push(shared.layouts[number].temporary.clone());
        let prepare = prepare.join("; ");
        let copying = self.copying.take();
        let copy_in = delta::copy_in(&shared.closure, number);
        let (finished, prepared, sink) = tokio::join!(
            finish(copying),
            target.batch(&prepare),
            target.copy_in(&copy_in)
        );
        finished?;
        prepared?;
        sink
    }

    /// From the temporary tables into their tables, in one round trip with what the target has then: digests, rows and
    /// bytes that were sent, and users whose rows were others on the wire.
    async fn apply(
        mut self,
        users: &[String],
    ) -> Result<(Digests, Sent, HashSet<String>), Unshipped> {
        let (target, run) = (&self.lane.write, &self.lane.shared.run.id);
        let apply = self.statements(users).join("; ");
        let (finished, applied, dangling, noted, stored) = tokio::join!(
            finish(self.copying.take()),
            target.batch(&apply),
            dangling(self.lane, target, users),
            self.ways().noted(target),
            digests(target, run, users)
        );
        finished?;
        applied?;
        dangling?;
        let noted = noted?;
        noted.let_go(target).await?;
        if let Some(reference) = noted.references(target).await?.into_iter().next() {
            return Err(Unshipped::Referred(reference));
        }
        Ok((stored?, self.sent, self.altered))
    }

    /// How rows could be referred to that go, or get another key.
    fn ways(&self) -> Ways<'a> {
        let shared = &self.lane.shared;
        Ways::all(&shared.closure, &shared.incoming).to(&self.deleting)
    }

    /// What is there is updated in place. Deletes begin with children, whose users are found through their parents.
    fn statements(&self, users: &[String]) -> Vec<String> {
        let closure = &self.lane.shared.closure;
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        let ways = self.ways();
        let mut statements = vec![CLOSE.to_owned()];
        statements.extend(ways.prepare());
        statements.extend(ways.note_keyed());
        for number in self.deleting.iter().rev() {
            let changed = self.sent.contains_key(number) && !self.anew;
            if changed {
                statements.push(delta::index(closure, *number));
            }
            statements.push(delta::delete(closure, *number, &users, changed));
        }
        for number in self.sent.keys() {
            statements.extend(delta::update(closure, *number));
            statements.push(delta::insert(closure, *number));
        }
        statements.extend(ways.keep());
        statements
    }
}

async fn finish(copying: Option<CopyIn<'_>>) -> Result<(), Error> {
    match copying {
        Some(copying) => copying.finish().await.map(drop),
        None => Ok(()),
    }
}
