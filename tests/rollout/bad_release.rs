//! Releases that are bad before the switch: traffic never leaves the old one, and nothing of the bad one stays.

use std::net::TcpListener;
use std::thread;

use regionwise_rollout::Verdict;
use serde_json::json;

use crate::support::{World, deploy_args, hosts, wait_until};

const EU: &str = "eu-central";

/// Name of a release, variable and value that make it bad.
type Fault = (&'static str, &'static str, &'static str);

#[test]
fn a_release_that_never_becomes_healthy_is_stopped_before_the_switch() {
    let world = World::start();
    // One fault per region, at the same time.
    let impatient = world.config_with("impatient.toml", &[("rollout", "start_deadline", "1s")]);
    let script = world.file("not-a-program", b"this cannot run\n");
    let cases: [(&str, [Fault; 2]); 3] = [
        (
            "us-east",
            [
                ("error", "FAULT_BASIC", "500"),
                ("stranger", "FAULT_WRONG_RELEASE", "1"),
            ],
        ),
        (
            "eu-central",
            [
                ("slow", "FAULT_START_DELAY", "1m"),
                ("hang", "FAULT_BASIC", "hang"),
            ],
        ),
        (
            "ap-singapore",
            [
                ("crash", "FAULT_CRASH_AFTER", "1ms"),
                ("typo", "FAULT_TYPO", "1"),
            ],
        ),
    ];
    let world = &world;
    let (impatient, script) = (&impatient, &script);
    thread::scope(|scope| {
        for (region, faults) in cases {
            scope.spawn(move || {
                world.settle(region, "v1", "o1");
                let before: Vec<_> = hosts(region)
                    .iter()
                    .map(|host| world.slot_pid(host, "blue"))
                    .collect();
                let bad = faults
                    .iter()
                    .map(|(name, fault, value)| world.release(name, &[(*fault, *value)]));
                for release in bad.chain([world.release_of("text", script, &[])]) {
                    let mut command = world.command(
                        crate::support::DEPLOY,
                        &deploy_args(region, &release, "bad"),
                    );
                    command.env("REGIONWISE_CONFIG", impatient);
                    let run = crate::support::Run::of(command).expect(Verdict::RollBack);
                    assert_eq!(run.result("traffic"), "old", "{run}");
                    assert_eq!(run.result("changed"), false, "{run}");
                    assert!(run.summary().contains("`v1` serves"), "{run}");
                    world.assert_serves(region, "v1");
                    world.assert_unlocked(region);
                }
                for (host, pid) in hosts(region).iter().zip(before) {
                    assert_eq!(
                        world.release_processes(host).len(),
                        1,
                        "{host}: only v1 runs"
                    );
                    assert_eq!(world.slot_pid(host, "blue"), pid, "{host}");
                    let switched = world
                        .events(host)
                        .iter()
                        .filter(|event| event.starts_with("switched"))
                        .count();
                    assert_eq!(switched, 1, "{:?}", world.events(host));
                }
                // The rollback that a workflow runs next finds nothing to undo.
                let run = world
                    .rollback(region, &["--operation", "bad"])
                    .expect(Verdict::Proceed);
                assert_eq!(run.result("changed"), false, "{run}");
                world.assert_serves(region, "v1");
            });
        }
    });
}

#[test]
fn a_release_that_is_bad_on_one_host_is_switched_on_none() {
    let world = World::with(&[("rollout", "start_deadline", "1500ms")]);
    world.settle(EU, "v1", "o1");
    world.host_env("eu-2", "FAULT_BASIC=500");
    let run = world
        .deploy(EU, &world.release("v2", &[]), "o2")
        .expect(Verdict::RollBack);
    assert!(run.summary().contains("eu-2"), "{run}");
    world.assert_serves(EU, "v1");
    assert_eq!(world.events("eu-1").len(), 3, "the good host only prepared");
    for host in hosts(EU) {
        assert_eq!(
            world.release_processes(host).len(),
            1,
            "{host}: only v1 runs"
        );
    }
    world.assert_unlocked(EU);
}

#[test]
fn a_taken_port_is_the_hosts_fault_and_not_the_releases() {
    let world = World::start();
    world.settle(EU, "v1", "o1");
    let foreign: String = world.json("eu-2", "host.json")["green"]
        .as_str()
        .unwrap()
        .into();
    let foreign = TcpListener::bind(foreign).unwrap();
    let v2 = world.release("v2", &[]);
    let run = world.deploy(EU, &v2, "o2").expect(Verdict::Unreachable);
    assert!(run.summary().contains("something listens there"), "{run}");
    world.assert_serves(EU, "v1");
    assert_eq!(world.release_processes("eu-1").len(), 1);
    world.assert_unlocked(EU);

    drop(foreign);
    world.deploy(EU, &v2, "o2").expect(Verdict::Proceed);
    world.assert_serves(EU, "v2");
}

#[test]
fn a_release_that_goes_bad_in_front_of_users_is_taken_back_in_verify() {
    let world = World::with(&[("rollout", "verify", "2s"), ("health", "interval", "150ms")]);
    let world = &world;
    let cases = [
        ("us-east", "FAULT_CRASH_AFTER", "1500ms"),
        ("eu-central", "FAULT_FLAP", "400ms"),
    ];
    thread::scope(|scope| {
        for (region, fault, value) in cases {
            scope.spawn(move || {
                world.settle(region, "v1", "o1");
                let bad = world.release("v2", &[(fault, value)]);
                let run = world.deploy(region, &bad, "o2").expect(Verdict::RolledBack);
                assert_eq!(run.json["reason"], "verify-failed", "{run}");
                assert_eq!(run.result("traffic"), &json!("old"));
                assert_eq!(run.releases().first(), Some(&Some("v1")), "{run}");
                world.assert_serves(region, "v1");
                world.assert_unlocked(region);
                for host in hosts(region) {
                    let events = world.events(host);
                    assert_eq!(events[3..], ["switched o2 v2", "reverted o2 v1"], "{host}");
                    wait_until("the bad one has ended", || {
                        world.release_processes(host).len() == 1
                    });
                }
                let run = world
                    .rollback(region, &["--operation", "o2"])
                    .expect(Verdict::Proceed);
                assert_eq!(run.result("changed"), false, "a second rollback: {run}");
            });
        }
    });
    assert!(world.events("sin-1").is_empty());
}
