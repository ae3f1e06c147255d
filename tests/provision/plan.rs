//! The plan: what a dry run says, and what it refuses.

use serde_json::json;

use crate::world::World;

#[test]
fn a_dry_run_names_every_resource_with_its_price_and_changes_nothing() {
    let world = World::new();
    let run = world.run(&["--region", "eu-central", "--dry-run"]).ends(0);
    run.because("dry-run");
    assert_eq!(world.hetzner.writes(), 0);
    let changes = run.changes();
    for wanted in [
        "create placement group shop-eu-central-api",
        "create placement group shop-eu-central-database",
        "create network shop-net-eu-central",
        "create firewall shop-eu-central-api",
        "create firewall shop-eu-central-data",
        "create server shop-eu-1",
        "create server shop-eu-2",
        "create server shop-eu-central-redis",
        // The nodes of both clusters that stand in this zone: also the copy of US rows, for disasters.
        "create server shop-eu-primary",
        "create server shop-eu-nbg",
        "create server shop-eu-hel",
        "create server shop-us-dr",
        "create volume shop-us-dr-data",
        "create primary ip shop-eu-1-ipv4",
        "create load balancer shop-eu-central",
    ] {
        assert!(
            changes.contains(&wanted.to_owned()),
            "{wanted}: {changes:?}"
        );
    }
    assert!(
        changes
            .iter()
            .any(|change| change.starts_with("create ssh key shop-"))
    );
    // 2 cpx42, 4 cpx32, 1 cpx12, 7 IPv4, 4 x 200 GB, 1 lb11.
    let sum = 2.0 * 69.49 + 4.0 * 35.49 + 11.49 + 7.0 * 0.50 + 800.0 * 0.0572 + 7.49;
    let said: f64 = run.json["result"]["cost"]["sum"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((said - sum).abs() < 0.005, "{said} and {sum}");
    assert!(
        run.summary().contains("of the budget left"),
        "{}",
        run.summary()
    );
    assert_eq!(world.file(), include_str!("regions.toml"));
}

#[test]
fn an_approved_plan_is_carried_out_and_any_other_is_refused() {
    let world = World::new();
    let dry = world
        .run(&["--region", "ap-singapore", "--dry-run"])
        .ends(0);
    let hash = dry.json["result"]["plan"].as_str().unwrap().to_owned();
    assert!(dry.hints().contains(&hash));
    world
        .run(&["--region", "ap-singapore", "--plan", "0123456789abcdef"])
        .ends(12)
        .because("another-plan");
    // What was approved is another plan when regions.toml wants something else now.
    world.change("volume_gb = 200", "volume_gb = 300");
    world
        .run(&["--region", "ap-singapore", "--plan", &hash])
        .ends(12)
        .because("another-plan");
    assert_eq!(world.hetzner.writes(), 0);
    world.change("volume_gb = 300", "volume_gb = 200");
    world
        .run(&["--region", "ap-singapore", "--plan", &hash])
        .ends(0);
}

#[test]
fn a_plan_over_the_budget_orders_nothing_and_other_regions_count() {
    let world = World::new();
    world.change("amount = 2000", "amount = 400");
    let run = world.run(&["--region", "eu-central"]).ends(0);
    assert!(
        run.summary().contains("of the budget left"),
        "{}",
        run.summary()
    );
    let writes = world.hetzner.writes();
    let run = world.run(&["--region", "us-east"]).ends(12);
    run.because("over-budget");
    assert_eq!(world.hetzner.writes(), writes);
}

#[test]
fn a_budget_in_another_currency_than_the_account_pays_in_is_no_budget_that_is_kept() {
    let world = World::new();
    world.change("currency = \"EUR\"", "currency = \"USD\"");
    let run = world.run(&["--region", "eu-central"]).ends(12);
    run.because("cost-unknown");
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn what_is_listed_with_a_price_and_cannot_be_bought_is_passed_over_for_the_next_type() {
    let world = World::new();
    world.hetzner.project(|project| {
        project
            .catalogue
            .set_available("cpx42", "fsn1", Some(false));
        project
            .catalogue
            .set_available("cpx42", "nbg1", Some(false));
    });
    let run = world.run(&["--region", "eu-central", "--dry-run"]).ends(0);
    let changes = run.json["result"]["changes"].as_array().unwrap().clone();
    let server = changes
        .iter()
        .find(|change| change["name"] == "shop-eu-1")
        .unwrap();
    assert_eq!(server["what"], "cpx42 in hel1", "{server}");

    // A database stands where regions.toml says and the residency was checked for: there it is sold out.
    world.hetzner.project(|project| {
        project
            .catalogue
            .set_available("cpx32", "hel1", Some(false));
    });
    let run = world.run(&["--region", "eu-central"]).ends(10);
    run.because("sold-out");
    assert!(run.summary().contains("shop-eu-hel"), "{}", run.summary());
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn a_foreign_resource_of_a_wanted_name_is_refused_untouched_until_it_is_adopted() {
    let world = World::new();
    let foreign =
        json!({ "name": "shop-eu-central-api", "type": "spread", "labels": { "team": "other" } });
    world
        .hetzner
        .project(|project| project.elsewhere("POST", "/placement_groups", &foreign));
    let run = world.run(&["--region", "eu-central"]).ends(12);
    run.because("foreign");
    assert!(run.hints().contains("adopt"), "{}", run.hints());
    assert_eq!(world.hetzner.writes(), 0);

    world
        .run(&["adopt", "--region", "eu-central", "--dry-run"])
        .ends(0);
    assert_eq!(world.hetzner.writes(), 0);
    let run = world.run(&["adopt", "--region", "eu-central"]).ends(0);
    assert!(
        run.changes()
            .contains(&"keep placement group shop-eu-central-api".to_owned())
    );
    let labels = world
        .hetzner
        .project(|project| project.placement_groups[0].labels.clone());
    assert_eq!(
        labels.get("team").map(String::as_str),
        Some("other"),
        "labels of others stay"
    );
    world.provision("eu-central");
}

#[test]
fn a_key_that_somebody_entered_before_is_used_as_it_is() {
    let world = World::new();
    let key = std::fs::read_to_string(world.path("root.pub")).unwrap();
    let theirs = json!({ "name": "laptop", "public_key": key });
    world
        .hetzner
        .project(|project| project.elsewhere("POST", "/ssh_keys", &theirs));
    world.provision("ap-singapore");
    let keys = world.hetzner.project(|project| project.ssh_keys.clone());
    assert_eq!(keys.len(), 1);
    assert!(keys[0].labels.is_empty(), "it stays theirs");
    assert!(
        world
            .hetzner
            .servers()
            .iter()
            .all(|server| server.ssh_keys == [keys[0].id])
    );
}

#[test]
fn https_needs_a_certificate_that_is_there_before_anything_is_ordered() {
    let world = World::new();
    world.change("http://ap.shop.example", "https://ap.shop.example");
    world.change(
        "hosts = { sin-1 = {} }",
        "hosts = { sin-1 = { tls = false } }",
    );
    let run = world.run(&["--region", "ap-singapore"]).ends(2);
    assert!(
        run.summary().contains("no certificate"),
        "{}",
        run.summary()
    );
    world.change(
        "types = [\"lb11\"] }",
        "types = [\"lb11\"], certificate = \"shop\" }",
    );
    let run = world.run(&["--region", "ap-singapore"]).ends(12);
    assert!(run.summary().contains("`shop`"), "{}", run.summary());
    assert_eq!(world.hetzner.writes(), 0);
    world
        .hetzner
        .project(|project| project.certificates = ["other", "shop"].map(str::to_owned).to_vec());
    world.provision("ap-singapore");
    let seen = world.hetzner.seen();
    let order = seen
        .iter()
        .find(|seen| seen.method == "POST" && seen.path == "/load_balancers");
    let service = &order.unwrap().body["services"][0];
    assert_eq!(
        (&service["protocol"], &service["listen_port"]),
        (&json!("https"), &json!(443))
    );
    assert_eq!(service["http"]["certificates"], json!([302]));
}

#[test]
fn a_strangers_address_of_a_wanted_name_is_not_taken() {
    let world = World::new();
    let theirs = json!({ "name": "shop-sin-1-ipv4", "type": "ipv4", "assignee_type": "server", "location": "sin" });
    world
        .hetzner
        .project(|project| project.elsewhere("POST", "/primary_ips", &theirs));
    let run = world.run(&["--region", "ap-singapore"]).ends(12);
    run.because("blocked");
    assert_eq!(world.hetzner.writes(), 0);
}

#[test]
fn a_strangers_network_of_a_wanted_name_is_not_in_the_way_and_not_used() {
    let world = World::new();
    let theirs = json!({ "name": "shop-net-ap-southeast", "ip_range": "10.67.0.0/16" });
    let answer = world
        .hetzner
        .project(|project| project.elsewhere("POST", "/networks", &theirs));
    let foreign = answer["network"]["id"].as_u64().unwrap();
    world.provision("ap-singapore");
    for server in world.hetzner.servers() {
        assert!(server.private_nets.iter().all(|net| net.network != foreign));
    }
    world.run(&["drift", "--region", "ap-singapore"]).ends(0);
}

#[test]
fn names_and_counts_that_hetzner_would_refuse_are_said_before_anything_is_ordered() {
    for (from, to, said) in [
        ("name = \"us-sin\"", "name = \"sin-1\"", "two servers"),
        (
            "hosts = { sin-1 = {} }",
            "hosts = { sin-1- = {} }",
            "no name for a server",
        ),
        (
            "hosts = { sin-1 = {} }",
            "hosts = { a1 = {}, a2 = {}, a3 = {}, a4 = {}, a5 = {}, a6 = {}, a7 = {}, a8 = {}, a9 = {}, b1 = {}, b2 = {} }",
            "11 api servers",
        ),
        (
            "hosts = { sin-1 = {} }",
            "hosts = { sin-1 = { tls = true } }",
            "plain HTTP",
        ),
        (
            "hosts = { sin-1 = {} }",
            "hosts = { us-east-redis = {} }",
            "two servers",
        ),
        (
            "hosts = { sin-1 = {} }",
            "hosts = { sin-1 = { ssh_port = 2222 } }",
            "other ports",
        ),
    ] {
        let world = World::new();
        world.change(from, to);
        let run = world.run(&["--region", "ap-singapore"]).ends(2);
        assert!(run.summary().contains(said), "{to}: {}", run.summary());
        assert_eq!(world.hetzner.writes(), 0);
    }
}

#[test]
fn a_region_that_stands_is_not_refused_for_its_price_unless_something_is_ordered() {
    let world = World::new();
    world.provision("ap-singapore");
    world.change("amount = 2000", "amount = 10");
    world.provision("ap-singapore");
    world.change("volume_gb = 200", "volume_gb = 10000");
    let run = world.run(&["--region", "ap-singapore"]).ends(12);
    run.because("over-budget");
    world.change("amount = 10\n", "amount = 2000\n");
    world.provision("ap-singapore");
    let size = world.hetzner.project(|project| project.volumes[0].size);
    assert_eq!(size, 10000);
}

#[test]
fn a_server_of_a_type_that_is_no_longer_sold_there_has_its_last_price_and_stands_in_no_orders_way()
{
    let world = World::new();
    let cost = |run: &crate::world::Run| run.json["result"]["cost"]["sum"].clone();
    let before = cost(&world.provision("ap-singapore"));
    world.hetzner.project(|project| {
        project.catalogue.set_unlisted("cpx42", "sin");
    });
    assert_eq!(cost(&world.provision("ap-singapore")), before);
    world.provision("eu-central");
    // Nobody orders it there, whatever its price; the other type of the list is not sold there at all.
    world.change("hosts = { sin-1", "hosts = { sin-2 = {}, sin-1");
    let run = world.run(&["--region", "ap-singapore"]).ends(10);
    run.because("sold-out");
    assert!(run.summary().contains("shop-sin-2"), "{}", run.summary());
}

#[test]
fn a_second_network_of_ours_is_said_in_plan_and_drift_and_left() {
    let world = World::new();
    world.provision("us-east");
    world.hetzner.project(|project| {
        let mut twin = project.networks[0].clone();
        twin.id += 5_000;
        project.networks.push(twin);
    });
    let run = world.run(&["--region", "us-east", "--dry-run"]).ends(0);
    assert!(
        run.changes()
            .contains(&"stray network shop-net-us-east".to_owned()),
        "{:?}",
        run.changes()
    );
    world.run(&["drift", "--region", "us-east"]).ends(10);
    let before = world.hetzner.writes();
    world.provision("us-east");
    assert_eq!(world.hetzner.writes(), before);
}
