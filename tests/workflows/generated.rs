//! Our own rollout workflow is what plan-topology writes; workflows for other topologies run as well.

use std::fs;
use std::process::Command;

use regionwise_topology::{Toolkit, Topology};
use serde_json::json;

use crate::act::{Site, ours, root};
use crate::compat::{PIN, TOOLKIT};

const PLAN_TOPOLOGY: &str = env!("CARGO_BIN_EXE_plan-topology");

fn three(from: &str, to: &str, toolkit: &str) -> String {
    let text = fs::read_to_string(root().join("examples/three-regions.toml")).unwrap();
    assert!(text.contains(from));
    written(&text.replace(from, to), toolkit)
}

fn written(topology: &str, toolkit: &str) -> String {
    let topology = Topology::parse("regions.toml", topology).unwrap();
    topology
        .workflow(&Toolkit::parse(toolkit).unwrap())
        .unwrap()
}

#[test]
fn our_rollout_workflow_is_the_one_of_the_three_region_example() {
    let check = |file: &std::path::Path| {
        Command::new(PLAN_TOPOLOGY)
            .current_dir(root())
            .env_clear()
            .args([
                "workflow",
                "--config",
                "examples/three-regions.toml",
                "--toolkit",
                "$/",
                "--check",
            ])
            .arg(file)
            .output()
            .unwrap()
    };
    let same = check(std::path::Path::new(".github/workflows/rollout.yml"));
    assert_eq!(
        same.status.code(),
        Some(0),
        "{}plan-topology workflow --config examples/three-regions.toml --toolkit '$/' --output .github/workflows/rollout.yml",
        String::from_utf8_lossy(&same.stdout)
    );

    let work = tempfile::tempdir().unwrap();
    let edited = work.path().join("rollout.yml");
    fs::write(&edited, ours().replace("exec smoke-test", "exec true")).unwrap();
    let differs = check(&edited);
    assert_eq!(differs.status.code(), Some(12));
    let said = String::from_utf8_lossy(&differs.stdout).into_owned();
    assert!(
        said.contains("from line ") && said.contains("exec true"),
        "{said}"
    );
    assert_eq!(
        check(&work.path().join("missing.yml")).status.code(),
        Some(2)
    );
}

#[test]
fn output_writes_the_file_once_and_leaves_one_alone_that_is_right() {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("rollout.yml");
    let write = || {
        let output = Command::new(PLAN_TOPOLOGY)
            .current_dir(root())
            .env_clear()
            .args([
                "workflow",
                "--config",
                "examples/one-server.toml",
                "--format",
                "json",
            ])
            .args(["--toolkit", &format!("{TOOLKIT}@{PIN}"), "--output"])
            .arg(&file)
            .output()
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(write(), "written");
    let when = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(write(), "unchanged");
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), when);
}

#[test]
fn with_on_failure_all_the_regions_before_go_back_too_in_the_same_job() {
    let site = Site::new(&three(
        "on_failure = \"region\"",
        "on_failure = \"all\"",
        "$/",
    ));
    site.plan("ON_FAILURE=all AT='us-east smoke' SAYS=roll-back CODE=11\n");
    let ran = site.run(&[]);
    assert_eq!(ran.code, Some(1), "{}", ran.log);
    let calls = site.lines("calls");
    let backs: Vec<&String> = calls
        .iter()
        .filter(|call| call.ends_with(" rollback"))
        .collect();
    assert_eq!(
        backs,
        [
            "us-east rollback",
            "ap-singapore rollback",
            "eu-central rollback"
        ],
        "{}",
        ran.log
    );
    assert_eq!(site.needs()["us-east"]["outputs"]["verdict"], "rolled-back");
    let also_back = site.needs()["us-east"]["outputs"]["also-back"].clone();
    assert_eq!(also_back, "ap-singapore eu-central ");

    // Where the release serves after the rollback, the others keep it too, and nobody says otherwise.
    site.plan("ON_FAILURE=all AT='us-east smoke' SAYS=roll-back CODE=11 BACK_SERVES=v9\n");
    assert_eq!(site.run(&[]).code, Some(1));
    let calls = site.lines("calls");
    let backs = calls.iter().filter(|call| call.ends_with(" rollback"));
    assert_eq!(backs.collect::<Vec<_>>(), ["us-east rollback"]);
    let outputs = site.needs()["us-east"]["outputs"].clone();
    assert_eq!(
        (&outputs["verdict"], &outputs["also-back"]),
        (&json!("mixed"), &json!(""))
    );

    // A pause holds as ever.
    site.plan("ON_FAILURE=all AT='us-east lag' SAYS=pause CODE=10\n");
    assert_eq!(site.run(&[]).code, Some(1));
    assert!(
        !site
            .lines("calls")
            .iter()
            .any(|call| call.ends_with(" rollback"))
    );

    // Where the region itself could not be brought back, nothing is done on top of it.
    site.plan(
        "ON_FAILURE=all AT='us-east smoke' SAYS=roll-back CODE=11 BACK_SAYS=mixed BACK_CODE=14\n",
    );
    assert_eq!(site.run(&[]).code, Some(1));
    let backs = site
        .lines("calls")
        .iter()
        .filter(|call| call.ends_with(" rollback"))
        .count();
    assert_eq!(backs, 1);
}

#[test]
fn with_on_failure_none_a_bad_release_stays_and_a_person_decides() {
    let site = Site::new(&three(
        "on_failure = \"region\"",
        "on_failure = \"none\"",
        "$/",
    ));
    site.plan("ON_FAILURE=none AT='eu-central smoke' SAYS=roll-back CODE=11\n");
    assert_eq!(site.run(&[]).code, Some(1));
    let calls = site.lines("calls");
    assert_eq!(calls[calls.len() - 2..], ["eu-central smoke", "all finish"]);
    let job = &site.needs()["eu-central"]["outputs"];
    assert_eq!(
        (job["verdict"].as_str(), job["release"].as_str()),
        (Some("roll-back"), Some("v9"))
    );

    // A step that was killed does not read as the one before it.
    site.plan("ON_FAILURE=none AT='eu-central smoke' CODE=kill\n");
    assert_eq!(site.run(&[]).code, Some(1));
    assert_eq!(site.needs()["eu-central"]["outputs"]["verdict"], "unknown");
}

#[test]
fn a_product_with_one_server_starts_its_own_workflow_by_hand() {
    let text = fs::read_to_string(root().join("examples/one-server.toml")).unwrap();
    let site = Site::with_own_workflow(&written(&text, &format!("{TOOLKIT}@{PIN}")));
    site.plan("REGIONS=home\n");
    let ran = site.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.log);
    let steps = ["deploy", "smoke", "lag", "soak", "close"].map(|step| format!("home {step}"));
    let calls = site.lines("calls");
    assert_eq!(calls[2..calls.len() - 1], steps);
    let key = site.path("home/.ssh/regionwise");
    assert!(
        site.lines("keys").contains(&"home deploy 600".to_owned()),
        "{:?}",
        site.lines("keys")
    );
    assert!(!key.exists(), "the key outlived its job");

    // Also after a failure.
    site.plan("REGIONS=home AT='home smoke' SAYS=roll-back CODE=11\n");
    assert_eq!(site.run(&[]).code, Some(1));
    assert!(site.lines("keys").contains(&"home rollback 600".to_owned()));
    assert!(!key.exists(), "the key outlived its job");

    // One that somebody else put there is neither used in its place nor removed.
    fs::create_dir_all(key.parent().unwrap()).unwrap();
    fs::write(&key, "somebody else's").unwrap();
    site.plan("REGIONS=home\n");
    assert_eq!(site.run(&[]).code, Some(1));
    assert_eq!(site.lines("calls"), ["all finish"]);
    assert_eq!(fs::read_to_string(&key).unwrap(), "somebody else's");
}
