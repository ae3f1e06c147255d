//! The Postgres clusters of a full lab, and the links between their nodes.
//!
//! One lab for all of these: each test changes only links, standbys and nodes that no other test here looks at.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use regionwise_lab::control::ProcessAction;
use regionwise_lab::{Lab, LinkChange, Options};
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

use crate::support::{LAB, PATIENCE, lab};

/// Ends with this test process, whose end its guard notices.
fn full() -> &'static Lab {
    static FULL: OnceLock<Lab> = OnceLock::new();
    FULL.get_or_init(|| Lab::start(&Options::full(LAB)).unwrap_or_else(|error| panic!("{error}")))
}

/// Written while `eu-nbg` is dead, read by those who need it.
static EU_NBG: RwLock<()> = RwLock::const_new(());

fn variable(node: &str, kind: &str) -> String {
    let name = format!("LAB_{}_{kind}", node.replace('-', "_").to_uppercase());
    full()
        .env()
        .get(&name)
        .unwrap_or_else(|| panic!("no {name}"))
        .clone()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    tokio::spawn(connection);
    client
}

async fn admin(node: &str) -> Client {
    connect(&variable(node, "ADMIN_DSN")).await
}

async fn text(client: &Client, sql: &str) -> String {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.and_then(|row| row.get(0))
        .unwrap_or_default()
        .to_owned()
}

/// Asks until the answer is `wanted`. Replication tells nobody when it has arrived.
async fn eventually(client: &Client, sql: &str, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = text(client, sql).await;
        if found == wanted {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{sql}: `{found}`, not `{wanted}`"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

const CLUSTERS: [(&str, [&str; 2]); 2] = [
    ("us-primary", ["us-sin", "us-dr"]),
    ("eu-primary", ["eu-nbg", "eu-hel"]),
];

#[tokio::test]
async fn standbys_stream_with_their_primarys_identity_and_clusters_differ() {
    let _alive = EU_NBG.read().await;
    let identity = "SELECT system_identifier::text FROM pg_control_system()";
    let mut identities = Vec::new();
    for (primary, standbys) in CLUSTERS {
        let primary_client = admin(primary).await;
        assert_eq!(
            text(&primary_client, "SELECT pg_is_in_recovery()").await,
            "f"
        );
        let own = text(&primary_client, identity).await;
        for standby in standbys {
            let client = admin(standby).await;
            assert_eq!(
                text(&client, "SELECT pg_is_in_recovery()").await,
                "t",
                "{standby}"
            );
            assert_eq!(text(&client, identity).await, own, "{standby}");
            assert_eq!(text(&client, "SHOW cluster_name").await, standby);
            let sql = format!(
                "SELECT count(*) FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid \
                 WHERE application_name = '{standby}' AND state = 'streaming' AND slot_name = '{}'",
                standby.replace('-', "_")
            );
            assert_eq!(text(&primary_client, &sql).await, "1", "{standby}");
        }
        identities.push(own);
    }
    assert_ne!(identities[0], identities[1]);
}

#[tokio::test]
async fn the_eu_cluster_commits_synchronously_to_any_one_standby_and_the_us_one_to_none() {
    let _alive = EU_NBG.read().await;
    let eu = admin("eu-primary").await;
    assert_eq!(
        text(&eu, "SHOW synchronous_standby_names").await,
        "ANY 1 (\"eu-nbg\",\"eu-hel\")"
    );
    let quorum = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'";
    assert_eq!(text(&eu, quorum).await, "2");
    let us = admin("us-primary").await;
    assert_eq!(text(&us, "SHOW synchronous_standby_names").await, "");
}

#[tokio::test]
async fn the_lag_role_sees_replication_writes_its_heartbeat_and_nothing_of_the_product() {
    let client = connect(&variable("us-primary", "DSN")).await;
    let states = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    assert_eq!(text(&client, states).await, "2");
    let beat = "INSERT INTO regionwise.heartbeat (cluster, writer, seq) VALUES ('us', gen_random_uuid(), 42)";
    client.batch_execute(beat).await.expect("a heartbeat");
    let seen = "SELECT count(*) > 0 FROM regionwise.heartbeat WHERE seq = 42";
    let standby = connect(&variable("us-dr", "DSN")).await;
    eventually(&standby, seen, "t").await;
    assert!(
        client.batch_execute("SELECT * FROM users").await.is_err(),
        "the lag role reads users"
    );
}

#[tokio::test]
async fn each_account_of_a_migration_may_do_its_part_and_no_other() {
    for cluster in ["us", "eu"] {
        let account = async |role: &str| {
            let name = format!("LAB_{}_{role}_DSN", cluster.to_uppercase());
            connect(full().env().get(&name).expect("a DSN")).await
        };
        let may = async |client: &Client, sql: &str| client.batch_execute(sql).await.is_ok();
        let (install, mover, verifier) = (
            account("INSTALL").await,
            account("MOVE").await,
            account("VERIFY").await,
        );
        // What an install does: objects in the schema, triggers on the product's tables, rights for the groups.
        let sql = "BEGIN; CREATE TABLE regionwise.tried (); \
                   CREATE FUNCTION regionwise.tried() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
                   CREATE TRIGGER tried BEFORE INSERT ON users EXECUTE FUNCTION regionwise.tried(); \
                   GRANT SELECT ON users TO regionwise_move, regionwise_verify; ROLLBACK";
        assert!(may(&install, sql).await, "{cluster}");
        assert!(!may(&install, "SET session_replication_role = replica").await);
        let replica =
            "SET ROLE regionwise_move; SET session_replication_role = replica; RESET ROLE";
        assert!(may(&mover, replica).await, "{cluster}");
        assert!(!may(&mover, "SET ROLE regionwise_install").await);
        assert!(may(&verifier, "SET ROLE regionwise_verify; RESET ROLE").await);
        assert!(!may(&verifier, "SET ROLE regionwise_move").await);
        // A plan counts rows before anything is installed; nobody but the product writes them then.
        for client in [&mover, &verifier] {
            assert!(may(client, "TABLE users").await, "{cluster}");
            assert!(!may(client, "DELETE FROM users WHERE false").await);
        }
    }
}

#[tokio::test]
async fn a_cluster_is_filled_with_users_of_which_a_share_is_billed_in_the_eu() {
    let client = admin("us-primary").await;
    let output = lab("fill", full().directory().path())
        .args(["--users", "10", "--orders", "3", "--eu-share", "0.3"])
        .output()
        .expect("lab fill");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Cluster us has 10 more users, 3 of them billed in the EU, and 30 more orders.\n",
        "{output:?}"
    );
    let made = "SELECT count(*) || ' ' || count(*) FILTER (WHERE billing_country IN ('DE','FR','ES','IT','NL','PL','SE')) \
                || ' ' || sum((SELECT count(*) FROM orders WHERE user_id = users.id)) || ' ' || min(id % 2) \
                FROM users WHERE name LIKE 'User %'";
    assert_eq!(text(&client, made).await, "10 3 30 1");
}

#[tokio::test]
async fn ids_of_the_two_clusters_never_meet() {
    for (node, rest) in [("us-primary", "1"), ("eu-primary", "0")] {
        let client = admin(node).await;
        let insert = "INSERT INTO users (email, name, billing_country) \
                      VALUES (gen_random_uuid()::text, 'Test', 'US') RETURNING (id % 2)::text";
        for _ in 0..3 {
            assert_eq!(text(&client, insert).await, rest, "{node}");
        }
    }
}

#[tokio::test]
async fn every_region_writes_to_its_clusters_primary_and_reads_from_its_nearest_node() {
    let _alive = EU_NBG.read().await;
    let expected = [
        ("us-1", "us-primary", "us-primary", false, "eu"),
        ("eu-2", "eu-primary", "eu-nbg", true, "us"),
        ("sin-1", "us-primary", "us-sin", true, "eu"),
    ];
    for (host, writer, reader, replica, other) in expected {
        let env =
            fs::read_to_string(full().directory().host(host).join("lab.env")).expect("an env file");
        let value = |name: &str| {
            let line = env
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name}=")))
                .map(str::to_owned);
            line.unwrap_or_else(|| panic!("no {name} in {env}"))
        };
        for (url, node) in [
            ("WRITE_DATABASE_URL", writer),
            ("READ_DATABASE_URL", reader),
        ] {
            let client = connect(&value(url)).await;
            assert_eq!(
                text(&client, "SHOW cluster_name").await,
                node,
                "{host} {url}"
            );
        }
        // Some of its users are at home in the other cluster.
        let others = value("OTHER_CLUSTERS");
        let (name, url) = others.split_once('=').expect("name=url");
        let client = connect(url).await;
        let found = text(&client, "SHOW cluster_name").await;
        assert_eq!((name, found), (other, format!("{other}-primary")), "{host}");
        assert_eq!(env.contains("READ_REPLICA="), replica, "{host}");
        assert!(value("REDIS_URL").starts_with("redis://127."), "{host}");
        assert_eq!(value("DEPENDENCIES").split(';').count(), 5, "{host}");
    }
}

#[tokio::test]
async fn a_query_over_a_link_of_45_ms_takes_two_delays() {
    let delay = LinkChange::latency(45).both();
    // Connected before: connecting takes several round trips.
    let client = admin("us-sin").await;
    full()
        .link("world", "ap-singapore", delay)
        .expect("a change");
    let mut quickest = Duration::MAX;
    for _ in 0..8 {
        let start = Instant::now();
        text(&client, "SELECT 1").await;
        quickest = quickest.min(start.elapsed());
    }
    full()
        .link("world", "ap-singapore", LinkChange::clear().both())
        .expect("a change");
    assert!((90..=110).contains(&quickest.as_millis()), "{quickest:?}");
}

#[tokio::test]
async fn a_held_standby_falls_behind_and_a_released_one_catches_up() {
    let _alive = EU_NBG.read().await;
    let (primary, standby) = (admin("eu-primary").await, admin("eu-hel").await);
    full().standby("eu-hel").hold().expect("a hold");
    assert_eq!(
        text(&standby, "SELECT pg_get_wal_replay_pause_state()").await,
        "paused"
    );
    // The other standby confirms the commit.
    primary
        .batch_execute("CREATE TABLE held (n int)")
        .await
        .expect("a write");
    let replayed = "SELECT to_regclass('held') IS NOT NULL";
    let other = admin("eu-nbg").await;
    eventually(&other, replayed, "t").await;
    assert_eq!(text(&standby, replayed).await, "f");
    full().standby("eu-hel").release().expect("a release");
    eventually(&standby, replayed, "t").await;
}

#[tokio::test]
async fn a_standby_with_an_apply_delay_lags_steadily() {
    let standby = admin("us-dr").await;
    full().standby("us-dr").apply_delay(700).expect("a delay");
    eventually(&standby, "SHOW recovery_min_apply_delay", "700ms").await;
    let primary = admin("us-primary").await;
    let start = Instant::now();
    primary
        .batch_execute("CREATE TABLE delayed (n int)")
        .await
        .expect("a write");
    eventually(&standby, "SELECT to_regclass('delayed') IS NOT NULL", "t").await;
    assert!(
        start.elapsed() >= Duration::from_millis(690),
        "{:?}",
        start.elapsed()
    );
    full().standby("us-dr").apply_delay(0).expect("no delay");
    eventually(&standby, "SHOW recovery_min_apply_delay", "0").await;
}

#[tokio::test]
async fn a_cut_between_two_regions_stops_replication_until_it_heals() {
    let (primary, standby) = (admin("us-primary").await, admin("us-sin").await);
    full()
        .link("us-east", "ap-singapore", LinkChange::cut())
        .expect("a cut");
    primary
        .batch_execute("CREATE TABLE cut_off (n int)")
        .await
        .expect("a write");
    let replayed = "SELECT to_regclass('cut_off') IS NOT NULL";
    sleep(Duration::from_millis(400)).await;
    assert_eq!(
        text(&standby, replayed).await,
        "f",
        "a row crossed a cut link"
    );
    full()
        .link("us-east", "ap-singapore", LinkChange::clear())
        .expect("a change");
    eventually(&standby, replayed, "t").await;
}

#[tokio::test]
async fn a_killed_postmaster_starts_again_and_streams() {
    let _dead = EU_NBG.write().await;
    let name = "eu-nbg";
    full().process(name, ProcessAction::Kill).expect("a kill");
    let refused = tokio_postgres::connect(&variable(name, "ADMIN_DSN"), NoTls).await;
    assert!(refused.is_err(), "a dead node answers");
    full().process(name, ProcessAction::Start).expect("a start");
    let primary = admin("eu-primary").await;
    let sql = "SELECT state FROM pg_stat_replication WHERE application_name = 'eu-nbg'";
    eventually(&primary, sql, "streaming").await;
}

#[test]
fn a_full_lab_fits_a_small_machine() {
    let status = full().status().expect("a status");
    let pss = |pid: &regionwise_lab::processes::Pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.split_ascii_whitespace().next())
            .map_or(0, |kib| kib.parse().expect("a number"))
    };
    let kib: u64 = regionwise_lab::processes::marked(&status.dir)
        .iter()
        .map(pss)
        .sum();
    println!(
        "{} MiB, ready after {} ms",
        kib / 1024,
        status.ready_after_ms
    );
    assert!(kib > 0 && kib < 1_500 * 1024, "{kib} KiB");
}
