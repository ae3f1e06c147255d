//! One request to its end: waits for limits and locks, repeats what only reads, and sends a write once.

use std::cell::Cell;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use regionwise_provision::{Reaction, meaning, reaction};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::error::{Error, Kind};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// With so few requests left, we come no faster than the bucket fills.
const LOW: u64 = 5;
/// Hetzner's fills by 3,600 requests an hour.
const FILLS: Duration = Duration::from_secs(1);
/// Whoever stops a run gives it a few seconds; a wait may take 20.
const STOP_SEEN_WITHIN: Duration = Duration::from_millis(200);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Creating a server answers after its action has begun, which takes seconds on a busy day.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The connection to one project.
pub(crate) struct Transport<'a> {
    http: reqwest::Client,
    base: Url,
    token: &'a str,
    /// What is left of the caller's patience with limits, locks and trouble.
    patience: Cell<Duration>,
    sent: Cell<u32>,
    /// What the last answer said of the rate limit.
    bucket: Cell<Bucket>,
    say: &'a dyn Fn(&str),
    /// Whether the caller was asked to stop.
    stop: &'a dyn Fn() -> bool,
}

/// The headers `RateLimit-..` of an answer.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    limit: Option<u64>,
    remaining: Option<u64>,
    /// Seconds since 1970, when it is full again.
    reset: Option<u64>,
}

/// An answer that says no.
struct Refusal {
    reaction: Reaction,
    text: String,
}

impl<'a> Transport<'a> {
    pub(crate) fn new(
        base: Url,
        token: &'a str,
        patience: Duration,
        say: &'a dyn Fn(&str),
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("regionwise/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            // A token goes where it was meant to go.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::new(Kind::Unreachable, format!("no HTTP client: {error}")))?;
        Ok(Self {
            http,
            base,
            token,
            patience: Cell::new(patience),
            sent: Cell::new(0),
            bucket: Cell::new(Bucket::default()),
            say,
            stop,
        })
    }

    /// Requests sent so far.
    pub(crate) fn sent(&self) -> u32 {
        self.sent.get()
    }

    pub(crate) fn say(&self, line: &str) {
        (self.say)(line);
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(&Method::GET, path, None).await
    }

    pub(crate) async fn write<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = serde_json::to_value(body)
            .map_err(|error| Error::new(Kind::Answered(Reaction::Wrong), error.to_string()))?;
        self.ask(method, path, Some(&body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(&Method::DELETE, path, None).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Error> {
        let mut pause = FIRST_PAUSE;
        // Whether an earlier time may have done it, whatever the last one says.
        let mut may_be_done = false;
        loop {
            let pace = self.bucket.get().pace(since_1970());
            if !pace.is_zero() {
                // Every request of these is a step on: patience is for those that get nowhere.
                let paced = self.sleep(pace, "the rate limit is nearly used up").await;
                lost(paced, may_be_done)?;
            }
            let error = match self.send(method, path, body).await {
                Ok(Ok(bytes)) => return read(method, path, &bytes),
                Ok(Err(refusal)) => match refusal.reaction {
                    Reaction::Slow => {
                        // All of it is back at the reset; a part of it earlier.
                        let now = since_1970().as_secs();
                        let reset = self.bucket.get().reset;
                        let reset = reset.map_or(u64::MAX, |at| at.saturating_sub(now) + 1);
                        let wait = pause.min(Duration::from_secs(reset));
                        lost(self.wait(wait, &refusal.text).await, may_be_done)?;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                    Reaction::Busy => {
                        lost(self.wait(pause, &refusal.text).await, may_be_done)?;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                    reaction => Error::new(Kind::Answered(reaction), refusal.text),
                },
                Err(error) => error,
            };
            // What is deleted or put twice is as when it was once; what is posted may be there twice.
            let repeatable = *method != Method::POST
                && matches!(
                    error.kind,
                    Kind::Unreachable | Kind::Lost | Kind::Answered(Reaction::Unsure)
                );
            may_be_done |= *method != Method::GET && error.may_be_done();
            if !repeatable || self.patience.get() < pause {
                return Err(match (method, error.kind) {
                    // The earlier time has done it.
                    (&Method::DELETE, Kind::Answered(Reaction::Absent)) => error,
                    _ if may_be_done => Error::new(Kind::Lost, error.to_string()),
                    // Nothing was written.
                    (&Method::GET, Kind::Answered(Reaction::Unsure)) => {
                        Error::new(Kind::Unreachable, error.to_string())
                    }
                    _ => error,
                });
            }
            let waited = self.wait(pause, &error.to_string()).await;
            lost(waited, may_be_done)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends it once. The outer error is a missing answer.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Result<Vec<u8>, Refusal>, Error> {
        let what = format!("{method} {path}");
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let mut request = self
            .http
            .request(method.clone(), url)
            .bearer_auth(self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.sent.set(self.sent.get() + 1);
        let missing = |error: reqwest::Error| {
            // reqwest's own text may hold the URL, which holds nothing that is secret.
            let text = format!("{what}: {}", root(&error));
            match error.is_connect() || *method == Method::GET {
                true => Error::new(Kind::Unreachable, text),
                false => Error::new(Kind::Lost, text),
            }
        };
        let answer = request.send().await.map_err(missing)?;
        let status = answer.status();
        let number = |name: &str| {
            answer
                .headers()
                .get(name)?
                .to_str()
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        self.bucket.set(Bucket {
            limit: number("ratelimit-limit"),
            remaining: number("ratelimit-remaining"),
            reset: number("ratelimit-reset"),
        });
        let bytes = answer.bytes().await.map_err(missing)?.to_vec();
        if status.is_success() {
            return Ok(Ok(bytes));
        }
        Ok(Err(refused(&what, status, &bytes)))
    }

    /// Waits, as long as the caller's patience lasts.
    pub(crate) async fn wait(&self, time: Duration, why: &str) -> Result<(), Error> {
        let left = self.patience.get();
        if left < time {
            let text = format!("{why}; waited as long as --patience allows");
            return Err(Error::new(Kind::Answered(Reaction::Busy), text));
        }
        self.patience.set(left - time);
        if time >= Duration::from_secs(2) {
            (self.say)(&format!("{why}; asks again in {} s", time.as_secs()));
        }
        self.sleep(time, why).await
    }

    async fn sleep(&self, time: Duration, why: &str) -> Result<(), Error> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if (self.stop)() {
                return Err(Error::new(Kind::Stopped, format!("stopped; {why}")));
            }
            sleep(STOP_SEEN_WITHIN.min(until - Instant::now())).await;
        }
        Ok(())
    }
}

impl Bucket {
    /// How long to wait before the next request, so that the bucket does not run empty: nothing while it is well filled.
    fn pace(self, now: Duration) -> Duration {
        if self.remaining.is_none_or(|left| left > LOW) {
            return Duration::ZERO;
        }
        let missing = self.limit.zip(self.remaining);
        let missing =
            missing.and_then(|(limit, left)| u32::try_from(limit.checked_sub(left)?).ok());
        let reset = self.reset.map(Duration::from_secs);
        match (missing, reset) {
            // The reset is a whole second, which may be nearly over.
            (Some(missing @ 1..), Some(reset)) => {
                let left = reset.saturating_sub(now) + Duration::from_secs(1);
                (left / missing).min(FILLS)
            }
            _ => FILLS,
        }
    }
}

fn since_1970() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// The end of a wait with a request that may have been done.
fn lost(waited: Result<(), Error>, may_be_done: bool) -> Result<(), Error> {
    waited.map_err(|error| match may_be_done {
        true => Error::new(Kind::Lost, error.to_string()),
        false => error,
    })
}

fn refused(what: &str, status: StatusCode, bytes: &[u8]) -> Refusal {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let error = &body["error"];
    let code = text(&error["code"]);
    let mut said = format!("{what}: {}", status.as_u16());
    for part in [&code, &text(&error["message"])] {
        if !part.is_empty() {
            said.push_str(": ");
            said.push_str(part);
        }
    }
    if let Some(meaning) = meaning(&code) {
        let _ = write!(said, " ({meaning})");
    }
    let fields = error["details"]["fields"].as_array();
    for field in fields.into_iter().flatten() {
        let (name, messages) = (text(&field["name"]), &field["messages"]);
        let _ = write!(said, "; `{name}`: {messages}");
    }
    let limits = error["details"]["limits"].as_array();
    for limit in limits.into_iter().flatten() {
        let _ = write!(said, "; limit {}", text(&limit["name"]));
    }
    Refusal {
        reaction: reaction(status.as_u16(), &code),
        text: said,
    }
}

fn read<T: DeserializeOwned>(method: &Method, path: &str, bytes: &[u8]) -> Result<T, Error> {
    // DELETE of some kinds answers with nothing.
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(
            Kind::Unreadable,
            format!("{method} {path}: not what Hetzner documents: {error}"),
        )
    })
}

fn root(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nearly_empty_bucket_paces_by_how_fast_it_fills_and_a_second_where_nobody_says() {
        let now = Duration::from_secs(1000);
        let bucket = |limit, remaining, reset| Bucket {
            limit,
            remaining,
            reset,
        };
        let paces = |bucket: Bucket| bucket.pace(now).as_millis();
        assert_eq!(paces(Bucket::default()), 0);
        assert_eq!(paces(bucket(Some(3600), Some(6), Some(4594))), 0);
        assert_eq!(paces(bucket(Some(3600), Some(5), Some(4595))), 1000);
        // A larger limit of the same hour.
        assert_eq!(paces(bucket(Some(7200), Some(0), Some(4600))), 500);
        assert_eq!(paces(bucket(None, Some(2), Some(4600))), 1000);
        // A clock that is wrong is no reason to wait for hours.
        assert_eq!(paces(bucket(Some(10), Some(0), Some(9_000_000))), 1000);
        assert_eq!(paces(bucket(Some(10), Some(10), Some(1000))), 0);
        assert_eq!(paces(bucket(Some(5), Some(5), Some(1000))), 1000);
    }
}
