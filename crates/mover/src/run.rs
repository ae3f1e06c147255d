//! A run from its beginning to its end, on this machine; others may work on the same one at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::catalog::Table;
use regionwise_relocation::closure::Closure;
use regionwise_relocation::digest::Salt;
use regionwise_relocation::sql::refer::Incoming;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::control::Control;
use crate::ends::{Ends, Purpose};
use crate::event::Event;
use crate::failpoint::{Hold, Point};
use crate::journal::{self, Chosen, Remaining, Run, RunState};
use crate::lane::{Lane, LaneEnd};
use crate::layout::Layout;
use crate::mismatch::Mismatch;
use crate::older;
use crate::shared::{Shared, session_name};
use crate::terms::{BATCH_ROWS, Terms};
use crate::throttle::unmeasured;

/// How often a run looks for users that signed up, or came to match, while it worked.
const SWEEPS: u32 = 10;

/// How often the throttle is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is to be moved, and how.
pub struct Task {
    pub ends: Ends,
    pub closure: Closure,
    /// How rows of the closure can be referred to at the target, as far as the plan has looked there.
    pub incoming: Vec<Incoming>,
    /// The plan's hash: runners with the same one share a run.
    pub plan: String,
    /// `move` or `revert`.
    pub direction: &'static str,
    pub chosen: Chosen,
    /// Of the closure, as `install` wrote it into both clusters.
    pub shape: String,
    pub terms: Terms,
    pub holder: String,
    pub hold: Hold,
}

/// How a run ended here.
#[derive(Debug)]
pub struct Ended {
    pub run: String,
    pub how: How,
    pub remaining: Remaining,
}

impl Ended {
    fn at_once(how: How) -> Self {
        Self {
            run: String::new(),
            how,
            remaining: Remaining::default(),
        }
    }
}

#[derive(Debug)]
pub enum How {
    /// Every user has an outcome, and nobody was left.
    Finished,
    /// A row was not equal. Its user works at the source; the run waits for somebody to look.
    Mismatch(Mismatch),
    Paused(Pause),
    Stopped,
    OutOfTime,
    /// Everything was copied, proven and taken back.
    Rehearsed,
    /// There was nobody to move.
    NothingToDo,
    /// Somebody works on this run, of another plan.
    Locked(String),
    /// The fence is not the one that this plan needs.
    OtherShape(String),
}

/// Why nobody goes on before somebody has looked.
#[derive(Debug, thiserror::Error)]
pub enum Pause {
    /// DDL came to a table of the closure while the run was under way.
    #[error(
        "the schema at {0} is not the one that the fence was installed for: migrate-eu-users install, then plan, \
         then go on with the hash that it shows"
    )]
    OtherSchema(String),
    #[error("users come faster than they move: after {SWEEPS} sweeps {users} wait")]
    Outpaced { users: i64 },
    /// Batches are set aside, or another runner has written down why.
    #[error("{0}")]
    Noted(String),
}

/// Works on the run of this plan until it is over, or `stop` says so.
///
/// # Errors
/// A cluster cannot be reached, or says something unexpected; what is moved by then stays moved, and a new call goes on.
pub async fn run(
    task: Task,
    events: mpsc::UnboundedSender<Event>,
    stop: watch::Receiver<bool>,
) -> Result<Ended, Error> {
    let mut control = Control::open(&task.ends, events.clone()).await?;
    let installed = control
        .ask(async |source, target| {
            Ok(match journal::not_installed(source, &task.shape).await? {
                Some(why) => Some(why),
                None => journal::not_installed(target, &task.shape).await?,
            })
        })
        .await?;
    if let Some(why) = installed {
        return Ok(Ended::at_once(How::OtherShape(why)));
    }
    let timelines = control
        .ask(async |source, target| Ok([timeline(source).await?, timeline(target).await?]))
        .await?;
    let (plan, direction) = (&task.plan, task.direction);
    let alive = control
        .ask(async |source, target| older::settle(source, target, plan, direction, timelines).await)
        .await?;
    if let Some(run) = alive {
        return Ok(Ended::at_once(How::Locked(run)));
    }
    let joined = control.ask(async |source, target| join(&task, source, target).await);
    let Some(run) = joined.await? else {
        return Ok(Ended::at_once(How::NothingToDo));
    };
    task.hold.at(Point::Prepared).await;
    let round_trip = control.ask(async |_, target| round_trip(target).await);
    let round_trip = round_trip.await?;
    let (halt, stopping) = watch::channel(false);
    // Before the first look nobody knows.
    let unknown = task.terms.throttle.is_set();
    let unknown = unknown.then(|| "the throttle has not been looked at".to_owned());
    let (throttle, throttled) = watch::channel(unknown);
    let shared = Arc::new(Shared {
        layouts: Layout::all(&task.closure),
        ends: task.ends,
        run,
        plan: task.plan,
        direction: task.direction,
        holder: task.holder,
        closure: task.closure,
        incoming: task.incoming,
        timelines,
        hold: task.hold,
        events,
        lanes: task.terms.lanes.unwrap_or_else(|| lanes_for(round_trip)),
        fences: Arc::new(Semaphore::new(fences(round_trip))),
        terms: task.terms,
        stop: stopping,
        throttled,
        held: Mutex::new(HashMap::new()),
    });
    let mut attendants = JoinSet::new();
    attendants.spawn(renew(Arc::clone(&shared)));
    if shared.terms.throttle.is_set() {
        attendants.spawn(look(Arc::clone(&shared), throttle));
    }
    let out_of_time = attendants.spawn(wait(stop.clone(), shared.terms.max_runtime, halt.clone()));
    let how = sweep(&shared, &task.chosen, &mut control, &halt).await;
    let id = shared.run.id.clone();
    let rehearsal = shared.terms.rehearse;
    // Also of a run that failed: a rehearsal leaves nothing.
    let remaining = control
        .ask(async |source, target| {
            let remaining = journal::remaining(source, &id).await?;
            if rehearsal {
                journal::erase(source, target, &id).await?;
            }
            Ok(remaining)
        })
        .await;
    let how = match how? {
        How::Stopped if !*stop.borrow() => How::OutOfTime,
        other => other,
    };
    let remaining = remaining?;
    out_of_time.abort();
    attendants.shutdown().await;
    if matches!(how, How::Finished) {
        control
            .ask(async |source, _| journal::close(source, &id).await)
            .await?;
    }
    Ok(Ended {
        run: id,
        how,
        remaining,
    })
}

/// The run of this plan: the one that is under way, or a new one when there is somebody to move.
async fn join(task: &Task, source: &Direct, target: &Direct) -> Result<Option<Run>, Error> {
    let mut found = journal::latest(source, &task.plan).await?;
    if found
        .as_ref()
        .is_none_or(|run| run.state == RunState::Finished)
    {
        journal::create_missing_routes(source, &task.closure).await?;
        let waiting = journal::waiting(&task.closure, &task.chosen);
        let waiting: i64 = source
            .ask(&waiting)
            .await?
            .first()
            .map_or(0, |row| row.get(0));
        if waiting == 0 {
            return Ok(None);
        }
        let mut salt = [0; 32];
        getrandom::fill(&mut salt)
            .map_err(|error| source.unexpected(format!("no random bytes: {error}")))?;
        journal::begin(source, &task.plan, task.direction, &Salt(salt)).await?;
        found = journal::latest(source, &task.plan).await?;
    }
    let run = found.ok_or_else(|| source.unexpected("no run after one was written down"))?;
    journal::introduce(target, &run, &task.plan, task.direction).await?;
    if run.state == RunState::Paused {
        journal::reopen(source, &run.id).await?;
        journal::set_state(source, &run.id, RunState::Running, "").await?;
    }
    let size = batch_size(&task.closure, task.terms.batch_size);
    journal::fill(source, &run.id, &task.closure, &task.chosen, size).await?;
    Ok(Some(run))
}

/// Lanes until nobody is left, and once more for whoever came meanwhile.
async fn sweep(
    shared: &Arc<Shared>,
    chosen: &Chosen,
    control: &mut Control,
    halt: &watch::Sender<bool>,
) -> Result<How, Error> {
    let id = shared.run.id.as_str();
    let size = batch_size(&shared.closure, shared.terms.batch_size);
    let mut left = control
        .ask(async |source, _| journal::remaining(source, id).await)
        .await?;
    for _ in 0..SWEEPS {
        shared.tell(Event::Placed {
            users: u64::try_from(left.users).unwrap_or(0),
        });
        let how = lanes(shared, control, halt).await?;
        if matches!(how, How::Finished) && shared.terms.rehearse {
            return Ok(How::Rehearsed);
        }
        if !matches!(how, How::Finished) {
            return Ok(how);
        }
        left = control
            .ask(async |source, _| {
                journal::fill(source, id, &shared.closure, chosen, size).await?;
                journal::remaining(source, id).await
            })
            .await?;
        match (left.batches, left.paused) {
            (0, _) => return Ok(how),
            (open, paused) if open > paused => {}
            (_, paused) => {
                let note = format!("{paused} batches are set aside");
                return Ok(How::Paused(Pause::Noted(note)));
            }
        }
    }
    // Whoever came last waits for another run.
    Ok(How::Paused(Pause::Outpaced { users: left.users }))
}

async fn lanes(
    shared: &Arc<Shared>,
    control: &mut Control,
    halt: &watch::Sender<bool>,
) -> Result<How, Error> {
    let mut lanes = JoinSet::new();
    for number in 0..shared.lanes {
        let shared = Arc::clone(shared);
        lanes.spawn(async move { Lane::open_patiently(shared, number).await?.run().await });
    }
    let mut how = How::Finished;
    let mut failed = None;
    while let Some(end) = lanes.join_next().await {
        match end {
            Ok(Ok(LaneEnd::NothingLeft)) => {}
            Ok(Ok(LaneEnd::Stopped)) => {
                if matches!(how, How::Finished) {
                    how = How::Stopped;
                }
            }
            Ok(Ok(LaneEnd::Mismatch(mismatch))) => {
                let note = mismatch.to_string();
                halt.send_replace(true);
                if let Err(error) = pause(control, &shared.run.id, &note).await {
                    failed = Some(error);
                }
                how = How::Mismatch(mismatch);
            }
            Ok(Ok(LaneEnd::OtherSchema(place))) => {
                let why = Pause::OtherSchema(place);
                halt.send_replace(true);
                if let Err(error) = pause(control, &shared.run.id, &why.to_string()).await {
                    failed = Some(error);
                }
                how = How::Paused(why);
            }
            Ok(Err(error)) => {
                halt.send_replace(true);
                failed = Some(error);
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if matches!(how, How::Finished) {
        let id = &shared.run.id;
        let halted = control.ask(async |source, _| journal::halted(source, id).await);
        if let Some(note) = halted.await? {
            return Ok(How::Paused(Pause::Noted(note)));
        }
    }
    Ok(how)
}

/// Nobody claims a batch of the run any more.
async fn pause(control: &mut Control, run: &str, note: &str) -> Result<(), Error> {
    control
        .ask(async |source, _| journal::set_state(source, run, RunState::Paused, note).await)
        .await
}

/// Keeps our claims alive, and forgets those that are not ours any more.
async fn renew(shared: Arc<Shared>) {
    let mut session = None;
    loop {
        sleep(journal::LEASE / 4).await;
        let held = shared.held().clone();
        if held.is_empty() {
            continue;
        }
        if session.is_none() {
            let name = session_name(&shared.run.id, None);
            session = shared.ends.source.open(Purpose::Change, &name).await.ok();
        }
        let Some(open) = &session else {
            continue;
        };
        match journal::renew(open, &shared.run.id, &held).await {
            Ok(ours) => shared
                .held()
                .retain(|batch, token| ours.contains(batch) || held.get(batch) != Some(token)),
            // The commit point checks the claim itself: a renewal that is late costs a take-over, nothing else.
            Err(_) => session = None,
        }
    }
}

/// Looks at the throttle. Without an answer the run waits: the last one says nothing about now.
async fn look(shared: Arc<Shared>, throttle: watch::Sender<Option<String>>) {
    let mut sessions = None;
    loop {
        if sessions.is_none() {
            throttle.send_if_modified(|reason| {
                let knew = reason.is_none();
                reason.get_or_insert_with(|| unmeasured("its connections are opened"));
                knew
            });
        }
        let reason = match opened(&shared, sessions.take()).await {
            Ok((source, target)) => {
                let reason = shared.terms.throttle.reason(&source, &target).await;
                if source.is_open() && target.is_open() {
                    sessions = Some((source, target));
                }
                reason
            }
            Err(error) => Some(unmeasured(error)),
        };
        let waited = throttle.borrow().is_some();
        match &reason {
            Some(reason) => shared.tell(Event::Waiting {
                reason: reason.clone(),
            }),
            None if waited => shared.tell(Event::GoesOn),
            None => {}
        }
        throttle.send_replace(reason);
        sleep(LOOK_EVERY).await;
    }
}

/// The same sessions, or new ones where one of them has ended.
async fn opened(
    shared: &Shared,
    sessions: Option<(Direct, Direct)>,
) -> Result<(Direct, Direct), Error> {
    if let Some((source, target)) = sessions
        && source.is_open()
        && target.is_open()
    {
        return Ok((source, target));
    }
    let name = session_name(&shared.run.id, None);
    tokio::try_join!(
        shared.ends.source.open(Purpose::Change, &name),
        shared.ends.target.open(Purpose::Change, &name),
    )
}

/// Passes a stop on, and asks for one when the time is over.
async fn wait(mut stop: watch::Receiver<bool>, limit: Option<Duration>, halt: watch::Sender<bool>) {
    let began = Instant::now();
    let asked = stop.wait_for(|stop| *stop);
    match limit {
        Some(limit) => {
            tokio::select! {
                _ = asked => {}
                () = tokio::time::sleep_until(began + limit) => {}
            }
        }
        None => drop(asked.await),
    }
    halt.send_replace(true);
}

/// As many users as were asked for, fewer where they have many rows. The planner's statistics are good enough for that;
/// where there are none every user is taken for a small one.
fn batch_size(closure: &Closure, asked: u32) -> u32 {
    let known = |table: &Table| u64::try_from(table.estimated_rows).unwrap_or(0);
    let all: u64 = closure
        .tables
        .iter()
        .map(|member| known(&member.table))
        .sum();
    let users = known(&closure.root().table).max(1);
    let fitting = BATCH_ROWS / (all / users).max(1);
    asked.min(u32::try_from(fitting).unwrap_or(asked)).max(1)
}

/// One question, because it costs what it measures.
async fn round_trip(session: &Direct) -> Result<Duration, Error> {
    let asked = Instant::now();
    session.batch("").await?;
    Ok(asked.elapsed())
}

/// What a server needs for one group, about.
const SWITCH: Duration = Duration::from_millis(20);

/// Groups to have on their way at once: two to keep the servers busy, and what the round trip has room for.
fn fences(round_trip: Duration) -> usize {
    in_flight(2, round_trip).min(8)
}

/// A lane waits for about ten round trips per batch, in which others can work. More than keep the servers busy only make
/// each other's users wait.
fn lanes_for(round_trip: Duration) -> usize {
    in_flight(3, round_trip).min(8)
}

fn in_flight(busy: usize, round_trip: Duration) -> usize {
    let more = round_trip.as_millis() / SWITCH.as_millis();
    usize::try_from(more)
        .unwrap_or(usize::MAX)
        .saturating_add(busy)
}

/// Of the server's WAL now, not of its last checkpoint: a promotion shows at once.
pub(crate) async fn timeline(session: &Direct) -> Result<u32, Error> {
    let sql = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int";
    let rows = session.query(sql, &[]).await?;
    let timeline: i32 = rows.first().map_or(0, |row| row.get(0));
    u32::try_from(timeline).map_err(|_| session.unexpected(format!("timeline {timeline}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{fences, lanes_for};

    #[test]
    fn a_far_target_has_room_for_more_lanes_and_groups_but_not_for_any_number() {
        let at = |ms| {
            let round_trip = Duration::from_millis(ms);
            (lanes_for(round_trip), fences(round_trip))
        };
        assert_eq!(
            [0, 19, 20, 90, 5_000].map(at),
            [(3, 2), (3, 2), (4, 3), (7, 6), (8, 8)]
        );
    }
}
