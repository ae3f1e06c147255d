//! One project for each residency: the token of the US reaches no server with EU rows.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use regionwise_lab::hetzner::Project;
use serde_json::Value;

use crate::world::{REGIONS, World};

const EU: &str = "hunter3hunter3hunter3hunter3";

fn with_a_project_for_the_eu() -> World {
    let world = World::new();
    world.change(
        "[residency.eu]",
        "[residency.eu]\ntoken = \"env:HCLOUD_TOKEN_EU\"",
    );
    world.hetzner.project_of(EU, |_| ());
    world
}

fn run(world: &World, args: &[&str]) -> Value {
    let mut command: Command = world.command(args);
    let output = command
        .env("HCLOUD_TOKEN_EU", EU)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains(EU));
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_str(&said).unwrap()
}

fn names(project: &mut Project) -> BTreeSet<String> {
    project
        .servers
        .iter()
        .map(|server| server.name.clone())
        .collect()
}

fn writes(world: &World) -> usize {
    world.hetzner.writes()
}

#[test]
fn what_holds_eu_rows_is_in_the_eus_project_and_nothing_else_is() {
    let world = with_a_project_for_the_eu();
    for region in REGIONS {
        run(&world, &["--region", region]);
    }
    let eu: Vec<String> = world.hetzner.project_of(EU, names).into_iter().collect();
    assert_eq!(
        eu,
        [
            "shop-eu-1",
            "shop-eu-2",
            "shop-eu-central-redis",
            "shop-eu-hel",
            "shop-eu-nbg",
            "shop-eu-primary",
        ]
    );
    let us: Vec<String> = world.hetzner.project(names).into_iter().collect();
    assert_eq!(
        us,
        [
            "shop-ap-singapore-redis",
            "shop-sin-1",
            "shop-us-1",
            "shop-us-2",
            // The EU's copy of US rows.
            "shop-us-dr",
            "shop-us-east-redis",
            "shop-us-primary",
            "shop-us-sin",
        ]
    );
    // Joined into one mesh they would be in each other's way.
    let ranges = |project: &mut Project| -> Vec<String> {
        project
            .networks
            .iter()
            .map(|network| network.range.to_string())
            .collect()
    };
    let mut all = world.hetzner.project(ranges);
    all.extend(world.hetzner.project_of(EU, ranges));
    assert_eq!(
        all.iter().collect::<BTreeSet<_>>().len(),
        all.len(),
        "{all:?}"
    );

    let before = writes(&world);
    for region in REGIONS {
        run(&world, &["--region", region]);
    }
    assert_eq!(writes(&world), before, "a second run writes nothing");
    assert!(world.hetzner.invalid().is_empty());
}

#[test]
fn a_region_in_two_projects_goes_from_both_and_from_nowhere_else() {
    let world = with_a_project_for_the_eu();
    for region in ["us-east", "eu-central"] {
        run(&world, &["--region", region]);
    }
    run(
        &world,
        &[
            "--region",
            "eu-central",
            "--destroy",
            "--confirm",
            "eu-central",
        ],
    );
    assert!(world.hetzner.project_of(EU, names).is_empty());
    let us: Vec<String> = world.hetzner.project(names).into_iter().collect();
    assert_eq!(
        us,
        [
            "shop-us-1",
            "shop-us-2",
            "shop-us-east-redis",
            "shop-us-primary"
        ]
    );
}

#[test]
fn a_token_that_opens_no_project_changes_nothing_in_the_other_one() {
    let world = with_a_project_for_the_eu();
    let mut command = world.command(&["--region", "eu-central"]);
    let output = command
        .env("HCLOUD_TOKEN_EU", "of-nobody-of-nobody-of-nobody")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(writes(&world), 0);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("HCLOUD_TOKEN_EU"),
        "it says which token: {said}"
    );
}
