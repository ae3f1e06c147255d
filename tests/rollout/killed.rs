//! The controller ends in the middle: what the hosts do without it, and what the next run finds.

use std::thread;
use std::time::Duration;

use regionwise_rollout::Verdict;

use crate::support::{DEPLOY, World, deploy_args, hosts, wait_until};

const EU: &str = "eu-central";

#[test]
fn a_deploy_killed_while_it_prepares_leaves_the_old_release_and_the_next_run_converges() {
    let world = World::with(&[("rollout", "lock_ttl", "1s")]);
    world.settle(EU, "v1", "o1");
    let slow = world.release("v2", &[("FAULT_START_DELAY", "1s")]);
    for _ in 0..2 {
        let mut running = world.begin(EU, &slow, "o2");
        running.wait_for("preparing `v2`");
        wait_until("it is being started", || {
            world.json("eu-1", "slots/green.json")["state"] == "starting"
        });
        running.kill();
        world.assert_serves(EU, "v1");
    }
    // The same operation gets its lock back at once.
    world.deploy(EU, &slow, "o2").expect(Verdict::Proceed);
    world.assert_serves(EU, "v2");
    world.assert_unlocked(EU);
    for host in hosts(EU) {
        wait_until("one process per slot", || {
            world.release_processes(host).len() == 2
        });
    }
}

#[test]
fn a_deploy_killed_after_the_switch_is_taken_back_by_the_hosts_in_time() {
    let world = World::with(&[
        ("rollout", "verify", "1500ms"),
        ("rollout", "commit_window", "500ms"),
        ("rollout", "confirm_within", "4s"),
        ("rollout", "lock_ttl", "2s"),
    ]);
    world.settle(EU, "v1", "o1");
    let v2 = world.release("v2", &[]);
    let mut running = world.begin(EU, &v2, "o2");
    running.wait_for("takes the traffic");
    running.kill();
    world.assert_serves(EU, "v2");

    let reverted = |host: &&str| world.events(host).last().unwrap() == "reverted o2 v1";
    let took = wait_until("both hosts went back", || hosts(EU).iter().all(reverted));
    assert!(took < Duration::from_secs(5), "{took:?}");
    world.assert_serves(EU, "v1");
    wait_until("the dead-men have ended", || {
        hosts(EU)
            .iter()
            .all(|host| world.json(host, "intent.json").is_null())
    });
    let run = world.status(EU).expect(Verdict::Proceed);
    assert!(run.stdout.contains("\"note\": \"deadman\""), "{run}");

    // The next run of the same operation starts from what is true now.
    world.deploy(EU, &v2, "o2").expect(Verdict::Proceed);
    world.assert_serves(EU, "v2");
}

#[test]
fn the_same_operation_goes_on_where_it_was_killed_and_another_one_waits_for_its_lock() {
    let world = World::with(&[
        ("rollout", "verify", "1s"),
        ("rollout", "confirm_within", "8s"),
    ]);
    let (world, v2, v3) = (&world, world.release("v2", &[]), world.release("v3", &[]));
    let killed_after_the_switch = |region: &str| {
        world.settle(region, "v1", "o1");
        let mut running = world.begin(region, &v2, "o2");
        running.wait_for("takes the traffic");
        running.kill();
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            killed_after_the_switch(EU);
            let deadline = |host: &str| {
                world.json(host, "intent.json")["deadline_ms"]
                    .as_u64()
                    .unwrap()
            };
            let first: Vec<u64> = hosts(EU).iter().map(|host| deadline(host)).collect();
            let mut running = world.begin(EU, &v2, "o2");
            running.wait_for("serves it already");
            wait_until("a deadline of its own", || {
                hosts(EU)
                    .iter()
                    .zip(&first)
                    .all(|(host, first)| deadline(host) > *first)
            });
            running.finish().expect(Verdict::Proceed);
            world.assert_serves(EU, "v2");
            assert_eq!(
                world.events("eu-1")[3..],
                ["switched o2 v2", "confirmed o2 v2"]
            );
        });
        scope.spawn(|| {
            killed_after_the_switch("us-east");
            let run = world.deploy("us-east", &v3, "o3").expect(Verdict::Locked);
            assert!(run.summary().contains("deploy `o2`"), "{run}");
            assert!(run.stdout.contains("--lock-wait"), "{run}");
            let mut args = deploy_args("us-east", &v3, "o3").to_vec();
            args.extend(["--lock-wait", "20s"]);
            let run = world.run(DEPLOY, &args).expect(Verdict::Proceed);
            assert!(run.stderr.contains("waiting for the lock"), "{run}");
            assert!(run.stderr.contains("was taken back to `v1`"), "{run}");
            world.assert_serves("us-east", "v3");
            assert_eq!(
                world.events("us-1")[3..],
                [
                    "switched o2 v2",
                    "reverted o2 v1",
                    "switched o3 v3",
                    "confirmed o3 v3"
                ]
            );
        });
    });
}

#[test]
fn a_signal_ends_a_deploy_in_time_with_no_lock_and_one_release() {
    let world = World::with(&[
        ("rollout", "verify", "4s"),
        ("rollout", "confirm_within", "12s"),
    ]);
    let world = &world;
    // Started with a release that takes no notice of SIGTERM: it must not hold up the stop.
    let stubborn = world.release("v2", &[("FAULT_IGNORE_SIGTERM", "1")]);
    let slow = world.release("v3", &[("FAULT_START_DELAY", "8s")]);
    let cases = [
        (
            "us-east",
            &stubborn,
            "takes the traffic",
            "-TERM",
            Verdict::Terminated,
        ),
        (
            "eu-central",
            &slow,
            "preparing `v3`",
            "-TERM",
            Verdict::Terminated,
        ),
        (
            "ap-singapore",
            &stubborn,
            "takes the traffic",
            "-INT",
            Verdict::Interrupted,
        ),
    ];
    thread::scope(|scope| {
        for (region, release, moment, name, verdict) in cases {
            scope.spawn(move || {
                world.settle(region, "v1", "o1");
                let mut running = world.begin(region, release, "o2");
                running.wait_for(moment);
                let begun = std::time::Instant::now();
                running.signal(name);
                let run = running.finish();
                assert!(begun.elapsed() < Duration::from_secs(7), "{run}");
                let run = run.expect(verdict);
                assert_eq!(run.result("traffic"), "old", "{run}");
                world.assert_serves(region, "v1");
                world.assert_unlocked(region);
                for host in hosts(region) {
                    assert_eq!(world.release_processes(host).len(), 1, "{host}");
                }
                let run = world
                    .rollback(region, &["--operation", "o2"])
                    .expect(Verdict::Proceed);
                assert_eq!(run.result("changed"), false, "{run}");
            });
        }
    });
}
