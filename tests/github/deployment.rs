//! One deployment for each operation, whatever GitHub answers.

use std::time::Duration;

use regionwise_lab::github::{Fault, Kind};
use serde_json::json;

use crate::world::{DEPLOYMENT, Run, SHA, World};

const CREATE: &str = "/deployments";
const STATUS: &str = "/statuses";

fn tell(world: &World, state: &str) -> Run {
    told(world, "77-eu", &["--state", state])
}

fn told(world: &World, operation: &str, end: &[&str]) -> Run {
    let args = [
        "deployment",
        "--region",
        "eu-central",
        "--release",
        "v2",
        "--operation",
        operation,
    ];
    world.run(args.iter().chain(end).copied())
}

/// States of each deployment, oldest first.
fn states(world: &World) -> Vec<Vec<String>> {
    world.github.repository(|repository| {
        let states = |deployment: &regionwise_lab::github::Deployment| {
            deployment
                .states()
                .iter()
                .map(|state| (*state).to_owned())
                .collect()
        };
        repository.deployments.iter().map(states).collect()
    })
}

#[test]
fn a_deploy_is_one_deployment_with_every_state_once() {
    let world = World::new();
    tell(&world, "in-progress").is(0, "proceed shown");
    tell(&world, "in-progress").is(0, "proceed already-shown");
    tell(&world, "success").is(0, "proceed shown");
    tell(&world, "success").is(0, "proceed already-shown");
    assert_eq!(states(&world), [["in_progress", "success"]]);
    world.github.repository(|repository| {
        let deployment = &repository.deployments[0];
        assert_eq!(deployment.environment, "production-eu-central");
        assert_eq!(deployment.sha, SHA);
        assert_eq!(
            deployment.payload,
            json!({ "operation": "77-eu", "release": "v2" })
        );
        let status = &deployment.statuses[0];
        assert_eq!(status["environment_url"], "https://eu.shop.example");
        assert_eq!(
            status["log_url"],
            "https://github.com/our-org/regionwise/actions/runs/77/attempts/1"
        );
        assert_eq!(status["description"], "v2 by 77-eu");
    });
}

#[test]
fn a_run_that_is_tried_again_goes_back_to_in_progress() {
    let world = World::new();
    tell(&world, "in-progress").is(0, "proceed shown");
    tell(&world, "failure").is(0, "proceed shown");
    tell(&world, "in-progress").is(0, "proceed shown");
    assert_eq!(states(&world), [["in_progress", "failure", "in_progress"]]);
}

#[test]
fn another_operation_is_another_deployment_and_its_success_retires_the_one_before() {
    let world = World::new();
    told(&world, "76-eu", &["--state", "success"]).is(0, "proceed shown");
    told(&world, "77-eu", &["--state", "success"]).is(0, "proceed shown");
    assert_eq!(
        states(&world),
        [vec!["success", "inactive"], vec!["success"]]
    );
}

#[test]
fn the_last_verdict_of_a_job_has_its_state() {
    let world = World::new();
    for (verdict, state) in [
        ("proceed", "success"),
        ("pause", "pending"),
        ("rolled-back", "failure"),
        ("unknown", "error"),
        ("", "error"),
    ] {
        let operation = format!("77-{verdict}-eu");
        told(&world, &operation, &["--verdict", verdict])
            .is(0, "proceed shown")
            .says(&[&format!("as {state}")]);
    }
    told(&world, "77-eu", &["--verdict", "fine"]);
    let run = told(
        &world,
        "77-eu",
        &["--verdict", "proceed", "--state", "success"],
    );
    assert_eq!(run.code, 2, "{}", run.all());
    assert_eq!(told(&world, "77-eu", &[]).code, 2);
}

#[test]
fn a_lost_answer_doubles_neither_deployment_nor_status() {
    for kind in [
        Kind::GatewayAfter,
        Kind::CutAfter,
        Kind::SlowAfter(Duration::from_secs(20)),
    ] {
        let world = World::new();
        world.fail(Fault::once("POST", CREATE, kind));
        world.fail(Fault::once("POST", STATUS, kind));
        tell(&world, "in-progress")
            .is(0, "proceed shown")
            .says(&["looking whether it arrived"]);
        assert_eq!(states(&world), [["in_progress"]], "{kind:?}");
        assert_eq!(world.github.count("POST", CREATE), 1, "{kind:?}");
        assert_eq!(world.github.count("POST", STATUS), 1, "{kind:?}");
    }
}

#[test]
fn what_did_not_arrive_is_sent_once_more_after_a_look() {
    let world = World::new();
    world.fail(Fault::once("POST", CREATE, Kind::GatewayBefore));
    tell(&world, "in-progress").is(0, "proceed shown");
    assert_eq!(states(&world), [["in_progress"]]);
    assert_eq!(world.github.count("POST", CREATE), 2);
    assert_eq!(world.github.count("GET", CREATE), 2);
}

#[test]
fn what_never_arrives_is_not_sent_for_ever() {
    let world = World::new();
    world.fail(Fault::times(99, "POST", CREATE, Kind::GatewayBefore));
    tell(&world, "in-progress").is(10, "pause -").says(&[
        "cannot show `v2` in `production-eu-central`",
        "answered 502",
    ]);
    assert_eq!(world.github.count("POST", CREATE), 2);
    assert!(states(&world).is_empty());
}

#[test]
fn a_look_that_fails_leaves_it_at_one_try() {
    let world = World::new();
    world.fail(Fault::once("POST", CREATE, Kind::GatewayAfter));
    // The look before is answered, the one after is not.
    world.fail(Fault::after(1, 99, "GET", CREATE, Kind::GatewayBefore));
    tell(&world, "in-progress").is(10, "pause -");
    assert_eq!(world.github.count("POST", CREATE), 1);
    // The next step of the workflow finds it.
    world.github.recover();
    tell(&world, "success").is(0, "proceed shown");
    assert_eq!(states(&world), [["success"]]);
}

#[test]
fn a_limited_write_was_not_served_and_is_sent_again_after_the_wait() {
    for kind in [Kind::SecondaryLimit(Some(1)), Kind::RateLimit(1)] {
        let world = World::new();
        world.fail(Fault::once("POST", CREATE, kind));
        let run = tell(&world, "in-progress");
        run.is(0, "proceed shown").says(&["going on in"]);
        assert_eq!(states(&world), [["in_progress"]]);
        assert!(run.took >= Duration::from_secs(1), "{:?}", run.took);
    }
}

#[test]
fn a_limit_that_outlasts_patience_gives_up_at_once() {
    for kind in [
        Kind::RateLimit(3000),
        Kind::SecondaryLimit(Some(3000)),
        Kind::SecondaryLimit(None),
    ] {
        let world = World::new();
        world.fail(Fault::once("POST", CREATE, kind));
        let run = tell(&world, "in-progress");
        run.is(10, "pause -")
            .says(&["is limited", "--api-patience"]);
        assert!(run.took < Duration::from_secs(5), "{:?}", run.took);
        assert!(states(&world).is_empty());
    }
}

#[test]
fn several_waits_share_one_patience() {
    let world = World::new();
    world.fail(Fault::times(
        99,
        "GET",
        CREATE,
        Kind::SecondaryLimit(Some(3)),
    ));
    let run = tell(&world, "in-progress");
    run.is(10, "pause -");
    // 3 + 3 of 8 s, and no third.
    assert_eq!(world.github.count("GET", CREATE), 3);
    assert!(run.took < Duration::from_secs(9), "{:?}", run.took);
}

#[test]
fn every_refusal_ends_the_try_and_says_so() {
    for (status, message) in [
        (401, "Bad credentials"),
        (403, "Resource not accessible by integration"),
        (404, "Not Found"),
        (409, "Conflict"),
        (422, "Validation Failed"),
    ] {
        let world = World::new();
        world.fail(Fault::once("POST", CREATE, Kind::Refused(status, message)));
        tell(&world, "in-progress")
            .is(10, "pause -")
            .says(&[&format!("answered {status}: {message}")]);
        assert_eq!(world.github.count("POST", CREATE), 1, "{status}");
    }
    let world = World::new();
    world.github.forbid("deployments");
    tell(&world, "in-progress")
        .is(10, "pause -")
        .says(&["permissions"]);
}

#[test]
fn nobody_at_the_address_is_said_and_nothing_waits_long() {
    let world = World::new();
    let mut command = world.command("http://127.0.0.1:1");
    command.args(DEPLOYMENT).args(["--state", "success"]);
    let run = Run::of(command);
    run.is(10, "pause -").says(&["refused", "asking again"]);
    assert!(run.took < Duration::from_secs(15), "{:?}", run.took);
}

#[test]
fn a_long_name_still_fits_github() {
    let world = World::new();
    let long = "v".repeat(300);
    world
        .run([
            "deployment",
            "--region",
            "eu-central",
            "--release",
            &long,
            "--operation",
            "77-eu",
            "--state",
            "success",
        ])
        .is(0, "proceed shown");
}

#[test]
fn a_dry_run_asks_nobody() {
    let world = World::new();
    told(&world, "77-eu", &["--state", "success", "--dry-run"])
        .is(0, "proceed dry-run")
        .says(&["production-eu-central"]);
    assert_eq!(world.github.seen().len(), 0);
}
