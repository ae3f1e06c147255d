//! `lab hetzner`: what somebody without an account sees, and that nothing of it stays.

use std::process::Command;

use regionwise_lab::processes::{Signal, pid, send, wait_for_end};

use crate::world::World;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

fn in_an_empty_project(world: &World, script: &str) -> Command {
    let mut command = Command::new(LAB);
    command
        .args(["hetzner", "--looks", "1", "--", "sh", "-c", script])
        .env("REGIONWISE_CONFIG", world.path("regions.toml"))
        .env("REGIONWISE_FORMAT", "json")
        .env("REGIONWISE_CI", "none")
        .env("REGIONWISE_SERVERS_ONLY", "true")
        .env("PROVISION", env!("CARGO_BIN_EXE_provision-region"));
    command
}

#[test]
fn a_region_is_planned_ordered_and_found_whole_without_an_account() {
    let world = World::new();
    let output = in_an_empty_project(
        &world,
        "$PROVISION --region us-east --dry-run && $PROVISION --region us-east > ordered && $PROVISION drift --region us-east > /dev/null",
    )
    .current_dir(world.path(""))
    .output()
    .unwrap();
    assert!(output.status.success(), "{output:?}");
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["result"]["cost"]["currency"], "EUR");
    let ordered = std::fs::read(world.path("ordered")).unwrap();
    let ordered: serde_json::Value = serde_json::from_slice(&ordered).unwrap();
    assert_eq!(ordered["result"]["plan"], plan["result"]["plan"]);
    assert_eq!(world.hetzner.seen().len(), 0, "another project");
}

#[test]
fn the_example_for_an_empty_account_is_ordered_as_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/from-nothing.toml");
    std::fs::copy(example, path("regions.toml")).unwrap();
    let keygen = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path("ops"))
        .status();
    assert!(keygen.unwrap().success());
    let script = "for region in us-east eu-central ap-singapore; do
        $PROVISION --region $region --servers-only --ci none && $PROVISION drift --region $region --ci none || exit
      done";
    let output = Command::new(LAB)
        .args(["hetzner", "--certificate", "shop", "--", "sh", "-c", script])
        .env("PROVISION", env!("CARGO_BIN_EXE_provision-region"))
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let written = std::fs::read_to_string(path("regions.toml")).unwrap();
    assert_eq!(written.matches("address = ").count(), 3, "{written}");
}

#[test]
fn it_ends_as_its_command_does_and_a_signal_ends_both() {
    let world = World::new();
    let ended = in_an_empty_project(&world, "exit 12").status().unwrap();
    assert_eq!(ended.code(), Some(12));

    let note = world.path("pid");
    let script = format!(
        "echo $$ > {0}.new && mv {0}.new {0}; exec sleep 60",
        note.display()
    );
    let mut lab = in_an_empty_project(&world, &script).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !note.exists() {
        assert!(std::time::Instant::now() < deadline, "it does not start");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let command = std::fs::read_to_string(&note)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(send(lab.id(), Signal::TERM).unwrap());
    wait_for_end(pid(command).unwrap(), deadline).unwrap();
    assert_eq!(lab.wait().unwrap().code(), Some(143));
}
