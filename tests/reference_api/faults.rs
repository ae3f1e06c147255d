use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use reqwest::StatusCode;

use crate::process::{Process, client, command, eventually};

#[tokio::test]
async fn a_slow_start_refuses_connections_until_it_listens() {
    let start = Instant::now();
    let api = Process::start(&[("FAULT_START_DELAY", "700ms")]);
    assert!(start.elapsed() >= Duration::from_millis(700));
    assert_eq!(api.get("/health/basic").await.status(), 200);
}

#[test]
fn a_slow_start_can_be_stopped() {
    let mut child = command(&[("FAULT_START_DELAY", "1h")]).spawn().unwrap();
    let pid = child.id().to_string();
    let deadline = Instant::now() + Duration::from_secs(10);
    // Again and again, because the first may come before the process listens for it and then end it the hard way.
    let status = loop {
        std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success() || status.signal() == Some(15), "{status}");
}

#[tokio::test]
async fn a_crash_comes_after_healthy_answers() {
    let mut api = Process::start(&[("FAULT_CRASH_AFTER", "1s")]);
    assert_eq!(api.get("/health/basic").await.status(), 200);
    let status = api.ended_within(Duration::from_secs(10));
    assert_eq!(status.signal(), Some(6));
}

#[tokio::test]
async fn flapping_health_is_good_and_bad_in_turn() {
    let api = Process::start(&[("FAULT_FLAP", "200ms")]);
    let mut changes = Vec::new();
    eventually("good, bad, good, bad", async || {
        let status = api.get("/health/basic").await.status();
        if changes.last() != Some(&status) {
            changes.push(status);
        }
        (changes.len() >= 4).then_some(())
    })
    .await;
    assert_eq!(changes.iter().copied().collect::<BTreeSet<_>>().len(), 2);
    assert_eq!(api.get("/").await.status(), 200);
}

#[tokio::test]
async fn the_wanted_number_of_dependencies_fails() {
    let service = Process::start(&[]);
    let names = ["payments", "mail", "search", "geocoder", "tax"];
    let dependencies: Vec<String> = names
        .iter()
        .map(|name| format!("{name}={}", service.url("/")))
        .collect();
    let api = Process::start(&[
        ("DEPENDENCIES", &dependencies.join(";")),
        ("FAULT_FAILING_DEPENDENCIES", "3"),
    ]);
    let body = api.json("/health/full").await;
    let failing = body["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["status"] == "fail")
        .count();
    assert_eq!(failing, 3, "{body}");
}

#[tokio::test]
async fn one_business_answer_in_five_is_wrong_and_health_never() {
    let api = Process::start(&[("FAULT_WRONG_ANSWERS", "0.2")]);
    let mut wrong = 0;
    for _ in 0..50 {
        wrong += usize::from(api.get("/").await.status() == StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(api.get("/health/basic").await.status(), 200);
    }
    assert_eq!(wrong, 10);
}

#[tokio::test]
async fn basic_health_misbehaves_as_told() {
    let error = Process::start(&[("FAULT_BASIC", "500")]);
    assert_eq!(error.get("/health/basic").await.status(), 500);

    let redirect = Process::start(&[("FAULT_BASIC", "redirect")]);
    assert_eq!(redirect.get("/health/basic").await.status(), 302);

    let huge = Process::start(&[("FAULT_BASIC", "huge")]);
    assert_eq!(
        huge.get("/health/basic").await.bytes().await.unwrap().len(),
        10 * 1024 * 1024
    );

    for fault in ["hang", "slow"] {
        let api = Process::start(&[("FAULT_BASIC", fault)]);
        let answer = client()
            .get(api.url("/health/basic"))
            .timeout(Duration::from_millis(1_500))
            .send()
            .await;
        let whole = match answer {
            Ok(answer) => answer.bytes().await,
            Err(error) => Err(error),
        };
        assert!(whole.unwrap_err().is_timeout(), "{fault}");
        assert_eq!(api.get("/").await.status(), 200, "{fault}");
    }
}

#[tokio::test]
async fn a_wrong_release_is_claimed_in_header_and_body() {
    let api = Process::start(&[("RELEASE", "v2"), ("FAULT_WRONG_RELEASE", "1")]);
    let answer = api.get("/health/basic").await;
    assert_eq!(answer.headers()["x-release"], "not-v2");
    assert_eq!(
        answer.json::<serde_json::Value>().await.unwrap()["release"],
        "not-v2"
    );
}

#[tokio::test]
async fn a_release_that_is_bad_in_one_region_is_good_in_the_others() {
    let fault = [("FAULT_BASIC", "500"), ("FAULT_REGIONS", "eu-central")];
    let eu = Process::start(&[fault[0], fault[1], ("REGION", "eu-central")]);
    let asia = Process::start(&[fault[0], fault[1], ("REGION", "ap-singapore")]);
    assert_eq!(eu.get("/health/basic").await.status(), 500);
    assert_eq!(asia.get("/health/basic").await.status(), 200);
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_goes_on_answering() {
    let mut api = Process::start(&[("FAULT_IGNORE_SIGTERM", "1")]);
    api.signal("-TERM");
    // Longer than an idle process takes to end.
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until {
        assert_eq!(api.get("/").await.status(), 200);
    }
    assert!(!api.has_ended());
}
