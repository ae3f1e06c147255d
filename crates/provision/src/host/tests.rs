mod backup;
mod database;

use std::collections::BTreeSet;

use super::*;
use crate::cloud_config;
use crate::script::render;

/// Everything that one server can be.
fn server() -> Server {
    Server {
        mesh: Some(mesh()),
        database: Some(database()),
        bouncer: Some(bouncer()),
        redis: Some(Redis {
            listen: vec!["10.64.0.2".parse().unwrap()],
            account: "shop".to_owned(),
        }),
        api: Some(api()),
        ..Server::bare(system())
    }
}

fn mesh() -> Mesh {
    let peer = |name: &str, key: &str, endpoint: Option<&str>| Peer {
        name: name.to_owned(),
        public_key: key.to_owned(),
        endpoint: endpoint.map(|address| address.parse().unwrap()),
    };
    Mesh {
        product: "shop".to_owned(),
        name: "shop-eu-1".to_owned(),
        port: 51820,
        peers: vec![
            peer("shop-eu-2", "two=", Some("2001:db8::2")),
            peer("shop-us-1", "us+/=", None),
        ],
    }
}

fn database() -> Database {
    let unasked = Replica {
        certificate: None,
        ..replica("eu-3")
    };
    let account = |name: &str, kind| Account {
        name: name.to_owned(),
        kind,
    };
    Database {
        cluster: "eu".to_owned(),
        node: "eu-1".to_owned(),
        part: Part::Primary {
            first: true,
            standbys: vec![replica("eu-2"), unasked],
            known: ["eu-2", "eu-3"].map(str::to_owned).to_vec(),
            sync: 1,
            complete: true,
            last: true,
        },
        volume: Some(4711),
        database: "shop".to_owned(),
        accounts: vec![
            account("regionwise_lag", AccountKind::Monitor),
            account("shop", AccountKind::App),
        ],
        migration: None,
        clients: vec!["10.64.0.0/24".parse().unwrap()],
        listen: vec!["10.64.0.2".parse().unwrap()],
        backup: Some(backup()),
    }
}

fn backup() -> Backup {
    Backup {
        product: "shop".to_owned(),
        host: "s3.example".to_owned(),
        port: 9000,
        bucket: "shop-eu-backup".to_owned(),
        region: "hel1".to_owned(),
        keep_days: 30,
        authority: Some("-----BEGIN CERTIFICATE-----".to_owned()),
    }
}

fn bouncer() -> Bouncer {
    let upstream = |node: &str, address: &str, certificate: &str| Upstream {
        node: node.to_owned(),
        address: address.parse().unwrap(),
        port: 5432,
        certificate: certificate.to_owned(),
    };
    Bouncer {
        cluster: "eu".to_owned(),
        database: "shop".to_owned(),
        account: "shop".to_owned(),
        write: upstream("eu-1", "127.0.0.1", "TUlJ"),
        read: upstream("eu-2", "fd00::2", "TUlK"),
    }
}

fn replica(node: &str) -> Replica {
    Replica {
        node: node.to_owned(),
        server: format!("shop-{node}"),
        address: mesh::address("shop", &format!("shop-{node}")),
        certificate: Some("TUlJ".to_owned()),
    }
}

/// The same cluster as its second node sees it.
fn standby() -> Database {
    let primary = replica("eu-1");
    Database {
        node: "eu-2".to_owned(),
        part: Part::Standby { primary },
        ..database()
    }
}

fn system() -> System {
    System {
        ssh_port: 2222,
        open: [80, 443, 8080].map(Opening::anywhere).to_vec(),
    }
}

fn api() -> Api {
    Api {
        app: "shop".to_owned(),
        account: "regionwise".to_owned(),
        address: [203, 0, 113, 7].into(),
        http_port: 8080,
        health_path: "/health/basic".to_owned(),
        region_host_sha256: "0".repeat(64),
    }
}

fn file<'a>(steps: &'a [Step], name: &str) -> &'a str {
    let step = steps.iter().find(|step| step.name == name).unwrap();
    match &step.action {
        Action::File(File { text, .. }) => text,
        _ => panic!("`{name}` is no file with a text"),
    }
}

#[test]
fn every_step_has_a_name_of_its_own_and_comes_after_those_it_waits_for() {
    let steps = steps(&server());
    let mut before = BTreeSet::new();
    for step in &steps {
        assert!(
            step.name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'-'),
            "{}",
            step.name
        );
        if let Action::Command(Command { after, .. }) = &step.action {
            assert!(
                after.iter().all(|name| before.contains(name)),
                "{} waits for {after:?}",
                step.name
            );
        }
        assert!(
            before.insert(step.name),
            "two steps are named {}",
            step.name
        );
        assert!(
            !step.reason.is_empty() && !step.reason.ends_with('.'),
            "{}",
            step.reason
        );
    }
}

#[test]
fn what_could_lock_somebody_out_is_guarded_and_comes_last() {
    let steps = steps(&server());
    let first = steps.iter().position(|step| step.guard.is_some()).unwrap();
    assert!(steps[first..].iter().all(|step| step.guard.is_some()));
    let guarded: Vec<&str> = steps[first..].iter().map(|step| step.name).collect();
    assert_eq!(
        guarded,
        [
            "firewall-rules",
            "firewall-unit",
            "firewall",
            "sshd-config",
            "sshd"
        ]
    );
    for step in &steps[..first] {
        let text = format!("{:?}", step.action);
        assert!(
            !text.contains("nft -f") && !text.contains("/etc/ssh"),
            "{} must be guarded",
            step.name
        );
    }
}

#[test]
fn the_firewall_opens_what_is_listed_and_to_the_mesh_nothing_that_is_not_listed_for_it() {
    let opening = |transport, port, from| Opening {
        transport,
        port,
        from,
    };
    let ranges = ["10.64.0.0/24", "2001:db8::/48"].map(|range| range.parse().unwrap());
    let steps = steps(&Server::bare(System {
        ssh_port: 2222,
        open: vec![
            Opening::anywhere(80),
            opening(Transport::Udp, 51820, Source::Anywhere),
            opening(Transport::Tcp, 6379, Source::Ranges(ranges.to_vec())),
            opening(Transport::Tcp, 5432, Source::Mesh),
        ],
    }));
    let rules = file(&steps, "firewall-rules");
    let chain = |name: &str| {
        let (_, after) = rules.split_once(&format!("chain {name} {{\n")).unwrap();
        after.split_once("  }\n").unwrap().0
    };
    assert_eq!(chain("mesh"), "    tcp dport 5432 accept\n    drop\n");
    let listed = "    tcp dport 2222 accept
    tcp dport 80 accept
    udp dport 51820 accept
    ip saddr 10.64.0.0/24 tcp dport 6379 accept
    ip6 saddr 2001:db8::/48 tcp dport 6379 accept
";
    assert!(chain("input").ends_with(listed), "{rules}");
    let mesh = chain("input").find("iifname regionwise0 jump mesh");
    assert!(mesh < chain("input").find("dport"), "{rules}");
    assert!(chain("input").contains("policy drop"), "{rules}");
    let bridges = "iifname \"docker*\" accept\n    iifname \"br-*\" accept\n";
    assert!(chain("forward").ends_with(bridges), "{rules}");
    assert!(chain("forward").contains("policy drop"), "{rules}");
    // `flush ruleset` would take the tables of others away.
    assert!(!rules.contains("flush"), "{rules}");
}

#[test]
fn the_state_lies_where_the_units_look_for_it() {
    let steps = steps(&server());
    let root = "/var/lib/regionwise/shop";
    assert!(file(&steps, "proxy-unit").contains(&format!("-f {root}/haproxy.cfg\n")));
    assert!(file(&steps, "reconcile-unit").contains(&format!("reconcile --root {root}\n")));
    assert!(file(&steps, "log-rotation").starts_with(&format!("{root}/log/*.log")));
    let Action::Command(install) = &steps
        .iter()
        .find(|step| step.name == "install")
        .unwrap()
        .action
    else {
        panic!("install is a command");
    };
    assert!(
        install.apply.contains(&format!("--root {root} ")),
        "{}",
        install.apply
    );
    assert!(
        install.apply.contains("--listen '0.0.0.0:8080'"),
        "{}",
        install.apply
    );
}

#[test]
fn a_server_that_is_reached_over_ipv6_listens_there() {
    let steps = steps(&Server {
        api: Some(Api {
            address: "2001:db8::7".parse().unwrap(),
            ..api()
        }),
        ..server()
    });
    assert!(render(&steps).contains("--listen '[::]:8080'"));
}

#[test]
fn no_text_in_the_script_can_end_it_early() {
    for step in steps(&server()) {
        if let Action::File(File { text, path, .. }) = &step.action {
            assert!(text.ends_with('\n'), "{path}");
            assert!(!text.contains("END-OF-REGIONWISE-FILE"), "{path}");
        }
    }
}

#[test]
fn user_data_holds_the_script_of_the_system_and_nothing_of_the_product() {
    let script = render(&steps(&Server::bare(system())));
    let user_data = cloud_config::render(&script).unwrap();
    assert!(user_data.starts_with("#cloud-config\n"));
    assert!(
        user_data.len() <= cloud_config::LIMIT,
        "{} bytes",
        user_data.len()
    );
    for product in [
        "region-host install",
        "deploy.pub",
        "regionwise-shop",
        "authorized",
    ] {
        assert!(!user_data.contains(product), "{product}");
    }
    let block = user_data
        .split_once("content: |\n")
        .unwrap()
        .1
        .split_once("runcmd:")
        .unwrap()
        .0;
    let lines: Vec<&str> = block
        .lines()
        .map(|line| line.strip_prefix("      ").unwrap_or(line))
        .collect();
    assert_eq!(
        lines.join("\n") + "\n",
        script,
        "as YAML reads a literal block"
    );
}

#[test]
fn user_data_larger_than_a_cloud_takes_is_refused() {
    let script = "x\n".repeat(cloud_config::LIMIT);
    assert!(
        matches!(cloud_config::render(&script), Err(cloud_config::TooLarge(bytes)) if bytes > cloud_config::LIMIT)
    );
}

#[test]
fn an_address_in_the_mesh_follows_from_both_names_and_never_changes() {
    let address = mesh::address("shop", "shop-eu-1");
    assert_eq!(address.to_string(), "fd8d:9001:d32c:0:692a:1611:9ab6:5bdb");
    assert_ne!(mesh::address("shop", "shop-eu-2"), address);
    assert_ne!(mesh::address("other", "shop-eu-1"), address);
}

#[test]
fn a_peer_may_send_from_its_own_address_only_and_no_private_key_is_in_the_script() {
    let steps = steps(&server());
    let [second, third] = ["shop-eu-2", "shop-us-1"].map(|peer| mesh::address("shop", peer));
    let wanted = format!(
        "ListenPort = 51820

# shop-eu-2
[Peer]
PublicKey = two=
AllowedIPs = {second}/128
Endpoint = [2001:db8::2]:51820
PersistentKeepalive = 25

# shop-us-1
[Peer]
PublicKey = us+/=
AllowedIPs = {third}/128
"
    );
    assert_eq!(file(&steps, "mesh-peers"), wanted);
    let program = file(&steps, "mesh-tool");
    assert!(render(&steps).matches("PrivateKey").count() == program.matches("PrivateKey").count());
}

fn place(steps: &[Step], name: &str) -> Option<usize> {
    steps.iter().position(|step| step.name == name)
}
