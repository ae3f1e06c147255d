use std::net::TcpListener;

use serde_json::Value;

use crate::process::{Process, client, refused};

#[test]
fn the_first_line_on_stdout_says_who_listens_where() {
    let api = Process::start(&[
        ("RELEASE", "v1"),
        ("REGION", "eu-central"),
        ("HOST", "eu-1"),
        ("SLOT", "blue"),
    ]);
    assert_eq!(api.started["release"], "v1");
    assert_eq!(api.started["slot"], "blue");
    assert_ne!(api.address.port(), 0);
}

#[test]
fn a_wrong_value_ends_with_2_and_one_line_that_names_it() {
    for (name, value) in [
        ("LISTEN_ADDRESS", "nowhere"),
        ("FAULT_BASIC", "maybe"),
        ("DEPENDENCIES", "payments"),
    ] {
        let (code, stderr) = refused(&[(name, value)]);
        assert_eq!(code, Some(2), "{stderr}");
        let line: Value = serde_json::from_str(&stderr).unwrap();
        assert!(
            line["caused_by"][0]
                .as_str()
                .unwrap()
                .contains(&format!("`{name}`")),
            "{line}"
        );
    }
}

#[test]
fn a_port_that_is_taken_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, stderr) = refused(&[("LISTEN_ADDRESS", &address)]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot listen on"), "{stderr}");
}

#[tokio::test]
async fn every_answer_names_its_release() {
    let api = Process::start(&[("RELEASE", "v7")]);
    let mut answers = Vec::new();
    for path in [
        "/",
        "/health/basic",
        "/health/db",
        "/health/full",
        "/nothing",
        "/users/x",
        "/slow?ms=x",
    ] {
        answers.push(api.get(path).await);
    }
    answers.push(client().delete(api.url("/echo")).send().await.unwrap());
    answers.push(
        client()
            .post(api.url("/echo"))
            .body(vec![b'x'; 100_000])
            .send()
            .await
            .unwrap(),
    );
    for answer in answers {
        let release = answer
            .headers()
            .get("x-release")
            .map(|value| value.to_str().unwrap());
        assert_eq!(release, Some("v7"), "{} {}", answer.status(), answer.url());
    }
}

#[tokio::test]
async fn the_front_page_shows_the_greeting_of_the_release() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "greeting = \"Guten Tag\"\n").unwrap();
    let api = Process::start(&[
        ("RELEASE", "v1"),
        ("CONFIG_FILE", file.path().to_str().unwrap()),
    ]);
    let page = api.json("/").await;
    assert_eq!(page["greeting"], "Guten Tag");
    assert_eq!(page["release"], "v1");
}
