//! Starting and ending a lab from outside: what `lab up`, `lab run`, `lab down` and the tests share.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::account::{self, AccountError};
use crate::control::{self, ControlError, Request, Status};
use crate::directory::{ClaimError, Directory};
use crate::guard::LEAVE_ALONE;
use crate::processes::{self, MARK};
use crate::site::Progress;

/// How long a lab that was asked to stop may take. Its guard kills after 5 s what has not stopped.
const DOWN: Duration = Duration::from_secs(20);

/// A lab to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Where `lab`, `region-host` and `reference-api` are.
    pub bin_dir: PathBuf,
    pub dir: PathBuf,
    /// Without clusters there are only hosts, edges, links and dependencies.
    pub clusters: bool,
    /// Leave no logs behind either.
    pub ephemeral: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("cannot start `{program}` as `{account}`")]
    Spawn {
        program: PathBuf,
        account: String,
        source: io::Error,
    },
    #[error("{error}")]
    Failed {
        error: String,
        #[source]
        cause: Cause,
        hint: Option<String>,
        invalid: bool,
    },
    #[error("cannot start a lab in `{0}`: it ended without a word")]
    Silent(PathBuf),
    #[error("cannot read `{path}`")]
    Status { path: PathBuf, source: io::Error },
}

/// What a part of the lab said when it did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl LaunchError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Account(error) => error.hint(),
            Self::Claim(error) => error.hint(),
            Self::Spawn {
                account, source, ..
            } if source.kind() == io::ErrorKind::PermissionDenied => Some(format!(
                "use a directory that `{account}` can reach, for example below /tmp"
            )),
            Self::Failed { hint, .. } => hint.clone(),
            Self::Silent(dir) => Some(format!("see {}", dir.join("lab.log").display())),
            Self::Spawn { .. } | Self::Status { .. } => None,
        }
    }

    /// Whether the caller must change something before it can work.
    pub fn is_invalid(&self) -> bool {
        match self {
            Self::Account(_) => true,
            Self::Claim(error) => !matches!(error, ClaimError::Io { .. }),
            Self::Failed { invalid, .. } => *invalid,
            Self::Spawn { .. } | Self::Silent(_) | Self::Status { .. } => false,
        }
    }
}

/// A lab whose guard lives as long as this value, unless it is left alone.
#[derive(Debug)]
pub struct Launched {
    directory: Directory,
    guard: Child,
    owner: Option<ChildStdin>,
}

/// What a starting lab says, line by line.
pub type ProgressLines = BufReader<ChildStdout>;

impl Launch {
    /// Starts the guard. The lab is ready when its progress says so.
    pub fn start(&self) -> Result<(Launched, ProgressLines), LaunchError> {
        let account = account::choose()?;
        let claim = Directory::claim(&self.dir, &self.bin_dir, &account)?;
        let directory = claim.directory;
        let program = directory.program("lab");
        let mut guard = Command::new(&program);
        guard.arg("guard").arg("--dir").arg(directory.path());
        if !self.clusters {
            guard.arg("--no-clusters");
        }
        if self.ephemeral {
            guard.arg("--ephemeral");
        }
        // Nothing of the caller's environment gets in, where it might decide how a release behaves.
        guard.env_clear().env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
        );
        guard
            .env("LC_ALL", "C.UTF-8")
            .env(MARK, directory.path())
            .current_dir(directory.path());
        if account.drop {
            // Clears the supplementary groups too.
            guard.uid(account.uid).gid(account.gid);
        }
        let spawned = guard
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(claim.log)
            .spawn();
        let spawned = spawned.and_then(|mut guard| {
            let owner = guard.stdin.take();
            let progress = guard
                .stdout
                .take()
                .ok_or_else(|| io::Error::other("no pipe"))?;
            Ok((
                Launched {
                    directory: directory.clone(),
                    guard,
                    owner,
                },
                BufReader::new(progress),
            ))
        });
        spawned.map_err(|source| LaunchError::Spawn {
            program,
            account: account.name,
            source,
        })
    }
}

impl Launched {
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn guard_pid(&self) -> u32 {
        self.guard.id()
    }

    /// The lab goes on without us, until `lab down`.
    pub fn leave_alone(mut self) -> io::Result<()> {
        match self.owner.take() {
            Some(mut owner) => owner.write_all(format!("{LEAVE_ALONE}\n").as_bytes()),
            None => Ok(()),
        }
    }

    /// Ends the lab and waits until nothing of it is left.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.owner.take());
        self.guard.wait().map(drop)
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // Left alone or stopped already: then there is no pipe to close and nothing to wait for.
        if self.owner.is_some() {
            // Only fails for a guard that somebody else has reaped.
            let _ = self.end();
        }
    }
}

/// Reads progress until the lab is ready, telling `each` part that is up.
pub fn wait_until_ready(
    directory: &Directory,
    progress: ProgressLines,
    mut each: impl FnMut(&str, u64),
) -> Result<Status, LaunchError> {
    for line in progress.lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Progress::Up { part, millis }) => each(&part, millis),
            Ok(Progress::Ready { .. }) => return read_status(directory),
            Ok(Progress::Failed {
                error,
                cause,
                hint,
                invalid,
            }) => {
                return Err(LaunchError::Failed {
                    error,
                    cause: Cause(cause),
                    hint,
                    invalid,
                });
            }
            // Not ours: a library that prints. The log has it.
            Err(_) => {}
        }
    }
    Err(LaunchError::Silent(directory.path().to_owned()))
}

fn read_status(directory: &Directory) -> Result<Status, LaunchError> {
    let path = directory.status_json();
    let read = || -> io::Result<Status> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
    read().map_err(|source| LaunchError::Status {
        path: path.clone(),
        source,
    })
}

/// What `down` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// It ran and has stopped.
    Stopped,
    /// It was dead already and had left this many processes.
    Swept { leftovers: usize },
}

#[derive(Debug, thiserror::Error)]
pub enum DownError {
    #[error("cannot find a lab in `{0}`")]
    None(PathBuf),
    #[error("cannot stop the lab in `{dir}`")]
    Io { dir: PathBuf, source: io::Error },
}

/// Stops the lab in `dir` and returns when nothing of it lives.
pub fn down(dir: &Path) -> Result<Down, DownError> {
    let failed = |source| DownError::Io {
        dir: dir.to_owned(),
        source,
    };
    let directory = Directory::at(dir).map_err(failed)?;
    if !directory.is_ours() {
        return Err(DownError::None(dir.to_owned()));
    }
    let deadline = Instant::now() + DOWN;
    let stopped = ask_to_stop(&directory, deadline).map_err(failed)?;
    // Also a lab that is still starting or hangs, and has no control socket or does not answer there.
    let leftovers = processes::kill_marked(directory.path(), deadline).map_err(failed)?;
    match directory.remove_all_but_logs() {
        // An ephemeral one has removed itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => done.map_err(failed)?,
    }
    Ok(if stopped {
        Down::Stopped
    } else {
        Down::Swept { leftovers }
    })
}

/// Asks in good order. `false` when nobody answered.
fn ask_to_stop(directory: &Directory, deadline: Instant) -> io::Result<bool> {
    let Ok(status) = control::status(directory) else {
        return Ok(false);
    };
    match control::ask(directory, &Request::Down) {
        Ok(_) => {}
        Err(
            ControlError::NotRunning { .. }
            | ControlError::Broken { .. }
            | ControlError::Refused { .. },
        ) => {
            return Ok(false);
        }
    }
    if let Some(guard) = processes::pid(status.guard_pid) {
        processes::wait_for_end(guard, deadline)?;
    }
    Ok(true)
}
