//! Servers, and actions that take their time.

use serde_json::{Value, json};

use crate::world::{KEY, World, server, with};

#[test]
fn a_server_goes_from_initializing_to_running_as_its_actions_end() {
    let world = World::new();
    world.hetzner.project(|project| project.latency = 2);
    let made = world.post("/servers", &server("api-1"));
    assert_eq!(made.status, 201);
    let id = made.body["server"]["id"].as_u64().unwrap();
    assert_eq!(made.body["server"]["status"], "initializing");
    assert_eq!(made.body["action"]["command"], "create_server");
    assert_eq!(made.body["next_actions"][0]["command"], "start_server");
    let (create, start) = (
        &made.body["action"]["id"],
        &made.body["next_actions"][0]["id"],
    );
    let look = || {
        let actions = world.get(&format!("/actions?id={create}&id={start}"));
        let status = |at: usize| {
            actions.body["actions"][at]["status"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let server = world.hetzner.servers()[0].status;
        (status(0), status(1), server)
    };
    let words =
        |(one, other, server): (String, String, &'static str)| format!("{one} {other} {server}");
    assert_eq!(words(look()), "running running initializing");
    assert_eq!(words(look()), "running running starting");
    world
        .post(&format!("/servers/{id}/actions/poweroff"), &json!({}))
        .is(423, "locked");
    assert_eq!(words(look()), "success running starting");
    assert_eq!(words(look()), "success running running");
    assert_eq!(words(look()), "success success running");
    world.act(&format!("/servers/{id}/actions/poweroff"), &json!({}));
    world.get("/actions").is(422, "invalid_input");
}

#[test]
fn without_latency_everything_has_happened_when_it_is_answered() {
    let world = World::new();
    let made = world.post("/servers", &server("api-1"));
    assert_eq!(made.body["server"]["status"], "running");
    assert_eq!(made.body["action"]["status"], "success");
}

#[test]
fn a_server_without_keys_gets_a_password_and_what_it_was_given_is_shown_to_the_test() {
    let world = World::new();
    let made = world.post("/servers", &server("bare"));
    assert!(made.body["root_password"].is_string());
    let key = world.made("/ssh_keys", &json!({ "name": "ops", "public_key": KEY }));
    let more =
        json!({ "ssh_keys": ["ops"], "user_data": "#cloud-config\n", "labels": { "role": "api" } });
    let made = world.post("/servers", &with(server("api-1"), &more));
    assert_eq!(made.body["root_password"], Value::Null);
    let server = &world.hetzner.servers()[1];
    assert_eq!(server.user_data.as_deref(), Some("#cloud-config\n"));
    assert_eq!(server.ssh_keys, [key]);
    assert_eq!(server.labels["role"], "api");
}

#[test]
fn what_a_server_needs_must_be_there_and_fit() {
    let world = World::new();
    let refused = |more: Value, status: u16, code: &str| {
        world
            .post("/servers", &with(server("api-1"), &more))
            .is(status, code);
    };
    refused(json!({ "server_type": "cx99" }), 422, "invalid_input");
    refused(json!({ "location": "fra1" }), 422, "invalid_input");
    refused(json!({ "location": "ash" }), 422, "invalid_input");
    refused(json!({ "image": "debian-11" }), 422, "invalid_input");
    refused(json!({ "ssh_keys": ["nobody"] }), 422, "invalid_input");
    refused(
        json!({ "firewalls": [{ "firewall": 7 }] }),
        404,
        "not_found",
    );
    refused(
        json!({ "datacenter": "fsn1-dc14", "location": null }),
        422,
        "invalid_input",
    );
    refused(
        json!({ "user_data": "x".repeat(32_769) }),
        422,
        "invalid_input",
    );
    refused(
        json!({ "public_net": { "enable_ipv4": false, "enable_ipv6": false } }),
        422,
        "invalid_input",
    );
    refused(json!({ "server_type": "cx22" }), 422, "invalid_input");
    let elsewhere = world.made(
        "/volumes",
        &json!({ "name": "v", "size": 10, "location": "nbg1" }),
    );
    refused(json!({ "volumes": [elsewhere] }), 422, "invalid_input");
    assert!(world.hetzner.servers().is_empty());
    assert_eq!(
        world
            .post(
                "/servers",
                &with(server("api-1"), &json!({ "user_data": "x".repeat(32_768) }))
            )
            .status,
        201
    );
}

#[test]
fn stock_runs_out_by_type_and_location() {
    let world = World::new();
    world
        .hetzner
        .project(|project| project.catalogue.set_stock("cx23", "fsn1", Some(1)));
    world.server("api-1");
    world
        .post("/servers", &server("api-2"))
        .is(412, "resource_unavailable");
    world.made(
        "/servers",
        &with(server("api-2"), &json!({ "location": "nbg1" })),
    );
    world.made(
        "/servers",
        &with(server("api-3"), &json!({ "server_type": "cpx22" })),
    );
    assert_eq!(world.hetzner.created("servers"), 3);
}

#[test]
fn a_placement_group_takes_ten_servers_and_only_stopped_ones_join_later() {
    let world = World::new();
    let group = world.made(
        "/placement_groups",
        &json!({ "name": "spread", "type": "spread" }),
    );
    let member = |number: usize| {
        with(
            server(&format!("api-{number}")),
            &json!({ "placement_group": group }),
        )
    };
    for number in 0..9 {
        world.made("/servers", &member(number));
    }
    let late = world.server("late");
    let join = format!("/servers/{late}/actions/add_to_placement_group");
    let body = json!({ "placement_group": group });
    world.post(&join, &body).is(422, "server_not_stopped");
    world.act(&format!("/servers/{late}/actions/poweroff"), &json!({}));
    world.act(&join, &body);
    world
        .post("/servers", &member(10))
        .is(422, "placement_error");
    world
        .delete(&format!("/placement_groups/{group}"))
        .is(422, "resource_in_use");
    let shown = world.get(&format!("/placement_groups/{group}"));
    assert_eq!(
        shown.body["placement_group"]["servers"]
            .as_array()
            .unwrap()
            .len(),
        10
    );
}

#[test]
fn a_deleted_server_leaves_volumes_and_its_own_addresses_go() {
    let world = World::new();
    let kept =
        json!({ "name": "kept", "type": "ipv4", "assignee_type": "server", "location": "fsn1" });
    let kept = world.made("/primary_ips", &kept);
    let volume = world.made(
        "/volumes",
        &json!({ "name": "db", "size": 10, "location": "fsn1" }),
    );
    let firewall = world.made("/firewalls", &json!({ "name": "edge" }));
    let more = json!({
        "public_net": { "ipv4": kept }, "volumes": [volume], "firewalls": [{ "firewall": firewall }],
    });
    let id = world.made("/servers", &with(server("db-1"), &more));
    let shown = world.get(&format!("/servers/{id}"));
    assert_eq!(
        shown.body["server"]["public_net"]["ipv4"]["ip"],
        "203.0.113.1"
    );
    assert_eq!(shown.body["server"]["volumes"], json!([volume]));
    assert_eq!(
        shown.body["server"]["public_net"]["firewalls"][0]["id"],
        json!(firewall)
    );
    world
        .delete(&format!("/firewalls/{firewall}"))
        .is(422, "resource_in_use");
    world
        .delete(&format!("/volumes/{volume}"))
        .is(422, "resource_in_use");
    world
        .delete(&format!("/primary_ips/{kept}"))
        .is(422, "must_be_unassigned");
    world
        .hetzner
        .project(|project| assert_eq!(project.primary_ips.len(), 2));

    assert_eq!(
        world.delete(&format!("/servers/{id}")).body["action"]["command"],
        "delete_server"
    );
    world
        .hetzner
        .project(|project| assert_eq!(project.primary_ips.len(), 1));
    for path in [
        format!("/firewalls/{firewall}"),
        format!("/volumes/{volume}"),
        format!("/primary_ips/{kept}"),
    ] {
        assert_eq!(world.delete(&path).status, 204, "{path}");
    }
}

#[test]
fn a_server_is_rebuilt_and_rescaled_only_as_far_as_it_can_be() {
    let world = World::new();
    let id = world.server("api-1");
    let rebuild = format!("/servers/{id}/actions/rebuild");
    world
        .post(&rebuild, &json!({ "image": "debian-99" }))
        .is(422, "invalid_input");
    let body = json!({ "image": "debian-13", "user_data": "#cloud-config\nnew" });
    world.act(&rebuild, &body);
    assert_eq!(
        world.hetzner.servers()[0].user_data.as_deref(),
        Some("#cloud-config\nnew")
    );
    let change = format!("/servers/{id}/actions/change_type");
    let to = |name: &str| json!({ "server_type": name, "upgrade_disk": false });
    world
        .post(&change, &to("cpx32"))
        .is(422, "server_not_stopped");
    world.act(&format!("/servers/{id}/actions/poweroff"), &json!({}));
    world
        .post(&change, &to("cax21"))
        .is(422, "invalid_server_type");
    world.act(&change, &to("cpx32"));
    assert_eq!(world.hetzner.servers()[0].server_type, "cpx32");
    world.act(
        &format!("/servers/{id}/actions/change_protection"),
        &json!({ "delete": true, "rebuild": true }),
    );
    world.post(&rebuild, &body).is(423, "protected");
}
