//! `scripts/rollout` stopped halfway, by a signal or by a gate: what stays, what goes back, and what it says to do next.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use regionwise_lab::{Options, skipped};
use serde_json::Value;

use crate::world::{Done, World};

const DEPLOY: &str = env!("CARGO_BIN_EXE_deploy-region");

/// A smoke-test that asks the script to stop and would itself take a minute.
const SMOKE_STOPS_THE_SCRIPT: (&str, &str) = ("smoke-test", "kill -TERM $PPID; exec sleep 60");

/// Hosts without databases, where v1 serves in Asia and is closed.
fn asia() -> World {
    let world = World::new(Options::hosts(env!("CARGO_BIN_EXE_lab")));
    let v1 = world.release("v1", &[]);
    let operation = ["--region", "ap-singapore", "--operation", "v1"];
    let mut deploy = world.binary(DEPLOY);
    deploy.args(operation).arg("--release").arg(v1);
    assert!(deploy.status().unwrap().success());
    let close = [&["close"][..], &operation].concat();
    world.run(DEPLOY, &close).ends(0);
    world
}

/// The script in that world, without a suite.
fn script(world: &World, release: &Path, id: &str, shims: &[(&str, &str)]) -> Done {
    let shims = world.shims(shims);
    let mut command = world.script(release, id, &[], Some(shims.path()));
    command.env("REGIONWISE_SKIP_DATABASES", "true");
    Done::of(&command.output().unwrap())
}

#[track_caller]
fn asia_serves(world: &World, release: &str, verified: bool) {
    let facts = &world.hosts()["sin-1"];
    assert_eq!(
        (
            facts["observed"].as_str(),
            facts["serving"]["verified"].as_bool()
        ),
        (Some(release), Some(verified)),
        "{facts}"
    );
    assert!(
        facts["intent"].is_null() && facts["lease"].is_null(),
        "{facts}"
    );
}

#[track_caller]
fn never_rolled_back(world: &World) {
    let steps = world.steps();
    assert!(
        !steps.iter().any(|step| step.contains("rollback")),
        "{steps:?}"
    );
}

#[test]
fn a_signal_to_the_script_alone_stops_the_deploy_that_runs() {
    let world = asia();
    let slow = world.release("v2", &[("FAULT_START_DELAY", "60s")]);
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut command = world.script(&slow, &format!("slow{code}"), &[], None);
        command.env("REGIONWISE_SKIP_DATABASES", "true");
        let mut running = command.spawn().unwrap();
        let mut said = BufReader::new(running.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("preparing") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended by itself");
        }
        let asked = Instant::now();
        let pid = running.id().to_string();
        let kill = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(kill.success());
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!(running.wait().unwrap().code(), Some(code), "{rest}");
        assert!(asked.elapsed() < Duration::from_secs(10), "{rest}");
        assert!(
            world
                .steps()
                .contains(&"ap-singapore deploy cancelled".to_owned()),
            "{rest}"
        );
        asia_serves(&world, "v1", true);
    }
    never_rolled_back(&world);
}

#[test]
fn a_signal_before_a_region_stops_there_and_takes_nothing_back() {
    let world = asia();
    let v2 = world.release("v2", &[]);
    let in_preflight = [("preflight", "kill -INT $PPID; exec sleep 60")];
    script(&world, &v2, "early", &in_preflight).ends(130);
    assert_eq!(world.steps(), ["all preflight none"]);

    let after_close = (
        "deploy-region",
        // The script passes the signal on to its step, which has done its work and must still say so.
        "trap : TERM; \"$real\" \"$@\" || exit; [ \"$1\" != close ] || kill -TERM $PPID; exit 0",
    );
    let done = script(
        &world,
        &v2,
        "between",
        &[after_close, ("smoke-test", "exit 0")],
    );
    done.ends(143);
    asia_serves(&world, "v2", true);
    assert!(
        done.stderr.contains("--start-at eu-central\n"),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains("go back:"), "{}", done.stderr);

    // Again with the same name: what was closed then is not this run's to undo.
    let done = script(&world, &v2, "between", &[SMOKE_STOPS_THE_SCRIPT]);
    done.ends(143);
    asia_serves(&world, "v2", true);
    assert!(done.stderr.contains("go back:"), "{}", done.stderr);
    never_rolled_back(&world);
}

#[test]
fn a_signal_after_a_deploy_takes_its_region_back() {
    let world = asia();
    let v2 = world.release("v2", &[]);
    let done = script(&world, &v2, "late", &[SMOKE_STOPS_THE_SCRIPT]);
    done.ends(13);
    assert!(
        done.stderr.contains("is back on its release: v1"),
        "{}",
        done.stderr
    );
    asia_serves(&world, "v1", true);
    assert_eq!(
        world.steps()[2..],
        ["ap-singapore smoke none", "ap-singapore rollback proceed"]
    );
}

#[test]
fn a_stop_after_the_deploy_prints_the_way_on_and_the_way_back() {
    let world = asia();
    let v2 = world.release("v2", &[]);
    let done = script(&world, &v2, "stays", &[("smoke-test", "exit 12")]);
    done.ends(12);
    asia_serves(&world, "v2", false);
    let config = world.config.display();
    let on = format!(
        "  go on:   REGIONWISE_CONFIG={config} {} {} --rollout stays --log {} --start-at ap-singapore\n",
        concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rollout"),
        v2.display(),
        world.log().display()
    );
    assert!(done.stderr.contains(&on), "no {on} in {}", done.stderr);
    let back = format!(
        "  go back: REGIONWISE_CONFIG={config} rollback-region --region ap-singapore --operation stays-ap-singapore\n"
    );
    assert!(done.stderr.contains(&back), "no {back} in {}", done.stderr);
}

#[test]
fn a_region_that_still_serves_the_release_after_its_rollback_is_not_called_back() {
    let world = asia();
    let v1 = world.release("v1", &[]);
    let done = script(&world, &v1, "again", &[("smoke-test", "exit 11")]);
    done.ends(14);
    assert!(done.stderr.contains("still serves v1"), "{}", done.stderr);
    let look = "  look:    deploy-region status --region ap-singapore\n";
    assert!(done.stderr.contains(look), "{}", done.stderr);
    assert!(!done.stderr.contains("is back"), "{}", done.stderr);
    asia_serves(&world, "v1", true);
}

/// The deploy ends with this code, after it has done its work or instead of it.
fn deploy_ends(world: &World, release: &Path, id: &str, code: u8, done: bool) -> Done {
    let before = if done {
        "\"$real\" \"$@\" || exit"
    } else {
        "echo changed=false >> \"$REGIONWISE_OUTPUTS\""
    };
    script(
        world,
        release,
        id,
        &[("deploy-region", &format!("{before}; exit {code}"))],
    )
}

#[test]
fn a_deploy_that_ended_badly_leads_back_only_where_it_changed_something() {
    let world = asia();
    let v2 = world.release("v2", &[]);
    let locked = deploy_ends(&world, &v2, "locked", 22, false);
    locked.ends(22);
    assert!(!locked.stderr.contains("go back:"), "{}", locked.stderr);
    asia_serves(&world, "v1", true);

    let mixed = deploy_ends(&world, &v2, "mixed", 14, true);
    mixed.ends(14);
    let back = "rollback-region --region ap-singapore --operation mixed-ap-singapore";
    assert!(mixed.stderr.contains(back), "{}", mixed.stderr);
    never_rolled_back(&world);
}

#[test]
fn the_only_region_passes_the_lag_gate_and_says_that_no_suite_was_given() {
    let world = asia();
    let shims = world.shims(&[
        ("check-replication-lag", "exit 0"),
        ("smoke-test", "exit 0"),
    ]);
    let others = [
        "--exclude-region",
        "eu-central",
        "--exclude-region",
        "us-east",
    ];
    let mut command = world.script(
        &world.release("v2", &[]),
        "one",
        &others,
        Some(shims.path()),
    );
    command.env("REGIONWISE_SKIP_DATABASES", "true");
    let done = Done::of(&command.output().unwrap());
    done.ends(0);
    asia_serves(&world, "v2", true);
    assert!(world.steps().contains(&"ap-singapore lag none".to_owned()));
    assert!(
        done.stderr.contains("no integration suite given"),
        "{}",
        done.stderr
    );
    assert_eq!(world.serving()["eu-1"], "-");
}

#[test]
fn a_suite_that_is_not_there_is_found_before_anything_is_touched() {
    let world = World::new(Options::hosts(env!("CARGO_BIN_EXE_lab")));
    let more = ["--integration", "/nowhere/suite"];
    let v1 = world.release("v1", &[]);
    let done = Done::of(&world.script(&v1, "x", &more, None).output().unwrap());
    done.ends(2);
    assert!(world.steps().is_empty());
}

#[test]
fn a_locale_with_a_decimal_comma_leaves_the_log_json() {
    let world = World::new(Options::hosts(env!("CARGO_BIN_EXE_lab")));
    let locales = world.work.path().join("locales");
    fs::create_dir(&locales).unwrap();
    let made = Command::new("localedef")
        .args(["-i", "de_DE", "-f", "UTF-8"])
        .arg(locales.join("de_DE.UTF-8"))
        .output();
    if !locales.join("de_DE.UTF-8").exists() {
        skipped(&format!("localedef cannot make de_DE.UTF-8: {made:?}"));
        return;
    }
    let mut command = world.script(Path::new("/nowhere/v1.toml"), "x", &[], None);
    command
        .env("LOCPATH", &locales)
        .env("LC_ALL", "de_DE.UTF-8");
    Done::of(&command.output().unwrap()).ends(2);
    let line: Value = serde_json::from_str(&fs::read_to_string(world.log()).unwrap()).unwrap();
    assert!(line["seconds"].as_f64().is_some(), "{line}");
}
