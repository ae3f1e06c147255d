//! A lab for a test: lives as long as the value, and not longer than the test's process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::control::{
    self, Answer, ControlError, LinkChange, ProcessAction, Request, StandbyAction, Status,
};
use crate::directory::Directory;
use crate::launch::{Launch, LaunchError, Launched, wait_until_ready};

/// What kind of lab a test wants.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `lab` binary: `env!("CARGO_BIN_EXE_lab")`. `region-host` and `reference-api` are beside it.
    pub binary: PathBuf,
    /// Without clusters it is ready in about a second and has only hosts, edges, links and dependencies.
    pub clusters: bool,
}

impl Options {
    /// Hosts, edges, links and dependencies.
    pub fn hosts(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            clusters: false,
        }
    }

    /// Everything.
    pub fn full(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            clusters: true,
        }
    }
}

/// Why a test has no lab, with everything that is known about it in one text.
#[derive(Debug)]
pub struct NoLab(String);

impl fmt::Display for NoLab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoLab {}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: first the lab ends, then its directory goes.
    launched: Launched,
    status: Status,
    _dir: TempDir,
}

impl Lab {
    /// Starts a lab in a directory of its own and waits until everything answers.
    pub fn start(options: &Options) -> Result<Self, NoLab> {
        let dir = tempfile::Builder::new()
            .prefix("rw-")
            .tempdir()
            .map_err(|error| NoLab(error.to_string()))?;
        let bin_dir = options.binary.parent().unwrap_or(Path::new("/")).to_owned();
        let launch = Launch {
            bin_dir,
            dir: dir.path().to_owned(),
            clusters: options.clusters,
            ephemeral: true,
        };
        let explain = |error: LaunchError| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!("\n  caused by: {cause}"));
            let hint = error.hint().map(|hint| format!("\n  hint: {hint}"));
            NoLab(format!(
                "{error}{}{}",
                cause.unwrap_or_default(),
                hint.unwrap_or_default()
            ))
        };
        let (launched, progress) = launch.start().map_err(explain)?;
        let status =
            wait_until_ready(launched.directory(), progress, |_, _| {}).map_err(explain)?;
        Ok(Self {
            launched,
            status,
            _dir: dir,
        })
    }

    /// As it was when it became ready: addresses, environment, pids.
    pub fn initial(&self) -> &Status {
        &self.status
    }

    /// As it is now.
    pub fn status(&self) -> Result<Status, ControlError> {
        control::status(self.directory())
    }

    pub fn directory(&self) -> &Directory {
        self.launched.directory()
    }

    pub fn regions_toml(&self) -> &Path {
        &self.status.regions_toml
    }

    /// What a program needs in its environment to work with this lab.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.status.env
    }

    /// Where the world reaches a part: `us-east` (its edge), `us-1/http`, `us-1/ssh`, `us-primary`.
    pub fn address(&self, part: &str) -> Option<SocketAddr> {
        self.status.addresses.get(part).copied()
    }

    /// Changes the link from one region to the other; `world` is where controllers and users are.
    pub fn link(&self, from: &str, to: &str, change: LinkChange) -> Result<(), ControlError> {
        self.ask(&Request::Link {
            from: from.to_owned(),
            to: to.to_owned(),
            change,
        })
    }

    pub fn standby<'a>(&'a self, name: &'a str) -> Standby<'a> {
        Standby { lab: self, name }
    }

    pub fn dependency(&self, name: &str, up: bool) -> Result<(), ControlError> {
        self.ask(&Request::Dependency {
            name: name.to_owned(),
            up,
        })
    }

    /// Kills, freezes, thaws or starts one process, for example `us-1/haproxy` or `eu-nbg`.
    pub fn process(&self, name: &str, action: ProcessAction) -> Result<(), ControlError> {
        self.ask(&Request::Process {
            name: name.to_owned(),
            action,
        })
    }

    /// Ends the lab and waits until nothing of it is left.
    pub fn stop(self) -> std::io::Result<()> {
        self.launched.stop()
    }

    fn ask(&self, request: &Request) -> Result<(), ControlError> {
        control::ask(self.directory(), request).map(|answer| match answer {
            Answer::Done | Answer::Status(_) | Answer::Refused { .. } => (),
        })
    }
}

/// One standby of a lab.
#[derive(Clone, Copy, Debug)]
pub struct Standby<'a> {
    lab: &'a Lab,
    name: &'a str,
}

impl Standby<'_> {
    /// Stops replaying; returns when it has stopped.
    pub fn hold(self) -> Result<(), ControlError> {
        self.change(StandbyAction::Hold)
    }

    pub fn release(self) -> Result<(), ControlError> {
        self.change(StandbyAction::Release)
    }

    /// Replays every transaction this much later.
    pub fn apply_delay(self, millis: u64) -> Result<(), ControlError> {
        self.change(StandbyAction::ApplyDelay { millis })
    }

    fn change(self, action: StandbyAction) -> Result<(), ControlError> {
        self.lab.ask(&Request::Standby {
            name: self.name.to_owned(),
            action,
        })
    }
}
