//! From a request to an answer: token, rate limit, faults, the description, and then the project.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, Uri, header};
use serde_json::Value;

use super::actions::Fate;
use super::description::Description;
use super::fault::{Fault, Kind, rate_limited};
use super::project::Project;
use super::query::Query;
use super::refusal::{Answer, Answered, Refusal, refuse};
use super::{BASE, Counted, Seen, now};
use crate::fault::befalls;

/// What there is, what is wrong, and what was asked.
pub(super) struct World {
    /// By their tokens; the first is the one that everything was started for.
    projects: Vec<(String, Project)>,
    pub(super) faults: Vec<Fault>,
    pub(super) seen: Vec<Seen>,
    /// Which of them the description does not allow, and why.
    pub(super) invalid: Vec<(usize, String)>,
    description: Description,
    bucket: Bucket,
    hold: Option<Hold>,
}

/// A request.
struct Asked {
    seen: Seen,
    query: Query,
    /// `None` also where it is no JSON.
    body: Option<Value>,
    malformed: bool,
    authorization: Option<String>,
}

impl Asked {
    fn of(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Self {
        let given: Option<Value> = serde_json::from_slice(body).ok();
        let authorization = headers.get(header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        Self {
            seen: Seen {
                method: method.to_string(),
                path: uri.path().strip_prefix(BASE).unwrap_or_default().to_owned(),
                target: uri.to_string(),
                body: given.clone().unwrap_or(Value::Null),
                status: 0,
            },
            query: Query::of(uri.query().unwrap_or_default()),
            malformed: given.is_none() && !body.is_empty(),
            body: given,
            authorization: authorization.map(str::to_owned),
        }
    }

    fn parts(&self) -> Vec<&str> {
        self.seen.path.split('/').skip(1).collect()
    }
}

/// What the client gets.
pub(super) enum Outcome {
    Says(Spoken),
    /// Half of the text, and then the connection ends.
    BreaksOff(Spoken),
    SaysNothing,
}

pub(super) struct Spoken {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) text: String,
}

struct Hold {
    left: usize,
    counted: Counted,
    tell: Sender<Seen>,
}

/// Requests that may still come, and more as time passes.
struct Bucket {
    size: u32,
    left: u32,
    one_more_in: Duration,
    filled: Instant,
}

impl Bucket {
    fn new(size: u32, one_more_in: Duration) -> Self {
        Self {
            size,
            left: size,
            one_more_in,
            filled: Instant::now(),
        }
    }

    /// Whether one more may come.
    fn take(&mut self) -> bool {
        let nanos = self.one_more_in.as_nanos().max(1);
        let drops = u32::try_from(self.filled.elapsed().as_nanos() / nanos).unwrap_or(u32::MAX);
        if drops > 0 {
            self.left = self.left.saturating_add(drops).min(self.size);
            self.filled = Instant::now();
        }
        let there = self.left > 0;
        self.left = self.left.saturating_sub(1);
        there
    }

    /// When it is full again, in seconds since 1970.
    fn full_at(&self) -> u64 {
        let missing = self.one_more_in * (self.size - self.left);
        now() + missing.as_secs_f64().ceil() as u64
    }
}

impl World {
    pub(super) fn new(token: &str) -> Self {
        Self {
            projects: vec![(token.to_owned(), Project::new(0))],
            faults: Vec::new(),
            seen: Vec::new(),
            invalid: Vec::new(),
            description: Description::new(),
            bucket: Bucket::new(3600, Duration::from_secs(1)),
            hold: None,
        }
    }

    pub(super) fn first(&mut self) -> &mut Project {
        &mut self.projects[0].1
    }

    /// The project of that token; a new, empty one where there is none.
    pub(super) fn project_of(&mut self, token: &str) -> &mut Project {
        let at = self.position(token).unwrap_or_else(|| {
            let project = Project::new(self.projects.len());
            self.projects.push((token.to_owned(), project));
            self.projects.len() - 1
        });
        &mut self.projects[at].1
    }

    fn position(&self, token: &str) -> Option<usize> {
        self.projects.iter().position(|(known, _)| known == token)
    }

    /// Whose token came with it.
    fn asked_of(&self, asked: &Asked) -> Option<usize> {
        let token = asked.authorization.as_deref()?.strip_prefix("Bearer ")?;
        self.position(token)
    }

    pub(super) fn limit(&mut self, requests: u32, one_more_in: Duration) {
        self.bucket = Bucket::new(requests, one_more_in);
    }

    pub(super) fn hold(&mut self, n: usize, counted: Counted) -> Receiver<Seen> {
        let (tell, told) = channel();
        self.hold = Some(Hold {
            left: n,
            counted,
            tell,
        });
        told
    }

    pub(super) fn let_go(&mut self) {
        self.hold = None;
    }

    pub(super) fn answer(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Outcome {
        let writes = *method != Method::GET;
        let counts = |hold: &Hold| writes || hold.counted == Counted::Requests;
        if self.hold.as_ref().is_some_and(|hold| hold.left == 0) {
            return Outcome::SaysNothing;
        }
        let mut asked = Asked::of(method, uri, headers, body);
        let kind = befalls(&mut self.faults, &asked.seen.method, &asked.seen.path);
        let refusal = self.refused(&asked, kind.as_ref());
        let allowed = refusal.map_or_else(|| self.allowed(&asked), Err);
        let answered = allowed.and_then(|()| self.carried_out(&asked, kind.as_ref()));
        let mut answer = answered.unwrap_or_else(Answer::from);
        asked.seen.status = answer.status;
        self.seen.push(asked.seen.clone());
        if let Some(hold) = self.hold.as_mut().filter(|hold| counts(hold)) {
            hold.left = hold.left.saturating_sub(1);
            if hold.left == 0 {
                // Nobody waits for it any more: then nobody has to be told.
                let _ = hold.tell.send(asked.seen);
                return Outcome::SaysNothing;
            }
        }
        if let Some(kind) = &kind {
            kind.spoil(&mut answer);
        }
        self.outcome(kind, &answer)
    }

    /// Why nobody even looks at what is asked.
    fn refused(&mut self, asked: &Asked, kind: Option<&Kind>) -> Option<Refusal> {
        if !self.description.knows(&asked.parts()) {
            return Some(refuse(404, "not_found", "not found"));
        }
        let within = self.bucket.take();
        if self.asked_of(asked).is_none() {
            return Some(refuse(401, "unauthorized", "the token is not valid"));
        }
        if !within {
            return Some(rate_limited());
        }
        kind.and_then(Kind::before)
    }

    /// What the description says of it, for the test too.
    fn allowed(&mut self, asked: &Asked) -> Result<(), Refusal> {
        let checked = self.check(asked);
        let why = match &checked {
            Ok(unknown) if unknown.is_empty() => return Ok(()),
            Ok(unknown) => format!("nobody described {}", unknown.join(", ")),
            Err(refusal) => format!("{}: {}", refusal.message, refusal.details),
        };
        self.invalid.push((self.seen.len(), why));
        checked.map(|_| ())
    }

    fn check(&self, asked: &Asked) -> Result<Vec<String>, Refusal> {
        if asked.malformed {
            return Err(refuse(400, "json_error", "invalid JSON"));
        }
        let (method, body) = (&asked.seen.method, asked.body.as_ref());
        self.description
            .check(method, &asked.parts(), &asked.query, body)
    }

    fn carried_out(&mut self, asked: &Asked, kind: Option<&Kind>) -> Answered {
        let at = self.asked_of(asked).unwrap_or_default();
        let project = &mut self.projects[at].1;
        project.fate = match kind {
            Some(Kind::ActionFails(code)) => Some(Fate::Fails(code)),
            Some(Kind::ActionNeverEnds) => Some(Fate::NeverEnds),
            _ => None,
        };
        let Seen { method, body, .. } = &asked.seen;
        if let Some(Kind::TwinBefore) = kind {
            project.answer(method, &asked.parts(), &asked.query, body)?;
        }
        let answer = project.answer(method, &asked.parts(), &asked.query, body)?;
        if method == "GET" {
            project.age(&answer.body);
        }
        Ok(answer)
    }

    fn outcome(&self, kind: Option<Kind>, answer: &Answer) -> Outcome {
        let text = match &kind {
            Some(Kind::GatewayBefore(status)) => format!("<html><h1>{status}</h1></html>"),
            _ if answer.body.is_null() => String::new(),
            _ => answer.body.to_string(),
        };
        let (left, full_at) = match &kind {
            Some(Kind::RateLimit(seconds)) => (0, now() + seconds),
            _ => (self.bucket.left, self.bucket.full_at()),
        };
        let mut spoken = Spoken {
            status: answer.status,
            headers: vec![
                ("ratelimit-limit", self.bucket.size.to_string()),
                ("ratelimit-remaining", left.to_string()),
                ("ratelimit-reset", full_at.to_string()),
                ("x-correlation-id", format!("{:016x}", self.seen.len())),
            ],
            text,
        };
        // Clients read what is said to be JSON, also when nothing is there.
        if !spoken.text.is_empty() {
            let html = spoken.text.starts_with('<');
            let content = if html {
                "text/html"
            } else {
                "application/json"
            };
            spoken.headers.push(("content-type", content.to_owned()));
        }
        match kind {
            Some(Kind::CutAfter) => Outcome::BreaksOff(spoken),
            Some(Kind::SilentAfter) => Outcome::SaysNothing,
            _ => Outcome::Says(spoken),
        }
    }
}
