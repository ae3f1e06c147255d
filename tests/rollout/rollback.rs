//! Back to the release before, and the rules that say which one that is.

use regionwise_rollout::Verdict;
use serde_json::json;

use crate::support::{ROLLBACK, World, hosts, signal, wait_until};

const EU: &str = "eu-central";
const SIN: &str = "ap-singapore";

#[test]
fn a_rollback_leads_back_to_the_verified_release_once_and_only_for_its_own_operation() {
    let world = World::start();
    let untouched = world.other_histories(SIN);
    let undo = |operation: &str| world.rollback(SIN, &["--operation", operation]);

    // Nothing serves: an operation that never switched has nothing to undo, and there is nothing to go back from.
    assert_eq!(undo("o1").expect(Verdict::Proceed).result("changed"), false);
    world.rollback(SIN, &[]).expect(Verdict::Refused);

    // The first release has nothing behind it.
    let v1 = world.release("v1", &[]);
    world.deploy(SIN, &v1, "o1").expect(Verdict::Proceed);
    let run = undo("o1").expect(Verdict::Refused);
    assert!(run.summary().contains("first release"), "{run}");
    world.rollback(SIN, &[]).expect(Verdict::Refused);
    world.assert_serves(SIN, "v1");
    world.close(SIN, "o1").expect(Verdict::Proceed);

    // Warm.
    let v2 = world.release("v2", &[]);
    world.deploy(SIN, &v2, "o2").expect(Verdict::Proceed);
    let warm = hosts(SIN).iter().map(|host| world.slot_pid(host, "blue"));
    let warm: Vec<u32> = warm.collect();
    let dry = world
        .run(
            ROLLBACK,
            &["--region", SIN, "--operation", "o2", "--dry-run"],
        )
        .expect(Verdict::Proceed);
    assert!(dry.summary().contains("would bring"), "{dry}");
    world.assert_serves(SIN, "v2");
    let run = undo("o2").expect(Verdict::Proceed);
    assert_eq!(
        (run.result("changed"), run.json["reason"].as_str()),
        (&json!(true), Some("rolled-back"))
    );
    assert_eq!(run.releases(), [Some("v1")]);
    world.assert_serves(SIN, "v1");
    world.assert_unlocked(SIN);
    for (host, pid) in hosts(SIN).iter().zip(warm) {
        assert_eq!(
            world.slot_pid(host, "blue"),
            pid,
            "{host} was started again"
        );
    }

    // Twice, and once more: verified no-ops.
    for _ in 0..2 {
        assert_eq!(undo("o2").expect(Verdict::Proceed).result("changed"), false);
    }
    // Nor does one that names no operation go back twice, or forward again: only `--to` does.
    let run = world.rollback(SIN, &[]).expect(Verdict::Proceed);
    assert_eq!(run.result("changed"), false, "{run}");
    world.assert_serves(SIN, "v1");
    let run = world
        .rollback(SIN, &["--to", "v9"])
        .expect(Verdict::Refused);
    assert!(run.summary().contains("`v9` never served here"), "{run}");
    world
        .rollback(SIN, &["--to", "v2"])
        .expect(Verdict::Proceed);
    world.assert_serves(SIN, "v2");
    let run = world
        .rollback(SIN, &["--to", "v2"])
        .expect(Verdict::Proceed);
    assert_eq!(run.result("changed"), false, "{run}");

    // Somebody else's release is not ours to take away.
    let v3 = world.release("v3", &[]);
    world.deploy(SIN, &v3, "o3").expect(Verdict::Proceed);
    let run = undo("o1").expect(Verdict::Refused);
    assert!(run.summary().contains("brought by operation `o3`"), "{run}");
    world.assert_serves(SIN, "v3");

    assert_eq!(world.other_histories(SIN), untouched);
}

#[test]
fn a_rollback_starts_the_old_release_again_where_its_process_is_gone() {
    let world = World::start();
    world.settle(EU, "v1", "o1");
    world
        .deploy(EU, &world.release("v2", &[]), "o2")
        .expect(Verdict::Proceed);
    let (cold, warm) = (
        world.slot_pid("eu-1", "blue"),
        world.slot_pid("eu-2", "blue"),
    );
    signal(cold, "-KILL");
    wait_until("it is gone", || world.release_processes("eu-1").len() == 1);

    let load = world.load(&["eu-1/http", "eu-2/http"], "40/s");
    let run = world
        .rollback(EU, &["--operation", "o2"])
        .expect(Verdict::Proceed);
    load.assert_unharmed();
    assert_eq!(run.result("changed"), true, "{run}");
    world.assert_serves(EU, "v1");
    assert_ne!(world.slot_pid("eu-1", "blue"), cold);
    assert_eq!(world.slot_pid("eu-2", "blue"), warm);
}

#[test]
fn one_host_that_cannot_go_back_does_not_keep_the_other_on_the_bad_release() {
    let world = World::start();
    world.settle(EU, "v1", "o1");
    world
        .deploy(EU, &world.release("v2", &[]), "o2")
        .expect(Verdict::Proceed);
    let damaged = world.overwrite("eu-1", "lease.json", b"{\"holder\":");
    let run = world
        .rollback(EU, &["--operation", "o2"])
        .expect(Verdict::Unknown);
    assert!(run.summary().contains("eu-1"), "{run}");
    assert_eq!(world.serves(EU)[..2], ["v2", "v1"], "eu-2 went back");
    assert_eq!(std::fs::read(damaged).unwrap(), b"{\"holder\":");
}
