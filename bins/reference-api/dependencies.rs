//! What this product needs from others: Postgres, Redis, and the services in `DEPENDENCIES`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::timeout;

use crate::app::App;
use crate::config::Dependency;
use crate::health::{LOOK_DEADLINE, Status, look, milliseconds, no_answer};

#[derive(Serialize)]
pub(crate) struct DependencyHealth {
    name: String,
    pub(crate) status: Status,
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl DependencyHealth {
    fn of(name: &str, result: Result<(), String>, latency: Option<Duration>) -> Self {
        let (status, reason) = match result {
            Ok(()) => (Status::Ok, None),
            Err(reason) => (Status::Fail, Some(reason)),
        };
        Self {
            name: name.to_owned(),
            status,
            latency_ms: latency.map(milliseconds),
            reason,
        }
    }
}

/// Looks at all of them at once; takes as long as the slowest, at most the deadline of one.
pub(crate) async fn look_at_all(app: &App) -> Vec<DependencyHealth> {
    let services = join_all(
        app.dependencies
            .iter()
            .map(|dependency| look_at_service(app, dependency)),
    );
    let (postgres, redis, services) =
        tokio::join!(look_at_postgres(app), look_at_redis(app), services);
    postgres.into_iter().chain(redis).chain(services).collect()
}

async fn look_at_postgres(app: &App) -> Option<DependencyHealth> {
    let databases = app.databases.as_ref()?;
    let (result, latency) = look(&databases.write).await;
    Some(DependencyHealth::of("postgres", result.map(drop), latency))
}

async fn look_at_redis(app: &App) -> Option<DependencyHealth> {
    let redis = app.redis.as_ref()?;
    let ping = async {
        let mut connection = redis.get_multiplexed_async_connection().await?;
        redis::cmd("PING")
            .query_async::<String>(&mut connection)
            .await
    };
    Some(
        measured("redis", async {
            ping.await.map(drop).map_err(|error| error.to_string())
        })
        .await,
    )
}

async fn look_at_service(app: &App, dependency: &Dependency) -> DependencyHealth {
    let get = async {
        let response = app
            .http
            .get(dependency.url.clone())
            .send()
            .await
            .map_err(|error| innermost(&error))?;
        let status = response.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("status {}", status.as_u16()))
        }
    };
    measured(&dependency.name, get).await
}

async fn measured(name: &str, look: impl Future<Output = Result<(), String>>) -> DependencyHealth {
    let start = Instant::now();
    match timeout(LOOK_DEADLINE, look).await {
        Ok(result) => DependencyHealth::of(name, result, Some(start.elapsed())),
        Err(_) => DependencyHealth::of(name, Err(no_answer()), None),
    }
}

/// The cause without the URL, which may hold a key.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
