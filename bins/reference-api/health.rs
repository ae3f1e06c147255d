//! `/health/basic`, `/health/db`, `/health/full`. Their bodies are a contract: docs/health-endpoints.md.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use crate::answer::Refusal;
use crate::app::{App, Databases};
use crate::config::Identity;
use crate::database::{Database, DatabaseError};
use crate::dependencies::{self, DependencyHealth};
use crate::faults::BasicFault;
use crate::heartbeat::ReplicaLag;

/// For one look at a database or a dependency: an answer must leave before the caller of a health check gives up, which
/// many do after one second.
pub(crate) const LOOK_DEADLINE: Duration = Duration::from_millis(800);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    Fail,
}

impl Status {
    fn of(ok: bool) -> Self {
        if ok { Self::Ok } else { Self::Fail }
    }

    fn code(self) -> StatusCode {
        match self {
            Self::Ok => StatusCode::OK,
            Self::Fail => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[derive(Serialize)]
struct Basic {
    status: Status,
    #[serde(flatten)]
    identity: Identity,
}

/// Whether this process answers at all: looks at nothing else.
pub(crate) async fn basic(State(app): State<Arc<App>>) -> Response {
    if app.faults.flaps_now(app.started, Instant::now()) {
        return basic_as_a_bad_release(&app, BasicFault::Error).await;
    }
    match app.faults.basic {
        Some(fault) => basic_as_a_bad_release(&app, fault).await,
        None => Json(Basic {
            status: Status::Ok,
            identity: app.identity.clone(),
        })
        .into_response(),
    }
}

async fn basic_as_a_bad_release(app: &App, fault: BasicFault) -> Response {
    match fault {
        BasicFault::Error => {
            let body = Basic {
                status: Status::Fail,
                identity: app.identity.clone(),
            };
            (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
        }
        BasicFault::Hang => pending().await,
        BasicFault::Huge => vec![b' '; 10 * 1024 * 1024].into_response(),
        BasicFault::Redirect => (
            StatusCode::FOUND,
            [(header::LOCATION, "http://127.0.0.1:9/health/basic")],
        )
            .into_response(),
        // A byte each second for a minute: alive for a timeout between bytes, too slow for one over all.
        BasicFault::Slow => Body::from_stream(stream::unfold(0, async |sent| {
            sleep(Duration::from_secs(1)).await;
            (sent < 60).then(|| {
                (
                    Ok::<_, std::convert::Infallible>(Bytes::from_static(b" ")),
                    sent + 1,
                )
            })
        }))
        .into_response(),
    }
}

#[derive(Serialize)]
struct Db {
    status: Status,
    release: String,
    writer: Node,
    reader: Node,
    /// `null` only where reads go to the primary.
    replication: Option<Replication>,
}

#[derive(Serialize)]
struct Node {
    status: Status,
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct Replication {
    replica: String,
    /// `null` when it could not be measured: never to be read as no lag.
    lag_ms: Option<f64>,
    lag_min_ms: Option<f64>,
    lag_max_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Whether the databases answer, and how far the reader is behind.
pub(crate) async fn db(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let databases = app.databases()?;
    let (writer, reader) = tokio::join!(look_at_writer(databases), look_at_reader(databases));
    let status = Status::of(writer.status == Status::Ok && reader.status == Status::Ok);
    let body = Db {
        status,
        release: app.identity.release.clone(),
        writer,
        reader,
        replication: databases.replica.as_deref().map(replication),
    };
    Ok((status.code(), Json(body)).into_response())
}

/// A writer that turned out to be a standby cannot take a write.
async fn look_at_writer(databases: &Databases) -> Node {
    node(&databases.write, |in_recovery| {
        in_recovery.then_some("the writer is a standby: it takes no writes")
    })
    .await
}

/// Reads said to go to a standby and going to a primary are a wrong set-up: the lag would be that of nothing.
async fn look_at_reader(databases: &Databases) -> Node {
    let expects_standby = databases.replica.is_some();
    node(&databases.read, |in_recovery| {
        (expects_standby && !in_recovery)
            .then_some("the reader is not a standby, but READ_REPLICA names one")
    })
    .await
}

async fn node(database: &Database, objection: impl FnOnce(bool) -> Option<&'static str>) -> Node {
    let (result, latency) = look(database).await;
    let reason = match result {
        Ok(in_recovery) => objection(in_recovery).map(str::to_owned),
        Err(reason) => Some(reason),
    };
    Node {
        status: Status::of(reason.is_none()),
        latency_ms: latency.map(milliseconds),
        reason,
    }
}

/// Whether the node is in recovery and how long the answer took; or why there is none.
pub(crate) async fn look(database: &Database) -> (Result<bool, String>, Option<Duration>) {
    let start = Instant::now();
    let answer = timeout(
        LOOK_DEADLINE,
        database.query_repeatable("SELECT pg_is_in_recovery()", &[]),
    )
    .await;
    match answer {
        Ok(Ok(rows)) => match rows.first() {
            Some(row) => (Ok(row.get(0)), Some(start.elapsed())),
            None => (Err("no row in the answer".to_owned()), None),
        },
        Ok(Err(error)) => (Err(in_one_line(&error)), None),
        Err(_) => (Err(no_answer()), None),
    }
}

pub(crate) fn no_answer() -> String {
    format!("no answer within {} ms", LOOK_DEADLINE.as_millis())
}

fn in_one_line(error: &DatabaseError) -> String {
    let mut causes: Vec<String> = vec![error.to_string()];
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.join(": ")
}

fn replication(replica: &ReplicaLag) -> Replication {
    let name = replica.name.clone();
    match replica.now() {
        Ok(bounds) => Replication {
            replica: name,
            lag_ms: Some(milliseconds(bounds.estimate())),
            lag_min_ms: Some(milliseconds(bounds.min)),
            lag_max_ms: Some(milliseconds(bounds.max)),
            reason: None,
        },
        Err(reason) => Replication {
            replica: name,
            lag_ms: None,
            lag_min_ms: None,
            lag_max_ms: None,
            reason: Some(reason),
        },
    }
}

#[derive(Serialize)]
struct Full {
    status: Status,
    release: String,
    dependencies: Vec<DependencyHealth>,
}

/// Whether everything this product needs answers.
pub(crate) async fn full(State(app): State<Arc<App>>) -> Response {
    let dependencies = dependencies::look_at_all(&app).await;
    let status = Status::of(
        dependencies
            .iter()
            .all(|dependency| dependency.status == Status::Ok),
    );
    let body = Full {
        status,
        release: app.identity.release.clone(),
        dependencies,
    };
    (status.code(), Json(body)).into_response()
}

/// With a precision of a hundredth.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
