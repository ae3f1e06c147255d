//! `verify` finds what is missing, too much or changed, at either side, and never calls verified what it cannot compare.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::servers::Database;
use crate::world::{Finished, Schema, World};

/// Orders with items and parts for everybody, then a run.
pub(crate) async fn moved() -> (World, String) {
    let world = World::ready().await;
    world.us.admin().await.must(ROWS).await;
    let plan = world.plan().await;
    world.moving("run", &plan, &[]).finish().await.expect(0);
    (world, plan)
}

const ROWS: &str = "
INSERT INTO orders SELECT u * 10 + o, u, o, 'note' FROM generate_series(1, 12) u, generate_series(1, 2) o;
INSERT INTO items SELECT id * 10 + i, id, i FROM orders, generate_series(1, 2) i;
INSERT INTO parts SELECT id, 1, 'part' FROM orders;
";

/// Begins a transaction that writes as nobody does who keeps to the rules: past the fence.
pub(crate) const PAST_THE_FENCE: &str = "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL ROLE regionwise_move; \
     SET LOCAL regionwise.entered = 'staging by hand'";

impl World {
    pub(crate) async fn verify(&self) -> Finished {
        self.tool(&["verify"]).finish().await
    }

    /// The report as a file.
    fn keep(&self, finished: &Finished) -> PathBuf {
        let report = self.directory().join("verify.json");
        std::fs::write(&report, finished.json.to_string()).unwrap();
        report
    }

    async fn verify_only(&self, report: &Path) -> Finished {
        let report = report.to_str().unwrap();
        self.tool(&["verify", "--only", report]).finish().await
    }
}

impl Database {
    /// Writes as nobody does who keeps to the rules: past the fence.
    pub(crate) async fn tamper(&self, sql: &str) {
        let admin = self.admin().await;
        admin
            .must(&format!("{PAST_THE_FENCE}; {sql}; COMMIT"))
            .await;
    }
}

fn only_wrong(finished: &Finished) -> &Value {
    let wrong = finished.json["result"]["wrong"].as_array().unwrap();
    assert_eq!(wrong.len(), 1, "{}", finished.said);
    &wrong[0]
}

#[track_caller]
fn says(finished: &Finished, complete: bool, equal: bool) {
    let result = &finished.json["result"];
    assert_eq!(result["complete"], complete, "{}", finished.said);
    assert_eq!(result["equal"], equal, "{}", finished.said);
}

#[tokio::test]
async fn what_has_moved_is_complete_and_equal() {
    let (world, _) = moved().await;
    let finished = world.verify().await.expect(0);
    says(&finished, true, true);
    let result = &finished.json["result"];
    assert_eq!(result["users"], 9);
    assert_eq!(result["verified"], 9);
    assert_eq!(result["touched"], serde_json::json!([]));
    // 1 + 2 orders, 4 items, 2 parts, 3 comments, 2 events, 1 label.
    assert_eq!(result["rows"], 9 * 15);
    let selections = result["selections"].as_array().unwrap();
    assert_eq!(selections.len(), 7);
    let items = selections
        .iter()
        .find(|one| one["table"] == "public.items" || one["table"] == "items");
    assert_eq!(items.unwrap()["climbed"], 36);
    assert_eq!(result["strangers"], serde_json::json!([]));
}

#[tokio::test]
async fn a_row_that_changed_at_the_target_is_named_with_its_column() {
    let (world, _) = moved().await;
    world
        .eu
        .tamper("UPDATE orders SET note = 'nota' WHERE id = 11")
        .await;
    let finished = world.verify().await.expect(10);
    says(&finished, true, false);
    assert_eq!(finished.json["reason"], "not-equal");
    let wrong = only_wrong(&finished);
    assert_eq!(wrong["user"], "1");
    assert_eq!(wrong["what"]["wrong"], "target-changed");
    let row = &wrong["what"]["about"]["rows"][0];
    assert_eq!(row["key"], serde_json::json!(["11"]));
    assert_eq!(row["how"]["columns"], serde_json::json!(["note"]));
    assert!(
        !finished.said.contains("nota"),
        "a value is told: {}",
        finished.said
    );
}

#[tokio::test]
async fn a_missing_and_an_extra_row_at_the_target_are_named() {
    let (world, _) = moved().await;
    world.eu.tamper("DELETE FROM items WHERE id = 311").await;
    world
        .eu
        .tamper("INSERT INTO parts VALUES (41, 9, 'more')")
        .await;
    let finished = world.verify().await.expect(10);
    let wrong = finished.json["result"]["wrong"].as_array().unwrap();
    let how = |place: usize| &wrong[place]["what"]["about"]["rows"][0]["how"]["difference"];
    assert_eq!(
        (&wrong[0]["user"], how(0)),
        (&"3".into(), &"missing-at-target".into())
    );
    assert_eq!(
        (&wrong[1]["user"], how(1)),
        (&"4".into(), &"extra-at-target".into())
    );
}

#[tokio::test]
async fn a_frozen_row_that_changed_at_the_source_is_named() {
    let (world, _) = moved().await;
    world
        .us
        .tamper("UPDATE labels SET price = price + 0.01 WHERE id = 5")
        .await;
    let finished = world.verify().await.expect(10);
    says(&finished, true, false);
    let wrong = only_wrong(&finished);
    assert_eq!(wrong["user"], "5");
    assert_eq!(wrong["what"]["wrong"], "source-changed");
    let columns = &wrong["what"]["about"]["rows"][0]["how"]["columns"];
    assert_eq!(*columns, serde_json::json!(["doubled", "price"]));
}

#[tokio::test]
async fn the_same_change_on_both_sides_is_found_too() {
    let (world, _) = moved().await;
    for database in [&world.us, &world.eu] {
        database
            .tamper("UPDATE orders SET note = 'both' WHERE id = 11")
            .await;
    }
    let finished = world.verify().await.expect(10);
    assert_eq!(only_wrong(&finished)["what"]["wrong"], "source-changed");
}

#[tokio::test]
async fn who_has_written_since_is_touched_and_never_verified() {
    let (world, _) = moved().await;
    let shopper = world.eu.shopper().await;
    shopper
        .must("UPDATE orders SET note = 'mine' WHERE id = 11")
        .await;
    shopper
        .must("INSERT INTO orders VALUES (19, 1, 9, 'new')")
        .await;
    let finished = world.verify().await.expect(0);
    says(&finished, true, true);
    let result = &finished.json["result"];
    assert_eq!(result["verified"], 8);
    assert_eq!(
        result["touched"],
        serde_json::json!([{ "user": "1", "rows": 2 }])
    );
}

#[tokio::test]
async fn rows_that_went_in_a_cascade_are_touched() {
    let (world, _) = moved().await;
    let shopper = world.eu.shopper().await;
    shopper.must("DELETE FROM orders WHERE id = 11").await;
    let finished = world.verify().await.expect(0);
    // The order, two items, one part.
    let touched = &finished.json["result"]["touched"];
    assert_eq!(*touched, serde_json::json!([{ "user": "1", "rows": 4 }]));
}

/// Keys whose text depends on the settings of the session.
static CLOCKS: Schema = Schema {
    name: "clocks",
    sql: "
CREATE TABLE users (id bigint PRIMARY KEY);
CREATE TABLE visits (user_id bigint NOT NULL REFERENCES users, at timestamptz, note text, PRIMARY KEY (user_id, at));
CREATE TABLE looks (user_id bigint, at timestamptz, n int, PRIMARY KEY (user_id, at, n),
  FOREIGN KEY (user_id, at) REFERENCES visits ON DELETE CASCADE);
CREATE TABLE laps (user_id bigint NOT NULL REFERENCES users, took interval, share float8, tag bytea, note text,
  PRIMARY KEY (user_id, took, share, tag));
",
    rows: "
INSERT INTO users SELECT generate_series(1, {users});
INSERT INTO visits SELECT u, timestamptz '2026-03-29 01:30:00+01' + u * interval '1 hour' + v * interval '40 days', 'visit'
  FROM generate_series(1, {users}) u, generate_series(1, 3) v;
INSERT INTO looks SELECT user_id, at, n FROM visits, generate_series(1, 2) n;
INSERT INTO laps SELECT u, u * interval '1 day 02:03:04.5', u / 3.0, decode(md5(u::text), 'hex'), 'lap' FROM generate_series(1, {users}) u;
",
    users: "true",
    rules: "",
    owned: &[
        ("users", "SELECT id::text AS usr, t::text AS line FROM users t"),
        ("visits", "SELECT user_id::text AS usr, t::text AS line FROM visits t"),
        ("looks", "SELECT user_id::text AS usr, t::text AS line FROM looks t"),
        ("laps", "SELECT user_id::text AS usr, t::text AS line FROM laps t"),
    ],
};

const ABROAD: [&str; 5] = [
    "TimeZone = 'Asia/Tokyo'",
    "DateStyle = 'German, DMY'",
    "IntervalStyle = 'iso_8601'",
    "bytea_output = 'escape'",
    "extra_float_digits = -10",
];

#[tokio::test]
async fn what_a_writer_touched_is_known_whatever_settings_the_writer_and_the_servers_have() {
    let world = World::new(&CLOCKS).await;
    world.install().await.expect(0);
    for database in [&world.us, &world.eu] {
        let admin = database.admin().await;
        for setting in ABROAD {
            let of_all = format!("ALTER DATABASE {} SET {setting}", database.name);
            admin.must(&of_all).await;
        }
    }
    let plan = world.plan().await;
    world.moving("run", &plan, &[]).finish().await.expect(0);
    let shopper = world.eu.shopper().await;
    shopper
        .must(
            "UPDATE visits SET note = 'mine' WHERE user_id = 1 AND at = (SELECT min(at) FROM visits WHERE user_id = 1); \
             DELETE FROM visits WHERE user_id = 1 AND at = (SELECT max(at) FROM visits WHERE user_id = 1); \
             UPDATE laps SET note = 'mine' WHERE user_id = 1",
        )
        .await;
    let finished = world.verify().await.expect(0);
    says(&finished, true, true);
    let result = &finished.json["result"];
    assert_eq!(result["verified"], 11);
    // Two that were changed, one that was deleted, two that went with it.
    let touched = serde_json::json!([{ "user": "1", "rows": 5 }]);
    assert_eq!(result["touched"], touched);
    let there = world.dump(&world.eu).await;
    world.purge(&plan).await.expect(0);
    assert_eq!(world.dump(&world.us).await.len(), 0);
    assert_eq!(world.dump(&world.eu).await, there);
}

/// A key that is computed when the row is written.
static SLUGS: Schema = Schema {
    name: "slugs",
    sql: "
CREATE TABLE users (id bigint PRIMARY KEY);
CREATE TABLE pages (user_id bigint NOT NULL REFERENCES users, title text NOT NULL,
  slug text GENERATED ALWAYS AS (lower(title)) STORED, PRIMARY KEY (user_id, slug));
",
    rows: "
INSERT INTO users SELECT generate_series(1, {users});
INSERT INTO pages SELECT u, 'Page ' || u FROM generate_series(1, {users}) u;
",
    users: "true",
    rules: "",
    owned: &[
        (
            "users",
            "SELECT id::text AS usr, t::text AS line FROM users t",
        ),
        (
            "pages",
            "SELECT user_id::text AS usr, t::text AS line FROM pages t",
        ),
    ],
};

#[tokio::test]
async fn a_row_is_known_as_written_by_a_key_that_is_computed() {
    let world = World::new(&SLUGS).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    world.moving("run", &plan, &[]).finish().await.expect(0);
    let shopper = world.eu.shopper().await;
    shopper
        .must("INSERT INTO pages VALUES (1, 'More'); UPDATE pages SET title = 'Other' WHERE user_id = 2")
        .await;
    let finished = world.verify().await.expect(0);
    let touched = serde_json::json!([{ "user": "1", "rows": 1 }, { "user": "2", "rows": 2 }]);
    assert_eq!(finished.json["result"]["touched"], touched);
}

#[tokio::test]
async fn a_change_is_found_beside_those_of_an_honest_writer() {
    let (world, _) = moved().await;
    let shopper = world.eu.shopper().await;
    shopper
        .must("UPDATE orders SET note = 'mine' WHERE id = 11")
        .await;
    world
        .eu
        .tamper("UPDATE orders SET note = 'not mine' WHERE id = 12")
        .await;
    world.eu.tamper("DELETE FROM items WHERE id = 121").await;
    let finished = world.verify().await.expect(10);
    let wrong = only_wrong(&finished);
    assert_eq!(wrong["what"]["wrong"], "target-changed");
    assert_eq!(wrong["what"]["about"]["count"], 2);
}

#[tokio::test]
async fn only_those_who_failed_are_looked_at_again() {
    let (world, _) = moved().await;
    world
        .eu
        .tamper("UPDATE orders SET note = 'x' WHERE id = 11")
        .await;
    let failed = world.verify().await.expect(10);
    let report = world.keep(&failed);
    let again = world.verify_only(&report).await.expect(10);
    assert_eq!(again.json["result"]["users"], 1);
    world
        .eu
        .tamper("UPDATE orders SET note = 'note' WHERE id = 11")
        .await;
    let good = world.verify_only(&report).await.expect(0);
    assert_eq!(good.json["result"]["verified"], 1);
    std::fs::write(&report, "{}").unwrap();
    world.verify_only(&report).await.expect(2);
}

#[tokio::test]
async fn a_user_who_left_and_did_not_arrive_is_incomplete() {
    let (world, _) = moved().await;
    let admin = world.eu.admin().await;
    admin
        .must("DELETE FROM regionwise.route WHERE usr = '7'")
        .await;
    let finished = world.verify().await.expect(10);
    says(&finished, false, true);
    assert_eq!(finished.json["reason"], "incomplete");
    assert_eq!(only_wrong(&finished)["what"]["wrong"], "not-at-home");
}

#[tokio::test]
async fn a_user_at_home_in_both_clusters_is_named() {
    let (world, _) = moved().await;
    let admin = world.us.admin().await;
    admin
        .must("UPDATE regionwise.route SET state = 'active' WHERE usr = '7'")
        .await;
    let finished = world.verify().await.expect(10);
    says(&finished, false, true);
    assert_eq!(
        finished.json["result"]["two_homes"],
        serde_json::json!(["7"])
    );
    // So it stays as long as it is so, whoever is looked at.
    let report = world.keep(&finished);
    let again = world.verify_only(&report).await.expect(10);
    says(&again, false, true);
    assert_eq!(again.json["result"]["two_homes"], serde_json::json!(["7"]));
    // At home at the source alone nothing is left to prove of it, and the report says so.
    world
        .eu
        .admin()
        .await
        .must("UPDATE regionwise.route SET state = 'cancelled' WHERE usr = '7'")
        .await;
    let home = world.verify_only(&report).await.expect(0);
    assert_eq!(home.json["result"]["users"], 1, "{}", home.said);
    assert_eq!(home.json["result"]["not_moved"], 1, "{}", home.said);
    // And at home nowhere is no outcome that anybody may pass over.
    admin
        .must("UPDATE regionwise.route SET state = 'staging' WHERE usr = '7'")
        .await;
    let nowhere = world.verify_only(&report).await.expect(10);
    says(&nowhere, false, true);
    assert_eq!(only_wrong(&nowhere)["what"]["wrong"], "not-at-home");
}

/// As `install --adopt` leaves somebody whose rows were left over at the target.
#[tokio::test]
async fn a_user_who_was_adopted_and_lives_at_the_source_is_named() {
    let (world, _) = moved().await;
    let american = world.at_home(&world.us).await.swap_remove(0);
    let adopt =
        format!("INSERT INTO regionwise.route (usr, state) VALUES ('{american}', 'active')");
    world.eu.admin().await.must(&adopt).await;
    let finished = world.verify().await.expect(10);
    says(&finished, false, true);
    let two_homes = &finished.json["result"]["two_homes"];
    assert_eq!(*two_homes, serde_json::json!([american]));
}

#[tokio::test]
async fn a_report_that_failed_without_naming_users_is_not_proven_by_looking_at_nobody() {
    let (world, _) = moved().await;
    for database in [&world.us, &world.eu] {
        database
            .admin()
            .await
            .must("ALTER TABLE labels ADD more int")
            .await;
    }
    let failed = world.verify().await.expect(10);
    says(&failed, false, false);
    // With the fence of the new schema nothing speaks against verifying everybody.
    world.install().await.expect(0);
    let refused = world.verify_only(&world.keep(&failed)).await.expect(2);
    assert!(refused.said.contains("without --only"), "{}", refused.said);
}

#[tokio::test]
async fn counts_of_tables_that_differed_are_looked_at_again() {
    let (world, _) = moved().await;
    for database in [&world.us, &world.eu] {
        database.tamper("DELETE FROM users WHERE id = 1").await;
    }
    let mut failed = world.verify().await.expect(10);
    failed.json["result"]["wrong"] = serde_json::json!([]);
    let report = world.keep(&failed);
    let again = world.verify_only(&report).await.expect(10);
    says(&again, false, true);
    assert_eq!(again.json["result"]["users"], 0, "{}", again.said);
}

#[tokio::test]
async fn rows_that_the_way_down_does_not_find_are_counted() {
    let (world, _) = moved().await;
    for database in [&world.us, &world.eu] {
        database.tamper("DELETE FROM users WHERE id = 1").await;
    }
    let finished = world.verify().await.expect(10);
    says(&finished, false, false);
    let selections = finished.json["result"]["selections"]
        .as_array()
        .unwrap()
        .iter();
    let differ = selections
        .filter(|one| one["climbed"] != one["found"])
        .count();
    assert_eq!(differ, 6, "{}", finished.said);
}

#[tokio::test]
async fn rows_that_nobody_owns_are_reported() {
    let (world, _) = moved().await;
    let row =
        "INSERT INTO users (id, email, billing_country) VALUES (99, 'left@example.com', 'DE')";
    world.eu.tamper(row).await;
    let finished = world.verify().await.expect(0);
    let strangers = &finished.json["result"]["strangers"];
    assert_eq!(strangers.as_array().unwrap().len(), 1, "{}", finished.said);
    assert_eq!(strangers[0]["state"], "none");
    assert_eq!(strangers[0]["cluster"], "eu");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_proven() {
    let (world, _) = moved().await;
    let mut call = world.tool(&["verify"]);
    let nobody = "postgres://auditor@127.0.0.1:1/nothing";
    call.command.env("EU_VERIFY_DSN", nobody);
    call.finish().await.expect(20);
    // Another schema than the one that the fence knows.
    world
        .eu
        .admin()
        .await
        .must("ALTER TABLE labels ADD more int")
        .await;
    world
        .us
        .admin()
        .await
        .must("ALTER TABLE labels ADD more int")
        .await;
    let finished = world.verify().await.expect(10);
    says(&finished, false, false);
}
