//! The small product that runs in the lab's slots: users, their orders, and three health endpoints.
//!
//! `serve` (the default) takes its configuration from the environment only, as region-host hands it to a slot;
//! `migrate` creates the schema. Without `WRITE_DATABASE_URL` it serves `/`, `/echo`, `/slow` and `/health/basic`, and
//! every other endpoint says that no database is configured.
//!
//! stdout gets one JSON line at the start, stderr one JSON line for each error. Ends with 0 after a clean drain, 2 for a
//! wrong configuration, 1 for everything else.

mod answer;
mod app;
mod config;
mod database;
mod dependencies;
mod environment;
mod faults;
mod greeting;
mod health;
mod heartbeat;
mod homes;
mod lag;
mod log;
mod migrate;
mod orders;
mod routes;
mod server;
mod users;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::app::App;
use crate::config::Config;
use crate::environment::{Environment, WrongValue};
use crate::migrate::Migrate;

/// A small product: users, their orders, and three health endpoints
#[derive(Parser)]
#[command(name = "reference-api", version, after_help = config::HELP)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Answer requests until SIGTERM; configured by the environment
    Serve,
    /// Create what is missing of the database schema
    Migrate(Migrate),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Args::parse().verb.unwrap_or(Verb::Serve) {
        Verb::Serve => serve().await,
        Verb::Migrate(migrate) => migrate.run().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error("cannot go on", &error);
            if error.downcast_ref::<WrongValue>().is_some() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

async fn serve() -> anyhow::Result<()> {
    let config = Config::read(&Environment::of_process()?)?;
    let signal = server::termination(&config.faults)?;
    if !config.faults.delay_start(&signal).await {
        return Ok(());
    }
    config.faults.schedule_crash();

    let listener = server::listen(config.listen).await?;
    log::started(
        &config.identity,
        listener
            .local_addr()
            .context("cannot read the address of the listener")?,
    )?;
    let app = Arc::new(App::new(config)?);
    let heartbeat = heartbeat::start(&app)?;
    server::run(listener, Arc::clone(&app), signal).await;
    heartbeat.stop().await;
    Ok(())
}
