//! `check-replication-lag` on clusters that are not well. Each test holds its cluster alone.

use std::fs;
use std::time::Duration;

use regionwise_lab::LinkChange;
use regionwise_lab::control::ProcessAction;
use tempfile::TempDir;

use crate::gate::{Outcome, Running};
use crate::world::{Afterwards, EU, LAB, US, lag_gate, lag_gate_of, signal, sql, until};

/// Breaches come as soon as they are certain: after 1.5 s here, plus the time to notice.
const SOON: Duration = Duration::from_secs(6);

fn gate(cluster: &str) -> Outcome {
    let ended = lag_gate().args(["--cluster", cluster]).run();
    assert!(ended.took < SOON, "{:?}", ended.took);
    ended
}

fn standby<'a>(ended: &'a Outcome, name: &str) -> &'a serde_json::Value {
    let mut all = ended.json["result"]["standbys"].as_array().unwrap().iter();
    all.find(|standby| standby["standby"] == name).unwrap()
}

#[test]
fn a_paused_replay_is_too_far_behind_and_named() {
    let _alone = US.alone();
    let held = LAB.standby("us-sin");
    let _release = Afterwards(|| held.release().unwrap());
    held.hold().unwrap();
    let ended = gate("us");
    ended.is(10, "pause paused");
    assert!(
        ended
            .summary()
            .starts_with("`us-sin`: over 500 ms behind for 1"),
        "{}",
        ended.summary()
    );
    assert_eq!(ended.json["result"]["worst_standby"], "us-sin");
    assert!(ended.json["result"]["max_lag_ms"].as_f64().unwrap() > 1500.0);
    assert_eq!(standby(&ended, "us-dr")["state"], "ok");
}

/// Starts a gate that keeps its samples, and returns once it has seen `standby` over the threshold.
fn gate_that_sees_lag(standby: &str, args: &[&str]) -> (Running, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let samples = dir.path().join("samples.jsonl");
    let running = lag_gate()
        .args(args.iter().copied())
        .args(["--samples", samples.to_str().unwrap()])
        .start();
    let over = |line: &str| {
        let sample: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        sample["standby"] == standby && sample["lag_min_ms"].as_f64().is_some_and(|lag| lag > 500.0)
    };
    until("the gate sees the lag", || {
        fs::read_to_string(&samples)
            .unwrap_or_default()
            .lines()
            .any(over)
    });
    (running, dir)
}

#[test]
fn a_spike_that_ends_in_time_proceeds_with_a_warning() {
    let _alone = EU.alone();
    let held = LAB.standby("eu-hel");
    let _release = Afterwards(|| held.release().unwrap());
    held.hold().unwrap();
    let (running, _samples) = gate_that_sees_lag("eu-hel", &["--cluster", "eu", "--observe", "6s"]);
    held.release().unwrap();
    let ended = running.finish();
    ended.is(0, "proceed clear");
    assert!(
        ended.findings().contains("`eu-hel` was not ok for"),
        "{}",
        ended.findings()
    );
    assert!(standby(&ended, "eu-hel")["max_ms"].as_f64().unwrap() > 500.0);
}

#[test]
fn waiting_ends_when_the_standby_has_caught_up_or_the_time_is_over() {
    let _alone = EU.alone();
    let held = LAB.standby("eu-hel");
    let _release = Afterwards(|| held.release().unwrap());
    held.hold().unwrap();
    lag_gate()
        .args(["--cluster", "eu", "--wait", "2500ms"])
        .run()
        .is(10, "pause paused");
    let (running, _samples) = gate_that_sees_lag("eu-hel", &["--cluster", "eu", "--wait", "30s"]);
    held.release().unwrap();
    let ended = running.finish();
    ended.is(0, "proceed clear");
    assert!(ended.took < Duration::from_secs(10), "{:?}", ended.took);
}

#[test]
fn a_frozen_receiver_is_found_although_every_usual_signal_is_fine() {
    let _alone = US.alone();
    let receiver = sql("us-sin", "SELECT pid FROM pg_stat_wal_receiver");
    let pid = receiver[0].text("pid").unwrap().to_owned();
    let _thaw = Afterwards(|| signal("CONT", &pid));
    signal("STOP", &pid);
    gate("us").is(10, "pause lagging");
    let naive = sql(
        "us-sin",
        "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 \
         ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END AS lag, \
         (SELECT status FROM pg_stat_wal_receiver) AS status",
    );
    assert_eq!(
        (naive[0].text("lag"), naive[0].text("status")),
        (Some("0"), Some("streaming"))
    );
}

#[test]
fn a_steady_delay_over_the_threshold_pauses() {
    let _alone = EU.alone();
    let delayed = LAB.standby("eu-nbg");
    let _back = Afterwards(|| delayed.apply_delay(0).unwrap());
    delayed.apply_delay(700).unwrap();
    let ended = gate("eu");
    ended.is(10, "pause delayed-by-config");
    let highest = ended.json["result"]["max_lag_ms"].as_f64().unwrap();
    assert!((500.0..2000.0).contains(&highest), "{highest} ms");
}

#[test]
fn a_standby_that_dies_is_unknown_and_not_skipped() {
    let _alone = EU.alone();
    let _start = Afterwards(|| {
        LAB.process("eu-hel", ProcessAction::Start).unwrap();
    });
    LAB.process("eu-hel", ProcessAction::Kill).unwrap();
    let ended = gate("eu");
    ended.is(10, "pause unreachable");
    assert_eq!(standby(&ended, "eu-hel")["state"], "unknown");
    assert_eq!(standby(&ended, "eu-nbg")["state"], "ok");
}

#[test]
fn a_hanging_postmaster_is_found_although_open_connections_still_work() {
    let _alone = US.alone();
    let running = lag_gate()
        .args(["--cluster", "us", "--observe", "20s"])
        .start();
    let _thaw = Afterwards(|| LAB.process("us-dr", ProcessAction::Thaw).unwrap());
    // Its connections are open by then.
    let seen = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'check-replication-lag'";
    until("the gate is connected", || !sql("us-dr", seen).is_empty());
    LAB.process("us-dr", ProcessAction::Freeze).unwrap();
    let ended = running.finish();
    assert!(
        matches!(
            ended.words().as_str(),
            "pause unknown" | "pause unreachable"
        ),
        "{}",
        ended.words()
    );
    assert!(
        ended.summary().contains("no answer within 1200 ms"),
        "{}",
        ended.summary()
    );
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
}

#[test]
fn a_disconnected_standby_is_named_although_it_believes_it_is_up_to_date() {
    let _alone = US.alone();
    let _login = Afterwards(|| {
        sql(
            "us-primary",
            "DO $$ BEGIN ALTER ROLE replication LOGIN; END $$",
        );
    });
    sql(
        "us-primary",
        "DO $$ BEGIN ALTER ROLE replication NOLOGIN; \
         PERFORM pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'us-sin'; END $$",
    );
    let ended = gate("us");
    ended.is(10, "pause disconnected");
    assert!(
        ended.summary().contains("nothing streams into it"),
        "{}",
        ended.summary()
    );
    assert_eq!(
        standby(&ended, "us-sin")["apply_bytes"],
        0,
        "it has replayed all that it received"
    );
}

#[test]
fn a_measurement_from_too_far_away_is_refused_unless_coarse_is_said() {
    let _alone = US.alone();
    let set = |millis| {
        let far = LinkChange {
            latency_ms: Some(millis),
            both: true,
            ..LinkChange::default()
        };
        LAB.link("world", "ap-singapore", far).unwrap();
    };
    let _near = Afterwards(|| set(0));
    set(130);
    let ended = lag_gate_of(LAB.regions_toml())
        .args(["--cluster", "us", "--observe", "6s"])
        .run();
    ended.is(12, "refused too-coarse");
    assert!(
        ended
            .summary()
            .contains("`us-sin` can be measured only to within"),
        "{}",
        ended.summary()
    );
    // Connecting alone takes a quarter of this time; what counts is that it is measured at all.
    let coarse = lag_gate_of(LAB.regions_toml())
        .args(["--cluster", "us", "--observe", "4s", "--coarse"])
        .run();
    assert_ne!(coarse.code, 12, "{}", coarse.summary());
    assert!(
        standby(&coarse, "us-sin")["uncertainty_ms"]
            .as_f64()
            .unwrap()
            > 250.0
    );
}

#[test]
fn a_primary_that_crashes_meanwhile_makes_the_cluster_unknown() {
    let _alone = EU.alone();
    let running = lag_gate()
        .args(["--cluster", "eu", "--observe", "20s"])
        .start();
    let _start = Afterwards(|| LAB.process("eu-primary", ProcessAction::Start).unwrap());
    let seen = "SELECT 1 FROM regionwise.heartbeat WHERE cluster = 'eu' AND seq > 2";
    until("tokens arrive", || !sql("eu-hel", seen).is_empty());
    LAB.process("eu-primary", ProcessAction::Kill).unwrap();
    let ended = running.finish();
    assert!(
        matches!(
            ended.words().as_str(),
            "pause unknown" | "pause disconnected"
        ),
        "{}",
        ended.words()
    );
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
}

#[test]
fn commits_that_wait_for_dead_standbys_do_not_hold_the_gate_up_and_are_reported() {
    let _alone = EU.alone();
    let both = ["eu-nbg", "eu-hel"];
    let _start = Afterwards(|| {
        both.iter()
            .for_each(|name| LAB.process(name, ProcessAction::Start).unwrap());
    });
    both.iter()
        .for_each(|name| LAB.process(name, ProcessAction::Kill).unwrap());
    let ended = gate("eu");
    ended.is(10, "pause unreachable");
    assert!(
        ended.findings().contains("commits hang there"),
        "{}",
        ended.findings()
    );
    assert!(
        !ended.json.to_string().contains("primary: no answer"),
        "a token's own commit waits for nobody"
    );
    assert_eq!(
        ended.json["result"]["sync_blocked"],
        serde_json::json!(["eu"])
    );
}

#[test]
fn a_lag_from_before_we_came_is_known_from_a_writer_that_was_there() {
    let _alone = EU.alone();
    let held = LAB.standby("eu-hel");
    let _release = Afterwards(|| held.release().unwrap());
    let beats = "DO $$ BEGIN FOR beat IN 1..80 LOOP \
                 INSERT INTO regionwise.heartbeat VALUES ('eu', md5('product')::uuid, beat, clock_timestamp()) \
                 ON CONFLICT (cluster, writer) DO UPDATE SET seq = beat, ts = clock_timestamp(); \
                 COMMIT; PERFORM pg_sleep(0.1); END LOOP; END $$";
    let product = std::thread::spawn(move || sql("eu-primary", beats));
    let seen = "SELECT 1 FROM regionwise.heartbeat WHERE writer = md5('product')::uuid AND seq >= ";
    until("the product's beats arrive", || {
        !sql("eu-hel", &format!("{seen} 5")).is_empty()
    });
    held.hold().unwrap();
    until("time passes", || {
        !sql("eu-primary", &format!("{seen} 50")).is_empty()
    });
    let ended = gate("eu");
    ended.is(10, "pause paused");
    let observed = ended.json["result"]["observed_s"].as_f64().unwrap();
    assert!(
        observed < 1.5,
        "{observed} s: it need not wait for what it knows already"
    );
    product.join().unwrap();
    sql(
        "eu-primary",
        "DO $$ BEGIN DELETE FROM regionwise.heartbeat; END $$",
    );
}
