//! A residency with a project of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test panics like the test does"
)]

use regionwise_provision::{
    Catalogue, Change, Detail, Inventory, Plan, Resource, Server, Spec, Wanted, plan,
    settle_across, wanted,
};
use regionwise_topology::{Secret, Topology};

const FILE: &str = include_str!("../../../tests/provision/regions.toml");
const OWN: &str = "locations = [\"fsn1\", \"nbg1\", \"hel1\"]\n";

fn topology() -> Topology {
    assert!(FILE.contains(OWN));
    let text = FILE.replace(OWN, &format!("{OWN}token = \"env:EU_TOKEN\"\n"));
    Topology::parse_unprovisioned("regions.toml", text.as_bytes()).unwrap()
}

fn catalogue() -> Catalogue {
    let zones = [
        ("fsn1", "eu-central"),
        ("nbg1", "eu-central"),
        ("hel1", "eu-central"),
        ("ash", "us-east"),
        ("sin", "ap-southeast"),
    ];
    Catalogue {
        zones: zones
            .map(|(place, zone)| (place.to_owned(), zone.to_owned()))
            .into(),
        ..Catalogue::default()
    }
}

fn servers(wanted: &[Wanted]) -> Vec<&str> {
    let servers = wanted
        .iter()
        .filter(|wanted| matches!(wanted.spec, Spec::Server(_)));
    servers.map(|wanted| wanted.name.as_str()).collect()
}

#[test]
fn servers_that_hold_the_residencys_rows_are_in_its_project_and_the_copy_of_others_is_not() {
    let topology = topology();
    let provision = topology.provision.clone().unwrap();
    let region = topology.region("eu-central").unwrap();
    let key = ["ssh-ed25519 AAAA".to_owned()];
    let projects = wanted(&topology, &provision, region, &catalogue(), &key, &[]).unwrap();
    let of = |token: &Secret| {
        let found = projects.iter().find(|project| project.token == token);
        &found.unwrap().wanted
    };
    let (eu, shop) = (of(&Secret::Env("EU_TOKEN".into())), of(&provision.token));
    assert_eq!(
        servers(eu),
        [
            "shop-eu-1",
            "shop-eu-2",
            "shop-eu-central-redis",
            "shop-eu-hel",
            "shop-eu-nbg",
            "shop-eu-primary"
        ]
    );
    assert_eq!(servers(shop), ["shop-us-dr"]);
    let range = |wanted: &[Wanted]| {
        wanted.iter().find_map(|wanted| match wanted.spec {
            Spec::Network { range, .. } => Some(range),
            _ => None,
        })
    };
    assert_ne!(range(eu), range(shop), "WireGuard is to join them");
}

#[test]
fn a_server_that_another_project_of_ours_has_is_not_ordered_a_second_time() {
    let topology = topology();
    let provision = topology.provision.clone().unwrap();
    let region = topology.region("eu-central").unwrap();
    let projects = wanted(&topology, &provision, region, &catalogue(), &[], &[]).unwrap();
    let there = projects
        .iter()
        .flat_map(|project| &project.wanted)
        .find(|wanted| wanted.name == "shop-eu-1")
        .unwrap();
    let inventory = |resources| Inventory {
        product: "shop".to_owned(),
        resources,
    };
    let full = inventory(vec![Resource {
        id: 7,
        name: there.name.clone(),
        labels: there.labels.clone(),
        protected: false,
        detail: Detail::Server(Server {
            status: "running".to_owned(),
            kind: "cpx42".to_owned(),
            location: "fsn1".to_owned(),
            address: None,
            firewalls: [].into(),
            networks: [].into(),
            placement_group: None,
        }),
    }]);
    let empty = inventory(Vec::new());
    let mut plans = vec![
        Plan {
            changes: vec![Change::Create(there.clone())],
            lines: Vec::new(),
        },
        plan(&region.name, &[], &full, &catalogue(), None),
    ];
    settle_across(&mut plans, &[&empty, &full]);
    assert!(
        matches!(&plans[0].changes[0], Change::Blocked(_, why) if why.contains("another project"))
    );
    // And where it is, it is said.
    assert!(matches!(&plans[1].changes[0], Change::Stray(..)));
}
