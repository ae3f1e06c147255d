use std::collections::BTreeSet;

use super::*;
use crate::cloud_config;
use crate::script::render;

fn server() -> Server {
    Server {
        api: Some(api()),
        ..Server::bare(system())
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
        Action::File(File {
            content: Content::Text(text),
            ..
        }) => text,
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
        if let Action::File(File {
            content: Content::Text(text),
            path,
            ..
        }) = &step.action
        {
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
