//! The run as it is written down, on the source: runs, batches with their claims, members.
//!
//! One function per statement. Nobody who moves users remembers anything else: a run goes on from any machine.

use std::collections::HashMap;
use std::time::Duration;

use regionwise_postgres::{Direct, Error, Kind};
use regionwise_relocation::closure::Closure;
use regionwise_relocation::digest::Salt;
use regionwise_relocation::protocol::Token;
use regionwise_relocation::sql::install::VERSION;
use regionwise_relocation::sql::name;
use serde_json::Value;

use crate::change::token_of;

/// A claim that its holder does not renew in this time may be taken over: what users of a dead mover wait for.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// A run that is under way or over.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: String,
    pub salt: Salt,
    pub state: RunState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Running,
    /// A mismatch was found: nobody claims anything until somebody runs it again.
    Paused,
    Finished,
}

/// A batch that is ours until its lease ends.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) batch: i32,
    pub(crate) token: Token,
    /// Somebody else had begun it.
    pub(crate) taken_over: bool,
    /// Users that are not settled yet, in key order.
    pub(crate) users: Vec<String>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Batches that nobody has finished.
    pub batches: i64,
    /// Of these, how many somebody else holds.
    pub held: i64,
    pub paused: i64,
    /// Users without an outcome.
    pub users: i64,
    /// Users who could not be moved and stay.
    pub set_aside: i64,
    /// Users whom the run has moved, whichever runner did it.
    pub moved: i64,
}

/// The newest run of this plan, if there is one. A purge ends with the salt, and a run without it can be forgotten.
pub async fn latest(source: &Direct, plan: &str) -> Result<Option<Run>, Error> {
    let sql = "SELECT run, salt, state FROM regionwise.run \
               WHERE plan = $1 AND (salt IS NOT NULL OR state <> 'finished') ORDER BY started DESC, run DESC LIMIT 1";
    let rows = source.query(sql, &[&plan]).await?;
    rows.first()
        .map(|row| {
            let salt: Option<Vec<u8>> = row.get(1);
            let salt = salt
                .as_deref()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .ok_or_else(|| source.unexpected("a run without salt"))?;
            let state = match row.get(2) {
                "running" => RunState::Running,
                "paused" => RunState::Paused,
                "finished" => RunState::Finished,
                other => return Err(source.unexpected(format!("a run in state `{other}`"))),
            };
            Ok(Run {
                id: row.get(0),
                salt: Salt(salt),
                state,
            })
        })
        .transpose()
}

/// What stands in the note of a run that nobody will finish, because another plan came after it.
pub(crate) const GIVEN_UP: &str = "given up for another plan";

/// Takes every claim of a run away, and nobody claims a batch of it any more. A release that was on its way has arrived
/// by the time this returns; later ones find their claim gone.
///
/// The batches are paused too: a claim that saw the run as it was before looks at them once more.
pub(crate) async fn outdate(source: &Direct, run: &str, floor: Token) -> Result<(), Error> {
    source.batch("BEGIN").await?;
    let outdated = async {
        // A release holds its batch for as long as it hashes rows.
        source.batch("SET LOCAL lock_timeout = 0").await?;
        let pause = "UPDATE regionwise.run SET state = 'paused', note = $2 WHERE run = $1";
        source.execute(pause, &[&run, &GIVEN_UP]).await?;
        let raise = "UPDATE regionwise.batch SET state = 'paused', holder = NULL, expires = NULL, \
                     token = greatest(coalesce(token, 0), $2) + 1 WHERE run = $1 AND state <> 'done'";
        source.execute(raise, &[&run, &i64::from(floor)]).await
    };
    let outdated: Result<u64, Error> = outdated.await;
    let end = if outdated.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    source.batch(end).await?;
    outdated.map(drop)
}

/// The run is over, with users who have no outcome. False when somebody has taken it up again meanwhile.
pub(crate) async fn give_up(source: &Direct, run: &str) -> Result<bool, Error> {
    let sql = "UPDATE regionwise.run SET state = 'finished', finished = coalesce(finished, clock_timestamp()) \
               WHERE run = $1 AND note = $2 AND state <> 'running'";
    let changed = source.execute(sql, &[&run, &GIVEN_UP]).await?;
    Ok(changed == 1)
}

/// Writes a new run down. Two runners that do so at the same moment share the one that was first.
pub(crate) async fn begin(
    source: &Direct,
    plan: &str,
    direction: &str,
    salt: &Salt,
) -> Result<(), Error> {
    let sql = "INSERT INTO regionwise.run (run, plan, direction, salt, state, started) \
               SELECT left($1, 12) || CASE $2 WHEN 'rehearsal' THEN substr($1, 65) WHEN 'revert' THEN '-back-' ELSE '-' END \
                      || CASE $2 WHEN 'rehearsal' THEN '' ELSE (SELECT count(*) + 1 FROM regionwise.run WHERE plan = $1)::text END, \
                      $1, $2, $3, 'running', clock_timestamp() \
               WHERE NOT EXISTS (SELECT FROM regionwise.run WHERE plan = $1 AND state <> 'finished') \
               ON CONFLICT DO NOTHING";
    source
        .execute(sql, &[&plan, &direction, &salt.0.as_slice()])
        .await
        .map(drop)
}

/// Lets the target know the run: its digests need the salt.
pub(crate) async fn introduce(
    target: &Direct,
    run: &Run,
    plan: &str,
    direction: &str,
) -> Result<(), Error> {
    let sql = "INSERT INTO regionwise.run (run, plan, direction, salt, state, started) \
               VALUES ($1, $2, $3, $4, 'guest', clock_timestamp()) ON CONFLICT DO NOTHING";
    let salt = run.salt.0.as_slice();
    // A source that was promoted without its newest run would give the same name again, with another salt.
    let same = "SELECT salt = $2 FROM regionwise.run WHERE run = $1";
    let (written, known) = tokio::join!(
        async {
            target
                .execute(sql, &[&run.id, &plan, &direction, &salt])
                .await
        },
        async { target.query(same, &[&run.id, &salt]).await }
    );
    written?;
    match known?.first().and_then(|row| row.get::<_, Option<bool>>(0)) {
        Some(true) => Ok(()),
        Some(false) | None => Err(target.unexpected(format!(
            "that it knows another run {} than the source",
            run.id
        ))),
    }
}

/// Routes for users of this cluster that have none: from before the installation.
pub(crate) async fn create_missing_routes(
    source: &Direct,
    closure: &Closure,
) -> Result<u64, Error> {
    let (root, key) = root(closure);
    let sql = format!(
        "INSERT INTO regionwise.route (usr, state) SELECT u.{key}::text, 'home' FROM {root} u \
         WHERE NOT EXISTS (SELECT FROM regionwise.route r WHERE r.usr = u.{key}::text) \
         AND EXISTS (SELECT FROM regionwise.install WHERE signup) ON CONFLICT DO NOTHING"
    );
    source.execute(&sql, &[]).await
}

/// Whom a run moves.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// A condition over the root table's columns.
    pub users: String,
    pub came_by_a_run: bool,
}

/// Users who live here, are chosen and have no outcome in the run `$1`.
///
/// On the way back only those who came by a run: everybody else has always lived here.
fn candidates(closure: &Closure, chosen: &Chosen) -> String {
    let (root, key) = root(closure);
    let users = &chosen.users;
    let came = if chosen.came_by_a_run {
        "AND r.run IS NOT NULL "
    } else {
        ""
    };
    format!(
        "(SELECT {key} AS user_key FROM {root} WHERE ({users})) u \
         JOIN regionwise.route r ON r.usr = u.user_key::text AND r.state IN ('home', 'active') {came}\
         WHERE NOT EXISTS (SELECT FROM regionwise.member m WHERE m.run = $1 AND m.usr = r.usr)"
    )
}

/// How many users a new run would move now: `count`.
pub fn waiting(closure: &Closure, chosen: &Chosen) -> String {
    format!("SELECT count(*) FROM {}", candidates(closure, chosen)).replace("$1", "''")
}

/// Gives every user who waits a place in a new batch, in key order. How many batches that makes.
pub(crate) async fn fill(
    source: &Direct,
    run: &str,
    closure: &Closure,
    chosen: &Chosen,
    size: u32,
) -> Result<u64, Error> {
    let sql = format!(
        "WITH base AS (SELECT coalesce(max(batch) + 1, 0) AS first FROM regionwise.batch WHERE run = $1), \
              chosen AS (SELECT r.usr, row_number() OVER (ORDER BY u.user_key) - 1 AS place FROM {}), \
              placed AS (INSERT INTO regionwise.member (run, batch, usr, state) \
                         SELECT $1, (first + place / $2)::int, usr, 'open' FROM chosen, base RETURNING batch) \
         INSERT INTO regionwise.batch (run, batch, state, users) \
         SELECT $1, batch, 'open', count(*) FROM placed GROUP BY batch",
        candidates(closure, chosen)
    );
    let size = i64::from(size);
    source.batch("BEGIN").await?;
    let filled = async {
        // One runner at a time, however long the one before takes; the statement after it sees what that has placed.
        source.batch("SET LOCAL lock_timeout = 0").await?;
        let lock =
            "SELECT FROM regionwise.run WHERE run = $1 AND note IS DISTINCT FROM $2 FOR UPDATE";
        if source.query(lock, &[&run, &GIVEN_UP]).await?.is_empty() {
            return Ok(0);
        }
        let batches = source.execute(&sql, &[&run, &size]).await?;
        if batches > 0 {
            // Somebody else has just found nobody and closed it.
            let again = "UPDATE regionwise.run SET state = 'running', finished = NULL \
                         WHERE run = $1 AND state = 'finished'";
            source.execute(again, &[&run]).await?;
        }
        Ok(batches)
    };
    let filled: Result<u64, Error> = filled.await;
    let end = if filled.is_ok() { "COMMIT" } else { "ROLLBACK" };
    source.batch(end).await?;
    filled
}

/// The run is over, unless somebody has placed more users meanwhile.
pub(crate) async fn close(source: &Direct, run: &str) -> Result<(), Error> {
    let sql = "UPDATE regionwise.run r SET state = 'finished', note = '', finished = clock_timestamp() \
               WHERE r.run = $1 AND r.state = 'running' AND NOT EXISTS \
               (SELECT FROM regionwise.batch b WHERE b.run = r.run AND b.state <> 'done')";
    source.execute(sql, &[&run]).await.map(drop)
}

/// Whether the fence of this closure is installed: what is the matter if it is not.
pub(crate) async fn not_installed(session: &Direct, shape: &str) -> Result<Option<String>, Error> {
    let rows = match session
        .query("SELECT version, shape FROM regionwise.install", &[])
        .await
    {
        Err(error) if error.kind == Kind::Missing => Vec::new(),
        other => other?,
    };
    let place = session.place();
    let Some(row) = rows.first() else {
        return Ok(Some(format!("no fence is installed at {place}")));
    };
    let (version, installed): (i32, &str) = (row.get(0), row.get(1));
    if version != VERSION {
        return Ok(Some(format!(
            "the fence at {place} has version {version}, and this program needs {VERSION}"
        )));
    }
    Ok((installed != shape).then(|| {
        format!("the fence at {place} was installed for another schema than the one of now")
    }))
}

/// Whether no DDL came to the closure's tables since `install`.
pub(crate) async fn is_as_installed(session: &Direct) -> Result<bool, Error> {
    let sql = "SELECT fingerprint = regionwise.fingerprint() FROM regionwise.install";
    let rows = session.query(sql, &[]).await?;
    Ok(rows
        .first()
        .and_then(|row| row.get::<_, Option<bool>>(0))
        .unwrap_or(false))
}

/// Takes a rehearsal out of both clusters' books.
pub(crate) async fn erase(source: &Direct, target: &Direct, run: &str) -> Result<(), Error> {
    for session in [source, target] {
        for table in ["journal", "member", "batch", "run"] {
            let sql = format!("DELETE FROM regionwise.{table} WHERE run = $1");
            session.execute(&sql, &[&run]).await?;
        }
    }
    Ok(())
}

fn root(closure: &Closure) -> (String, String) {
    let root = &closure.root().table;
    (
        name::table(&root.name),
        name::identifier(&closure.user_key().name),
    )
}

/// `running`, `paused` or `finished`, with a word about why.
pub(crate) async fn set_state(
    source: &Direct,
    run: &str,
    state: RunState,
    note: &str,
) -> Result<(), Error> {
    let (word, over) = match state {
        RunState::Running => ("running", false),
        RunState::Paused => ("paused", false),
        RunState::Finished => ("finished", true),
    };
    let sql = "UPDATE regionwise.run SET state = $2, note = $3, \
               finished = CASE WHEN $4 THEN clock_timestamp() END WHERE run = $1";
    source
        .execute(sql, &[&run, &word, &note, &over])
        .await
        .map(drop)
}

/// Why nobody claims anything any more; `None` while the run is under way, and when everybody has an outcome.
pub(crate) async fn halted(source: &Direct, run: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT coalesce(nullif(note, ''), state) FROM regionwise.run \
               WHERE run = $1 AND (state NOT IN ('running', 'finished') OR note = $2)";
    let rows = source.query(sql, &[&run, &GIVEN_UP]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Takes the next batch: one whose holder is gone before one that nobody has begun, since users may wait for it.
/// The token is greater than every earlier one of this batch and than `floor`.
pub(crate) async fn claim(
    source: &Direct,
    run: &str,
    holder: &str,
    floor: Token,
) -> Result<Option<Claim>, Error> {
    // MATERIALIZED: inside of a join the choice could be made again for every row, and claim several.
    let sql = "WITH next AS MATERIALIZED \
                 (SELECT c.batch, c.started IS NOT NULL AS begun FROM regionwise.batch c \
                  WHERE c.run = $1 AND c.state = 'open' AND (c.expires IS NULL OR c.expires < clock_timestamp()) \
                  AND EXISTS (SELECT FROM regionwise.run WHERE run = $1 AND state = 'running') \
                  ORDER BY c.started IS NULL, c.batch LIMIT 1 FOR UPDATE SKIP LOCKED) \
               UPDATE regionwise.batch b \
               SET holder = $2, token = greatest(coalesce(b.token, 0), $3) + 1, \
                   expires = clock_timestamp() + make_interval(secs => $4), \
                   started = coalesce(b.started, clock_timestamp()) \
               FROM next WHERE b.run = $1 AND b.batch = next.batch \
               RETURNING b.batch, b.token, next.begun";
    let floor = i64::from(floor);
    let lease = LEASE.as_secs_f64();
    let rows = source.query(sql, &[&run, &holder, &floor, &lease]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let batch: i32 = row.get(0);
    let sql = "SELECT usr FROM regionwise.member WHERE run = $1 AND batch = $2 AND state = 'open' ORDER BY usr";
    let users = source.query(sql, &[&run, &batch]).await?;
    Ok(Some(Claim {
        batch,
        token: token_of(source, row.get(1))?,
        taken_over: row.get(2),
        users: users.iter().map(|row| row.get(0)).collect(),
    }))
}

/// Raises the token of a batch that is ours, because the target knows a higher one.
pub(crate) async fn raise(
    source: &Direct,
    run: &str,
    batch: i32,
    old: Token,
    new: Token,
) -> Result<bool, Error> {
    let sql = "UPDATE regionwise.batch SET token = $4 WHERE run = $1 AND batch = $2 AND token = $3";
    let (old, new) = (i64::from(old), i64::from(new));
    let changed = source.execute(sql, &[&run, &batch, &old, &new]).await?;
    Ok(changed == 1)
}

/// Renews claims; those that are not in the answer are lost. One that was given back meanwhile stays given back: held for
/// another lease by nobody, it would lock out the next plan.
pub(crate) async fn renew(
    source: &Direct,
    run: &str,
    claims: &HashMap<i32, Token>,
) -> Result<Vec<i32>, Error> {
    let sql = "UPDATE regionwise.batch b SET expires = clock_timestamp() + make_interval(secs => $4) \
               FROM unnest($2::int[], $3::bigint[]) AS ours(batch, token) \
               WHERE b.run = $1 AND b.batch = ours.batch AND b.token = ours.token AND b.state = 'open' \
                     AND b.holder IS NOT NULL \
               RETURNING b.batch";
    let (batches, tokens): (Vec<i32>, Vec<i64>) = claims
        .iter()
        .map(|(batch, token)| (*batch, i64::from(*token)))
        .unzip();
    let lease = LEASE.as_secs_f64();
    let rows = source
        .query(sql, &[&run, &batches, &tokens, &lease])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Gives an unfinished batch back at once.
pub(crate) async fn give_back(
    source: &Direct,
    run: &str,
    batch: i32,
    token: Token,
) -> Result<(), Error> {
    let sql = "UPDATE regionwise.batch SET expires = NULL, holder = NULL \
               WHERE run = $1 AND batch = $2 AND token = $3 AND state = 'open'";
    source
        .execute(sql, &[&run, &batch, &i64::from(token)])
        .await
        .map(drop)
}

/// A user whose move has an outcome.
pub(crate) struct Settled {
    pub(crate) user: String,
    /// `moved`, `stays` or `quarantined`.
    pub(crate) state: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) rounds: i32,
    pub(crate) stall: Duration,
    pub(crate) rows: i64,
}

/// Writes outcomes down; those of a lane that has lost its claim are its successor's to find.
pub(crate) async fn settle(
    source: &Direct,
    run: &str,
    token: Token,
    users: &[Settled],
) -> Result<(), Error> {
    let sql = "UPDATE regionwise.member m SET state = s.state, reason = s.reason, rounds = s.rounds, \
                      stall_us = s.stall_us, rows = s.rows \
               FROM unnest($2::text[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::bigint[]) \
                    AS s(usr, state, reason, rounds, stall_us, rows) \
               WHERE m.run = $1 AND m.usr = s.usr AND m.state = 'open' AND EXISTS \
               (SELECT FROM regionwise.batch b WHERE b.run = $1 AND b.batch = m.batch AND b.token = $8)";
    let keys: Vec<&str> = users.iter().map(|one| one.user.as_str()).collect();
    let states: Vec<&str> = users.iter().map(|one| one.state).collect();
    let reasons: Vec<Option<&str>> = users.iter().map(|one| one.reason.as_deref()).collect();
    let rounds: Vec<i32> = users.iter().map(|one| one.rounds).collect();
    let stalls: Vec<i64> = users.iter().map(|one| micros(one.stall)).collect();
    let rows: Vec<i64> = users.iter().map(|one| one.rows).collect();
    source
        .execute(
            sql,
            &[
                &run,
                &keys,
                &states,
                &reasons,
                &rounds,
                &stalls,
                &rows,
                &i64::from(token),
            ],
        )
        .await
        .map(drop)
}

/// Ends a batch whose users are all settled. `false` when one is not, or the claim is lost.
pub(crate) async fn finish(
    source: &Direct,
    run: &str,
    batch: i32,
    token: Token,
    rows: i64,
    bytes: i64,
) -> Result<bool, Error> {
    let sql = "UPDATE regionwise.batch b SET state = 'done', finished = clock_timestamp(), rows = $4, bytes = $5 \
               WHERE b.run = $1 AND b.batch = $2 AND b.token = $3 AND b.state = 'open' AND NOT EXISTS \
               (SELECT FROM regionwise.member m WHERE m.run = $1 AND m.batch = $2 AND m.state = 'open')";
    let changed = source
        .execute(sql, &[&run, &batch, &i64::from(token), &rows, &bytes])
        .await?;
    Ok(changed == 1)
}

/// Sets a batch aside: something in it must be looked at before anybody tries it again.
pub(crate) async fn set_aside(
    source: &Direct,
    run: &str,
    batch: i32,
    token: Token,
) -> Result<(), Error> {
    let sql = "UPDATE regionwise.batch SET state = 'paused', expires = NULL, holder = NULL \
               WHERE run = $1 AND batch = $2 AND token = $3";
    source
        .execute(sql, &[&run, &batch, &i64::from(token)])
        .await
        .map(drop)
}

/// Opens again what was set aside, because somebody runs the plan again.
pub(crate) async fn reopen(source: &Direct, run: &str) -> Result<(), Error> {
    let sql = "WITH batches AS (UPDATE regionwise.batch SET state = 'open', expires = NULL \
                                WHERE run = $1 AND state = 'paused') \
               UPDATE regionwise.member m SET state = 'open', reason = NULL \
               FROM regionwise.batch b WHERE m.run = $1 AND b.run = $1 AND b.batch = m.batch \
               AND m.state = 'quarantined' AND b.state <> 'done'";
    source.execute(sql, &[&run]).await.map(drop)
}

pub async fn remaining(source: &Direct, run: &str) -> Result<Remaining, Error> {
    let sql = "SELECT count(*) FILTER (WHERE state <> 'done'), \
                      count(*) FILTER (WHERE state = 'open' AND expires >= clock_timestamp()), \
                      count(*) FILTER (WHERE state = 'paused'), \
                      (SELECT count(*) FROM regionwise.member WHERE run = $1 AND state = 'open'), \
                      (SELECT count(*) FROM regionwise.member WHERE run = $1 AND state = 'quarantined'), \
                      (SELECT count(*) FROM regionwise.member WHERE run = $1 AND state = 'moved') \
               FROM regionwise.batch WHERE run = $1";
    let rows = source.query(sql, &[&run]).await?;
    let row = rows
        .first()
        .ok_or_else(|| source.unexpected("no count of batches"))?;
    Ok(Remaining {
        batches: row.get(0),
        held: row.get(1),
        paused: row.get(2),
        users: row.get(3),
        set_aside: row.get(4),
        moved: row.get(5),
    })
}

/// One line of the journal.
pub(crate) async fn note(
    source: &Direct,
    run: &str,
    batch: Option<i32>,
    step: &str,
    facts: &Value,
) -> Result<(), Error> {
    let sql = "INSERT INTO regionwise.journal (run, batch, step, facts) VALUES ($1, $2, $3, $4::text::jsonb)";
    source
        .execute(sql, &[&run, &batch, &step, &facts.to_string()])
        .await
        .map(drop)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
