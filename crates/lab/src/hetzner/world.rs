//! From a request to an answer: token, rate limit, faults, the description, and then the project.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, Uri, header};
use serde_json::Value;

use super::actions::Fate;
use super::description::Description;
use super::fault::{Fault, Kind, befalls, rate_limited};
use super::project::Project;
use super::query::Query;
use super::refusal::{Answer, Answered, refuse};
use super::{BASE, Counted, Seen, now};

/// What there is, what is wrong, and what was asked.
pub(super) struct World {
    pub(super) project: Project,
    pub(super) faults: Vec<Fault>,
    pub(super) seen: Vec<Seen>,
    pub(super) invalid: Vec<(Seen, String)>,
    token: String,
    description: Description,
    bucket: Bucket,
    hold: Option<Hold>,
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
            project: Project::new(),
            faults: Vec::new(),
            seen: Vec::new(),
            invalid: Vec::new(),
            token: token.to_owned(),
            description: Description::new(),
            bucket: Bucket::new(3600, Duration::from_secs(1)),
            hold: None,
        }
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
        let path = uri.path().strip_prefix(BASE).unwrap_or_default().to_owned();
        let given: Option<Value> = serde_json::from_slice(body).ok();
        let kind = befalls(&mut self.faults, method.as_str(), &path);
        let mut seen = Seen {
            method: method.to_string(),
            path,
            target: uri.to_string(),
            body: given.clone().unwrap_or(Value::Null),
            status: 0,
        };
        let query = Query::of(uri.query().unwrap_or_default());
        let malformed = given.is_none() && !body.is_empty();
        let answered = self.carried_out(
            &seen,
            headers,
            &query,
            given.as_ref(),
            malformed,
            kind.as_ref(),
        );
        let mut answer = answered.unwrap_or_else(Answer::from);
        seen.status = answer.status;
        self.seen.push(seen.clone());
        if let Some(hold) = self.hold.as_mut().filter(|hold| counts(hold)) {
            hold.left = hold.left.saturating_sub(1);
            if hold.left == 0 {
                // Nobody waits for it any more: then nobody has to be told.
                let _ = hold.tell.send(seen);
                return Outcome::SaysNothing;
            }
        }
        if let Some(kind) = &kind {
            kind.spoil(&mut answer);
        }
        self.outcome(kind, &answer)
    }

    fn carried_out(
        &mut self,
        seen: &Seen,
        headers: &HeaderMap,
        query: &Query,
        body: Option<&Value>,
        malformed: bool,
        kind: Option<&Kind>,
    ) -> Answered {
        let parts: Vec<&str> = seen.path.split('/').skip(1).collect();
        if !self.description.knows(&parts) {
            return Err(refuse(404, "not_found", "not found"));
        }
        let within = self.bucket.take();
        let said = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        if said != Some(&format!("Bearer {}", self.token)) {
            return Err(refuse(401, "unauthorized", "unable to authenticate"));
        }
        if !within {
            return Err(rate_limited());
        }
        if let Some(refusal) = kind.and_then(Kind::before) {
            return Err(refusal);
        }
        if let Some(Kind::GatewayBefore(status)) = kind {
            return Err(refuse(*status, "bad_gateway", "bad gateway"));
        }
        let checked = if malformed {
            Err(refuse(400, "json_error", "invalid JSON"))
        } else {
            self.description.check(&seen.method, &parts, query, body)
        };
        match checked {
            Err(refusal) => {
                let why = format!("{}: {}", refusal.message, refusal.details);
                self.invalid.push((seen.clone(), why));
                return Err(refusal);
            }
            Ok(unknown) if unknown.is_empty() => {}
            Ok(unknown) => {
                let why = format!("nobody described {}", unknown.join(", "));
                self.invalid.push((seen.clone(), why));
            }
        }
        self.project.fate = match kind {
            Some(Kind::ActionFails(code)) => Some(Fate::Fails(code)),
            Some(Kind::ActionNeverEnds) => Some(Fate::NeverEnds),
            _ => None,
        };
        let body = body.unwrap_or(&Value::Null);
        let answer = self.project.answer(&seen.method, &parts, query, body);
        if let Ok(answer) = &answer
            && seen.method == "GET"
        {
            self.project.age(&answer.body);
        }
        answer
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
