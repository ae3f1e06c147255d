//! What an operator does: plans, rehearses, slows down, stops, comes again, goes back, works with two machines.

use std::sync::LazyLock;
use std::time::Duration;

use crate::dice::{self, Dice};
use crate::ledger::Ledger;
use crate::scenarios::{ROWS, all_at_once, shop};
use crate::servers::{Database, Server};
use crate::world::{Running, Servers, WIDE, World, eventually};

/// Everything that a database holds beside its statistics: names of objects and rows of the product and of the journal.
async fn everything(database: &Database) -> Vec<Option<String>> {
    let admin = database.admin().await;
    let mut found = Vec::new();
    let objects = "SELECT string_agg(n.nspname || '.' || c.relname || ' ' || c.relkind::text, ',' ORDER BY c.oid) FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')";
    found.push(admin.text(objects).await);
    for sql in [
        "SELECT string_agg(p.oid::text || p.prosrc, ',' ORDER BY p.oid) FROM pg_proc p WHERE pronamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema'))",
        "SELECT string_agg(tgname || tgenabled::text || tgrelid::text, ',' ORDER BY oid) FROM pg_trigger",
        "SELECT string_agg(rolname, ',' ORDER BY 1) FROM pg_roles",
        "SELECT string_agg(datname || coalesce(datacl::text, ''), ',') FROM pg_database WHERE datname = current_database()",
    ] {
        found.push(admin.text(sql).await);
    }
    let tables = "SELECT format('SELECT string_agg(t::text, E''\\n'' ORDER BY t::text) FROM %s t', c.oid::regclass) FROM pg_class c \
                  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'regionwise') AND c.relkind = 'r' ORDER BY c.oid";
    for row in admin.client.query(tables, &[]).await.unwrap() {
        found.push(admin.text(row.get(0)).await);
    }
    found
}

/// Waits until a statement at the source says what is wanted.
async fn until(database: &Database, sql: &str, wanted: &str) {
    let admin = database.admin().await;
    eventually(sql, async || match admin.text(sql).await {
        Some(found) if found == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn s53_a_finished_run_that_is_run_again_does_nothing() {
    let (world, plan) = shop().await;
    all_at_once(&world, &plan).finish().await.expect(0);
    let before = (everything(&world.us).await, everything(&world.eu).await);
    let again = all_at_once(&world, &plan).finish().await.expect(0);
    assert_eq!(again.json["result"]["moved"], 0, "{}", again.said);
    assert!(again.said.contains("Nobody is left"), "{}", again.said);
    assert_eq!(
        (everything(&world.us).await, everything(&world.eu).await),
        before
    );
}

#[tokio::test]
async fn s54_s77_there_and_back_and_there_again_with_writes_in_between() {
    let (world, plan) = shop().await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
    world.verify().await.expect(0);
    let shopper = world.eu.shopper().await;
    shopper
        .must(
            "UPDATE orders SET note = 'in the EU' WHERE id = 11; DELETE FROM items WHERE id = 311; INSERT INTO orders VALUES (49, 4, 9, 'new'); \
             INSERT INTO items VALUES (499, 49, 5); UPDATE labels SET moods = '{calm}', price = 1.50, body = NULL WHERE id = 5; \
             UPDATE comments SET parent_id = 71 WHERE id = 73; UPDATE events SET k = 1 - k WHERE user_id = 8",
        )
        .await;
    let there = world.dump(&world.eu).await;
    world.moving("revert", &plan, &[]).finish().await.expect(0);
    assert_eq!(world.at_home(&world.eu).await, Vec::<String>::new());
    let back = world.dump(&world.us).await;
    for (user, rows) in &there {
        assert_eq!(back.get(user), Some(rows), "user {user}");
    }
    let shopper = world.us.shopper().await;
    shopper
        .must(
            "UPDATE orders SET note = 'in the US' WHERE id = 11; DELETE FROM orders WHERE id = 49",
        )
        .await;
    let again = all_at_once(&world, &plan).finish().await.expect(0);
    assert_eq!(again.json["result"]["moved"], 9, "{}", again.said);
    world.all_moved_equal().await;
    world.verify().await.expect(0);
}

#[tokio::test]
async fn s59_plan_dry_run_and_check_change_nothing() {
    let bare = World::new(&WIDE).await;
    bare.us.admin().await.must(ROWS).await;
    let before = (everything(&bare.us).await, everything(&bare.eu).await);
    bare.tool(&["plan", "--check"]).finish().await.expect(0);
    // Its account may not read the product's tables before `install`.
    let early = bare.tool(&["plan"]).finish().await.expect(12);
    let hint = early.json["hints"][0].as_str();
    assert!(
        hint.is_some_and(|hint| hint.starts_with("migrate-eu-users install --mover")),
        "{}",
        early.said
    );
    assert!(
        early.said.contains("`migration.roles.move`"),
        "{}",
        early.said
    );
    bare.tool(&["install", "--print"]).finish().await.expect(0);
    assert_eq!(
        (everything(&bare.us).await, everything(&bare.eu).await),
        before
    );
    // Nor where a run is possible.
    let (world, plan) = shop().await;
    let before = (everything(&world.us).await, everything(&world.eu).await);
    world.plan().await;
    let dry = world
        .tool(&["run", "--plan", &plan, "--dry-run"])
        .finish()
        .await
        .expect(0);
    assert_eq!(dry.json["result"]["users"], 9);
    world
        .tool(&["revert", "--plan", &plan, "--dry-run"])
        .finish()
        .await
        .expect(0);
    assert_eq!(
        (everything(&world.us).await, everything(&world.eu).await),
        before
    );
}

#[tokio::test]
async fn a_plan_that_nobody_approved_is_not_run() {
    let (world, plan) = shop().await;
    for meant in ["0123456789abcdef", &plan[..8], ""] {
        let finished = world.tool(&["run", "--plan", meant]).finish().await;
        assert!(
            matches!(finished.code, Some(2 | 12)),
            "{meant}: {finished:?}"
        );
    }
    // Other users are another plan.
    let us = world.us.admin().await;
    us.must("ALTER TABLE labels ADD colour text").await;
    world
        .eu
        .admin()
        .await
        .must("ALTER TABLE labels ADD colour text")
        .await;
    let finished = all_at_once(&world, &plan).finish().await.expect(12);
    assert!(finished.said.contains(&plan[..16]), "{}", finished.said);
    assert_eq!(us.number("SELECT count(*) FROM regionwise.run").await, 0);
    // The new plan needs the fence of the new schema.
    let new = world.plan().await;
    let finished = all_at_once(&world, &new).finish().await.expect(12);
    assert!(finished.said.contains("install"), "{}", finished.said);
    world.install().await.expect(0);
    all_at_once(&world, &new).finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s63_nothing_survives_success_or_failure() {
    let (world, plan) = shop().await;
    let objects = "SELECT string_agg(c.oid::text, ',' ORDER BY c.oid) FROM pg_class c";
    let triggers = "SELECT string_agg(tgname || tgenabled::text || tgrelid::text, ',' ORDER BY oid) FROM pg_trigger";
    let mut before = Vec::new();
    for database in [&world.us, &world.eu] {
        let admin = database.admin().await;
        before.push((admin.text(objects).await, admin.text(triggers).await));
    }
    let mut call = all_at_once(&world, &plan).hold("copied").start();
    assert!(call.is_held().await);
    call.kill().await;
    world.no_locks_left().await;
    world
        .tool(&["run", "--plan", &plan, "--lanes", "99"])
        .finish()
        .await
        .expect(2);
    all_at_once(&world, &plan).finish().await.expect(0);
    world.no_locks_left().await;
    for (database, before) in [&world.us, &world.eu].into_iter().zip(before) {
        let admin = database.admin().await;
        assert_eq!(
            (admin.text(objects).await, admin.text(triggers).await),
            before
        );
    }
}

#[tokio::test]
async fn s66_what_was_not_measured_is_unknown_and_not_zero() {
    let (world, _) = shop().await;
    let check = world.tool(&["plan", "--check"]).finish().await.expect(0);
    assert_eq!(check.json["result"]["users"], serde_json::Value::Null);
    let tree = check.json["result"]["plan"]["tree"].as_array().unwrap();
    assert_eq!(tree.len(), 7);
    for branch in tree {
        assert_eq!(branch["rows"], serde_json::Value::Null, "{branch}");
    }
    // Counted, but nobody has looked how large the tables are.
    let counted = world.tool(&["plan"]).finish().await.expect(0);
    for branch in counted.json["result"]["plan"]["tree"].as_array().unwrap() {
        assert!(branch["rows"].is_u64(), "{branch}");
        assert_ne!(branch["bytes"], 0, "{branch}");
    }
}

#[tokio::test]
async fn s70_batches_of_every_size_move_the_same_rows() {
    for size in ["1", "2", "3", "4", "8", "9", "10"] {
        let (world, plan) = shop().await;
        let before = world.dump(&world.us).await;
        let words = ["run", "--plan", &plan, "--batch-size", size, "--lanes", "2"];
        let finished = world.tool(&words).finish().await.expect(0);
        assert_eq!(finished.json["result"]["rows"], 9 * 15, "{}", finished.said);
        world.all_moved_equal().await;
        assert_eq!(world.dump(&world.us).await, before);
    }
}

#[tokio::test]
async fn s71_a_table_without_rows_is_empty_and_not_missing() {
    // Nobody has ordered anything yet.
    let world = World::ready().await;
    let plan = world.plan().await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
    let verified = world.verify().await.expect(0);
    assert_eq!(verified.json["result"]["complete"], true);
    let selections = verified.json["result"]["selections"].as_array().unwrap();
    assert_eq!(selections.len(), 7, "{}", verified.said);
    // A table that is not there is another matter.
    world.eu.admin().await.must("DROP TABLE parts").await;
    let code = world.verify().await.code;
    assert!(matches!(code, Some(10 | 12 | 20)), "{code:?}");
    all_at_once(&world, &plan).finish().await.expect(12);
}

#[tokio::test]
async fn several_runners_share_one_run() {
    let seed = dice::seed();
    println!("SEED={seed}");
    let (world, plan) = shop().await;
    let ledger = Ledger::open(&world, &Dice::new(seed), Duration::from_millis(4)).await;
    let one = || {
        world
            .tool(&["run", "--plan", &plan, "--batch-size", "1", "--lanes", "2"])
            .start()
    };
    let runners: Vec<Running> = (0..3).map(|_| one()).collect();
    let mut moved = 0;
    for runner in runners {
        let finished = runner.finish().await.expect(0);
        moved += finished.json["result"]["moved_here"].as_u64().unwrap();
        // Whoever came when all was done has nothing to count.
        let all = &finished.json["result"]["moved"];
        assert!(
            all == 9 || finished.said.contains("Nobody is left"),
            "{}",
            finished.said
        );
    }
    assert_eq!(moved, 9, "somebody was counted twice or not at all");
    ledger.goes_on(2).await;
    println!("{}", ledger.close(&world).await);
    assert_eq!(world.at_home(&world.eu).await, world.chosen().await);
    let admin = world.us.admin().await;
    assert_eq!(admin.number("SELECT count(*) FROM regionwise.run").await, 1);
    assert_eq!(
        admin
            .number("SELECT count(*) FROM regionwise.batch WHERE state = 'done'")
            .await,
        9
    );
    world.no_locks_left().await;
}

#[tokio::test]
async fn a_rehearsal_proves_everything_and_leaves_nothing() {
    let (world, plan) = shop().await;
    let before = (world.dump(&world.us).await, world.dump(&world.eu).await);
    let words = ["run", "--plan", &plan, "--rehearse", "--batch-size", "4"];
    let finished = world.tool(&words).finish().await.expect(0);
    assert_eq!(finished.json["result"]["rows"], 9 * 15, "{}", finished.said);
    assert_eq!(
        (world.dump(&world.us).await, world.dump(&world.eu).await),
        before
    );
    let eu = world.eu.admin().await;
    assert_eq!(eu.number("SELECT count(*) FROM regionwise.route").await, 0);
    for admin in [&eu, &world.us.admin().await] {
        for table in ["run", "batch", "member"] {
            let sql = format!("SELECT count(*) FROM regionwise.{table}");
            assert_eq!(admin.number(&sql).await, 0, "{table}");
        }
    }
    // What it would have met is found.
    world
        .eu
        .tamper(
            "INSERT INTO users (id, email, billing_country) VALUES (901, 'u1@example.com', 'DE')",
        )
        .await;
    let met = world.tool(&words).finish().await.expect(10);
    assert_eq!(met.json["reason"], "set-aside", "{}", met.said);
    assert_eq!(met.json["result"]["set_aside"], 1, "{}", met.said);
    assert!(met.said.contains("users_email_key"), "{}", met.said);
    world.eu.tamper("DELETE FROM users WHERE id = 901").await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn a_rehearsal_says_whom_it_cannot_rehearse() {
    let (world, plan) = shop().await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.moving("revert", &plan, &[]).finish().await.expect(0);
    let shopper = world.us.shopper().await;
    shopper
        .must("INSERT INTO users (id, email, billing_country) VALUES (13, 'new@example.com', 'FR')")
        .await;
    let words = ["run", "--plan", &plan, "--rehearse"];
    let finished = world.tool(&words).finish().await.expect(0);
    let result = &finished.json["result"];
    assert_eq!(result["not_rehearsed"], 9, "{}", finished.said);
    assert_eq!(result["rows"], 1, "{}", finished.said);
    let why = "9 not rehearsed: `eu` has a route of theirs already, `moved`";
    assert!(finished.said.contains(why), "{}", finished.said);
    // Where everybody is left out nothing is shown.
    shopper.must("DELETE FROM users WHERE id = 13").await;
    let none = world.tool(&words).finish().await.expect(10);
    assert_eq!(none.json["reason"], "not-rehearsed", "{}", none.said);
}

#[tokio::test]
async fn a_run_that_is_out_of_time_stops_at_a_safe_point_and_goes_on() {
    let (world, plan) = shop().await;
    let words = [
        "run",
        "--plan",
        &plan,
        "--batch-size",
        "1",
        "--lanes",
        "1",
        "--max-runtime",
        "1ms",
    ];
    let finished = world.tool(&words).finish().await;
    let first = finished.json["result"]["moved"].as_u64().unwrap();
    if finished.code == Some(10) {
        assert_eq!(finished.json["reason"], "out-of-time", "{}", finished.said);
        assert!(first < 9);
    }
    world.nobody_lost().await;
    world.no_locks_left().await;
    let rest = all_at_once(&world, &plan).finish().await.expect(0);
    let second = rest.json["result"]["moved_here"].as_u64().unwrap();
    assert_eq!(first + second, 9, "{}", rest.said);
    if second > 0 {
        assert_eq!(rest.json["result"]["moved"], 9, "{}", rest.said);
    }
    world.all_moved_equal().await;
}

/// A run that waits for `throttle` moves nobody, from its first moment on. `asked` waits until it has looked, and `free`
/// lets it go on.
async fn waits(throttle: &[&str], asked: impl AsyncFnOnce(&World), free: impl AsyncFnOnce(&World)) {
    let (world, plan) = shop().await;
    let us = world.us.admin().await;
    us.must(
        "CREATE TABLE brake AS SELECT true AS pulled; GRANT SELECT ON brake TO regionwise_move",
    )
    .await;
    let here = world.directory().display().to_string();
    let throttle: Vec<String> = throttle
        .iter()
        .map(|word| word.replace("{here}", &here))
        .collect();
    let mut words = vec!["run", "--plan", &plan];
    words.extend(throttle.iter().map(String::as_str));
    std::fs::write(world.directory().join("brake"), "").unwrap();
    let mut call = world.tool(&words).start();
    asked(&world).await;
    assert!(!call.has_ended());
    assert_eq!(world.at_home(&world.eu).await, Vec::<String>::new());
    assert_eq!(
        us.number("SELECT count(*) FROM regionwise.batch WHERE holder IS NOT NULL")
            .await,
        0
    );
    free(&world).await;
    call.finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn a_file_makes_a_run_wait() {
    let asked = async |world: &World| {
        until(
            &world.us,
            "SELECT count(*)::text FROM regionwise.batch",
            "1",
        )
        .await;
        // Nobody sees it look at a file: long enough for a run that does not.
        tokio::time::sleep(Duration::from_millis(1500)).await;
    };
    waits(
        &["--pause-file", "{here}/brake"],
        asked,
        async |world: &World| {
            std::fs::remove_file(world.directory().join("brake")).unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn a_query_makes_a_run_wait() {
    let look = "SELECT (count(*) > 0)::text FROM pg_stat_activity WHERE query = 'SELECT pulled FROM public.brake' AND state = 'idle' \
                AND query_start > clock_timestamp() - interval '1 s' AND datname = current_database()";
    let asked = async |world: &World| until(&world.us, look, "true").await;
    waits(
        &["--pause-query", "SELECT pulled FROM public.brake"],
        asked,
        async |world: &World| {
            let us = world.us.admin().await;
            // What is no answer is no permission.
            us.must("UPDATE brake SET pulled = NULL").await;
            until(&world.us, look, "true").await;
            us.must("UPDATE brake SET pulled = false").await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_command_makes_a_run_wait() {
    let asked = async |world: &World| {
        eventually("it has asked twice", async || {
            let asked =
                std::fs::read_to_string(world.directory().join("asked")).unwrap_or_default();
            if asked.lines().count() < 2 {
                Err(asked)
            } else {
                Ok(())
            }
        })
        .await;
    };
    let command = "echo >> {here}/asked; test ! -e {here}/brake";
    waits(
        &["--pause-command", command],
        asked,
        async |world: &World| {
            std::fs::remove_file(world.directory().join("brake")).unwrap();
        },
    )
    .await;
}

/// Servers of their own: whoever follows one of them is seen by every run on it.
static FOLLOWED: LazyLock<[Server; 2]> =
    LazyLock::new(|| [Server::start("followed-us"), Server::start("followed-eu")]);

#[tokio::test]
async fn s51_a_standby_that_lags_makes_a_run_wait() {
    let servers = Servers {
        us: &FOLLOWED[0],
        eu: &FOLLOWED[1],
    };
    let world = World::bare(servers, &WIDE, 12).await;
    world.us.admin().await.must(ROWS).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    let follow = |place: &std::path::Path| {
        let mut receive = tokio::process::Command::new("pg_receivewal");
        let port = servers.eu.port.to_string();
        receive
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "postgres",
                "--no-loop",
                "-D",
            ])
            .arg(place)
            .kill_on_drop(true);
        receive.spawn().unwrap()
    };
    // It streams, and does not say how far it has replayed: unknown is not near enough.
    let place = world.directory().join("wal");
    std::fs::create_dir(&place).unwrap();
    let mut follower = follow(&place);
    let streams = "SELECT (count(*) > 0)::text FROM pg_stat_replication WHERE state = 'streaming'";
    until(&world.eu, streams, "true").await;
    let mut call = world
        .tool(&["run", "--plan", &plan, "--max-lag", "500ms"])
        .start();
    let looks = "SELECT (count(*) > 0)::text FROM pg_stat_activity WHERE query LIKE '%FROM pg_stat_replication WHERE%' \
                 AND usename = 'carrier' AND state = 'idle'";
    until(&world.eu, looks, "true").await;
    assert!(!call.has_ended());
    assert_eq!(world.at_home(&world.eu).await, Vec::<String>::new());
    follower.kill().await.unwrap();
    call.finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn somebody_who_signs_up_during_a_run_moves_too() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("recorded").start();
    assert!(call.is_held().await);
    let shopper = world.us.shopper().await;
    shopper
        .must("INSERT INTO users (id, email, billing_country) VALUES (13, 'new@example.com', 'FR'); INSERT INTO orders VALUES (131, 13, 1, 'first')")
        .await;
    // Another one has moved house.
    shopper
        .must("UPDATE users SET billing_country = 'DE' WHERE id = 2")
        .await;
    call.release();
    let finished = call.finish().await.expect(0);
    assert_eq!(finished.json["result"]["moved"], 11, "{}", finished.said);
    until(&world.eu, "SELECT note FROM orders WHERE id = 131", "first").await;
}

/// Ends the sessions that a run has beside its lanes.
const END_CONTROL: &str = "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity \
                           WHERE datname = current_database() AND application_name = 'regionwise control'";

#[tokio::test]
async fn the_sessions_of_the_run_itself_are_opened_again_like_those_of_its_lanes() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("recorded").start();
    assert!(call.is_held().await);
    for database in [&world.us, &world.eu] {
        until(database, END_CONTROL, "1").await;
    }
    call.release();
    let finished = call.finish().await.expect(0);
    assert_eq!(
        finished.json["result"]["reconnected"], 1,
        "{}",
        finished.said
    );
    world.all_moved_equal().await;
    let over = "SELECT string_agg(state, ' ') FROM regionwise.run";
    let admin = world.us.admin().await;
    assert_eq!(admin.text(over).await.as_deref(), Some("finished"));
}

#[tokio::test]
async fn a_source_that_is_away_for_a_moment_at_the_end_of_a_batch_ends_no_run() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("recorded").start();
    assert!(call.is_held().await);
    let [source, _] = &call.links;
    source.down();
    call.release();
    // It has tried, and could not.
    eventually("it connects again", async || match source.refused() {
        0 => Err("it does not".to_owned()),
        _ => Ok(()),
    })
    .await;
    source.up();
    let finished = call.finish().await.expect(0);
    let again = finished.json["result"]["reconnected"].as_u64();
    assert!(again >= Some(2), "{}", finished.said);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn a_throttle_that_cannot_be_measured_any_more_makes_a_run_wait() {
    let (world, plan) = shop().await;
    let words = [
        "run",
        "--plan",
        &plan,
        "--batch-size",
        "1",
        "--lanes",
        "1",
        "--pause-query",
        "SELECT false",
    ];
    let mut call = world.tool(&words).hold("staged#2").start();
    assert!(call.is_held().await);
    let renews = "SELECT (count(*) > 0)::text FROM pg_stat_activity WHERE datname = current_database() \
                  AND query LIKE 'UPDATE regionwise.batch b SET expires%'";
    until(&world.us, renews, "true").await;
    let [source, _] = &call.links;
    source.full();
    let end = "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity \
               WHERE datname = current_database() AND query = 'SELECT false'";
    until(&world.us, end, "1").await;
    let looks_again = async |since: u64| {
        eventually("it looks again", async || match source.refused() {
            refused if refused > since => Ok(()),
            refused => Err(refused.to_string()),
        })
        .await;
    };
    looks_again(0).await;
    call.release();
    let done = "SELECT count(*)::text FROM regionwise.batch WHERE state = 'done'";
    until(&world.us, done, "2").await;
    looks_again(source.refused()).await;
    until(&world.us, done, "2").await;
    source.up();
    let finished = call.finish().await.expect(0);
    let waited = finished.json["result"]["waited_for"].as_str();
    assert!(
        waited.is_some_and(|why| why.contains("cannot be measured")),
        "{}",
        finished.said
    );
    world.all_moved_equal().await;
}

#[tokio::test]
async fn without_a_throttle_nobody_opens_sessions_for_it() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("staged").start();
    assert!(call.is_held().await);
    let sessions = "SELECT string_agg(application_name, ', ' ORDER BY application_name) FROM pg_stat_activity \
                    WHERE usename = 'carrier' AND datname = current_database()";
    let seen = world.eu.admin().await.text(sessions).await.unwrap();
    let of_lanes = seen
        .split(", ")
        .filter(|name| name.contains(" b0 "))
        .count();
    assert_eq!(of_lanes, 2, "{seen}");
    assert_eq!(seen.split(", ").count(), 3, "{seen}");
    call.release();
    call.finish().await.expect(0);
}

/// With each batch that is done somebody signs up.
const NEVER_ENDS: &str = "
CREATE SEQUENCE newcomers START 1001;
CREATE FUNCTION one_more() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
  IF NEW.state = 'done' THEN
    INSERT INTO users (id, email, billing_country) SELECT n, n || '@new.example', 'DE' FROM nextval('newcomers') n;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER one_more AFTER UPDATE ON regionwise.batch FOR EACH ROW EXECUTE FUNCTION one_more();
";

#[tokio::test]
async fn users_who_come_faster_than_they_move_end_it_with_that_reason() {
    let (world, plan) = shop().await;
    let us = world.us.admin().await;
    us.must(NEVER_ENDS).await;
    let finished = all_at_once(&world, &plan).finish().await.expect(10);
    assert_eq!(finished.json["reason"], "paused", "{}", finished.said);
    assert!(finished.said.contains("faster"), "{}", finished.said);
    assert_eq!(finished.json["result"]["waiting"], 1, "{}", finished.said);
    us.must("DROP TRIGGER one_more ON regionwise.batch").await;
    all_at_once(&world, &plan).finish().await.expect(0);
    let left = "SELECT count(*) FROM regionwise.route WHERE state = 'home' AND usr::bigint > 1000";
    assert_eq!(us.number(left).await, 0);
}

#[tokio::test]
async fn users_whose_answer_was_lost_are_counted_all_the_same() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("released").start();
    assert!(call.is_held().await);
    let [_, target] = &call.links;
    target.mute();
    call.release();
    let active = "SELECT (count(*) > 0)::text FROM regionwise.route WHERE state = 'active'";
    until(&world.eu, active, "true").await;
    target.up();
    target.cut();
    let finished = call.finish().await.expect(0);
    let result = &finished.json["result"];
    assert_eq!(result["moved"], 9, "{}", finished.said);
    let here = result["moved_here"].as_u64().unwrap();
    assert!(here < 9, "{}", finished.said);
    let said = format!("9 ({here} by this runner) users moved");
    assert!(finished.said.contains(&said), "{}", finished.said);
    world.all_moved_equal().await;
}
