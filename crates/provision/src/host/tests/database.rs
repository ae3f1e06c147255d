//! Nodes, and what leads to them.

use super::*;

#[test]
fn every_login_is_named_and_everybody_else_is_rejected() {
    let steps = steps(&server());
    let [second, third] = ["shop-eu-2", "shop-eu-3"].map(|peer| mesh::address("shop", peer));
    let wanted = format!(
        "# Written by provision-region.
local all postgres peer
hostssl replication replica_eu_2 {second}/128 cert map=regionwise
hostssl replication replica_eu_3 {third}/128 cert map=regionwise
host \"shop\" \"regionwise_lag\" 127.0.0.1/32 scram-sha-256
host \"shop\" \"regionwise_lag\" ::1/128 scram-sha-256
hostssl \"shop\" \"regionwise_lag\" 10.64.0.0/24 scram-sha-256
host \"shop\" \"shop\" 127.0.0.1/32 scram-sha-256
host \"shop\" \"shop\" ::1/128 scram-sha-256
hostssl \"shop\" \"shop\" 10.64.0.0/24 scram-sha-256
local replication all reject
local all all reject
host replication all all reject
host all all all reject
"
    );
    assert_eq!(file(&steps, "database-logins"), wanted);
    let names = file(&steps, "database-names");
    assert!(
        names.ends_with("regionwise \"eu-2\" replica_eu_2\nregionwise \"eu-3\" replica_eu_3\n"),
        "{names}"
    );
}

#[test]
fn a_standby_lets_nobody_receive_and_streams_from_the_pinned_primary_alone() {
    let steps = steps(&Server {
        database: Some(standby()),
        ..server()
    });
    assert!(!file(&steps, "database-logins").contains("cert"));
    let config = file(&steps, "database-config");
    let primary = mesh::address("shop", "shop-eu-1");
    for words in [
        &format!(
            "primary_conninfo = 'host={primary} port=5432 user=replica_eu_2 application_name=eu-2 sslmode=verify-ca"
        ),
        "sslrootcert=/etc/regionwise/postgres/primary.crt",
        "primary_slot_name = 'replica_eu_2'",
    ] {
        assert!(config.contains(words), "{words}: {config}");
    }
    assert_eq!(
        file(&steps, "database-primary"),
        "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"
    );
    // Accounts come from the primary, and only it knows who must confirm.
    for absent in ["database-accounts", "database-replicas", "database-sync"] {
        assert!(steps.iter().all(|step| step.name != absent), "{absent}");
    }
}

#[test]
fn whether_commits_wait_changes_one_step_and_no_file() {
    let with = |sync, complete| {
        let Part::Primary { standbys, .. } = database().part else {
            panic!("it is the primary");
        };
        steps(&Server {
            database: Some(Database {
                part: Part::Primary {
                    first: true,
                    standbys,
                    known: Vec::new(),
                    sync,
                    complete,
                    last: true,
                },
                ..database()
            }),
            ..server()
        })
    };
    let apply = |steps: &[Step]| {
        let sync = steps.iter().find(|step| step.name == "database-sync")?;
        let Action::Command(command) = &sync.action else {
            panic!("it is a command");
        };
        Some(command.apply.clone())
    };
    let tool = "/usr/local/lib/regionwise/postgres set_sync";
    assert_eq!(
        apply(&with(1, true)),
        Some(format!("{tool} 'ANY 1 (\"eu-2\", \"eu-3\")'"))
    );
    assert_eq!(apply(&with(0, true)), Some(format!("{tool} ''")));
    let mut some = with(1, true);
    some.retain(|step| step.name != "database-sync");
    assert_eq!(with(1, false), some);
}

#[test]
fn the_keys_come_without_any_peer_and_are_the_first_of_the_same_steps() {
    let keys = keys(&server());
    let all = steps(&server());
    assert!(keys.iter().all(|step| all.contains(step)));
    let facts: Vec<&str> = keys
        .iter()
        .filter_map(|step| match &step.action {
            Action::Fact(fact) => Some(fact.fact),
            _ => None,
        })
        .collect();
    assert_eq!(facts, ["wireguard", "rows", "renewal", "certificate"]);
    let nobody = Mesh {
        peers: Vec::new(),
        ..mesh()
    };
    let alone = Server {
        mesh: Some(nobody),
        ..server()
    };
    assert_eq!(super::keys(&alone), keys);
}

#[test]
fn redis_and_pgbouncer_listen_where_they_are_asked_and_let_nobody_in_without_a_password() {
    let steps = steps(&server());
    let config = file(&steps, "redis-config");
    assert!(
        config.contains("bind 127.0.0.1 ::1 10.64.0.2\n"),
        "{config}"
    );
    assert!(
        config.contains("aclfile /etc/regionwise/redis/users.acl\n"),
        "{config}"
    );
    let config = file(&steps, "bouncer-config");
    for words in [
        "listen_addr = 127.0.0.1\nlisten_port = 6432\n",
        "shop = host=127.0.0.1 port=5432 dbname=shop\n",
        "shop_read = host=fd00::2 port=5432 dbname=shop\n",
        "auth_type = scram-sha-256\n",
        "server_tls_sslmode = verify-ca\n",
        "pool_mode = transaction\n",
    ] {
        assert!(config.contains(words), "{words}: {config}");
    }
}

#[test]
fn a_host_speaks_to_the_two_nodes_that_it_knows_and_names_each_once() {
    let pem = |node: &str, line: &str| {
        format!("# {node}\n-----BEGIN CERTIFICATE-----\n{line}\n-----END CERTIFICATE-----\n")
    };
    let both = steps(&server());
    let wanted = pem("eu-1", "TUlJ") + &pem("eu-2", "TUlK");
    assert_eq!(file(&both, "bouncer-nodes"), wanted);
    let one = steps(&Server {
        bouncer: Some(Bouncer {
            read: bouncer().write,
            ..bouncer()
        }),
        ..server()
    });
    assert_eq!(file(&one, "bouncer-nodes"), pem("eu-1", "TUlJ"));
}

#[test]
fn a_node_that_is_down_keeps_no_host_from_being_made() {
    assert_eq!(place(&steps(&server()), "bouncer-logins"), None);
    let names =
        |server: &Server| -> Vec<&str> { logins(server).iter().map(|step| step.name).collect() };
    assert_eq!(names(&server()), ["bouncer-logins"]);
    let none = Server {
        bouncer: None,
        ..server()
    };
    assert!(names(&none).is_empty());
}

#[test]
fn a_node_with_a_next_certificate_is_trusted_by_both_and_both_come_back_from_the_file() {
    let both = "TUlJ TUlK";
    let text = pem(both);
    assert_eq!(text.matches("-----BEGIN CERTIFICATE-----\n").count(), 2);
    assert_eq!(from_pem(&text).as_deref(), Some(both));
    assert_eq!(from_pem("# Nobody yet.\n"), None);
    let long = "QUJD".repeat(40);
    assert_eq!(from_pem(&pem(&long)), Some(long));
    let standby = steps(&Server {
        database: Some(Database {
            part: Part::Standby {
                primary: Replica {
                    certificate: Some(both.to_owned()),
                    ..replica("eu-1")
                },
            },
            ..standby()
        }),
        ..server()
    });
    assert_eq!(file(&standby, "database-primary"), text);
    assert_eq!(file(&standby, "database-peers"), format!("# eu-1\n{text}"));
}
