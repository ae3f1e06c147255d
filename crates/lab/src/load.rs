//! Constant load against several regions at once, and what became of every single request.
//!
//! Open loop: requests leave at a fixed rate whether or not earlier ones were answered, and latency counts from the time
//! a request was meant to leave; a server that stands still for a second cannot hide it by receiving less (coordinated
//! omission). Never retries, never follows a redirect, uses keep-alive connections as a proxy would. A request failed
//! when its answer was anything but 2xx, or none.

mod mix;
mod tally;

use std::fs::File;
use std::io::{self, BufWriter};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::Url;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

pub use self::tally::{Answers, Failed, RegionSummary, Second, Summary};

use self::mix::Mix;
use self::tally::{Cause, Outcome, Tally};

/// Longer than any drain or switch may hold a request.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Requests of one region on their way at once. More would measure this process, and its memory is to stay bounded.
const IN_FLIGHT: usize = 2_000;

/// An answer of this product is smaller; more is not read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// What to do.
pub struct Load {
    pub targets: Vec<Target>,
    /// Requests per second and region.
    pub rate: Rate,
    /// Without it until `stop`.
    pub duration: Option<Duration>,
    /// Also create users and orders: needs a database.
    pub writes: bool,
    /// One JSON line per second and region.
    pub log: Option<File>,
}

/// Where one region is reached.
#[derive(Clone, Debug)]
pub struct Target {
    pub region: String,
    pub url: Url,
}

/// Requests per second: more than 0, at most 10,000.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(f64);

impl Rate {
    /// `50/s`, `50` or `0.5/s`.
    pub fn parse(text: &str) -> Option<Self> {
        let rate: f64 = text
            .strip_suffix("/s")
            .unwrap_or(text)
            .trim()
            .parse()
            .ok()?;
        (rate > 0.0 && rate <= 10_000.0).then_some(Self(rate))
    }

    /// When the request of that number is meant to leave, after the first.
    fn offset(self, number: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "exact for 2^53 requests")]
        let number = number as f64;
        Duration::from_secs_f64(number / self.0)
    }
}

/// Why nothing, or not everything, was measured.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Configuration: there is nothing to measure.
    #[error("cannot load without a target")]
    NoTarget,
    /// The system's fault.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// The product's fault, or `writes` for one without a database.
    #[error("cannot create a user in `{region}`: {problem}")]
    Setup { region: String, problem: String },
    /// The disk's fault.
    #[error("cannot write the load log")]
    Log(#[source] io::Error),
}

impl Load {
    /// Sends until `duration` is over or `stop` is ready, waits for the requests in flight, and sums up.
    ///
    /// # Errors
    /// See [`LoadError`]. A failed request is a result, never an error.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Summary, LoadError> {
        if self.targets.is_empty() {
            return Err(LoadError::NoTarget);
        }
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .timeout(TIMEOUT)
            .build()
            .map_err(LoadError::Client)?;
        let mut mixes = Vec::new();
        for target in &self.targets {
            mixes.push(Mix::prepare(&client, target, self.writes).await?);
        }

        let started = Instant::now();
        let names = self
            .targets
            .iter()
            .map(|target| target.region.clone())
            .collect();
        let tally = Tally::new(names, SystemTime::now(), self.log.map(BufWriter::new));
        let (send, outcomes) = mpsc::channel(1024);
        let counting = tokio::spawn(count(tally, outcomes, started));

        let end = self.duration.map(|duration| started + duration);
        let mut regions = JoinSet::new();
        for (region, mix) in mixes.into_iter().enumerate() {
            regions.spawn(drive(Driver {
                region,
                client: client.clone(),
                mix,
                started,
                end,
                rate: self.rate,
                send: send.clone(),
            }));
        }
        drop(send);
        tokio::select! {
            // Also when counting ended early because the log cannot be written.
            () = async { while regions.join_next().await.is_some() {} } => {}
            () = stop => {}
        }
        // Ends the sending, not the requests on their way: those are tasks of their own and still report.
        regions.shutdown().await;
        counting
            .await
            .map_err(|error| LoadError::Log(io::Error::other(error)))?
            .map_err(LoadError::Log)
    }
}

struct Driver {
    region: usize,
    client: reqwest::Client,
    mix: Mix,
    started: Instant,
    /// Every request due before it is sent, also when this process is late.
    end: Option<Instant>,
    rate: Rate,
    send: mpsc::Sender<Outcome>,
}

/// Sends one region's requests, each at its time.
async fn drive(mut driver: Driver) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    for number in 0.. {
        let due = driver.started + driver.rate.offset(number);
        if driver.end.is_some_and(|end| due >= end) {
            return;
        }
        sleep_until(due).await;
        let (region, started, request) = (driver.region, driver.started, driver.mix.next());
        let outcome = move |release, failure| Outcome {
            region,
            request,
            ended: started.elapsed(),
            latency: due.elapsed(),
            release,
            failure,
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            let not_sent = outcome(None, Some(Cause::NotSent));
            if driver.send.send(not_sent).await.is_err() {
                return;
            }
            continue;
        };
        if driver.send.is_closed() {
            return;
        }
        let send = driver.send.clone();
        let call = driver.mix.build(&driver.client, request);
        tokio::spawn(async move {
            let (release, failure) = match call.send().await {
                Ok(response) => judge(response).await,
                Err(error) => (None, Some(Cause::of(&error))),
            };
            // Nobody counts any more only when the run has failed as a whole.
            let _ = send.send(outcome(release, failure)).await;
            drop(permit);
        });
    }
}

/// The release that answered, and why the answer is a failure if it is one.
async fn judge(mut response: reqwest::Response) -> (Option<String>, Option<Cause>) {
    let release = response
        .headers()
        .get("x-release")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let status = response.status();
    let mut length = 0;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => length += chunk.len(),
            Ok(None) => break,
            Err(error) => return (release, Some(Cause::of(&error))),
        }
        if length > ANSWER_LIMIT {
            return (release, Some(Cause::TooLong));
        }
    }
    let failure = (!status.is_success()).then_some(Cause::Status(status.as_u16()));
    (release, failure)
}

/// Owns all numbers: takes every outcome, writes a line per region each second, until nobody can report any more.
async fn count(
    mut tally: Tally,
    mut outcomes: mpsc::Receiver<Outcome>,
    started: Instant,
) -> io::Result<Summary> {
    let second = Duration::from_secs(1);
    let mut seconds = interval_at(started + second, second);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            // The clock first: what arrives after a second's end belongs to the next line.
            biased;
            _ = seconds.tick() => tally.end_second()?,
            outcome = outcomes.recv() => match outcome {
                Some(outcome) => tally.add(outcome),
                None => return tally.finish(started.elapsed()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Rate;

    #[test]
    fn rates_are_per_second() {
        assert_eq!(Rate::parse("50/s"), Rate::parse("50"));
        for bad in ["", "0", "-1", "50/m", "NaN", "inf", "20000"] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_time_a_request_leaves_does_not_depend_on_the_ones_before() {
        let rate = Rate::parse("4/s").unwrap();
        assert_eq!(rate.offset(0), Duration::ZERO);
        assert_eq!(rate.offset(6), Duration::from_millis(1_500));
    }
}
