//! The examples parse, mean what their comments say, and satisfy the schema that editors get.

use std::time::Duration;

use regionwise_topology::{
    Migration, OnFailure, OtherUser, Outage, Secret, Shared, Topology, Unowned,
};

const ONE_SERVER: &str = include_str!("../../../examples/one-server.toml");
const THREE_REGIONS: &str = include_str!("../../../examples/three-regions.toml");
const FROM_NOTHING: &str = include_str!("../../../examples/from-nothing.toml");

fn parse(text: &str) -> Topology {
    Topology::parse("regions.toml", text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn one_server_has_every_default_that_three_regions_spells_out() {
    let (one, three) = (parse(ONE_SERVER), parse(THREE_REGIONS));
    assert_eq!(one.lag, three.lag);
    assert_eq!(one.health, three.health);
    let mut rollout = three.rollout.clone();
    rollout.waves.clone_from(&one.rollout.waves);
    assert_eq!(one.rollout, rollout);
    assert_eq!(one.rollout.on_failure, OnFailure::Region);
    assert_eq!(one.lag.threshold, Duration::from_millis(500));
    assert_eq!(one.lag.sustained, Duration::from_secs(60));
    assert!(one.budget.is_none());
}

#[test]
fn one_server_answers_on_port_80_behind_a_load_balancer_that_ends_tls() {
    let one = parse(ONE_SERVER);
    let host = &one.regions[0].hosts[0];
    assert_eq!((host.ssh_port, host.http_port, host.tls), (22, 80, false));
    assert_eq!(one.regions[0].url.scheme(), "https");
    assert_eq!(
        one.ssh.identity,
        Secret::File("~/.ssh/regionwise".to_owned())
    );
    let cluster = one.cluster_of(&one.regions[0]);
    assert_eq!(
        (cluster.name.as_str(), cluster.standbys.len(), cluster.sync),
        ("main", 0, 0)
    );
}

#[test]
fn a_port_in_the_url_is_the_port_of_the_hosts_unless_they_name_one() {
    let text = ONE_SERVER
        .replace("https://shop.example", "http://shop.example:8080")
        .replace("http_port = 80\n", "");
    assert_eq!(parse(&text).regions[0].hosts[0].http_port, 8080);
    let text = text.replace("address = ", "http_port = 81\nssh_port = 2222\naddress = ");
    let host = &parse(&text).regions[0].hosts[0];
    assert_eq!((host.http_port, host.ssh_port), (81, 2222));
}

#[test]
fn a_host_speaks_as_the_url_of_its_region_unless_it_says_otherwise() {
    let of = |url: &str, host: &str| {
        let text = ONE_SERVER
            .replace("https://shop.example", url)
            .replace("http_port = 80\ntls = false\n", host);
        let host = parse(&text).regions[0].hosts[0].clone();
        (host.tls, host.http_port)
    };
    assert_eq!(of("https://shop.example", ""), (true, 443));
    assert_eq!(of("https://shop.example:8443", ""), (true, 8443));
    assert_eq!(of("http://shop.example:8080", ""), (false, 8080));
    assert_eq!(
        of("https://shop.example:8443", "tls = false\n"),
        (false, 80)
    );
    assert_eq!(of("http://shop.example:8080", "tls = true\n"), (true, 443));
    assert_eq!(of("https://shop.example", "http_port = 81\n"), (true, 81));
}

#[test]
fn an_account_is_regionwise_unless_the_file_names_one() {
    assert_eq!(
        parse(&ONE_SERVER.replace("user = \"regionwise\"\n", ""))
            .ssh
            .user,
        "regionwise"
    );
    assert_eq!(
        parse(&ONE_SERVER.replace("\"regionwise\"", "\"deploy\""))
            .ssh
            .user,
        "deploy"
    );
}

#[test]
fn regions_come_in_the_order_of_the_waves() {
    let names = |topology: &Topology| -> Vec<String> {
        topology
            .regions
            .iter()
            .map(|region| region.name.clone())
            .collect()
    };
    assert_eq!(
        names(&parse(THREE_REGIONS)),
        ["ap-singapore", "eu-central", "us-east"]
    );
    let text = THREE_REGIONS.replace(
        r#"[["ap-singapore"], ["eu-central"], ["us-east"]]"#,
        r#"[["us-east"], ["eu-central", "ap-singapore"]]"#,
    );
    assert_eq!(
        names(&parse(&text)),
        ["us-east", "eu-central", "ap-singapore"]
    );
}

#[test]
fn without_waves_the_least_traffic_goes_first_and_equal_shares_by_name() {
    let line = r#"waves = [["ap-singapore"], ["eu-central"], ["us-east"]]"#;
    assert!(THREE_REGIONS.contains(line));
    let text = THREE_REGIONS
        .replace(line, "")
        .replace("traffic = 0.55", "traffic = 0");
    let topology = parse(&text);
    assert_eq!(
        topology.rollout.waves,
        [["us-east"], ["ap-singapore"], ["eu-central"]]
    );
    assert_eq!(topology.regions[0].name, "us-east");

    let text = text.replace("traffic = 0.15", "traffic = 0.30");
    assert_eq!(
        parse(&text).rollout.waves,
        [["us-east"], ["ap-singapore"], ["eu-central"]]
    );
}

#[test]
fn three_regions_keeps_european_rows_in_europe() {
    let three = parse(THREE_REGIONS);
    let eu = &three.clusters["eu"];
    let residency = &three.residencies[eu.residency.as_ref().unwrap()];
    assert_eq!(residency.outage, Outage::FailClosed);
    assert_eq!(
        residency.countries.len(),
        30,
        "27 member states and the EEA"
    );
    for node in eu.standbys.iter().chain([&eu.primary]) {
        assert!(
            residency.locations.contains(&node.location),
            "{}",
            node.name
        );
    }
    assert_eq!(eu.sync, 1);
}

#[test]
fn every_word_of_the_file_has_its_meaning() {
    let text = |outage: &str, on_failure: &str| {
        THREE_REGIONS
            .replace(
                "outage = \"fail-closed\"",
                &format!("outage = \"{outage}\""),
            )
            .replace(
                "on_failure = \"region\"",
                &format!("on_failure = \"{on_failure}\""),
            )
    };
    let topology = parse(&text("intra-only", "all"));
    assert_eq!(topology.residencies["eu"].outage, Outage::IntraOnly);
    assert_eq!(topology.rollout.on_failure, OnFailure::All);
    assert_eq!(
        parse(&text("fail-closed", "none")).rollout.on_failure,
        OnFailure::None
    );
}

#[test]
fn without_a_word_about_github_no_environment_must_be_protected() {
    let one = parse(ONE_SERVER);
    assert!(one.github.protected.is_empty());
    assert_eq!(one.environment_of(&one.regions[0]), "home");
    let three = parse(THREE_REGIONS);
    assert_eq!(three.github.protected, ["us-east"]);
    assert_eq!(
        three.environment_of(&three.regions[0]),
        "production-ap-singapore"
    );
}

fn migration(text: &str) -> Migration {
    parse(text)
        .migration
        .unwrap_or_else(|| panic!("no [migration]"))
}

#[test]
fn a_file_need_not_say_anything_about_a_migration() {
    assert!(parse(ONE_SERVER).migration.is_none());
}

#[test]
fn every_word_about_a_migration_has_its_meaning() {
    let eu = migration(THREE_REGIONS);
    assert_eq!((eu.from.as_str(), eu.to.as_str()), ("us", "eu"));
    assert_eq!(eu.users, "billing_country = 'DE'");
    assert_eq!(eu.route_cache_ttl, Duration::from_secs(30));
    assert!(eu.tables["audit_log"].stays);
    assert_eq!(eu.tables["countries"].shared, Some(Shared::Reference));
    assert_eq!(eu.tables["gifts"].owner_by, ["gifts_giver_fkey"]);
    assert_eq!(eu.tables["gifts"].unowned, Some(Unowned::Stay));
    let orders = &eu.tables["orders"];
    assert_eq!(orders.other_users["referred_by"], OtherUser::SetNull);
    let owner = eu.tables["support_notes"].owner.clone().unwrap();
    assert_eq!(owner.columns, ["customer"]);
    assert_eq!(
        (owner.references.as_str(), owner.referenced.as_slice()),
        ("users", ["email".to_owned()].as_slice())
    );
}

#[test]
fn without_a_condition_the_countries_of_the_residency_move() {
    let line = "users = \"billing_country = 'DE'\"\n";
    assert!(THREE_REGIONS.contains(line));
    let users = migration(&THREE_REGIONS.replace(line, "")).users;
    assert!(
        users.starts_with("billing_country IN ('AT', 'BE', "),
        "{users}"
    );
    assert_eq!(users.matches(", ").count() + 1, 30);
}

#[test]
fn a_role_that_is_left_out_is_the_one_with_more_rights() {
    let without = |names: &[&str]| {
        let kept = THREE_REGIONS.lines().filter(|line| {
            !names
                .iter()
                .any(|name| line.starts_with(&format!("{name} = {{ from")))
        });
        migration(&kept.collect::<Vec<_>>().join("\n")).roles
    };
    let env = |name: &str| Secret::Env(name.to_owned());
    let all = without(&[]);
    assert_eq!(all.install.from, env("US_INSTALL_DSN"));
    assert_eq!(all.mover.to, env("EU_MOVE_DSN"));
    assert_eq!(all.verify.to, env("EU_VERIFY_DSN"));
    assert_eq!(without(&["verify"]).verify, all.mover);
    let installs = without(&["verify", "move"]);
    assert_eq!(
        (&installs.verify, &installs.mover),
        (&all.install, &all.install)
    );
    let none = without(&["verify", "move", "install"]);
    assert_eq!(none.verify.from, env("US_PRIMARY_DSN"));
    assert_eq!(none.install.to, env("EU_PRIMARY_DSN"));
}

#[test]
fn a_table_of_public_has_one_name() {
    let eu = migration(
        &THREE_REGIONS
            .replace("root = \"users\"", "root = \"public.users\"")
            .replace(
                "[migration.tables.audit_log]",
                "[migration.tables.\"public.audit_log\"]",
            )
            .replace(
                "[migration.tables.gifts]",
                "[migration.tables.\"shop.gifts\"]",
            ),
    );
    assert_eq!(eu.root, "users");
    assert!(eu.tables["audit_log"].stays);
    assert!(eu.tables.contains_key("shop.gifts"));
}

#[test]
fn durations_may_be_as_long_as_their_limits() {
    let longest = r#"
        [gates.lag]
        threshold = "10m"
        sustained = "1h"
        interval = "1m"
        clear_for = "60m"
        timeout = "59s1000ms"
        [gates.health]
        interval = "1ms"
        timeout = "1m"
        [rollout]
        soak = "24h"
        start_deadline = "1h"
        commit_window = "1h"
        verify = "1h"
        confirm_within = "3h"
        drain = "1h"
        lock_ttl = "1h"
    "#;
    let topology = parse(&format!("{ONE_SERVER}{longest}"));
    assert_eq!(topology.lag.timeout, Duration::from_secs(60));
    assert_eq!(topology.health.interval, Duration::from_millis(1));
    assert_eq!(topology.rollout.soak, Duration::from_secs(86_400));
}

#[test]
fn line_endings_of_windows_and_a_byte_order_mark_are_no_problem() {
    parse(&format!("\u{feff}{}", ONE_SERVER.replace('\n', "\r\n")));
    let problems = Topology::parse("r.toml", "\u{feff}produkt = 1\r\n").unwrap_err();
    let misspelt = problems.iter().find(|problem| problem.key == "produkt");
    assert_eq!(
        misspelt.map(|problem| (problem.line, problem.column)),
        Some((1, 1))
    );
}

#[test]
fn a_file_that_is_not_text_is_refused_with_its_line_and_byte() {
    let mut bytes = ONE_SERVER.as_bytes().to_vec();
    assert!(Topology::parse_bytes("regions.toml", &bytes).is_ok());
    let at = ONE_SERVER.find("shop").unwrap();
    bytes[at] = 0xff;
    let problems = Topology::parse_bytes("regions.toml", &bytes).unwrap_err();
    let line = ONE_SERVER[..at].matches('\n').count() + 1;
    assert_eq!(
        problems.to_string(),
        format!(
            "regions.toml:{line}: this is not UTF-8: byte 0xff at offset {at}\n  accepted: UTF-8 text"
        )
    );
}

#[test]
fn a_problem_tells_where_it_is_without_its_text() {
    let text = THREE_REGIONS.replace("traffic = 0.30", "  traffic = 1.4");
    let problems = Topology::parse("regions.toml", &text).unwrap_err();
    let [problem] = problems.iter().collect::<Vec<_>>()[..] else {
        panic!("{problems}")
    };
    assert_eq!((problem.file.as_str(), problem.column), ("regions.toml", 3));
    assert_eq!(text.lines().nth(problem.line - 1), Some("  traffic = 1.4"));
    assert_eq!(problem.key, "regions.eu-central.traffic");
    assert_eq!(
        (problem.found.as_str(), problem.accepted.as_str()),
        ("1.4", "a number from 0.0 to 1.0")
    );
    assert_eq!(problem.hint, None);
}

#[test]
fn the_examples_satisfy_the_schema_of_editors() {
    let schema = jsonschema::draft7::new(&Topology::json_schema()).unwrap();
    for example in [ONE_SERVER, THREE_REGIONS, FROM_NOTHING] {
        let value: serde_json::Value = toml::from_str(example).unwrap();
        let errors: Vec<String> = schema
            .iter_errors(&value)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}

#[test]
fn the_schema_refuses_what_an_editor_can_see() {
    let schema = jsonschema::draft7::new(&Topology::json_schema()).unwrap();
    for (right, wrong) in [
        ("traffic = 1.0", "trafic = 1.0"),
        ("traffic = 1.0", "traffic = 1.4"),
        ("\"fsn1\"", "\"FSN1\""),
        ("standbys = []", ""),
        ("env:MAIN_DSN", "postgres://shop@db"),
        ("https://shop.example", "https://shop.example/?q"),
        ("[regions.home]", "[regions.Home]"),
        (
            "[regions.home.hosts.web-1]\naddress = \"203.0.113.7\"",
            "[regions.home.hosts]",
        ),
    ] {
        let text = ONE_SERVER.replacen(right, wrong, 1);
        assert_ne!(text, ONE_SERVER);
        let value: serde_json::Value = toml::from_str(&text).unwrap();
        assert!(!schema.is_valid(&value), "{wrong} was accepted");
    }
}
