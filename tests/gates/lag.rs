//! `check-replication-lag` on clusters that are well, and what it leaves behind.

use std::path::Path;
use std::time::Duration;

use crate::gate::Gate;
use crate::world::{EU, US, lag_gate, sql, until};

#[test]
fn an_idle_cluster_proceeds_and_nothing_is_left_of_the_run() {
    let (_us, _eu) = (US.shared(), EU.shared());
    let dir = tempfile::tempdir().unwrap();
    let samples = dir.path().join("samples.jsonl");
    let ended = lag_gate()
        .args(["--samples", samples.to_str().unwrap()])
        .run();
    ended.is(0, "proceed clear");
    let result = &ended.json["result"];
    let standbys = result["standbys"].as_array().unwrap();
    let names: Vec<&str> = standbys
        .iter()
        .map(|standby| standby["standby"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["eu-nbg", "eu-hel", "us-sin", "us-dr"]);
    for standby in standbys {
        assert_eq!(standby["state"], "ok", "{standby}");
        assert!(standby["p50_ms"].as_f64().unwrap() < 400.0, "{standby}");
        assert!(standby["coverage"].as_f64().unwrap() > 0.9, "{standby}");
    }
    assert!(
        ended.took >= Duration::from_secs(2),
        "it looked for {:?} only",
        ended.took
    );
    let lines = std::fs::read_to_string(&samples).unwrap();
    assert!(lines.lines().count() > 10);
    for line in lines.lines() {
        let sample: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            names.contains(&sample["standby"].as_str().unwrap()),
            "{line}"
        );
    }
}

#[test]
fn every_run_removes_its_heartbeat_row() {
    let _alone = EU.alone();
    lag_gate()
        .args(["--cluster", "eu", "--observe", "2s"])
        .run()
        .is(0, "proceed clear");
    let left = sql(
        "eu-primary",
        "SELECT count(*) AS rows FROM regionwise.heartbeat WHERE cluster = 'eu'",
    );
    assert_eq!(left[0].text("rows"), Some("0"));
}

#[test]
fn a_region_stands_for_the_cluster_it_uses() {
    let _us = US.shared();
    let ended = lag_gate()
        .args(["--region", "ap-singapore", "--observe", "2s"])
        .run();
    ended.is(0, "proceed clear");
    assert_eq!(ended.json["result"]["clusters"], serde_json::json!(["us"]));
}

#[test]
fn no_standbys_is_an_answer_and_not_an_error() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/one-server.toml");
    let ended = Gate::check_replication_lag(&example).run();
    ended.is(0, "proceed not-applicable");
    assert!(
        ended.summary().contains("`main` has no standbys"),
        "{}",
        ended.summary()
    );
}

#[test]
fn a_signal_ends_it_with_a_report() {
    let _eu = EU.shared();
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let dir = tempfile::tempdir().unwrap();
        let samples = dir.path().join("samples.jsonl");
        let running = lag_gate()
            .args([
                "--cluster",
                "eu",
                "--observe",
                "60s",
                "--samples",
                samples.to_str().unwrap(),
            ])
            .start();
        // The file is made after the configuration was read and before the first connection.
        until("the gate starts", || samples.exists());
        running.signal(signal);
        let ended = running.finish();
        ended.is(code, "cancelled signal");
        assert!(ended.took < Duration::from_secs(7), "{:?}", ended.took);
    }
}

#[test]
fn usage_that_makes_no_sense_is_invalid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/three-regions.toml");
    let invalid = |args: &[&str]| {
        let ended = Gate::check_replication_lag(&example)
            .args(args.iter().copied())
            .run();
        ended.is(2, "invalid -");
        ended.json.to_string()
    };
    assert!(invalid(&["--cluster", "asia"]).contains("clusters: eu, us"));
    assert!(invalid(&["--region", "asia"]).contains("ap-singapore"));
    assert!(invalid(&["--observe", "5s"]).contains("shorter than gates.lag.clear_for"));
    assert!(
        invalid(&["--cluster", "eu"]).contains("EU_PRIMARY_DSN"),
        "a DSN that is not set"
    );
}

#[test]
fn setup_prints_the_sql_for_the_role() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/one-server.toml");
    let ended = Gate::check_replication_lag(&example)
        .args(["setup", "--print-sql", "--role", "watcher"])
        .run();
    assert_eq!(ended.code, 0);
    let sql = ended.json["result"]["sql"].as_str().unwrap();
    assert!(sql.contains("CREATE TABLE IF NOT EXISTS regionwise.heartbeat"));
    assert!(sql.contains("GRANT pg_monitor TO \"watcher\""), "{sql}");
}
