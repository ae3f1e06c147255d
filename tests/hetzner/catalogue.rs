//! What is sold where, with the traps that were seen, and the keys that came and went.

use regionwise_lab::hetzner::Shape;
use serde_json::{Value, json};

use crate::world::{World, server, with};

fn offer(world: &World, server_type: &str, location: &str) -> Value {
    let types = world.get(&format!("/server_types?name={server_type}"));
    let places = types.body["server_types"][0]["locations"]
        .as_array()
        .unwrap();
    places
        .iter()
        .find(|place| place["name"] == location)
        .cloned()
        .unwrap_or(Value::Null)
}

#[test]
fn a_price_does_not_mean_that_a_type_can_be_had() {
    let world = World::new();
    let cpx11 = world.get("/server_types?name=cpx11");
    let prices = cpx11.body["server_types"][0]["prices"].as_array().unwrap();
    assert!(prices.iter().any(|price| price["location"] == "nbg1"));
    let trap = offer(&world, "cpx11", "nbg1");
    assert_eq!(
        (&trap["deprecation"], &trap["available"]),
        (&Value::Null, &json!(false))
    );
    let body = with(
        server("x"),
        &json!({ "server_type": "cpx11", "location": "nbg1" }),
    );
    world
        .post("/servers", &body)
        .is(412, "resource_unavailable");
    // 20 TiB in Europe, 1 TiB in the USA.
    let traffic = |at: usize| prices[at]["included_traffic"].as_u64().unwrap();
    let traffic: Vec<u64> = (0..prices.len()).map(traffic).collect();
    assert_eq!(traffic, [1 << 40, 1 << 40, 20 << 40]);
    // Unknown is not false.
    assert_eq!(offer(&world, "cpx62", "sin").get("available"), None);
    let gone = offer(&world, "cx22", "fsn1");
    assert!(gone["deprecation"]["unavailable_after"].as_str().unwrap() < "2026-11-30");
    assert_eq!(gone["available"], true);
    assert_eq!(offer(&world, "cx23", "ash"), Value::Null);
}

#[test]
fn the_catalogue_is_there_by_name_and_by_id() {
    let world = World::new();
    assert_eq!(
        world.get("/locations").names("locations"),
        ["fsn1", "nbg1", "hel1", "ash", "hil", "sin"]
    );
    let sin = world.get("/locations?name=sin");
    let id = &sin.body["locations"][0]["id"];
    assert_eq!(
        world.get(&format!("/locations/{id}")).body["location"]["network_zone"],
        "ap-southeast"
    );
    assert_eq!(
        world
            .get("/load_balancer_types")
            .names("load_balancer_types"),
        ["lb11", "lb21", "lb31"]
    );
    let images = world.get("/images?name=debian-12&architecture=arm");
    assert_eq!(images.body["images"].as_array().unwrap().len(), 1);
    assert!(
        world
            .get("/images?name=debian-11")
            .names("images")
            .is_empty()
    );
}

#[test]
fn an_account_in_dollars_has_prices_in_dollars() {
    let world = World::new();
    let pricing = |world: &World| world.get("/pricing").body["pricing"].clone();
    assert_eq!(pricing(&world)["currency"], "EUR");
    world
        .hetzner
        .project(|project| project.account.currency = "USD");
    let pricing = pricing(&world);
    assert_eq!(pricing["currency"], "USD");
    assert_eq!(
        pricing["primary_ips"][0]["prices"][0]["price_monthly"]["net"],
        "0.6000000000"
    );
}

#[test]
fn old_keys_come_and_go_with_the_shape() {
    let world = World::new();
    let look = || {
        let server = world.get("/servers").body["servers"][0].clone();
        let ip = world.get("/primary_ips?name=kept").body["primary_ips"][0].clone();
        let image = world.get("/images").body["images"][0].clone();
        let balancer = world.get("/load_balancer_types").body["load_balancer_types"][0].clone();
        [
            server.get("datacenter").is_some(),
            server["server_type"].get("deprecated").is_some(),
            image.get("deprecated").is_some(),
            balancer.get("deprecated").is_some(),
            ip.get("datacenter").is_some(),
            ip["assignee_type"] == "server",
        ]
    };
    world.server("one");
    world.made(
        "/primary_ips",
        &json!({ "name": "kept", "type": "ipv4", "assignee_type": "server", "location": "fsn1" }),
    );
    assert_eq!(look(), [false; 6]);
    world.get("/datacenters").is(410, "deprecated_api_endpoint");
    world
        .hetzner
        .project(|project| project.account.shape = Shape::OLD);
    assert_eq!(look(), [true; 6]);
    let datacenters = world.get("/datacenters");
    assert_eq!(datacenters.names("datacenters")[0], "fsn1-dc1");
    let deleted = |name: &str| {
        let body = json!({ "name": name, "load_balancer_type": "lb11", "location": "fsn1" });
        let id = world.made("/load_balancers", &body);
        world.delete(&format!("/load_balancers/{id}")).status
    };
    assert_eq!(deleted("old"), 204);
    let old = json!({ "name": "two", "server_type": "cx23", "image": "debian-12", "datacenter": "nbg1-dc3" });
    world.made("/servers", &old);
    assert_eq!(world.hetzner.servers()[1].location, "nbg1");
    world
        .hetzner
        .project(|project| project.account.shape = Shape::NEW);
    assert_eq!(deleted("new"), 200);
}
