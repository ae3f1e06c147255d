//! Processes: who descends from us, who carries a lab's mark, and how all of them are ended.
//!
//! A subreaper (the guard, the supervisor, the tether of `lab run`) inherits every orphan below it, so its
//! descendants are complete, also those that sshd and region-host started and left behind.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
pub use rustix::process::{Pid, Signal};
use rustix::process::{
    PidfdFlags, WaitOptions, getpid, kill_process, pidfd_open, set_child_subreaper,
    set_parent_process_death_signal, wait,
};

/// In the environment of every process of a lab, also of those started over ssh: the lab's directory.
pub const MARK: &str = "REGIONWISE_LAB";

/// How long a process may be in the middle of execve(2). Some have no environment; they are not waited for longer.
const BECOMING: Duration = Duration::from_millis(200);

/// What Linux allows for words and environment of a program together, unless a limit of the stack is raised.
const ENVIRON_LIMIT: usize = 2 * 1024 * 1024;

/// From now on orphans below this process become its children.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Asks the kernel for `signal` when the parent dies, and checks that `parent` has not died before that.
///
/// The signal comes when the *thread* that started this process ends, so that must be a main thread.
pub fn die_with_parent(parent: i32, signal: Signal) -> io::Result<()> {
    set_parent_process_death_signal(Some(signal))?;
    match rustix::process::getppid() {
        Some(actual) if actual.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(io::Error::other(format!(
            "process {parent} has ended already"
        ))),
    }
}

/// Every living process below this one, in no order.
pub fn descendants() -> Vec<Pid> {
    descendants_of(getpid())
}

fn descendants_of(ancestor: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<(Pid, bool)>> = BTreeMap::new();
    for pid in pids() {
        if let Some(stat) = Stat::read(pid) {
            children
                .entry(stat.parent)
                .or_default()
                .push((pid, stat.zombie));
        }
    }
    let mut found = Vec::new();
    let mut ancestors = vec![ancestor];
    while let Some(parent) = ancestors.pop() {
        for (pid, zombie) in children
            .remove(&parent.as_raw_nonzero().get())
            .unwrap_or_default()
        {
            ancestors.push(pid);
            if !zombie {
                found.push(pid);
            }
        }
    }
    found
}

/// Ends every descendant with SIGKILL and returns when none is left. Only for a subreaper: there a process
/// that forks while it is killed leaves its child to us.
pub fn kill_descendants() {
    loop {
        for pid in descendants() {
            // Fails when it has just ended.
            let _ = kill_process(pid, Signal::KILL);
        }
        // Each child that ends may leave orphans, so look again after each one. No child left means no
        // descendant left.
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Living processes whose environment carries the mark of the lab in `dir`.
pub fn marked(dir: &Path) -> Vec<Pid> {
    let mark = [MARK.as_bytes(), b"=", dir.as_os_str().as_bytes()].concat();
    let carries = |pid: &Pid| {
        // Unreadable means another account's: not ours to end.
        environ(*pid)
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark))
    };
    pids()
        .filter(|pid| *pid != getpid())
        .filter(carries)
        .collect()
}

/// The environment of a process, also of one that is becoming another program just now.
fn environ(pid: Pid) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + BECOMING;
    let mut environ = vec![0; ENVIRON_LIMIT];
    loop {
        // In one read: an execve(2) between two of them cuts the text off where it was.
        let length = File::open(format!("/proc/{pid}/environ"))?.read(&mut environ)?;
        // A zombie and a thread of the kernel have no program. In the middle of execve(2) there is one, and nothing to read.
        let program = fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        if length > 0 || !program || Instant::now() >= deadline {
            environ.truncate(length);
            return Ok(environ);
        }
        std::thread::yield_now();
    }
}

/// Ends what a lab has left behind after its guard and its supervisor were killed together. Returns how many
/// processes there were.
pub fn kill_marked(dir: &Path, deadline: Instant) -> io::Result<usize> {
    let mut ended = 0;
    loop {
        let left = marked(dir);
        if left.is_empty() {
            return Ok(ended);
        }
        for pid in left {
            // Fails when it has just ended.
            let _ = kill_process(pid, Signal::KILL);
            wait_for_end(pid, deadline)?;
            ended += 1;
        }
    }
}

/// Waits until the process has ended, or fails at the deadline. It need not be a child.
pub fn wait_for_end(pid: Pid, deadline: Instant) -> io::Result<()> {
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if poll(
            &mut [PollFd::new(&handle, PollFlags::IN)],
            Some(&timespec(left)),
        )? > 0
        {
            return Ok(());
        }
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("process {pid} still runs"),
            ));
        }
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Sends a signal. `false` when the process has ended already.
pub fn send(raw: u32, signal: Signal) -> io::Result<bool> {
    let Some(pid) = pid(raw) else {
        return Ok(false);
    };
    match kill_process(pid, signal) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A pid as the kernel's calls want it.
pub fn pid(raw: u32) -> Option<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw)
}

fn pids() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| parse_pid(&entry.file_name()))
}

fn parse_pid(name: &OsStr) -> Option<Pid> {
    name.to_str()?.parse().ok().and_then(pid)
}

struct Stat {
    parent: i32,
    zombie: bool,
}

impl Stat {
    /// `None` when the process has just ended.
    fn read(pid: Pid) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in brackets may hold anything, also brackets and spaces: fields are counted from the last one.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let zombie = matches!(fields.next()?, "Z" | "X");
        Some(Self {
            parent: fields.next()?.parse().ok()?,
            zombie,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::{Stat, descendants, marked, pid, wait_for_end};

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields_of_stat() {
        let stat = Stat::parse("42 (a) Z 1 (b) S 7 42 42 0").expect("a stat line");
        assert_eq!((stat.parent, stat.zombie), (7, false));
        assert!(
            Stat::parse("43 (gone) Z 7 43 43 0")
                .expect("a stat line")
                .zombie
        );
        assert!(Stat::parse("nonsense").is_none());
    }

    #[test]
    fn a_child_is_a_descendant_and_is_found_by_its_mark_until_it_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = Command::new("cat")
            .env(super::MARK, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("cat");
        let child_pid = pid(child.id()).expect("a pid");
        assert!(descendants().contains(&child_pid));
        assert_eq!(marked(dir.path()), [child_pid]);
        drop(child.stdin.take());
        wait_for_end(
            child_pid,
            std::time::Instant::now() + std::time::Duration::from_secs(10),
        )
        .expect("an end");
        child.wait().expect("a status");
        assert!(!descendants().contains(&child_pid));
        assert!(marked(dir.path()).is_empty());
    }

    #[test]
    fn a_process_that_becomes_another_program_is_marked_all_the_time() {
        let dir = tempfile::tempdir().expect("a directory");
        // Each `env` becomes the next shell; hundreds of them are looked at in the middle of it.
        let turns = "test $1 = 0 || exec env sh -c \"$0\" \"$0\" $(($1 - 1)); read end";
        let mut child = Command::new("sh")
            .args(["-c", turns, turns, "300"])
            .env(super::MARK, dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let child_pid = pid(child.id()).expect("a pid");
        let end = std::time::Instant::now() + std::time::Duration::from_millis(500);
        let mut looks = 0;
        while std::time::Instant::now() < end {
            assert_eq!(marked(dir.path()), [child_pid], "look {looks}");
            looks += 1;
        }
        drop(child.stdin.take());
        child.wait().expect("a status");
    }
}
