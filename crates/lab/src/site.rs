//! What every part of a starting lab needs: directory, block, programs, passwords, running processes, progress.

use std::future::Future;
use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::directory::Directory;
use crate::layout::{Block, Part};
use crate::programs::Programs;
use crate::running::{Place, Program, Running, StartError};

/// No part takes this long unless it is broken.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// A probe is cheap, and a lab that is ready 10 ms later is a slower test.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Site {
    pub(crate) directory: Directory,
    pub(crate) block: Block,
    pub(crate) account: String,
    pub(crate) programs: Programs,
    pub(crate) passwords: Passwords,
    pub(crate) running: Running,
    pub(crate) started: Instant,
}

/// One lab's passwords, drawn when it starts.
#[derive(Clone)]
pub(crate) struct Passwords {
    /// Superuser `lab`.
    pub(crate) lab: String,
    /// `regionwise_lag`, the gate's account.
    pub(crate) lag: String,
    /// `shop`, the product's account.
    pub(crate) shop: String,
    pub(crate) replication: String,
    /// `regionwise_install`, `regionwise_mover` and `regionwise_verifier`, the accounts of `migrate-eu-users`.
    pub(crate) migration: String,
}

impl Passwords {
    pub(crate) fn draw() -> Result<Self, getrandom::Error> {
        Ok(Self {
            lab: secret()?,
            lag: secret()?,
            shop: secret()?,
            replication: secret()?,
            migration: secret()?,
        })
    }
}

fn secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a starting lab tells whoever started it: JSON lines on the guard's stdout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// A part answers, this long after the start.
    Up { part: String, millis: u64 },
    /// Everything answers, and `status.json` is written.
    Ready { millis: u64 },
    Failed {
        error: String,
        cause: String,
        hint: Option<String>,
        /// The caller must change something first: usage, a missing program.
        invalid: bool,
    },
}

impl Progress {
    pub(crate) fn failed(
        error: &impl ToString,
        cause: &impl ToString,
        hint: Option<String>,
        invalid: bool,
    ) -> Self {
        Self::Failed {
            error: error.to_string(),
            cause: cause.to_string(),
            hint,
            invalid,
        }
    }

    pub(crate) fn tell(&self) {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        // Nobody listens any more once the lab has been left alone.
        let _ = io::stdout().write_all(line.as_bytes());
    }
}

impl Site {
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn tell_up(&self, part: impl Into<String>) {
        Progress::Up {
            part: part.into(),
            millis: self.millis(),
        }
        .tell();
    }

    pub(crate) fn place(&self, role: &'static str, part: Part) -> Place {
        Place {
            role,
            region: part.region(),
            address: self.block.inside(part),
        }
    }

    /// Starts a process and waits until `probe` succeeds.
    pub(crate) async fn start<F: Future<Output = Result<(), String>>>(
        &self,
        program: Program,
        place: Place,
        probe: impl FnMut() -> F,
    ) -> Result<(), StartError> {
        let name = program.name.clone();
        self.running.serve(program, place)?;
        self.until(&format!("reach `{name}`"), Some(&name), probe)
            .await
    }

    /// Starts a process and waits until it accepts TCP connections.
    pub(crate) async fn start_listening(
        &self,
        program: Program,
        place: Place,
    ) -> Result<(), StartError> {
        let address = place.address;
        self.start(program, place, || async move { connect(address).await })
            .await
    }

    /// Probes until it succeeds, `process` ends or the deadline passes.
    pub(crate) async fn until<T, F: Future<Output = Result<T, String>>>(
        &self,
        doing: &str,
        process: Option<&str>,
        mut probe: impl FnMut() -> F,
    ) -> Result<T, StartError> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let answer = timeout(PROBE_TIMEOUT, probe()).await;
            let cause = match answer {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(cause)) => cause,
                Err(_) => format!("no answer within {} s", PROBE_TIMEOUT.as_secs()),
            };
            if let Some(name) = process
                && let Some(ended) = self.running.ended(name)
            {
                return Err(StartError::new(
                    doing,
                    format!("{ended}; {}", self.running.last_words(name)),
                ));
            }
            if Instant::now() >= deadline {
                return Err(StartError::new(doing, cause));
            }
            sleep(PROBE_INTERVAL).await;
        }
    }
}

async fn connect(address: std::net::SocketAddrV4) -> Result<(), String> {
    TcpStream::connect(std::net::SocketAddr::V4(address))
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}
