//! The process in a slot: started in a session of its own, known by pid and start time, stopped by pidfd.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use regionwise_protocol::Denial;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setsid};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::deny::{OrDeny, host};

/// Lines of a failed process's log that stand in the error.
const LOG_LINES: usize = 10;
/// The end of a log in which those lines are looked for.
const LOG_TAIL: u64 = 16 * 1024;
/// What a waiting process is told.
const GO: &[u8] = b"go\n";
/// How often a stopping process is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks from boot to its start (`/proc/PID/stat`, field 22).
    started: u64,
    boot_id: String,
}

/// What to run.
pub(crate) struct Program<'a> {
    pub(crate) path: &'a Path,
    pub(crate) directory: &'a Path,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) log: &'a Path,
}

/// A process that waits for the word to become its program, and ends without it.
///
/// Its pid is written down in between: if we die there, no unknown process is left that holds the slot's port.
pub(crate) struct Waiting {
    pub(crate) process: Process,
    go: ChildStdin,
}

impl Waiting {
    pub(crate) fn go(mut self) -> Result<(), Denial> {
        let said = self.go.write_all(GO);
        said.or_host(|| format!("cannot start process {}", self.process.pid))
    }
}

/// This program once more, also when another version has taken its place on the disk meanwhile.
pub(crate) fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("region-host");
    command
}

/// Starts the program; it outlives this process and the ssh connection.
pub(crate) fn start(program: Program<'_>, boot_id: &str) -> Result<Waiting, Denial> {
    let action = || format!("cannot start `{}`", program.path.display());
    let log = fresh_log(program.log).or_host(action)?;
    let mut child = this_program()
        .arg("exec-slot")
        .arg(program.path)
        .current_dir(program.directory)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(inherited())
        .envs(program.env)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().or_host(action)?)
        .stderr(log)
        .spawn()
        .or_host(action)?;
    let pid = child.id();
    let started = stat(pid).map(|stat| stat.started).or_host(action)?;
    let go = child.stdin.take();
    Ok(Waiting {
        process: Process {
            pid,
            started,
            boot_id: boot_id.to_owned(),
        },
        go: go.ok_or_else(|| host(action()))?,
    })
}

/// An empty log for the owner only: releases write what they like into it. The one of the process before stays beside it,
/// because a restart is when somebody wants to read it. Appended to, so that logrotate may truncate it meanwhile.
fn fresh_log(path: &Path) -> io::Result<File> {
    match fs::rename(path, path.with_added_extension("1")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// The lab finds its leftovers by this variable; nothing else of our own environment reaches a release.
fn inherited() -> Option<(&'static str, String)> {
    Some(("REGIONWISE_LAB", env::var("REGIONWISE_LAB").ok()?))
}

/// Waits for the word, and becomes the program in a session of its own. Returns only when that failed.
pub fn exec_slot(path: &Path) -> io::Error {
    let mut word = [0; GO.len()];
    match io::stdin()
        .read_exact(&mut word)
        .and_then(|()| Ok(setsid()?))
    {
        Ok(_) => Command::new(path).stdin(Stdio::null()).exec(),
        Err(error) => error,
    }
}

impl Process {
    /// Whether that very process lives. A zombie does not.
    pub(crate) fn alive(&self, boot_id: &str) -> bool {
        self.boot_id == boot_id
            && stat(self.pid).is_ok_and(|stat| stat.started == self.started && !stat.dead)
    }

    /// TERM, and KILL after `grace`.
    pub(crate) async fn stop(&self, boot_id: &str, grace: Duration) -> Result<(), Denial> {
        for (signal, patience) in [
            (Signal::TERM, grace),
            (Signal::KILL, Duration::from_secs(2)),
        ] {
            if !self.signal(boot_id, signal)? {
                return Ok(());
            }
            let until = Instant::now() + patience;
            while Instant::now() < until {
                if !self.alive(boot_id) {
                    return Ok(());
                }
                sleep(POLL).await;
            }
        }
        Err(host(format!("process {} does not end", self.pid)))
    }

    /// `false` when it is gone already. The pidfd is opened before the identity is checked, so that the signal cannot
    /// hit another process.
    fn signal(&self, boot_id: &str, signal: Signal) -> Result<bool, Denial> {
        let raw = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = raw else { return Ok(false) };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(false);
        };
        if !self.alive(boot_id) {
            return Ok(false);
        }
        match pidfd_send_signal(handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error).or_host(|| format!("cannot signal process {}", self.pid)),
        }
    }
}

struct Stat {
    started: u64,
    dead: bool,
}

fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may itself hold spaces and parentheses.
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    // After pid and name: field 3 is the state, field 22 the start time.
    match (
        fields.first(),
        fields.get(19).and_then(|ticks| ticks.parse().ok()),
    ) {
        (Some(state), Some(started)) => Ok(Stat {
            started,
            dead: matches!(*state, "Z" | "X"),
        }),
        _ => Err(io::Error::other("cannot parse the process's stat")),
    }
}

/// The last lines of a log, for the error that explains a failed start.
pub(crate) fn last_lines(path: &Path) -> String {
    let tail = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(LOG_TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match tail() {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
        }
        Err(error) => format!("cannot read its log: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_start_keeps_the_log_of_the_process_before_and_only_the_owner_reads_either() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blue.log");
        for text in ["first", "second", "third"] {
            fresh_log(&path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
        let previous = directory.path().join("blue.log.1");
        assert_eq!(fs::read_to_string(&path).unwrap(), "third");
        assert_eq!(fs::read_to_string(&previous).unwrap(), "second");
        for path in [path, previous] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }

    #[test]
    fn a_log_that_is_truncated_under_its_process_goes_on_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blue.log");
        let mut log = fresh_log(&path).unwrap();
        log.write_all(b"much").unwrap();
        // logrotate's `copytruncate`.
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        log.write_all(b"more").unwrap();
        assert_eq!(
            fs::read(&path).unwrap(),
            b"more",
            "no hole where the old text was"
        );
    }
}
