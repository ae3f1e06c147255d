//! The observation: all tasks at once, one loop that feeds the automata and stops as soon as the ending is certain.

use std::collections::BTreeMap;
use std::time::Duration;

use regionwise_cli::{Because, Context, Failure, Watch};
use regionwise_postgres::heartbeat::Writer;
use regionwise_postgres::replication::{Primary, Sender};
use regionwise_postgres::{Error, Options};
use regionwise_rollout::lag::{
    self, Cause, Ending, Observed as Judged, Refusal, Rule, Sample, Seen, State, Track,
};
use regionwise_rollout::{Verdict, spoken};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::clock::Clock;
use crate::clusters::Chosen;
use crate::line::Line;
use crate::samples;
use crate::standby::Reading;
use crate::{primary, standby};

/// How often the loop asks whether the ending is certain although nothing arrived.
const TICK: Duration = Duration::from_millis(50);

/// What holds for the whole run.
pub(crate) struct Terms {
    pub(crate) rule: Rule,
    pub(crate) wait: Option<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) plaintext: bool,
}

impl Terms {
    pub(crate) fn options(&self) -> Options {
        Options {
            application_name: "check-replication-lag".to_owned(),
            connect_within: self.timeout,
            answer_within: self.timeout,
            allow_plaintext: self.plaintext,
        }
    }

    /// The longest time that the run looks.
    pub(crate) fn length(&self) -> Duration {
        self.wait.unwrap_or(self.rule.observe)
    }
}

/// What the tasks tell. `standby` counts within its cluster; `None` is the primary.
pub(crate) enum Event {
    Sample {
        cluster: usize,
        standby: usize,
        sample: Sample,
    },
    Read {
        cluster: usize,
        standby: usize,
        reading: Box<Reading>,
    },
    NoToken {
        cluster: usize,
        from: Duration,
        to: Duration,
        cause: Cause,
    },
    Blocked {
        cluster: usize,
        standby: Option<usize>,
        blocked: Blocked,
    },
    Refused {
        cluster: usize,
        standby: Option<usize>,
        refusal: Refusal,
    },
}

/// A reason that nothing can be measured and that waiting does not change.
#[derive(Clone, Debug)]
pub(crate) struct Blocked {
    pub(crate) word: &'static str,
    pub(crate) text: String,
    pub(crate) hint: String,
}

impl Blocked {
    pub(crate) fn no_table(error: &Error) -> Self {
        Self {
            word: "no-heartbeat-table",
            text: error.to_string(),
            hint: SETUP.to_owned(),
        }
    }

    pub(crate) fn permission(error: &Error) -> Self {
        Self {
            word: "permission",
            text: error.to_string(),
            hint: SETUP.to_owned(),
        }
    }

    pub(crate) fn blind(place: &str) -> Self {
        let text = format!(
            "the role at {place} is not a member of pg_monitor: what it sees of replication is NULL"
        );
        Self {
            word: "permission",
            text,
            hint: SETUP.to_owned(),
        }
    }

    pub(crate) fn login(error: &Error) -> Self {
        let hint =
            "check the DSN that regions.toml refers to, and pg_hba.conf of that server".to_owned();
        Self {
            word: error.kind.word(),
            text: error.to_string(),
            hint,
        }
    }

    pub(crate) fn too_old(place: &str, version: u32) -> Self {
        let text = format!(
            "{place} runs PostgreSQL {}; 13 or newer is needed",
            version / 10_000
        );
        Self {
            word: "unsupported-version",
            text,
            hint: "upgrade that cluster".to_owned(),
        }
    }
}

const SETUP: &str = "check-replication-lag setup --print-sql";

/// Why a step of ours has no answer; `side` tells the primary's apart.
pub(crate) fn cause(side: &str, error: &Error) -> Cause {
    let detail = match side {
        "" => error.to_string(),
        side => format!("{side}: {error}"),
    };
    Cause {
        word: error.kind.word(),
        detail,
    }
}

/// Everything a report needs.
pub(crate) struct Observed {
    pub(crate) standbys: Vec<OfStandby>,
    pub(crate) end: End,
    pub(crate) length: Duration,
    /// Per cluster whose row could not be removed.
    pub(crate) left_behind: Vec<(String, String)>,
    /// Per cluster: fewer synchronous standbys stream than commits wait for.
    pub(crate) sync_blocked: Vec<String>,
}

/// One standby, in the order of `regions.toml`.
pub(crate) struct OfStandby {
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) track: Track,
    pub(crate) reading: Option<Reading>,
    /// The last sample had no answer, so the reading is old.
    silent: bool,
}

/// How the observation ended.
pub(crate) enum End {
    Judged(Ending),
    Blocked { node: String, blocked: Blocked },
    Stopped(Verdict),
}

impl OfStandby {
    pub(crate) fn state(&self) -> State {
        let over = self
            .track
            .now()
            .is_some_and(|lag| lag > self.track.rule().threshold);
        let facts = self
            .reading
            .as_ref()
            .filter(|_| !self.silent)
            .map(|reading| &reading.facts);
        State::of(facts, over)
    }

    fn note(&self) -> String {
        match (self.state(), self.track.now()) {
            (State::Unknown, _) | (_, None) => match self.track.last_cause() {
                Some(cause) => format!("unknown: {}", cause.detail),
                None => "unknown".to_owned(),
            },
            (State::Ok, Some(lag)) => format!("{} behind", spoken(lag)),
            (state, Some(lag)) => format!("{} behind, {}", spoken(lag), state.word()),
        }
    }
}

/// Observes until the ending is certain, a signal comes, or the time is over.
pub(crate) async fn run(
    chosen: &Chosen,
    terms: &Terms,
    samples: samples::File,
    context: &Context,
) -> Result<Observed, Failure> {
    let clock = Clock::start();
    let mut state = Gate::new(chosen, terms, samples);
    if state.standbys.is_empty() {
        return Ok(state.into_observed(End::Judged(Ending::Clear), clock.now()));
    }
    let (events, mut arriving) = mpsc::unbounded_channel();
    let tasks = Tasks::start(chosen, terms, clock, &events)?;
    let watches: Vec<Watch> = state
        .standbys
        .iter()
        .map(|standby| context.progress.watch(&standby.name, terms.length()))
        .collect();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            Some(event) = arriving.recv() => state.take(event)?,
            _ = tick.tick() => {}
            verdict = context.signals.received() => break End::Stopped(verdict),
        }
        let now = clock.now();
        if let Some(end) = state.ending(now) {
            break end;
        }
        for (standby, watch) in state.standbys.iter().zip(&watches) {
            watch.set(now, &standby.note());
        }
    };
    drop(watches);
    let length = clock.now();
    state.sync_blocked = tasks.sync_blocked();
    state.left_behind = tasks.stop(terms.timeout).await;
    state.samples_finish()?;
    Ok(state.into_observed(end, length))
}

struct Gate<'a> {
    terms: &'a Terms,
    chosen: &'a Chosen,
    standbys: Vec<OfStandby>,
    samples: Option<samples::File>,
    certain: Option<End>,
    left_behind: Vec<(String, String)>,
    sync_blocked: Vec<String>,
}

impl<'a> Gate<'a> {
    fn new(chosen: &'a Chosen, terms: &'a Terms, samples: samples::File) -> Self {
        let standbys = chosen.clusters.iter().flat_map(|cluster| {
            cluster.standbys.iter().map(|standby| OfStandby {
                cluster: cluster.name.clone(),
                name: standby.name.clone(),
                location: standby.location.clone(),
                track: Track::new(terms.rule),
                reading: None,
                silent: false,
            })
        });
        Self {
            terms,
            chosen,
            standbys: standbys.collect(),
            samples: Some(samples),
            certain: None,
            left_behind: Vec::new(),
            sync_blocked: Vec::new(),
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Sample {
                cluster,
                standby,
                sample,
            } => self.sample(self.position(cluster, standby), &sample)?,
            Event::NoToken {
                cluster,
                from,
                to,
                cause,
            } => {
                let sample = Sample {
                    from,
                    to,
                    seen: Seen::Unknown(cause),
                };
                for standby in 0..self.chosen.clusters[cluster].standbys.len() {
                    self.sample(self.position(cluster, standby), &sample)?;
                }
            }
            Event::Read {
                cluster,
                standby,
                reading,
            } => {
                let at = self.position(cluster, standby);
                self.standbys[at].reading = Some(*reading);
                self.standbys[at].silent = false;
            }
            Event::Blocked {
                cluster,
                standby,
                blocked,
            } => {
                let node = self.node(cluster, standby);
                self.certain.get_or_insert(End::Blocked { node, blocked });
            }
            Event::Refused {
                cluster,
                standby,
                refusal,
            } => {
                let standby = self.node(cluster, standby);
                self.certain
                    .get_or_insert(End::Judged(Ending::Refused { standby, refusal }));
            }
        }
        Ok(())
    }

    fn sample(&mut self, at: usize, sample: &Sample) -> Result<(), Failure> {
        let standby = &mut self.standbys[at];
        standby.track.take(sample);
        standby.silent = matches!(sample.seen, Seen::Unknown(_));
        match &mut self.samples {
            Some(file) => file.write(&standby.cluster, &standby.name, sample),
            None => Ok(()),
        }
    }

    fn ending(&mut self, now: Duration) -> Option<End> {
        if let Some(end) = self.certain.take() {
            return Some(end);
        }
        for standby in &mut self.standbys {
            standby.track.silence(now);
        }
        let judged: Vec<Judged<'_>> = self
            .standbys
            .iter()
            .map(|standby| Judged {
                name: &standby.name,
                track: &standby.track,
                state: standby.state(),
            })
            .collect();
        let ending = match self.terms.wait {
            Some(at_most) => lag::wait(&judged, now, at_most),
            None => lag::judge(&judged, now),
        };
        ending.map(End::Judged)
    }

    fn position(&self, cluster: usize, standby: usize) -> usize {
        self.chosen.clusters[..cluster]
            .iter()
            .map(|cluster| cluster.standbys.len())
            .sum::<usize>()
            + standby
    }

    fn node(&self, cluster: usize, standby: Option<usize>) -> String {
        let cluster = &self.chosen.clusters[cluster];
        standby
            .map_or(&cluster.primary, |standby| &cluster.standbys[standby])
            .name
            .clone()
    }

    fn samples_finish(&mut self) -> Result<(), Failure> {
        self.samples.take().map_or(Ok(()), samples::File::finish)
    }

    fn into_observed(self, end: End, length: Duration) -> Observed {
        let Self {
            standbys,
            left_behind,
            sync_blocked,
            ..
        } = self;
        Observed {
            standbys,
            end,
            length,
            left_behind,
            sync_blocked,
        }
    }
}

/// The running tasks.
struct Tasks {
    standbys: JoinSet<()>,
    primaries: JoinSet<(String, Result<(), Error>)>,
    /// Cluster, how many synchronous standbys its commits wait for, and what its primary's task knows.
    written: Vec<(String, u32, watch::Receiver<primary::Written>)>,
    stop: watch::Sender<bool>,
}

impl Tasks {
    fn start(
        chosen: &Chosen,
        terms: &Terms,
        clock: Clock,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Result<Self, Failure> {
        let (stop, stopping) = watch::channel(false);
        let mut tasks = Self {
            standbys: JoinSet::new(),
            primaries: JoinSet::new(),
            written: Vec::new(),
            stop,
        };
        for (at, cluster) in chosen.clusters.iter().enumerate() {
            let writer = Writer::new(&cluster.name).because(Verdict::Pause, || {
                "cannot get random bytes for the heartbeat's name".to_owned()
            })?;
            let (written, reading) = watch::channel(primary::Written::default());
            for (number, standby) in cluster.standbys.iter().enumerate() {
                let task = standby::Task {
                    cluster: at,
                    standby: number,
                    line: Line::new(standby.dsn.clone(), terms),
                    writer: writer.clone(),
                    rule: terms.rule,
                    clock,
                    written: reading.clone(),
                    events: events.clone(),
                    seen: standby::Memory::default(),
                };
                tasks.standbys.spawn(task.run());
            }
            let task = primary::Task {
                cluster: at,
                line: Line::new(cluster.primary.dsn.clone(), terms),
                writer,
                interval: terms.rule.interval,
                clock,
                written,
                events: events.clone(),
                stop: stopping.clone(),
                wrote: false,
            };
            let name = cluster.name.clone();
            tasks
                .primaries
                .spawn(async move { (name, task.run().await) });
            tasks
                .written
                .push((cluster.name.clone(), cluster.sync, reading));
        }
        Ok(tasks)
    }

    /// Clusters that wait for more synchronous standbys than there are: their commits hang.
    fn sync_blocked(&self) -> Vec<String> {
        let in_step =
            |sender: &&Sender| matches!(sender.sync_state.as_deref(), Some("sync" | "quorum"));
        let hangs = |sync: u32, facts: &Primary| {
            let there = facts.senders.iter().filter(in_step).count();
            !facts.synchronous.trim().is_empty() && there < sync.max(1) as usize
        };
        let blocked = self.written.iter().filter(|(_, sync, written)| {
            written
                .borrow()
                .facts
                .as_ref()
                .is_some_and(|facts| hangs(*sync, facts))
        });
        blocked.map(|(name, ..)| name.clone()).collect()
    }

    /// Ends every task and removes the rows; says which stayed. Whoever sent a signal does not wait for ever.
    async fn stop(mut self, within: Duration) -> Vec<(String, String)> {
        self.standbys.shutdown().await;
        let _ = self.stop.send(true);
        let mut left: BTreeMap<String, String> = self
            .written
            .iter()
            .map(|(name, ..)| (name.clone(), "no answer in time".to_owned()))
            .collect();
        let end = Instant::now() + within;
        while let Ok(Some(ended)) = timeout_at(end, self.primaries.join_next()).await {
            // A task that did not end by itself is a bug of ours, and its row stays listed.
            let Ok((cluster, removed)) = ended else {
                continue;
            };
            match removed {
                Ok(()) => left.remove(&cluster),
                Err(error) => left.insert(cluster, error.to_string()),
            };
        }
        left.into_iter().collect()
    }
}
