//! One release through three regions, a bad one, a held standby: what `scripts/rollout` does and what users notice.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::world::{Done, World};

/// The command that the script printed after `label`.
#[track_caller]
fn printed(done: &Done, label: &str) -> String {
    let line = done
        .stderr
        .lines()
        .find_map(|line| line.trim().strip_prefix(label));
    line.unwrap_or_else(|| panic!("no `{label}` in {}", done.stderr))
        .trim()
        .to_owned()
}

/// Constant load on every region until it is stopped, also by a failed test.
struct Load(Option<Child>);

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut load) = self.0.take() {
            load.kill().unwrap();
            load.wait().unwrap();
        }
    }
}

impl Load {
    fn start(world: &World) -> Self {
        let mut load = world.binary(env!("CARGO_BIN_EXE_lab"));
        load.args(["load", "--rate", "15/s", "--writes", "--format", "json"]);
        load.stdout(Stdio::piped()).stderr(Stdio::inherit());
        Self(Some(load.spawn().unwrap()))
    }

    /// Stops it and returns its counts.
    fn stop(mut self) -> Value {
        let load = self.0.take().unwrap();
        let pid = load.id().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let output = load.wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn count(load: &Value, field: &str) -> u64 {
    load["regions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|region| region[field].as_u64().unwrap())
        .sum()
}

#[test]
fn a_good_release_rolls_through_three_regions_and_a_bad_one_goes_back_in_its_region_only() {
    let world = World::with_v1();
    let load = Load::start(&world);

    world
        .roll_out(&world.release("v2", &[]), "good", &[])
        .ends(0);
    world.serves(["v2"; 5]);
    let steps = world.steps();
    for step in [
        "ap-singapore smoke proceed",
        "eu-central lag proceed",
        "us-east integration proceed",
        "us-east close proceed",
    ] {
        assert!(steps.contains(&step.to_owned()), "no `{step}` in {steps:?}");
    }
    assert!(!steps.contains(&"ap-singapore lag proceed".to_owned()));
    let good = load.stop();
    assert!(count(&good, "served") > 100, "{good}");
    assert_eq!(count(&good, "failed"), 0, "{good}");

    // Bad in the EU only: its own wrong answers count, nobody else's do.
    let untouched: Vec<Value> = ["us-1", "us-2"]
        .map(|host| world.hosts()[host]["history"].clone())
        .into();
    let load = Load::start(&world);
    let bad = world.release(
        "v3",
        &[
            ("FAULT_REGIONS", "eu-central"),
            ("FAULT_FAILING_DEPENDENCIES", "3"),
            ("FAULT_WRONG_ANSWERS", "0.2"),
        ],
    );
    world.roll_out(&bad, "bad", &[]).ends(13);
    let noticed = load.stop();
    world.serves(["v2", "v2", "v3", "v2", "v2"]);
    assert!(
        world
            .steps()
            .contains(&"eu-central rollback proceed".to_owned())
    );
    let still: Vec<Value> = ["us-1", "us-2"]
        .map(|host| world.hosts()[host]["history"].clone())
        .into();
    assert_eq!(still, untouched, "the US was touched");
    for region in noticed["regions"].as_array().unwrap() {
        let by_v3 = region["releases"]["v3"]["failed"].as_u64().unwrap_or(0);
        assert_eq!(region["failed"], by_v3, "{region}");
        assert!(by_v3 == 0 || region["region"] == "eu-central", "{region}");
    }
}

#[test]
fn a_held_standby_pauses_the_rollout_and_the_printed_command_resumes_it() {
    let world = World::with_v1();
    let v2 = world.release("v2", &[]);
    world.lab.standby("us-dr").hold().unwrap();
    let held = world.roll_out(&v2, "held", &[]);
    held.ends(10);
    world.serves(["v2", "v2", "v2", "v1", "v1"]);
    assert!(
        printed(&held, "go back:")
            .ends_with("rollback-region --region eu-central --operation held-eu-central")
    );

    world.lab.standby("us-dr").release().unwrap();
    let mut resume = world.binary("/bin/bash");
    resume.args(["-c", &printed(&held, "go on:")]);
    resume.env_remove("REGIONWISE_CONFIG");
    Done::of(&resume.output().unwrap()).ends(0);
    world.serves(["v2"; 5]);
    assert!(
        world
            .hosts()
            .values()
            .all(|facts| facts["serving"]["verified"] == true)
    );
}

#[test]
fn usage_errors_of_the_script_change_nothing() {
    let world = World::new(regionwise_lab::Options::hosts(env!("CARGO_BIN_EXE_lab")));
    world
        .roll_out(std::path::Path::new("/nowhere/v1.toml"), "x", &[])
        .ends(2);
    world
        .roll_out(&world.release("v1", &[]), "x", &["--no-such-flag"])
        .ends(2);
    assert!(world.serving().values().all(|release| release == "-"));
}
