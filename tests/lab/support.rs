//! Labs for tests, and what is left of one.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use regionwise_lab::control::Status;
use regionwise_lab::processes::{Pid, marked, wait_for_end};
use tempfile::TempDir;

pub(crate) const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// Nothing here takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A short path: unix sockets lie below it.
pub(crate) fn fresh_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("rw-")
        .tempdir()
        .expect("a directory")
}

/// `lab VERB --dir DIR`, with nothing of the caller's environment that could change it.
pub(crate) fn lab(verb: &str, dir: &Path) -> Command {
    let mut command = Command::new(LAB);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("REGIONWISE_")) {
        command.env_remove(name);
    }
    command.arg(verb).arg("--dir").arg(dir);
    command
}

/// Waits for the end of every process of the lab in `dir`. Fails with their command lines.
pub(crate) fn assert_nothing_left(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = marked(dir);
        let Some(first) = left.first() else { return };
        if wait_for_end(*first, deadline).is_err() {
            let lines: Vec<String> = left.iter().map(|pid| command_line(*pid)).collect();
            panic!("{} processes outlive their lab: {lines:#?}", left.len());
        }
    }
}

pub(crate) fn command_line(pid: Pid) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// The process of a lab that runs `lab VERB`, as soon as it is there. `None` once `alive` says that it never will be.
pub(crate) fn wait_for_role(
    dir: &Path,
    verb: &str,
    mut alive: impl FnMut() -> bool,
) -> Option<Pid> {
    let wanted = format!("{} {verb} ", dir.join("bin/lab").display());
    loop {
        let found = marked(dir)
            .into_iter()
            .find(|pid| command_line(*pid).starts_with(&wanted));
        if found.is_some() || !alive() {
            return found;
        }
        std::thread::yield_now();
    }
}

/// Uid of a process, from its status file.
pub(crate) fn uid(pid: u32) -> u32 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let line = text
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .expect("a uid");
    line.split_ascii_whitespace()
        .nth(1)
        .and_then(|uid| uid.parse().ok())
        .expect("a number")
}

/// Status code of a GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> u16 {
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n"
    )
    .expect("a request");
    let mut head = [0; 12];
    socket.read_exact(&mut head).expect("an answer");
    String::from_utf8_lossy(&head)[9..]
        .parse()
        .expect("a status code")
}

/// As a controller logs in: pinned host keys, the deploy key, nothing of the caller's own configuration.
pub(crate) fn ssh(status: &Status, host: &str) -> Output {
    let at = status.addresses[&format!("{host}/ssh")];
    let known_hosts = format!(
        "UserKnownHostsFile={}",
        status.dir.join("known_hosts").display()
    );
    let options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        &known_hosts,
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "ConnectTimeout=5",
    ];
    Command::new("ssh")
        .args(["-F", "none"])
        .args(options.iter().flat_map(|option| ["-o", option]))
        .arg("-i")
        .arg(status.dir.join("deploy_key"))
        .args([
            "-p",
            &at.port().to_string(),
            "-l",
            &status.account,
            &at.ip().to_string(),
        ])
        .stdin(Stdio::null())
        .output()
        .expect("ssh")
}

/// Random numbers of a printed seed: a failure can be repeated with `REGIONWISE_TEST_SEED`.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(test: &str) -> Self {
        let seed = match std::env::var("REGIONWISE_TEST_SEED") {
            Ok(text) => text.parse().expect("REGIONWISE_TEST_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs(),
        };
        println!("{test}: REGIONWISE_TEST_SEED={seed}");
        // Different tests with one seed do not move in step.
        Self(test.bytes().fold(seed, |state, byte| {
            state.wrapping_mul(31).wrapping_add(byte.into())
        }))
    }

    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        // Constants of Knuth's MMIX; the low bits are the weak ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        limit.mul_f64((self.0 >> 33) as f64 / f64::from(1_u32 << 31))
    }
}
