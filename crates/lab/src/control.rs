//! How a running lab is asked and changed: JSON lines over `control.sock`, one request, one answer.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::link::Fault;

/// Version of [`Status`]. A reader ignores fields it does not know.
pub const STATUS_SCHEMA: u32 = 1;

/// The longest time an answer may take: a standby is reached over a link that may be cut.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verb")]
pub enum Request {
    Status,
    Link {
        from: String,
        to: String,
        change: LinkChange,
    },
    Standby {
        name: String,
        action: StandbyAction,
    },
    Dependency {
        name: String,
        up: bool,
    },
    /// Kills one process of the lab, or starts a killed one again.
    Process {
        name: String,
        action: ProcessAction,
    },
    Down,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Done,
    Status(Box<Status>),
    Refused { error: String, hint: Option<String> },
}

/// What to change about a link; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkChange {
    /// First back to what the lab started with: no fault, the usual delay, no limit.
    #[serde(default)]
    pub clear: bool,
    pub latency_ms: Option<u64>,
    /// Bytes per second.
    pub bandwidth: Option<NonZeroU64>,
    pub fault: Option<Fault>,
    /// Wherever this text crosses the link its last byte is changed.
    #[serde(default)]
    pub corrupt: Option<String>,
    /// Ends every open connection of the link with RST, now.
    #[serde(default)]
    pub reset: bool,
    /// The opposite link too.
    #[serde(default)]
    pub both: bool,
}

impl LinkChange {
    pub fn clear() -> Self {
        Self {
            clear: true,
            ..Self::default()
        }
    }

    pub fn cut() -> Self {
        Self {
            fault: Some(Fault::Cut),
            ..Self::default()
        }
    }

    pub fn half_open() -> Self {
        Self {
            fault: Some(Fault::HalfOpen),
            ..Self::default()
        }
    }

    pub fn reset() -> Self {
        Self {
            reset: true,
            ..Self::default()
        }
    }

    pub fn latency(millis: u64) -> Self {
        Self {
            latency_ms: Some(millis),
            ..Self::default()
        }
    }

    pub fn bandwidth(bytes_per_second: NonZeroU64) -> Self {
        Self {
            bandwidth: Some(bytes_per_second),
            ..Self::default()
        }
    }

    pub fn corrupt(text: &str) -> Self {
        Self {
            corrupt: Some(text.to_owned()),
            ..Self::default()
        }
    }

    /// The same for the opposite link.
    pub fn both(self) -> Self {
        Self { both: true, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StandbyAction {
    /// Stop replaying: every write makes the lag grow.
    Hold,
    Release,
    /// Replay each transaction this much later; zero ends it.
    ApplyDelay {
        millis: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessAction {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: hung is not dead.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// Start it again after it was killed.
    Start,
}

/// Everything about a running lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub schema: u32,
    pub dir: PathBuf,
    /// For example `127.44.8.0/24`.
    pub block: String,
    /// Account of every process in the lab.
    pub account: String,
    pub guard_pid: u32,
    pub supervisor_pid: u32,
    /// From the guard's start until everything answered.
    pub ready_after_ms: u64,
    pub regions_toml: PathBuf,
    pub processes: Vec<ProcessStatus>,
    pub links: Vec<LinkStatus>,
    pub dependencies: Vec<DependencyStatus>,
    /// Addresses as the world sees them: what `regions.toml` says.
    pub addresses: BTreeMap<String, SocketAddr>,
    /// What a program needs in its environment to work with this lab.
    pub env: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// For example `us-1/haproxy` or `eu-nbg`.
    pub name: String,
    pub role: String,
    pub region: String,
    pub address: SocketAddr,
    /// Absent while it does not run.
    pub pid: Option<u32>,
    /// How it ended, if it has.
    pub ended: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkStatus {
    pub from: String,
    pub to: String,
    pub latency_ms: u64,
    pub bandwidth: Option<NonZeroU64>,
    pub fault: Fault,
    /// Connections opened over it.
    pub connections: usize,
    pub in_flight_bytes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DependencyStatus {
    pub name: String,
    pub url: String,
    pub up: bool,
    pub requests: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("cannot reach a lab in `{dir}`")]
    NotRunning { dir: PathBuf, source: io::Error },
    #[error("cannot ask the lab in `{dir}`")]
    Broken { dir: PathBuf, source: io::Error },
    #[error("{error}")]
    Refused { error: String, hint: Option<String> },
}

impl ControlError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning { dir, .. } => Some(format!("lab up --dir {}", dir.display())),
            Self::Broken { dir, .. } => Some(format!("see {}", dir.join("lab.log").display())),
            Self::Refused { hint, .. } => hint.clone(),
        }
    }
}

/// Sends one request and waits for its answer.
pub fn ask(directory: &Directory, request: &Request) -> Result<Answer, ControlError> {
    let dir = || directory.path().to_owned();
    let socket = UnixStream::connect(directory.control_socket())
        .map_err(|source| ControlError::NotRunning { dir: dir(), source })?;
    let answer =
        exchange(&socket, request).map_err(|source| ControlError::Broken { dir: dir(), source })?;
    match answer {
        Answer::Refused { error, hint } => Err(ControlError::Refused { error, hint }),
        Answer::Done | Answer::Status(_) => Ok(answer),
    }
}

/// What the lab is now.
pub fn status(directory: &Directory) -> Result<Status, ControlError> {
    match ask(directory, &Request::Status)? {
        Answer::Status(status) => Ok(*status),
        Answer::Done | Answer::Refused { .. } => Err(ControlError::Broken {
            dir: directory.path().to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, "the answer is not a status"),
        }),
    }
}

fn exchange(mut socket: &UnixStream, request: &Request) -> io::Result<Answer> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    socket.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the lab closed the connection",
        ));
    }
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::{LinkChange, Request};

    #[test]
    fn an_absent_part_of_a_link_change_changes_nothing() {
        let line = r#"{"verb":"link","from":"world","to":"us-east","change":{"latency_ms":45}}"#;
        let Request::Link { change, .. } = serde_json::from_str(line).expect("a request") else {
            panic!("{line}")
        };
        assert_eq!(change, LinkChange::latency(45));
        assert_eq!(change.bandwidth, None);
    }
}
