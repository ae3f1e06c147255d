//! What a person can get wrong before anything is contacted: one clear error, nothing changed.

use std::fs;
use std::path::Path;

use regionwise_rollout::Verdict;

use crate::support::{DEPLOY, ROLLBACK, Run, World, deploy_args, hosts};

const EU: &str = "eu-central";

#[test]
fn wrong_files_and_names_are_invalid_and_say_what_is_accepted() {
    let world = World::start();
    let good = world.release("good", &[]);
    let text = fs::read_to_string(&good).unwrap();
    let with = |name: &str, text: String| world.file(name, text.as_bytes());
    let zeros = "0".repeat(64);
    let releases = [
        (
            Path::new("/nowhere/v1.toml").to_owned(),
            "cannot read `/nowhere/v1.toml`",
        ),
        (
            with("unknown-key", format!("artefact = \"x\"\n{text}")),
            "artefact",
        ),
        (
            with("wrong-hash", format!("sha256 = \"{zeros}\"\n{text}")),
            &zeros,
        ),
        (with("no-hash", format!("sha256 = \"abc\"\n{text}")), "64"),
        (
            with(
                "no-artifact",
                "name = \"v1\"\nartifact = \"nothing-here\"\n".to_owned(),
            ),
            "nothing-here",
        ),
        (
            with("directory", "name = \"v1\"\nartifact = \"/\"\n".to_owned()),
            "not a file",
        ),
        (
            with("climbing-name", text.replace("\"good\"", "\"../good\"")),
            "cannot be the name of a release",
        ),
        (with("reserved", format!("{text}PORT = \"1\"\n")), "`PORT`"),
        (with("no-name", text.replacen("name", "nam", 1)), "nam"),
        (
            world.file("binary", b"name = \"\xff\xfe\"\n"),
            "not UTF-8 at byte 8",
        ),
        (world.file("huge", &vec![b'#'; 300 * 1024]), "256 KiB"),
    ];
    for (release, said) in &releases {
        let run = world.deploy(EU, release, "o1").expect(Verdict::Invalid);
        let told = run.json["causes"].to_string() + run.summary();
        assert!(
            told.contains(said),
            "{}: no {said:?} in {run}",
            release.display()
        );
        assert!(run.json["hints"].to_string().contains("artifact"), "{run}");
    }

    let deploy = |args: &[&str]| world.run(DEPLOY, args);
    let run = deploy(&deploy_args("eu-centrall", &good, "o1")).expect(Verdict::Invalid);
    assert!(
        run.summary().contains("`eu-centrall` is not a region"),
        "{run}"
    );
    assert!(
        run.json["hints"].to_string().contains("eu-central,"),
        "{run}"
    );
    let run = deploy(&deploy_args(EU, &good, "a b\n")).expect(Verdict::Invalid);
    assert!(run.summary().contains("`a b\\n`"), "{run}");
    let run = deploy(&["--region", EU]).expect(Verdict::Invalid);
    assert!(run.summary().contains("--release is missing"), "{run}");
    let run = world.rollback("nowhere", &[]).expect(Verdict::Invalid);
    assert!(
        run.json["hints"].to_string().contains("eu-central"),
        "{run}"
    );

    for host in hosts(EU) {
        assert!(!world.root(host).join("lease.json").exists(), "{host}");
    }
}

#[test]
fn a_wrong_config_is_invalid_for_every_binary() {
    let world = World::start();
    let good = world.release("good", &[]);
    let directory = world.lab.directory().path();
    fs::write(directory.join("binary.toml"), b"name = \"\xff\"").unwrap();
    fs::write(directory.join("huge.toml"), vec![b'#'; 2 * 1024 * 1024]).unwrap();
    world.config_of("twins.toml", |file| {
        let hosts = &mut file["regions"]["eu-central"]["hosts"];
        hosts["eu-2"]["address"] = hosts["eu-1"]["address"].clone();
    });
    world.config_of("no-hosts-file.toml", |file| {
        file["ssh"]["known_hosts"] = "nothing-here".into();
    });
    world.config_of("early.toml", |file| {
        file["rollout"]["confirm_within"] = "1s".into();
    });
    for (name, said) in [
        ("missing.toml", "missing.toml"),
        ("binary.toml", "UTF-8"),
        ("huge.toml", "larger than 1 MiB"),
        ("twins.toml", "address"),
        ("no-hosts-file.toml", "nothing-here"),
        ("early.toml", "confirm_within"),
    ] {
        let rollback = ["--region", EU];
        for (binary, args) in [
            (DEPLOY, &deploy_args(EU, &good, "o1")[..]),
            (DEPLOY, &["status"]),
            (ROLLBACK, &rollback),
        ] {
            let mut command = world.command(binary, args);
            command.env("REGIONWISE_CONFIG", directory.join(name));
            let run = Run::of(command).expect(Verdict::Invalid);
            assert!(run.stdout.contains(said), "{name}: no {said:?} in {run}");
        }
    }
}

#[test]
fn a_wrong_value_in_the_environment_is_never_a_default() {
    let world = World::start();
    let good = world.release("good", &[]);
    for (name, value) in [
        ("REGIONWISE_FORMAT", "xml"),
        ("REGIONWISE_CI", "jenkins"),
        ("REGIONWISE_LOCK_WAIT", "soon"),
        ("REGIONWISE_DRY_RUN", "perhaps"),
        ("REGIONWISE_ACCEPT_DRIFT", "2"),
    ] {
        let mut command = world.command(DEPLOY, &deploy_args(EU, &good, "o1"));
        command.env(name, value);
        let run = Run::of(command);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(2), ""),
            "{name}: {run}"
        );
        assert!(run.stderr.contains(value), "{name}: {run}");
    }
    assert!(!world.root("eu-1").join("lease.json").exists());
}

#[test]
fn a_known_name_with_another_content_is_refused_before_the_lock() {
    let world = World::start();
    world.settle(EU, "v1", "o1");
    let lease = world.json("eu-1", "lease.json");
    let other = world.release("v1", &[("MORE", "1")]);
    let run = world.deploy(EU, &other, "o2").expect(Verdict::Refused);
    assert!(run.summary().contains("already here with digest"), "{run}");
    assert!(
        run.json["hints"].to_string().contains("a new name"),
        "{run}"
    );
    assert_eq!(world.json("eu-1", "lease.json"), lease);
    world.assert_serves(EU, "v1");
}
