//! Answers that need no database: `/`, `/echo` and `/slow`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{Refusal, parse_body};
use crate::app::App;

/// A request that takes longer holds up every drain.
const SLOWEST: Duration = Duration::from_secs(10);

#[derive(Serialize)]
pub(crate) struct Greeting {
    greeting: String,
    release: String,
    region: String,
    host: String,
}

pub(crate) async fn greet(State(app): State<Arc<App>>) -> Json<Greeting> {
    let identity = app.identity.clone();
    Json(Greeting {
        greeting: app.greeting.clone(),
        release: identity.release,
        region: identity.region,
        host: identity.host,
    })
}

/// Answers with the JSON it was sent: a POST that works without a database.
pub(crate) async fn echo(body: Bytes) -> Result<Json<Value>, Refusal> {
    let sent: Value = parse_body(&body)?;
    Ok(Json(json!({ "echo": sent })))
}

#[derive(Deserialize)]
pub(crate) struct Slow {
    ms: u64,
}

/// Answers after the wanted time: shows whether a drain waits for requests in flight.
pub(crate) async fn slow(
    query: Result<Query<Slow>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(Slow { ms }) =
        query.map_err(|rejection| Refusal::bad_request("invalid-query", rejection.body_text()))?;
    let wait = Duration::from_millis(ms);
    if wait > SLOWEST {
        return Err(Refusal::invalid(
            "too-slow",
            format!("ms is at most {}", SLOWEST.as_millis()),
        ));
    }
    tokio::time::sleep(wait).await;
    Ok(Json(json!({ "slept_ms": ms })))
}
