//! Clients that other people wrote: what they take for Hetzner's answer is one.

use std::process::Command;

use regionwise_lab::hetzner::Shape;

use crate::venv;
use crate::world::{TOKEN, World};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hetzner/clients");

#[test]
fn hetzners_own_library_makes_changes_and_deletes_a_region() {
    let world = World::new();
    // It has to wait for its actions.
    world.hetzner.project(|project| project.latency = 2);
    let bin = venv::installed("hetzner-clients", &format!("{CLIENTS}/requirements.txt"));
    let mut library = Command::new(bin.join("python3"));
    library.arg(format!("{CLIENTS}/library.py"));
    library.args([&world.hetzner.url(), TOKEN]);
    succeeds(library);
    everything_was_done(&world);
    assert!(
        world.hetzner.invalid().is_empty(),
        "{:?}",
        world.hetzner.invalid()
    );
}

#[test]
fn debians_hcloud_makes_changes_and_deletes_a_region() {
    let world = World::new();
    // It is of 2022.
    world
        .hetzner
        .project(|project| project.account.shape = Shape::OLD);
    let found = Command::new("hcloud").arg("help").output();
    assert!(
        found.is_ok(),
        "hcloud is missing: scripts/setup --tests installs it"
    );
    let mut hcloud = Command::new("bash");
    hcloud.arg(format!("{CLIENTS}/command-line.sh"));
    hcloud.env("HCLOUD_ENDPOINT", world.hetzner.url());
    hcloud.env("HCLOUD_TOKEN", TOKEN);
    // No configuration of whoever runs this.
    hcloud.env("HCLOUD_CONFIG", "/dev/null");
    succeeds(hcloud);
    everything_was_done(&world);
}

fn succeeds(mut client: Command) {
    let output = client.output().unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{complained}");
}

/// A client that skips a kind proves nothing about it.
fn everything_was_done(world: &World) {
    for (kind, count) in [
        ("servers", 2),
        ("networks", 1),
        ("firewalls", 1),
        ("volumes", 1),
        ("load_balancers", 1),
        ("primary_ips", 1),
        ("placement_groups", 1),
        ("ssh_keys", 1),
    ] {
        assert_eq!(world.hetzner.created(kind), count, "{kind}");
    }
    assert!(world.hetzner.servers().is_empty());
    world
        .hetzner
        .project(|project| assert!(project.networks.is_empty() && project.primary_ips.is_empty()));
}
