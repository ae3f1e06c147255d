//! Surroundings that mean harm: settings, lies about where one is, rows and triggers that should not be there.

use std::collections::BTreeSet;

use regionwise_mover::{End, Purpose};
use regionwise_postgres::Dsn;

use crate::scenarios::{all_at_once, shop};
use crate::servers::EU;
use crate::session::refused;
use crate::world::{Finished, PATIENCE, WIDE};

/// A row of nobody we know at the target that has user 1's e-mail address.
const TAKEN: &str =
    "INSERT INTO users (id, email, billing_country) VALUES (901, 'u1@example.com', 'DE')";

#[tokio::test]
async fn s24_an_address_taken_at_the_target_sets_aside_that_user_and_nobody_else() {
    let (world, plan) = shop().await;
    world.eu.tamper(TAKEN).await;
    let before = world.dump(&world.us).await;
    let finished = all_at_once(&world, &plan).finish().await.expect(10);
    assert_eq!(finished.json["reason"], "set-aside");
    assert_eq!(finished.json["result"]["set_aside"], 1);
    assert!(
        finished.said.contains("users_email_key"),
        "{}",
        finished.said
    );
    assert!(
        !finished.said.contains("u1@"),
        "a value is told: {}",
        finished.said
    );
    let mut others = world.chosen().await;
    others.retain(|user| user != "1" && user != "901");
    assert_eq!(world.at_home(&world.eu).await, others);
    let rows = world.dump(&world.eu).await;
    for user in &others {
        assert_eq!(rows[user], before[user]);
    }
    assert_eq!(rows.get("1"), None);
    // Of whom nothing is lost.
    let shopper = world.us.shopper().await;
    assert_eq!(
        shopper
            .run("UPDATE orders SET note = 'home' WHERE id = 11")
            .await,
        Ok(1)
    );
    world.no_locks_left().await;
    world.eu.tamper("DELETE FROM users WHERE id = 901").await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn an_address_taken_after_the_copy_sets_aside_that_user_and_nobody_else() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    world
        .us
        .shopper()
        .await
        .must("UPDATE users SET email = 'new@example.com' WHERE id = 1")
        .await;
    world.eu.tamper(&TAKEN.replace("u1@", "new@")).await;
    call.release();
    let finished = call.finish().await.expect(10);
    assert_eq!(finished.json["result"]["set_aside"], 1, "{}", finished.said);
    let homes = world.at_home(&world.us).await;
    assert_eq!(homes, ["1", "10", "2", "6"]);
    world.nobody_lost().await;
    world.eu.tamper("DELETE FROM users WHERE id = 901").await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn a_key_taken_after_the_copy_sets_aside_that_user_and_its_owner_keeps_the_row() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    // The same order number on both sides, of two users: as a natural key can be.
    let shopper = world.us.shopper().await;
    let own = "INSERT INTO orders VALUES (7777, 1, 1, 'of user 1')";
    shopper.must(own).await;
    let other =
        "INSERT INTO users (id, email, billing_country) VALUES (901, 'u901@example.com', 'DE');
                 INSERT INTO orders VALUES (7777, 901, 1, 'of user 901')";
    world.eu.tamper(other).await;
    call.release();
    let finished = call.finish().await.expect(10);
    assert_eq!(finished.json["reason"], "set-aside", "{}", finished.said);
    assert_eq!(finished.json["result"]["set_aside"], 1, "{}", finished.said);
    let whose = "SELECT user_id FROM orders WHERE id = 7777";
    assert_eq!(world.eu.admin().await.number(whose).await, 901);
    assert_eq!(world.us.admin().await.number(whose).await, 1);
    assert!(world.at_home(&world.us).await.contains(&"1".to_owned()));
}

#[tokio::test]
async fn a_conflict_in_a_later_batch_of_a_lane_sets_aside_that_user_and_nobody_else() {
    // From its second batch on a lane sends the start of one COPY together with the end of the one before.
    let (world, plan) = shop().await;
    world.eu.tamper(&TAKEN.replace("u1@", "u12@")).await;
    let finished = world
        .moving("run", &plan, &["--lanes", "1"])
        .finish()
        .await
        .expect(10);
    assert_eq!(finished.json["reason"], "set-aside", "{}", finished.said);
    assert_eq!(finished.json["result"]["set_aside"], 1, "{}", finished.said);
    let mut others = world.chosen().await;
    others.retain(|user| user != "12" && user != "901");
    assert_eq!(world.at_home(&world.eu).await, others);
}

const STAMP: &str = "
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := ''stamped''; RETURN NEW; END';
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION stamp();
";

#[tokio::test]
async fn s26_a_trigger_of_the_product_at_the_target_does_not_touch_rows_that_move() {
    let (world, _) = shop().await;
    world.eu.admin().await.must(STAMP).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
    // It works for the product.
    world
        .eu
        .shopper()
        .await
        .must("UPDATE orders SET note = 'x' WHERE id = 11")
        .await;
    let sql = "SELECT count(*) FROM orders WHERE note = 'stamped'";
    assert_eq!(world.eu.admin().await.number(sql).await, 1);
}

#[tokio::test]
async fn s26_a_trigger_that_fires_for_the_mover_too_is_refused() {
    let (world, plan) = shop().await;
    let eu = world.eu.admin().await;
    eu.must(&format!(
        "{STAMP} ALTER TABLE orders ENABLE ALWAYS TRIGGER stamp"
    ))
    .await;
    let refused = world.tool(&["plan"]).finish().await.expect(12);
    assert!(refused.said.contains("`stamp`"), "{}", refused.said);
    all_at_once(&world, &plan).finish().await.expect(12);
    let now = refused.json["result"]["plan"]["hash"].as_str().unwrap();
    let refused = all_at_once(&world, now).finish().await.expect(12);
    assert!(refused.said.contains("`stamp`"), "{}", refused.said);
    assert_eq!(world.at_home(&world.eu).await, Vec::<String>::new());
    assert!(world.dump(&world.eu).await.is_empty());
}

const SWALLOW: &str = "
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.id % 10 = 1 THEN RETURN NULL; END IF; RETURN NEW; END';
CREATE TRIGGER swallow BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION swallow();
";

#[tokio::test]
async fn s27_a_trigger_that_swallows_rows_cannot_swallow_any_that_move() {
    let (world, _) = shop().await;
    let eu = world.eu.admin().await;
    eu.must(SWALLOW).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    // One that comes after the plan was looked at, and fires for everybody.
    let mut call = all_at_once(&world, &plan).hold("staged").start();
    assert!(call.is_held().await);
    eu.must("ALTER TABLE orders ENABLE ALWAYS TRIGGER swallow")
        .await;
    call.release();
    let finished = call.finish().await.expect(10);
    let row = &finished.json["result"]["mismatch"]["rows"][0];
    assert_eq!(
        row["how"]["difference"], "missing-at-target",
        "{}",
        finished.said
    );
    assert_eq!(world.at_home(&world.eu).await, Vec::<String>::new());
    world.nobody_lost().await;
    eu.must("ALTER TABLE orders ENABLE TRIGGER swallow").await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s60_leftovers_with_the_right_number_of_rows_and_other_content_are_not_taken_for_a_copy() {
    let (world, plan) = shop().await;
    let mut first = all_at_once(&world, &plan).hold("shipped").start();
    assert!(first.is_held().await);
    first.kill().await;
    world
        .eu
        .tamper("UPDATE orders SET note = 'other'; UPDATE items SET qty = -qty; DELETE FROM parts; INSERT INTO parts SELECT order_id, line, 'x' FROM (SELECT id, 1 FROM orders) o(order_id, line)")
        .await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s61_one_cluster_under_two_names_is_refused() {
    let (world, plan) = shop().await;
    let tables = "SELECT count(*) FROM pg_class";
    let us = world.us.admin().await;
    let before = us.number(tables).await;
    for words in [&["plan"][..], &["run", "--plan", &plan], &["install"]] {
        let mut call = world.tool(words);
        let name = &world.us.name;
        for (role, user) in [("INSTALL", "postgres"), ("MOVE", "carrier")] {
            let dsn = format!("postgres://{user}@127.0.0.1:{}/{name}", call.links[0].port);
            call.command.env(format!("EU_{role}_DSN"), dsn);
        }
        let finished = call.finish().await.expect(12);
        let why = ["SameCluster", "plan-changed"].map(|why| finished.said.contains(why));
        assert!(why[usize::from(words[0] == "run")], "{}", finished.said);
    }
    assert_eq!(us.number(tables).await, before);
    assert_eq!(us.number("SELECT count(*) FROM regionwise.run").await, 0);
}

#[tokio::test]
async fn s64_settings_of_the_role_and_the_database_do_not_reach_the_mover() {
    let (world, plan) = shop().await;
    for database in [&world.us, &world.eu] {
        let admin = database.admin().await;
        let name = &database.name;
        for setting in [
            "statement_timeout = '1ms'",
            "lock_timeout = '1ms'",
            "idle_in_transaction_session_timeout = '1ms'",
            "default_transaction_read_only = on",
            "default_transaction_isolation = 'serializable'",
            "default_transaction_deferrable = on",
            "row_security = off",
            "search_path = nowhere",
            "DateStyle = 'German, DMY'",
            "TimeZone = 'Asia/Kathmandu'",
            "IntervalStyle = 'iso_8601'",
            "bytea_output = 'escape'",
            "extra_float_digits = -15",
            "client_encoding = 'LATIN1'",
            "session_replication_role = 'origin'",
            "standard_conforming_strings = off",
            "synchronous_commit = on",
            "transform_null_equals = on",
        ] {
            // Of all who come to this database: only what is the mover's own must not be disturbed.
            let role = if setting.contains("replication_role") {
                "ALTER DATABASE"
            } else {
                "ALTER ROLE carrier IN DATABASE"
            };
            admin.must(&format!("{role} {name} SET {setting}")).await;
        }
    }
    let finished = all_at_once(&world, &plan).finish().await.expect(0);
    assert_eq!(finished.json["result"]["came_again"], 0);
    world.all_moved_equal().await;
    world.moving("revert", &plan, &[]).finish().await.expect(0);
    assert_eq!(world.at_home(&world.eu).await, Vec::<String>::new());
}

#[tokio::test]
async fn s65_a_cluster_that_cannot_be_reached_is_not_empty() {
    let (world, plan) = shop().await;
    for (place, words) in [
        (0, &["plan"][..]),
        (1, &["plan"]),
        (0, &["run", "--plan", &plan]),
        (1, &["run", "--plan", &plan]),
        (0, &["run", "--plan", &plan, "--dry-run"]),
        (1, &["revert", "--plan", &plan]),
        (0, &["verify"]),
    ] {
        let call = world.tool(words);
        call.links[place].down();
        let finished = call.finish().await.expect(20);
        assert_eq!(
            finished.json["result"]["users"],
            serde_json::Value::Null,
            "{}",
            finished.said
        );
        assert!(!finished.said.contains("Nobody"), "{}", finished.said);
    }
    assert!(world.dump(&world.eu).await.is_empty());
}

#[tokio::test]
async fn s73_another_server_at_the_same_name_is_not_what_was_approved() {
    let (world, plan) = shop().await;
    let elsewhere = EU.database("template1").await;
    let admin = elsewhere.admin().await;
    admin.must(WIDE.sql).await;
    let mut call = world.tool(&["run", "--plan", &plan]);
    let dsn = format!(
        "postgres://postgres@127.0.0.1:{}/{}",
        elsewhere.server.port, elsewhere.name
    );
    call.command.env("EU_MOVE_DSN", dsn);
    let finished = call.finish().await.expect(12);
    assert!(finished.said.contains(&plan[..16]), "{}", finished.said);
    assert_eq!(admin.number("SELECT count(*) FROM users").await, 0);
    assert_eq!(
        world
            .us
            .admin()
            .await
            .number("SELECT count(*) FROM regionwise.run")
            .await,
        0
    );
}

#[tokio::test]
async fn s74_a_takeover_that_finds_a_cancelled_user_opens_it_and_does_not_stage_it_again() {
    let (world, plan) = shop().await;
    let mut first = all_at_once(&world, &plan).hold("released").start();
    assert!(first.is_held().await);
    first.kill().await;
    // User 1's rows change at the target, which does not take the right ones any more.
    let eu = world.eu.admin().await;
    world
        .eu
        .tamper("UPDATE orders SET note = 'other' WHERE id = 11")
        .await;
    eu.must("ALTER TABLE orders ADD CONSTRAINT never CHECK (note <> 'note') NOT VALID")
        .await;
    let mut second = all_at_once(&world, &plan).hold("cancelled").start();
    assert!(second.is_held().await);
    assert_eq!(world.routes(&world.us).await["1"].0, "moved");
    assert_eq!(world.routes(&world.eu).await["1"].0, "cancelled");
    second.kill().await;
    eu.must("ALTER TABLE orders DROP CONSTRAINT never").await;
    all_at_once(&world, &plan).finish().await.expect(10);
    assert_eq!(world.at_home(&world.us).await, ["1", "10", "2", "6"]);
    let shopper = world.us.shopper().await;
    assert_eq!(
        shopper.run("UPDATE orders SET seq = 9 WHERE id = 11").await,
        Ok(1)
    );
    world.no_locks_left().await;
    // Asked again, it goes.
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s56_an_eu_row_planted_in_the_us_is_found() {
    let (world, plan) = shop().await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.verify().await.expect(0);
    // The fence lets nobody plant it.
    let shopper = world.us.shopper().await;
    assert_eq!(
        shopper
            .run("INSERT INTO orders VALUES (77, 1, 7, 'x')")
            .await,
        refused("MV001")
    );
    world
        .us
        .tamper("INSERT INTO orders VALUES (77, 1, 7, 'planted')")
        .await;
    let finished = world.verify().await.expect(10);
    assert!(finished.said.contains("77"), "{}", finished.said);
    assert!(
        !finished.said.contains("planted"),
        "a value is told: {}",
        finished.said
    );
    // Somebody who belongs there and has just signed up here is counted by a dry run.
    shopper
        .must("INSERT INTO users (id, email, billing_country) VALUES (13, 'new@example.com', 'FR')")
        .await;
    let dry = world
        .tool(&["run", "--plan", &plan, "--dry-run"])
        .finish()
        .await
        .expect(0);
    assert_eq!(dry.json["result"]["users"], 1, "{}", dry.said);
}

/// A word in every column, and no trace of it anywhere but in the tables.
#[tokio::test]
async fn s58_no_value_is_written_down() {
    let (world, plan) = shop().await;
    let canary = "canary8f31";
    let us = world.us.admin().await;
    us.must(&format!(
        "UPDATE users SET email = '{canary}' || id; UPDATE orders SET note = '{canary}'; UPDATE parts SET txt = '{canary}'; \
         UPDATE comments SET txt = '{canary}'; UPDATE events SET what = '{canary}'; \
         UPDATE labels SET body = '{{\"{canary}\": 1}}', payload = '{canary}'"
    ))
    .await;
    world
        .eu
        .tamper(&format!(
            "INSERT INTO users (id, email, billing_country) VALUES (901, '{canary}1', 'DE')"
        ))
        .await;
    let mut told = String::new();
    let said = |finished: Finished| finished.said + &finished.told;
    told += &said(world.tool(&["plan"]).finish().await);
    told += &said(
        world
            .tool(&["run", "--plan", &plan, "--dry-run"])
            .finish()
            .await,
    );
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    // What somebody sees who looks at the sessions just then.
    let look = "SELECT string_agg(concat_ws(' ', application_name, query), '; ') FROM pg_stat_activity WHERE usename = 'carrier'";
    told += &us.text(look).await.unwrap();
    us.must("UPDATE orders SET seq = 77 WHERE id = 31").await;
    world
        .eu
        .tamper(
            "UPDATE orders SET note = note || 'x' WHERE id = 41; DELETE FROM items WHERE id = 511",
        )
        .await;
    call.release();
    told += &said(call.finish().await.expect(10));
    told += &said(world.verify().await);
    world
        .eu
        .tamper("UPDATE orders SET note = note || 'x' WHERE id = 41")
        .await;
    told += &said(world.verify().await);
    told += &said(world.tool(&["status"]).finish().await);
    told += &said(world.moving("revert", &plan, &[]).finish().await);
    for database in [&world.us, &world.eu] {
        let admin = database.admin().await;
        for table in [
            "install", "run", "batch", "member", "journal", "route", "dirty",
        ] {
            let sql = format!("SELECT string_agg(t::text, ' ') FROM regionwise.{table} t");
            told += &admin.text(&sql).await.unwrap_or_default();
        }
        let log = "SELECT string_agg(l, E'\\n') FROM regexp_split_to_table(pg_read_file(current_setting('data_directory') || '.log'), E'\\n') l \
                   WHERE l LIKE '%canary8f31%'";
        told += &admin.text(log).await.unwrap_or_default();
    }
    assert!(told.len() > 10_000, "nothing was said");
    let lines: BTreeSet<&str> = told.lines().filter(|line| line.contains(canary)).collect();
    assert!(lines.is_empty(), "{lines:#?}");
}

/// A statement that fails may name users and keys of rows.
#[tokio::test]
async fn no_session_has_its_failed_statements_in_the_servers_log() {
    let (world, _) = shop().await;
    for (purpose, user) in [
        (Purpose::Read, "carrier"),
        (Purpose::Write, "carrier"),
        (Purpose::Change, "carrier"),
        (Purpose::Book, "carrier"),
        (Purpose::Verify, "auditor"),
    ] {
        for database in [&world.us, &world.eu] {
            let (port, name) = (database.server.port, &database.name);
            let dsn = format!("postgres://{user}@127.0.0.1:{port}/{name}");
            let end = End {
                cluster: "shop".to_owned(),
                dsn: Dsn::parse(&dsn).unwrap(),
                allow_plaintext: true,
                connect_within: PATIENCE,
            };
            let session = Box::pin(end.open(purpose, "test")).await.unwrap();
            let settings = "SELECT current_setting('log_min_error_statement') || ' ' || current_setting('log_error_verbosity')";
            let found: String = session.ask(settings).await.unwrap()[0].get(0);
            assert_eq!(found, "panic terse", "{purpose:?}");
        }
    }
}

#[tokio::test]
async fn s23_a_target_whose_disk_is_full_loses_nothing_and_goes_on_later() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("staged").start();
    assert!(call.is_held().await);
    let eu = world.eu.admin().await;
    // What a server says whose disk is full, in the middle of a COPY.
    eu.must(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS \
           'BEGIN IF NEW.id % 10 = 2 THEN RAISE EXCEPTION ''no space left on device'' USING ERRCODE = ''53100''; END IF; RETURN NEW; END'; \
         CREATE TRIGGER full_disk BEFORE INSERT ON comments FOR EACH ROW EXECUTE FUNCTION full_disk(); \
         ALTER TABLE comments ENABLE ALWAYS TRIGGER full_disk",
    )
    .await;
    call.release();
    let finished = call.finish().await;
    assert!(matches!(finished.code, Some(10 | 21)), "{}", finished.said);
    assert!(finished.said.contains("53100"), "{}", finished.said);
    assert!(world.dump(&world.eu).await.is_empty());
    world.nobody_lost().await;
    world.no_locks_left().await;
    eu.must("DROP TRIGGER full_disk ON comments").await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s69_whoever_is_set_aside_leaves_nothing_behind() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    // Copied and proven; then the target does not take what the user writes next, so the move is given up.
    let eu = world.eu.admin().await;
    eu.must("ALTER TABLE orders ADD CONSTRAINT never CHECK (note <> 'never') NOT VALID")
        .await;
    let shopper = world.us.shopper().await;
    shopper
        .must("UPDATE orders SET note = 'never' WHERE id = 11")
        .await;
    call.release();
    let finished = call.finish().await.expect(10);
    assert_eq!(finished.json["result"]["set_aside"], 1, "{}", finished.said);
    assert_eq!(world.leftovers(&world.eu).await, Vec::<String>::new());
    world.nobody_lost().await;
    world.no_locks_left().await;
}
