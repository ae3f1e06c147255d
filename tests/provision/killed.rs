//! A run that is killed after any request: the next one goes on where the account stands.

use std::time::Duration;

use regionwise_lab::hetzner::{Counted, Fault, Kind};
use serde_json::Value;

use crate::world::{REGIONS, World};

const LIMIT: Duration = Duration::from_secs(60);

/// What a region has when nobody was killed.
fn undisturbed(region: &str) -> (Value, usize, usize) {
    let world = World::new();
    world.provision(region);
    let (counts, twice) = world.count();
    assert!(twice.is_empty(), "{twice:?}");
    (counts, world.hetzner.writes(), world.hetzner.seen().len())
}

fn kill_after_every_write(region: &str) {
    let (counts, writes, _) = undisturbed(region);
    assert!(writes >= 14, "{writes} writes");
    for n in 1..=writes {
        let world = World::new();
        let held = world.hetzner.hold_after(n, Counted::Writes);
        let mut child = world.spawn(&["--region", region]);
        let seen = held.reached(LIMIT).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(held);
        let run = world.run(&["--region", region]);
        assert_eq!(
            run.code, 0,
            "killed after {n}, {} {}: {}",
            seen.method, seen.path, run.json
        );
        let (found, twice) = world.count();
        assert_eq!(
            found, counts,
            "killed after {n}, {} {}",
            seen.method, seen.path
        );
        assert!(twice.is_empty(), "killed after {n}: {twice:?}");
        let before = world.hetzner.writes();
        world.provision(region);
        assert_eq!(
            world.hetzner.writes(),
            before,
            "killed after {n}: the third run wrote"
        );
    }
}

/// As [`kill_after_every_write`], and after every request, of three regions that come one after the other.
#[test]
#[ignore = "torture: four minutes"]
fn three_regions_killed_after_every_request_converge_with_nothing_twice_and_nothing_left_over() {
    let undisturbed = World::new();
    for region in REGIONS {
        undisturbed.provision(region);
    }
    let (counts, _) = undisturbed.count();
    let requests = undisturbed.hetzner.seen().len();
    assert!(requests >= 100, "{requests} requests");
    for n in 1..=requests {
        let world = World::new();
        let held = world.hetzner.hold_after(n, Counted::Requests);
        let seen = REGIONS.iter().find_map(|region| {
            let mut child = world.spawn(&["--region", region]);
            loop {
                if let Ok(seen) = held.reached(Duration::from_millis(5)) {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    return Some(seen);
                }
                if child.try_wait().unwrap().is_some() {
                    return None;
                }
            }
        });
        drop(held);
        let seen = seen.unwrap();
        let why = format!("killed after {n}, {} {}", seen.method, seen.path);
        for region in REGIONS {
            let run = world.run(&["--region", region]);
            assert_eq!(run.code, 0, "{why}, {region}: {}", run.json);
        }
        let (found, twice) = world.count();
        assert_eq!(found, counts, "{why}");
        assert!(twice.is_empty(), "{why}: {twice:?}");
        let before = world.hetzner.writes();
        for region in REGIONS {
            world.provision(region);
        }
        assert_eq!(world.hetzner.writes(), before, "{why}: the third run wrote");
    }
    println!("killed after each of {requests} requests");
}

#[test]
fn singapore_killed_after_every_write_converges_with_nothing_twice_and_nothing_left_over() {
    kill_after_every_write(REGIONS[0]);
}

#[test]
fn the_eu_killed_after_every_write_converges_with_nothing_twice_and_nothing_left_over() {
    kill_after_every_write(REGIONS[1]);
}

#[test]
fn the_us_killed_after_every_write_converges_with_nothing_twice_and_nothing_left_over() {
    kill_after_every_write(REGIONS[2]);
}

#[test]
fn a_look_that_is_killed_anywhere_has_changed_nothing() {
    let region = REGIONS[0];
    let (_, writes, requests) = undisturbed(region);
    for n in 1..requests - writes {
        let world = World::new();
        let held = world.hetzner.hold_after(n, Counted::Requests);
        let mut child = world.spawn(&["--region", region, "--dry-run"]);
        // A dry run has fewer requests than a run.
        let reached = held.reached(Duration::from_secs(2)).is_ok();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(held);
        assert_eq!(world.hetzner.writes(), 0);
        if !reached {
            assert!(n > 10, "a dry run of {n} requests looks at too little");
            return;
        }
    }
}

#[test]
fn two_runs_at_once_make_one_region() {
    let world = World::new();
    let mut both = [0, 1].map(|_| world.spawn(&["--region", REGIONS[0]]));
    for child in &mut both {
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 10)), "{code:?}");
    }
    world.provision(REGIONS[0]);
    let (counts, twice) = world.count();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(counts, undisturbed(REGIONS[0]).0);
}

#[test]
fn a_run_that_is_slow_and_not_dead_leaves_one_network_with_the_run_that_took_over() {
    let world = World::new();
    // The first run gets its lock, and no answer about it, for as long as the second one works.
    let groups = 4;
    let held = world.hetzner.hold_after(1 + groups, Counted::Writes);
    let mut slow = world.spawn(&["--region", REGIONS[0]]);
    let seen = held.reached(LIMIT).unwrap();
    assert_eq!(seen.body["name"], "shop-net-ap-southeast", "{seen:?}");
    let stop = |signal: &str| {
        let sent = std::process::Command::new("kill")
            .args([signal, &slow.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    };
    stop("-STOP");
    drop(held);
    world.provision(REGIONS[0]);
    stop("-CONT");
    slow.wait().unwrap();
    world.provision(REGIONS[0]);
    let (counts, twice) = world.count();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(counts, undisturbed(REGIONS[0]).0);
}

#[test]
fn of_two_networks_that_were_made_at_once_the_younger_one_goes_before_anything_is_in_it() {
    let world = World::new();
    world
        .hetzner
        .fail(Fault::once("POST", "/networks", Kind::TwinBefore));
    world.provision(REGIONS[0]);
    let networks = world.hetzner.project(|project| project.networks.clone());
    assert_eq!(networks.len(), 1);
    let created = world
        .hetzner
        .seen()
        .into_iter()
        .find(|seen| seen.path == "/networks" && seen.is_write());
    assert_eq!(created.unwrap().status, 201);
    for server in world.hetzner.servers() {
        assert!(
            server
                .private_nets
                .iter()
                .all(|net| net.network == networks[0].id)
        );
    }
}
