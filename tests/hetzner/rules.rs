//! What holds for every request: token, limit, description, names, labels, pages.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{KEY, World, server, with};

#[test]
fn an_unknown_route_is_not_found_before_a_wrong_token_is_refused() {
    let world = World::new();
    let client = reqwest::Client::new();
    let status = |path: &str, token: &str| {
        let url = format!("{}{path}", world.hetzner.url());
        let sent = client.get(url).bearer_auth(token).send();
        world.runtime.block_on(sent).unwrap().status().as_u16()
    };
    assert_eq!(status("/servers", "wrong"), 401);
    assert_eq!(status("/serverz", "wrong"), 404);
    world.get("/serverz").is(404, "not_found");
    world
        .post("/actions", &json!({}))
        .is(405, "method_not_allowed");
    world.get("/servers/77").is(404, "not_found");
    world.get("/datacenters").is(410, "deprecated_api_endpoint");
    world.get("/zones").is(501, "unsupported_error");
}

#[test]
fn the_rate_limit_counts_down_refills_and_refuses() {
    let world = World::new();
    let first = world.get("/servers");
    assert_eq!(first.header("ratelimit-limit"), "3600");
    assert_eq!(first.header("ratelimit-remaining"), "3599");
    assert!(!first.header("x-correlation-id").is_empty());
    world.hetzner.limit(2, Duration::from_secs(3600));
    world.get("/servers");
    assert_eq!(world.get("/servers").header("ratelimit-remaining"), "0");
    let refused = world.get("/servers");
    refused.is(429, "rate_limit_exceeded");
    let reset: u64 = refused.header("ratelimit-reset").parse().unwrap();
    let before: u64 = first.header("ratelimit-reset").parse().unwrap();
    assert!(reset > before + 3600, "{reset} {before}");
    world.hetzner.limit(1, Duration::from_nanos(1));
    for _ in 0..5 {
        assert_eq!(world.get("/servers").status, 200);
    }
}

#[test]
fn what_the_description_does_not_allow_is_refused_by_field_and_recorded() {
    let world = World::new();
    let fields = |answer: &crate::world::Answer| -> Vec<String> {
        let fields = answer.body["error"]["details"]["fields"]
            .as_array()
            .unwrap()
            .iter();
        fields
            .map(|field| field["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let missing = world.post(
        "/servers",
        &json!({ "name": "api-1", "server_type": "cx23" }),
    );
    missing.is(422, "invalid_input");
    assert_eq!(fields(&missing), ["image"]);
    let nested = json!({ "public_net": { "enable_ipv4": "no" } });
    let nested = world.post("/servers", &with(server("api-1"), &nested));
    assert_eq!(
        fields(nested.is(422, "invalid_input")),
        ["public_net.enable_ipv4"]
    );
    world
        .send(world.request("POST", "/servers").body("{"))
        .unwrap()
        .is(400, "json_error");
    world
        .send(world.request("POST", "/servers"))
        .unwrap()
        .is(400, "json_error");
    let invalid = world.hetzner.invalid();
    let status: Vec<u16> = invalid.iter().map(|(seen, _)| seen.status).collect();
    assert_eq!(status, [422, 422, 400, 400]);
    assert!(invalid[0].1.contains("'image'"), "{invalid:?}");
    assert_eq!(world.hetzner.created("servers"), 0);
    // What is allowed is not recorded, whether or not it goes well.
    world.post(
        "/servers",
        &with(server("api-1"), &json!({ "server_type": "cx99" })),
    );
    world.server("api-1");
    assert_eq!(world.hetzner.invalid().len(), 4);
}

#[test]
fn what_nobody_described_is_recorded_but_not_refused() {
    let world = World::new();
    assert_eq!(world.get("/servers?labels=a").status, 200);
    world.made(
        "/servers",
        &with(server("api-1"), &json!({ "locaton": "nbg1" })),
    );
    let nested = json!({ "public_net": { "enable_ipv8": true } });
    world.made("/servers", &with(server("api-2"), &nested));
    let why: Vec<String> = world
        .hetzner
        .invalid()
        .into_iter()
        .map(|(_, why)| why)
        .collect();
    assert_eq!(
        why,
        [
            "nobody described labels",
            "nobody described locaton",
            "nobody described public_net.enable_ipv8"
        ]
    );
}

#[test]
fn a_name_is_used_once_per_kind_but_for_networks_and_can_be_changed() {
    let world = World::new();
    for (path, body) in [
        ("/servers", server("one")),
        ("/firewalls", json!({ "name": "one" })),
        (
            "/volumes",
            json!({ "name": "one", "size": 10, "location": "fsn1" }),
        ),
        (
            "/placement_groups",
            json!({ "name": "one", "type": "spread" }),
        ),
        ("/ssh_keys", json!({ "name": "one", "public_key": KEY })),
        (
            "/primary_ips",
            json!({ "name": "one", "type": "ipv4", "assignee_type": "server", "location": "fsn1" }),
        ),
        (
            "/load_balancers",
            json!({ "name": "one", "load_balancer_type": "lb11", "location": "fsn1" }),
        ),
    ] {
        let id = world.made(path, &body);
        let again = world.post(path, &body);
        if path == "/networks" {
            // The description says it of the others, and not of networks.
            assert_eq!(again.status, 201, "{}", again.text);
            let twin = again.body["network"]["id"].as_u64().unwrap();
            assert_eq!(world.delete(&format!("{path}/{twin}")).status, 204);
        } else {
            again.is(409, "uniqueness_error");
            assert_eq!(world.hetzner.created(path.trim_matches('/')), 1);
        }
        let listed = world.get(&format!("{path}?name=one"));
        assert_eq!(listed.names(path.trim_matches('/')), ["one"]);
        let changed = world.put(&format!("{path}/{id}"), &json!({ "name": "two" }));
        assert_eq!(changed.status, 200, "{}", changed.text);
        let listed = world.get(&format!("{path}?name=one"));
        assert!(listed.names(path.trim_matches('/')).is_empty());
    }
    let network = json!({ "name": "one", "ip_range": "10.0.0.0/16" });
    assert_ne!(
        world.made("/networks", &network),
        world.made("/networks", &network)
    );
    let again = json!({ "name": "other", "public_key": format!("{KEY} with-a-comment") });
    world.post("/ssh_keys", &again).is(409, "uniqueness_error");
    // No key at all, and one that says of itself that it is another.
    for wrong in [
        "ssh-ed25519 AAAA".to_owned(),
        KEY.replace("ssh-ed25519", "ssh-dss"),
    ] {
        let body = json!({ "name": "x", "public_key": wrong });
        world.post("/ssh_keys", &body).is(422, "invalid_input");
    }
}

#[test]
fn names_and_labels_keep_their_grammar() {
    let world = World::new();
    for name in ["api_1", "-api", "api-", "a..b", ""] {
        world
            .post("/servers", &server(name))
            .is(422, "invalid_input");
    }
    world.server("API-1.example.org");
    let long = json!({ "name": "v".repeat(65), "size": 10, "location": "fsn1" });
    world.post("/volumes", &long).is(422, "invalid_input");
    for labels in [
        json!({ "a b": "c" }),
        json!({ "role": "v".repeat(64) }),
        json!({ "hetzner.cloud/x": "y" }),
    ] {
        let body = json!({ "name": "one", "labels": labels });
        world.post("/firewalls", &body).is(422, "invalid_input");
    }
    assert!(world.hetzner.invalid().is_empty());
}

#[test]
fn lists_are_selected_by_labels_that_put_replaces() {
    let world = World::new();
    let labelled = |name: &str, labels: Value| {
        world.made("/firewalls", &json!({ "name": name, "labels": labels }))
    };
    let one = labelled("one", json!({ "role": "api", "env": "prod" }));
    labelled("two", json!({ "role": "db", "env": "prod" }));
    labelled("three", json!({}));
    let found = |selector: &str| {
        let path = format!("/firewalls?sort=name:asc&label_selector={selector}");
        world.get(&path).names("firewalls").join(" ")
    };
    assert_eq!(found("env=prod"), "one two");
    assert_eq!(found("env=prod,role!=db"), "one");
    assert_eq!(found("role+in+%28db%2Capi%29"), "one two");
    assert_eq!(found("%21role"), "three");
    world
        .get("/firewalls?label_selector=a%20b")
        .is(422, "invalid_input");
    world.put(
        &format!("/firewalls/{one}"),
        &json!({ "labels": { "role": "db" } }),
    );
    assert_eq!(found("role=db"), "one two");
    assert_eq!(found("env=prod"), "two");
}

#[test]
fn lists_have_pages_of_25_and_of_50_at_most() {
    let world = World::new();
    world.hetzner.project(|project| {
        for number in 0..60 {
            let body = json!({ "name": format!("firewall-{number}") });
            project.elsewhere("POST", "/firewalls", &body);
        }
    });
    let page = |query: &str| {
        let answer = world.get(&format!("/firewalls?{query}"));
        let pages = answer.body["meta"]["pagination"].clone();
        (answer.body["firewalls"].as_array().unwrap().len(), pages)
    };
    let (count, pages) = page("");
    assert_eq!(count, 25);
    let wanted = json!({ "page": 1, "per_page": 25, "previous_page": null, "next_page": 2, "last_page": 3, "total_entries": 60 });
    assert_eq!(pages, wanted);
    let (count, pages) = page("page=2&per_page=200");
    assert_eq!(
        (count, &pages["per_page"], &pages["next_page"]),
        (10, &json!(50), &Value::Null)
    );
    // Nobody's request is neither seen nor counted.
    assert_eq!(world.hetzner.created("firewalls"), 0);
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn what_is_protected_is_not_deleted() {
    let world = World::new();
    for (path, body, protection) in [
        (
            "/servers",
            server("one"),
            json!({ "delete": true, "rebuild": true }),
        ),
        (
            "/networks",
            json!({ "name": "one", "ip_range": "10.0.0.0/16" }),
            json!({ "delete": true }),
        ),
        (
            "/volumes",
            json!({ "name": "one", "size": 10, "location": "fsn1" }),
            json!({ "delete": true }),
        ),
        (
            "/load_balancers",
            json!({ "name": "one", "load_balancer_type": "lb11", "location": "fsn1" }),
            json!({ "delete": true }),
        ),
    ] {
        let one = format!("{path}/{}", world.made(path, &body));
        world.act(&format!("{one}/actions/change_protection"), &protection);
        world.delete(&one).is(423, "protected");
        let off = json!({ "delete": false });
        let off = if path == "/servers" {
            with(off, &json!({ "rebuild": false }))
        } else {
            off
        };
        world.act(&format!("{one}/actions/change_protection"), &off);
        assert!(world.delete(&one).status < 300);
        world.get(&one).is(404, "not_found");
    }
}
