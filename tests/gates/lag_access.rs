//! `check-replication-lag` where it cannot see, or looks at the wrong server: never `proceed`.

use std::net::TcpListener;
use std::time::Duration;

use crate::world::{EU, LAB, US, lag_gate, sql, until, variable};

/// The same DSN with another part.
fn changed(dsn: &str, from: &str, to: &str) -> String {
    let changed = dsn.replacen(from, to, 1);
    assert_ne!(changed, dsn, "`{from}` is not in the DSN");
    changed
}

fn password(dsn: &str) -> &str {
    dsn.split(['@', ':']).nth(2).expect("a DSN with a password")
}

fn port_of_nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn a_standby_that_refuses_connections_is_unreachable() {
    let _us = US.shared();
    let nobody = format!("postgres://lag:x@127.0.0.1:{}/shop", port_of_nobody());
    let ended = lag_gate()
        .args(["--cluster", "us"])
        .env("LAB_US_DR_DSN", &nobody)
        .run();
    ended.is(10, "pause unreachable");
    assert!(
        ended.summary().starts_with("`us-dr`: no answer in "),
        "{}",
        ended.summary()
    );
    assert!(
        ended.summary().contains("connection refused"),
        "{}",
        ended.summary()
    );
    assert!(ended.took < Duration::from_secs(6), "{:?}", ended.took);
}

#[test]
fn a_server_that_accepts_and_never_answers_does_not_hold_the_gate_up() {
    let _us = US.shared();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("postgres://lag:x@{}/shop", silent.local_addr().unwrap());
    let ended = lag_gate()
        .args(["--cluster", "us"])
        .env("LAB_US_DR_DSN", &dsn)
        .run();
    ended.is(10, "pause unreachable");
    assert!(
        ended.summary().contains("no answer within 1200 ms"),
        "{}",
        ended.summary()
    );
    assert!(ended.took < Duration::from_secs(8), "{:?}", ended.took);
}

#[test]
fn a_primary_that_is_down_makes_every_standby_unknown() {
    let _eu = EU.shared();
    let nobody = format!("postgres://lag:x@127.0.0.1:{}/shop", port_of_nobody());
    let ended = lag_gate()
        .args(["--cluster", "eu"])
        .env("LAB_EU_PRIMARY_DSN", &nobody)
        .run();
    ended.is(10, "pause unreachable");
    assert!(
        ended.summary().contains("primary: connection refused"),
        "{}",
        ended.summary()
    );
}

#[test]
fn a_wrong_password_pauses_at_once_and_is_never_shown() {
    let _eu = EU.shared();
    let dsn = variable("LAB_EU_HEL_DSN");
    let wrong = changed(dsn, password(dsn), "hunter2");
    let ended = lag_gate()
        .args(["--cluster", "eu"])
        .env("LAB_EU_HEL_DSN", &wrong)
        .run();
    ended.is(10, "pause auth");
    assert!(ended.took < Duration::from_secs(3), "{:?}", ended.took);
    assert!(!ended.json.to_string().contains("hunter2") && !ended.stderr.contains("hunter2"));
}

#[test]
fn a_dsn_that_cannot_be_used_is_invalid_and_never_shown() {
    for dsn in [
        "postgres://lag:hunter2@",
        "hunter2",
        "postgres://lag:hunter2@db/shop?sslmode=hunter2",
    ] {
        let ended = lag_gate()
            .args(["--cluster", "eu"])
            .env("LAB_EU_HEL_DSN", dsn)
            .run();
        ended.is(2, "invalid -");
        let all = format!("{}{}", ended.json, ended.stderr);
        assert!(all.contains("cannot use the DSN of `eu-hel`"), "{all}");
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn a_role_that_sees_nothing_of_replication_pauses_with_what_to_run() {
    let _eu = EU.shared();
    sql(
        "eu-primary",
        "DO $$ BEGIN CREATE ROLE blind LOGIN PASSWORD 'blind'; GRANT USAGE ON SCHEMA regionwise TO blind; \
         GRANT ALL ON regionwise.heartbeat TO blind; END $$",
    );
    let dsn = variable("LAB_EU_PRIMARY_DSN");
    let blind = changed(
        &changed(dsn, "regionwise_lag", "blind"),
        password(dsn),
        "blind",
    );
    let ended = lag_gate()
        .args(["--cluster", "eu"])
        .env("LAB_EU_PRIMARY_DSN", &blind)
        .run();
    ended.is(10, "pause permission");
    assert!(
        ended.summary().contains("pg_monitor"),
        "{}",
        ended.summary()
    );
    assert_eq!(
        ended.json["hints"][0],
        "check-replication-lag setup --print-sql"
    );
}

#[test]
fn no_heartbeat_table_pauses_with_what_to_run() {
    let _eu = EU.shared();
    let elsewhere = changed(variable("LAB_EU_PRIMARY_DSN"), "/shop", "/postgres");
    let ended = lag_gate()
        .args(["--cluster", "eu"])
        .env("LAB_EU_PRIMARY_DSN", &elsewhere)
        .run();
    ended.is(10, "pause no-heartbeat-table");
    assert_eq!(
        ended.json["hints"][0],
        "check-replication-lag setup --print-sql"
    );
}

#[test]
fn a_role_that_may_not_write_the_heartbeat_pauses() {
    let _us = US.shared();
    sql(
        "us-primary",
        "DO $$ BEGIN CREATE ROLE reader LOGIN PASSWORD 'reader'; GRANT pg_monitor TO reader; END $$",
    );
    let dsn = variable("LAB_US_PRIMARY_DSN");
    let reader = changed(
        &changed(dsn, "regionwise_lag", "reader"),
        password(dsn),
        "reader",
    );
    lag_gate()
        .args(["--cluster", "us"])
        .env("LAB_US_PRIMARY_DSN", &reader)
        .run()
        .is(10, "pause permission");
}

#[test]
fn a_server_of_another_cluster_is_refused() {
    let (_us, _eu) = (US.shared(), EU.shared());
    let ended = lag_gate()
        .args(["--cluster", "us"])
        .env("LAB_US_DR_DSN", variable("LAB_EU_NBG_DSN"))
        .run();
    ended.is(12, "refused wrong-cluster");
    assert!(
        ended
            .summary()
            .starts_with("`us-dr` belongs to another cluster"),
        "{}",
        ended.summary()
    );
}

#[test]
fn roles_that_are_not_what_the_file_says_are_refused() {
    let _us = US.shared();
    let writable = lag_gate()
        .args(["--cluster", "us"])
        .env("LAB_US_DR_DSN", variable("LAB_US_PRIMARY_DSN"))
        .run();
    writable.is(12, "refused wrong-role");
    assert!(
        writable.summary().contains("second writable node"),
        "{}",
        writable.summary()
    );
    let demoted = lag_gate()
        .args(["--cluster", "us"])
        .env("LAB_US_PRIMARY_DSN", variable("LAB_US_DR_DSN"))
        .run();
    demoted.is(12, "refused wrong-role");
    assert!(
        demoted.summary().contains("in recovery"),
        "{}",
        demoted.summary()
    );
}

#[test]
fn plaintext_to_another_machine_is_refused_before_a_password_is_sent() {
    let _eu = EU.shared();
    // An address of this machine that is not loopback, where a listener would get the password.
    let Some(address) = own_address() else { return };
    let listener = TcpListener::bind((address, 0)).unwrap();
    let dsn = format!(
        "postgres://lag:hunter2@{}/shop?sslmode=disable",
        listener.local_addr().unwrap()
    );
    let ended = lag_gate()
        .args(["--cluster", "eu"])
        .env("LAB_EU_HEL_DSN", &dsn)
        .run();
    ended.is(10, "pause tls");
    assert!(ended.took < Duration::from_secs(3), "{:?}", ended.took);
}

/// The address this machine would speak to the world from; no packet is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// Makes `eu-hel` speak TLS, with a certificate for its own address from an authority of its own.
fn authority_of_eu_hel(address: &str) -> String {
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    let script = format!(
        "umask 077; {make} -subj /CN=authority -keyout ca.key -out ca.crt && \
         {make} -subj /CN=eu-hel -addext subjectAltName=IP:{address} -addext basicConstraints=critical,CA:FALSE \
         -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt"
    );
    // By the server's own account, in its data directory.
    sql(
        "eu-hel",
        &format!("COPY (SELECT 1) TO PROGRAM '({script}) 2>&1'"),
    );
    sql("eu-hel", "ALTER SYSTEM SET ssl = on");
    sql("eu-hel", "SELECT pg_reload_conf()");
    until("TLS is on", || {
        sql("eu-hel", "SELECT 1 WHERE current_setting('ssl') = 'on'").len() == 1
    });
    let file = sql("eu-hel", "SELECT pg_read_file('ca.crt') AS pem");
    file[0].text("pem").unwrap().to_owned()
}

#[test]
fn tls_is_checked_against_the_authority_and_the_name() {
    let _eu = EU.shared();
    let plain = variable("LAB_EU_HEL_DSN");
    let address = plain
        .rsplit(['@', '/'])
        .nth(1)
        .unwrap()
        .split(':')
        .next()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let authority = dir.path().join("ca.pem");
    std::fs::write(&authority, authority_of_eu_hel(address)).unwrap();
    let gate = |settings: &str| {
        let dsn = format!("{plain}?{settings}");
        lag_gate()
            .args(["--cluster", "eu"])
            .env("LAB_EU_HEL_DSN", &dsn)
            .run()
    };
    let authority = authority.display();
    gate(&format!("sslmode=verify-full&sslrootcert={authority}")).is(0, "proceed clear");
    let unknown = gate("sslmode=require");
    unknown.is(10, "pause tls");
    assert!(
        unknown.summary().contains("UnknownIssuer"),
        "{}",
        unknown.summary()
    );
    gate("sslmode=verify-full&sslrootcert=/nonexistent/ca.pem").is(10, "pause tls");
    let other_name = changed(plain, address, "db.example");
    let dsn =
        format!("{other_name}?hostaddr={address}&sslmode=verify-full&sslrootcert={authority}");
    let wrong_name = lag_gate()
        .args(["--cluster", "eu"])
        .env("LAB_EU_HEL_DSN", &dsn)
        .run();
    wrong_name.is(10, "pause tls");
    assert!(
        wrong_name.summary().contains("not valid for name"),
        "{}",
        wrong_name.summary()
    );
    let dsn = format!("{}?sslmode=require", variable("LAB_EU_NBG_DSN"));
    let no_tls = lag_gate()
        .args(["--cluster", "eu"])
        .env("LAB_EU_NBG_DSN", &dsn)
        .run();
    no_tls.is(10, "pause tls");
    assert!(
        no_tls.summary().contains("server does not support TLS"),
        "{}",
        no_tls.summary()
    );
}

#[test]
fn a_standby_behind_a_pooler_is_measured_with_a_warning() {
    let _us = US.shared();
    sql("us-primary", "DO $$ BEGIN GRANT pg_monitor TO shop; END $$");
    let granted = "SELECT 1 WHERE pg_has_role('shop', 'pg_monitor', 'USAGE')";
    until("the grant arrives", || !sql("us-sin", granted).is_empty());
    let env = std::fs::read_to_string(LAB.directory().host("sin-1").join("lab.env")).unwrap();
    let pooled = env
        .lines()
        .find_map(|line| line.strip_prefix("READ_DATABASE_URL="))
        .unwrap();
    let ended = lag_gate()
        .args(["--cluster", "us"])
        .env("LAB_US_SIN_DSN", pooled)
        .run();
    ended.is(0, "proceed clear");
    assert!(
        ended
            .findings()
            .contains("`us-sin` is reached through a pooler"),
        "{}",
        ended.findings()
    );
}
