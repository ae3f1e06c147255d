//! A deploy ended from outside at each of its steps, as GitHub cancels a job and as a power cut does: the region comes to rest on
//! one release by itself, and the next run says which.

use std::path::Path;
use std::thread;
use std::time::Duration;

use regionwise_rollout::Verdict;

use crate::support::{Running, World, hosts, wait_until};

/// A job that is cancelled gets INT, TERM after this time, and KILL after `KILLED_AFTER` more.
const TERMINATED_AFTER: Duration = Duration::from_millis(7500);
const KILLED_AFTER: Duration = Duration::from_millis(2500);

/// A step of a deploy, and how it is seen from outside that it has begun on a host.
struct Step {
    name: &'static str,
    begun: fn(&World, &str, &str) -> bool,
}

const STEPS: &[Step] = &[
    Step {
        name: "connecting",
        begun: |_, _, _| true,
    },
    Step {
        name: "lock",
        begun: |world, host, operation| {
            world.json(host, "lease.json")["holder"]["operation"] == operation
        },
    },
    Step {
        name: "prepare",
        begun: |world, host, operation| {
            ["blue", "green"].iter().any(|slot| {
                let slot = world.json(host, &format!("slots/{slot}.json"));
                slot["release"] == operation && slot["state"] == "starting"
            })
        },
    },
    Step {
        name: "switch",
        begun: |world, host, _| !world.json(host, "intent.json").is_null(),
    },
    Step {
        name: "verify",
        begun: |world, host, operation| {
            world
                .events(host)
                .contains(&format!("switched {operation} {operation}"))
        },
    },
    Step {
        name: "drain",
        begun: |world, host, operation| {
            world
                .events(host)
                .contains(&format!("confirmed {operation} {operation}"))
        },
    },
];

/// How the deploy is ended.
#[derive(Clone, Copy, Debug)]
enum End {
    CancelledJob,
    Killed,
}

#[test]
fn a_deploy_ended_at_any_step_leaves_one_release_and_the_next_run_says_which() {
    let world = World::with(&[
        ("rollout", "verify", "1500ms"),
        ("rollout", "commit_window", "500ms"),
        ("rollout", "confirm_within", "4s"),
        ("rollout", "lock_ttl", "2s"),
    ]);
    let world = &world;
    thread::scope(|scope| {
        // Each region takes every third case: the steps of one region do not wait for those of another.
        for (lane, region) in ["us-east", "eu-central", "ap-singapore"]
            .into_iter()
            .enumerate()
        {
            scope.spawn(move || {
                world.settle(region, "v1", "o1");
                let cases = STEPS
                    .iter()
                    .flat_map(|step| [(step, End::CancelledJob), (step, End::Killed)]);
                for (number, (step, end)) in cases.enumerate() {
                    if number % 3 == lane {
                        ended_at(world, region, step, end);
                    }
                }
            });
        }
    });
}

fn ended_at(world: &World, region: &str, step: &Step, end: End) {
    let case = format!("{}-{end:?}", step.name).to_lowercase();
    // The release is named like its operation, and takes a while to start and to drain.
    let release = world.release(&case, &[("FAULT_START_DELAY", "700ms")]);
    let mut running = world.begin(region, &release, &case);
    let first = hosts(region)[0];
    wait_until(&format!("{case} in {region}"), || {
        (step.begun)(world, first, &case)
    });
    match end {
        End::CancelledJob => cancelled(world, region, &case, running),
        End::Killed => {
            running.signal("-KILL");
            assert!(running.ends_within(KILLED_AFTER), "{case}");
        }
    }

    // By itself: nobody has asked the hosts for anything since.
    let settled = || {
        let all = world.serves(region);
        all.iter().all(|one| one == &all[0])
            && hosts(region)
                .iter()
                .all(|host| world.json(host, "intent.json").is_null())
    };
    wait_until(&format!("{region} is on one release after {case}"), settled);
    let serves = world.serves(region).remove(0);
    assert!(serves == "v1" || serves == case, "{case}: {serves}");

    let run = world.status(region).expect(Verdict::Proceed);
    assert_eq!(
        run.result("regions")[0]["said"],
        format!("`{serves}` serves"),
        "{case}: {run}"
    );
    let run = world.rollback(region, &["--operation", &case]);
    let run = run.expect(Verdict::Proceed);
    assert_eq!(run.result("changed"), serves == case, "{case}: {run}");
    world.assert_serves(region, "v1");
    world.assert_unlocked(region);
    again(world, region, &release, &case);
}

/// INT alone must do: what comes after it finds the process gone, and its report is true.
fn cancelled(world: &World, region: &str, case: &str, mut running: Running) {
    running.signal("-INT");
    assert!(
        running.ends_within(TERMINATED_AFTER),
        "{case}: TERM would have come"
    );
    let run = running.finish();
    match run.code {
        // It had not even begun to listen for signals.
        None => assert!(run.stdout.is_empty(), "{case}: {run}"),
        Some(0) => {
            let run = run.expect(Verdict::Proceed);
            assert_eq!(run.result("traffic"), "new", "{case}: {run}");
            world.assert_serves(region, case);
        }
        Some(_) => {
            let run = run.expect(Verdict::Interrupted);
            assert_eq!(run.result("traffic"), "old", "{case}: {run}");
            world.assert_serves(region, "v1");
        }
    }
    world.assert_unlocked(region);
}

/// The same release by another operation: nothing of the broken one is in the way.
fn again(world: &World, region: &str, release: &Path, case: &str) {
    let operation = format!("{case}-again");
    world
        .deploy(region, release, &operation)
        .expect(Verdict::Proceed);
    world.assert_serves(region, case);
    world
        .rollback(region, &["--operation", &operation])
        .expect(Verdict::Proceed);
    world.assert_serves(region, "v1");
}
