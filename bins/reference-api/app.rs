//! What every request needs, and the table of routes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;

use crate::answer::Refusal;
use crate::config::{Config, Dependency, Identity};
use crate::database::Database;
use crate::faults::Faults;
use crate::heartbeat::ReplicaLag;
use crate::homes::{Homes, Retries};
use crate::server::Phase;
use crate::{greeting, health, orders, users};

/// No request of this product is larger.
const BODY_LIMIT: usize = 64 * 1024;

pub(crate) struct App {
    pub(crate) identity: Identity,
    pub(crate) greeting: String,
    pub(crate) databases: Option<Databases>,
    pub(crate) redis: Option<redis::Client>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) http: reqwest::Client,
    pub(crate) faults: Faults,
    pub(crate) started: Instant,
    /// How far the end of this process has come.
    pub(crate) phase: watch::Sender<Phase>,
    release_header: HeaderValue,
}

pub(crate) struct Databases {
    pub(crate) write: Database,
    pub(crate) read: Database,
    /// `None` where reads go to the primary.
    pub(crate) replica: Option<Arc<ReplicaLag>>,
    pub(crate) cluster: String,
    pub(crate) homes: Homes,
}

impl App {
    pub(crate) fn new(config: Config) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(1))
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self {
            release_header: HeaderValue::from_str(&config.identity.release)
                .context("cannot send the release name")?,
            identity: config.identity,
            greeting: config.greeting,
            databases: config.databases.map(|urls| Databases {
                write: Database::new(urls.write),
                read: Database::new(urls.read),
                replica: urls.replica.map(|name| Arc::new(ReplicaLag::of(name))),
                cluster: urls.cluster,
                homes: Homes::new(urls.others, urls.route_cache_ttl),
            }),
            redis: config.redis,
            dependencies: config.dependencies,
            http,
            faults: config.faults,
            started: Instant::now(),
            phase: watch::Sender::new(Phase::Serving),
        })
    }

    /// The databases, or the answer that there are none.
    pub(crate) fn databases(&self) -> Result<&Databases, Refusal> {
        self.databases.as_ref().ok_or_else(Refusal::not_configured)
    }
}

pub(crate) fn routes(app: Arc<App>) -> Router {
    let business = Router::new()
        .route("/", get(greeting::greet))
        .route("/echo", post(greeting::echo))
        .route("/slow", get(greeting::slow))
        .route("/users", post(users::create))
        .route("/users/{id}", get(users::read))
        .route("/users/{id}/orders", post(orders::place).get(orders::list))
        .route("/orders/{id}", get(orders::read))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            answer_wrongly,
        ));
    let health = Router::new()
        .route("/health/basic", get(health::basic))
        .route("/health/db", get(health::db))
        .route("/health/full", get(health::full));
    business
        .merge(health)
        .fallback(async || Refusal::not_found("no-such-path", "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "this path has other methods",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), mark))
        .with_state(app)
}

/// Every answer names its release, says how often its statements had to be repeated because a user had moved, and says so
/// when it is the connection's last.
async fn mark(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let retries = Retries::default();
    request.extensions_mut().insert(retries.clone());
    let mut response = next.run(request).await;
    if retries.count() > 0 {
        response
            .headers_mut()
            .insert("x-region-retries", HeaderValue::from(retries.count()));
    }
    response
        .headers_mut()
        .insert("x-release", app.release_header.clone());
    if *app.phase.borrow() != Phase::Serving {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer_wrongly(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.faults.next_answer_is_wrong() {
        return Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unexpected",
            "FAULT_WRONG_ANSWERS",
        )
        .into_response();
    }
    next.run(request).await
}
