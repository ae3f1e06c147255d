//! Users with more rows than fit into a batch, with writers on them.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::scenarios::all_at_once;
use crate::scenarios::torture::peak_until_the_end;
use crate::session::Session;
use crate::world::{Schema, Servers, World};

static BIG: Schema = Schema {
    name: "big",
    sql: "
CREATE TABLE users (id bigint PRIMARY KEY, counter bigint NOT NULL DEFAULT 0);
CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, n bigint NOT NULL DEFAULT 0, note text);
CREATE INDEX ON orders (user_id);
CREATE TABLE items (order_id bigint REFERENCES orders ON DELETE CASCADE, line int, qty int, PRIMARY KEY (order_id, line));
",
    rows: "
INSERT INTO users SELECT u FROM generate_series(1, {users}) u;
INSERT INTO orders SELECT i, 1, 0, 'note ' || i FROM generate_series(1, 11000) i;
INSERT INTO orders SELECT 100000 + u, u, 0, 'small' FROM generate_series(2, {users}) u;
INSERT INTO items SELECT id, 1, 1 FROM orders;
ANALYZE;
",
    users: "true",
    rules: "",
    owned: &[
        ("users", "SELECT id::text AS usr, t::text AS line FROM users t"),
        ("orders", "SELECT user_id::text AS usr, t::text AS line FROM orders t"),
        ("items", "SELECT o.user_id::text AS usr, t::text AS line FROM items t JOIN orders o ON o.id = t.order_id"),
    ],
};

/// Writes to user 1 until it is stopped or sent away; counts what was promised.
async fn writer(session: Session, number: i64, mut stop: watch::Receiver<bool>) -> i64 {
    let mut promised = 0;
    while !*stop.borrow_and_update() {
        let id = number * 1_000_000 + promised;
        let place = (promised * 37 + number * 1000) % 11_000 + 1;
        let sql = format!(
            "BEGIN; UPDATE users SET counter = counter + 1 WHERE id = 1; UPDATE orders SET n = n + 1 WHERE id = {place}; \
             INSERT INTO orders VALUES ({id}, 1, 0, 'new'); INSERT INTO items VALUES ({id}, 1, 1), ({id}, 2, 2); DELETE FROM items WHERE order_id = {id} AND line = 1; COMMIT"
        );
        match session.run(&sql).await {
            Ok(_) => promised += 1,
            Err(code) if code == "MV001" => {
                session.run("ROLLBACK").await.unwrap();
                return promised;
            }
            Err(code) => {
                assert!(["40001", "40P01"].contains(&code.as_str()), "{code}");
                session.run("ROLLBACK").await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    promised
}

/// How long writers waited.
async fn large(point: Option<&str>, writers: i64) -> Value {
    let world = World::new(&BIG).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    let (stop, stopping) = watch::channel(false);
    let mut writing = Vec::new();
    for number in 1..=writers {
        let session = world.us.shopper().await;
        writing.push(tokio::spawn(writer(session, number, stopping.clone())));
    }
    if let Some(point) = point {
        let mut first = all_at_once(&world, &plan).hold(point).start();
        assert!(first.is_held().await);
        first.kill().await;
    }
    let finished = all_at_once(&world, &plan).finish().await.expect(0);
    stop.send_replace(true);
    let mut promised = 0;
    for one in writing {
        promised += one.await.unwrap();
    }
    assert_eq!(world.at_home(&world.us).await, Vec::<String>::new());
    let (us, eu) = (world.dump(&world.us).await, world.dump(&world.eu).await);
    assert_eq!(us, eu);
    let admin = world.eu.admin().await;
    assert_eq!(
        admin.number("SELECT counter FROM users WHERE id = 1").await,
        promised
    );
    assert_eq!(
        admin.number("SELECT sum(n)::bigint FROM orders").await,
        promised
    );
    assert_eq!(
        admin
            .number("SELECT count(*) FROM orders WHERE note = 'new'")
            .await,
        promised
    );
    assert!(writers == 0 || promised > 0);
    world.verify().await.expect(0);
    world.no_locks_left().await;
    finished.json["result"]["stall_us"].clone()
}

#[tokio::test]
async fn s47_a_user_of_eleven_thousand_rows_moves_under_writers() {
    println!("{}", large(None, 3).await);
}

#[tokio::test]
async fn s47_a_large_user_whose_mover_dies_in_the_copy_moves_whole() {
    println!("{}", large(Some("copied"), 2).await);
}

#[tokio::test]
async fn s47_a_large_user_whose_mover_dies_after_the_copy_moves_whole() {
    println!("{}", large(Some("shipped"), 2).await);
}

/// A mover died when everything was copied and nobody released: who comes next sends what has changed.
async fn copied_and_left(schema: &'static Schema) -> (World, String) {
    let world = World::new(schema).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    let mut first = all_at_once(&world, &plan).hold("shipped").start();
    assert!(first.is_held().await);
    first.kill().await;
    (world, plan)
}

async fn arrives_as_it_is(world: &World, plan: &str) {
    let before = world.dump(&world.us).await;
    all_at_once(world, plan).finish().await.expect(0);
    assert_eq!(world.dump(&world.eu).await, before);
    world.verify().await.expect(0);
}

#[tokio::test]
async fn s47_eleven_thousand_rows_that_changed_after_the_copy_are_sent_again() {
    let (world, plan) = copied_and_left(&BIG).await;
    let shopper = world.us.shopper().await;
    for change in [
        "UPDATE orders SET n = n + 1 WHERE user_id = 1",
        "DELETE FROM items WHERE order_id BETWEEN 1 AND 1000",
        "INSERT INTO items SELECT id, 2, 5 FROM orders WHERE id BETWEEN 500 AND 1500",
    ] {
        shopper.run(change).await.unwrap();
    }
    arrives_as_it_is(&world, &plan).await;
}

/// A key can be written in two ways and be the same row; a unique value can go from a row that is gone to a new one.
static KEYS: Schema = Schema {
    name: "keys",
    sql: "
CREATE TABLE users (id bigint PRIMARY KEY);
CREATE TABLE pages (user_id bigint NOT NULL REFERENCES users, place numeric, slug text NOT NULL UNIQUE, PRIMARY KEY (user_id, place));
",
    rows: "
INSERT INTO users SELECT u FROM generate_series(1, {users}) u;
INSERT INTO pages SELECT u, 1.0, u || '-home' FROM generate_series(1, {users}) u;
INSERT INTO pages SELECT u, 2.5, u || '-away' FROM generate_series(1, {users}) u;
",
    users: "true",
    rules: "",
    owned: &[
        ("users", "SELECT id::text AS usr, t::text AS line FROM users t"),
        ("pages", "SELECT user_id::text AS usr, t::text AS line FROM pages t"),
    ],
};

#[tokio::test]
async fn keys_that_are_written_anew_and_unique_values_that_change_rows_are_mended() {
    let (world, plan) = copied_and_left(&KEYS).await;
    let shopper = world.us.shopper().await;
    for change in [
        "UPDATE pages SET place = 1.00 WHERE user_id = 1 AND place = 1",
        "DELETE FROM pages WHERE user_id = 2 AND place = 1",
        "INSERT INTO pages VALUES (2, 9, '2-home')",
    ] {
        assert_eq!(shopper.run(change).await.unwrap(), 1);
    }
    arrives_as_it_is(&world, &plan).await;
}

#[tokio::test]
async fn unique_values_that_two_rows_have_exchanged_arrive() {
    let (world, plan) = copied_and_left(&KEYS).await;
    let shopper = world.us.shopper().await;
    // As an application puts things into another order: no statement breaks the key.
    let exchange = "BEGIN; UPDATE pages SET slug = 'aside' WHERE slug = '1-home'; \
                    UPDATE pages SET slug = '1-home' WHERE slug = '1-away'; \
                    UPDATE pages SET slug = '1-away' WHERE slug = 'aside'; COMMIT";
    shopper.must(exchange).await;
    arrives_as_it_is(&world, &plan).await;
}

/// What rows that take longer to hash than a session for short calls waits come to, at once.
const TOO_LONG: &str = "BEGIN
  IF current_setting('statement_timeout')::interval < '1 min' THEN
    RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = '57014';
  END IF;";

#[tokio::test]
async fn released_users_whose_rows_take_long_to_hash_are_taken_over() {
    let world = World::new(&BIG).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    let before = world.dump(&world.us).await;
    let mut first = all_at_once(&world, &plan).hold("released").start();
    assert!(first.is_held().await);
    first.kill().await;
    let between = world.between().await;
    assert!(!between.is_empty());
    world.eu.weaken("digests", "BEGIN", TOO_LONG).await;
    all_at_once(&world, &plan).finish().await.expect(0);
    assert_eq!(world.dump(&world.eu).await, before);
    world.verify().await.expect(0);
}

/// As for everybody else, however many rows there are.
#[tokio::test]
async fn a_large_user_with_a_row_that_changed_after_the_proof_is_not_activated_with_it() {
    let world = World::new(&BIG).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    let before = world.dump(&world.us).await;
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    world
        .eu
        .tamper("UPDATE orders SET note = 'other' WHERE id = 7777")
        .await;
    call.release();
    call.finish().await.expect(0);
    assert_eq!(world.dump(&world.eu).await, before);
    world.verify().await.expect(0);
    // Nor does it stay unseen afterwards.
    world
        .eu
        .tamper("UPDATE orders SET note = 'other' WHERE id = 7777")
        .await;
    let finished = world.verify().await.expect(10);
    assert_eq!(finished.json["result"]["wrong"][0]["user"], "1");
    assert!(finished.said.contains("7777"), "{}", finished.said);
}

/// A column that each side computes by a function of its own, under one name.
static SCORES: Schema = Schema {
    name: "scores",
    sql: "
CREATE TABLE users (id bigint PRIMARY KEY);
CREATE FUNCTION score(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT n * 2';
CREATE TABLE games (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, n int NOT NULL,
  score int GENERATED ALWAYS AS (public.score(n)) STORED);
CREATE INDEX ON games (user_id);
",
    rows: "
INSERT INTO users SELECT generate_series(1, {users});
INSERT INTO games (id, user_id, n) SELECT i, 1, i FROM generate_series(1, 120000) i;
ANALYZE;
",
    users: "true",
    rules: "",
    owned: &[(
        "users",
        "SELECT id::text AS usr, t::text AS line FROM users t",
    )],
};

#[tokio::test]
async fn a_user_all_of_whose_rows_differ_is_named_with_ten_of_them_in_little_memory() {
    let world = World::bare(Servers::shared(), &SCORES, 1).await;
    let other = "CREATE OR REPLACE FUNCTION score(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT n * 3'";
    world.eu.admin().await.must(other).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    let mut call = world.tool(&["run", "--plan", &plan, "--lanes", "1"]);
    call.command.env("TOKIO_WORKER_THREADS", "2");
    let mut call = call.start();
    let peak = peak_until_the_end(&mut call).await;
    let finished = call.finish().await.expect(10);
    assert!(peak > 0 && peak <= 48 * 1024, "{peak} KiB");
    assert_eq!(finished.json["reason"], "mismatch", "{}", finished.said);
    let mismatch = &finished.json["result"]["mismatch"];
    assert_eq!(
        (&mismatch["count"], &mismatch["at_least"]),
        (&120_000.into(), &true.into())
    );
    let rows = mismatch["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    for row in rows {
        assert_eq!(row["how"]["columns"], serde_json::json!(["score"]));
    }
}
