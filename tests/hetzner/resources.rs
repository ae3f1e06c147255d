//! Networks, firewalls, volumes and primary IPs.

use serde_json::{Value, json};

use crate::world::{World, server, with};

fn network(world: &World) -> u64 {
    world.made(
        "/networks",
        &json!({ "name": "mesh", "ip_range": "10.0.0.0/16", "subnets": [
            { "type": "cloud", "ip_range": "10.0.1.0/24", "network_zone": "eu-central" },
        ]}),
    )
}

#[test]
fn a_subnet_lies_within_its_network_beside_the_others() {
    let world = World::new();
    for range in ["8.8.0.0/16", "10.0.0.1/16", "10.0.0.0/7", "nonsense"] {
        world
            .post("/networks", &json!({ "name": "x", "ip_range": range }))
            .is(422, "invalid_input");
    }
    let id = network(&world);
    let add = |range: &str, zone: &str| {
        let body = json!({ "type": "cloud", "ip_range": range, "network_zone": zone });
        world.post(&format!("/networks/{id}/actions/add_subnet"), &body)
    };
    add("10.1.0.0/24", "us-east").is(422, "invalid_input");
    add("10.0.1.128/25", "us-east").is(422, "invalid_input");
    add("10.0.2.0/24", "mars").is(422, "invalid_input");
    assert_eq!(add("10.0.2.0/24", "us-east").status, 201);
    let without = json!({ "type": "cloud", "network_zone": "ap-southeast" });
    world.act(&format!("/networks/{id}/actions/add_subnet"), &without);
    let shown = world.get(&format!("/networks/{id}"));
    let subnet = &shown.body["network"]["subnets"][2];
    assert_eq!(
        (&subnet["ip_range"], &subnet["gateway"]),
        (&json!("10.0.0.0/24"), &json!("10.0.0.1"))
    );
    let shrink = json!({ "ip_range": "10.0.0.0/20" });
    world
        .post(&format!("/networks/{id}/actions/change_ip_range"), &shrink)
        .is(422, "invalid_input");
}

#[test]
fn a_server_gets_an_address_only_in_a_subnet_of_its_zone() {
    let world = World::new();
    let id = network(&world);
    let american = json!({ "name": "us-1", "server_type": "cpx31", "image": "debian-12", "location": "ash", "networks": [id] });
    world
        .post("/servers", &american)
        .is(422, "no_subnet_available");
    world.made(
        "/servers",
        &with(server("eu-1"), &json!({ "networks": [id] })),
    );
    let late = world.server("eu-2");
    let attach = format!("/servers/{late}/actions/attach_to_network");
    world
        .post(&attach, &json!({ "network": id, "ip": "10.0.1.1" }))
        .is(422, "ip_not_available");
    world.act(&attach, &json!({ "network": id, "ip": "10.0.1.7" }));
    world
        .post(&attach, &json!({ "network": id }))
        .is(422, "server_already_attached");
    let ips: Vec<String> = world
        .hetzner
        .servers()
        .iter()
        .map(|server| server.private_nets[0].ip.to_string())
        .collect();
    assert_eq!(ips, ["10.0.1.1", "10.0.1.7"]);
    let subnet = json!({ "ip_range": "10.0.1.0/24" });
    world
        .post(&format!("/networks/{id}/actions/delete_subnet"), &subnet)
        .is(422, "resource_in_use");
    world.act(
        &format!("/servers/{late}/actions/detach_from_network"),
        &json!({ "network": id }),
    );
    assert_eq!(world.delete(&format!("/networks/{id}")).status, 204);
    assert!(world.hetzner.servers()[0].private_nets.is_empty());
}

#[test]
fn the_first_address_of_a_network_and_the_gateway_of_all_servers_are_nobodys() {
    let world = World::new();
    for (name, range, subnet, reserved) in [
        ("ten", "10.0.0.0/16", "10.0.0.0/24", "10.0.0.1"),
        ("other", "172.16.0.0/12", "172.31.1.0/24", "172.31.1.1"),
    ] {
        let subnet = json!({ "type": "cloud", "ip_range": subnet, "network_zone": "eu-central" });
        let body = json!({ "name": name, "ip_range": range, "subnets": [subnet] });
        let network = world.made("/networks", &body);
        let server = world.server(name);
        let attach = format!("/servers/{server}/actions/attach_to_network");
        let body = json!({ "network": network, "ip": reserved });
        world.post(&attach, &body).is(422, "ip_not_available");
        world.act(&attach, &json!({ "network": network }));
        let server = world.get(&format!("/servers/{server}"));
        let ip = server.body["server"]["private_net"][0]["ip"].clone();
        assert_eq!(ip, reserved.replace(".1.1", ".1.2").replace(".0.1", ".0.2"));
    }
}

#[test]
fn two_servers_that_join_at_once_get_two_addresses() {
    let world = World::new();
    let id = network(&world);
    let servers = [world.server("eu-1"), world.server("eu-2")];
    world.hetzner.project(|project| project.latency = 1);
    for server in servers {
        world.act(
            &format!("/servers/{server}/actions/attach_to_network"),
            &json!({ "network": id }),
        );
    }
    world.get("/servers");
    let ips: Vec<String> = world
        .hetzner
        .servers()
        .iter()
        .map(|server| server.private_nets[0].ip.to_string())
        .collect();
    assert_eq!(ips, ["10.0.1.1", "10.0.1.2"]);
}

#[test]
fn firewall_rules_are_complete_and_apply_to_servers_and_selectors() {
    let world = World::new();
    let rule = |more: Value| {
        with(
            json!({ "direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["192.0.2.1/32"] }),
            &more,
        )
    };
    let id = world.made(
        "/firewalls",
        &json!({ "name": "edge", "rules": [rule(json!({}))] }),
    );
    let set = |rules: &Value| {
        world.post(
            &format!("/firewalls/{id}/actions/set_rules"),
            &json!({ "rules": rules }),
        )
    };
    for wrong in [
        json!({ "source_ips": [] }),
        json!({ "source_ips": ["192.0.2.1/24"] }),
        json!({ "source_ips": ["everywhere"] }),
        json!({ "port": "0" }),
        json!({ "port": "90-80" }),
        json!({ "protocol": "icmp" }),
        json!({ "protocol": "ipip" }),
        json!({ "direction": "out" }),
    ] {
        set(&json!([rule(wrong.clone())])).is(422, "invalid_input");
    }
    let many: Vec<Value> = (0..51).map(|_| rule(json!({}))).collect();
    set(&json!(many)).is(422, "invalid_input");
    assert_eq!(
        set(&json!([rule(
            json!({ "port": "51820", "protocol": "udp" })
        )]))
        .status,
        201
    );
    world
        .hetzner
        .project(|project| assert_eq!(project.firewalls[0].rules[0]["port"], "51820"));

    let one = world.made(
        "/servers",
        &with(server("api-1"), &json!({ "labels": { "role": "api" } })),
    );
    let two = world.server("db-1");
    let apply = format!("/firewalls/{id}/actions/apply_to_resources");
    let selector = json!({ "apply_to": [{ "type": "label_selector", "label_selector": { "selector": "role=api" } }] });
    world.act(&apply, &selector);
    world
        .post(&apply, &selector)
        .is(422, "firewall_already_applied");
    world.act(
        &apply,
        &json!({ "apply_to": [{ "type": "server", "server": { "id": two } }] }),
    );
    let behind = || -> Vec<usize> {
        let servers = world.hetzner.servers();
        world.hetzner.project(|project| {
            servers
                .iter()
                .map(|server| project.firewalls_of(server).len())
                .collect()
        })
    };
    assert_eq!(behind(), [1, 1]);
    // Another label, and it stands before the server no more.
    world.put(&format!("/servers/{one}"), &json!({ "labels": {} }));
    assert_eq!(behind(), [0, 1]);
    world.act(
        &format!("/firewalls/{id}/actions/remove_from_resources"),
        &json!({ "remove_from": [{ "type": "server", "server": { "id": two } }] }),
    );
    assert_eq!(behind(), [0, 0]);
}

#[test]
fn a_volume_is_attached_in_its_own_location_and_only_grows() {
    let world = World::new();
    for body in [
        json!({ "name": "db", "size": 9, "location": "fsn1" }),
        json!({ "name": "db", "size": 10_241, "location": "fsn1" }),
        json!({ "name": "db", "size": 10 }),
    ] {
        world.post("/volumes", &body).is(422, "invalid_input");
    }
    let id = world.made(
        "/volumes",
        &json!({ "name": "db", "size": 10, "location": "fsn1", "format": "ext4" }),
    );
    let elsewhere = world.made(
        "/servers",
        &with(server("nbg"), &json!({ "location": "nbg1" })),
    );
    let here = world.server("fsn");
    let attach = format!("/volumes/{id}/actions/attach");
    world
        .post(&attach, &json!({ "server": elsewhere }))
        .is(422, "invalid_input");
    world.act(&attach, &json!({ "server": here, "automount": false }));
    world
        .post(&attach, &json!({ "server": here }))
        .is(422, "volume_already_attached");
    world
        .post(
            &format!("/volumes/{id}/actions/resize"),
            &json!({ "size": 10 }),
        )
        .is(422, "invalid_input");
    world.act(
        &format!("/volumes/{id}/actions/resize"),
        &json!({ "size": 20 }),
    );
    let shown = world.get(&format!("/volumes/{id}"));
    assert_eq!(
        (
            &shown.body["volume"]["size"],
            &shown.body["volume"]["server"]
        ),
        (&json!(20), &json!(here))
    );
    world.act(&format!("/volumes/{id}/actions/detach"), &json!({}));
    assert_eq!(world.delete(&format!("/volumes/{id}")).status, 204);
    // Made for a server, it is attached by a second action.
    let made = world.post(
        "/volumes",
        &json!({ "name": "db", "size": 10, "server": here }),
    );
    assert_eq!(made.body["next_actions"][0]["command"], "attach_volume");
}

#[test]
fn a_primary_ip_moves_only_between_stopped_servers_of_its_location() {
    let world = World::new();
    let body =
        json!({ "name": "kept", "type": "ipv4", "assignee_type": "server", "location": "fsn1" });
    let ip = world.made("/primary_ips", &body);
    let bare = json!({ "public_net": { "enable_ipv4": false } });
    let elsewhere = world.made(
        "/servers",
        &with(
            server("nbg"),
            &with(
                bare.clone(),
                &json!({ "location": "nbg1", "start_after_create": false }),
            ),
        ),
    );
    let here = world.made("/servers", &with(server("fsn"), &bare));
    let assign = |server: u64| {
        let body = json!({ "assignee_type": "server", "assignee_id": server });
        world.post(&format!("/primary_ips/{ip}/actions/assign"), &body)
    };
    assign(elsewhere).is(422, "invalid_input");
    assign(here).is(422, "server_not_stopped");
    world.act(&format!("/servers/{here}/actions/poweroff"), &json!({}));
    assert_eq!(assign(here).status, 201);
    assign(here).is(422, "primary_ip_already_assigned");
    world.act(&format!("/servers/{here}/actions/poweron"), &json!({}));
    world
        .post(&format!("/primary_ips/{ip}/actions/unassign"), &json!({}))
        .is(422, "server_not_stopped");
    world
        .delete(&format!("/primary_ips/{ip}"))
        .is(422, "must_be_unassigned");
    world.act(&format!("/servers/{here}/actions/poweroff"), &json!({}));
    world.act(&format!("/primary_ips/{ip}/actions/unassign"), &json!({}));
    let shown = world.get(&format!("/primary_ips/{ip}"));
    assert_eq!(shown.body["primary_ip"]["assignee_type"], "unassigned");
    assert_eq!(world.delete(&format!("/primary_ips/{ip}")).status, 204);
}

#[test]
fn a_server_is_made_only_with_free_addresses_of_its_location_and_their_version() {
    let world = World::new();
    let make = |name: &str, version: &str, place: &str| {
        let body = json!({ "name": name, "type": version, "location": place });
        world.made("/primary_ips", &body)
    };
    let here = make("here", "ipv4", "fsn1");
    let asked = |name: &str, ip: u64| {
        let body = with(server(name), &json!({ "public_net": { "ipv4": ip } }));
        world.post("/servers", &body)
    };
    asked("one", make("six", "ipv6", "fsn1")).is(412, "primary_ip_version_mismatch");
    asked("one", make("there", "ipv4", "nbg1")).is(422, "invalid_input");
    assert_eq!(asked("one", here).status, 201);
    asked("two", here).is(422, "primary_ip_already_assigned");
    // It has one already, so that another one cannot be its own too.
    let one = world.hetzner.servers()[0].id;
    world.act(&format!("/servers/{one}/actions/poweroff"), &json!({}));
    let more = json!({ "assignee_type": "server", "assignee_id": one });
    let more = with(json!({ "name": "more", "type": "ipv4" }), &more);
    world.post("/primary_ips", &more).is(422, "server_has_ipv4");
    world
        .post(
            "/primary_ips",
            &json!({ "name": "more", "type": "ipv4", "assignee_id": one }),
        )
        .is(422, "invalid_input");
}

#[test]
fn public_addresses_come_from_the_pool_of_the_test() {
    let world = World::new();
    world.hetzner.project(|project| {
        project.addresses = vec!["127.0.7.2".parse().unwrap(), "127.0.7.1".parse().unwrap()];
    });
    let ip = |id: u64| {
        world.get(&format!("/servers/{id}")).body["server"]["public_net"]["ipv4"]["ip"].clone()
    };
    assert_eq!(ip(world.server("one")), "127.0.7.1");
    assert_eq!(ip(world.server("two")), "127.0.7.2");
    world
        .post("/servers", &server("three"))
        .is(412, "resource_unavailable");
}
