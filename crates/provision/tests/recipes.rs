//! What each server is to be, from the three regions of `tests/provision`.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test panics like the test does"
)]

use std::collections::BTreeMap;

use ipnet::IpNet;
use regionwise_provision::host::{
    Account, AccountKind, Backup, Opening, Part, Source, Transport, mesh,
};
use regionwise_provision::recipes::{
    Facts, Logins, Machine, Phase, clusters_without_backup, openings,
};
use regionwise_provision::{
    Catalogue, FirewallRule, Protocol, Role, Spec, Undecided, Wanted, wanted,
};
use regionwise_topology::Topology;

const FILE: &str = include_str!("../../../tests/provision/regions.toml");

fn topology(changes: &[(&str, &str)]) -> Topology {
    let mut text = FILE.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "no `{from}` in the file");
        text = text.replace(from, to);
    }
    Topology::parse_unprovisioned("regions.toml", text.as_bytes()).unwrap()
}

/// The EU's primary lives on its first host.
const ON_A_HOST: (&str, &str) = (
    "dsn = \"env:EU_PRIMARY_DSN\" }",
    "dsn = \"env:EU_PRIMARY_DSN\", host = \"eu-1\" }",
);

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

fn ordered(topology: &Topology, region: &str) -> Result<Vec<Wanted>, Undecided> {
    let provision = topology.provision.as_ref().unwrap();
    let region = topology.region(region).unwrap();
    let key = ["ssh-ed25519 AAAA".to_owned()];
    let projects = wanted(topology, provision, region, &catalogue(), &key, &[])?;
    Ok(projects
        .into_iter()
        .flat_map(|project| project.wanted)
        .collect())
}

/// All servers of the regions, as they are once everybody has been asked.
fn machines(topology: &Topology, regions: &[&str]) -> Vec<Machine> {
    let mut machines = Vec::new();
    for region in regions {
        for wanted in ordered(topology, region).unwrap() {
            let Spec::Server(server) = &wanted.spec else {
                continue;
            };
            let number = u8::try_from(machines.len()).unwrap();
            machines.push(Machine {
                server: wanted.name.clone(),
                host: server.host.clone(),
                region: (*region).to_owned(),
                role: server.role,
                address: [203, 0, 113, number].into(),
                wireguard: Some(format!("key of {}", wanted.name)),
                certificate: Some(format!("certificate of {}", wanted.name)),
                renews: false,
                rows: Some(true),
                settled: true,
                volume: (server.role == Role::Database).then_some(7),
            });
        }
    }
    machines
}

fn logins() -> BTreeMap<String, Logins> {
    let logins = Logins {
        database: "shop".to_owned(),
        accounts: Vec::new(),
        migration: None,
    };
    BTreeMap::from([("eu".to_owned(), logins.clone()), ("us".to_owned(), logins)])
}

fn facts<'a>(
    topology: &'a Topology,
    machines: &'a [Machine],
    logins: &'a BTreeMap<String, Logins>,
) -> Facts<'a> {
    static NONE: BTreeMap<String, Backup> = BTreeMap::new();
    Facts {
        topology,
        machines,
        region_host_sha256: "00",
        logins,
        backups: &NONE,
        redis_account: Some("shop"),
    }
}

fn find<'m>(machines: &'m [Machine], host: &str) -> &'m Machine {
    machines
        .iter()
        .find(|machine| machine.host == host)
        .unwrap()
}

#[test]
fn a_node_on_a_host_gets_no_server_and_the_host_gets_its_volume_and_its_place() {
    let topology = topology(&[ON_A_HOST]);
    let wanted = ordered(&topology, "eu-central").unwrap();
    let find = |name: &str| wanted.iter().find(|wanted| wanted.name == name);
    assert!(find("shop-eu-primary").is_none());
    assert!(find("shop-eu-nbg").is_some());
    let Spec::Volume { server, size_gb } = &find("shop-eu-1-data").unwrap().spec else {
        panic!("no volume");
    };
    assert_eq!((server.as_str(), *size_gb), ("shop-eu-1", 200));
    let places = |name: &str| match &find(name).unwrap().spec {
        Spec::Server(server) => server.locations.clone(),
        _ => panic!("no server"),
    };
    assert_eq!(places("shop-eu-1"), ["fsn1"]);
    assert_eq!(places("shop-eu-2"), ["fsn1", "nbg1", "hel1"]);
    assert!(find("shop-eu-2-data").is_none());
}

#[test]
fn a_node_on_a_host_of_another_project_than_its_rows_is_refused() {
    let own = "locations = [\"fsn1\", \"nbg1\", \"hel1\"]\n";
    let topology = topology(&[
        (
            own,
            "locations = [\"fsn1\", \"nbg1\", \"hel1\"]\ntoken = \"env:EU\"\n",
        ),
        (
            "location = \"nbg1\", dsn = \"env:US_DR_DSN\" }",
            "location = \"fsn1\", dsn = \"env:US_DR_DSN\", host = \"eu-2\" }",
        ),
    ]);
    let refused = ordered(&topology, "eu-central").unwrap_err();
    assert!(matches!(refused, Undecided::Project { .. }), "{refused}");
}

#[test]
fn the_clouds_firewall_lets_wireguard_in_where_servers_talk_to_each_other() {
    let wireguard = |wanted: &Wanted| match &wanted.spec {
        Spec::Firewall(rules) => Some(rules.iter().any(|rule: &FirewallRule| {
            rule.protocol == Protocol::Udp && rule.port.as_deref() == Some("51820")
        })),
        _ => None,
    };
    let all = ordered(&topology(&[]), "eu-central").unwrap();
    assert!(all.iter().filter_map(wireguard).all(|open| open));
    let alone = topology(&[
        (
            "database = { types = [\"cpx32\", \"cpx31\"], volume_gb = 200 }\n",
            "",
        ),
        ("redis = { types = [\"cpx12\", \"cpx21\"] }\n", ""),
    ]);
    let hosts = ordered(&alone, "eu-central").unwrap();
    assert!(hosts.iter().filter_map(wireguard).all(|open| !open));
    assert_eq!(
        openings(&alone, Role::Api, "eu-1"),
        [80, 443].map(Opening::anywhere)
    );
}

#[test]
fn whom_regions_toml_names_reaches_postgres_through_both_firewalls_and_nobody_else_does() {
    let topology = topology(&[
        ON_A_HOST,
        (
            "volume_gb = 200 }",
            "volume_gb = 200, clients = [\"198.51.100.9/32\"] }",
        ),
        ("redis = { types = [\"cpx12\", \"cpx21\"] }\n", ""),
    ]);
    let client: IpNet = "198.51.100.9/32".parse().unwrap();
    let wanted = ordered(&topology, "eu-central").unwrap();
    let rules = wanted.iter().filter_map(|wanted| match &wanted.spec {
        Spec::Firewall(rules) => Some((wanted.name.as_str(), rules)),
        _ => None,
    });
    for (name, rules) in rules {
        let postgres = rules
            .iter()
            .find(|rule| rule.port.as_deref() == Some("5432"));
        assert_eq!(postgres.unwrap().sources, [client].into(), "{name}");
    }
    let of = |host| {
        let open = openings(&topology, Role::Api, host).into_iter();
        open.filter(|open| open.port == 5432 && open.from == Source::Ranges(vec![client]))
            .count()
    };
    assert_eq!((of("eu-1"), of("eu-2")), (1, 0));
    let machines = machines(&topology, &["eu-central"]);
    let logins = logins();
    let recipe = facts(&topology, &machines, &logins).recipe(find(&machines, "eu-1"), Phase::Whole);
    assert!(recipe.server.database.unwrap().clients.contains(&client));
    // Hosts of the US carry no node.
    let wanted = ordered(&topology, "us-east").unwrap();
    let api = wanted.iter().find(|wanted| {
        wanted.name == "shop-us-east-api" && matches!(wanted.spec, Spec::Firewall(_))
    });
    let Spec::Firewall(rules) = &api.unwrap().spec else {
        panic!("no firewall");
    };
    assert!(
        rules
            .iter()
            .all(|rule| rule.port.as_deref() != Some("5432"))
    );
}

#[test]
fn postgres_and_redis_are_open_in_the_mesh_only() {
    let topology = topology(&[ON_A_HOST]);
    let of = |role, host: &str| {
        let open = openings(&topology, role, host).into_iter();
        let ports = open.map(|open| match (open.transport, open.from) {
            (Transport::Tcp, Source::Anywhere) => format!("{} anywhere", open.port),
            (Transport::Tcp, Source::Mesh) => format!("{} mesh", open.port),
            (Transport::Udp, Source::Anywhere) => format!("{} udp", open.port),
            other => panic!("{other:?}"),
        });
        ports.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        of(Role::Api, "eu-1"),
        "80 anywhere, 443 anywhere, 51820 udp, 5432 mesh"
    );
    assert_eq!(
        of(Role::Api, "eu-2"),
        "80 anywhere, 443 anywhere, 51820 udp"
    );
    assert_eq!(of(Role::Database, "eu-nbg"), "51820 udp, 5432 mesh");
    assert_eq!(of(Role::Redis, "eu-central-redis"), "51820 udp, 6379 mesh");
}

#[test]
fn every_server_is_a_peer_of_every_other_one_that_has_said_its_key() {
    let topology = topology(&[]);
    let mut machines = machines(&topology, &["eu-central", "ap-singapore"]);
    machines[0].wireguard = None;
    let logins = logins();
    let facts = facts(&topology, &machines, &logins);
    for machine in &machines {
        let recipe = facts.recipe(machine, Phase::Whole);
        let peers = recipe.server.mesh.unwrap().peers;
        let expected = machines
            .iter()
            .filter(|other| other.wireguard.is_some() && other.server != machine.server);
        let expected: Vec<&str> = expected.map(|other| other.server.as_str()).collect();
        let named: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(named, expected, "{}", machine.server);
    }
}

#[test]
fn a_primary_waits_for_its_standbys_in_the_last_phase_only_and_only_for_all_of_them() {
    let topology = topology(&[ON_A_HOST]);
    let mut machines = machines(&topology, &["eu-central"]);
    let logins = logins();
    let part = |machines: &[Machine], phase| {
        let recipe = facts(&topology, machines, &logins).recipe(find(machines, "eu-1"), phase);
        (recipe.server.database.unwrap(), recipe.missing)
    };
    for (phase, is_last) in [
        (Phase::Peers, false),
        (Phase::Whole, false),
        (Phase::Synchronous, true),
    ] {
        let (database, missing) = part(&machines, phase);
        assert_eq!(missing, Vec::<String>::new());
        let Part::Primary {
            standbys,
            sync,
            complete,
            last,
            ..
        } = database.part
        else {
            panic!("no primary");
        };
        assert_eq!((sync, complete, last), (1, true, is_last), "{phase:?}");
        let nodes: Vec<&str> = standbys.iter().map(|one| one.node.as_str()).collect();
        assert_eq!(nodes, ["eu-nbg", "eu-hel"]);
        assert_eq!(standbys[0].address, mesh::address("shop", "shop-eu-nbg"));
        assert_eq!(
            standbys[0].certificate.as_deref(),
            Some("certificate of shop-eu-nbg")
        );
    }
    let hel = machines.iter().position(|machine| machine.host == "eu-hel");
    let hel = &mut machines[hel.unwrap()];
    (hel.certificate, hel.settled) = (None, false);
    let (database, missing) = part(&machines, Phase::Synchronous);
    assert_eq!(missing, ["standby `eu-hel` is not there yet"]);
    let Part::Primary {
        standbys, complete, ..
    } = database.part
    else {
        panic!("no primary");
    };
    assert_eq!((standbys.len(), complete), (1, false));
}

#[test]
fn a_primary_begins_without_rows_only_while_no_standby_may_have_any() {
    let topology = topology(&[]);
    let logins = logins();
    let first = |change: &dyn Fn(&mut Machine)| {
        let mut machines = machines(&topology, &["eu-central"]);
        for machine in &mut machines {
            machine.rows = Some(false);
        }
        let nbg = machines.iter().position(|machine| machine.host == "eu-nbg");
        change(&mut machines[nbg.unwrap()]);
        let facts = facts(&topology, &machines, &logins);
        let recipe = facts.recipe(find(&machines, "eu-primary"), Phase::Whole);
        match recipe.server.database.unwrap().part {
            Part::Primary { first, .. } => first,
            Part::Standby { .. } => panic!("no primary"),
        }
    };
    assert!(first(&|_| ()), "nobody has rows");
    assert!(!first(&|nbg| nbg.rows = Some(true)), "it would hide them");
    assert!(!first(&|nbg| nbg.rows = None), "nobody knows");
    assert!(
        !first(&|nbg| (nbg.rows, nbg.settled) = (Some(true), false)),
        "a new server may have got a volume that was kept"
    );
    assert!(
        first(&|nbg| (nbg.rows, nbg.settled) = (None, false)),
        "a server that nobody has logged in to has no Postgres"
    );
}

#[test]
fn a_primary_is_left_as_it_is_while_a_standby_that_is_set_up_cannot_be_asked() {
    let topology = topology(&[]);
    let mut machines = machines(&topology, &["eu-central"]);
    let nbg = machines.iter().position(|machine| machine.host == "eu-nbg");
    machines[nbg.unwrap()].certificate = None;
    let logins = logins();
    let facts = facts(&topology, &machines, &logins);
    for phase in [Phase::Peers, Phase::Whole, Phase::Synchronous] {
        let recipe = facts.recipe(find(&machines, "eu-primary"), phase);
        assert_eq!(recipe.server.database, None);
        assert_eq!(
            recipe.missing,
            ["primary `eu-primary` is left as it is: its standby `eu-nbg` could not be asked"]
        );
    }
}

#[test]
fn a_standby_without_its_primary_is_no_database_yet_and_that_is_said() {
    let topology = topology(&[]);
    let machines = machines(&topology, &["ap-singapore"]);
    let logins = logins();
    let facts = facts(&topology, &machines, &logins);
    let recipe = facts.recipe(find(&machines, "us-sin"), Phase::Whole);
    assert_eq!(recipe.server.database, None);
    assert_eq!(
        recipe.missing,
        ["standby `us-sin` waits for its primary `us-primary`"]
    );
}

#[test]
fn a_standby_of_another_region_is_left_alone_until_its_primary_is_there() {
    let topology = topology(&[]);
    let machines = machines(&topology, &["ap-singapore", "us-east"]);
    let logins = logins();
    let facts = facts(&topology, &machines, &logins);
    let of = |phase| {
        facts
            .recipe(find(&machines, "us-sin"), phase)
            .server
            .database
    };
    assert_eq!(of(Phase::Peers), None);
    let keys = facts.for_keys(find(&machines, "us-sin")).database;
    assert_eq!(keys.unwrap().node, "us-sin", "its certificate comes first");
    let Part::Standby { primary } = of(Phase::Dependent).unwrap().part else {
        panic!("no standby");
    };
    assert_eq!(primary.server, "shop-us-primary");
}

#[test]
fn a_related_server_learns_of_peers_and_keeps_out_of_hosts_and_redis() {
    let topology = topology(&[ON_A_HOST]);
    let machines = machines(&topology, &["eu-central"]);
    let logins = logins();
    let facts = facts(&topology, &machines, &logins);
    for host in ["eu-1", "eu-central-redis"] {
        for (phase, whole) in [
            (Phase::Peers, false),
            (Phase::Dependent, false),
            (Phase::Synchronous, false),
            (Phase::Whole, true),
        ] {
            let server = facts.recipe(find(&machines, host), phase).server;
            assert!(server.mesh.is_some());
            assert_eq!(
                server.api.is_some() || server.redis.is_some(),
                whole,
                "{host}"
            );
        }
    }
}

#[test]
fn a_database_lets_in_its_own_nodes_and_the_hosts_of_the_regions_that_it_serves() {
    let topology = topology(&[]);
    let machines = machines(&topology, &["eu-central", "ap-singapore"]);
    let logins = logins();
    let facts = facts(&topology, &machines, &logins);
    let recipe = facts.recipe(find(&machines, "eu-primary"), Phase::Whole);
    let clients = recipe.server.database.unwrap().clients;
    let expected: Vec<String> = ["eu-1", "eu-2", "eu-hel", "eu-nbg", "eu-primary"]
        .map(|host| format!("{}/128", mesh::address("shop", &format!("shop-{host}"))))
        .into();
    let said: Vec<String> = clients.iter().map(ToString::to_string).collect();
    assert_eq!(
        said, expected,
        "no host of Singapore, whose users live in the US"
    );
}

#[test]
fn a_host_writes_to_the_primary_of_its_regions_cluster_and_reads_what_is_near() {
    let topology = topology(&[ON_A_HOST]);
    let machines = machines(&topology, &["us-east", "eu-central"]);
    let mut logins = logins();
    for of in logins.values_mut() {
        of.accounts.push(Account {
            name: "shop".to_owned(),
            kind: AccountKind::App,
        });
    }
    let way = |facts: &Facts<'_>, host: &str| {
        let recipe = facts.recipe(find(&machines, host), Phase::Whole);
        recipe.server.bouncer.map(|bouncer| {
            [bouncer.write, bouncer.read].map(|one| format!("{} {}", one.node, one.address))
        })
    };
    let all = facts(&topology, &machines, &logins);
    let nbg = mesh::address("shop", "shop-eu-nbg");
    let primary = mesh::address("shop", "shop-eu-1");
    assert_eq!(
        way(&all, "eu-1").unwrap(),
        ["eu-primary 127.0.0.1".to_owned(), format!("eu-nbg {nbg}")]
    );
    assert_eq!(
        way(&all, "eu-2").unwrap(),
        [format!("eu-primary {primary}"), format!("eu-nbg {nbg}")]
    );
    assert_eq!(way(&all, "eu-nbg"), None, "no host");
    // Nobody has asked the primary yet: there is no way, and it is said.
    let mut unknown = machines.clone();
    for machine in unknown.iter_mut().filter(|machine| machine.host == "eu-1") {
        machine.certificate = None;
    }
    let early = facts(&topology, &unknown, &logins);
    let recipe = early.recipe(find(&unknown, "eu-2"), Phase::Whole);
    assert_eq!(recipe.server.bouncer, None);
    let said = "`eu-2` has no way to `eu-primary` yet";
    assert!(
        recipe.missing.contains(&said.to_owned()),
        "{:?}",
        recipe.missing
    );
    // A database that we do not set up has no account to log in as.
    let nobody = BTreeMap::new();
    assert_eq!(way(&facts(&topology, &machines, &nobody), "eu-2"), None);
}

#[test]
fn every_node_of_a_cluster_gets_its_backup_and_no_node_of_another_one() {
    let topology = topology(&[]);
    let machines = machines(&topology, &["us-east", "eu-central", "ap-singapore"]);
    let logins = logins();
    let backup = Backup {
        product: "shop".to_owned(),
        host: "s3.example".to_owned(),
        port: 443,
        bucket: "shop-us".to_owned(),
        region: "ash".to_owned(),
        keep_days: 14,
        authority: None,
    };
    let backups = BTreeMap::from([("us".to_owned(), backup.clone())]);
    let facts = Facts {
        backups: &backups,
        ..facts(&topology, &machines, &logins)
    };
    let mut seen = 0;
    for machine in &machines {
        for phase in [Phase::Whole, Phase::Peers, Phase::Synchronous] {
            let Some(database) = facts.recipe(machine, phase).server.database else {
                continue;
            };
            let wanted = (database.cluster == "us").then_some(&backup);
            assert_eq!(database.backup.as_ref(), wanted, "{}", machine.host);
            // It may take hours: standbys and firewalls do not wait for it.
            if let Part::Primary { last, .. } = database.part {
                assert_eq!(last, phase == Phase::Synchronous);
            }
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn a_cluster_that_would_be_gone_with_its_servers_is_named() {
    const BACKUP: &str = "database = { types = [\"cpx32\", \"cpx31\"], volume_gb = 200 }";
    let with = format!(
        "{BACKUP}\nbackup.us = {{ endpoint = \"https://s3.example\", bucket = \"shop-us\", location = \"ash\", \
         key = \"env:A\", secret = \"env:B\", passphrase = \"env:C\" }}"
    );
    let named = |changes: &[(&str, &str)], region: &str, servers: &[(Role, &str)]| {
        let topology = topology(changes);
        let region = topology.region(region).unwrap();
        let names = clusters_without_backup(&topology, region, servers);
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let dr = [(Role::Database, "us-dr")];
    assert_eq!(named(&[], "eu-central", &dr), ["eu", "us"]);
    assert_eq!(named(&[(BACKUP, &with)], "eu-central", &dr), ["eu"]);
    assert_eq!(named(&[(BACKUP, &with)], "us-east", &[]), [""; 0]);
    // Databases that somebody else sets up are somebody else's.
    assert_eq!(named(&[(BACKUP, "")], "eu-central", &[]), [""; 0]);
}
