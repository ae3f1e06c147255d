//! Bad days: each kind of fault, and a hold at which a client can be killed.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use regionwise_lab::hetzner::{Counted, Fault, Kind};
use serde_json::{Value, json};

use crate::world::{TOKEN, World, server};

#[test]
fn a_refusal_befalls_the_requests_it_is_meant_for_and_does_nothing() {
    let world = World::new();
    for (status, code) in [
        (401, "unauthorized"),
        (403, "maintenance"),
        (409, "conflict"),
        (412, "resource_unavailable"),
        (422, "placement_error"),
        (423, "locked"),
        (500, "server_error"),
        (503, "unavailable"),
    ] {
        world.hetzner.fail(Fault::after(
            1,
            2,
            "POST",
            "/firewalls",
            Kind::Refused(status, code),
        ));
        let post =
            |name: &str| world.post("/firewalls", &json!({ "name": format!("{name}-{code}") }));
        assert_eq!(post("before").status, 201);
        post("one").is(status, code);
        assert_eq!(world.get("/firewalls").status, 200);
        post("one").is(status, code);
        assert_eq!(post("one").status, 201);
    }
    assert_eq!(world.hetzner.created("firewalls"), 16);
}

#[test]
fn a_limit_names_itself_and_a_rate_limit_its_end() {
    let world = World::new();
    world.hetzner.fail(Fault::once(
        "POST",
        "/servers",
        Kind::LimitExceeded("server_limit"),
    ));
    let limited = world.post("/servers", &server("one"));
    limited.is(403, "resource_limit_exceeded");
    assert_eq!(
        limited.body["error"]["details"],
        json!({ "limits": [{ "name": "server_limit" }] })
    );
    let usual: u64 = world
        .get("/servers")
        .header("ratelimit-reset")
        .parse()
        .unwrap();
    world
        .hetzner
        .fail(Fault::once("GET", "/servers", Kind::RateLimit(900)));
    let limited = world.get("/servers");
    limited.is(429, "rate_limit_exceeded");
    assert_eq!(limited.header("ratelimit-remaining"), "0");
    let reset: u64 = limited.header("ratelimit-reset").parse().unwrap();
    assert!(reset > usual + 800, "{reset} {usual}");
    world
        .hetzner
        .fail(Fault::times(9, "GET", "/servers", Kind::RateLimit(900)));
    world.hetzner.recover();
    assert_eq!(world.get("/servers").status, 200);
}

#[test]
fn a_gateway_answers_in_html_before_anything_is_done() {
    let world = World::new();
    world
        .hetzner
        .fail(Fault::once("POST", "/servers", Kind::GatewayBefore(502)));
    let answer = world.post("/servers", &server("one"));
    assert_eq!((answer.status, answer.body.clone()), (502, Value::Null));
    assert_eq!(world.hetzner.created("servers"), 0);
}

#[test]
fn after_a_timeout_and_after_a_cut_everything_was_done() {
    let world = World::new();
    world
        .hetzner
        .fail(Fault::once("POST", "/servers", Kind::TimeoutAfter));
    world.post("/servers", &server("one")).is(504, "timeout");
    world
        .post("/servers", &server("one"))
        .is(409, "uniqueness_error");
    world
        .hetzner
        .fail(Fault::once("POST", "/servers", Kind::CutAfter));
    let cut = world.send(world.request("POST", "/servers").json(&server("two")));
    assert!(cut.is_err());
    world
        .hetzner
        .fail(Fault::once("POST", "/servers", Kind::SilentAfter));
    let silent = world.request("POST", "/servers").json(&server("three"));
    let silent = world.send(silent.timeout(Duration::from_millis(300)));
    assert!(silent.err().unwrap().is_timeout());
    assert_eq!(world.hetzner.created("servers"), 3);
}

#[test]
fn an_action_fails_or_never_ends_and_its_effect_stays_out() {
    let world = World::new();
    world.hetzner.fail(Fault::once(
        "POST",
        "/servers",
        Kind::ActionFails("server_error"),
    ));
    let made = world.post("/servers", &server("one"));
    assert_eq!(made.status, 201);
    assert_eq!(made.body["action"]["error"]["code"], "server_error");
    assert_eq!(made.body["next_actions"][0]["status"], "error");
    assert_eq!(world.hetzner.servers()[0].status, "initializing");
    let volume = world.made(
        "/volumes",
        &json!({ "name": "db", "size": 10, "location": "fsn1" }),
    );
    let two = world.server("two");
    world
        .hetzner
        .fail(Fault::once("POST", "/attach", Kind::ActionNeverEnds));
    let started = world.act(
        &format!("/volumes/{volume}/actions/attach"),
        &json!({ "server": two }),
    );
    let id = &started.body["action"]["id"];
    for _ in 0..5 {
        assert_eq!(
            world.get(&format!("/actions/{id}")).body["action"]["status"],
            "running"
        );
    }
    world
        .hetzner
        .project(|project| assert_eq!(project.volumes[0].server, None));
    world
        .delete(&format!("/volumes/{volume}"))
        .is(423, "locked");
}

#[test]
fn answers_lack_keys_and_have_words_that_nobody_knew() {
    let world = World::new();
    world.server("one");
    world
        .hetzner
        .fail(Fault::once("GET", "/servers", Kind::Missing("labels")));
    let answer = world.get("/servers");
    assert!(!answer.text.contains("\"labels\"") && answer.text.contains("\"name\""));
    world.hetzner.fail(Fault::once(
        "GET",
        "/servers",
        Kind::Unknown("status", "hibernating"),
    ));
    assert_eq!(
        world.get("/servers").body["servers"][0]["status"],
        "hibernating"
    );
    assert_eq!(
        world.get("/servers").body["servers"][0]["status"],
        "running"
    );
}

#[test]
fn pages_have_no_totals_or_no_end() {
    let world = World::new();
    world
        .hetzner
        .fail(Fault::once("GET", "/servers", Kind::NullTotals));
    let pages = world.get("/servers").body["meta"]["pagination"].clone();
    assert_eq!(
        (&pages["last_page"], &pages["total_entries"]),
        (&Value::Null, &Value::Null)
    );
    world
        .hetzner
        .fail(Fault::times(2, "GET", "/servers", Kind::EndlessPages));
    for page in [1, 70] {
        let answer = world.get(&format!("/servers?page={page}"));
        assert_eq!(
            answer.body["meta"]["pagination"]["next_page"],
            json!(page + 1)
        );
    }
}

#[test]
fn a_hold_carries_out_the_nth_write_answers_nobody_and_lets_go() {
    let world = World::new();
    let held = world.hetzner.hold_after(2, Counted::Writes);
    assert_eq!(
        world.post("/firewalls", &json!({ "name": "one" })).status,
        201
    );
    assert_eq!(world.get("/firewalls").status, 200);
    let short = Duration::from_millis(300);
    let post = |name: &str| {
        let request = world
            .request("POST", "/firewalls")
            .json(&json!({ "name": name }));
        world
            .send(request.timeout(short))
            .map(|answer| answer.status)
    };
    assert!(post("two").unwrap_err().is_timeout());
    let reached = held.reached(Duration::from_secs(5)).unwrap();
    assert_eq!((reached.path.as_str(), reached.status), ("/firewalls", 201));
    assert_eq!(reached.body["name"], "two");
    // Nothing more is done until the hold ends, so a client that is slow to die leaves no more behind.
    assert!(post("three").unwrap_err().is_timeout());
    assert_eq!(world.hetzner.created("firewalls"), 2);
    drop(held);
    assert_eq!(post("three").unwrap(), 201);
    let seen: Vec<String> = world
        .hetzner
        .seen()
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.status))
        .collect();
    assert_eq!(seen, ["POST 201", "GET 200", "POST 201", "POST 201"]);
}

#[test]
fn a_client_is_killed_at_a_hold_and_the_next_one_finds_what_it_left() {
    let world = World::new();
    let held = world.hetzner.hold_after(1, Counted::Writes);
    let mut client = Command::new("curl")
        .args([
            "--silent",
            "--header",
            &format!("authorization: Bearer {TOKEN}"),
        ])
        .args(["--data", &server("one").to_string()])
        .arg(format!("{}/servers", world.hetzner.url()))
        .spawn()
        .unwrap();
    held.reached(Duration::from_secs(10)).unwrap();
    assert!(client.try_wait().unwrap().is_none(), "curl was answered");
    client.kill().unwrap();
    client.wait().unwrap();
    drop(held);
    assert_eq!(world.get("/servers?name=one").names("servers"), ["one"]);
    world
        .post("/servers", &server("one"))
        .is(409, "uniqueness_error");
}

#[test]
fn a_hold_counts_every_request_when_it_is_told_to() {
    let world = World::new();
    let held = world.hetzner.hold_after(1, Counted::Requests);
    let request = world
        .request("GET", "/servers")
        .timeout(Duration::from_millis(300));
    assert!(world.send(request).is_err());
    assert_eq!(
        held.reached(Duration::from_secs(5)).unwrap().path,
        "/servers"
    );
}

#[test]
fn nothing_answers_any_more_once_it_is_dropped() {
    let World {
        hetzner, runtime, ..
    } = World::new();
    let address = hetzner.url().replace("http://", "").replace("/v1", "");
    assert!(TcpStream::connect(&address).is_ok());
    drop(hetzner);
    drop(runtime);
    assert!(TcpStream::connect(&address).is_err());
}
