//! What is refused or said before money is spent or data go.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::world::{Run, World};

#[test]
fn what_the_set_up_needs_is_read_before_anything_is_ordered() {
    let world = World::new();
    for name in ["deploy", "other"] {
        let keygen = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(world.path(name))
            .status();
        assert!(keygen.unwrap().success());
    }
    world.change("identity = \"file:key\"", "identity = \"file:deploy\"");
    let write = |name: &str, text: &str| fs::write(world.path(name), text).unwrap();
    write("right.env", "# fine\n\nPASSWORD=a=b\n");
    write("wrong.env", "PASSWORD=hidden-1\nhidden-2 is no name\n");
    let path = |name: &str| world.path(name).display().to_string();
    let ours = Path::new(env!("CARGO_BIN_EXE_region-host"));
    let mut elf = fs::read(ours).unwrap();
    // e_machine: EM_AARCH64.
    elf[18] = 183;
    let arm = world.path("region-host-arm");
    fs::write(&arm, elf).unwrap();
    for (env, key, region_host, says) in [
        ("wrong.env", "root", ours, "line 2 of"),
        ("right.env", "nobody", ours, "cannot read root's key"),
        ("right.env", "other", ours, "is none of provision.root_keys"),
        (
            "right.env",
            "root",
            &arm,
            "is x86, and region-host was built for arm",
        ),
    ] {
        let words = [
            "--region",
            "us-east",
            "--env-file",
            &path(env),
            "--root-key",
            &path(key),
            "--region-host",
            region_host.to_str().unwrap(),
        ];
        let mut command = world.command(&words);
        for name in ["US_PRIMARY_DSN", "US_SIN_DSN", "US_DR_DSN"] {
            command.env(name, "host=somewhere");
        }
        let run = Run::of(command.env("REGIONWISE_SERVERS_ONLY", "false")).ends(2);
        assert!(run.summary().contains(says), "{}", run.json);
        assert!(!run.json.to_string().contains("hidden"));
    }
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn every_secret_that_is_missing_is_named_at_once() {
    let world = World::new();
    world.change("identity = \"file:key\"", "identity = \"env:NO_KEY\"");
    let mut command = world.command(&["--region", "us-east", "--env-file", "any.env"]);
    command
        .env("REGIONWISE_SERVERS_ONLY", "false")
        .env("US_SIN_DSN", "host=us-sin");
    let run = Run::of(&mut command).ends(2);
    assert_eq!(
        run.summary(),
        "these environment variables are not set: `NO_KEY`, `US_DR_DSN`, `US_PRIMARY_DSN`"
    );
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn an_address_of_a_server_that_is_gone_is_refused_before_another_one_is_ordered() {
    let world = World::new();
    world.provision("us-east");
    let run = world.destroy("us-east");
    assert!(
        run.hints().contains("take the `address` of us-1, us-2"),
        "{}",
        run.hints()
    );
    let before = world.hetzner.writes();
    for words in [
        &["--region", "us-east", "--servers-only"][..],
        &["--region", "us-east", "--dry-run"],
    ] {
        let run = world.run(words).ends(12);
        run.because("address-lost");
        assert!(run.summary().contains("us-1 (203.0.113."), "{}", run.json);
    }
    assert_eq!(world.hetzner.writes(), before);
}

#[test]
fn who_takes_a_primary_away_is_told_which_regions_it_serves() {
    let world = World::new();
    world.provision("us-east");
    let run = world.run(&["--region", "us-east", "--destroy"]).ends(12);
    let said = run.json["findings"].to_string();
    assert!(
        said.contains("the primary `us-primary` of cluster `us`"),
        "{said}"
    );
    assert!(
        said.contains("ap-singapore would lose its writer"),
        "{said}"
    );
    let run = world
        .run(&[
            "--region",
            "us-east",
            "--destroy",
            "--confirm",
            "eu-central",
        ])
        .ends(12);
    assert!(
        run.summary().starts_with("`eu-central` is not"),
        "{}",
        run.json
    );
}

#[test]
fn drift_names_the_servers_that_nobody_has_set_up() {
    let world = World::new();
    world.provision("us-east");
    let run = world.run(&["drift", "--region", "us-east"]).ends(0);
    let said = run.json["findings"].to_string();
    assert!(said.contains("never set up: shop-us-1"), "{said}");
}

#[test]
fn an_upgrade_of_no_host_is_no_success() {
    let world = World::new();
    for words in [&["upgrade"][..], &["upgrade", "--region", "us-east"]] {
        let run = world.run(words).ends(2);
        assert!(run.summary().contains("has an address yet"), "{}", run.json);
    }
}
