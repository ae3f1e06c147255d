//! How a lab begins and ends, in good order and in bad.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use regionwise_lab::control::Status;
use regionwise_lab::processes::{self, Signal, marked};
use regionwise_lab::{Lab, Options};

use crate::support::{
    LAB, PATIENCE, Random, assert_nothing_left, command_line, fresh_dir, get, lab, ssh, uid,
    wait_for_role,
};

#[test]
fn up_status_down_leaves_no_process() {
    let dir = fresh_dir();
    let up = lab("up", dir.path())
        .arg("--no-clusters")
        .output()
        .expect("lab up");
    assert!(
        up.status.success(),
        "{}",
        String::from_utf8_lossy(&up.stderr)
    );
    let said = String::from_utf8_lossy(&up.stderr);
    assert!(said.contains("host us-1"), "{said}");

    let json = lab("status", dir.path())
        .args(["--format", "json"])
        .output()
        .expect("lab status");
    let status: Status = serde_json::from_slice(&json.stdout).expect("a status");
    assert_eq!(
        status
            .processes
            .iter()
            .filter(|process| process.pid.is_some())
            .count(),
        13
    );
    let human = lab("status", dir.path()).output().expect("lab status");
    assert!(String::from_utf8_lossy(&human.stdout).contains(&status.block));
    assert!(!marked(dir.path()).is_empty());

    let down = lab("down", dir.path()).output().expect("lab down");
    assert!(
        down.status.success(),
        "{}",
        String::from_utf8_lossy(&down.stderr)
    );
    assert!(
        marked(dir.path()).is_empty(),
        "`lab down` came back before everything had ended"
    );
    let again = lab("down", dir.path()).output().expect("lab down");
    assert!(
        again.status.success(),
        "a second `lab down` has nothing to do"
    );
}

#[test]
fn a_live_directory_is_refused_with_its_address_and_a_dead_one_is_used_again() {
    let dir = fresh_dir();
    let up = || {
        lab("up", dir.path())
            .arg("--no-clusters")
            .output()
            .expect("lab up")
    };
    let first = up();
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    let second = up();
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("one runs there at 127."), "{said}");
    assert!(
        said.contains(&format!("hint: lab down --dir {}", dir.path().display())),
        "{said}"
    );
    lab("down", dir.path()).status().expect("lab down");
    let third = up();
    assert!(
        third.status.success(),
        "{}",
        String::from_utf8_lossy(&third.stderr)
    );
    lab("down", dir.path()).status().expect("lab down");
    assert_nothing_left(dir.path());
}

#[test]
fn two_labs_run_side_by_side() {
    let first = Lab::start(&Options::hosts(LAB)).unwrap_or_else(|error| panic!("{error}"));
    let second = Lab::start(&Options::hosts(LAB)).unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(first.initial().block, second.initial().block);
    for lab in [&first, &second] {
        assert_eq!(get(lab.address("us-east").expect("an edge"), "/"), 503);
    }
    first.stop().expect("a stop");
    assert_eq!(get(second.address("us-east").expect("an edge"), "/"), 503);
}

#[test]
fn no_process_of_a_lab_is_root_and_its_files_are_its_own() {
    let lab = Lab::start(&Options::hosts(LAB)).unwrap_or_else(|error| panic!("{error}"));
    let status = lab.initial();
    let account = uid(status.supervisor_pid);
    assert_ne!(account, 0, "the supervisor is root");
    assert_eq!(account, uid(status.guard_pid));
    for pid in marked(lab.directory().path()) {
        assert_eq!(uid(pid.as_raw_nonzero().get().unsigned_abs()), account);
    }
    let owner = std::os::unix::fs::MetadataExt::uid(
        &lab.directory().deploy_key().metadata().expect("a key"),
    );
    assert_eq!(owner, account);
}

#[test]
fn a_stopped_lab_of_a_test_leaves_neither_processes_nor_files() {
    let lab = Lab::start(&Options::hosts(LAB)).unwrap_or_else(|error| panic!("{error}"));
    let dir = lab.directory().path().to_owned();
    drop(lab);
    assert!(marked(&dir).is_empty());
    assert!(!dir.exists());
}

#[test]
fn run_passes_on_exit_code_and_environment_and_ends_what_the_command_left() {
    let dir = fresh_dir();
    let script = "sleep 1000 & echo $!; test -r \"$REGIONWISE_CONFIG\" || exit 3; exit 7";
    let mut command = lab("run", dir.path());
    command
        .args(["--no-clusters", "--", "sh", "-c", script])
        .stderr(Stdio::piped());
    // `output` would wait for the sleep, which holds stdout: it returns because that is ended.
    let output = command.output().expect("lab run");
    assert_eq!(
        output.status.code(),
        Some(7),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let sleep: u32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a pid");
    assert!(
        !processes::send(sleep, Signal::CONT).expect("a signal"),
        "a background process lives on"
    );
    assert!(marked(dir.path()).is_empty());
}

#[test]
fn a_command_that_cannot_be_found_is_named() {
    let dir = fresh_dir();
    let output = lab("run", dir.path())
        .args(["--no-clusters", "--", "no-such-program"])
        .output()
        .expect("lab run");
    assert_ne!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot run `no-such-program`"), "{said}");
    assert!(marked(dir.path()).is_empty());
}

#[test]
fn ctrl_c_while_the_lab_starts_leaves_nothing() {
    let mut random = Random::seeded("ctrl_c_while_the_lab_starts_leaves_nothing");
    for verb in ["up", "run", "up", "run"] {
        let dir = fresh_dir();
        let mut command = lab(verb, dir.path());
        command.args(if verb == "run" {
            &["--", "sleep", "1000"][..]
        } else {
            &[]
        });
        let mut started = in_own_foreground(&mut command);
        let mut child_ended = || matches!(started.try_wait(), Ok(Some(_)));
        wait_for_role(dir.path(), "guard", || !child_ended()).expect("a guard");
        // A random moment is the point here; a full lab takes longer than this to start.
        std::thread::sleep(random.below(Duration::from_millis(900)));
        interrupt_group(&started);
        assert_eq!(wait(&mut started), Some(130), "lab {verb}");
        assert!(
            marked(dir.path()).is_empty(),
            "`lab {verb}` came back before everything had ended"
        );
    }
}

#[test]
fn ctrl_c_while_the_command_runs_leaves_nothing() {
    let dir = fresh_dir();
    let mut command = lab("run", dir.path());
    command
        .args([
            "--no-clusters",
            "--",
            "sh",
            "-c",
            // Not a plain `sleep`: a shell that is told between its `echo` and its fork waits the sleep out.
            "trap 'exit 130' INT; echo runs; sleep 1000 & wait",
        ])
        .stdout(Stdio::piped());
    let mut started = in_own_foreground(&mut command);
    let stdout = started.stdout.take().expect("a pipe");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert_eq!(line, "runs\n");
    interrupt_group(&started);
    assert_eq!(wait(&mut started), Some(130));
    assert!(marked(dir.path()).is_empty());
}

/// As a shell with job control starts it: Ctrl-C reaches this group and nobody else.
fn in_own_foreground(command: &mut Command) -> Child {
    command
        .process_group(0)
        .stderr(Stdio::null())
        .spawn()
        .expect("lab")
}

fn interrupt_group(leader: &Child) {
    let status = Command::new("kill")
        .args(["-s", "INT", "--"])
        .arg(format!("-{}", leader.id()))
        .status();
    assert!(status.expect("kill").success());
}

fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    let pid = processes::pid(child.id()).expect("a pid");
    processes::wait_for_end(pid, deadline).expect("an end in time");
    child.wait().expect("a status").code()
}

#[test]
fn nothing_survives_kill_9_of_the_supervisor() {
    kill_at_random_moments("supervise", &[false; 6]);
}

#[test]
fn nothing_survives_kill_9_of_the_guard() {
    kill_at_random_moments("guard", &[false; 6]);
}

#[test]
fn nothing_survives_kill_9_of_a_full_labs_guard_or_supervisor() {
    kill_at_random_moments("supervise", &[true]);
    kill_at_random_moments("guard", &[true]);
}

/// Starts a lab, kills its supervisor or guard at a random moment of its start or after it, and looks what is left.
fn kill_at_random_moments(role: &str, full: &[bool]) {
    let mut random = Random::seeded(role);
    for full in full {
        let dir = fresh_dir();
        let mut command = lab("up", dir.path());
        if !full {
            command.arg("--no-clusters");
        }
        let mut up = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lab up");
        let victim = wait_for_role(dir.path(), role, || !matches!(up.try_wait(), Ok(Some(_))))
            .expect("a victim");
        let longest = Duration::from_millis(if *full { 6_000 } else { 1_800 });
        // A random moment is the point here.
        std::thread::sleep(random.below(longest));
        let raw = victim.as_raw_nonzero().get().unsigned_abs();
        assert!(
            processes::send(raw, Signal::KILL).expect("a signal"),
            "it had ended by itself"
        );
        let mut said = String::new();
        up.stderr
            .take()
            .expect("a pipe")
            .read_to_string(&mut said)
            .expect("text");
        let code = wait(&mut up);
        assert!(
            matches!(code, Some(0 | 1)),
            "lab up ended with {code:?}: {said}"
        );
        assert_nothing_left(dir.path());
    }
}

#[test]
fn what_was_started_over_ssh_and_left_behind_dies_with_the_lab() {
    for role in ["supervise", "guard", "down"] {
        let dir = fresh_dir();
        let up = lab("up", dir.path())
            .args(["--no-clusters", "--format", "json"])
            .output()
            .expect("lab up");
        let status: Status = serde_json::from_slice(&up.stdout).expect("a status");
        let orphan = leave_an_orphan(&status);
        assert!(
            marked(dir.path()).contains(&orphan),
            "sshd does not pass on the lab's mark"
        );
        match role {
            "down" => assert!(
                lab("down", dir.path())
                    .status()
                    .expect("lab down")
                    .success()
            ),
            role => {
                let victim = wait_for_role(dir.path(), role, || true).expect("a victim");
                let raw = victim.as_raw_nonzero().get().unsigned_abs();
                assert!(processes::send(raw, Signal::KILL).expect("a signal"));
            }
        }
        let ended = processes::wait_for_end(orphan, Instant::now() + PATIENCE);
        ended.unwrap_or_else(|error| panic!("after {role}: {error}"));
        assert_nothing_left(dir.path());
    }
}

/// Has a host start a process in a session of its own, as region-host does with a slot.
fn leave_an_orphan(status: &Status) -> processes::Pid {
    let host = status.dir.join("hosts/us-1/authorized_keys");
    let key = std::fs::read_to_string(status.dir.join("deploy_key.pub")).expect("a key");
    let command = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!";
    std::fs::write(host, format!("restrict,command=\"{command}\" {key}")).expect("a file");
    let output = ssh(status, "us-1");
    let said = String::from_utf8_lossy(&output.stdout);
    let raw = said.trim().parse().unwrap_or_else(|_| panic!("{output:?}"));
    processes::pid(raw).expect("a pid")
}

#[test]
fn nothing_survives_kill_9_of_lab_run() {
    kill_lab_run(&[false; 6]);
}

#[test]
fn nothing_survives_kill_9_of_lab_run_with_clusters() {
    kill_lab_run(&[true]);
}

fn kill_lab_run(full: &[bool]) {
    let mut random = Random::seeded("lab run");
    for full in full {
        let dir = fresh_dir();
        // The command's own descendants carry this mark.
        let mark = dir.path().join("command");
        let mut command = lab("run", dir.path());
        command
            .env(processes::MARK, &mark)
            .args(if *full { &[][..] } else { &["--no-clusters"] });
        command.args([
            "--",
            "sh",
            "-c",
            "sleep 1000 & (trap '' TERM INT HUP; sleep 1000)",
        ]);
        let mut run = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("lab run");
        wait_for_role(dir.path(), "guard", || {
            !matches!(run.try_wait(), Ok(Some(_)))
        })
        .expect("a guard");
        std::thread::sleep(random.below(Duration::from_millis(if *full { 8_000 } else { 2_500 })));
        run.kill().expect("a signal");
        run.wait().expect("a status");
        assert_nothing_left(dir.path());
        assert_nothing_left(&mark);
    }
}

#[test]
fn after_a_double_kill_down_ends_even_what_no_guard_knows() {
    let dir = fresh_dir();
    let up = lab("up", dir.path())
        .args(["--no-clusters", "--format", "json"])
        .output()
        .expect("lab up");
    let status: Status = serde_json::from_slice(&up.stdout).expect("a status");
    // Stands for a slot: its own session, known to nobody, marked as everything below the lab's sshd is.
    let mut slot = Command::new("setsid")
        .args(["sleep", "1000"])
        .env(processes::MARK, &status.dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setsid");
    processes::send(status.guard_pid, Signal::STOP).expect("a signal");
    processes::send(status.supervisor_pid, Signal::KILL).expect("a signal");
    processes::send(status.guard_pid, Signal::KILL).expect("a signal");
    // The kernel ends what the supervisor had started itself, and Postgres its own children.
    let slot_pid = processes::pid(slot.id()).expect("a pid");
    let deadline = Instant::now() + PATIENCE;
    while let Some(pid) = marked(dir.path()).into_iter().find(|pid| *pid != slot_pid) {
        processes::wait_for_end(pid, deadline)
            .unwrap_or_else(|error| panic!("{error}: {}", command_line(pid)));
    }
    let down = lab("down", dir.path()).output().expect("lab down");
    let said = String::from_utf8_lossy(&down.stdout);
    assert!(
        down.status.success() && said.contains("did not answer"),
        "{said}"
    );
    let left = marked(dir.path()).len();
    // Also where it should not be needed any more: a failing test must not leave it to others.
    let _ = slot.kill();
    slot.wait().expect("a status");
    assert_eq!(left, 0, "`lab down` came back before everything had ended");
}

#[test]
fn a_lab_dies_with_the_process_that_owns_it() {
    let dir = fresh_dir();
    // Not `lab run`: the owner is a process that has no chance to clean up and is not even `lab`.
    let mut guard = lab_owned_by_a_pipe(dir.path());
    let owner = guard.stdin.take().expect("a pipe");
    let mut line = String::new();
    BufReader::new(guard.stdout.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("a line");
    drop(owner);
    let pid = processes::pid(guard.id()).expect("a pid");
    processes::wait_for_end(pid, Instant::now() + PATIENCE).expect("an end in time");
    guard.wait().expect("a status");
    assert!(marked(dir.path()).is_empty());
}

/// The guard of a prepared directory, started by hand.
fn lab_owned_by_a_pipe(dir: &Path) -> Child {
    let account = regionwise_lab::account::choose().expect("an account");
    let bin_dir = Path::new(LAB).parent().expect("a directory");
    let claim =
        regionwise_lab::directory::Directory::claim(dir, bin_dir, &account).expect("a claim");
    let mut guard = Command::new(claim.directory.program("lab"));
    guard
        .args(["guard", "--no-clusters", "--dir"])
        .arg(dir)
        .env(processes::MARK, dir);
    if account.drop {
        guard.uid(account.uid).gid(account.gid);
    }
    guard
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(claim.log)
        .spawn()
        .expect("a guard")
}
