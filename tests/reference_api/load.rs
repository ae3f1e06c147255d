use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use regionwise_lab::load::{Load, LoadError, Rate, Second, Summary, Target};

use crate::process::Process;

fn target(region: &str, api: &Process) -> Target {
    Target {
        region: region.to_owned(),
        url: api.url("/").parse().unwrap(),
    }
}

fn load(targets: Vec<Target>, rate: &str) -> Load {
    Load {
        targets,
        rate: Rate::parse(rate).unwrap(),
        duration: Some(Duration::from_secs(2)),
        writes: false,
        log: None,
    }
}

async fn run(load: Load) -> Summary {
    load.run(std::future::pending()).await.unwrap()
}

#[tokio::test]
async fn every_region_gets_its_rate_and_every_answer_is_counted_by_release() {
    let (one, two) = (
        Process::start(&[("RELEASE", "v1")]),
        Process::start(&[("RELEASE", "v2")]),
    );
    let summary = run(load(vec![target("us", &one), target("eu", &two)], "100/s")).await;
    for (region, release) in summary.regions.iter().zip(["v1", "v2"]) {
        assert_eq!(region.failed, 0, "{region:?}");
        assert_eq!(region.served, 200, "{region:?}");
        assert_eq!(region.releases[release].served, region.served);
    }
}

#[tokio::test]
async fn the_log_has_a_line_for_each_second_and_region_and_sums_up_to_the_summary() {
    let api = Process::start(&[("RELEASE", "v1"), ("FAULT_WRONG_ANSWERS", "0.1")]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let load = Load {
        log: Some(file.reopen().unwrap()),
        ..load(vec![target("us", &api), target("eu", &api)], "50")
    };
    let summary = run(load).await;
    let text = std::fs::read_to_string(file.path()).unwrap();
    let lines: Vec<Second> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() >= 4 && lines.len().is_multiple_of(2), "{text}");
    assert_eq!(
        lines.iter().map(|line| line.served).sum::<u64>(),
        summary.served()
    );
    assert_eq!(
        lines.iter().map(|line| line.failed).sum::<u64>(),
        summary.failed()
    );
    assert_eq!(summary.failed(), 20, "{summary:?}");
    // Which region met the failures is chance: both load the same process.
    let mut failures = summary
        .regions
        .iter()
        .flat_map(|region| &region.first_failures);
    let first = failures.next().unwrap();
    assert_eq!(
        (first.kind.as_str(), first.release.as_deref()),
        ("status 500", Some("v1"))
    );
}

#[tokio::test]
async fn a_server_that_stands_still_shows_in_the_latency_of_all_requests_of_that_time() {
    let api = Process::start(&[]);
    api.signal("-STOP");
    let measuring = tokio::spawn(run(load(vec![target("us", &api)], "100/s")));
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    api.signal("-CONT");
    let summary = measuring.await.unwrap();
    let us = &summary.regions[0];
    assert_eq!(us.failed, 0, "{us:?}");
    // A closed loop would have sent one request in that second; here half of all waited, the median among them.
    assert_eq!(us.served, 200, "{us:?}");
    assert!(us.max_ms >= 900.0, "{us:?}");
    assert!(us.p99_ms >= 800.0, "{us:?}");
}

#[tokio::test]
async fn requests_without_an_answer_are_counted_by_what_happened() {
    let api = Process::start(&[("FAULT_CRASH_AFTER", "1s")]);
    let summary = run(load(vec![target("us", &api)], "50/s")).await;
    let us = &summary.regions[0];
    assert!(us.served > 20, "{us:?}");
    assert!(us.failures["refused"] > 20, "{us:?}");
    assert_eq!(us.failures.values().sum::<u64>(), us.failed);
}

#[tokio::test]
async fn a_stop_ends_it_and_counts_what_was_on_its_way() {
    let api = Process::start(&[]);
    let endless = Load {
        duration: None,
        ..load(vec![target("us", &api)], "50/s")
    };
    let summary = endless
        .run(tokio::time::sleep(Duration::from_millis(500)))
        .await
        .unwrap();
    assert!((5..=27).contains(&summary.served()), "{summary:?}");
    assert_eq!(summary.failed(), 0);
}

#[tokio::test]
async fn writes_without_a_database_are_refused_before_anything_is_measured() {
    let api = Process::start(&[]);
    let load = Load {
        writes: true,
        ..load(vec![target("us", &api)], "50/s")
    };
    let error = load.run(std::future::pending()).await.unwrap_err();
    assert!(
        matches!(&error, LoadError::Setup { region, .. } if region == "us"),
        "{error}"
    );
    assert!(error.to_string().contains("not-configured"), "{error}");
}

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command
        .env_remove("REGIONWISE_CONFIG")
        .env_remove("REGIONWISE_FORMAT")
        .args(arguments);
    command
}

#[test]
fn lab_load_and_lab_timeline_follow_a_release_from_one_to_the_next() {
    let (old, new) = (
        Process::start(&[("RELEASE", "v1")]),
        Process::start(&[("RELEASE", "v2"), ("FAULT_WRONG_ANSWERS", "1")]),
    );
    let dir = tempfile::tempdir().unwrap();
    let (log, rollout) = (
        dir.path().join("load.jsonl"),
        dir.path().join("rollout.jsonl"),
    );
    let targets = [format!("eu={}", old.url("")), format!("us={}", new.url(""))];
    let started = SystemTime::now();
    let output = lab(&[
        "load",
        "--rate",
        "20/s",
        "--for",
        "1s",
        "--log",
        log.to_str().unwrap(),
    ])
    .args(["--target", &targets[0], "--target", &targets[1]])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("us failed at ") && text.contains("status 500 (release v2)"),
        "{text}"
    );

    let ended = humantime::format_rfc3339_millis(SystemTime::now());
    let seconds = started.elapsed().unwrap().as_secs_f64();
    let step = |step: &str, verdict: &str| {
        format!(
            r#"{{"at":"{ended}","rollout":"r","region":"us","step":"{step}","release":"v2","verdict":"{verdict}","seconds":{seconds}}}"#
        )
    };
    std::fs::write(
        &rollout,
        [step("smoke", "roll-back"), step("rollback", "proceed")].join("\n"),
    )
    .unwrap();
    let output = lab(&["timeline", "--format", "json"])
        .args([
            OsStr::new("--rollout"),
            rollout.as_os_str(),
            OsStr::new("--load"),
            log.as_os_str(),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let timeline: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &timeline["rows"][0];
    assert_eq!(row["verdict"], "rolled-back (smoke said roll-back)");
    assert!(row["load"]["failed"].as_u64().unwrap() == 20, "{timeline}");
    assert_eq!(row["load"]["failed"], row["load"]["failed_by_release"]);
    assert!(
        timeline["outside"]["served"].as_u64().unwrap() == 20,
        "{timeline}"
    );
}

#[test]
fn lab_load_ends_at_sigterm_with_its_numbers() {
    let api = Process::start(&[("RELEASE", "v1")]);
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("load.jsonl");
    let child = lab(&[
        "load",
        "--format",
        "json",
        "--target",
        &format!("eu={}", api.url("")),
    ])
    .args([OsStr::new("--log"), log.as_os_str()])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    // Flushed every second: a reader that follows the log sees whole lines.
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')) {
        assert!(Instant::now() < deadline, "no line in the log");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        summary["regions"][0]["served"].as_u64().unwrap() >= 50,
        "{summary}"
    );
    assert_eq!(summary["regions"][0]["failed"], 0, "{summary}");
}

#[test]
fn lab_load_without_anything_to_measure_ends_with_2() {
    for arguments in [
        &["load", "--config", "/nonexistent/regions.toml"][..],
        &["load", "--target", "eu"],
        &["load", "--target", "eu=ftp://127.0.0.1"],
        &["load", "--rate", "0"],
        &[
            "timeline",
            "--rollout",
            "/nonexistent",
            "--load",
            "/nonexistent",
        ],
    ] {
        let output = lab(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}
