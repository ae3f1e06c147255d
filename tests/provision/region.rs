//! A region is made, stays as it is, and differences are mended or said.

use regionwise_lab::hetzner::{Fault, Kind};
use serde_json::json;

use crate::world::{REGIONS, World};

#[test]
fn three_regions_come_to_be_in_at_most_200_requests_and_a_second_run_writes_nothing() {
    let world = World::new();
    // Every action takes three looks, as servers take half a minute and are looked at every two seconds.
    world.hetzner.project(|project| project.latency = 3);
    for region in REGIONS {
        let run = world.provision(region);
        assert!(run.summary().contains("runs"), "{}", run.summary());
    }
    let requests = world.hetzner.seen().len();
    println!("{requests} requests for three regions");
    assert!(requests <= 200, "{requests} requests");
    assert_eq!(
        world.hetzner.invalid().len(),
        0,
        "{:?}",
        world.hetzner.invalid()
    );
    let (counts, twice) = world.count();
    assert_eq!(
        counts,
        json!({
            "servers": 14, "networks": 3, "firewalls": 6, "volumes": 6, "load_balancers": 3, "primary_ips": 28,
            "placement_groups": 12, "ssh_keys": 1,
        })
    );
    assert_eq!(twice, Vec::<String>::new());

    let writes = world.hetzner.writes();
    for region in REGIONS {
        let run = world.provision(region);
        assert!(
            run.summary().contains("Nothing was changed"),
            "{}",
            run.summary()
        );
        assert_eq!(run.json["result"]["changed"], false);
        world.run(&["drift", "--region", region]).ends(0);
    }
    assert_eq!(world.hetzner.writes(), writes);
    let status = world.run(&["status"]).ends(0);
    // IPv6 addresses are Hetzner's own and cost nothing.
    assert_eq!(
        status.json["result"]["resources"].as_array().unwrap().len(),
        14 + 3 + 6 + 6 + 3 + 14 + 12 + 1
    );
}

#[test]
fn the_addresses_of_new_servers_are_written_into_regions_toml_and_nothing_else_is() {
    let world = World::new();
    let before = world.file();
    let run = world.provision("eu-central");
    let after = world.file();
    let addresses = &run.json["result"]["addresses"];
    let mut expected = before;
    for host in ["eu-1", "eu-2"] {
        let address = addresses[host].as_str().unwrap();
        assert!(
            world
                .hetzner
                .servers()
                .iter()
                .any(|server| server.name == format!("shop-{host}"))
        );
        let header = format!("[regions.eu-central.hosts.{host}]\n");
        expected = expected.replace(&header, &format!("{header}address = \"{address}\"\n"));
        assert!(
            run.hints()
                .contains("provision-region --region eu-central --env-file FILE")
        );
    }
    assert_eq!(after, expected);
    // Inline tables, too.
    world.provision("us-east");
    assert!(
        world
            .file()
            .contains("hosts = { us-1 = { address = \"203.0.113."),
        "{}",
        world.file()
    );
}

#[test]
fn a_server_is_born_behind_its_firewall_with_a_host_key_that_its_label_names() {
    let world = World::new();
    world.provision("ap-singapore");
    let posts: Vec<_> = world.hetzner.seen();
    let created = posts
        .iter()
        .filter(|seen| seen.method == "POST" && seen.path == "/servers");
    for request in created {
        let body = &request.body;
        assert_eq!(body["firewalls"].as_array().unwrap().len(), 1, "{body}");
        assert_eq!(body["networks"].as_array().unwrap().len(), 1, "{body}");
        assert_eq!(body["ssh_keys"].as_array().unwrap().len(), 1);
        assert!(body.get("datacenter").is_none());
        let data = body["user_data"].as_str().unwrap();
        assert!(
            data.starts_with("#cloud-config\n") && data.len() <= 32 * 1024,
            "{data}"
        );
        let is_host = body["labels"]["regionwise-role"] == "api";
        assert_eq!(data.contains("runcmd:"), is_host, "{data}");
        let key = data
            .lines()
            .find_map(|line| line.trim().strip_prefix("ed25519_public: ssh-ed25519 "))
            .unwrap();
        let label = body["labels"]["regionwise-host-key"].as_str().unwrap();
        let bytes = data_encoding::BASE64.decode(key.as_bytes()).unwrap();
        let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes);
        assert_eq!(label, data_encoding::BASE32_NOPAD.encode(&digest));
    }
    let keys: std::collections::BTreeSet<String> = world
        .hetzner
        .servers()
        .iter()
        .map(|server| server.labels["regionwise-host-key"].clone())
        .collect();
    assert_eq!(keys.len(), 3, "every server has a key of its own");
}

#[test]
fn a_firewall_that_somebody_opened_is_closed_again_and_the_drift_is_said_before() {
    let world = World::new();
    world.provision("ap-singapore");
    let id = world.hetzner.project(|project| {
        let found = project
            .firewalls
            .iter()
            .find(|wall| wall.name == "shop-ap-singapore-data");
        found.unwrap().id
    });
    let open = json!({ "rules": [{ "direction": "in", "protocol": "tcp", "port": "5432", "source_ips": ["0.0.0.0/0"] }] });
    let path = format!("/firewalls/{id}/actions/set_rules");
    world
        .hetzner
        .project(|project| project.elsewhere("POST", &path, &open));
    let drift = world.run(&["drift", "--region", "ap-singapore"]).ends(10);
    assert!(
        drift
            .changes()
            .contains(&"mend firewall shop-ap-singapore-data".to_owned())
    );
    world.provision("ap-singapore");
    world.run(&["drift", "--region", "ap-singapore"]).ends(0);
}

#[test]
fn a_server_of_another_type_is_said_and_left_because_a_rescale_forfeits_its_price() {
    let world = World::new();
    world.provision("ap-singapore");
    world.change(
        "api = { types = [\"cpx42\", \"cpx41\"] }",
        "api = { types = [\"cpx52\"] }",
    );
    let writes = world.hetzner.writes();
    let run = world.provision("ap-singapore");
    assert_eq!(world.hetzner.writes(), writes);
    assert!(
        run.changes()
            .contains(&"differs server shop-sin-1".to_owned())
    );
    assert!(run.json.to_string().contains("forfeits its price"));
}

#[test]
fn what_regions_toml_wants_no_more_is_said_and_left() {
    let world = World::new();
    world.provision("ap-singapore");
    world.change("redis = { types = [\"cpx12\", \"cpx21\"] }\n", "");
    let run = world.provision("ap-singapore");
    assert!(
        run.changes()
            .contains(&"stray server shop-ap-singapore-redis".to_owned()),
        "{:?}",
        run.changes()
    );
}

#[test]
fn a_deleted_server_comes_back_with_the_address_that_people_know() {
    let world = World::new();
    let run = world.provision("ap-singapore");
    let address = run.json["result"]["addresses"]["sin-1"].clone();
    let id = world
        .hetzner
        .servers()
        .iter()
        .find(|server| server.name == "shop-sin-1")
        .unwrap()
        .id;
    world
        .hetzner
        .project(|project| project.elsewhere("DELETE", &format!("/servers/{id}"), &json!({})));
    let run = world.provision("ap-singapore");
    assert_eq!(run.json["result"]["addresses"]["sin-1"], address);
}

#[test]
fn two_names_for_one_token_are_one_project_and_refused() {
    let world = World::new();
    world.change(
        "locations = [\"fsn1\", \"nbg1\", \"hel1\"]\n",
        "locations = [\"fsn1\", \"nbg1\", \"hel1\"]\ntoken = \"env:EU_TOKEN\"\n",
    );
    let mut command = world.command(&["--region", "eu-central", "--dry-run"]);
    let output = command
        .env("EU_TOKEN", crate::world::TOKEN)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(world.hetzner.seen().is_empty());
}

#[test]
fn hosts_whose_names_end_alike_get_their_own_addresses() {
    let world = World::new();
    world.change(
        "hosts = { sin-1 = {} }",
        "hosts = { sin-1 = {}, a-sin-1 = {} }",
    );
    let run = world.provision("ap-singapore");
    for host in ["sin-1", "a-sin-1"] {
        let said = run.json["result"]["addresses"][host].as_str().unwrap();
        let id = world
            .hetzner
            .servers()
            .into_iter()
            .find(|server| server.name == format!("shop-{host}"));
        let id = id.unwrap().id;
        let has = world.hetzner.project(|project| {
            let mut all = project.primary_ips.iter();
            let ip = all
                .find(|ip| ip.name == format!("shop-{host}-ipv4"))
                .unwrap();
            assert_eq!(ip.assignee, Some(id));
            ip.ip.clone()
        });
        assert_eq!(said, has);
        assert!(
            world
                .file()
                .contains(&format!("{host} = {{ address = \"{said}\" }}")),
            "{}",
            world.file()
        );
    }
}

#[test]
fn an_address_in_the_file_that_is_not_the_servers_is_said_and_not_passed() {
    let world = World::new();
    world.provision("ap-singapore");
    world.write(&world.file().replace("203.0.113.", "198.51.100."));
    let run = world
        .run(&["--region", "ap-singapore", "--dry-run"])
        .ends(0);
    assert!(
        run.hints().contains("correct the address"),
        "{}",
        run.hints()
    );
    let run = world.run(&["--region", "ap-singapore"]).ends(10);
    run.because("address-differs");
    world.run(&["drift", "--region", "ap-singapore"]).ends(10);
}

#[test]
fn a_server_without_its_firewall_or_network_gets_them_back() {
    let world = World::new();
    world.provision("ap-singapore");
    let (server, firewall, network) = world.hetzner.project(|project| {
        let server = project
            .servers
            .iter()
            .find(|server| server.name == "shop-sin-1")
            .unwrap();
        let firewall = project
            .firewalls
            .iter()
            .find(|wall| wall.name.ends_with("-api"))
            .unwrap();
        (server.id, firewall.id, project.networks[0].id)
    });
    let from = json!({ "remove_from": [{ "type": "server", "server": { "id": server } }] });
    let open = format!("/firewalls/{firewall}/actions/remove_from_resources");
    world
        .hetzner
        .project(|project| project.elsewhere("POST", &open, &from));
    let leave = format!("/servers/{server}/actions/detach_from_network");
    world
        .hetzner
        .project(|project| project.elsewhere("POST", &leave, &json!({ "network": network })));
    let drift = world.run(&["drift", "--region", "ap-singapore"]).ends(10);
    assert!(
        drift
            .changes()
            .contains(&"mend server shop-sin-1".to_owned()),
        "{:?}",
        drift.changes()
    );
    world.provision("ap-singapore");
    world.run(&["drift", "--region", "ap-singapore"]).ends(0);
    assert_eq!(
        world.hetzner.invalid().len(),
        0,
        "{:?}",
        world.hetzner.invalid()
    );
}

#[test]
fn what_another_run_mends_at_the_same_moment_is_mended() {
    let world = World::new();
    world.provision("ap-singapore");
    let (server, firewall, network, volume, balancer) = world.hetzner.project(|project| {
        let server = project
            .servers
            .iter()
            .find(|server| server.name == "shop-sin-1");
        let wall = project
            .firewalls
            .iter()
            .find(|wall| wall.name.ends_with("-api"));
        (
            server.unwrap().id,
            wall.unwrap().id,
            project.networks[0].id,
            project.volumes[0].id,
            project.load_balancers[0].id,
        )
    });
    let undo = |path: &str, body: &serde_json::Value| {
        world
            .hetzner
            .project(|project| project.elsewhere("POST", path, body));
    };
    let from = json!({ "remove_from": [{ "type": "server", "server": { "id": server } }] });
    undo(
        &format!("/firewalls/{firewall}/actions/remove_from_resources"),
        &from,
    );
    let network = json!({ "network": network });
    undo(
        &format!("/servers/{server}/actions/detach_from_network"),
        &network,
    );
    undo(&format!("/volumes/{volume}/actions/detach"), &json!({}));
    undo(
        &format!("/load_balancers/{balancer}/actions/delete_service"),
        &json!({ "listen_port": 80 }),
    );
    // Carried out twice: the second answer says that it is so already.
    for action in [
        "apply_to_resources",
        "attach_to_network",
        "attach",
        "add_service",
    ] {
        world
            .hetzner
            .fail(Fault::once("POST", action, Kind::TwinBefore));
    }
    world.provision("ap-singapore");
    let seen = world.hetzner.seen();
    let refused = seen.iter().filter(|seen| seen.status >= 400).count();
    assert_eq!(refused, 4, "each of them was faster");
    world.run(&["drift", "--region", "ap-singapore"]).ends(0);
}

#[test]
fn a_detached_volume_is_attached_also_when_it_is_larger_than_wanted() {
    let world = World::new();
    world.provision("ap-singapore");
    let id = world.hetzner.project(|project| project.volumes[0].id);
    let act = |action: &str, body: serde_json::Value| {
        let path = format!("/volumes/{id}/actions/{action}");
        world
            .hetzner
            .project(|project| project.elsewhere("POST", &path, &body));
    };
    act("detach", json!({}));
    act("resize", json!({ "size": 300 }));
    let run = world.provision("ap-singapore");
    assert!(
        run.summary().contains("differ in type or size"),
        "{}",
        run.summary()
    );
    assert!(
        world
            .hetzner
            .project(|project| project.volumes[0].server.is_some())
    );
}

#[test]
fn a_changed_health_path_reaches_the_load_balancer() {
    let world = World::new();
    world.provision("ap-singapore");
    world.change(
        "[budget]",
        "[gates.health]\nbasic_path = \"/alive\"\n\n[budget]",
    );
    world.provision("ap-singapore");
    world.run(&["drift", "--region", "ap-singapore"]).ends(0);
    let seen = world.hetzner.seen();
    let update = seen
        .iter()
        .find(|seen| seen.path.ends_with("/update_service"))
        .unwrap();
    assert_eq!(update.body["health_check"]["http"]["path"], "/alive");
    assert_eq!(
        world.hetzner.invalid().len(),
        0,
        "{:?}",
        world.hetzner.invalid()
    );
}

#[test]
fn an_address_that_somebody_put_on_our_server_is_not_taken_for_ours() {
    let world = World::new();
    world.provision("ap-singapore");
    let (server, own) = world.hetzner.project(|project| {
        let server = project
            .servers
            .iter()
            .find(|server| server.name == "shop-sin-1")
            .unwrap()
            .id;
        let own = project
            .primary_ips
            .iter()
            .find(|ip| ip.name == "shop-sin-1-ipv4")
            .unwrap()
            .id;
        (server, own)
    });
    let act = |method: &str, path: String, body: serde_json::Value| {
        world
            .hetzner
            .project(|project| project.elsewhere(method, &path, &body))
    };
    act(
        "POST",
        format!("/servers/{server}/actions/poweroff"),
        json!({}),
    );
    act(
        "POST",
        format!("/primary_ips/{own}/actions/unassign"),
        json!({}),
    );
    let theirs = json!({
        "name": "partner-allowlist", "type": "ipv4", "assignee_type": "server", "assignee_id": server,
        "labels": { "team": "partner" },
    });
    act("POST", "/primary_ips".to_owned(), theirs);
    act(
        "POST",
        format!("/servers/{server}/actions/poweron"),
        json!({}),
    );
    let writes = world.hetzner.writes();
    let run = world.run(&["--region", "ap-singapore"]).ends(12);
    run.because("foreign");
    assert_eq!(world.hetzner.writes(), writes);
}

#[test]
fn a_kept_volume_holds_its_server_in_its_place() {
    let world = World::new();
    world.provision("ap-singapore");
    world.destroy("ap-singapore");
    world.change(
        "{ name = \"us-sin\", location = \"sin\"",
        "{ name = \"us-sin\", region = \"ap-singapore\", location = \"hil\"",
    );
    let writes = world.hetzner.writes();
    let run = world.run(&["--region", "ap-singapore"]).ends(12);
    run.because("blocked");
    assert!(
        run.summary().contains("shop-us-sin-data"),
        "{}",
        run.summary()
    );
    assert_eq!(world.hetzner.writes(), writes);
}
