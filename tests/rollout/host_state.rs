//! State on a host that was damaged, emptied, cut off in the middle or has no room left.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use regionwise_lab::control::ProcessAction;
use regionwise_lab::skipped;
use regionwise_protocol::{HostFacts, Reply, Request, VERSION};
use regionwise_rollout::Verdict;
use regionwise_rollout::lease::{Holder, OperationKind};

use crate::support::{World, release_at, signal, wait_until};

const SIN: &str = "ap-singapore";
const HOST: &str = "sin-1";

/// v1 is verified and warm on blue, v2 serves on green.
fn two_releases(world: &World) {
    world.settle(SIN, "v1", "o1");
    world
        .deploy(SIN, &world.release("v2", &[]), "o2")
        .expect(Verdict::Proceed);
}

#[test]
fn a_damaged_file_is_never_taken_for_a_fresh_host() {
    let world = World::start();
    two_releases(&world);
    let v3 = world.release("v3", &[]);
    for file in [
        "intent.json",
        "slots/green.json",
        "slots/blue.json",
        "lease.json",
    ] {
        let path = world.root(HOST).join(file);
        let whole = fs::read(&path).ok();
        let half = whole
            .as_ref()
            .map_or(&b"{\"operation\":"[..], |text| &text[..text.len() / 2]);
        world.overwrite(HOST, file, half);
        for run in [
            world.deploy(SIN, &v3, "o3").expect(Verdict::Unknown),
            world
                .rollback(SIN, &["--operation", "o2"])
                .expect(Verdict::Unknown),
        ] {
            assert!(run.stdout.contains(file), "{file}: {run}");
        }
        world.assert_serves(SIN, "v2");
        assert_eq!(fs::read(&path).unwrap(), half, "{file}: the evidence");
        assert!(
            !world.status(SIN).stdout.contains("nothing serves"),
            "{file}"
        );
        match whole {
            Some(whole) => drop(world.overwrite(HOST, file, &whole)),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    world.status(SIN).expect(Verdict::Proceed);
    world
        .rollback(SIN, &["--operation", "o2"])
        .expect(Verdict::Proceed);
    world.assert_serves(SIN, "v1");
}

#[test]
fn a_changed_history_is_refused_with_its_line() {
    let world = World::start();
    two_releases(&world);
    let history = fs::read_to_string(world.root(HOST).join("history.jsonl")).unwrap();
    let forged = history.replacen("\"operation\":\"o1\"", "\"operation\":\"oX\"", 1);
    world.overwrite(HOST, "history.jsonl", forged.as_bytes());
    let v3 = world.release("v3", &[]);
    for run in [
        world.deploy(SIN, &v3, "o3").expect(Verdict::Refused),
        world.rollback(SIN, &[]).expect(Verdict::Refused),
        world.status(SIN).expect(Verdict::Mixed),
    ] {
        assert!(run.summary().contains("changed before line 2"), "{run}");
    }
    world.assert_serves(SIN, "v2");
}

#[test]
fn an_emptied_map_is_seen_and_restored_and_a_restarted_proxy_keeps_its_release() {
    let world = World::start();
    two_releases(&world);
    let restart = || {
        let name = format!("{HOST}/haproxy");
        world.lab.process(&name, ProcessAction::Kill).unwrap();
        world.lab.process(&name, ProcessAction::Start).unwrap();
    };
    restart();
    world.assert_serves(SIN, "v2");
    world.status(SIN).expect(Verdict::Proceed);

    world.overwrite(HOST, "traffic/active.map", b"");
    world.status(SIN).expect(Verdict::Mixed);
    restart();
    let at = world.address(&format!("{HOST}/http"));
    assert!(release_at(at).contains("503"), "never a guess");
    world.status(SIN).expect(Verdict::Mixed);
    let v3 = world.release("v3", &[]);
    let run = world.deploy(SIN, &v3, "o3");
    assert_ne!(run.code, Some(0), "{run}");

    let output = world.region_host(HOST, "reconcile").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(release_at(at), "v2");
    world.status(SIN).expect(Verdict::Proceed);
    wait_until("the edge sees it", || {
        world.serves(SIN).iter().all(|found| found == "v2")
    });
}

/// A tmpfs over a directory, as long as this value lives.
struct Full {
    over: PathBuf,
    behind: PathBuf,
}

impl Full {
    /// Moves the host's files to a file system of their own and fills it to the last byte.
    fn over(root: &Path, behind: PathBuf) -> Self {
        fs::create_dir(&behind).unwrap();
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                "size=128m,mode=755",
                "tmpfs",
                path(&behind),
            ],
        );
        let full = Self {
            over: root.to_owned(),
            behind,
        };
        run(
            "cp",
            &["-a", &format!("{}/.", root.display()), path(&full.behind)],
        );
        run("mount", &["--bind", path(&full.behind), path(root)]);
        let mut filler = fs::File::create(root.join("filler")).unwrap();
        let block = vec![1; 4096];
        while filler.write_all(&block).is_ok() {}
        full
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        for mounted in [&self.over, &self.behind] {
            // Also after a failed test: the lab's directory could not be removed otherwise.
            let _ = Command::new("umount").arg("-l").arg(mounted).status();
        }
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_full_disk_stops_a_deploy_and_does_not_stop_a_rollback() {
    let behind = tempfile::tempdir().unwrap();
    let probe = behind.path().join("probe");
    fs::create_dir(&probe).unwrap();
    let mounts = Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs", path(&probe)])
        .output()
        .unwrap();
    if !mounts.status.success() {
        let said = String::from_utf8_lossy(&mounts.stderr);
        skipped(&format!(
            "a full disk needs the right to mount a tmpfs: {said}"
        ));
        return;
    }
    run("umount", &[path(&probe)]);

    let world = World::start();
    two_releases(&world);
    let _full = Full::over(&world.root(HOST), behind.path().join("state"));
    // The proxy's socket was on the old file system.
    let name = format!("{HOST}/haproxy");
    world.lab.process(&name, ProcessAction::Kill).unwrap();
    world.lab.process(&name, ProcessAction::Start).unwrap();

    let v3 = world.release("v3", &[]);
    let run = world.deploy(SIN, &v3, "o3").expect(Verdict::Unreachable);
    assert!(run.summary().contains("free on disk"), "{run}");
    world.assert_serves(SIN, "v2");

    let run = world
        .rollback(SIN, &["--operation", "o2"])
        .expect(Verdict::Proceed);
    assert_eq!(run.result("changed"), true, "{run}");
    world.assert_serves(SIN, "v1");
    assert!(
        !world.root(HOST).join("ballast").exists(),
        "given up for the journal"
    );
    assert_eq!(
        world.events(HOST).last().unwrap(),
        "rolled-back o2.rollback v1"
    );
    world.status(SIN).expect(Verdict::Proceed);
}

/// A region-host as sshd starts it for a controller, in the test's own hands.
struct Connection {
    region_host: Child,
    replies: BufReader<ChildStdout>,
}

impl Connection {
    fn open(world: &World, host: &str) -> Self {
        let mut region_host = world
            .region_host(host, "serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let replies = BufReader::new(region_host.stdout.take().unwrap());
        let mut connection = Self {
            region_host,
            replies,
        };
        connection.send(&Request::Hello {
            protocol: VERSION,
            controller: "test".to_owned(),
            app: "shop".to_owned(),
        });
        assert!(matches!(connection.reply(), Some(Reply::Hello { .. })));
        connection
    }

    fn send(&mut self, request: &Request) {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        // The far side may have been killed by now.
        let _ = self.region_host.stdin.as_mut().unwrap().write_all(&line);
    }

    fn reply(&mut self) -> Option<Reply> {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    fn ask(&mut self, request: &Request) -> Reply {
        self.send(request);
        self.reply()
            .unwrap_or_else(|| panic!("no reply to {}", request.verb()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.region_host.kill();
        let _ = self.region_host.wait();
    }
}

/// What a region-host starts that no sshd of the lab has started does not end with the lab.
struct Orphans<'a>(&'a World);

impl Drop for Orphans<'_> {
    fn drop(&mut self) {
        for pid in self.0.release_pids(HOST) {
            signal(pid, "-KILL");
        }
    }
}

fn lock(operation: &str) -> Request {
    Request::Lock {
        holder: Holder {
            operation: operation.to_owned(),
            kind: OperationKind::Deploy,
            undoes: None,
            who: "test".to_owned(),
        },
        ttl_ms: 1,
    }
}

fn switch_to(release: &str) -> [Request; 4] {
    [
        Request::Prepare {
            release: release.to_owned(),
            start_deadline_ms: 10_000,
            interval_ms: 20,
            successes: 2,
        },
        Request::Commit {
            release: release.to_owned(),
            confirm_within_ms: 60_000,
        },
        Request::Confirm,
        Request::Unlock,
    ]
}

#[test]
fn a_region_host_that_is_replaced_while_it_serves_ends_what_it_began() {
    let world = World::start();
    two_releases(&world);
    let _orphans = Orphans(&world);
    let edge = world.address(&format!("{HOST}/http"));
    // v1 has to be started again by the program that is not there any more.
    signal(world.slot_pid(HOST, "blue"), "-KILL");
    let mut host = Connection::open(&world, HOST);
    let operation = Request::Lock {
        ttl_ms: 20_000,
        holder: Holder {
            operation: "replaced".to_owned(),
            kind: OperationKind::Deploy,
            undoes: None,
            who: "test".to_owned(),
        },
    };
    assert!(matches!(host.ask(&operation), Reply::Locked { .. }));
    // An upgrade: another file under the same name.
    let program = world.lab.directory().program("region-host");
    let new = program.with_extension("new");
    fs::copy(&program, &new).unwrap();
    fs::rename(&new, &program).unwrap();
    let [prepare, _, _, _] = switch_to("v1");
    let prepared = host.ask(&prepare);
    assert!(matches!(prepared, Reply::Prepared(_)), "{prepared:?}");
    let committed = host.ask(&Request::Commit {
        release: "v1".to_owned(),
        confirm_within_ms: 1_500,
    });
    assert!(matches!(committed, Reply::Switched(_)), "{committed:?}");
    assert_eq!(release_at(edge), "v1");
    // Nobody confirms: its dead-man goes back.
    drop(host);
    wait_until("back to v2", || release_at(edge) == "v2");
}

/// In microseconds. Both releases run afterwards.
fn time_of_a_warm_switch(world: &World, edge: SocketAddr) -> u64 {
    let mut took = Duration::ZERO;
    for number in 0..3 {
        let target = if release_at(edge) == "v1" { "v2" } else { "v1" };
        let mut host = Connection::open(world, HOST);
        let locked = host.ask(&lock(&format!("w{number}")));
        assert!(matches!(locked, Reply::Locked { .. }), "{locked:?}");
        let began = Instant::now();
        for request in switch_to(target) {
            host.ask(&request);
        }
        took = began.elapsed();
        assert_eq!(release_at(edge), target);
    }
    u64::try_from(took.as_micros()).unwrap()
}

#[test]
fn region_host_killed_at_any_moment_leaves_one_release_that_serves() {
    let world = World::start();
    two_releases(&world);
    let _orphans = Orphans(&world);
    let seed = std::env::var("REGIONWISE_TEST_SEED").map_or_else(
        |_| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs(),
        |text| text.parse().unwrap(),
    );
    println!("REGIONWISE_TEST_SEED={seed}");
    let mut random = seed;
    let mut killed_at = Vec::new();
    let edge = world.address(&format!("{HOST}/http"));
    let warm = time_of_a_warm_switch(&world, edge);
    println!("a warm switch takes {warm} us");
    let load = world.load(&["sin-1/http"], "50/s");
    for round in 0..30 {
        // Constants of Knuth's MMIX.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Every other time the switch may have to start a process; else it is over as soon as a warm one.
        let longest = if round % 2 == 0 { warm } else { 450_000 };
        let moment = Duration::from_micros((random >> 33) % longest);
        let target = if release_at(edge) == "v1" { "v2" } else { "v1" };
        let mut victim = Connection::open(&world, HOST);
        let operation = format!("r{round}");
        assert!(matches!(
            victim.ask(&lock(&operation)),
            Reply::Locked { .. }
        ));
        for request in switch_to(target) {
            victim.send(&request);
        }
        // The moment is what this test varies.
        thread::sleep(moment);
        victim.region_host.kill().unwrap();
        let mut done = 0;
        while victim.reply().is_some() {
            done += 1;
        }
        killed_at.push(done);

        if round % 3 == 0 {
            let output = world.region_host(HOST, "reconcile").output().unwrap();
            assert!(
                output.status.success(),
                "round {round}, after {moment:?}: {output:?}"
            );
        }
        let mut next = Connection::open(&world, HOST);
        let locked = next.ask(&lock(&format!("n{round}")));
        assert!(
            matches!(locked, Reply::Locked { .. }),
            "round {round}, after {moment:?}: {locked:?}"
        );
        let Reply::Status(facts) = next.ask(&Request::Status) else {
            panic!("round {round}: no status")
        };
        next.ask(&Request::Unlock);
        let HostFacts {
            serving,
            file,
            runtime,
            observed,
            intent,
            history_broken_at,
            ..
        } = *facts;
        let serving = serving.unwrap_or_else(|| panic!("round {round}: nothing serves"));
        assert_eq!(file, runtime, "round {round}, after {moment:?}");
        assert_eq!(
            observed.as_ref(),
            Some(&serving.release),
            "round {round}, after {moment:?}"
        );
        assert!(
            intent.is_none() && history_broken_at.is_none(),
            "round {round}: {intent:?}"
        );
        assert!(
            world.release_processes(HOST).len() <= 2,
            "{:?}",
            world.release_processes(HOST)
        );
    }
    println!("replies before the kill, of 4: {killed_at:?}");
    // A slot whose process died with its parent is started again before it serves: no request fails.
    assert!(load.assert_unharmed() > 100);
    let moments: std::collections::BTreeSet<_> = killed_at.into_iter().collect();
    assert!(moments.len() > 1, "the kills all came at {moments:?}");
}

#[test]
fn a_release_whose_artefact_was_deleted_is_brought_again_and_refused_as_a_way_back() {
    let world = World::start();
    two_releases(&world);
    let blobs = world.root(HOST).join("blobs");
    for blob in fs::read_dir(&blobs).unwrap() {
        fs::remove_file(blob.unwrap().path()).unwrap();
    }
    let run = world
        .rollback(SIN, &["--operation", "o2"])
        .expect(Verdict::Refused);
    assert!(run.summary().contains("artefact"), "{run}");
    world.assert_serves(SIN, "v2");
    // Never blamed on the release: its artefact is sent like that of a new one.
    world
        .deploy(SIN, &world.release("v3", &[]), "o3")
        .expect(Verdict::Proceed);
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 1);
    world.assert_serves(SIN, "v3");
}

#[test]
fn an_unhealthy_release_is_replaced_only_when_told_so() {
    // The load balancer looks at its hosts once a second, and has to see the cure before the verify ends.
    let world = World::with(&[("rollout", "verify", "2s")]);
    two_releases(&world);
    signal(world.slot_pid(HOST, "green"), "-KILL");
    let v3 = world.release("v3", &[]);
    let run = world.deploy(SIN, &v3, "o3").expect(Verdict::Refused);
    assert!(
        run.summary().contains("unhealthy before the deploy"),
        "{run}"
    );
    let v3 = v3.to_str().unwrap();
    let args = [
        "--region",
        SIN,
        "--release",
        v3,
        "--operation",
        "o4",
        "--accept-unhealthy",
    ];
    world
        .run(crate::support::DEPLOY, &args)
        .expect(Verdict::Proceed);
    world.assert_serves(SIN, "v3");
}

#[test]
fn a_second_operation_that_found_the_bad_release_there_can_take_it_away() {
    let world = World::start();
    two_releases(&world);
    // The first rollout was held before `close`; somebody starts another one of the same release.
    let run = world
        .deploy(SIN, &world.release("v2", &[]), "o3")
        .expect(Verdict::Proceed);
    assert_eq!(run.result("changed"), false, "{run}");
    world
        .rollback(SIN, &["--operation", "o3"])
        .expect(Verdict::Proceed);
    world.assert_serves(SIN, "v1");
}
