//! A signal ends a wait, and never the truth about the rollout.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regionwise_lab::github::{Fault, Kind};

use crate::world::{DEPLOYMENT, World, done, job, needs, skipped};

/// Runs until the line about a wait, sends TERM, and returns the exit code and all output.
fn stopped(mut command: Command) -> (Option<i32>, String) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("going on in")));
    let began = Instant::now();
    let pid = child.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(killed.success());
    let status = child.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    let mut text = String::new();
    child.stdout.unwrap().read_to_string(&mut text).unwrap();
    (status.code(), text)
}

#[test]
fn a_signal_ends_the_wait_for_a_rate_limit() {
    let world = World::new();
    let wait = Kind::SecondaryLimit(Some(7));
    world.fail(Fault::once("POST", "/deployments", wait));
    let mut command = world.command(&world.github.url());
    command.args(DEPLOYMENT).args(["--state", "success"]);
    let (code, text) = stopped(command);
    assert_eq!(code, Some(143), "{text}");
    assert!(text.contains("may not show `v2` yet"), "{text}");

    world.fail(Fault::once("GET", "/issues", wait));
    let held = needs(done(), job("failure", "pause", "lag"), skipped());
    let mut command = world.command(&world.github.url());
    command.args(["finish", "--release", "v2", "--needs", &held]);
    let (code, text) = stopped(command);
    assert_eq!(code, Some(10), "{text}");
    assert!(text.contains("waits: stopped by a signal"), "{text}");
}
