//! The observation: every endpoint is asked again and again until the verdict is certain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use regionwise_cli::Context;
use regionwise_remote::http::{Answer, ProbeError};
use regionwise_rollout::Verdict;
use regionwise_rollout::health::{
    Ending, Endpoint, Looks, Reply, Rule, Standing, Target, Track, judge, look,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::targets::{Asked, Question};

/// How often the loop asks whether the observation is over although nothing arrived.
const TICK: Duration = Duration::from_millis(50);

/// What holds for the whole run.
pub(crate) struct Terms<'a> {
    pub(crate) rule: Rule,
    pub(crate) expected: Option<&'a str>,
    pub(crate) failed_before: BTreeSet<String>,
}

/// Everything a report needs.
pub(crate) struct Observed {
    pub(crate) region: Vec<Target>,
    pub(crate) untouched: Vec<Target>,
    pub(crate) end: End,
    pub(crate) length: Duration,
}

pub(crate) enum End {
    Judged(Ending),
    Stopped(Verdict),
}

/// One reply, and whose it is.
struct Arrival {
    untouched: bool,
    target: usize,
    endpoint: Endpoint,
    reply: Reply,
}

pub(crate) async fn run(asked: Asked, terms: &Terms<'_>, context: &Context) -> Observed {
    let start = Instant::now();
    let mut region = targets(&asked.region, &terms.rule);
    let mut untouched = targets(&asked.untouched, &terms.rule);
    let (send, mut arriving) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    ask_all(&mut tasks, asked.region, false, &terms.rule, &send);
    ask_all(&mut tasks, asked.untouched, true, &terms.rule, &send);
    let watch = context.progress.watch(
        "smoke-test",
        terms
            .rule
            .at_least
            .max(terms.rule.interval * terms.rule.successes),
    );
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            Some(arrival) = arriving.recv() => {
                // What the untouched regions run is none of this release's business.
                let (of, expected) = match arrival.untouched {
                    true => (&mut untouched, None),
                    false => (&mut region, terms.expected),
                };
                let looked = look(arrival.endpoint, &arrival.reply, expected, &terms.rule);
                if let Some(track) = of[arrival.target].tracks.get_mut(&arrival.endpoint) {
                    track.take(start.elapsed(), looked);
                }
            }
            _ = tick.tick() => {}
            verdict = context.signals.received() => break End::Stopped(verdict),
        }
        let now = start.elapsed();
        let looks = Looks {
            region: &region,
            untouched: &untouched,
            failed_before: &terms.failed_before,
            rule: &terms.rule,
        };
        if let Some(ending) = judge(&looks, now) {
            break End::Judged(ending);
        }
        watch.set(now, &note(&region, now));
    };
    drop(watch);
    tasks.shutdown().await;
    Observed {
        region,
        untouched,
        end,
        length: start.elapsed(),
    }
}

fn targets(questions: &[Question], rule: &Rule) -> Vec<Target> {
    let target = |question: &Question| {
        let tracks: BTreeMap<Endpoint, Track> = question
            .endpoints
            .iter()
            .map(|(end, _)| (*end, Track::new(*rule)))
            .collect();
        Target {
            name: question.probe.name().to_owned(),
            tracks,
        }
    };
    questions.iter().map(target).collect()
}

fn ask_all(
    tasks: &mut JoinSet<()>,
    questions: Vec<Question>,
    untouched: bool,
    rule: &Rule,
    arrivals: &mpsc::UnboundedSender<Arrival>,
) {
    for (target, question) in questions.into_iter().enumerate() {
        let probe = Arc::new(question.probe);
        for (endpoint, path) in question.endpoints {
            let (probe, arrivals, every) = (Arc::clone(&probe), arrivals.clone(), rule.interval);
            tasks.spawn(async move {
                loop {
                    let next = Instant::now() + every;
                    let reply = reply(probe.get(&path).await);
                    if arrivals
                        .send(Arrival {
                            untouched,
                            target,
                            endpoint,
                            reply,
                        })
                        .is_err()
                    {
                        return;
                    }
                    sleep_until(next).await;
                }
            });
        }
    }
}

fn reply(outcome: Result<Answer, ProbeError>) -> Reply {
    match outcome {
        Ok(Answer {
            status,
            release,
            content_type,
            body,
            latency,
        }) => Reply::Answer {
            status,
            release,
            content_type,
            body,
            latency,
        },
        Err(error) if error.is_answer() => Reply::Bad(error.to_string()),
        Err(error) => Reply::NotMeasured(error.to_string()),
    }
}

fn note(region: &[Target], now: Duration) -> String {
    let standings: Vec<Standing> = region
        .iter()
        .flat_map(|target| target.tracks.values())
        .map(|track| track.standing(now))
        .collect();
    let good = standings
        .iter()
        .filter(|standing| **standing == Standing::Good)
        .count();
    format!("{good} of {} endpoints good", standings.len())
}
