//! The way to the hosts: wrong keys, no way, and a far side that is no region-host. Nothing is changed by any of them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use regionwise_lab::LinkChange;
use regionwise_lab::control::ProcessAction;
use regionwise_rollout::Verdict;

use crate::support::{DEPLOY, Run, World, deploy_args, hosts};

const EU: &str = "eu-central";
const SIN: &str = "ap-singapore";

/// No host of the region was locked, ever.
#[track_caller]
fn assert_untouched(world: &World, region: &str) {
    for host in hosts(region) {
        let lease = world.root(host).join("lease.json");
        assert!(!lease.exists(), "{host} was locked");
    }
}

#[test]
fn one_wrong_host_key_stops_everything_before_any_host_is_touched() {
    let world = World::start();
    let v1 = world.release("v1", &[]);
    let pinned = fs::read_to_string(world.lab.directory().known_hosts()).unwrap();
    let lines: Vec<&str> = pinned.lines().collect();
    let of = |host: &str| {
        let address = world.address(&format!("{host}/ssh"));
        let name = format!("[{}]:{}", address.ip(), address.port());
        lines
            .iter()
            .find(|line| line.starts_with(&name))
            .unwrap()
            .split_once(' ')
            .unwrap()
    };
    let swapped = format!(
        "{} {}\n{} {}\n",
        of("eu-1").0,
        of("eu-1").1,
        of("eu-2").0,
        of("eu-1").1
    );
    let missing = format!("{} {}\n", of("eu-1").0, of("eu-1").1);
    for (name, text) in [("swapped", swapped), ("missing", missing)] {
        fs::write(world.lab.directory().path().join(name), text).unwrap();
        let config = world.config_of(&format!("{name}.toml"), |file| {
            file["ssh"]["known_hosts"] = name.into();
        });
        let mut command = world.command(DEPLOY, &deploy_args(EU, &v1, "o1"));
        command.env("REGIONWISE_CONFIG", config);
        let run = Run::of(command).expect(Verdict::Refused);
        assert!(run.summary().contains("`eu-2`"), "{run}");
        assert!(run.summary().contains("host key"), "{run}");
        assert!(run.stdout.contains("somebody may be in between"), "{run}");
        assert_untouched(&world, EU);
    }
}

#[test]
fn a_key_as_ci_systems_mangle_it_works_and_anything_else_is_invalid() {
    let world = World::start();
    let v1 = world.release("v1", &[]);
    let config = world.config_of("key.toml", |file| {
        file["ssh"]["identity"] = "env:DEPLOY_KEY".into();
    });
    let key = fs::read_to_string(world.lab.directory().deploy_key()).unwrap();
    let other = world.file("other", b"").with_file_name("other_key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&other)
        .status()
        .unwrap();
    assert!(made.success());
    let look = |key: Option<&str>| {
        let mut args = deploy_args(SIN, &v1, "o1").to_vec();
        args.push("--dry-run");
        let mut command = world.command(DEPLOY, &args);
        command.env("REGIONWISE_CONFIG", &config);
        if let Some(key) = key {
            command.env("DEPLOY_KEY", key);
        }
        Run::of(command)
    };
    look(Some(key.trim_end())).expect(Verdict::Proceed);
    look(Some(&key.replace('\n', "\r\n"))).expect(Verdict::Proceed);

    let framed =
        "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5\n-----END OPENSSH PRIVATE KEY-----\n";
    let other = fs::read_to_string(other).unwrap();
    for (what, bad) in [
        ("not set", None),
        ("empty", Some("")),
        ("a public key", Some("ssh-ed25519 AAAA somebody")),
        ("framed garbage", Some(framed)),
        ("somebody else's", Some(other.as_str())),
    ] {
        let run = look(bad).expect(Verdict::Invalid);
        assert!(
            run.summary().contains("key") || run.summary().contains("connect"),
            "{what}: {run}"
        );
        assert_ne!(
            run.json["hints"].as_array().map(Vec::len),
            None,
            "{what}: {run}"
        );
        for line in bad.unwrap_or("x").lines().filter(|line| line.len() > 10) {
            assert!(
                !run.stdout.contains(line),
                "{what}: the key is shown: {run}"
            );
        }
    }
    // The key of the run is gone with it.
    let left: Vec<PathBuf> = fs::read_dir(v1.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("regionwise-key"))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    assert_untouched(&world, SIN);
}

#[test]
fn a_host_that_cannot_be_reached_or_is_no_region_host_stops_the_deploy_with_nothing_changed() {
    let world = World::start();
    let world = &world;
    let v1 = world.release("v1", &[]);
    let v1 = &v1;
    // Bounded in memory, whatever the far side sends.
    let deploy = |region: &str| {
        let mut args = vec!["--as=1500000000", DEPLOY];
        args.extend(deploy_args(region, v1, "o1"));
        let run = world.run("prlimit", &args);
        assert!(run.took.as_secs() < 15, "{run}");
        let run = run.expect(Verdict::Unreachable);
        assert!(!run.json["hints"].as_array().unwrap().is_empty(), "{run}");
        run
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            world.lab.process("us-2/sshd", ProcessAction::Kill).unwrap();
            let run = deploy("us-east");
            assert!(run.summary().contains("`us-2`"), "{run}");
            world
                .lab
                .process("us-2/sshd", ProcessAction::Start)
                .unwrap();
            world
                .lab
                .process("us-2/sshd", ProcessAction::Freeze)
                .unwrap();
            let run = deploy("us-east");
            assert!(run.summary().contains("`us-2`"), "{run}");
            assert_untouched(world, "us-east");
        });
        scope.spawn(|| {
            world
                .lab
                .link("world", "ap-singapore", LinkChange::cut())
                .unwrap();
            deploy("ap-singapore");
            assert_untouched(world, "ap-singapore");
        });
        scope.spawn(|| {
            let key = world.root("eu-2").join("authorized_keys");
            let good = fs::read_to_string(&key).unwrap();
            let helper = good.split('"').nth(1).unwrap();
            for fake in [
                "exit 255",
                "cat /dev/zero",
                "head -c 10000000 /dev/urandom; exit 255",
                "echo welcome; sleep 60",
                "/nowhere/region-host serve",
                "region-host serve --root /nowhere",
            ] {
                let fake = fake.replace(
                    "region-host serve --root /nowhere",
                    &helper.replace("eu-2", "nowhere"),
                );
                fs::write(&key, good.replace(helper, &fake)).unwrap();
                let run = deploy(EU);
                assert!(run.summary().contains("`eu-2`"), "{fake}: {run}");
                assert!(run.stdout.len() < 10_000, "{fake}: {run}");
                assert_untouched(world, EU);
            }
            fs::write(&key, good).unwrap();
            world.deploy(EU, v1, "o1").expect(Verdict::Proceed);
            world.assert_serves(EU, "v1");
        });
    });
}
