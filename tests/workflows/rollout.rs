//! A rollout that goes well, one that begins later, one that is cancelled, and what the set-up and preflight refuse.

use std::fs;

use serde_json::{Value, json};

use crate::act::{Site, ours};

const GREEN: [&str; 17] = [
    "all preflight",
    "all environments",
    "ap-singapore deploy",
    "ap-singapore smoke",
    "ap-singapore soak",
    "ap-singapore close",
    "eu-central deploy",
    "eu-central smoke",
    "eu-central lag",
    "eu-central soak",
    "eu-central close",
    "us-east deploy",
    "us-east smoke",
    "us-east lag",
    "us-east soak",
    "us-east close",
    "all finish",
];

#[test]
fn a_good_release_reaches_every_region_in_order_and_the_caller_gets_the_outputs() {
    let site = Site::new(&ours());
    let ran = site.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.log);
    assert_eq!(site.lines("calls"), GREEN);
    let outputs: Value =
        serde_json::from_str(&fs::read_to_string(site.path("stand-in/outputs")).unwrap()).unwrap();
    assert_eq!(
        outputs,
        json!({
            "verdict": "proceed", "failed-region": "nowhere", "done-regions": "everywhere",
            "ap-singapore-verdict": "proceed", "ap-singapore-release": "v9",
            "eu-central-verdict": "proceed", "eu-central-release": "v9",
            "us-east-verdict": "proceed", "us-east-release": "v9",
        })
    );
    // A step sees the secrets that it needs, and no others.
    let mut seen = vec!["all preflight EU_PRIMARY_DSN".to_owned()];
    for secret in ["REGIONWISE_SSH_KEY", "US_PRIMARY_DSN"] {
        seen.push(format!("all preflight {secret}"));
    }
    for region in ["ap-singapore", "eu-central", "us-east"] {
        seen.extend(["close", "deploy"].map(|step| format!("{region} {step} REGIONWISE_SSH_KEY")));
    }
    for region in ["eu-central", "us-east"] {
        seen.extend(["EU", "US"].map(|side| format!("{region} lag {side}_PRIMARY_DSN")));
    }
    seen.sort();
    let mut given = site.lines("secrets");
    given.sort();
    assert_eq!(given, seen);
}

#[test]
fn without_a_soak_none_is_waited_for() {
    let site = Site::new(&ours());
    site.plan("SOAK=0\n");
    assert_eq!(site.run(&[]).code, Some(0));
    let wanted: Vec<&str> = GREEN
        .into_iter()
        .filter(|call| !call.ends_with("soak"))
        .collect();
    assert_eq!(site.lines("calls"), wanted);
}

#[test]
fn a_dry_run_asks_deploy_region_and_nobody_else() {
    let site = Site::new(&ours());
    let ran = site.run(&[("dry-run", "true")]);
    assert_eq!(ran.code, Some(0), "{}", ran.log);
    let deploys = ["ap-singapore deploy", "eu-central deploy", "us-east deploy"];
    let calls: Vec<String> = site.lines("calls");
    assert_eq!(calls[2..5], deploys);
    assert_eq!(calls.len(), 6, "{calls:?}");
    // The report is told as well, so that it opens no issue.
    assert_eq!(site.lines("dry"), [&deploys[..], &["all finish"]].concat());
    assert!(site.lines("deployments").is_empty());
    // Also one that goes wrong: there is nothing to take back.
    site.plan("AT='eu-central deploy' SAYS=unknown CODE=21\n");
    assert_eq!(site.run(&[("dry-run", "true")]).code, Some(1));
    assert!(
        !site
            .lines("calls")
            .iter()
            .any(|call| call.ends_with("rollback"))
    );
}

#[test]
fn a_held_rollout_goes_on_where_it_was_held_under_its_own_name() {
    let site = Site::new(&ours());
    let resumed = [("start-at", "eu-central"), ("rollout", "gh-7")];
    let ran = site.run(&resumed);
    assert_eq!(ran.code, Some(0), "{}", ran.log);
    let calls = site.lines("calls");
    assert!(
        !calls.iter().any(|call| call.starts_with("ap-singapore")),
        "{calls:?}"
    );
    assert_eq!(calls[2..], GREEN[6..]);
    assert_eq!(site.needs()["ap-singapore"]["result"], "skipped");

    // A region that fails there stops the rest as ever.
    site.plan("AT='eu-central smoke' SAYS=roll-back CODE=11\n");
    assert_eq!(site.run(&resumed).code, Some(1));
    let calls = site.lines("calls");
    assert_eq!(
        calls[2..],
        [
            "eu-central deploy",
            "eu-central smoke",
            "eu-central rollback",
            "all finish"
        ]
    );

    // The plan still fails in eu-central, which does not run.
    assert_eq!(site.run(&[("start-at", "us-east")]).code, Some(0));
    assert_eq!(site.lines("calls")[2..], GREEN[11..]);
}

#[test]
fn a_workflow_of_other_regions_than_regions_toml_stops_before_it_changes_anything() {
    let site = Site::new(&ours());
    let refuses = |plan: &str, inputs: &[(&str, &str)]| {
        site.plan(plan);
        let ran = site.run(inputs);
        assert_eq!(ran.code, Some(1), "{plan}: {}", ran.log);
        assert_eq!(
            site.lines("calls"),
            ["all preflight", "all environments", "all finish"],
            "{plan}"
        );
        let preflight = &site.needs()["preflight"];
        assert_eq!(preflight["outputs"]["verdict"], "invalid", "{plan}");
        assert_eq!(preflight["outputs"]["step"], "fits", "{plan}");
    };
    refuses("REGIONS='ap-singapore eu-central us-east us-west'\n", &[]);
    refuses("REGIONS='eu-central ap-singapore us-east'\n", &[]);
    refuses("REGIONS=''\n", &[]);
    refuses("ON_FAILURE=none\n", &[]);
    refuses("SOAK=1801\n", &[]);
    refuses("SOAK=\n", &[]);
    refuses("", &[("start-at", "us-weast")]);
    refuses("", &[("start-at", "eu-central us-east")]);
}

#[test]
fn an_environment_that_is_not_protected_stops_the_rollout() {
    let site = Site::new(&ours());
    site.plan("AT='all environments' SAYS=refused CODE=12\n");
    assert_eq!(site.run(&[]).code, Some(1));
    assert_eq!(
        site.lines("calls"),
        ["all preflight", "all environments", "all finish"]
    );
    let outputs = &site.needs()["preflight"]["outputs"];
    assert_eq!(
        (&outputs["verdict"], &outputs["step"]),
        (&json!("refused"), &json!("environments"))
    );
}

#[test]
fn a_binary_that_was_tampered_with_is_not_run() {
    let site = Site::new(&ours());
    site.binary("deploy-region", "#!/bin/sh\n: > \"$STAND_IN/pwned\"\n");
    let ran = site.run(&[]);
    assert_eq!(ran.code, Some(1), "{}", ran.log);
    assert!(site.lines("calls").is_empty() && !site.path("stand-in/pwned").exists());
    assert_eq!(ran.jobs["preflight"], "failure");
    assert_eq!(ran.jobs["report"], "failure");
    // Also one that nobody listed.
    site.stand_ins(&["deploy-region"]);
    site.sums();
    site.binary("ls", "#!/bin/sh\n: > \"$STAND_IN/pwned\"\n");
    assert_eq!(site.run(&[]).code, Some(1));
    assert!(site.lines("calls").is_empty() && !site.path("stand-in/pwned").exists());
}

#[test]
fn a_rollout_that_is_cancelled_rolls_back_the_region_it_was_in_and_no_other() {
    for (region, step) in [("eu-central", "deploy"), ("us-east", "lag")] {
        let site = Site::new(&ours());
        site.plan(&format!("AT='{region} {step}' SAYS='' CODE=wait\n"));
        let mut running = site.start(&[]);
        running.until_there(&site.path("stand-in/waiting"));
        running.interrupt();
        let ran = running.wait();
        site.keeps_its_secrets(&ran);
        assert_eq!(ran.code, Some(1), "{}", ran.log);
        let calls = site.lines("calls");
        let stopped = GREEN
            .iter()
            .position(|call| *call == format!("{region} {step}"))
            .unwrap();
        assert_eq!(
            calls[..=stopped],
            GREEN[..=stopped],
            "{region}: {}",
            ran.log
        );
        assert_eq!(
            calls[stopped + 1],
            format!("{region} rollback"),
            "{}",
            ran.log
        );
        let after = &calls[stopped + 2..];
        assert!(after.iter().all(|call| call == "all finish"), "{after:?}");
    }
}

/// Another run holds the lock, or an earlier attempt has closed the region: neither is this run's to undo.
#[test]
fn a_cancelled_run_that_has_brought_nothing_rolls_nothing_back() {
    for (step, says) in [("deploy", "cancelled"), ("smoke", "")] {
        let site = Site::new(&ours());
        site.plan(&format!(
            "AT='eu-central {step}' SAYS='{says}' CODE=wait CHANGED=false\n"
        ));
        let mut running = site.start(&[]);
        running.until_there(&site.path("stand-in/waiting"));
        running.interrupt();
        let ran = running.wait();
        assert_eq!(ran.code, Some(1), "{}", ran.log);
        let calls = site.lines("calls");
        assert!(calls.contains(&format!("eu-central {step}")), "{calls:?}");
        assert!(
            !calls.iter().any(|call| call.ends_with(" rollback")),
            "{step}: {calls:?}"
        );
    }
}
