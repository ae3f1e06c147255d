//! Good releases: what a deploy brings, what it leaves alone, and what it says.

use std::path::Path;

use regionwise_rollout::Verdict;
use serde_json::json;

use crate::support::{DEPLOY, World, deploy_args, get, hosts};

const EU: &str = "eu-central";

#[test]
fn a_release_reaches_both_hosts_of_its_region_and_no_other() {
    let world = World::start();
    // The API itself, with all its megabytes.
    let api = Path::new(env!("CARGO_BIN_EXE_reference-api"));
    let (v1, v2) = (
        world.release_of("v1", api, &[]),
        world.release_of("v2", api, &[]),
    );
    let untouched = world.other_histories(EU);

    let mut dry = deploy_args(EU, &v1, "o1").to_vec();
    dry.push("--dry-run");
    let run = world.run(DEPLOY, &dry).expect(Verdict::Proceed);
    assert!(run.stdout.contains("would start on blue"), "{run}");
    assert_eq!(world.events("eu-1"), Vec::<String>::new());
    assert!(!world.root("eu-1").join("lease.json").exists());

    let run = world.deploy(EU, &v1, "o1").expect(Verdict::Proceed);
    assert!(run.stderr.contains("sending"), "{run}");
    assert_eq!(
        (run.result("traffic"), run.result("changed")),
        (&json!("new"), &json!(true))
    );
    assert_eq!(run.releases(), [Some("v1"), Some("v1")]);
    world.assert_serves(EU, "v1");
    world.assert_unlocked(EU);

    world.close(EU, "o1").expect(Verdict::Proceed);
    let run = world.status(EU).expect(Verdict::Proceed);
    for host in run.result("regions")[0]["hosts"].as_array().unwrap() {
        let serving = &host["facts"]["serving"];
        assert_eq!(
            (
                &serving["release"],
                &serving["verified"],
                &serving["operation"]
            ),
            (&json!("v1"), &json!(true), &json!("o1"))
        );
    }

    let run = world.deploy(EU, &v2, "o2").expect(Verdict::Proceed);
    assert!(
        !run.stderr.contains("sending"),
        "the artefact is there: {run}"
    );
    world.assert_serves(EU, "v2");
    let (_, body) = get(world.address(EU), "/");
    assert!(body.contains("\"greeting\":\"v2\""), "{body}");
    for host in hosts(EU) {
        let expected = [
            "switched o1 v1",
            "confirmed o1 v1",
            "verified o1 v1",
            "switched o2 v2",
            "confirmed o2 v2",
        ];
        assert_eq!(world.events(host), expected, "{host}");
        assert_eq!(world.release_processes(host).len(), 2, "the old one stays");
    }
    assert_eq!(world.other_histories(EU), untouched);
}

#[test]
fn the_same_release_again_is_a_verified_no_op() {
    let world = World::start();
    let v1 = world.release("v1", &[]);
    world.deploy(EU, &v1, "o1").expect(Verdict::Proceed);
    let pids = hosts(EU)
        .iter()
        .map(|host| world.slot_pid(host, "blue"))
        .collect::<Vec<_>>();

    for operation in ["o1", "o2"] {
        let run = world.deploy(EU, &v1, operation).expect(Verdict::Proceed);
        assert_eq!(run.result("changed"), &json!(false), "{run}");
        assert_eq!(run.releases(), [Some("v1"), Some("v1")]);
    }
    world.assert_serves(EU, "v1");
    for (host, pid) in hosts(EU).iter().zip(pids) {
        assert_eq!(
            world.slot_pid(host, "blue"),
            pid,
            "{host} was started again"
        );
        assert_eq!(
            world.events(host),
            ["switched o1 v1", "confirmed o1 v1", "confirmed o2 v1"]
        );
    }
    // The second operation looked and confirmed: it may say that the release is verified.
    world.close(EU, "o2").expect(Verdict::Proceed);
    world.close(EU, "o2").expect(Verdict::Proceed);
    world.close(EU, "nobody").expect(Verdict::Refused);
}

/// How a changed env of the host reaches a release: the next one may be the same but for its name.
#[test]
fn the_same_content_under_a_new_name_is_a_new_release() {
    let world = World::start();
    let v1 = world.release("v1", &[]);
    world.deploy(EU, &v1, "o1").expect(Verdict::Proceed);
    world.close(EU, "o1").expect(Verdict::Proceed);
    let text = std::fs::read_to_string(&v1).unwrap();
    let v2 = world.file(
        "v2.toml",
        text.replace("name = \"v1\"", "name = \"v2\"").as_bytes(),
    );
    for host in hosts(EU) {
        world.host_env(host, "CHANGED=yes");
    }
    world.deploy(EU, &v2, "o2").expect(Verdict::Proceed);
    world.assert_serves(EU, "v2");
    world.close(EU, "o2").expect(Verdict::Proceed);
    // Warm, and yet another release.
    world.rollback(EU, &[]).expect(Verdict::Proceed);
    world.assert_serves(EU, "v1");
}
