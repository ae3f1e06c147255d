//! Users notice no switch: neither those who ask all the time nor one whose answer takes longer than the switch.

use std::thread;

use regionwise_rollout::Verdict;

use crate::support::{World, get};

const EU: &str = "eu-central";
const SIN: &str = "ap-singapore";

#[test]
fn forty_switches_back_and_forth_fail_no_request() {
    let world = World::with(&[
        ("rollout", "verify", "100ms"),
        ("health", "interval", "50ms"),
    ]);
    world.settle(SIN, "v1", "o1");
    let v2 = world.release("v2", &[]);
    let load = world.load(&[SIN, "sin-1/http"], "100/s");
    for round in 0..20 {
        let operation = format!("s{round}");
        world.deploy(SIN, &v2, &operation).expect(Verdict::Proceed);
        let run = world
            .rollback(SIN, &["--operation", &operation])
            .expect(Verdict::Proceed);
        assert_eq!(run.result("changed"), true, "{run}");
    }
    let summary = load.stop();
    for region in &summary.regions {
        assert_eq!(
            region.failed,
            0,
            "{}",
            serde_json::to_string(&summary).unwrap()
        );
        for release in ["v1", "v2"] {
            assert!(
                region.releases[release].served > 50,
                "{}",
                serde_json::to_string(&summary).unwrap()
            );
        }
    }
    world.assert_serves(SIN, "v1");
    let switches = world
        .events("sin-1")
        .iter()
        .filter(|event| event.starts_with("switched s") || event.starts_with("rolled-back s"))
        .count();
    assert_eq!(switches, 40);
}

#[test]
fn a_request_that_takes_longer_than_the_switch_is_answered_by_the_release_that_took_it() {
    let world = World::start();
    world.settle(EU, "v1", "o1");
    let at = world.address("eu-1/http");
    let long = thread::spawn(move || get(at, "/slow?ms=4000"));
    let v2 = world.release("v2", &[]);
    let run = world.deploy(EU, &v2, "o2").expect(Verdict::Proceed);
    world.assert_serves(EU, "v2");
    assert!(long.is_finished(), "the deploy waited for it: {run}");
    let (head, body) = long.join().unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("x-release: v1"), "{head}");
    assert!(body.contains("4000"), "{body}");
}
