//! `purge` deletes what is proven and nothing else, in silence, whole chunks or nothing, and says where bytes remain.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use tokio_postgres::AsyncMessage;

use crate::older::GERMANS;
use crate::session::refused;
use crate::verify::moved;
use crate::world::{Call, Finished, Schema, World, eventually};

/// Tables that stay and refer to rows that go, and triggers that tell the world of every delete.
static KEPT: Schema = Schema {
    name: "kept",
    sql: "
CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, billing_country text NOT NULL);
CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE, note text,
  place bigint, UNIQUE (user_id, place));
CREATE INDEX ON orders (user_id);
CREATE TABLE audit (id bigint PRIMARY KEY, who bigint REFERENCES users ON DELETE CASCADE, what text, about bigint REFERENCES orders);
CREATE INDEX ON audit (who);
CREATE INDEX ON audit (about);
CREATE TABLE receipts (id bigint PRIMARY KEY, of_order bigint NOT NULL REFERENCES orders ON DELETE CASCADE);
CREATE INDEX ON receipts (of_order);
CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO outbox (what) VALUES (TG_TABLE_NAME || ' ' || TG_OP);
  PERFORM pg_notify('told', TG_TABLE_NAME); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TRIGGER tell AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TRIGGER tell AFTER UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION tell();
",
    rows: "
INSERT INTO users SELECT u, 'u' || u || '@example.com', (ARRAY['DE', 'FR', 'US', 'IE'])[u % 4 + 1] FROM generate_series(1, {users}) u;
INSERT INTO orders SELECT u * 10 + o, u, 'note', o FROM generate_series(2, {users}) u, generate_series(1, 2) o;
INSERT INTO audit SELECT u, u, 'signed up' FROM generate_series(1, {users}) u;
",
    users: "billing_country IN ('DE', 'FR', 'IE')",
    rules: r#"
[migration.tables.audit]
stays = true
[migration.tables.audit.columns.who]
other_user = "set-null"
[migration.tables.audit.columns.about]
other_user = "set-null"
[migration.tables.receipts]
stays = true
[migration.tables.receipts.columns.of_order]
other_user = "refuse"
"#,
    owned: &[
        ("users", "SELECT id::text AS usr, t::text AS line FROM users t"),
        ("orders", "SELECT user_id::text AS usr, t::text AS line FROM orders t"),
    ],
};

pub(crate) async fn kept() -> (World, String) {
    let world = World::new(&KEPT).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    world.moving("run", &plan, &[]).finish().await.expect(0);
    (world, plan)
}

impl World {
    fn purging(&self, plan: &str, more: &[&str]) -> Call {
        self.tool(&[&["purge", "--plan", plan], more].concat())
    }

    pub(crate) async fn purge(&self, plan: &str) -> Finished {
        self.purging(plan, &[]).finish().await
    }

    /// Waits until the watch before the first delete has begun: from then on the fence's counter is looked at again.
    async fn watches(&self) {
        let admin = self.us.admin().await;
        let sql = "SELECT query_start::text FROM pg_stat_activity WHERE application_name = 'regionwise purge' \
                   AND datname = current_database() AND query LIKE '%pg_sequence_last_value%'";
        let first = std::cell::OnceCell::new();
        eventually("the counter is looked at twice", async || {
            match admin.text(sql).await {
                Some(at) if *first.get_or_init(|| at.clone()) != at => Ok(()),
                at => Err(format!("{at:?}")),
            }
        })
        .await;
    }

    /// Begins to move users back, and stops when it comes to this point.
    async fn stop_a_revert(&self, plan: &str, point: &str) {
        let mut revert = self
            .moving("revert", plan, &["--lanes", "1"])
            .hold(point)
            .start();
        assert!(revert.is_held().await);
        revert.signal("TERM");
        revert.release();
        revert.finish().await.expect(143);
    }

    /// Users whose route at the source is in this state, in the order of their keys.
    async fn at_source_as(&self, wanted: &str) -> Vec<String> {
        let routes = self.routes(&self.us).await.into_iter();
        routes
            .filter(|(_, (state, _))| state == wanted)
            .map(|(user, _)| user)
            .collect()
    }

    /// Users of whom a row is left at the source.
    async fn at_source(&self) -> BTreeSet<String> {
        self.dump(&self.us).await.into_keys().collect()
    }
}

const EVERYBODY: usize = 12;
/// Of these, who never moves.
const AMERICANS: usize = 3;

#[tokio::test]
async fn everything_that_is_proven_goes_and_nothing_else() {
    let (world, plan) = moved().await;
    let (here, there) = (world.dump(&world.us).await, world.dump(&world.eu).await);
    let dry = world
        .purging(&plan, &["--dry-run"])
        .finish()
        .await
        .expect(0);
    assert_eq!(dry.json["result"]["would_go"], 9);
    assert_eq!(world.dump(&world.us).await, here);
    let purged = world.purge(&plan).await.expect(0);
    let result = &purged.json["result"];
    assert_eq!(result["users"], 9, "{}", purged.said);
    let rows: i64 = result["rows"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_i64().unwrap())
        .sum();
    assert_eq!(rows, 9 * 15);
    assert_eq!(world.at_source().await.len(), AMERICANS);
    assert_eq!(world.dump(&world.eu).await, there);
    world.nobody_lost().await;
    let verified = world.verify().await.expect(0);
    assert_eq!(verified.json["result"]["purged"], 9);
    // Nothing that only comparing needs is left.
    for database in [&world.us, &world.eu] {
        let admin = database.admin().await;
        assert_eq!(
            admin.number("SELECT count(salt) FROM regionwise.run").await,
            0
        );
        assert_eq!(
            admin.number("SELECT count(*) FROM regionwise.dirty").await,
            0
        );
    }
    let watched = "SELECT count(*) FROM regionwise.route WHERE watch";
    assert_eq!(world.eu.admin().await.number(watched).await, 0);
    // Again: nothing to do for anybody.
    let again = world.purge(&plan).await.expect(0);
    assert_eq!(again.json["result"]["users"], 0);
    world.moving("run", &plan, &[]).finish().await.expect(0);
    world.no_locks_left().await;
}

#[tokio::test]
async fn a_plan_that_nobody_approved_is_refused() {
    let (world, _) = moved().await;
    world.purge("0123456789abcdef").await.expect(12);
    assert_eq!(world.at_source().await.len(), EVERYBODY);
}

/// Scenario 55.
#[tokio::test]
async fn a_row_that_changed_at_the_source_stops_it_before_anything_is_deleted() {
    let (world, plan) = moved().await;
    world
        .us
        .tamper("UPDATE items SET qty = qty + 1 WHERE id = 421")
        .await;
    let finished = world.purge(&plan).await.expect(10);
    assert_eq!(finished.json["reason"], "not-equal");
    assert_eq!(finished.json["result"]["wrong"]["user"], "4");
    assert_eq!(world.at_source().await.len(), EVERYBODY);
    assert_eq!(
        world
            .us
            .admin()
            .await
            .number("SELECT count(*) FROM items")
            .await,
        48
    );
}

/// Scenario 25.
#[tokio::test]
async fn a_bit_that_flipped_at_the_target_after_a_verification_stops_it() {
    let (world, plan) = moved().await;
    world.verify().await.expect(0);
    world
        .eu
        .tamper(
            "UPDATE labels SET payload = set_bit(payload, 3, 1 - get_bit(payload, 3)) WHERE id = 9",
        )
        .await;
    let finished = world.purge(&plan).await.expect(10);
    assert_eq!(
        finished.json["result"]["wrong"]["user"], "9",
        "{}",
        finished.said
    );
    assert_eq!(world.at_source().await.len(), EVERYBODY);
}

#[tokio::test]
async fn who_writes_at_the_target_is_purged_all_the_same() {
    let (world, plan) = moved().await;
    let shopper = world.eu.shopper().await;
    shopper
        .must("UPDATE orders SET note = 'mine' WHERE id = 11; DELETE FROM orders WHERE id = 31")
        .await;
    let there = world.dump(&world.eu).await;
    world.purge(&plan).await.expect(0);
    assert_eq!(world.at_source().await.len(), AMERICANS);
    assert_eq!(world.dump(&world.eu).await, there);
}

/// Scenario 39: they are in a table that stays, with ON DELETE CASCADE.
#[tokio::test]
async fn rows_of_a_table_that_stays_survive_and_let_go() {
    let (world, plan) = kept().await;
    let purged = world.purge(&plan).await.expect(0);
    assert_eq!(purged.json["result"]["let_go"], 9, "{}", purged.said);
    let admin = world.us.admin().await;
    assert_eq!(admin.number("SELECT count(*) FROM audit").await, 12);
    assert_eq!(
        admin
            .number("SELECT count(*) FROM audit WHERE who IS NULL")
            .await,
        9
    );
    assert_eq!(world.at_source().await.len(), AMERICANS);
}

/// Scenario 40.
#[tokio::test]
async fn the_outbox_and_listeners_hear_nothing_of_it() {
    let (world, plan) = kept().await;
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(world.us.server.port)
        .user("postgres")
        .dbname(&world.us.name);
    let (client, mut connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let (sender, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = sender.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute("LISTEN told").await.unwrap();
    world.purge(&plan).await.expect(0);
    assert_eq!(
        world
            .us
            .admin()
            .await
            .number("SELECT count(*) FROM outbox")
            .await,
        0
    );
    // What comes after it is heard: so it would have been.
    client
        .batch_execute("NOTIFY told, 'the test'")
        .await
        .unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    let mut told = told;
    assert_eq!(told.recv().await.as_deref(), Some("the test"));
}

/// Scenario 48: user 1 has the own row and nothing else.
#[tokio::test]
async fn a_user_without_rows_is_purged_like_all_others() {
    let (world, plan) = kept().await;
    let admin = world.us.admin().await;
    admin
        .must("INSERT INTO regionwise.route (usr, state) VALUES ('500', 'home')")
        .await;
    world.purge(&plan).await.expect(0);
    let routes = world.routes(&world.us).await;
    assert_eq!(routes["1"].0, "purged");
    // A sign-up that failed has a route and no row; nobody moves it, nobody counts it.
    assert_eq!(routes["500"].0, "home");
}

/// Attack A6, the other way round.
#[tokio::test]
async fn a_reference_that_comes_too_late_is_refused() {
    let (world, plan) = kept().await;
    let admin = world.us.admin().await;
    let mut purge = world.purging(&plan, &[]).hold("purging").start();
    assert!(purge.is_held().await);
    // Everything is in one chunk, and that is deleted: too late for this one.
    let late = world.us.shopper().await;
    let insert = late.start("INSERT INTO receipts VALUES (1, 31)");
    assert!(insert.waits().await);
    purge.release();
    purge.finish().await.expect(0);
    assert_eq!(insert.end().await, refused("23503"));
    assert_eq!(admin.number("SELECT count(*) FROM receipts").await, 0);
}

/// Attack A6.
#[tokio::test]
#[ignore = "torture: on a busy machine its transaction can be older than the watch"]
async fn a_reference_that_is_committed_meanwhile_keeps_its_user() {
    let (world, plan) = kept().await;
    let writer = world.us.admin().await;
    let purge = world.purging(&plan, &["--grace", "1s"]).start();
    let us = world.us.admin().await;
    // Later than the watch, so that the chunk meets this transaction: it waits for it, then sees what it has committed.
    world.watches().await;
    writer
        .must("BEGIN; INSERT INTO receipts VALUES (1, 31)")
        .await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'regionwise purge' AND wait_event_type = 'Lock'";
    eventually("the chunk waits", async || match us.number(waits).await {
        0 => Err("nobody waits".to_owned()),
        _ => Ok(()),
    })
    .await;
    writer.must("COMMIT").await;
    let finished = purge.finish().await.expect(10);
    assert_eq!(finished.json["reason"], "kept", "{}", finished.said);
    assert_eq!(finished.json["result"]["users"], 8);
    assert_eq!(finished.json["result"]["kept"][0]["user"], "3");
    let dangling = "SELECT count(*) FROM receipts r WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = r.of_order)";
    assert_eq!(us.number(dangling).await, 0);
    assert_eq!(
        us.number("SELECT count(*) FROM orders WHERE user_id = 3")
            .await,
        2
    );
}

/// C13.
#[tokio::test]
async fn killed_in_the_middle_of_it_another_one_finishes() {
    for (point, before) in [("purging", EVERYBODY), ("purged", AMERICANS)] {
        let (world, plan) = moved().await;
        let there = world.dump(&world.eu).await;
        let mut first = world.purging(&plan, &[]).hold(point).start();
        assert!(first.is_held().await);
        first.kill().await;
        world.no_locks_left().await;
        assert_eq!(world.at_source().await.len(), before, "{point}");
        world.nobody_lost().await;
        world.purge(&plan).await.expect(0);
        assert_eq!(world.at_source().await.len(), AMERICANS);
        assert_eq!(world.dump(&world.eu).await, there);
        let us = world.us.admin().await;
        let counted = "SELECT sum(n.value::int)::bigint FROM regionwise.journal j, jsonb_each_text(j.facts -> 'tables') n WHERE step = 'purged'";
        assert_eq!(us.number(counted).await, 9 * 15, "{point}");
        assert_eq!(us.number("SELECT count(salt) FROM regionwise.run").await, 0);
    }
}

#[tokio::test]
async fn two_at_once_delete_every_row_once() {
    let (world, plan) = moved().await;
    let (one, other) = tokio::join!(world.purge(&plan), world.purge(&plan));
    let (one, other) = (one.expect(0), other.expect(0));
    let users = |finished: &Finished| finished.json["result"]["users"].as_u64().unwrap();
    assert_eq!(users(&one) + users(&other), 9);
    assert_eq!(world.at_source().await.len(), AMERICANS);
}

/// Scenario 15.
#[tokio::test]
async fn a_stale_router_is_refused_after_it_and_stops_it_before() {
    let (world, plan) = moved().await;
    let shopper = world.us.shopper().await;
    let purge = world.purging(&plan, &["--grace", "60s"]).start();
    world.watches().await;
    let stale = "UPDATE orders SET note = 'stale' WHERE id = 11";
    assert_eq!(shopper.run(stale).await, refused("MV001"));
    let finished = purge.finish().await.expect(10);
    assert_eq!(finished.json["reason"], "not-quiet", "{}", finished.said);
    assert_eq!(world.at_source().await.len(), EVERYBODY);

    world.purge(&plan).await.expect(0);
    let declared = "BEGIN; SET LOCAL regionwise.uid = '1'; SET LOCAL regionwise.epoch = '0'; UPDATE orders SET note = 'stale' WHERE id = 11";
    assert_eq!(shopper.run(declared).await, refused("MV001"));
    shopper.must("ROLLBACK").await;
    let orphan = "INSERT INTO orders VALUES (19, 1, 9, 'stale')";
    assert_eq!(shopper.run(orphan).await, refused("MV001"));
    let again = "INSERT INTO users (id, email, billing_country) VALUES (1, 'u1@example.com', 'DE')";
    assert_eq!(shopper.run(again).await, refused("MV001"));
}

#[tokio::test]
async fn a_transaction_that_is_older_than_the_watch_stops_it() {
    let (world, plan) = moved().await;
    let old = world.us.shopper().await;
    old.must("BEGIN; SELECT 1").await;
    let finished = world.purge(&plan).await.expect(10);
    assert_eq!(finished.json["reason"], "not-quiet");
    assert!(
        finished.json["summary"]
            .as_str()
            .unwrap()
            .contains(&old.pid.to_string())
    );
    assert_eq!(world.at_source().await.len(), EVERYBODY);
}

#[tokio::test]
async fn users_on_the_hold_list_keep_their_rows() {
    let (world, plan) = moved().await;
    let list = world.directory().join("hold");
    std::fs::write(&list, "3\n\n 12 \n").unwrap();
    let hold = ["--hold", list.to_str().unwrap(), "--wal-rate", "1000"];
    let purged = world.purging(&plan, &hold).finish().await.expect(0);
    assert_eq!(purged.json["result"]["held"], 2);
    let left = world.at_source().await;
    assert!(left.contains("3") && left.contains("12") && left.len() == AMERICANS + 2);
    // Their salt is still needed.
    let us = world.us.admin().await;
    assert_eq!(us.number("SELECT count(salt) FROM regionwise.run").await, 1);
    let verified = world.verify().await.expect(0);
    assert_eq!(verified.json["result"]["verified"], 2);
}

#[tokio::test]
async fn the_grace_is_not_shorter_than_routes_are_remembered() {
    let (world, plan) = moved().await;
    world
        .purging(&plan, &["--grace", "900ms"])
        .finish()
        .await
        .expect(2);
}

#[tokio::test]
async fn users_who_went_back_are_not_purged() {
    let (world, plan) = moved().await;
    world.moving("revert", &plan, &[]).finish().await.expect(0);
    let here = world.dump(&world.us).await;
    let purged = world.purge(&plan).await.expect(0);
    assert_eq!(purged.json["result"]["users"], 0);
    assert_eq!(world.dump(&world.us).await, here);
    world.nobody_lost().await;
}

#[tokio::test]
async fn a_purged_user_can_still_come_back() {
    let (world, plan) = moved().await;
    world
        .eu
        .shopper()
        .await
        .must("UPDATE orders SET note = 'mine' WHERE id = 11")
        .await;
    world.purge(&plan).await.expect(0);
    world.moving("revert", &plan, &[]).finish().await.expect(0);
    world.nobody_lost().await;
    assert_eq!(world.at_source().await.len(), EVERYBODY);
    world.moving("run", &plan, &[]).finish().await.expect(0);
    world.verify().await.expect(0);
}

/// Scenario 57: what is not gone yet is reported, and then it is.
#[tokio::test]
async fn the_evidence_says_where_bytes_remain() {
    let (world, plan) = moved().await;
    let us = world.us.admin().await;
    let table = |finished: &Finished, name: &str| {
        let tables = finished.json["result"]["evidence"]["tables"]
            .as_array()
            .unwrap();
        let found = tables
            .iter()
            .find(|one| one["table"].as_str().unwrap().contains(name));
        found
            .unwrap_or_else(|| panic!("no {name}: {}", finished.said))
            .clone()
    };
    let purged = world.purge(&plan).await.expect(0);
    assert_eq!(table(&purged, "orders")["vacuumed"], false);
    assert_eq!(table(&purged, "orders")["analyzed"], false);
    assert!(purged.said.contains("VACUUM (ANALYZE)"), "{}", purged.said);
    us.must("VACUUM (ANALYZE)").await;
    let after = world.purge(&plan).await.expect(0);
    for name in ["users", "orders", "items", "events", "labels"] {
        let table = table(&after, name);
        assert_eq!(table["vacuumed"], true, "{table}");
        assert_eq!(table["analyzed"], true, "{table}");
        assert_eq!(table["dead"], 0, "{table}");
    }
    let evidence = &after.json["result"]["evidence"];
    assert!(evidence["wal_until"].as_str().unwrap().contains('/'));
}

/// A revert that was stopped: its users live at the target, and the source has rows of theirs that no proof covers.
#[tokio::test]
async fn who_was_on_the_way_back_keeps_the_rows_and_is_named() {
    let (world, plan) = moved().await;
    world.stop_a_revert(&plan, "staged").await;
    let staged = world.at_source_as("staging").await;
    assert_eq!(staged.len(), 4);

    let dry = world
        .purging(&plan, &["--dry-run"])
        .finish()
        .await
        .expect(0);
    assert_eq!(named(&dry), staged, "{}", dry.said);
    let list = world.directory().join("hold.txt");
    std::fs::write(&list, staged[1..].join("\n")).unwrap();
    let held = ["--hold", list.to_str().unwrap()];
    let purged = world.purging(&plan, &held).finish().await.expect(10);
    assert_eq!(named(&purged), staged[..1], "{}", purged.said);
    // Also when nobody else has rows that may go.
    let again = world.purge(&plan).await.expect(10);
    assert_eq!(again.json["reason"], "kept", "{}", again.said);
    assert_eq!(named(&again), staged, "{}", again.said);
    assert!(
        again.said.contains("migrate-eu-users revert --plan HASH"),
        "{}",
        again.said
    );
    assert_eq!(world.at_source().await.len(), AMERICANS + staged.len());

    // The way out that it names.
    world.moving("revert", &plan, &[]).finish().await.expect(0);
    world.moving("run", &plan, &[]).finish().await.expect(0);
    world.purge(&plan).await.expect(0);
    assert_eq!(world.at_source().await.len(), AMERICANS);
    world.nobody_lost().await;
}

/// The same, of a plan that was given up for another one.
#[tokio::test]
async fn who_was_given_up_on_the_way_back_keeps_the_rows_and_is_named() {
    let (mut world, plan) = moved().await;
    world.stop_a_revert(&plan, "staged").await;
    let staged = world.at_source_as("staging").await;
    world.schema = &GERMANS;
    let other = world.plan().await;
    world.stop_a_revert(&other, "prepared").await;
    assert_eq!(world.at_source_as("cancelled").await, staged);
    let purged = world.purge(&other).await.expect(10);
    assert_eq!(purged.json["reason"], "kept", "{}", purged.said);
    assert_eq!(named(&purged), staged, "{}", purged.said);
    // The way out that it names.
    world.moving("revert", &other, &[]).finish().await.expect(0);
    world.moving("run", &other, &[]).finish().await.expect(0);
    world.purge(&other).await.expect(0);
    world.nobody_lost().await;
}

fn named(finished: &Finished) -> Vec<&str> {
    let kept = finished.json["result"]["kept"].as_array().unwrap();
    kept.iter()
        .map(|one| one["user"].as_str().unwrap())
        .collect()
}
