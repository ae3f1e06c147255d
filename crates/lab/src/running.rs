//! The supervisor's processes: started through `lab exec`, reaped here, stopped together.
//!
//! The supervisor is a subreaper, so it reaps with `wait(any)`: nothing else in this process may wait for a
//! child. All of it runs on the main thread, because the kernel ties a parent-death signal to the thread that
//! forked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::directory::Directory;

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Also the name of its log.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// Sent to it when the supervisor dies.
    pub(crate) death_signal: Signal,
    /// How it is asked to stop.
    pub(crate) stop_signal: Signal,
}

impl Program {
    pub(crate) fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            args: Vec::new(),
            death_signal: Signal::KILL,
            stop_signal: Signal::TERM,
        }
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

/// Where a process serves and for whom.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) role: &'static str,
    pub(crate) region: &'static str,
    pub(crate) address: SocketAddrV4,
}

/// A process that serves until the lab ends.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) program: Program,
    pub(crate) place: Place,
    pub(crate) pid: Pid,
    /// How it ended.
    pub(crate) ended: Option<String>,
}

/// Why a part of the lab did not start, with what the operator can do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub(crate) struct StartError {
    pub(crate) doing: String,
    pub(crate) cause: String,
    pub(crate) hint: Option<String>,
}

impl StartError {
    pub(crate) fn new(doing: impl Into<String>, cause: impl ToString) -> Self {
        Self {
            doing: doing.into(),
            cause: cause.to_string(),
            hint: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Running {
    directory: Directory,
    served: RefCell<BTreeMap<String, Served>>,
    /// Statuses of ended children that somebody waits for or will wait for.
    ended: RefCell<BTreeMap<i32, Option<WaitStatus>>>,
    /// Counts reaped children, to wake those who wait.
    reaped: watch::Sender<u64>,
    stopping: Cell<bool>,
}

impl Running {
    pub(crate) fn new(directory: Directory) -> Self {
        Self {
            directory,
            served: RefCell::default(),
            ended: RefCell::default(),
            reaped: watch::Sender::new(0),
            stopping: Cell::new(false),
        }
    }

    /// Collects every child that has ended, orphans of others included. To be called on SIGCHLD.
    pub(crate) fn reap(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let raw = pid.as_raw_nonzero().get();
            if let Some(slot) = self.ended.borrow_mut().get_mut(&raw) {
                *slot = Some(status);
            }
            for served in self
                .served
                .borrow_mut()
                .values_mut()
                .filter(|served| served.pid == pid)
            {
                served.ended = Some(describe(status));
            }
        }
        self.reaped.send_modify(|reaped| *reaped += 1);
    }

    /// Starts a process that serves until the lab ends.
    pub(crate) fn serve(&self, program: Program, place: Place) -> Result<(), StartError> {
        let pid = self.spawn(&program)?;
        self.ended.borrow_mut().remove(&pid.as_raw_nonzero().get());
        let served = Served {
            place,
            pid,
            ended: None,
            program,
        };
        self.served
            .borrow_mut()
            .insert(served.program.name.clone(), served);
        Ok(())
    }

    /// Runs a command to its end. An exit code other than 0 is an error that shows the end of its output.
    pub(crate) async fn run(&self, program: Program) -> Result<(), StartError> {
        let doing = || format!("run `{}` for `{}`", file_name(&program.path), program.name);
        let pid = self.spawn(&program)?.as_raw_nonzero().get();
        let mut reaped = self.reaped.subscribe();
        let status = loop {
            if let Some(status) = self.ended.borrow().get(&pid).copied().flatten() {
                break status;
            }
            reaped
                .changed()
                .await
                .map_err(|error| StartError::new(doing(), error))?;
        };
        self.ended.borrow_mut().remove(&pid);
        if status.exit_status() == Some(0) {
            return Ok(());
        }
        Err(StartError::new(
            doing(),
            format!("{}; {}", describe(status), self.last_words(&program.name)),
        ))
    }

    fn spawn(&self, program: &Program) -> Result<Pid, StartError> {
        let doing = || {
            format!(
                "start `{}` for `{}`",
                file_name(&program.path),
                program.name
            )
        };
        if self.stopping.get() {
            return Err(StartError::new(doing(), "the lab is going down"));
        }
        let log = self.directory.log_of(&program.name);
        let open_log = || {
            fs::create_dir_all(log.parent().unwrap_or(Path::new("/")))?;
            OpenOptions::new().create(true).append(true).open(&log)
        };
        let log = open_log().map_err(|error| StartError::new(doing(), error))?;
        let stderr = log
            .try_clone()
            .map_err(|error| StartError::new(doing(), error))?;
        let child = Command::new(self.directory.program("lab"))
            .arg("exec")
            .arg("--parent")
            .arg(getpid().to_string())
            .arg("--signal")
            .arg(program.death_signal.as_raw().to_string())
            .arg("--")
            .arg(&program.path)
            .args(&program.args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            .spawn()
            .map_err(|error| StartError::new(doing(), error))?;
        let pid =
            crate::processes::pid(child.id()).ok_or_else(|| StartError::new(doing(), "no pid"))?;
        // Nothing has reaped it yet: that happens on this thread.
        self.ended
            .borrow_mut()
            .insert(pid.as_raw_nonzero().get(), None);
        Ok(pid)
    }

    /// The last lines of a log, for an error.
    pub(crate) fn last_words(&self, name: &str) -> String {
        let log = fs::read(self.directory.log_of(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let last = &lines[lines.len().saturating_sub(4)..];
        if last.is_empty() {
            "it wrote nothing".to_owned()
        } else {
            format!("it wrote: {}", last.join(" | "))
        }
    }

    /// How the named process has ended, if it has.
    pub(crate) fn ended(&self, name: &str) -> Option<String> {
        self.served
            .borrow()
            .get(name)
            .and_then(|served| served.ended.clone())
    }

    pub(crate) fn served(&self) -> Vec<Served> {
        self.served.borrow().values().cloned().collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Served> {
        self.served.borrow().get(name).cloned()
    }

    /// Asks every process to stop, and returns when all have or at the deadline.
    pub(crate) async fn stop_all(&self, patience: Duration) {
        self.stopping.set(true);
        for served in self.served().iter().filter(|served| served.ended.is_none()) {
            // Fails when it has just ended.
            let _ = kill_process(served.pid, served.program.stop_signal);
        }
        let deadline = Instant::now() + patience;
        let mut reaped = self.reaped.subscribe();
        while self
            .served
            .borrow()
            .values()
            .any(|served| served.ended.is_none())
        {
            if timeout_at(deadline, reaped.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until the named process has ended.
    pub(crate) async fn wait_for_end(&self, name: &str) {
        let mut reaped = self.reaped.subscribe();
        while self.get(name).is_some_and(|served| served.ended.is_none())
            && reaped.changed().await.is_ok()
        {}
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}
