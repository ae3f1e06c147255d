//! Order, deadlines, and who may be at the other end.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use regionwise_lab::link::{Link, serve};
use regionwise_postgres::{Direct, Endpoint, Kind};

use crate::server::{PATIENCE, Server, options};

#[tokio::test]
async fn calls_polled_together_arrive_in_their_order() {
    let server = Server::start();
    let session = server.open().await;
    session
        .batch("CREATE TABLE public.t (i int4)")
        .await
        .unwrap();
    for round in 1..=3_i64 {
        // In the first round none of the texts is prepared, later some are.
        let insert = format!("INSERT INTO public.t VALUES ($1) /* {} */", round / 2);
        let (begin, first, seen, second, commit) = tokio::join!(
            session.batch("BEGIN"),
            session.execute(&insert, &[&1_i32]),
            session.query("SELECT count(*) FROM public.t", &[]),
            session.execute("INSERT INTO public.t VALUES ($1)", &[&2_i32]),
            session.batch("COMMIT"),
        );
        begin.unwrap();
        assert_eq!((first.unwrap(), second.unwrap()), (1, 1));
        assert_eq!(seen.unwrap()[0].get::<_, i64>(0), 2 * round - 1);
        commit.unwrap();
    }
}

#[tokio::test]
async fn calls_polled_together_share_a_round_trip() {
    const ONE_WAY: Duration = Duration::from_millis(100);
    let server = Server::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, server.port);
    let link = || Arc::new(Link::new(ONE_WAY));
    tokio::spawn(serve(listener, target, link(), link()));
    let session = server.open_tcp(port, &options()).await;
    session.query("SELECT 1", &[]).await.unwrap();
    let start = Instant::now();
    let (a, b, c, d, e) = tokio::join!(
        session.query("SELECT 1", &[]),
        session.query("SELECT 1", &[]),
        session.batch("SELECT 1"),
        session.query("SELECT 1", &[]),
        session.query("SELECT 1", &[]),
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok() && d.is_ok() && e.is_ok());
    let took = start.elapsed();
    assert!(took >= 2 * ONE_WAY, "{took:?}");
    assert!(took < 4 * ONE_WAY, "{took:?}");
}

#[tokio::test]
async fn a_call_dropped_half_way_ends_the_session_on_both_sides() {
    let server = Server::start();
    let session = server.open().await;
    let watcher = server.open().await;
    let pid = session.backend_pid();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND query ~ 'sleep'";
    let runs =
        async { while watcher.query(running, &[&pid]).await.unwrap()[0].get::<_, i64>(0) == 0 {} };
    tokio::select! {
        _ = session.query("SELECT pg_sleep(600)", &[]) => panic!("it slept"),
        () = runs => {}
    }
    assert!(!session.is_open());
    let error = session.batch("SELECT 1").await.unwrap_err();
    assert_eq!(error.kind, Kind::Lost);
    let gone =
        async { while watcher.query(running, &[&pid]).await.unwrap()[0].get::<_, i64>(0) > 0 {} };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_the_session_and_a_server_s_timeout_does_not() {
    let server = Server::start();
    let mut options = options();
    options.statement_timeout = Duration::from_millis(100);
    let session = server.open_with(&options).await.unwrap();
    let error = session
        .query("SELECT pg_sleep(600)", &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Timeout);
    assert_eq!(error.sqlstate(), Some("57014"));
    assert!(session.is_open());

    options.statement_timeout = Duration::ZERO;
    options.answer_within = Duration::from_millis(100);
    let session = server.open_with(&options).await.unwrap();
    let error = session
        .query("SELECT pg_sleep(600)", &[])
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Timeout);
    assert!(!session.is_open());
    assert_eq!(
        session.batch("SELECT 1").await.unwrap_err().kind,
        Kind::Lost
    );
}

#[tokio::test]
async fn a_pooler_is_refused_whether_it_refuses_or_swallows_the_settings() {
    let server = Server::start();
    for settings in ["", "ignore_startup_parameters = options"] {
        let pooler = server.pooler(settings);
        let opened = Direct::open(&server.dsn(pooler.port, "postgres"), &options()).await;
        let error = opened.err().expect("a refusal");
        assert!(error.to_string().contains("pooler"), "{error}");
    }
}

#[tokio::test]
async fn a_pooler_is_refused_where_the_database_has_the_same_settings() {
    let server = Server::start();
    let same = "ALTER ROLE postgres SET search_path = pg_catalog; ALTER ROLE postgres SET row_security = off;";
    server.open().await.batch(same).await.unwrap();
    let pooler = server.pooler("ignore_startup_parameters = options");
    let opened = Direct::open(&server.dsn(pooler.port, "postgres"), &options()).await;
    let error = opened.err().expect("a refusal");
    assert!(error.to_string().contains("pooler"), "{error}");
}

#[tokio::test]
async fn a_standby_is_refused_where_a_primary_is_wanted() {
    let mut server = Server::start();
    server.become_standby();
    let mut options = options();
    let error = server.open_with(&options).await.err().expect("a refusal");
    assert_eq!(error.kind, Kind::ReadOnly);
    options.endpoint = Endpoint::Either;
    assert!(server.open_with(&options).await.is_ok());
}

#[tokio::test]
async fn settings_of_a_role_are_overruled_and_those_of_the_caller_arrive() {
    let server = Server::start();
    let hostile = "ALTER ROLE postgres SET search_path = public; \
                   ALTER ROLE postgres SET default_transaction_read_only = on; \
                   ALTER ROLE postgres SET default_transaction_isolation = 'serializable'; \
                   ALTER ROLE postgres SET synchronous_commit = off; \
                   ALTER ROLE postgres SET statement_timeout = 1; \
                   ALTER ROLE postgres SET idle_session_timeout = 1; \
                   CREATE ROLE \"the mover\";";
    server.open().await.batch(hostile).await.unwrap();
    let mut options = options();
    options.lock_timeout = Duration::from_millis(200);
    options.settings = vec![
        ("role", "the mover".to_owned()),
        ("search_path", "public".to_owned()),
    ];
    let session = server.open_tcp(server.port, &options).await;
    for (name, value) in [
        ("search_path", "pg_catalog"),
        ("default_transaction_read_only", "off"),
        ("default_transaction_isolation", "read committed"),
        ("synchronous_commit", "on"),
        ("statement_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("lock_timeout", "200ms"),
        ("role", "the mover"),
        ("application_name", "regionwise test"),
        ("tcp_user_timeout", "3000"),
        ("tcp_keepalives_idle", "3"),
    ] {
        let rows = session.query("SELECT current_setting($1)", &[&name]).await;
        assert_eq!(rows.unwrap()[0].get::<_, &str>(0), value, "{name}");
    }
    let rows = session.query("SELECT pg_backend_pid()", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, i32>(0), session.backend_pid());
}

#[tokio::test]
async fn a_name_that_the_server_would_cut_is_refused() {
    let server = Server::start();
    let mut options = options();
    options.application_name = "n".repeat(63);
    assert!(server.open_with(&options).await.is_ok());
    for name in ["n".repeat(64), "é".to_owned()] {
        options.application_name = name;
        assert!(server.open_with(&options).await.is_err());
    }
}

#[tokio::test]
async fn a_statement_over_a_changed_table_works_when_tried_again() {
    let server = Server::start();
    let session = server.open().await;
    let change = "CREATE TABLE public.t (a int4)";
    session.batch(change).await.unwrap();
    let sql = "SELECT * FROM public.t";
    session.query(sql, &[]).await.unwrap();
    let change = "ALTER TABLE public.t ADD b int4; INSERT INTO public.t VALUES (1, 2)";
    session.batch(change).await.unwrap();
    let error = session.query(sql, &[]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("0A000"));
    assert_eq!(session.query(sql, &[]).await.unwrap()[0].len(), 2);
}
