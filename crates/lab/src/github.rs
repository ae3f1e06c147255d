//! The API of GitHub as far as a rollout needs it: stateful, with its own wire types, on loopback.
//!
//! It refuses what the original refuses, pages as the original pages, and has bad days on request: refusals, rate limits
//! of both kinds, gateway errors before or after the work was done, answers that break off or come late.

mod refuse;
mod repository;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fault::befalls;

pub use repository::{Deployment, Environment, Issue, Repository};

/// A GitHub with one repository.
pub struct Github {
    address: SocketAddr,
    base: String,
    shared: Shared,
    task: JoinHandle<()>,
}

type Shared = Arc<Mutex<World>>;

/// What there is, what is wrong, and what was asked.
struct World {
    /// Path in front of every route: empty, or `/api/v3` of an Enterprise Server.
    base: String,
    repository: Repository,
    token: String,
    /// What the token may do, as a workflow's `permissions` name it.
    permissions: BTreeSet<&'static str>,
    faults: Vec<Fault>,
    seen: Vec<Seen>,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Decoded.
    pub path: String,
    /// Path and query as they came.
    pub target: String,
    pub body: Value,
}

/// What goes wrong with the next requests of a kind.
pub type Fault = crate::fault::Fault<Kind>;

/// How it goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Refused with this status and message.
    Refused(u16, &'static str),
    /// The hourly limit is used up; it begins anew after so many seconds.
    RateLimit(u64),
    /// Too much at once; with the seconds to wait, when GitHub says them.
    SecondaryLimit(Option<u64>),
    /// A gateway's error, and nothing was done.
    GatewayBefore,
    /// A gateway's error, and all was done.
    GatewayAfter,
    /// All was done, and the answer breaks off.
    CutAfter,
    /// All was done, and the answer comes late.
    SlowAfter(Duration),
    /// An answer that is no JSON.
    Nonsense,
}

/// What a route answers.
struct Answer {
    status: StatusCode,
    body: Value,
    /// Of a list: how many pages there are, and which this is.
    page: Option<(usize, usize)>,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self::with(StatusCode::OK, body)
    }

    fn created(body: Value) -> Self {
        Self::with(StatusCode::CREATED, body)
    }

    fn with(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            body,
            page: None,
        }
    }
}

impl Github {
    /// Starts to answer for `our-org/regionwise`, to this token and with every permission.
    ///
    /// # Errors
    /// When loopback has no free port.
    pub async fn start(token: &str) -> io::Result<Self> {
        Self::start_below("", token).await
    }

    /// As an Enterprise Server, whose API is below a path.
    ///
    /// # Errors
    /// As [`Github::start`].
    pub async fn start_below(base: &str, token: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(World {
            base: base.to_owned(),
            repository: Repository::new("our-org", "regionwise"),
            token: token.to_owned(),
            permissions: ["actions", "deployments", "issues"].into(),
            faults: Vec::new(),
            seen: Vec::new(),
        }));
        let app = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // It ends with the task; before that, an error is the listener's.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            address,
            base: base.to_owned(),
            shared,
            task,
        })
    }

    /// What a runner has in `GITHUB_API_URL`.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.base)
    }

    /// Looks at the repository, or changes it as other people would.
    pub fn repository<T>(&self, look: impl FnOnce(&mut Repository) -> T) -> T {
        look(&mut lock(&self.shared).repository)
    }

    pub fn fail(&self, fault: Fault) {
        lock(&self.shared).faults.push(fault);
    }

    /// Nothing goes wrong any more.
    pub fn recover(&self) {
        lock(&self.shared).faults.clear();
    }

    /// Takes a permission from the token.
    pub fn forbid(&self, permission: &'static str) {
        lock(&self.shared).permissions.remove(permission);
    }

    /// Every request so far, refused ones too.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared).seen.clone()
    }

    /// How many requests of that method and end of path came in.
    pub fn count(&self, method: &str, path_ends: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.method == method && seen.path.ends_with(path_ends))
            .count()
    }
}

impl Drop for Github {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A panic elsewhere leaves the state as it is: the test fails anyway.
fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, World> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (kind, answer) = lock(&shared).answer(&method, &uri, &headers, &body);
    match kind {
        Some(Kind::SlowAfter(time)) => {
            sleep(time).await;
            response(&uri, &answer)
        }
        Some(Kind::CutAfter) => cut(&answer),
        Some(kind) => failed(kind),
        None => response(&uri, &answer),
    }
}

impl World {
    /// The fault that befalls this request, and what the route itself answers.
    fn answer(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> (Option<Kind>, Answer) {
        let path = decoded(uri.path());
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        self.seen.push(Seen {
            method: method.to_string(),
            path: path.clone(),
            target: uri.to_string(),
            body: body.clone(),
        });
        let fault = befalls(&mut self.faults, method.as_str(), &path);
        if let Some(
            Kind::Refused(..)
            | Kind::RateLimit(_)
            | Kind::SecondaryLimit(_)
            | Kind::GatewayBefore
            | Kind::Nonsense,
        ) = fault
        {
            return (fault, Answer::ok(Value::Null));
        }
        let answer = match self.refused(method, &path, headers) {
            Some(refused) => refused,
            None => {
                let route = path.strip_prefix(&self.base).unwrap_or(&path).to_owned();
                let query = uri.query().unwrap_or_default();
                // The name of an environment may hold a slash: routes are split as they came.
                let raw = uri.path().strip_prefix(&self.base).unwrap_or(&route);
                let parts: Vec<String> = raw.split('/').skip(1).map(decoded).collect();
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.repository
                    .answer(method.as_str(), &parts, &Query::of(query), &body)
            }
        };
        (fault, answer)
    }

    fn refused(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Answer> {
        let said = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if said(header::AUTHORIZATION) != Some(&format!("Bearer {}", self.token)) {
            return Some(refuse::because(401, "Bad credentials"));
        }
        if said(header::USER_AGENT).is_none_or(str::is_empty) {
            return Some(refuse::because(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
            ));
        }
        if !path.starts_with(&self.base) {
            return Some(refuse::not_found());
        }
        let needed = if path.contains("/environments") || path.contains("/actions/") {
            "actions"
        } else if path.contains("/deployments") {
            "deployments"
        } else {
            "issues"
        };
        (!self.permissions.contains(needed)).then(|| {
            if *method == Method::GET {
                // A private repository does not say that there is something to read.
                refuse::not_found()
            } else {
                refuse::because(403, "Resource not accessible by integration")
            }
        })
    }
}

fn failed(kind: Kind) -> Response {
    let limited = |status: u16, message: &str, headers: &[(&str, String)]| {
        let mut response = json_response(&refuse::because(status, message));
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(*name), value.parse()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    };
    match kind {
        Kind::Refused(status, message) => limited(status, message, &[]),
        Kind::RateLimit(seconds) => limited(
            403,
            "API rate limit exceeded for installation.",
            &[
                ("x-ratelimit-limit", "1000".to_owned()),
                ("x-ratelimit-remaining", "0".to_owned()),
                ("x-ratelimit-reset", (now() + seconds).to_string()),
            ],
        ),
        Kind::SecondaryLimit(seconds) => {
            let wait = seconds.map(|seconds| ("retry-after", seconds.to_string()));
            limited(
                403,
                "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
                wait.as_slice(),
            )
        }
        Kind::GatewayBefore | Kind::GatewayAfter => {
            let mut response = Response::new(Body::from("<html>502 Bad Gateway</html>"));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
        Kind::Nonsense | Kind::CutAfter | Kind::SlowAfter(_) => {
            Response::new(Body::from("<html>Unicorn!</html>"))
        }
    }
}

/// The head of the answer, and half of its body.
fn cut(answer: &Answer) -> Response {
    let text = answer.body.to_string();
    let half = text.as_bytes()[..text.len() / 2].to_vec();
    let parts = [Ok(half), Err(io::Error::other("cut"))];
    let mut response = Response::new(Body::from_stream(futures_util::stream::iter(parts)));
    *response.status_mut() = answer.status;
    response
}

fn response(uri: &Uri, answer: &Answer) -> Response {
    let mut response = json_response(answer);
    if let Some(link) = answer.page.and_then(|(pages, page)| link(uri, pages, page))
        && let Ok(value) = link.parse()
    {
        response.headers_mut().insert(header::LINK, value);
    }
    response
}

fn json_response(answer: &Answer) -> Response {
    let body = if answer.body.is_null() {
        Body::empty()
    } else {
        Body::from(answer.body.to_string())
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

fn link(uri: &Uri, pages: usize, page: usize) -> Option<String> {
    let query = Query::of(uri.query().unwrap_or_default());
    let rest: String = query
        .0
        .iter()
        .filter(|(name, _)| name != "page")
        .map(|(name, value)| format!("&{name}={value}"))
        .collect();
    let to = |page: usize, rel: &str| {
        format!(
            "<https://api.github.example{}?page={page}{rest}>; rel=\"{rel}\"",
            uri.path()
        )
    };
    (page < pages).then(|| format!("{}, {}", to(page + 1, "next"), to(pages, "last")))
}

/// The query of a request, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(name, value)| {
                    (
                        decoded(&name.replace('+', " ")),
                        decoded(&value.replace('+', " ")),
                    )
                })
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    /// One page of a list, as `per_page` and `page` ask for it.
    fn page(&self, all: Vec<Value>) -> (Vec<Value>, (usize, usize)) {
        let number = |name, default| {
            self.get(name)
                .and_then(|text| text.parse::<usize>().ok())
                .unwrap_or(default)
                .max(1)
        };
        let (size, page) = (number("per_page", 30).min(100), number("page", 1));
        let pages = all.len().div_ceil(size);
        let shown = all.into_iter().skip((page - 1) * size).take(size).collect();
        (shown, (pages, page))
    }

    fn list(&self, all: Vec<Value>) -> Answer {
        let (shown, page) = self.page(all);
        Answer {
            page: Some(page),
            ..Answer::ok(Value::Array(shown))
        }
    }

    fn counted_list(&self, name: &str, all: Vec<Value>) -> Answer {
        let count = all.len();
        let (shown, page) = self.page(all);
        Answer {
            page: Some(page),
            ..Answer::ok(json!({ "total_count": count, name: shown }))
        }
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
