use serde_json::json;

use crate::process::Process;

#[tokio::test]
async fn basic_says_who_answers() {
    let api = Process::start(&[
        ("RELEASE", "v1"),
        ("REGION", "eu-central"),
        ("HOST", "eu-1"),
        ("SLOT", "blue"),
    ]);
    let wanted = json!({"status": "ok", "release": "v1", "region": "eu-central", "host": "eu-1", "slot": "blue"});
    assert_eq!(api.json("/health/basic").await, wanted);
}

#[tokio::test]
async fn without_a_database_nothing_is_said_to_be_fine() {
    let api = Process::start(&[]);
    for path in ["/health/db", "/users/1", "/orders/1", "/users/1/orders"] {
        let answer = api.get(path).await;
        assert_eq!(answer.status(), 503, "{path}");
        assert_eq!(
            answer.json::<serde_json::Value>().await.unwrap()["error"]["code"],
            "not-configured",
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_database_fails_and_its_lag_is_unknown() {
    // The discard port: nothing listens.
    let url = "postgresql://shop:secret@127.0.0.1:9/shop";
    let api = Process::start(&[
        ("WRITE_DATABASE_URL", url),
        ("READ_DATABASE_URL", url),
        ("READ_REPLICA", "us-sin"),
    ]);
    let answer = api.get("/health/db").await;
    assert_eq!(answer.status(), 503);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(
        (&body["status"], &body["writer"]["status"]),
        (&json!("fail"), &json!("fail"))
    );
    assert_eq!(body["replication"]["replica"], "us-sin");
    assert_eq!(body["replication"]["lag_ms"], json!(null));
    assert!(body["replication"]["reason"].is_string(), "{body}");
    assert!(!body.to_string().contains("secret"), "{body}");
}

#[tokio::test]
async fn full_names_every_dependency_and_the_one_that_fails() {
    let payments = Process::start(&[]);
    // Answers 503 while there is no database.
    let mail = Process::start(&[]);
    let dependencies = format!(
        "payments={};mail={};tax=http://127.0.0.1:9/",
        payments.url("/health/basic"),
        mail.url("/health/db")
    );
    let api = Process::start(&[
        ("DEPENDENCIES", &dependencies),
        ("REDIS_URL", "redis://127.0.0.1:9/"),
    ]);
    let answer = api.get("/health/full").await;
    assert_eq!(answer.status(), 503);
    let body: serde_json::Value = answer.json().await.unwrap();
    let found: Vec<_> = body["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|dependency| {
            (
                dependency["name"].as_str().unwrap(),
                dependency["status"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("redis", "fail"),
            ("payments", "ok"),
            ("mail", "fail"),
            ("tax", "fail")
        ]
    );
    assert_eq!(body["dependencies"][2]["reason"], "status 503");
}

#[tokio::test]
async fn full_is_ok_when_every_dependency_answers() {
    let payments = Process::start(&[]);
    let api = Process::start(&[("DEPENDENCIES", &format!("payments={}", payments.url("/")))]);
    let answer = api.get("/health/full").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.json::<serde_json::Value>().await.unwrap()["status"],
        "ok"
    );
}

#[tokio::test]
async fn a_dependency_that_hangs_fails_before_the_caller_gives_up() {
    let hanging = Process::start(&[("FAULT_BASIC", "hang")]);
    let api = Process::start(&[(
        "DEPENDENCIES",
        &format!("payments={}", hanging.url("/health/basic")),
    )]);
    let start = std::time::Instant::now();
    let body = api.json("/health/full").await;
    assert_eq!(body["dependencies"][0]["reason"], "no answer within 800 ms");
    assert!(
        start.elapsed() < std::time::Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}
