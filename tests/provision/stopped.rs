//! Bad days of the API: each has an ending of its own, and the next run goes on.

use std::time::Duration;

use regionwise_lab::hetzner::{Fault, Kind};

use crate::world::{REGIONS, World};

const REGION: &str = REGIONS[0];

/// The next run finds the account whole and makes the region whole.
fn goes_on(world: &World) {
    world.hetzner.recover();
    world.provision(REGION);
    let (_, twice) = world.count();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn a_token_that_is_none_is_said_before_anything_is_tried() {
    let world = World::new();
    world.hetzner.fail(Fault::times(
        99,
        "GET",
        "",
        Kind::Refused(401, "unauthorized"),
    ));
    let run = world.run(&["--region", REGION]).ends(2);
    assert!(run.hints().contains("read and write"), "{}", run.hints());
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn a_token_that_may_only_read_ends_at_the_first_order() {
    let world = World::new();
    world.hetzner.fail(Fault::times(
        99,
        "POST",
        "",
        Kind::Refused(403, "token_readonly"),
    ));
    world.run(&["--region", REGION]).ends(2).because("token");
    assert_eq!(world.hetzner.writes(), 1);
    goes_on(&world);
}

#[test]
fn a_limit_of_the_project_is_named() {
    let world = World::new();
    world.hetzner.fail(Fault::once(
        "POST",
        "/servers",
        Kind::LimitExceeded("server_limit"),
    ));
    let run = world.run(&["--region", REGION]).ends(10);
    run.because("limit");
    assert!(run.summary().contains("server_limit"), "{}", run.summary());
    goes_on(&world);
}

#[test]
fn a_type_that_sells_out_at_the_order_is_replaced_by_the_next_one() {
    let world = World::new();
    world.change(
        "api = { types = [\"cpx42\", \"cpx41\"] }",
        "api = { types = [\"cpx42\", \"cpx32\"] }",
    );
    world
        .hetzner
        .project(|project| project.catalogue.set_stock("cpx42", "sin", Some(0)));
    world.provision(REGION);
    let kinds = world.hetzner.project(|project| {
        let server = project
            .servers
            .iter()
            .find(|server| server.name == "shop-sin-1");
        server.unwrap().own.server_type.clone()
    });
    assert_eq!(kinds, "cpx32");
    goes_on(&world);
}

#[test]
fn a_placement_that_fails_is_tried_with_the_next_type_and_said_when_there_is_none() {
    let world = World::new();
    world.hetzner.fail(Fault::times(
        99,
        "POST",
        "/servers",
        Kind::Refused(422, "placement_error"),
    ));
    let run = world.run(&["--region", REGION]).ends(10);
    run.because("sold-out");
    goes_on(&world);
}

#[test]
fn locks_conflicts_and_limits_that_pass_are_waited_for() {
    let world = World::new();
    for (status, code) in [(423, "locked"), (409, "conflict")] {
        world.hetzner.fail(Fault::once(
            "POST",
            "/firewalls",
            Kind::Refused(status, code),
        ));
    }
    world
        .hetzner
        .fail(Fault::once("POST", "/networks", Kind::RateLimit(1)));
    for (status, path) in [(500, "/servers"), (503, "/networks"), (502, "/pricing")] {
        world
            .hetzner
            .fail(Fault::once("GET", path, Kind::GatewayBefore(status)));
    }
    world.provision(REGION);
    goes_on(&world);
}

#[test]
fn a_nearly_used_up_rate_limit_slows_a_run_down_and_costs_no_patience() {
    let world = World::new();
    world.hetzner.limit(20, Duration::from_millis(30));
    world.run(&["--region", REGION, "--patience", "0s"]).ends(0);
    let seen = world.hetzner.seen();
    assert!(seen.len() > 30, "{} requests", seen.len());
    let refused = seen.iter().filter(|seen| seen.status == 429);
    assert_eq!(refused.count(), 0);
}

#[test]
fn a_lock_that_does_not_pass_ends_after_the_patience_that_was_given() {
    let world = World::new();
    world.hetzner.fail(Fault::times(
        99,
        "POST",
        "/firewalls",
        Kind::Refused(423, "locked"),
    ));
    world
        .run(&["--region", REGION, "--patience", "2s"])
        .ends(10)
        .because("busy");
    goes_on(&world);
}

#[test]
fn an_order_whose_answer_is_lost_is_looked_for_and_not_sent_again() {
    for lost in [Kind::TimeoutAfter, Kind::CutAfter] {
        for path in [
            "/ssh_keys",
            "/placement_groups",
            "/networks",
            "/firewalls",
            "/servers",
            "/volumes",
            "/load_balancers",
        ] {
            let world = World::new();
            world.hetzner.fail(Fault::once("POST", path, lost.clone()));
            world.provision(REGION);
            let (_, twice) = world.count();
            assert!(twice.is_empty(), "{path} {lost:?}: {twice:?}");
            let there = world
                .hetzner
                .project(|project| project.load_balancers.len());
            assert_eq!(there, 1, "{path} {lost:?}");
        }
    }
}

#[test]
fn an_action_that_fails_is_said_with_its_code() {
    let world = World::new();
    world.hetzner.fail(Fault::once(
        "POST",
        "/servers",
        Kind::ActionFails("internal_error"),
    ));
    let run = world.run(&["--region", REGION]).ends(10);
    run.because("action-failed");
    assert!(
        run.summary().contains("internal_error"),
        "{}",
        run.summary()
    );
}

#[test]
fn an_action_that_never_ends_is_not_waited_for_for_ever() {
    let world = World::new();
    world.hetzner.fail(Fault::once(
        "POST",
        "/load_balancers",
        Kind::ActionNeverEnds,
    ));
    let run = world
        .run(&["--region", REGION, "--actions-within", "1s"])
        .ends(10);
    run.because("action-failed");
    assert!(
        run.summary().contains("do not end within 1 s"),
        "{}",
        run.summary()
    );
}

#[test]
fn answers_with_keys_missing_unknown_words_and_no_totals_are_read() {
    let world = World::new();
    world.hetzner.fail(Fault::once(
        "GET",
        "/server_types",
        Kind::Missing("architecture"),
    ));
    world
        .hetzner
        .fail(Fault::once("GET", "/locations", Kind::Missing("city")));
    world.hetzner.fail(Fault::times(
        99,
        "POST",
        "/servers",
        Kind::Unknown("os_flavor", "haiku"),
    ));
    world
        .hetzner
        .fail(Fault::times(99, "GET", "/firewalls", Kind::NullTotals));
    world.provision(REGION);
    goes_on(&world);
}

#[test]
fn the_shape_of_june_is_read_as_well_as_that_of_november() {
    let world = World::new();
    world
        .hetzner
        .project(|project| project.account.shape = regionwise_lab::hetzner::Shape::OLD);
    world.provision(REGION);
    goes_on(&world);
}

#[test]
fn pages_that_do_not_end_end_the_look() {
    let world = World::new();
    world
        .hetzner
        .fail(Fault::times(9999, "GET", "/networks", Kind::EndlessPages));
    let run = world.run(&["--region", REGION]).ends(20);
    assert!(run.summary().contains("cannot see"), "{}", run.summary());
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn an_api_that_nobody_reaches_has_changed_nothing() {
    let world = World::new();
    let mut command = world.command(&[
        "--region",
        REGION,
        "--patience",
        "1s",
        "--endpoint",
        "http://127.0.0.1:1/v1",
    ]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(20));
}

#[test]
fn a_signal_ends_between_two_orders_and_the_next_run_goes_on() {
    let world = World::new();
    world.hetzner.project(|project| project.latency = 50);
    let child = world.spawn(&["--region", REGION]);
    let begun = std::time::Instant::now();
    while world.hetzner.created("servers") == 0 {
        assert!(begun.elapsed().as_secs() < 30);
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    goes_on(&world);
}

#[test]
fn a_signal_ends_a_wait_for_a_lock_that_would_last_for_minutes() {
    let world = World::new();
    let locked = || Kind::Refused(423, "locked");
    world
        .hetzner
        .fail(Fault::times(99, "POST", "/firewalls", locked()));
    let child = world.spawn(&["--region", REGION, "--patience", "10m"]);
    let begun = std::time::Instant::now();
    // After 0.5, 1 and 2 s it is asked again; the next wait takes 4 s, and the ones after it longer.
    while world.hetzner.count("POST", "/firewalls") < 4 {
        assert!(begun.elapsed().as_secs() < 30);
        std::thread::sleep(Duration::from_millis(10));
    }
    let asked = std::time::Instant::now();
    let status = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
    goes_on(&world);
}

#[test]
fn an_api_that_goes_away_after_an_order_was_sent_is_no_proof_that_nothing_was_changed() {
    let world = World::new();
    world
        .hetzner
        .fail(Fault::once("POST", "/ssh_keys", Kind::CutAfter));
    // The look for it fails, too; the first look of the run does not.
    world.hetzner.fail(Fault::after(
        1,
        999,
        "GET",
        "/ssh_keys",
        Kind::GatewayBefore(502),
    ));
    let run = world
        .run(&["--region", REGION, "--patience", "1s"])
        .ends(21);
    assert!(
        !run.summary().contains("Nothing was changed"),
        "{}",
        run.summary()
    );
    assert!(run.json["result"].get("changed").is_none(), "{}", run.json);
    goes_on(&world);
}

#[test]
fn a_mend_whose_answer_is_lost_is_unknown_and_the_next_run_sees_what_became_of_it() {
    let world = World::new();
    world.provision(REGION);
    world.change("198.51.100.7/32", "198.51.100.8/32");
    world.hetzner.fail(Fault::once(
        "POST",
        "/actions/set_rules",
        Kind::TimeoutAfter,
    ));
    let run = world.run(&["--region", REGION]).ends(21);
    assert!(run.summary().contains("Nobody knows"), "{}", run.summary());
    goes_on(&world);
}

#[test]
fn a_server_that_is_off_is_said_at_once() {
    let world = World::new();
    world.provision(REGION);
    let id = world.hetzner.servers()[0].id;
    let path = format!("/servers/{id}/actions/poweroff");
    world
        .hetzner
        .project(|project| project.elsewhere("POST", &path, &serde_json::json!({})));
    let run = world.run(&["--region", REGION]).ends(10);
    assert!(run.summary().contains("is off"), "{}", run.summary());
}

#[test]
fn an_order_that_was_found_after_its_answer_was_lost_counts_as_a_change() {
    let world = World::new();
    world
        .hetzner
        .fail(Fault::once("POST", "/ssh_keys", Kind::TimeoutAfter));
    world.hetzner.fail(Fault::times(
        99,
        "POST",
        "/placement_groups",
        Kind::LimitExceeded("placement_group_limit"),
    ));
    let run = world.run(&["--region", REGION]).ends(10);
    assert_eq!(run.json["result"]["changed"], true, "{}", run.json);
    goes_on(&world);
}

#[test]
fn a_put_whose_answer_was_lost_stays_unknown_when_the_api_then_goes_away() {
    let world = World::new();
    world.provision(REGION);
    let id = world.hetzner.project(|project| {
        let ip = project
            .primary_ips
            .iter_mut()
            .find(|ip| ip.name == "shop-sin-1-ipv4")
            .unwrap();
        ip.name = "primary_ip-1".to_owned();
        ip.id
    });
    let path: &'static str = Box::leak(format!("/primary_ips/{id}").into_boxed_str());
    world
        .hetzner
        .fail(Fault::once("PUT", path, Kind::TimeoutAfter));
    world
        .hetzner
        .fail(Fault::times(999, "PUT", path, Kind::GatewayBefore(502)));
    let run = world
        .run(&["--region", REGION, "--patience", "2s"])
        .ends(21);
    assert!(
        !run.summary().contains("Nothing was changed"),
        "{}",
        run.summary()
    );
    goes_on(&world);
}
