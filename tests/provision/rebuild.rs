//! `--rebuild`: a server is installed anew, and is born with a host key of its own again.

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use regionwise_lab::hetzner::{Counted, Fault, Kind};

use crate::first_session::{REGION, SERVER, is_settled, ordered, run};
use crate::world::{Run, World};

const REBUILD: [&str; 4] = ["--rebuild", "sin-1", "--confirm", "sin-1"];
const LIMIT: Duration = Duration::from_secs(60);

fn user_data(world: &World) -> String {
    let servers = world.hetzner.servers();
    let found = servers.iter().find(|known| known.name == SERVER);
    found.unwrap().user_data.clone().unwrap()
}

/// A run that rebuilds, of a server that shows nothing any more.
fn begin(world: &World) -> Child {
    fs::remove_dir_all(world.machine(SERVER)).unwrap();
    let args: Vec<&str> = REGION.iter().chain(&REBUILD).copied().collect();
    let mut command = world.setting_up(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The server boots once it was rebuilt.
fn boot_after(world: &World, before: &str) {
    let deadline = Instant::now() + LIMIT;
    while user_data(world) == before {
        assert!(Instant::now() < deadline, "it was not rebuilt");
        thread::sleep(Duration::from_millis(10));
    }
    world.boot();
}

#[test]
fn a_rebuilt_server_is_born_with_fresh_user_data_and_shows_a_key_that_never_left_it() {
    let world = ordered();
    run(&world, &[]).ends(0);
    let (before, key) = (user_data(&world), world.shown(SERVER));
    let (address, id) = (world.address_of(SERVER), world.hetzner.servers()[0].id);
    let rebuilding = begin(&world);
    boot_after(&world, &before);
    let birth = world.shown(SERVER);
    let output = rebuilding.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("1 rebuilt"), "{said}");
    assert_ne!(world.shown(SERVER), key);
    assert_eq!(
        (world.address_of(SERVER), world.hetzner.servers()[0].id),
        (address, id)
    );
    is_settled(&world, &birth, "rebuilt");
    // The next run has nothing to do.
    let writes = world.hetzner.writes();
    run(&world, &[]).ends(0);
    assert_eq!(world.hetzner.writes(), writes);
    assert!(world.hetzner.invalid().is_empty());
}

#[test]
fn killed_before_the_rebuild_it_stays_as_it_was_and_killed_after_it_the_next_run_goes_on() {
    // The label of the new key, then the rebuild.
    for n in 1..=2 {
        let world = ordered();
        run(&world, &[]).ends(0);
        let (before, key) = (user_data(&world), world.shown(SERVER));
        let machine = world.machine(SERVER);
        let aside = world.path("aside");
        let held = world.hetzner.hold_after(n, Counted::Writes);
        fs::rename(&machine, &aside).unwrap();
        fs::create_dir(&machine).unwrap();
        let mut rebuilding = begin(&world);
        held.reached(LIMIT).unwrap();
        rebuilding.kill().unwrap();
        rebuilding.wait().unwrap();
        drop(held);
        if n == 1 {
            assert_eq!(user_data(&world), before);
            fs::rename(&aside, &machine).unwrap();
            run(&world, &[]).ends(0);
            assert_eq!(world.shown(SERVER), key);
            is_settled(&world, "another key", "killed before the rebuild");
        } else {
            boot_after(&world, &before);
            let birth = world.shown(SERVER);
            fs::remove_file(world.path("known_hosts")).unwrap();
            run(&world, &[]).ends(0);
            is_settled(&world, &birth, "killed after the rebuild");
        }
    }
}

#[test]
fn what_was_not_said_twice_or_is_protected_or_is_no_server_is_not_rebuilt() {
    let world = ordered();
    run(&world, &[]).ends(0);
    let writes = world.hetzner.writes();
    let refused = run(&world, &["--rebuild", "sin-1"]).ends(12);
    refused.because("unconfirmed");
    let text = refused.json.to_string();
    assert!(text.contains("deploy the region again"), "{text}");
    let other = run(&world, &["--rebuild", "sin-1", "--confirm", "sin-2"]).ends(12);
    other.because("unconfirmed");
    let dry: Run = run(&world, &["--rebuild", "sin-1", "--dry-run"]).ends(0);
    assert!(
        dry.hints().contains("--rebuild sin-1 --confirm sin-1"),
        "{}",
        dry.json
    );
    let unknown = run(&world, &["--rebuild", "us-1", "--confirm", "us-1"]).ends(2);
    assert!(
        unknown.hints().contains("its servers: sin-1"),
        "{}",
        unknown.json
    );
    world.hetzner.project(|project| {
        project.servers[0].protected = true;
        project.servers[0].rebuild_protected = true;
    });
    let protected = run(&world, &REBUILD).ends(12);
    protected.because("may-not-go");
    assert_eq!(world.hetzner.writes(), writes);
}

/// Ends the run, and nothing was written.
#[track_caller]
fn refused(world: &World, why: &str) {
    let writes = world.hetzner.writes();
    let refused = run(world, &REBUILD).ends(12);
    refused.because("may-not-go");
    assert!(refused.summary().contains(why), "{}", refused.json);
    assert_eq!(world.hetzner.writes(), writes);
}

#[test]
fn rows_that_the_server_has_on_its_disk_whatever_the_file_says_are_not_thrown_away() {
    let world = ordered();
    run(&world, &[]).ends(0);
    let cluster = world.machine(SERVER).join("postgresql/regionwise/15");
    fs::create_dir_all(&cluster).unwrap();
    fs::write(cluster.join("PG_VERSION"), "15\n").unwrap();
    refused(&world, "a primary has its rows on its own disk");
}

#[test]
fn a_server_before_its_first_session_and_one_that_no_set_up_would_follow_for_are_not_rebuilt() {
    let world = ordered();
    refused(&world, "it has not had its first session");
    run(&world, &[]).ends(0);
    // Somebody put it into another group: only a person may change that.
    world
        .hetzner
        .project(|project| project.servers[0].placement_group = None);
    refused(&world, "that only a person may change");
}

#[test]
fn a_rebuild_that_the_provider_refuses_leaves_the_labels_as_they_were() {
    let world = ordered();
    run(&world, &[]).ends(0);
    let labels = || world.hetzner.servers()[0].labels.clone();
    let before = labels();
    let no = Kind::Refused(422, "invalid_input");
    world
        .hetzner
        .fail(Fault::once("POST", "/actions/rebuild", no));
    let refused = run(&world, &REBUILD).ends(12);
    let nothing = "Nothing was changed";
    assert!(refused.summary().contains(nothing), "{}", refused.json);
    assert_eq!(labels(), before);

    // Nobody knows whether one whose answer is lost was done; the server shows what its labels vouch for.
    world
        .hetzner
        .fail(Fault::once("POST", "/actions/rebuild", Kind::TimeoutAfter));
    let unsure = run(&world, &REBUILD).ends(21);
    let what = "Nobody knows whether the rebuild of server `shop-sin-1` is done";
    assert!(unsure.summary().contains(what), "{}", unsure.json);
    fs::remove_dir_all(world.machine(SERVER)).unwrap();
    world.boot();
    let birth = world.shown(SERVER);
    run(&world, &[]).ends(0);
    is_settled(&world, &birth, "rebuilt without an answer");
}
