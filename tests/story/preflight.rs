//! preflight names everything in the way at once, changes nothing, and never passes what it could not look at.

use std::fs;

use regionwise_lab::Options;
use serde_json::Value;

use crate::world::World;

const PREFLIGHT: &str = env!("CARGO_BIN_EXE_preflight");

fn obstacles(json: &Value) -> Vec<String> {
    let list = json["result"]["obstacles"].as_array().unwrap();
    let word = |found: &Value, field: &str| found[field].as_str().unwrap().to_owned();
    list.iter()
        .map(|f| {
            format!(
                "{} {} {}: {}",
                word(f, "place"),
                word(f, "part"),
                word(f, "verdict"),
                word(f, "text")
            )
        })
        .collect()
}

#[track_caller]
fn holds(obstacles: &[String], parts: &[&str]) {
    let found = obstacles
        .iter()
        .any(|obstacle| parts.iter().all(|part| obstacle.contains(part)));
    assert!(found, "no obstacle with {parts:?} in {obstacles:#?}");
}

#[test]
fn a_healthy_world_is_clear_and_says_the_order_of_the_rollout() {
    let world = World::with_v1();
    let outputs = world.work.path().join("outputs");
    let v2 = world.release("v2", &[]);
    let mut preflight = world.binary(PREFLIGHT);
    preflight
        .arg("--release")
        .arg(&v2)
        .arg("--outputs")
        .arg(&outputs);
    assert!(preflight.status().unwrap().success());
    let said = fs::read_to_string(&outputs).unwrap();
    assert!(
        said.contains("verdict=proceed\n") && said.contains("release=v2\n"),
        "{said}"
    );
    assert!(
        said.contains("regions=ap-singapore eu-central us-east\n"),
        "{said}"
    );

    // The databases: a wrong password, a primary that is called a standby, and one that does not answer, all at once.
    let mut preflight = world.binary(PREFLIGHT);
    preflight
        .args(["--format", "json"])
        .arg("--release")
        .arg(&v2);
    let dsn = |name: &str| world.lab.env()[name].clone();
    preflight.env(
        "LAB_EU_NBG_DSN",
        dsn("LAB_EU_NBG_DSN").replacen("regionwise_lag:", "regionwise_lag:wrong", 1),
    );
    preflight.env("LAB_US_SIN_DSN", dsn("LAB_US_PRIMARY_DSN"));
    preflight.env(
        "LAB_US_DR_DSN",
        "postgres://regionwise_lag:x@127.0.0.1:1/shop",
    );
    preflight.env_remove("LAB_EU_HEL_DSN");
    let output = preflight.output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = obstacles(&json);
    holds(&found, &["eu eu-nbg invalid", "login refused"]);
    holds(&found, &["us us-sin refused", "it is a primary"]);
    holds(&found, &["us us-dr pause", "refused by"]);
    holds(
        &found,
        &["eu eu-hel invalid", "`LAB_EU_HEL_DSN` is not set"],
    );
    assert_eq!(
        (found.len(), output.status.code()),
        (4, Some(12)),
        "{found:#?}"
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let secret = dsn("LAB_EU_NBG_DSN");
    let password = secret.split([':', '@']).nth(2).unwrap();
    assert!(!text.contains(password), "a password in the report");
}

#[test]
fn hosts_that_cannot_take_the_release_are_all_named_and_none_is_changed() {
    let world = World::new(Options::hosts(env!("CARGO_BIN_EXE_lab")));
    let v1 = world.release("v1", &[]);
    let release = v1.to_str().unwrap();
    let look = |config: &std::path::Path| {
        let mut preflight = world.binary(PREFLIGHT);
        preflight
            .args(["--format", "json", "--skip-databases", "--release", release])
            .arg("--config")
            .arg(config);
        let output = preflight.output().unwrap();
        (
            output.status.code(),
            serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        )
    };
    assert_eq!(look(&world.config).0, Some(0));

    // A wrong host key on one host, a region out of reach, an HAProxy that is gone.
    let known = fs::read_to_string(world.config.with_file_name("known_hosts")).unwrap();
    let keys: Vec<&str> = known.lines().collect();
    let us_1 = world.lab.address("us-1/ssh").unwrap();
    let swapped: String = keys
        .iter()
        .map(|line| {
            let (host, key) = line.split_once(' ').unwrap();
            let other = keys
                .iter()
                .find(|line| !line.starts_with(host))
                .unwrap()
                .split_once(' ')
                .unwrap()
                .1;
            let key = if host == format!("[{}]:{}", us_1.ip(), us_1.port()) {
                other
            } else {
                key
            };
            format!("{host} {key}\n")
        })
        .collect();
    let wrong_keys = world.config.with_file_name("wrong_keys");
    fs::write(&wrong_keys, swapped).unwrap();
    let config = world.config.with_file_name("wrong.toml");
    let text = fs::read_to_string(&world.config).unwrap();
    fs::write(&config, text.replace("\"known_hosts\"", "\"wrong_keys\"")).unwrap();
    world
        .lab
        .process("sin-1/sshd", regionwise_lab::control::ProcessAction::Kill)
        .unwrap();
    world
        .lab
        .process("eu-1/haproxy", regionwise_lab::control::ProcessAction::Kill)
        .unwrap();

    let (code, json) = look(&config);
    let found = obstacles(&json);
    holds(&found, &["us-east us-1 refused", "host key"]);
    holds(&found, &["ap-singapore sin-1 pause"]);
    holds(&found, &["eu-central eu-1 pause", "haproxy"]);
    assert_eq!(code, Some(12), "{found:#?}");
    assert_eq!(found.len(), 3, "{found:#?}");
}
