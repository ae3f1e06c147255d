//! Two controllers and one region: one of them goes on, and the other changes nothing, not even back.

use regionwise_rollout::Verdict;

use crate::support::{DEPLOY, Running, World, deploy_args, hosts, wait_until};

const EU: &str = "eu-central";

#[test]
fn of_two_deploys_at_once_one_goes_on_and_the_other_is_locked_out() {
    let world = World::with(&[("rollout", "verify", "1s")]);
    world.settle(EU, "v1", "o1");
    let (v2, v3) = (world.release("v2", &[]), world.release("v3", &[]));
    let both = [world.begin(EU, &v2, "o2"), world.begin(EU, &v3, "o3")];
    let mut ends = both.map(|running| running.finish());
    ends.sort_by_key(|run| run.code);
    let [winner, loser] = ends;
    let operation = winner.result("operation").as_str().unwrap().to_owned();
    winner.expect(Verdict::Proceed);
    let loser = loser.expect(Verdict::Locked);
    assert!(loser.summary().contains(&operation), "{loser}");
    let won = if operation == "o2" { "v2" } else { "v3" };
    world.assert_serves(EU, won);
    for host in hosts(EU) {
        assert_eq!(
            world.events(host)[3..],
            [
                format!("switched {operation} {won}"),
                format!("confirmed {operation} {won}")
            ]
        );
    }
    world.assert_unlocked(EU);
}

#[test]
fn a_rollback_takes_over_a_deploy_which_then_changes_nothing_any_more() {
    let world = World::with(&[
        ("rollout", "verify", "6s"),
        ("rollout", "confirm_within", "12s"),
        ("rollout", "lock_ttl", "3s"),
    ]);
    world.settle(EU, "v1", "o1");
    let mut running = world.begin(EU, &world.release("v2", &[]), "o2");
    running.wait_for("takes the traffic");
    let run = world
        .rollback(EU, &["--operation", "o2"])
        .expect(Verdict::Proceed);
    assert_eq!(run.result("changed"), true, "{run}");
    world.assert_serves(EU, "v1");
    let events = world.events("eu-1");
    let run = running.finish().expect(Verdict::Locked);
    assert!(run.summary().contains("lost its lock"), "{run}");
    assert_eq!(world.events("eu-1"), events, "the loser wrote nothing");
    world.assert_serves(EU, "v1");
}

#[test]
fn a_rollback_of_one_operation_leaves_the_live_deploy_of_another_alone() {
    let world = World::with(&[
        ("rollout", "verify", "3s"),
        ("rollout", "confirm_within", "12s"),
    ]);
    world.settle(EU, "v1", "o1");
    let mut running = world.begin(EU, &world.release("v2", &[]), "o2");
    running.wait_for("takes the traffic");
    let run = world
        .rollback(EU, &["--operation", "o3"])
        .expect(Verdict::Locked);
    assert!(run.summary().contains("deploy `o2`"), "{run}");
    running.finish().expect(Verdict::Proceed);
    world.assert_serves(EU, "v2");
}

#[test]
fn a_deploy_that_wakes_up_after_a_rollback_and_another_deploy_leaves_them_alone() {
    let world = World::start();
    world.settle(EU, "v1", "o1");
    // Still in the middle of its look when it wakes up.
    let patient = world.config_with(
        "patient.toml",
        &[
            ("rollout", "verify", "30s"),
            ("rollout", "confirm_within", "60s"),
            ("rollout", "lock_ttl", "1s"),
        ],
    );
    let v2 = world.release("v2", &[]);
    let mut command = world.command(DEPLOY, &deploy_args(EU, &v2, "o2"));
    command.env("REGIONWISE_CONFIG", patient);
    let mut zombie = Running::of(command);
    zombie.wait_for("takes the traffic");
    zombie.signal("-STOP");
    world
        .rollback(EU, &["--operation", "o2"])
        .expect(Verdict::Proceed);
    let v3 = world.release("v3", &[]);
    world.deploy(EU, &v3, "o3").expect(Verdict::Proceed);
    let events = world.events("eu-2");
    zombie.signal("-CONT");
    let run = zombie.finish().expect(Verdict::Locked);
    assert_eq!(run.json["reason"], "taken-over", "{run}");
    world.assert_serves(EU, "v3");
    assert_eq!(world.events("eu-2"), events, "the zombie wrote nothing");
    world.assert_unlocked(EU);
}

#[test]
fn a_release_that_starts_slowly_does_not_lose_its_lock_to_the_ttl() {
    let world = World::with(&[("rollout", "lock_ttl", "1s")]);
    let slow = world.release("v1", &[("FAULT_START_DELAY", "3s")]);
    let mut running = world.begin(EU, &slow, "o1");
    running.wait_for("preparing `v1`");
    let taken = world.json("eu-1", "lease.json")["expires_ms"]
        .as_u64()
        .unwrap();
    wait_until("it was renewed while the release starts", || {
        let now = world.json("eu-1", "lease.json")["expires_ms"].as_u64();
        now.is_some_and(|now| now > taken + 1_000)
    });
    let other = world.release("v2", &[]);
    world.deploy(EU, &other, "o2").expect(Verdict::Locked);
    running.finish().expect(Verdict::Proceed);
    world.assert_serves(EU, "v1");
}
