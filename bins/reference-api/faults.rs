//! What makes a release bad on purpose. Set in the release's env, so that a rollout meets a truly bad release.
//!
//! | variable | effect |
//! |---|---|
//! | `FAULT_REGIONS=eu-central,us-east` | the other faults hold in these regions only; unset: everywhere |
//! | `FAULT_START_DELAY=5s` | listens only after this time |
//! | `FAULT_CRASH_AFTER=20s` | the process aborts this long after its start |
//! | `FAULT_FLAP=2s` | `/health/basic` changes between 200 and 500 with this period |
//! | `FAULT_FAILING_DEPENDENCIES=3` | that many of the dependencies are called at an address where nothing listens |
//! | `FAULT_WRONG_ANSWERS=0.2` | that share of the business answers is a 500 |
//! | `FAULT_BASIC=500`, `hang`, `huge`, `redirect`, `slow` | how `/health/basic` answers |
//! | `FAULT_WRONG_RELEASE=1` | every answer claims another release |
//! | `FAULT_IGNORE_SIGTERM=1` | SIGTERM does nothing |

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::Dependency;
use crate::environment::{Environment, WrongValue};
use crate::log;

pub(crate) const VARIABLES: [&str; 9] = [
    "FAULT_REGIONS",
    "FAULT_START_DELAY",
    "FAULT_CRASH_AFTER",
    "FAULT_FLAP",
    "FAULT_FAILING_DEPENDENCIES",
    "FAULT_WRONG_ANSWERS",
    "FAULT_BASIC",
    "FAULT_WRONG_RELEASE",
    "FAULT_IGNORE_SIGTERM",
];

const DURATION: &str = "a duration such as 5s or 500ms, not zero";

/// The discard port: nothing listens there, a connection is refused at once.
const DEAD_ADDRESS: &str = "http://127.0.0.1:9/";

#[derive(Default)]
pub(crate) struct Faults {
    start_delay: Option<Duration>,
    crash_after: Option<Duration>,
    flap: Option<Duration>,
    failing_dependencies: usize,
    wrong_answers: WrongAnswers,
    pub(crate) basic: Option<BasicFault>,
    wrong_release: bool,
    pub(crate) ignore_sigterm: bool,
}

/// How `/health/basic` misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BasicFault {
    Error,
    Hang,
    Huge,
    Redirect,
    Slow,
}

impl Faults {
    pub(crate) fn read(environment: &Environment) -> Result<Self, WrongValue> {
        if let Some(unknown) = environment
            .names()
            .find(|name| name.starts_with("FAULT_") && !VARIABLES.contains(name))
        {
            return Err(WrongValue {
                name: unknown.to_owned(),
                problem: "no such fault".to_owned(),
                accepted: "FAULT_ followed by REGIONS, START_DELAY, CRASH_AFTER, FLAP, FAILING_DEPENDENCIES, \
                           WRONG_ANSWERS, BASIC, WRONG_RELEASE or IGNORE_SIGTERM",
            });
        }
        // Everything is parsed also where it does not apply: a typing error must show in the first region.
        let faults = Self {
            start_delay: environment.parsed("FAULT_START_DELAY", DURATION, duration)?,
            crash_after: environment.parsed("FAULT_CRASH_AFTER", DURATION, duration)?,
            flap: environment.parsed("FAULT_FLAP", DURATION, duration)?,
            failing_dependencies: environment
                .parsed(
                    "FAULT_FAILING_DEPENDENCIES",
                    "a number of dependencies",
                    |value| value.parse().ok(),
                )?
                .unwrap_or(0),
            wrong_answers: environment
                .parsed(
                    "FAULT_WRONG_ANSWERS",
                    "a share from 0 to 1 such as 0.2",
                    WrongAnswers::parse,
                )?
                .unwrap_or_default(),
            basic: environment.parsed(
                "FAULT_BASIC",
                "500, hang, huge, redirect or slow",
                basic_fault,
            )?,
            wrong_release: switch(environment, "FAULT_WRONG_RELEASE")?,
            ignore_sigterm: switch(environment, "FAULT_IGNORE_SIGTERM")?,
        };
        let regions =
            environment.parsed("FAULT_REGIONS", "regions, separated by commas", regions)?;
        let here = environment.or("REGION", "");
        match regions {
            Some(regions) if !regions.iter().any(|region| region == here) => Ok(Self::default()),
            _ => Ok(faults),
        }
    }

    /// The release name this process answers with.
    pub(crate) fn claimed_release(&self, release: String) -> String {
        if self.wrong_release {
            format!("not-{release}")
        } else {
            release
        }
    }

    /// The dependencies as the bad release calls them.
    pub(crate) fn failing(
        &self,
        mut dependencies: Vec<Dependency>,
    ) -> Result<Vec<Dependency>, WrongValue> {
        let wrong = |problem: String| WrongValue {
            name: "FAULT_FAILING_DEPENDENCIES".to_owned(),
            problem,
            accepted: "at most the number of DEPENDENCIES",
        };
        if self.failing_dependencies > dependencies.len() {
            return Err(wrong(format!(
                "{} of {}",
                self.failing_dependencies,
                dependencies.len()
            )));
        }
        for dependency in dependencies.iter_mut().take(self.failing_dependencies) {
            dependency.url = DEAD_ADDRESS
                .parse()
                .map_err(|_| wrong(DEAD_ADDRESS.to_owned()))?;
        }
        Ok(dependencies)
    }

    /// Waits as long as the release pretends to start; `false` when the signal came first.
    pub(crate) async fn delay_start(&self, termination: &watch::Receiver<bool>) -> bool {
        let Some(delay) = self.start_delay else {
            return true;
        };
        let mut termination = termination.clone();
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            _ = termination.wait_for(|asked| *asked) => false,
        }
    }

    pub(crate) fn schedule_crash(&self) {
        let Some(after) = self.crash_after else {
            return;
        };
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            log::event("error", "FAULT_CRASH_AFTER: the process aborts");
            std::process::abort();
        });
    }

    /// Whether `/health/basic` is in the failing half of its period.
    pub(crate) fn flaps_now(&self, started: Instant, now: Instant) -> bool {
        self.flap
            .is_some_and(|period| (now - started).as_millis() / period.as_millis() % 2 == 1)
    }

    /// Whether this business answer is to be a 500.
    pub(crate) fn next_answer_is_wrong(&self) -> bool {
        self.wrong_answers.next()
    }
}

/// Spreads the wrong answers evenly and without chance, so that a test can count them.
#[derive(Default)]
struct WrongAnswers {
    /// In millionths.
    share: u64,
    answers: AtomicU64,
}

impl WrongAnswers {
    fn parse(value: &str) -> Option<Self> {
        let share: f64 = value.parse().ok()?;
        if !(0.0..=1.0).contains(&share) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1,000,000 by the check above"
        )]
        let share = (share * 1e6).round() as u64;
        Some(Self {
            share,
            answers: AtomicU64::new(0),
        })
    }

    fn next(&self) -> bool {
        let before = self.answers.fetch_add(1, Ordering::Relaxed) % 1_000_000;
        (before + 1) * self.share / 1_000_000 > before * self.share / 1_000_000
    }
}

fn duration(value: &str) -> Option<Duration> {
    humantime::parse_duration(value)
        .ok()
        .filter(|duration| duration.as_millis() > 0)
}

fn basic_fault(value: &str) -> Option<BasicFault> {
    match value {
        "500" => Some(BasicFault::Error),
        "hang" => Some(BasicFault::Hang),
        "huge" => Some(BasicFault::Huge),
        "redirect" => Some(BasicFault::Redirect),
        "slow" => Some(BasicFault::Slow),
        _ => None,
    }
}

fn regions(value: &str) -> Option<Vec<String>> {
    let regions: Vec<String> = value
        .split(',')
        .map(|region| region.trim().to_owned())
        .collect();
    regions
        .iter()
        .all(|region| !region.is_empty())
        .then_some(regions)
}

fn switch(environment: &Environment, name: &str) -> Result<bool, WrongValue> {
    let value = environment.parsed(name, "1 or 0", |value| match value {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    })?;
    Ok(value.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BasicFault, Faults};
    use crate::config::{Config, Dependency};
    use crate::environment::Environment;

    #[test]
    fn a_release_without_faults_does_nothing_wrong() {
        let faults = Faults::read(&Environment::of(&[])).unwrap();
        assert!(faults.basic.is_none());
        assert!((0..1000).all(|_| !faults.next_answer_is_wrong()));
        assert_eq!(faults.claimed_release("v1".to_owned()), "v1");
    }

    #[test]
    fn a_bad_value_is_refused_with_its_name() {
        for (name, value) in [
            ("FAULT_START_DELAY", "soon"),
            ("FAULT_FLAP", "0s"),
            ("FAULT_FAILING_DEPENDENCIES", "-1"),
            ("FAULT_WRONG_ANSWERS", "1.2"),
            ("FAULT_WRONG_ANSWERS", "NaN"),
            ("FAULT_BASIC", "404"),
            ("FAULT_WRONG_RELEASE", "yes"),
            ("FAULT_REGIONS", "eu-central,"),
            ("FAULT_TYPO", "1"),
        ] {
            let wrong = Faults::read(&Environment::of(&[(name, value)])).err();
            assert_eq!(
                wrong.map(|wrong| wrong.name).as_deref(),
                Some(name),
                "{value}"
            );
        }
    }

    #[test]
    fn faults_hold_only_in_the_regions_they_name_but_are_checked_everywhere() {
        let read = |region, fault| {
            Faults::read(&Environment::of(&[
                ("REGION", region),
                ("FAULT_REGIONS", "eu-central, us-east"),
                ("FAULT_BASIC", fault),
            ]))
        };
        assert_eq!(
            read("eu-central", "hang").unwrap().basic,
            Some(BasicFault::Hang)
        );
        assert_eq!(read("ap-singapore", "hang").unwrap().basic, None);
        assert!(read("ap-singapore", "typo").is_err());
    }

    #[test]
    fn one_in_five_answers_is_wrong() {
        let faults = Faults::read(&Environment::of(&[("FAULT_WRONG_ANSWERS", "0.2")])).unwrap();
        assert_eq!(
            (0..1000).filter(|_| faults.next_answer_is_wrong()).count(),
            200
        );
    }

    #[test]
    fn health_flaps_with_its_period() {
        let faults = Faults::read(&Environment::of(&[("FAULT_FLAP", "2s")])).unwrap();
        let start = Instant::now();
        let bad = |seconds| faults.flaps_now(start, start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 2, 3, 4].map(bad), [false, false, true, true, false]);
    }

    #[test]
    fn failing_dependencies_are_called_where_nothing_listens() {
        let environment = Environment::of(&[
            (
                "DEPENDENCIES",
                "payments=http://10.0.0.1/;mail=http://10.0.0.2/",
            ),
            ("FAULT_FAILING_DEPENDENCIES", "1"),
        ]);
        let dependencies: Vec<Dependency> = Config::read(&environment).unwrap().dependencies;
        assert_eq!(dependencies[0].url.as_str(), super::DEAD_ADDRESS);
        assert_eq!(dependencies[1].url.as_str(), "http://10.0.0.2/");

        let too_many = Environment::of(&[("FAULT_FAILING_DEPENDENCIES", "1")]);
        assert!(Config::read(&too_many).is_err());
    }
}
