//! The product with its databases: `scripts/integration-tests` in every region, and what only shows from inside.

use std::process::{Command, Output};
use std::time::Duration;

use assert_cmd::assert::OutputAssertExt;
use regionwise_lab::control::ProcessAction;
use regionwise_lab::load::{Load, Rate, Target};
use serde_json::{Value, json};

use crate::process::{Process, client, command, eventually};
use crate::world::{alone, on_host, shared};

const HOSTS: [&str; 3] = ["us-1", "eu-1", "sin-1"];

fn integration_tests(arguments: &[&str]) -> Output {
    Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/scripts/integration-tests"
    ))
    .args(arguments)
    .output()
    .unwrap()
}

/// In a thread of its own, so that the test's other tasks go on.
async fn tested(api: &Process) -> Output {
    let url = api.url("");
    tokio::task::spawn_blocking(move || integration_tests(&[&url, "--release", "v1"]))
        .await
        .unwrap()
}

fn all_passed(output: &Output) -> bool {
    output.status.code() == Some(0)
        && String::from_utf8_lossy(&output.stdout).ends_with("16 passed, 0 failed\n")
}

async fn new_user(api: &Process) -> i64 {
    let email = format!("user-{}@shop.example", unique());
    let body = json!({"email": email, "name": "Ada", "billing_country": "DE"});
    let answer = client()
        .post(api.url("/users"))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    answer.json::<Value>().await.unwrap()["id"]
        .as_i64()
        .unwrap()
}

fn unique() -> String {
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!("{}-{}", std::process::id(), time.as_nanos())
}

async fn lag_ms(api: &Process) -> Option<f64> {
    api.json("/health/db").await["replication"]["lag_ms"].as_f64()
}

#[tokio::test]
async fn the_public_behaviour_holds_in_every_region() {
    let lab = shared().await;
    for host in HOSTS {
        let api = on_host(&lab, host, &[("RELEASE", "v1")]);
        let output = tested(&api).await;
        assert!(all_passed(&output), "{host}: {output:?}");
    }
}

#[tokio::test]
async fn a_user_sees_her_own_writes_also_while_the_standby_stands_still() {
    let lab = alone().await;
    let api = on_host(&lab, "sin-1", &[("RELEASE", "v1")]);
    lab.standby("us-sin").hold().unwrap();
    let output = tested(&api).await;
    lab.standby("us-sin").release().unwrap();
    assert!(all_passed(&output), "{output:?}");
}

#[tokio::test]
async fn the_cookie_of_a_write_makes_lists_come_from_the_writer() {
    let lab = alone().await;
    let api = on_host(&lab, "eu-1", &[]);
    let user = new_user(&api).await;
    let orders = api.url(&format!("/users/{user}/orders"));
    let (mut reader, sql) = (None, "SELECT count(*) FROM users WHERE id = $1");
    eventually("the user is on the standby", async || {
        if reader.is_none() {
            let url = &lab.env()["LAB_EU_NBG_ADMIN_DSN"];
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
                .await
                .unwrap();
            tokio::spawn(connection);
            reader = Some(client);
        }
        let row = reader.as_ref()?.query_one(sql, &[&user]).await.unwrap();
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    lab.standby("eu-nbg").hold().unwrap();
    let placed = client()
        .post(&orders)
        .header(
            "idempotency-key",
            format!("00000000-0000-4000-9000-{user:012}"),
        )
        .json(&json!({"item": "book", "amount_cents": 100}))
        .send()
        .await
        .unwrap();
    let cookie = placed.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let listed = async |request: reqwest::RequestBuilder| {
        let body: Value = request.send().await.unwrap().json().await.unwrap();
        body["orders"].as_array().unwrap().len()
    };
    let with_cookie = listed(client().get(&orders).header("cookie", cookie)).await;
    let without = listed(client().get(&orders)).await;
    lab.standby("eu-nbg").release().unwrap();
    assert_eq!(
        (placed.status().as_u16(), with_cookie, without),
        (201, 1, 0)
    );
}

#[test]
fn the_integration_tests_tell_broken_from_not_seen_and_from_wrongly_called() {
    let broken = Process::start(&[("RELEASE", "v1"), ("FAULT_WRONG_ANSWERS", "1")]);
    let output = integration_tests(&[&broken.url("")]);
    assert_eq!(output.status.code(), Some(11), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("FAIL  the front page greets"),
        "{output:?}"
    );

    let other_release = Process::start(&[("RELEASE", "v1")]);
    assert_eq!(
        integration_tests(&[&other_release.url(""), "--release", "v2"])
            .status
            .code(),
        Some(11)
    );

    assert_eq!(
        integration_tests(&["http://127.0.0.1:9"]).status.code(),
        Some(10)
    );
    assert_eq!(integration_tests(&["127.0.0.1:9"]).status.code(), Some(2));
}

#[tokio::test]
async fn health_shows_the_databases_of_each_region_and_every_dependency() {
    let lab = shared().await;
    for (host, replica) in [
        ("us-1", None),
        ("eu-1", Some("eu-nbg")),
        ("sin-1", Some("us-sin")),
    ] {
        let api = on_host(&lab, host, &[]);
        let db = eventually("the databases answer and lag is known", async || {
            let db = api.json("/health/db").await;
            let known = replica.is_none() || db["replication"]["lag_ms"].is_f64();
            (db["status"] == "ok" && known).then_some(db)
        })
        .await;
        match replica {
            Some(replica) => {
                let replication = &db["replication"];
                let number = |name: &str| replication[name].as_f64().unwrap();
                assert_eq!(replication["replica"], replica, "{host}");
                assert!(
                    number("lag_min_ms") <= number("lag_ms")
                        && number("lag_ms") <= number("lag_max_ms"),
                    "{db}"
                );
            }
            None => assert_eq!(db["replication"], json!(null), "{host}"),
        }
        let full = eventually("every dependency answers", async || {
            let answer = api.get("/health/full").await;
            (answer.status() == 200).then_some(answer.json::<Value>().await.unwrap())
        })
        .await;
        let dependencies = full["dependencies"].as_array().unwrap();
        let names: Vec<_> = dependencies
            .iter()
            .map(|dependency| dependency["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "postgres", "redis", "payments", "mail", "search", "geocoder", "tax"
            ],
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_dependency_that_is_down_is_named() {
    let lab = alone().await;
    let api = on_host(&lab, "us-1", &[]);
    lab.dependency("search", false).unwrap();
    let answer = api.get("/health/full").await;
    lab.dependency("search", true).unwrap();
    assert_eq!(answer.status(), 503);
    let body: Value = answer.json().await.unwrap();
    let failing: Vec<_> = body["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["status"] == "fail")
        .collect();
    assert_eq!(failing.len(), 1, "{body}");
    assert_eq!(
        (&failing[0]["name"], &failing[0]["reason"]),
        (&json!("search"), &json!("status 503"))
    );
}

#[tokio::test]
async fn lag_rises_while_the_standby_stands_still_and_ends_when_it_goes_on() {
    let lab = alone().await;
    let api = on_host(&lab, "eu-1", &[]);
    eventually("lag is small", async || {
        lag_ms(&api).await.filter(|lag| *lag < 200.0)
    })
    .await;
    lab.standby("eu-nbg").hold().unwrap();
    let first = eventually("lag is over 500 ms", async || {
        lag_ms(&api).await.filter(|lag| *lag > 500.0)
    })
    .await;
    let later = eventually("lag rises", async || {
        lag_ms(&api).await.filter(|lag| *lag > first + 500.0)
    })
    .await;
    let db = api.json("/health/db").await;
    assert_eq!(db["status"], "ok", "lag is the gate's to judge: {db}");
    assert!(
        db["replication"]["lag_min_ms"].as_f64().unwrap() > later - 700.0,
        "not only an upper bound: {db}"
    );
    lab.standby("eu-nbg").release().unwrap();
    eventually("lag is small again", async || {
        lag_ms(&api).await.filter(|lag| *lag < 200.0)
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_is_gone_makes_lag_unknown_not_zero() {
    let lab = alone().await;
    let api = on_host(&lab, "eu-1", &[]);
    eventually("lag is known", async || lag_ms(&api).await).await;
    lab.process("eu-nbg", ProcessAction::Kill).unwrap();
    let db = eventually("the reader fails", async || {
        let db = api.json("/health/db").await;
        (db["reader"]["status"] == "fail" && db["replication"]["lag_ms"].is_null()).then_some(db)
    })
    .await;
    lab.process("eu-nbg", ProcessAction::Start).unwrap();
    assert_eq!(
        (&db["status"], &db["writer"]["status"]),
        (&json!("fail"), &json!("ok"))
    );
    assert!(db["replication"]["reason"].is_string(), "{db}");
    eventually("lag is known again", async || lag_ms(&api).await).await;
}

#[tokio::test]
async fn the_product_comes_back_after_its_bouncer_and_its_primary() {
    let lab = alone().await;
    let api = on_host(&lab, "us-1", &[("RELEASE", "v1")]);
    let user = new_user(&api).await;
    let path = format!("/users/{user}");
    for part in ["us-east/pgbouncer", "us-primary"] {
        lab.process(part, ProcessAction::Kill).unwrap();
        eventually("reads fail", async || {
            (api.get(&path).await.status() == 503).then_some(())
        })
        .await;
        lab.process(part, ProcessAction::Start).unwrap();
        eventually("reads work", async || {
            (api.get(&path).await.status() == 200).then_some(())
        })
        .await;
    }
    let output = tested(&api).await;
    assert!(all_passed(&output), "{output:?}");
}

#[tokio::test]
async fn one_key_sent_many_times_at_once_places_one_order() {
    let lab = alone().await;
    // Two processes, as behind a load balancer; more requests than either has connections.
    let apis = [on_host(&lab, "us-1", &[]), on_host(&lab, "us-2", &[])];
    let user = new_user(&apis[0]).await;
    let key = format!("00000000-0000-4000-8000-{user:012}");
    let client = client();
    let requests = (0..60).map(|number| {
        client
            .post(apis[number % 2].url(&format!("/users/{user}/orders")))
            .header("idempotency-key", &key)
            .json(&json!({"item": "book", "amount_cents": 100}))
            .send()
    });
    let mut created = 0;
    let mut ids = Vec::new();
    for answer in futures_util::future::join_all(requests).await {
        let answer = answer.unwrap();
        created += usize::from(answer.status() == 201);
        assert!(answer.status().is_success(), "{}", answer.status());
        ids.push(
            answer.json::<Value>().await.unwrap()["id"]
                .as_i64()
                .unwrap(),
        );
    }
    ids.dedup();
    assert_eq!((created, ids.len()), (1, 1));
}

#[tokio::test]
async fn load_with_writes_in_three_regions_loses_nothing() {
    let lab = alone().await;
    let apis = HOSTS.map(|host| on_host(&lab, host, &[("RELEASE", "v1")]));
    // What an earlier test broke may still be coming back.
    for api in &apis {
        eventually("the databases answer", async || {
            (api.get("/health/db").await.status() == 200).then_some(())
        })
        .await;
    }
    let targets = HOSTS.iter().zip(&apis).map(|(host, api)| Target {
        region: (*host).to_owned(),
        url: api.url("/").parse().unwrap(),
    });
    let load = Load {
        targets: targets.collect(),
        rate: Rate::parse("30/s").unwrap(),
        duration: Some(Duration::from_secs(4)),
        writes: true,
        log: None,
    };
    let summary = load.run(std::future::pending()).await.unwrap();
    assert_eq!(summary.failed(), 0, "{summary:?}");
    assert!(
        summary.regions.iter().all(|region| region.served == 120),
        "{summary:?}"
    );
}

#[tokio::test]
async fn a_stopped_process_takes_its_heartbeat_row_with_it() {
    let lab = shared().await;
    // A cluster name nobody else writes under.
    let mut api = on_host(&lab, "sin-1", &[("CLUSTER", "row-test")]);
    let rows = async || {
        let (client, connection) =
            tokio_postgres::connect(&lab.env()["LAB_US_PRIMARY_DSN"], tokio_postgres::NoTls)
                .await
                .unwrap();
        tokio::spawn(connection);
        let sql = "SELECT count(*) FROM regionwise.heartbeat WHERE cluster = 'row-test'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    eventually("the row is there", async || {
        (rows().await == 1).then_some(())
    })
    .await;
    api.signal("-TERM");
    assert!(api.ended_within(Duration::from_secs(10)).success());
    assert_eq!(rows().await, 0);
}

#[tokio::test]
async fn a_migration_can_run_again_and_refuses_ids_that_would_meet_another_cluster() {
    let lab = shared().await;
    let migrate = |offset: &str| {
        command(&[("WRITE_DATABASE_URL", &lab.env()["LAB_EU_PRIMARY_ADMIN_DSN"])])
            .args(["migrate", "--id-step", "2", "--id-offset", offset])
            .output()
            .unwrap()
    };
    let again = migrate("2");
    again.clone().assert().success();
    let result: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        (&result["migrated"], &result["heartbeat"]),
        (&json!(true), &json!("exists"))
    );

    let other = migrate("1");
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    assert!(
        String::from_utf8_lossy(&other.stderr).contains("ids of `users` start at 2 with step 2"),
        "{other:?}"
    );
}
