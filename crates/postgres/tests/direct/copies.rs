//! COPY in both directions.

use std::time::Duration;

use regionwise_postgres::{Direct, Kind};
use regionwise_relocation::tuple::{CopyReader, TupleWriter};

use crate::server::{Server, options};

async fn count(session: &Direct, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM public.{table}");
    session.query(&sql, &[]).await.unwrap()[0].get(0)
}

#[tokio::test]
async fn rows_go_out_of_one_table_and_into_another() {
    let server = Server::start();
    let (from, to) = (server.open().await, server.open().await);
    let tables = "CREATE TABLE public.a AS
                  SELECT i, CASE WHEN i % 3 > 0 THEN repeat('x', i) END AS t FROM generate_series(1, 3000) AS i;
                  CREATE TABLE public.b (LIKE public.a);";
    from.batch(tables).await.unwrap();
    let mut out = from
        .copy_out("COPY public.a TO STDOUT BINARY")
        .await
        .unwrap();
    let mut copy = to.copy_in("COPY public.b FROM STDIN BINARY").await.unwrap();
    let (mut reader, mut writer) = (CopyReader::new(2), TupleWriter::new());
    while let Some(bytes) = out.next().await.unwrap() {
        reader.push(&bytes);
        while let Some(tuple) = reader.next().unwrap() {
            writer.append(tuple.fields());
        }
        if writer.len() > 10_000 {
            copy.send(writer.take()).await.unwrap();
        }
    }
    assert_eq!(reader.finish(), Ok(3000));
    assert!(out.next().await.unwrap().is_none());
    writer.trailer();
    copy.send(writer.take()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 3000);
    let differ = "SELECT count(*) FROM (TABLE public.a EXCEPT ALL TABLE public.b) AS d";
    let rows = to.query(differ, &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), 0);
    assert_eq!(count(&to, "b").await, 3000);
}

#[tokio::test]
async fn a_copy_that_is_dropped_takes_the_session_with_it_and_leaves_no_row() {
    let server = Server::start();
    let watcher = server.open().await;
    watcher
        .batch("CREATE TABLE public.t (i text)")
        .await
        .unwrap();

    let session = server.open().await;
    let many = "COPY (SELECT generate_series(1, 10000000)) TO STDOUT";
    let mut copy = session.copy_out(many).await.unwrap();
    copy.next().await.unwrap();
    drop(copy);
    assert!(!session.is_open());
    assert_eq!(
        session.batch("SELECT 1").await.unwrap_err().kind,
        Kind::Lost
    );

    let session = server.open().await;
    let mut copy = session.copy_in("COPY public.t FROM STDIN").await.unwrap();
    copy.send("row\n".repeat(10_000)).await.unwrap();
    drop(copy);
    assert!(!session.is_open());
    let gone = "SELECT 1 FROM pg_stat_activity WHERE pid = $1";
    let pid = session.backend_pid();
    while !watcher.query(gone, &[&pid]).await.unwrap().is_empty() {}
    assert_eq!(count(&watcher, "t").await, 0);
}

#[tokio::test]
async fn what_the_server_refuses_in_a_copy_is_told_and_the_session_goes_on() {
    let server = Server::start();
    let session = server.open().await;
    let table = "CREATE TABLE public.t (i int4 CONSTRAINT small CHECK (i < 10))";
    session.batch(table).await.unwrap();
    session.batch("BEGIN").await.unwrap();
    let mut copy = session.copy_in("COPY public.t FROM STDIN").await.unwrap();
    for row in ["1\n", "11\n"] {
        copy.send(row).await.unwrap();
    }
    copy.send("2\n".repeat(100_000)).await.unwrap();
    let error = copy.finish().await.unwrap_err();
    assert_eq!(error.constraint(), Some("small"));
    session.batch("ROLLBACK").await.unwrap();
    assert_eq!(count(&session, "t").await, 0);

    let mut out = session
        .copy_out("COPY (SELECT 1 / (3 - i) FROM generate_series(1, 5) AS i) TO STDOUT")
        .await
        .unwrap();
    let error = loop {
        match out.next().await {
            Ok(piece) => assert!(piece.is_some(), "an end without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.sqlstate(), Some("22012"));
    drop(out);
    session.batch("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_copy_that_says_nothing_meets_the_deadline() {
    let server = Server::start();
    let mut options = options();
    options.answer_within = Duration::from_millis(200);
    let session = server.open_with(&options).await.unwrap();
    // Enough that the server sends the beginning before it sleeps.
    let slow = "COPY (SELECT CASE i WHEN 100000 THEN pg_sleep(600)::text ELSE '' END
                      FROM generate_series(1, 100000) AS i) TO STDOUT";
    let mut copy = session.copy_out(slow).await.unwrap();
    let error = loop {
        match copy.next().await {
            Ok(piece) => assert!(piece.is_some(), "an end without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, Kind::Timeout);
    assert!(!session.is_open());
}
