//! From the tracks of all standbys to one ending: go on, pause and why, or refuse. One function per reason.

use std::fmt;
use std::time::Duration;

use super::track::Run;
use super::{Cause, State, Track};
use crate::spoken;

/// A gate that saw less than this share of its time cannot vouch for it.
const COVERAGE: f64 = 0.9;
/// From this many measurements on, their median uncertainty says something.
const WIDTHS: usize = 10;

/// One standby at the moment of judging.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub name: &'a str,
    pub track: &'a Track,
    pub state: State,
}

/// How an observation ends. The standby is the one that decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    Clear,
    Pause { standby: String, reason: Reason },
    Refused { standby: String, refusal: Refusal },
}

/// Why a rollout waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Too much lag for too long; `state` says more where the servers do.
    Lagging {
        state: State,
        length: Duration,
        highest: Duration,
        threshold: Duration,
    },
    /// Not one answer in all the time.
    Unreachable {
        length: Duration,
        cause: Option<Cause>,
    },
    /// It answered before, and then nobody knew for too long.
    Unknown {
        length: Duration,
        cause: Option<Cause>,
    },
    /// The end of the observation was not clean.
    NotClear { clean: Duration, wanted: Duration },
    /// Too much of the time without knowledge.
    TooLittleSeen { coverage: f64 },
}

/// Why a gate does not even measure.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    PrimaryInRecovery,
    WrongCluster {
        primary: u64,
        standby: u64,
    },
    StandbyWritable,
    Forked {
        ahead_bytes: u64,
    },
    OtherTimeline {
        primary: u32,
        standby: u32,
    },
    NeedsRebuild {
        slot: String,
    },
    /// The measurement is less exact than half the threshold.
    TooCoarse {
        width: Duration,
        threshold: Duration,
    },
}

/// Something that did not stop the rollout and that a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Over the threshold, or unknown, for a while that is still allowed.
    Spikes { runs: u32, longest: Duration },
    Unknown {
        time: Duration,
        cause: Option<Cause>,
    },
    /// The threshold lay between the bounds of so many measurements.
    Grey { times: u32 },
}

/// What the samples so far decide; `None` while the observation has to go on.
pub fn judge(standbys: &[Observed<'_>], now: Duration) -> Option<Ending> {
    first(standbys, |standby| {
        too_coarse(standby.track, WIDTHS).map(refuse(standby))
    })
    .or_else(|| longest_breach(standbys))
    .or_else(|| {
        let over = standbys
            .iter()
            .all(|standby| now >= standby.track.rule().observe);
        over.then(|| {
            first(standbys, |standby| unclean_end(standby).map(pause(standby)))
                .or_else(|| {
                    first(standbys, |standby| {
                        too_coarse(standby.track, 1).map(refuse(standby))
                    })
                })
                .unwrap_or(Ending::Clear)
        })
    })
}

/// The same for a gate that waits until every standby is clean, `at_most` so long.
pub fn wait(standbys: &[Observed<'_>], now: Duration, at_most: Duration) -> Option<Ending> {
    if let Some(refused) = first(standbys, |standby| {
        too_coarse(standby.track, WIDTHS).map(refuse(standby))
    }) {
        return Some(refused);
    }
    let unclean = first(standbys, |standby| not_clear(standby).map(pause(standby)));
    match unclean {
        None => Some(Ending::Clear),
        Some(reason) => (now >= at_most).then(|| longest_breach(standbys).unwrap_or(reason)),
    }
}

/// Why a standby gets a mention although the rollout goes on.
pub fn warnings(track: &Track) -> Vec<Warning> {
    let numbers = track.numbers();
    let spikes = (numbers.runs > 0).then_some(Warning::Spikes {
        runs: numbers.runs,
        longest: numbers.longest,
    });
    let unknown = (!numbers.unknown.is_zero()).then(|| Warning::Unknown {
        time: numbers.unknown,
        cause: track.last_cause().cloned(),
    });
    let grey = (numbers.grey > 0).then_some(Warning::Grey {
        times: numbers.grey,
    });
    [spikes, unknown, grey].into_iter().flatten().collect()
}

fn first(
    standbys: &[Observed<'_>],
    ending: impl Fn(&Observed<'_>) -> Option<Ending>,
) -> Option<Ending> {
    standbys.iter().find_map(ending)
}

fn pause(standby: &Observed<'_>) -> impl FnOnce(Reason) -> Ending {
    let standby = standby.name.to_owned();
    |reason| Ending::Pause { standby, reason }
}

fn refuse(standby: &Observed<'_>) -> impl FnOnce(Refusal) -> Ending {
    let standby = standby.name.to_owned();
    |refusal| Ending::Refused { standby, refusal }
}

fn longest_breach(standbys: &[Observed<'_>]) -> Option<Ending> {
    let breached = standbys
        .iter()
        .filter_map(|standby| Some((standby, standby.track.breach()?)));
    let (standby, run) = breached.max_by_key(|(_, run)| run.length())?;
    Some(pause(standby)(not_ok(standby, run)))
}

fn not_ok(standby: &Observed<'_>, run: &Run) -> Reason {
    let length = run.length();
    if run.bad {
        let (threshold, numbers) = (standby.track.rule().threshold, standby.track.numbers());
        let state = if standby.state == State::Ok {
            State::Lagging
        } else {
            standby.state
        };
        return Reason::Lagging {
            state,
            length,
            highest: numbers.max.unwrap_or_default(),
            threshold,
        };
    }
    without_answer(standby.track, Some(run))
}

fn without_answer(track: &Track, run: Option<&Run>) -> Reason {
    let length = run.map_or(Duration::ZERO, Run::length);
    let cause = run.and_then(|run| run.cause.clone());
    match track.answered() {
        true => Reason::Unknown { length, cause },
        false => Reason::Unreachable { length, cause },
    }
}

fn unclean_end(standby: &Observed<'_>) -> Option<Reason> {
    not_clear(standby).or_else(|| too_little_seen(standby.track))
}

fn not_clear(standby: &Observed<'_>) -> Option<Reason> {
    let track = standby.track;
    // Still not ok at the end: not for too long yet, and nobody knows how it goes on.
    if let Some(run) = track.open_run() {
        return Some(not_ok(standby, run));
    }
    if track.measured() == 0 {
        return Some(without_answer(track, None));
    }
    let (clean, wanted) = (track.clean_for(), track.rule().clear_for);
    (clean < wanted).then_some(Reason::NotClear { clean, wanted })
}

fn too_little_seen(track: &Track) -> Option<Reason> {
    let coverage = track.numbers().coverage;
    (coverage < COVERAGE).then_some(Reason::TooLittleSeen { coverage })
}

fn too_coarse(track: &Track, at_least: usize) -> Option<Refusal> {
    let rule = track.rule();
    let width = track.numbers().width?;
    (!rule.coarse && track.measured() >= at_least && width > rule.threshold / 2).then_some(
        Refusal::TooCoarse {
            width,
            threshold: rule.threshold,
        },
    )
}

impl Reason {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Lagging { state, .. } => state.word(),
            Self::Unreachable { .. } => "unreachable",
            Self::Unknown { .. } => "unknown",
            Self::NotClear { .. } => "not-clear",
            Self::TooLittleSeen { .. } => "too-little-seen",
        }
    }
}

impl Refusal {
    pub const fn word(&self) -> &'static str {
        match self {
            Self::PrimaryInRecovery | Self::StandbyWritable => "wrong-role",
            Self::WrongCluster { .. } => "wrong-cluster",
            Self::Forked { .. } | Self::OtherTimeline { .. } => "forked",
            Self::NeedsRebuild { .. } => "needs-rebuild",
            Self::TooCoarse { .. } => "too-coarse",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagging {
                state,
                length,
                highest,
                threshold,
            } => {
                let [length, highest, threshold] =
                    [length, highest, threshold].map(|time| spoken(*time));
                write!(f, "over {threshold} behind for {length}, at most {highest}")?;
                match state {
                    State::Paused => write!(f, "; replay is paused"),
                    State::Disconnected => write!(f, "; nothing streams into it"),
                    State::DelayedByConfig => write!(f, "; `recovery_min_apply_delay` is set"),
                    State::Unknown => write!(f, "; it no longer answers"),
                    State::Ok | State::Lagging => Ok(()),
                }
            }
            Self::Unreachable { length, cause } => {
                write!(
                    f,
                    "no answer in {}{}",
                    spoken(*length),
                    because(cause.as_ref())
                )
            }
            Self::Unknown { length, cause } => {
                write!(
                    f,
                    "unknown for {}{}",
                    spoken(*length),
                    because(cause.as_ref())
                )
            }
            Self::NotClear { clean, wanted } => {
                write!(
                    f,
                    "clean for only the last {} of {}",
                    spoken(*clean),
                    spoken(*wanted)
                )
            }
            Self::TooLittleSeen { coverage } => {
                write!(f, "known for only {:.0} % of the time", coverage * 100.0)
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrimaryInRecovery => {
                write!(f, "the primary of its cluster is itself in recovery")
            }
            Self::WrongCluster { primary, standby } => {
                write!(
                    f,
                    "belongs to another cluster: system identifier {standby}, the primary has {primary}"
                )
            }
            Self::StandbyWritable => write!(
                f,
                "is not in recovery: a second writable node of its cluster"
            ),
            Self::Forked { ahead_bytes } => {
                write!(
                    f,
                    "is forked: it replayed {ahead_bytes} bytes that the primary does not have"
                )
            }
            Self::OtherTimeline { primary, standby } => {
                write!(
                    f,
                    "is forked: it follows timeline {standby}, the primary is on {primary}"
                )
            }
            Self::NeedsRebuild { slot } => {
                write!(
                    f,
                    "needs a rebuild: the primary dropped the WAL that slot `{slot}` kept for it"
                )
            }
            Self::TooCoarse { width, threshold } => write!(
                f,
                "can be measured only to within {}, too coarse for a threshold of {}",
                spoken(*width),
                spoken(*threshold)
            ),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spikes { runs: 1, longest } => write!(f, "was not ok for {}", spoken(*longest)),
            Self::Spikes { runs, longest } => {
                write!(
                    f,
                    "was not ok {runs} times, for at most {}",
                    spoken(*longest)
                )
            }
            Self::Unknown { time, cause } => {
                write!(
                    f,
                    "was unknown for {}{}",
                    spoken(*time),
                    because(cause.as_ref())
                )
            }
            Self::Grey { times } => write!(
                f,
                "was too close to the threshold to tell in {times} measurements"
            ),
        }
    }
}

fn because(cause: Option<&Cause>) -> String {
    cause
        .map(|cause| format!(": {}", cause.detail))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Bounds, Rule, Sample, Seen};
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const RULE: Rule = Rule {
        threshold: Duration::from_millis(500),
        sustained: Duration::from_secs(60),
        interval: Duration::from_secs(1),
        clear_for: Duration::from_secs(10),
        observe: Duration::from_secs(70),
        coarse: false,
    };

    /// So many samples of a kind.
    type Part = (u64, fn() -> Seen);

    fn cause() -> Cause {
        Cause {
            word: "refused",
            detail: "connection refused by 10.0.0.2:5432".to_owned(),
        }
    }

    fn ok() -> Seen {
        Seen::Lag(Bounds {
            min: ms(10),
            max: ms(30),
        })
    }

    fn bad() -> Seen {
        Seen::Lag(Bounds {
            min: ms(600),
            max: ms(640),
        })
    }

    fn unknown() -> Seen {
        Seen::Unknown(cause())
    }

    /// One sample a second, in the order of `parts`: how many of what.
    fn track(rule: Rule, parts: &[Part]) -> Track {
        let mut track = Track::new(rule);
        let seen = parts
            .iter()
            .flat_map(|(count, seen)| (0..*count).map(|_| seen()));
        for (second, seen) in (0..).zip(seen) {
            track.take(&Sample {
                from: seconds(second),
                to: seconds(second),
                seen,
            });
        }
        track
    }

    fn observed(track: &Track) -> [Observed<'_>; 1] {
        [Observed {
            name: "us-sin",
            track,
            state: State::Ok,
        }]
    }

    fn word(ending: Option<&Ending>) -> &str {
        match ending {
            None => "-",
            Some(Ending::Clear) => "clear",
            Some(Ending::Pause { reason, .. }) => reason.word(),
            Some(Ending::Refused { refusal, .. }) => refusal.word(),
        }
    }

    fn judged(parts: &[Part]) -> String {
        let track = track(RULE, parts);
        let now = seconds(parts.iter().map(|(count, _)| count).sum::<u64>() - 1);
        word(judge(&observed(&track), now).as_ref()).to_owned()
    }

    #[test]
    fn only_a_whole_clean_observation_lets_a_rollout_go_on() {
        assert_eq!(judged(&[(70, ok)]), "-");
        assert_eq!(judged(&[(71, ok)]), "clear");
        assert_eq!(
            judged(&[(20, ok), (5, bad), (46, ok)]),
            "clear",
            "a spike of 5 s"
        );
        assert_eq!(judged(&[(61, ok), (2, bad), (8, ok)]), "not-clear");
        assert_eq!(
            judged(&[(66, ok), (5, bad)]),
            "lagging",
            "not for long, and not over"
        );
        assert_eq!(judged(&[(66, ok), (5, unknown)]), "unknown");
    }

    #[test]
    fn a_breach_pauses_at_once_and_says_what_kind_it_is() {
        assert_eq!(judged(&[(61, bad)]), "-");
        assert_eq!(judged(&[(62, bad)]), "lagging");
        assert_eq!(judged(&[(62, unknown)]), "unreachable");
        assert_eq!(judged(&[(1, ok), (62, unknown)]), "unknown");
        assert_eq!(judged(&[(30, bad), (32, unknown)]), "lagging");
    }

    #[test]
    fn the_servers_own_state_names_the_breach() {
        let track = track(RULE, &[(62, bad)]);
        for (state, word) in [
            (State::Paused, "paused"),
            (State::Disconnected, "disconnected"),
            (State::Ok, "lagging"),
        ] {
            let standby = Observed {
                name: "us-sin",
                track: &track,
                state,
            };
            let Some(Ending::Pause { reason, .. }) = judge(&[standby], seconds(61)) else {
                panic!("no breach")
            };
            assert_eq!(reason.word(), word);
        }
    }

    #[test]
    fn a_standby_that_answers_and_never_shows_a_token_is_not_clear() {
        let young = || Seen::AtLeast(ms(100));
        assert_eq!(judged(&[(71, young)]), "unknown");
        let nothing = Track::new(RULE);
        assert_eq!(
            word(judge(&observed(&nothing), seconds(70)).as_ref()),
            "unreachable",
            "zero samples"
        );
    }

    #[test]
    fn knowing_too_little_is_not_knowing() {
        assert_eq!(
            judged(&[(20, ok), (10, unknown), (41, ok)]),
            "too-little-seen"
        );
        assert_eq!(judged(&[(20, ok), (6, unknown), (45, ok)]), "clear");
    }

    #[test]
    fn a_measurement_less_exact_than_half_the_threshold_is_refused() {
        let wide = || {
            Seen::Lag(Bounds {
                min: ms(0),
                max: ms(300),
            })
        };
        assert_eq!(judged(&[(9, wide)]), "-");
        assert_eq!(judged(&[(10, wide)]), "too-coarse");
        let coarse = track(
            Rule {
                coarse: true,
                ..RULE
            },
            &[(71, wide)],
        );
        assert_eq!(
            word(judge(&observed(&coarse), seconds(70)).as_ref()),
            "clear"
        );
        let short = Rule {
            observe: seconds(5),
            clear_for: seconds(3),
            ..RULE
        };
        let few = track(short, &[(6, wide)]);
        assert_eq!(
            word(judge(&observed(&few), seconds(5)).as_ref()),
            "too-coarse",
            "few measurements are no excuse"
        );
    }

    #[test]
    fn the_worst_of_several_standbys_is_named() {
        let (clean, worse) = (track(RULE, &[(63, ok)]), track(RULE, &[(63, bad)]));
        let bad = track(RULE, &[(1, ok), (62, bad)]);
        let standbys =
            [("us-sin", &clean), ("us-dr", &bad), ("us-hil", &worse)].map(|(name, track)| {
                Observed {
                    name,
                    track,
                    state: State::Ok,
                }
            });
        let Some(Ending::Pause { standby, .. }) = judge(&standbys, seconds(62)) else {
            panic!("no breach")
        };
        assert_eq!(standby, "us-hil");
    }

    #[test]
    fn waiting_survives_a_breach_and_ends_with_the_first_clean_stretch() {
        let ending = |parts: &[Part]| {
            let track = track(RULE, parts);
            let now = seconds(parts.iter().map(|(count, _)| count).sum::<u64>() - 1);
            word(wait(&observed(&track), now, seconds(120)).as_ref()).to_owned()
        };
        assert_eq!(ending(&[(90, bad)]), "-");
        assert_eq!(ending(&[(90, bad), (10, ok)]), "-");
        assert_eq!(ending(&[(90, bad), (11, ok)]), "clear");
        assert_eq!(ending(&[(121, bad)]), "lagging");
        assert_eq!(ending(&[(100, ok)]), "clear");
        assert_eq!(
            ending(&[(120, bad), (1, ok)]),
            "lagging",
            "the breach says more than the end"
        );
    }

    #[test]
    fn warnings_name_what_was_still_allowed() {
        let track = track(
            RULE,
            &[(20, ok), (5, bad), (20, ok), (2, unknown), (20, ok)],
        );
        let texts: Vec<String> = warnings(&track).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "was not ok 2 times, for at most 5 s",
                "was unknown for 1 s: connection refused by 10.0.0.2:5432"
            ]
        );
        assert!(warnings(&track_of_ok()).is_empty());
    }

    fn track_of_ok() -> Track {
        track(RULE, &[(71, ok)])
    }
}
