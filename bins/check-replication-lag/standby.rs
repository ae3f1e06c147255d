//! One task per standby: looks for the tokens and says what it saw.

use std::time::Duration;

use regionwise_postgres::heartbeat::{self, Writer};
use regionwise_postgres::replication::{self, Lsn, Receiver, Standby};
use regionwise_postgres::{Error, Kind};
use regionwise_rollout::lag::{
    Cause, Facts, Flow, Looks, PrimaryFacts, Rule, Sample, Seen, StandingBeat, behind_at_start,
    refusal,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};

use crate::clock::Clock;
use crate::line::Line;
use crate::observe::{Blocked, Event, cause};
use crate::primary::{Written, unfit};

/// While a token is under way the looks come close together: the time between two is part of the uncertainty.
const LOOKS_PER_THRESHOLD: u32 = 10;
const CLOSEST_LOOKS: Duration = Duration::from_millis(10);
const WIDEST_LOOKS: Duration = Duration::from_millis(100);

pub(crate) struct Task {
    pub(crate) cluster: usize,
    pub(crate) standby: usize,
    pub(crate) line: Line,
    pub(crate) writer: Writer,
    pub(crate) rule: Rule,
    pub(crate) clock: Clock,
    pub(crate) written: watch::Receiver<Written>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) seen: Memory,
}

/// What earlier looks showed.
#[derive(Default)]
pub(crate) struct Memory {
    looks: Looks,
    token: u64,
    server: Option<String>,
    /// Where the standby's replay was, and when that was known.
    replayed: Option<(Duration, Lsn)>,
    standing: Vec<StandingBeat>,
    answered: bool,
}

/// What a look adds to the sample: the standby's own words and distances.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) facts: Facts,
    /// Written on the primary, not yet received: what a failover would lose.
    pub(crate) transport_bytes: Option<u64>,
    /// Received, not yet replayed.
    pub(crate) apply_bytes: Option<u64>,
    pub(crate) pooled: bool,
}

impl Task {
    /// Looks until it is aborted.
    pub(crate) async fn run(mut self) {
        loop {
            let from = self.clock.now();
            match self.look().await {
                Ok(()) => self.wait().await,
                Err(error) => {
                    self.tell_failure(from, &error);
                    sleep_until(self.clock.at(from + self.rule.interval)).await;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let session = self.line.session().await?;
        if let Some(blocked) = unfit(session) {
            self.send(Event::Blocked {
                cluster: self.cluster,
                standby: Some(self.standby),
                blocked,
            });
            return Ok(());
        }
        let pooled = session.is_pooled();
        let mut from = self.clock.now();
        let said = match replication::standby(session, &self.writer).await {
            // Replay and our statement were in each other's way; the next one may be luckier.
            Err(error) if error.kind == Kind::Conflict => {
                from = self.clock.now();
                replication::standby(self.line.session().await?, &self.writer).await?
            }
            said => said?,
        };
        let to = self.clock.now();
        self.seen.answered = true;
        if self
            .seen
            .server
            .replace(said.server.clone())
            .is_some_and(|before| before != said.server)
        {
            self.seen = Memory {
                server: Some(said.server.clone()),
                answered: true,
                ..Memory::default()
            };
            let detail = format!("another server answers: {}", said.server);
            self.send_sample(Sample {
                from,
                to,
                seen: Seen::Unknown(Cause {
                    word: "other-server",
                    detail,
                }),
            });
            return Ok(());
        }
        self.tell_facts(&said, to, pooled);
        self.tell_sample(&said, from, to);
        self.look_at_standing(from).await
    }

    fn tell_sample(&mut self, said: &Standby, from: Duration, to: Duration) {
        let token = said.token.unwrap_or(0);
        let sample =
            self.seen
                .looks
                .look(&self.written.borrow().tokens, &self.rule, from, to, token);
        self.seen.token = token;
        if let Some(sample) = sample {
            self.send_sample(sample);
        }
    }

    fn tell_facts(&mut self, said: &Standby, to: Duration, pooled: bool) {
        let written = self.written.borrow();
        let Some(primary) = &written.facts else {
            return;
        };
        let ahead_bytes = match (self.seen.replayed, written.flushed) {
            // Only an end of the WAL that was asked for later proves that the standby has more than there is.
            (Some((known, replayed)), Some((asked, flushed))) if asked > known => {
                replayed.ahead_of(flushed)
            }
            _ => 0,
        };
        let flushed = written.flushed.map(|(_, lsn)| lsn);
        let reading = Reading {
            facts: facts(said, primary, ahead_bytes),
            transport_bytes: flushed
                .zip(said.receive_lsn)
                .map(|(flushed, received)| flushed.ahead_of(received)),
            apply_bytes: said
                .receive_lsn
                .zip(said.replay_lsn)
                .map(|(received, replayed)| received.ahead_of(replayed)),
            pooled,
        };
        let about_primary = PrimaryFacts {
            in_recovery: primary.in_recovery,
            system_identifier: primary.system_identifier,
            timeline: primary.timeline,
        };
        let refused = refusal(&about_primary, &reading.facts);
        drop(written);
        self.seen.replayed = said.replay_lsn.map(|lsn| (to, lsn));
        let (cluster, standby) = (self.cluster, Some(self.standby));
        self.send(match refused {
            Some(refusal) => Event::Refused {
                cluster,
                standby,
                refusal,
            },
            None => Event::Read {
                cluster,
                standby: self.standby,
                reading: Box::new(reading),
            },
        });
    }

    /// Looks at what a writer that was here before us tells about the time before we came.
    async fn look_at_standing(&mut self, from: Duration) -> Result<(), Error> {
        let next = self
            .written
            .borrow()
            .standing
            .get(self.seen.standing.len())
            .cloned();
        let Some(standing) = next else { return Ok(()) };
        let standby =
            heartbeat::last_beat(self.line.session().await?, &self.writer, &standing).await?;
        self.seen.standing.push(StandingBeat {
            clock: standing.clock,
            primary: standing.beat,
            standby,
        });
        if let [first, second] = self.seen.standing.as_slice()
            && let Some(least) = behind_at_start(first, second)
            && least > self.rule.threshold
        {
            self.send_sample(Sample {
                from,
                to: self.clock.now(),
                seen: Seen::AtLeast(least),
            });
        }
        Ok(())
    }

    /// Until the next look: soon while a token is under way, else when there is a new one.
    async fn wait(&mut self) {
        let close = (self.rule.threshold / LOOKS_PER_THRESHOLD).clamp(CLOSEST_LOOKS, WIDEST_LOOKS);
        let missing = {
            let written = self.written.borrow_and_update();
            written
                .tokens
                .iter()
                .find(|token| token.seq > self.seen.token)
                .copied()
        };
        match missing {
            Some(token) if self.clock.now() <= token.acked + self.rule.threshold => {
                sleep(close).await;
            }
            // It is too late for this token already; when it comes need not be known so exactly.
            Some(_) => sleep(self.rule.interval / 2).await,
            // Without a token for so long there is still the standby's own state to look at.
            None => {
                let _ = timeout(self.rule.interval, self.written.changed()).await;
            }
        }
    }

    fn tell_failure(&self, from: Duration, error: &Error) {
        if matches!(error.kind, Kind::Auth | Kind::Tls) && !self.seen.answered {
            let blocked = Blocked::login(error);
            return self.send(Event::Blocked {
                cluster: self.cluster,
                standby: Some(self.standby),
                blocked,
            });
        }
        self.send_sample(Sample {
            from,
            to: self.clock.now(),
            seen: Seen::Unknown(cause("", error)),
        });
    }

    fn send_sample(&self, sample: Sample) {
        self.send(Event::Sample {
            cluster: self.cluster,
            standby: self.standby,
            sample,
        });
    }

    fn send(&self, event: Event) {
        // Nobody listens any more only when the run is over.
        let _ = self.events.send(event);
    }
}

fn facts(said: &Standby, primary: &replication::Primary, ahead_bytes: u64) -> Facts {
    let lost = |name: &&String| {
        primary
            .slots
            .iter()
            .any(|slot| slot.name == **name && slot.wal_status.as_deref() == Some("lost"))
    };
    let (flow, timeline) = match &said.receiver {
        Receiver::None => (Flow::Disconnected, None),
        Receiver::Hidden => (Flow::Hidden, None),
        Receiver::Known { status, timeline } if status == "streaming" => {
            (Flow::Streaming, *timeline)
        }
        Receiver::Known { timeline, .. } => (Flow::Waiting, *timeline),
    };
    Facts {
        in_recovery: said.in_recovery,
        system_identifier: said.system_identifier,
        flow,
        timeline,
        replay_paused: said.replay_paused,
        apply_delay: said.apply_delay.clone(),
        lost_slot: said.slot.as_ref().filter(lost).cloned(),
        ahead_bytes,
    }
}
