//! The guard of a lab and the tether of `lab run`: whatever ends, nothing below them lives on.
//!
//! The guard starts the supervisor as its only child. Both are subreapers:
//! - The supervisor ends, however: the guard kills every descendant.
//! - The guard ends, however: the kernel sends SIGTERM to the supervisor, which stops everything.
//! - The owner (a test, `lab run`, a starting `lab up`) ends, however: its end of the guard's stdin closes.
//!
//! Should guard and supervisor be killed in the same moment, the parent-death signals of the services end those,
//! and slots are found by their mark: by `lab down`, and by the next lab in the same directory.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, setsid, wait};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use crate::block;
use crate::directory::Directory;
use crate::layout::Block;
use crate::processes::{become_subreaper, die_with_parent, kill_descendants};
use crate::site::Progress;

/// The line on the guard's stdin after which the lab goes on without its owner.
pub(crate) const LEAVE_ALONE: &str = "leave alone";

/// What the supervisor may take for an orderly stop before everything is killed.
const ORDERLY: Duration = Duration::from_secs(5);

/// Exit code of a command that was killed with its tether: 128 + SIGHUP.
const HUNG_UP: u8 = 129;

/// What a guard has to know.
#[derive(Clone, Debug)]
pub struct Guard {
    pub directory: Directory,
    pub clusters: bool,
    /// Remove the directory at the end, with its logs.
    pub ephemeral: bool,
}

impl Guard {
    /// Runs the lab until it is told to stop, its owner is gone or its supervisor ends. Nothing is left then.
    pub fn run(&self) -> io::Result<()> {
        // Away from the terminal: Ctrl-C is for our owner, who tells us.
        setsid()?;
        become_subreaper()?;
        let dir = self.directory.path();
        let (block, reservation) = match block::reserve(dir) {
            Ok(found) => found,
            Err(error) => {
                let cause = io::Error::other("no lab was started");
                Progress::failed(&error, &cause, error.hint(), true).tell();
                return self.clean_up();
            }
        };
        fs::write(
            self.directory.block_file(),
            format!("{}\n", block.network()),
        )?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Whatever ends the wait, also an error of its own, nothing may be left.
        let outcome = runtime.block_on(self.until_it_should_end(block, reservation));
        kill_descendants();
        self.clean_up()?;
        outcome
    }

    async fn until_it_should_end(&self, block: Block, reservation: TcpListener) -> io::Result<()> {
        // Before anything is started, so that no signal can end us without our descendants.
        let (mut term, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let mut children = signal(SignalKind::child())?;
        let mut command = Command::new(self.directory.program("lab"));
        command
            .arg("supervise")
            .arg("--dir")
            .arg(self.directory.path());
        command.arg("--guard").arg(getpid().to_string());
        command
            .arg("--block")
            .arg(format!("{}.{}", block.a, block.b));
        if !self.clusters {
            command.arg("--no-clusters");
        }
        // The supervisor keeps the block too: it outlives a killed guard for a moment.
        let stdin = Stdio::from(OwnedFd::from(reservation.try_clone()?));
        let supervisor = crate::processes::pid(command.stdin(stdin).spawn()?.id())
            .ok_or_else(|| io::Error::other("no pid"))?;
        let mut end = std::pin::pin!(ended(supervisor, &mut children));
        tokio::select! {
            done = &mut end => return done.map(drop),
            gone = owner_gone() => gone?,
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Fails when it has just ended.
        let _ = kill_process(supervisor, Signal::TERM);
        // What an orderly stop cannot end, the caller kills.
        let _ = tokio::time::timeout(ORDERLY, end).await;
        Ok(())
    }

    fn clean_up(&self) -> io::Result<()> {
        if self.ephemeral {
            self.directory.remove()
        } else {
            self.directory.remove_all_but_logs()
        }
    }
}

/// Waits for the end of a child, and reaps every orphan that ends before it.
async fn ended(pid: Pid, children: &mut SignalStream) -> io::Result<WaitStatus> {
    loop {
        while let Some((ended, status)) = wait(WaitOptions::NOHANG)? {
            if ended == pid {
                return Ok(status);
            }
        }
        children.recv().await;
    }
}

/// Ends when the owner's end of our stdin is closed, never once it has left the lab alone.
async fn owner_gone() -> io::Result<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let mut lines = BufReader::new(pipe::Receiver::from_owned_fd(stdin)?).lines();
    match lines.next_line().await? {
        Some(line) if line == LEAVE_ALONE => std::future::pending::<io::Result<()>>().await,
        Some(_) | None => Ok(()),
    }
}

/// Becomes `command`, which gets `signal` when the process `parent` dies. Returns only when that failed.
pub fn exec(parent: i32, signal: i32, command: &[OsString]) -> io::Result<Infallible> {
    let signal =
        Signal::from_named_raw(signal).ok_or_else(|| io::Error::other("no such signal"))?;
    die_with_parent(parent, signal)?;
    let [program, args @ ..] = command else {
        return Err(io::Error::other("no command"));
    };
    Err(Command::new(program).args(args).exec())
}

/// Runs `command` in the foreground for `lab run` and returns its exit code, after everything it has started is
/// gone. `parent` is the `lab run` whose death ends it all.
pub fn tether(parent: i32, command: &[OsString]) -> io::Result<u8> {
    become_subreaper()?;
    // HUP, because TERM means: in good order.
    die_with_parent(parent, Signal::HUP)?;
    let this = std::env::current_exe()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(async {
        let (mut hang_up, mut term) = (
            signal(SignalKind::hangup())?,
            signal(SignalKind::terminate())?,
        );
        // Ctrl-C reaches the command too, and what it does then is its own business.
        let _interrupt = signal(SignalKind::interrupt())?;
        let _quit = signal(SignalKind::quit())?;
        let mut children = signal(SignalKind::child())?;
        let child = Command::new(this)
            .args([
                "exec",
                "--parent",
                &getpid().to_string(),
                "--signal",
                &Signal::KILL.as_raw().to_string(),
                "--",
            ])
            .args(command)
            .spawn()?;
        let pid = crate::processes::pid(child.id()).ok_or_else(|| io::Error::other("no pid"))?;
        let mut end = std::pin::pin!(ended(pid, &mut children));
        loop {
            tokio::select! {
                done = &mut end => return Ok(exit_code(done?)),
                _ = term.recv() => {
                    // Fails when it has just ended.
                    let _ = kill_process(pid, Signal::TERM);
                }
                _ = hang_up.recv() => return io::Result::Ok(HUNG_UP),
            }
        }
    });
    kill_descendants();
    code
}

/// As a shell says it: 128 plus the signal.
fn exit_code(status: WaitStatus) -> u8 {
    let signalled = || status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or_else(signalled).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
