//! What a run says of backups, what it refuses, and where their secrets go.

use std::fs;
use std::process::Command;

use crate::world::{Run, World};

const SECRETS: [(&str, &str); 3] = [
    ("BACKUP_KEY", "AKIAOFTHELAB"),
    ("BACKUP_SECRET", "swordfish-of-the-store"),
    ("BACKUP_PASSPHRASE", "swordfish-of-the-backup"),
];
const DATABASE: &str =
    "database = { types = [\"cpx32\", \"cpx31\"], volume_gb = 200, app = \"env:SHOP_DSN\" }";

/// The US has a backup, in a store of its own; the EU has none.
fn world() -> World {
    let world = World::new();
    world.change("load_balancer = { types = [\"lb11\"] }\n", "");
    world.change(
        "volume_gb = 200 }",
        "volume_gb = 200, app = \"env:SHOP_DSN\" }",
    );
    let backup = format!(
        "{DATABASE}\nbackup.us = {{ endpoint = \"https://s3.example:9000\", bucket = \"shop-us\", location = \"ash\", \
         key = \"env:BACKUP_KEY\", secret = \"env:BACKUP_SECRET\", passphrase = \"env:BACKUP_PASSPHRASE\", ca = \"s3.pem\" }}"
    );
    world.change(DATABASE, &backup);
    let authority = "-----BEGIN CERTIFICATE-----\nOFTHESTORE\n-----END CERTIFICATE-----\n";
    fs::write(world.path("s3.pem"), authority).unwrap();
    world.pack();
    world
}

fn setting_up(world: &World, region: &str) -> Command {
    let mut command = world.setting_up(&["--region", region, "--boot-within", "1s"]);
    command.env("SHOP_DSN", "postgres://shop:swordfish9@127.0.0.1:6432/shop");
    command.envs(SECRETS);
    for name in ["US_PRIMARY_DSN", "US_SIN_DSN", "US_DR_DSN"] {
        command.env(name, "postgres://lag:hunter2hunter2@[fd00::1]/shop");
    }
    command
}

#[test]
fn every_plan_names_a_cluster_without_a_backup() {
    let world = world();
    let said = |args: &[&str]| world.run(args).json["findings"].to_string();
    let plan = said(&["--region", "eu-central", "--dry-run"]);
    assert!(plan.contains("cluster eu has no backup"), "{plan}");
    // The zone has a node of the US, too, and that has one.
    assert!(!plan.contains("cluster us"), "{plan}");
    let plan = said(&["--region", "us-east", "--dry-run"]);
    assert!(!plan.contains("no backup"), "{plan}");
    let ordered = said(&["--region", "eu-central"]);
    assert!(ordered.contains("cluster eu has no backup"), "{ordered}");
    let drift = said(&["drift", "--region", "eu-central"]);
    assert!(drift.contains("cluster eu has no backup"), "{drift}");
}

#[test]
fn what_a_backup_needs_is_looked_at_before_anything_is_ordered() {
    for (name, value, why) in [
        ("BACKUP_KEY", None, "BACKUP_KEY"),
        (
            "BACKUP_SECRET",
            Some("two words"),
            "printable ASCII without spaces",
        ),
        (
            "BACKUP_PASSPHRASE",
            Some("guess"),
            "shorter than 16 characters",
        ),
    ] {
        let world = world();
        let mut command = setting_up(&world, "us-east");
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
        let run = Run::of(&mut command).ends(2);
        assert!(run.json.to_string().contains(why), "{}", run.json);
        assert_eq!(world.hetzner.writes(), 0, "{name}");
    }
    let world = world();
    fs::write(world.path("s3.pem"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let run = Run::of(&mut setting_up(&world, "us-east")).ends(2);
    assert!(run.summary().contains("not a certificate"), "{}", run.json);
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn a_node_gets_the_secrets_of_its_backup_beside_the_script_and_nobody_else_does() {
    let world = world();
    world.provision("us-east");
    world.boot();
    let run = Run::of(&mut setting_up(&world, "us-east")).ends(0);
    let sent = |server: &str| {
        let sent = fs::read(world.machine(server).join("sent")).unwrap();
        String::from_utf8_lossy(&sent).into_owned()
    };
    let node = sent("shop-us-primary");
    for (_, secret) in SECRETS {
        // Once, in the staged file.
        assert_eq!(node.matches(secret).count(), 1, "{secret}");
        assert!(!run.json.to_string().contains(secret), "{}", run.json);
        assert!(!run.stderr.contains(secret), "{}", run.stderr);
        for server in ["shop-us-1", "shop-us-east-redis"] {
            assert!(!sent(server).contains(secret), "{server}");
        }
        for server in world.hetzner.servers() {
            let data = server.user_data.as_deref().unwrap_or_default();
            assert!(!data.contains(secret), "{}", server.name);
        }
    }
    for words in [
        "repo1-s3-bucket=shop-us\n",
        "repo1-storage-port=9000\n",
        "OFTHESTORE",
    ] {
        assert!(node.contains(words), "{words}");
    }
}
