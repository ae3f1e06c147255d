//! Whether what was set up answers, and where a server differs from what a set-up would make of it.

use std::fs;

use crate::world::{Run, World};

const SERVER: &str = "shop-sin-1";

/// One host behind a load balancer, set up; no release serves there yet.
fn set_up() -> World {
    let world = World::new();
    world.booted("ap-singapore", &["database = ", "redis = "]);
    let made = run(&world).ends(0);
    let yet = "set up; no release serves there yet";
    assert!(made.summary().contains(yet), "{}", made.json);
    world
}

fn run(world: &World) -> Run {
    Run::of(&mut world.setting_up(&["--region", "ap-singapore"]))
}

/// Compares, which must write nothing anywhere.
fn drift(world: &World) -> Run {
    let before = (world.hetzner.writes(), world.file());
    let _ = fs::remove_file(world.path("did"));
    let args = ["drift", "--region", "ap-singapore", "--servers"];
    let seen = Run::of(&mut world.setting_up(&args));
    assert_eq!((world.hetzner.writes(), world.file()), before);
    let did = fs::read_to_string(world.path("did")).unwrap_or_default();
    assert!(!did.contains("changed"), "{did}");
    seen
}

fn says_of_itself(world: &World, name: &str, text: &str) {
    fs::write(world.machine(SERVER).join(name), text).unwrap();
}

#[test]
fn a_region_is_healthy_when_its_hosts_answer_and_the_load_balancer_finds_them_healthy() {
    let world = set_up();
    says_of_itself(&world, "answers", "release");
    let healthy = run(&world).ends(0);
    let summary = healthy.summary();
    assert!(summary.contains("its parts are healthy"), "{summary}");

    let id = world.hetzner.servers()[0].id;
    let finds = |health| {
        world.hetzner.project(|project| {
            let balancer = &mut project.load_balancers[0];
            balancer.health.insert(id, health);
        });
    };
    // What it says with another word is not healthy either.
    for health in ["unhealthy", "unknown", "somehow"] {
        finds(health);
        let alone = run(&world).ends(10);
        alone.because("load-balancer");
        let why = "does not find sin-1 healthy";
        assert!(alone.summary().contains(why), "{}", alone.json);
    }
    finds("healthy");
    run(&world).ends(0);

    says_of_itself(&world, "answers", "no HTTP/1.1 503 Service Unavailable");
    for mute in [run(&world), drift(&world)] {
        let mute = mute.ends(10);
        mute.because("no-answer");
        let why = "answered with: HTTP/1.1 503 Service Unavailable";
        assert!(mute.summary().contains(why), "{}", mute.json);
    }
}

#[test]
fn a_host_without_a_release_beside_one_that_serves_is_named_and_the_load_balancer_is_asked_for_the_other()
 {
    let world = World::new();
    world.change(
        "hosts = { sin-1 = {} }",
        "hosts = { sin-1 = {}, sin-2 = {} }",
    );
    world.booted("ap-singapore", &["database = ", "redis = "]);
    run(&world).ends(0);
    says_of_itself(&world, "answers", "release");
    let some = run(&world).ends(0);
    let why = "no release serves on sin-2 yet: deploy the region again";
    assert!(some.summary().contains(why), "{}", some.json);
    let id = world
        .hetzner
        .servers()
        .iter()
        .find(|known| known.name == SERVER)
        .unwrap()
        .id;
    world.hetzner.project(|project| {
        project.load_balancers[0].health.insert(id, "unhealthy");
    });
    run(&world).ends(10).because("load-balancer");
}

#[test]
fn a_server_that_nobody_has_set_up_is_not_said_to_be_as_it_should_be() {
    let world = World::new();
    world.booted("ap-singapore", &["database = ", "redis = "]);
    let unmet = drift(&world).ends(10);
    unmet.because("never-set-up");
    assert!(
        unmet.summary().contains("`sin-1` was not asked"),
        "{}",
        unmet.json
    );
}

#[test]
fn a_server_that_differs_is_named_with_its_steps_and_nothing_is_changed() {
    let world = set_up();
    let differs = drift(&world).ends(10);
    differs.because("drift");
    assert!(
        differs
            .summary()
            .contains("1 step would change something on its servers"),
        "{}",
        differs.json
    );
    let steps = differs.json["result"]["servers"].as_array().unwrap();
    let found = steps.iter().any(|step| {
        step["server"] == "sin-1" && step["step"] == "packages" && step["state"] == "would"
    });
    assert!(found, "{}", differs.json);

    says_of_itself(&world, "as-it-was", "");
    let same = drift(&world).ends(0);
    let summary = same.summary();
    assert!(
        summary.contains("Its servers are as a set-up would make them."),
        "{summary}"
    );

    fs::rename(world.machine(SERVER), world.path("off")).unwrap();
    let unseen = drift(&world).ends(20);
    unseen.because("no-login");
    let summary = unseen.summary();
    assert!(summary.contains("Not all of it was seen"), "{summary}");
}

#[test]
fn a_look_without_servers_logs_in_nowhere_and_one_with_them_wants_what_a_set_up_wants() {
    let world = set_up();
    let logins = world.logins();
    let args = ["drift", "--region", "ap-singapore"];
    Run::of(&mut world.setting_up(&args)).ends(0);
    assert_eq!(world.logins(), logins);
    let args = [&args[..], &["--servers"]].concat();
    let mut command = world.setting_up(&args);
    command.env_remove("REGIONWISE_ENV_FILE");
    let invalid = Run::of(&mut command).ends(2);
    assert!(invalid.hints().contains("--env-file"), "{}", invalid.json);
}
