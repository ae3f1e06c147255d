//! One of two hosts fails between prepare and confirm: the other one goes back too, and its users notice nothing.

use std::thread;

use regionwise_lab::LinkChange;
use regionwise_lab::control::ProcessAction;
use regionwise_rollout::Verdict;

use crate::support::{Running, World, hosts, signal, wait_until};

const EU: &str = "eu-central";

/// Begins v2 and returns when eu-1 is ready and eu-2, which starts later, is not: the commit is still to come.
fn half_prepared(world: &World) -> Running {
    world.settle(EU, "v1", "o1");
    world.host_env("eu-2", "FAULT_START_DELAY=1500ms");
    let running = world.begin(EU, &world.release("v2", &[]), "o2");
    wait_until("eu-1 is ready", || {
        world.json("eu-1", "slots/green.json")["state"] == "healthy"
    });
    running
}

#[test]
fn a_release_that_dies_before_its_commit_gets_no_request() {
    let world = World::start();
    let running = half_prepared(&world);
    let load = world.load(&["eu-1/http", "eu-2/http", EU], "40/s");
    signal(world.slot_pid("eu-1", "green"), "-KILL");
    let run = running.finish().expect(Verdict::RolledBack);
    assert_eq!(run.json["reason"], "commit-failed", "{run}");
    assert!(run.summary().contains("eu-1"), "{run}");
    assert!(load.assert_unharmed() > 10);
    world.assert_serves(EU, "v1");
    world.assert_unlocked(EU);
    assert_eq!(world.events("eu-1").len(), 3, "eu-1 never switched");
    assert_eq!(
        world.events("eu-2")[3..],
        ["switched o2 v2", "reverted o2 v1"]
    );
}

#[test]
fn a_proxy_that_hangs_during_the_commit_brings_both_hosts_back() {
    let world = World::start();
    let mut running = half_prepared(&world);
    let load = world.load(&["eu-2/http"], "40/s");
    world
        .lab
        .process("eu-1/haproxy", ProcessAction::Freeze)
        .unwrap();
    running.wait_for("going back");
    world
        .lab
        .process("eu-1/haproxy", ProcessAction::Thaw)
        .unwrap();
    running.finish().expect(Verdict::RolledBack);
    assert!(load.assert_unharmed() > 10, "eu-2 was never disturbed");
    world.assert_serves(EU, "v1");
    world.assert_unlocked(EU);
    world.status(EU).expect(Verdict::Proceed);
}

#[test]
fn a_dead_proxy_is_not_called_rolled_back_and_heals_by_itself_when_it_comes_back() {
    let world = World::with(&[
        ("rollout", "commit_window", "1s"),
        ("rollout", "confirm_within", "3s"),
    ]);
    let running = half_prepared(&world);
    let load = world.load(&["eu-2/http"], "40/s");
    world
        .lab
        .process("eu-1/haproxy", ProcessAction::Kill)
        .unwrap();
    let run = running.finish().expect(Verdict::Mixed);
    assert!(run.stdout.contains("eu-1"), "{run}");
    assert!(load.assert_unharmed() > 10, "eu-2 was never disturbed");
    assert_eq!(world.serves(EU)[1], "v1", "eu-2 went back");
    world.status(EU).expect(Verdict::Mixed);

    // The dead-man finds the proxy dead too, and tries on.
    let deadline = world.json("eu-1", "intent.json")["deadline_ms"].as_f64();
    wait_until("the time for a confirm is over", || {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        seconds * 1000.0 > deadline.unwrap() + 500.0
    });
    world
        .lab
        .process("eu-1/haproxy", ProcessAction::Start)
        .unwrap();
    wait_until("the dead-man has settled eu-1", || {
        world.json("eu-1", "intent.json").is_null()
    });
    world.assert_serves(EU, "v1");
    world.status(EU).expect(Verdict::Proceed);
}

#[test]
fn a_connection_reset_at_the_commit_is_taken_up_again() {
    let world = World::with(&[("rollout", "verify", "2s"), ("rollout", "lock_ttl", "1s")]);
    world.settle(EU, "v1", "o1");
    let mut running = world.begin(EU, &world.release("v2", &[]), "o2");
    running.wait_for("takes the traffic");
    world.lab.link("world", EU, LinkChange::reset()).unwrap();
    let run = running.finish().expect(Verdict::RolledBack);
    assert_eq!(run.json["reason"], "contact-lost", "{run}");
    world.assert_serves(EU, "v1");
    world.assert_unlocked(EU);
}

#[test]
fn hosts_that_are_cut_off_after_the_switch_go_back_alone() {
    let world = World::with(&[
        ("rollout", "confirm_within", "4500ms"),
        ("health", "timeout", "300ms"),
    ]);
    world.settle(EU, "v1", "o1");
    let mut running = world.begin(EU, &world.release("v2", &[]), "o2");
    running.wait_for("takes the traffic");
    world
        .lab
        .link("world", EU, LinkChange::cut().both())
        .unwrap();
    let reverted = || {
        hosts(EU)
            .iter()
            .all(|host| world.events(host).last().unwrap() == "reverted o2 v1")
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            // The controller cannot know, and says so.
            let run = running.finish().expect(Verdict::Unknown);
            assert!(run.summary().contains("goes back alone"), "{run}");
        });
        let took = wait_until("both hosts went back", reverted);
        assert!(took.as_millis() < 5_500, "{took:?}");
    });
    world
        .lab
        .link("world", EU, LinkChange::clear().both())
        .unwrap();
    world.assert_serves(EU, "v1");
    world.status(EU).expect(Verdict::Proceed);
}
