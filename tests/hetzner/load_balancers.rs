//! Load balancers.

use serde_json::{Value, json};

use crate::world::{World, server, with};

fn service(port: u16) -> Value {
    json!({
        "protocol": "tcp", "listen_port": port, "destination_port": 8080, "proxyprotocol": false,
        "health_check": {
            "protocol": "http", "port": 8080, "interval": 15, "timeout": 10, "retries": 3,
            "http": { "domain": null, "path": "/health/basic" },
        },
    })
}

fn balancer(more: &Value) -> Value {
    with(
        json!({ "name": "edge", "load_balancer_type": "lb11", "location": "fsn1" }),
        more,
    )
}

#[test]
fn a_service_is_described_whole_once_per_port_and_updated_in_parts() {
    let world = World::new();
    let wrong = with(
        service(80),
        &json!({ "health_check": { "protocol": "tcp", "port": 80, "interval": 2, "timeout": 1, "retries": 1 } }),
    );
    world
        .post(
            "/load_balancers",
            &balancer(&json!({ "services": [wrong] })),
        )
        .is(422, "invalid_input");
    world
        .post("/load_balancers", &balancer(&json!({ "location": null })))
        .is(422, "invalid_input");
    let id = world.made(
        "/load_balancers",
        &balancer(&json!({ "services": [service(80)] })),
    );
    let act = |action: &str, body: &Value| {
        world.post(&format!("/load_balancers/{id}/actions/{action}"), body)
    };
    act("add_service", &service(80)).is(409, "source_port_already_used");
    assert_eq!(act("add_service", &service(81)).status, 201);
    let slower = json!({ "listen_port": 80, "health_check": { "protocol": "http", "port": 8080, "interval": 15, "timeout": 20, "retries": 3 } });
    act("update_service", &slower).is(422, "invalid_input");
    let update = json!({ "listen_port": 80, "destination_port": 9090 });
    assert_eq!(act("update_service", &update).status, 201);
    assert_eq!(
        act("delete_service", &json!({ "listen_port": 81 })).status,
        201
    );
    act("delete_service", &json!({ "listen_port": 82 })).is(422, "invalid_input");
    world.hetzner.project(|project| {
        let [service] = &project.load_balancers[0].services[..] else {
            panic!("{:?}", project.load_balancers[0].services);
        };
        assert_eq!(service["destination_port"], 9090);
        let http = &service["health_check"]["http"];
        assert_eq!(
            (&http["path"], &http["status_codes"]),
            (&json!("/health/basic"), &json!(["2??", "3??"]))
        );
    });
}

#[test]
fn a_target_is_reached_privately_only_through_a_common_network() {
    let world = World::new();
    let network = world.made(
        "/networks",
        &json!({ "name": "mesh", "ip_range": "10.0.0.0/16", "subnets": [
            { "type": "cloud", "ip_range": "10.0.1.0/24", "network_zone": "eu-central" },
        ]}),
    );
    let inside = world.made(
        "/servers",
        &with(
            server("api-1"),
            &json!({ "networks": [network], "labels": { "role": "api" } }),
        ),
    );
    let outside = world.made(
        "/servers",
        &with(server("api-2"), &json!({ "labels": { "role": "api" } })),
    );
    let id = world.made("/load_balancers", &balancer(&json!({})));
    let act = |action: &str, body: &Value| {
        world.post(&format!("/load_balancers/{id}/actions/{action}"), body)
    };
    let target =
        |id: u64| json!({ "type": "server", "server": { "id": id }, "use_private_ip": true });
    act("add_target", &target(inside)).is(422, "load_balancer_not_attached_to_network");
    assert_eq!(
        act("attach_to_network", &json!({ "network": network })).status,
        201
    );
    act("attach_to_network", &json!({ "network": network }))
        .is(422, "load_balancer_already_attached");
    act("add_target", &target(outside)).is(422, "server_not_attached_to_network");
    assert_eq!(act("add_target", &target(inside)).status, 201);
    act("add_target", &target(inside)).is(422, "target_already_defined");
    act("detach_from_network", &json!({ "network": network }))
        .is(422, "targets_with_use_private_ip");
    let ip = json!({ "type": "ip", "ip": { "ip": "203.0.113.1" } });
    act("add_target", &ip).is(422, "ip_not_owned");
    let selector = json!({ "type": "label_selector", "label_selector": { "selector": "role=api" }, "use_private_ip": true });
    assert_eq!(act("add_target", &selector).status, 201);
    let shown = world.get(&format!("/load_balancers/{id}"));
    let selected = &shown.body["load_balancer"]["targets"][1]["targets"];
    assert_eq!(selected.as_array().unwrap().len(), 1, "{selected}");
    assert_eq!(selected[0]["server"]["id"], json!(inside));
}

#[test]
fn health_follows_the_servers_and_the_test() {
    let world = World::new();
    let one = world.server("api-1");
    let target = json!({ "type": "server", "server": { "id": one } });
    let id = world.made(
        "/load_balancers",
        &balancer(&json!({ "services": [service(80)], "targets": [target] })),
    );
    let health = || {
        let shown = world.get(&format!("/load_balancers/{id}"));
        shown.body["load_balancer"]["targets"][0]["health_status"].clone()
    };
    assert_eq!(
        health(),
        json!([{ "listen_port": 80, "status": "healthy" }])
    );
    world.act(&format!("/servers/{one}/actions/poweroff"), &json!({}));
    assert_eq!(health()[0]["status"], "unhealthy");
    world
        .hetzner
        .project(|project| project.load_balancers[0].health.insert(one, "unknown"));
    assert_eq!(health()[0]["status"], "unknown");
    world.delete(&format!("/servers/{one}"));
    world
        .hetzner
        .project(|project| assert!(project.load_balancers[0].targets.is_empty()));
}

#[test]
fn a_change_under_way_brings_back_neither_a_dead_server_nor_its_health() {
    let world = World::new();
    let one = world.server("api-1");
    let target = json!({ "type": "server", "server": { "id": one } });
    let id = world.made(
        "/load_balancers",
        &balancer(&json!({ "targets": [target] })),
    );
    world.hetzner.project(|project| project.latency = 1);
    world.act(
        &format!("/load_balancers/{id}/actions/add_service"),
        &service(80),
    );
    world.hetzner.project(|project| {
        project.load_balancers[0].health.insert(one, "unknown");
    });
    world.delete(&format!("/servers/{one}"));
    world.get("/servers");
    assert!(world.hetzner.servers().is_empty());
    // The look that ends the change still shows the balancer as it was.
    world.get(&format!("/load_balancers/{id}"));
    world.hetzner.project(|project| {
        let balancer = &project.load_balancers[0];
        assert_eq!(balancer.services.len(), 1);
        assert!(balancer.targets.is_empty(), "{:?}", balancer.targets);
        assert_eq!(balancer.health.get(&one), Some(&"unknown"));
    });
}
