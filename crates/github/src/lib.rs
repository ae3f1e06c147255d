//! GitHub's API as a rollout needs it: environments and their rules, deployments and their statuses, issues.
//!
//! octocrab brings TLS, authentication and the base path of an Enterprise Server. The answers are read here: its typed
//! errors leave out the headers that say how long a rate limit lasts, and its own repetition also repeats what writes.
//!
//! What only reads is asked again after an error that may pass. What writes is sent once; when its answer is lost,
//! `ensure.rs` looks whether it arrived. Both wait for a rate limit, together no longer than [`Settings::patience`].

mod client;
mod deployments;
mod ensure;
mod environments;
mod error;
mod issues;
mod limits;

use std::cell::Cell;
use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use octocrab::Octocrab;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use regionwise_rollout::spoken;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use url::Url;

pub use deployments::{Deployment, NewDeployment};
pub use ensure::Ensured;
pub use error::{Error, Kind};
pub use issues::Opened;

use limits::Headers;

/// As many as GitHub gives at once.
const PER_PAGE: usize = 100;
/// Two thousand deployments of one commit in one environment, or issues with our label, are a mistake somewhere else.
const PAGES: usize = 20;
/// What may be repeated is asked so often, with pauses that double.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Where GitHub is and how long it may take.
pub struct Settings<'a> {
    /// `GITHUB_API_URL`: with its path on an Enterprise Server.
    pub api: &'a str,
    /// `OWNER/NAME`
    pub repository: &'a str,
    pub token: &'a str,
    /// One answer, connecting included.
    pub answer_within: Duration,
    /// All waits for rate limits and repetitions together.
    pub patience: Duration,
}

/// One repository.
pub struct Github<'a> {
    octocrab: Octocrab,
    /// `/repos/OWNER/NAME`
    at: String,
    answer_within: Duration,
    left: Cell<Duration>,
    say: &'a dyn Fn(&str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    Post,
    Patch,
}

impl Method {
    const fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
        }
    }

    /// The one change that is sent by PATCH sets a state, and may be made twice.
    const fn repeatable(self) -> bool {
        matches!(self, Self::Get | Self::Patch)
    }
}

/// What came back.
struct Answer {
    status: u16,
    headers: Headers,
    body: String,
}

/// Why nothing whole came back.
enum Missing {
    /// Nobody was asked.
    Unsent(String),
    /// It was sent, and nobody knows what became of it.
    Lost(String),
}

impl<'a> Github<'a> {
    /// Contacts nobody. `say` gets a line for every wait. Must be called inside of a tokio runtime.
    ///
    /// # Errors
    /// [`Kind::Unusable`] when the URL or the repository's name is none, or the token would travel in the clear.
    pub fn new(settings: &Settings<'_>, say: &'a dyn Fn(&str)) -> Result<Self, Error> {
        let unusable = |text: String| Error::new(Kind::Unusable, text);
        let url = Url::parse(settings.api)
            .map_err(|error| unusable(format!("`{}` is no URL: {error}", settings.api)))?;
        if !encrypted_or_loopback(&url) {
            return Err(unusable(format!(
                "`{}` would carry the token in the clear",
                settings.api
            )));
        }
        let part = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if !matches!(settings.repository.split_once('/'), Some((owner, name)) if part(owner) && part(name))
        {
            return Err(unusable(format!(
                "`{}` is no repository, written OWNER/NAME",
                settings.repository
            )));
        }
        let octocrab = client::octocrab(settings.api, settings.token).map_err(unusable)?;
        Ok(Self {
            octocrab,
            at: format!("/repos/{}", settings.repository),
            answer_within: settings.answer_within,
            left: Cell::new(settings.patience),
            say,
        })
    }

    /// All items of a list.
    async fn list<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<Vec<T>, Error> {
        self.pages(path, query, |page: Vec<T>| page).await
    }

    /// All items of a list that comes as part of an object.
    async fn pages<P: DeserializeOwned, T>(
        &self,
        path: &str,
        query: &str,
        items: impl Fn(P) -> Vec<T>,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for page in 1..=PAGES {
            let path = format!("{path}?per_page={PER_PAGE}&page={page}{query}");
            let mut more = items(self.get(&path).await?);
            let full = more.len() >= PER_PAGE;
            all.append(&mut more);
            if !full {
                return Ok(all);
            }
        }
        Err(Error::of(
            Kind::Unreadable,
            Method::Get,
            &format!("{}{path}", self.at),
            format!("answered with more than {} items", PAGES * PER_PAGE),
        ))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::Get, path, &()).await
    }

    /// One request to its end, below the repository.
    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let path = format!("{}{path}", self.at);
        let mut pause = FIRST_PAUSE;
        for tries in 1.. {
            let error = match self.send(method, &path, body).await {
                Ok(answer) => match self.limited(method, &path, &answer).await? {
                    Waited::Yes => continue,
                    Waited::No => match read(method, &path, &answer) {
                        Ok(value) => return Ok(value),
                        Err(error) => error,
                    },
                },
                Err(Missing::Unsent(text)) => Error::of(Kind::Unreachable, method, &path, text),
                Err(Missing::Lost(text)) if method.repeatable() => {
                    Error::of(Kind::Unreachable, method, &path, text)
                }
                Err(Missing::Lost(text)) => Error::of(Kind::Lost, method, &path, text),
            };
            if tries >= TRIES || !error.kind.may_pass() || !self.may_wait(pause) {
                return Err(error);
            }
            (self.say)(&format!("{error}; asking again in {}.", spoken(pause)));
            self.wait(pause).await;
            pause *= 2;
        }
        // The loop has no end of its own.
        Err(Error::of(
            Kind::Unreachable,
            method,
            &path,
            "was never asked",
        ))
    }

    /// Waits for a rate limit that ends in time. Whoever is limited was not served, so a write may be sent again.
    async fn limited(&self, method: Method, path: &str, answer: &Answer) -> Result<Waited, Error> {
        let Some(limit) = limits::limit(answer.status, &answer.headers, &answer.body, now()) else {
            return Ok(Waited::No);
        };
        let text = format!("is limited: {limit}");
        if !self.may_wait(limit.wait) {
            return Err(Error::of(Kind::RateLimited, method, path, text));
        }
        (self.say)(&format!(
            "GitHub {text}; going on in {}.",
            spoken(limit.wait)
        ));
        self.wait(limit.wait).await;
        Ok(Waited::Yes)
    }

    fn may_wait(&self, time: Duration) -> bool {
        time <= self.left.get()
    }

    async fn wait(&self, time: Duration) {
        self.left.set(self.left.get().saturating_sub(time));
        sleep(time).await;
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<Answer, Missing> {
        let asking = async {
            let response = match method {
                Method::Get => self.octocrab._get(path).await,
                Method::Post => self.octocrab._post(path, Some(body)).await,
                Method::Patch => self.octocrab._patch(path, Some(body)).await,
            };
            let response = response.map_err(|error| missing(&error))?;
            let status = response.status().as_u16();
            let headers = Headers::of(response.headers());
            let body = self
                .octocrab
                .body_to_string(response)
                .await
                .map_err(|error| Missing::Lost(error::chain(&error)))?;
            Ok(Answer {
                status,
                headers,
                body,
            })
        };
        let limit = self.answer_within;
        timeout(limit, asking)
            .await
            .unwrap_or_else(|_| Err(Missing::Lost(format!("no answer within {}", spoken(limit)))))
    }
}

enum Waited {
    Yes,
    No,
}

fn encrypted_or_loopback(url: &Url) -> bool {
    match url.host() {
        _ if url.scheme() == "https" => true,
        _ if url.scheme() != "http" => false,
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What a whole answer means.
fn read<T: DeserializeOwned>(method: Method, path: &str, answer: &Answer) -> Result<T, Error> {
    let status = answer.status;
    if (200..300).contains(&status) {
        return serde_json::from_str(&answer.body).map_err(|error| {
            // Something was done, and what, a look will tell.
            let kind = if method.repeatable() {
                Kind::Unreadable
            } else {
                Kind::Lost
            };
            Error::of(kind, method, path, format!("answered {status}: {error}"))
        });
    }
    let text = format!("answered {status}{}", error::message(&answer.body));
    let kind = match status {
        401 => Kind::Unauthorized,
        403 => Kind::Forbidden,
        404 | 410 => Kind::NotFound,
        // Also a gateway in front, whatever became of the request behind it.
        500.. if method.repeatable() => Kind::Unreachable,
        500.. => Kind::Lost,
        _ => Kind::Refused,
    };
    Err(Error::of(kind, method, path, text))
}

fn missing(error: &octocrab::Error) -> Missing {
    let text = error::chain(error);
    if error::never_sent(error) {
        Missing::Unsent(text)
    } else {
        Missing::Lost(text)
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// What needs no escape in a part of a path or query (RFC 3986, 2.3).
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'_')
    .remove(b'-')
    .remove(b'~');

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, &UNRESERVED).to_string()
}

/// `&name=value`
fn query(name: &str, value: impl Display) -> String {
    format!("&{name}={}", escaped(&value.to_string()))
}
