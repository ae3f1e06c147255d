//! What a run has done so far, added up from its events: for progress while it goes, and for the report after it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use regionwise_cli::Work;
use regionwise_mover::Event;
use regionwise_relocation::protocol::State;

/// Rates over less time than this say nothing.
const FIRST_RATE: Duration = Duration::from_millis(500);

/// Added up over all lanes of this process.
pub(crate) struct Counts {
    pub(crate) moved: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Users who wrote meanwhile and came again.
    pub(crate) again: u64,
    /// How many users for which reason.
    pub(crate) set_aside: BTreeMap<String, usize>,
    /// How many users a rehearsal left out because the target has a route of them, by its state.
    pub(crate) not_rehearsed: BTreeMap<State, usize>,
    pub(crate) reconnects: u64,
    pub(crate) taken_over: u64,
    /// What the run waited for last, if it ever waited.
    pub(crate) waited_for: Option<String>,
    /// In microseconds.
    pub(crate) stalls: Histogram<u64>,
    /// Users moved and longest stall in each second of the run.
    pub(crate) seconds: Vec<Second>,
    began: Instant,
}

/// One second of a run, for the picture in the report.
#[derive(Clone, Copy, Default)]
pub(crate) struct Second {
    pub(crate) moved: u64,
    pub(crate) longest: Duration,
}

impl Counts {
    pub(crate) fn new(stalls: Histogram<u64>) -> Self {
        Self {
            moved: 0,
            rows: 0,
            bytes: 0,
            again: 0,
            set_aside: BTreeMap::new(),
            not_rehearsed: BTreeMap::new(),
            reconnects: 0,
            taken_over: 0,
            waited_for: None,
            stalls,
            seconds: Vec::new(),
            began: Instant::now(),
        }
    }

    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes an event in and shows what changed.
    pub(crate) fn take(&mut self, event: Event, total: u64, work: &Work) {
        match event {
            Event::Claimed {
                lane,
                batch,
                users,
                taken_over,
            } => {
                self.taken_over += u64::from(taken_over);
                let how = if taken_over { "takes over" } else { "begins" };
                work.worker(
                    lane,
                    &format!("lane {lane} {how} batch {batch}, {users} users"),
                );
            }
            Event::Shipped {
                lane,
                batch,
                rows,
                bytes,
                took,
            } => {
                self.rows += rows;
                self.bytes += bytes;
                let took = took.as_millis();
                work.worker(
                    lane,
                    &format!("lane {lane} has proven batch {batch}: {rows} rows in {took} ms"),
                );
            }
            Event::Moved { lane, stalls, .. } => self.moved(lane, &stalls, work),
            Event::Again { lane, users } => {
                self.again += u64::try_from(users).unwrap_or(0);
                work.worker(
                    lane,
                    &format!("lane {lane} fetches changes of {users} users"),
                );
            }
            Event::SetAside {
                lane,
                users,
                reason,
            } => {
                work.worker(lane, &format!("lane {lane} sets {users} aside: {reason}"));
                *self.set_aside.entry(reason).or_default() += users;
            }
            Event::NotRehearsed { lane, users, state } => {
                work.worker(lane, &format!("lane {lane} leaves {users} out"));
                *self.not_rehearsed.entry(state).or_default() += users;
            }
            // The caller knows the total.
            Event::Placed { .. } | Event::GoesOn => {}
            Event::Waiting { reason } => {
                work.set(self.moved, &format!("waits: {reason}"));
                self.waited_for = Some(reason);
                return;
            }
            Event::Reconnecting { lane, error } => {
                self.reconnects += 1;
                if let Some(lane) = lane {
                    work.worker(lane, &format!("lane {lane} connects again: {error}"));
                }
            }
        }
        work.set(self.moved, &self.note(total));
    }

    fn moved(&mut self, lane: usize, stalls: &[Duration], work: &Work) {
        self.moved += u64::try_from(stalls.len()).unwrap_or(0);
        let second = usize::try_from(self.took().as_secs()).unwrap_or(usize::MAX);
        // A run of more than a day draws its first day.
        if second < 86_400 && self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        for stall in stalls {
            self.stalls
                .saturating_record(u64::try_from(stall.as_micros()).unwrap_or(u64::MAX));
            if let Some(second) = self.seconds.get_mut(second) {
                second.moved += 1;
                second.longest = second.longest.max(*stall);
            }
        }
        work.worker(lane, &format!("lane {lane} moved {} users", stalls.len()));
    }

    /// Rates, stalls, time left. What is not measured yet is not there.
    fn note(&self, total: u64) -> String {
        let took = self.took();
        if took < FIRST_RATE || self.moved == 0 {
            return format!("{} rows proven", self.rows);
        }
        let users = per_second(self.moved, took);
        let rows = per_second(self.rows, took);
        let left = Duration::from_secs(total.saturating_sub(self.moved) / users.max(1));
        format!(
            "{users} users/s, {rows} rows/s, {} left, stall p50 {} p99 {} max {}, {} came again",
            humantime::format_duration(left),
            millis(self.stalls.value_at_quantile(0.5)),
            millis(self.stalls.value_at_quantile(0.99)),
            millis(self.stalls.max()),
            self.again
        )
    }
}

pub(crate) fn per_second(count: u64, took: Duration) -> u64 {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1000) / millis
}

/// Microseconds as people read them.
pub(crate) fn millis(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{} ms", micros / 1000),
    }
}
