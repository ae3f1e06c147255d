//! What an error tells, and what it keeps to itself.

use regionwise_postgres::Kind;

use crate::server::{Server, options};

const CANARY: &str = "maria.canary@example.com";

#[tokio::test]
async fn an_error_names_the_constraint_and_never_a_value() {
    let server = Server::start();
    let session = server.open().await;
    let tables = "CREATE TABLE public.users (id int4 PRIMARY KEY, email text CONSTRAINT one_email UNIQUE);
                  CREATE FUNCTION public.say(what text) RETURNS void LANGUAGE plpgsql AS
                  $$ BEGIN RAISE EXCEPTION 'no %', what; END $$;
                  CREATE FUNCTION public.check_it(what text) RETURNS void LANGUAGE plpgsql AS
                  $$ BEGIN RAISE EXCEPTION 'no %', what USING ERRCODE = 'check_violation'; END $$;
                  CREATE FUNCTION public.fence() RETURNS void LANGUAGE plpgsql AS
                  $$ BEGIN RAISE EXCEPTION 'the user has moved' USING ERRCODE = 'MV001', DETAIL = '42'; END $$;";
    session.batch(tables).await.unwrap();
    let insert = "INSERT INTO public.users VALUES ($1, $2)";
    session.execute(insert, &[&1_i32, &CANARY]).await.unwrap();

    let twice = session.execute(insert, &[&2_i32, &CANARY]).await;
    let error = twice.unwrap_err();
    assert_eq!(error.sqlstate(), Some("23505"));
    assert_eq!(error.table(), Some("users"));
    assert_eq!(error.constraint(), Some("one_email"));
    assert!(error.server_detail().unwrap().contains(CANARY));
    let mut errors = vec![error];
    for sql in [
        "SELECT $1::text::int4",
        "SELECT public.say($1)",
        "SELECT public.check_it($1)",
        "SELECT $1::text::timestamptz",
    ] {
        errors.push(session.query(sql, &[&CANARY]).await.unwrap_err());
    }
    let mut copy = session
        .copy_in("COPY public.users FROM STDIN")
        .await
        .unwrap();
    copy.send(format!("{CANARY}\tx\n")).await.unwrap();
    errors.push(copy.finish().await.unwrap_err());
    for error in errors {
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains(error.sqlstate().unwrap()), "{shown}");
    }

    let error = session
        .query("SELECT public.fence()", &[])
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("MV001"));
    assert_eq!(error.server_detail(), Some("42"));
    assert!(error.to_string().contains("the user has moved"), "{error}");
    assert!(session.is_open());
}

#[tokio::test]
async fn a_session_ended_by_the_server_says_so_and_stays_ended() {
    let server = Server::start();
    let session = server.open().await;
    let killer = server.open_with(&options()).await.unwrap();
    let pid = session.backend_pid();
    let (answer, killed) = tokio::join!(session.query("SELECT pg_sleep(600)", &[]), async {
        // Once it sleeps: between two messages of the protocol it would just be gone.
        let kill = "SELECT pg_terminate_backend($1)
                    FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        while killer.query(kill, &[&pid]).await.unwrap().is_empty() {}
    });
    let () = killed;
    assert_eq!(answer.unwrap_err().kind, Kind::ShuttingDown);
    assert!(!session.is_open());
}
