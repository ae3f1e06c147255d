//! `--destroy`: what is ours goes when it is confirmed, and nothing else.

use serde_json::json;

use crate::world::{REGIONS, World};

#[test]
fn a_region_goes_only_when_its_name_is_said_and_its_volumes_only_when_it_is_said_again() {
    let world = World::new();
    world.provision("ap-singapore");
    let writes = world.hetzner.writes();
    world
        .run(&["--region", "ap-singapore", "--destroy"])
        .ends(12)
        .because("unconfirmed");
    world
        .run(&[
            "--region",
            "ap-singapore",
            "--destroy",
            "--confirm",
            "eu-central",
        ])
        .ends(12)
        .because("unconfirmed");
    let dry = world
        .run(&["--region", "ap-singapore", "--destroy", "--dry-run"])
        .ends(0);
    dry.because("dry-run");
    assert_eq!(world.hetzner.writes(), writes);

    let sure = [
        "--region",
        "ap-singapore",
        "--destroy",
        "--confirm",
        "ap-singapore",
    ];
    let run = world.run(&sure).ends(0);
    assert!(run.hints().contains("shop-us-sin-data"), "{}", run.hints());
    let (counts, _) = world.count();
    assert_eq!(
        (&counts["servers"], &counts["volumes"]),
        (&json!(0), &json!(1)),
        "{counts}"
    );
    world
        .run(&[&sure[..], &["--with-volumes", "--confirm-data", "x"]].concat())
        .ends(12);
    world
        .run(
            &[
                &sure[..],
                &["--with-volumes", "--confirm-data", "ap-singapore"],
            ]
            .concat(),
        )
        .ends(0);
    let (counts, _) = world.count();
    assert!(!run.hints().contains("still know them"), "{}", run.hints());
    assert!(
        counts.as_object().unwrap().values().all(|n| n == 0),
        "{counts}"
    );
}

#[test]
fn other_regions_and_other_peoples_resources_stay_and_so_does_what_is_shared() {
    let world = World::new();
    for region in REGIONS {
        world.provision(region);
    }
    let foreign = json!({ "name": "somebody", "type": "spread" });
    world
        .hetzner
        .project(|project| project.elsewhere("POST", "/placement_groups", &foreign));
    let before = world.hetzner.servers().len();
    let gone = world.destroy("us-east");
    let left = "the servers of ap-singapore, eu-central still know them as peers";
    assert!(gone.hints().contains(left), "{}", gone.hints());
    assert_eq!(world.hetzner.servers().len(), before - 4);
    let (groups, keys, networks) = world.hetzner.project(|project| {
        let groups: Vec<String> = project
            .placement_groups
            .iter()
            .map(|group| group.name.clone())
            .collect();
        (groups, project.ssh_keys.len(), project.networks.len())
    });
    assert!(groups.contains(&"somebody".to_owned()));
    assert_eq!((keys, networks), (1, 3));
    for region in ["eu-central", "ap-singapore"] {
        world.run(&["drift", "--region", region]).ends(0);
    }
}

#[test]
fn a_standby_that_commits_wait_for_is_named_before_it_goes() {
    let world = World::new();
    let dr = "  { name = \"us-dr\", location = \"nbg1\", dsn = \"env:US_DR_DSN\" },\n]\n";
    world.change(dr, &format!("{dr}sync = 1\n"));
    world.provision("ap-singapore");
    let words = ["--region", "ap-singapore", "--destroy", "--dry-run"];
    let warning = "every commit of cluster `us` waits for 2 of its standbys, and 1 would be left";
    let spare = world.run(&words).ends(0);
    assert!(
        !spare.json.to_string().contains("every commit"),
        "{}",
        spare.json
    );
    world.change("sync = 1\n\n[clusters.eu]", "sync = 2\n\n[clusters.eu]");
    let starved = world.run(&words).ends(0);
    assert!(
        starved.json.to_string().contains(warning),
        "{}",
        starved.json
    );
}

#[test]
fn a_protected_server_stops_it_before_anything_is_deleted() {
    let world = World::new();
    world.provision("ap-singapore");
    let id = world.hetzner.servers()[0].id;
    let path = format!("/servers/{id}/actions/change_protection");
    let body = json!({ "delete": true, "rebuild": true });
    world
        .hetzner
        .project(|project| project.elsewhere("POST", &path, &body));
    let (before, _) = world.count();
    world
        .run(&[
            "--region",
            "ap-singapore",
            "--destroy",
            "--confirm",
            "ap-singapore",
        ])
        .ends(12)
        .because("protected");
    assert_eq!(world.count().0, before);
}

#[test]
fn a_volume_that_lost_its_region_is_not_taken_for_something_shared() {
    let world = World::new();
    world.provision("ap-singapore");
    let id = world.hetzner.project(|project| project.volumes[0].id);
    let labels = json!({ "labels": { "regionwise-product": "shop" } });
    world
        .hetzner
        .project(|project| project.elsewhere("PUT", &format!("/volumes/{id}"), &labels));
    world.destroy("ap-singapore");
    let (counts, _) = world.count();
    assert_eq!(
        (&counts["servers"], &counts["volumes"], &counts["networks"]),
        (&json!(0), &json!(1), &json!(1))
    );
}

#[test]
fn a_delete_whose_answer_is_lost_is_sent_again_and_what_is_gone_is_no_error() {
    use regionwise_lab::hetzner::{Fault, Kind};
    let world = World::new();
    world.provision("ap-singapore");
    let id = world.hetzner.servers()[0].id.to_string();
    let path: &'static str = Box::leak(format!("/servers/{id}").into_boxed_str());
    world
        .hetzner
        .fail(Fault::once("DELETE", path, Kind::TimeoutAfter));
    world.destroy("ap-singapore");
    assert_eq!(world.hetzner.servers().len(), 0);
}

#[test]
fn a_network_that_somebody_elses_server_is_in_stays() {
    let world = World::new();
    world.provision("ap-singapore");
    let network = world.hetzner.project(|project| project.networks[0].id);
    let theirs = json!({
        "name": "bastion", "server_type": "cpx12", "image": "debian-12", "location": "sin", "networks": [network],
    });
    world
        .hetzner
        .project(|project| project.elsewhere("POST", "/servers", &theirs));
    world.destroy("ap-singapore");
    let (servers, networks) = world
        .hetzner
        .project(|project| (project.servers.len(), project.networks.len()));
    assert_eq!((servers, networks), (1, 1));
}
