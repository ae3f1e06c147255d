//! The gate over environments: unknown is never protected.

use regionwise_lab::github::{Environment, Fault, Kind};
use serde_json::{Value, json};

use crate::world::World;

const LIST: &str = "/environments";
const APPS: &str = "/deployment_protection_rules";

fn reviewers() -> Value {
    json!({ "id": 1, "node_id": "x", "type": "required_reviewers", "prevent_self_review": false,
        "reviewers": [{ "type": "User", "reviewer": { "login": "somebody", "id": 1 } }] })
}

fn with_environment(name: &str, rules: Vec<Value>) -> World {
    let world = World::new();
    world.github.repository(|repository| {
        repository.environments.push(Environment::new(name, rules));
    });
    world
}

#[test]
fn an_environment_with_a_rule_lets_the_rollout_begin() {
    for rules in [
        vec![reviewers()],
        vec![json!({ "id": 2, "node_id": "x", "type": "wait_timer", "wait_timer": 30 })],
        vec![json!({ "id": 3, "node_id": "x", "type": "branch_policy" })],
    ] {
        let world = with_environment("production-us-east", rules);
        world.run(["environments"]).is(0, "proceed protected");
        assert_eq!(world.github.count("GET", APPS), 0);
    }
}

#[test]
fn an_environment_without_a_rule_or_that_is_missing_refuses() {
    let world = with_environment("production-us-east", vec![]);
    world
        .run(["environments"])
        .is(12, "refused unprotected")
        .says(&[
            "`production-us-east` is unprotected",
            "Settings > Environments",
        ]);
    let world = with_environment("production-us-west", vec![reviewers()]);
    world
        .run(["environments"])
        .is(12, "refused unprotected")
        .says(&["`production-us-east` is missing"]);
}

#[test]
fn the_rule_of_an_app_is_found_where_github_keeps_it() {
    let world = with_environment("production-us-east", vec![]);
    world.github.repository(|repository| {
        repository.environments[0].apps.push("our-gate".to_owned());
    });
    world
        .run(["environments"])
        .is(0, "proceed protected")
        .says(&["app `our-gate`"]);
}

#[test]
fn apps_that_cannot_be_read_hold_the_rollout() {
    let world = with_environment("production-us-east", vec![]);
    world.fail(Fault::times(9, "GET", APPS, Kind::Refused(403, "no")));
    world.run(["environments"]).is(10, "pause unclear").says(&[
        "cannot read the apps that protect `production-us-east`",
        "answered 403: no",
    ]);
}

#[test]
fn a_rule_of_an_unknown_kind_holds_the_rollout() {
    let rule = json!({ "id": 4, "node_id": "x", "type": "moon_phase" });
    let world = with_environment("production-us-east", vec![rule]);
    world
        .run(["environments"])
        .is(10, "pause unclear")
        .says(&["moon_phase"]);
}

#[test]
fn what_cannot_be_read_holds_the_rollout_and_says_why() {
    let world = with_environment("production-us-east", vec![reviewers()]);
    for (kind, texts) in [
        (
            Kind::Refused(404, "Not Found"),
            ["answered 404", "actions: read"],
        ),
        (
            Kind::Refused(403, "Resource not accessible by integration"),
            ["answered 403", "actions: read"],
        ),
        (
            Kind::Refused(401, "Bad credentials"),
            ["answered 401", "GITHUB_TOKEN"],
        ),
        (
            Kind::Nonsense,
            ["answered 200", "cannot read the environments"],
        ),
        (
            Kind::GatewayBefore,
            ["answered 502", "asking again in 500 ms"],
        ),
        (
            Kind::RateLimit(3000),
            ["the hourly limit is used up", "--api-patience"],
        ),
    ] {
        world.fail(Fault::times(4, "GET", LIST, kind));
        world.run(["environments"]).is(10, "pause -").says(&texts);
        // What was not used up would befall the next case.
        world.github.recover();
    }
    world.github.forbid("actions");
    world.run(["environments"]).is(10, "pause -");
}

#[test]
fn an_answer_that_comes_at_last_counts() {
    let world = with_environment("production-us-east", vec![reviewers()]);
    world.fail(Fault::once("GET", LIST, Kind::GatewayBefore));
    world.fail(Fault::once("GET", LIST, Kind::SecondaryLimit(Some(1))));
    let run = world.run(["environments"]);
    run.is(0, "proceed protected")
        .says(&["asked to slow down, for 1 s; going on in 1 s."]);
    assert_eq!(world.github.count("GET", LIST), 3);
    assert!(run.took.as_millis() >= 1500, "{:?}", run.took);
}

#[test]
fn all_pages_are_read_before_an_environment_is_missing() {
    let world = World::new();
    world.github.repository(|repository| {
        for number in 0..250 {
            repository
                .environments
                .push(Environment::new(&format!("preview-{number}"), vec![]));
        }
        repository
            .environments
            .push(Environment::new("Production-US-East", vec![reviewers()]));
    });
    world.run(["environments"]).is(0, "proceed protected");
    assert_eq!(world.github.count("GET", LIST), 3);
}

#[test]
fn every_region_that_must_be_protected_is_looked_at() {
    let world = with_environment("production-us-east", vec![reviewers()]);
    world.protect("\"us-east\", \"eu-central\"");
    world
        .run(["environments"])
        .is(12, "refused unprotected")
        .says(&["`production-eu-central` is missing"]);
    world.protect("");
    world.run(["environments"]).is(0, "proceed none-expected");
    assert_eq!(world.github.count("GET", LIST), 1);
}

#[test]
fn a_prefix_of_the_call_stands_before_the_one_of_the_file() {
    let world = with_environment("live/us-east", vec![]);
    let run = world.run(["environments", "--environment-prefix", "live/"]);
    run.is(12, "refused unprotected")
        .says(&["`live/us-east` is unprotected"]);
    // A workflow whose jobs name environments without a prefix passes an empty one.
    let mut command = world.command(&world.github.url());
    command
        .arg("environments")
        .env("REGIONWISE_ENVIRONMENT_PREFIX", "");
    crate::world::Run::of(command)
        .is(12, "refused unprotected")
        .says(&["`us-east` is missing"]);
    // The slash of the name ends no part of the path.
    assert!(
        world.github.count(
            "GET",
            "/environments/live/us-east/deployment_protection_rules"
        ) == 1
    );
}

#[test]
fn an_enterprise_server_is_asked_below_its_path() {
    let world = World::below("/api/v3");
    world.github.repository(|repository| {
        let environment = Environment::new("production-us-east", vec![reviewers()]);
        repository.environments.push(environment);
    });
    world.run(["environments"]).is(0, "proceed protected");
    assert_eq!(
        world.github.seen()[0].path,
        "/api/v3/repos/our-org/regionwise/environments"
    );
}

#[test]
fn what_is_wrong_around_the_run_is_named_before_anybody_is_asked() {
    let world = with_environment("production-us-east", vec![reviewers()]);
    for (name, value, text) in [
        ("GITHUB_TOKEN", "", "`GITHUB_TOKEN` is not set"),
        ("GITHUB_API_URL", "", "`GITHUB_API_URL` is not set"),
        (
            "GITHUB_API_URL",
            "http://api.github.example",
            "in the clear",
        ),
        ("GITHUB_API_URL", "api.github.com", "is no URL"),
        ("GITHUB_REPOSITORY", "regionwise", "no repository"),
        ("GITHUB_REPOSITORY", "our-org/../x", "no repository"),
    ] {
        let mut command = world.command(&world.github.url());
        command.arg("environments").env(name, value);
        crate::world::Run::of(command)
            .is(2, "invalid -")
            .says(&[text]);
    }
    assert_eq!(world.github.seen().len(), 0);
}

#[test]
fn a_token_may_stand_in_a_file_with_a_line_break() {
    let world = with_environment("production-us-east", vec![reviewers()]);
    let file = world.path("token");
    std::fs::write(&file, format!("{}\n", crate::world::TOKEN)).unwrap();
    let mut command = world.command(&world.github.url());
    command
        .args(["environments", "--github-token-file"])
        .arg(&file)
        .env_remove("GITHUB_TOKEN");
    crate::world::Run::of(command).is(0, "proceed protected");
}
