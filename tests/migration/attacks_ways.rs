//! Attacks by other ways to write, and by what a session may do to its locks and settings.

use std::sync::LazyLock;
use std::time::Duration;

use crate::attacks_owner::LEVELS;
use crate::servers::{Database, EU, Server};
use crate::session::{Said, Session, refused};
use crate::shop::{World, prepare, release};
use crate::weaken::{FORGET, GATE, Rule, SIGN_UP, WRITER_LOCK};

const ITEM: &str = "INSERT INTO items VALUES(902, 10, 1)";

#[tokio::test]
async fn a10_refused_writes_are_counted_although_they_roll_back() {
    let world = World::source().await;
    assert_eq!(world.release(1).await, "changed");
    let admin = world.us.admin().await;
    let hits = "SELECT coalesce(pg_sequence_last_value('regionwise.hits'), 0)";
    let app = world.us.app().await;
    for level in LEVELS {
        let before = admin.number(hits).await;
        app.must(&format!("BEGIN ISOLATION LEVEL {level}")).await;
        assert_eq!(
            app.run("UPDATE orders SET note = 'x' WHERE id = 10").await,
            refused("MV001")
        );
        app.must("ROLLBACK").await;
        assert_eq!(admin.number(hits).await, before + 1);
        app.must(&format!(
            "BEGIN ISOLATION LEVEL {level}; SELECT set_config('regionwise.uid', '1', true), set_config('regionwise.epoch', '0', true)"
        ))
        .await;
        assert_eq!(
            app.run("UPDATE orders SET note = 'x' WHERE id = -1").await,
            refused("MV001")
        );
        app.must("ROLLBACK").await;
        assert_eq!(admin.number(hits).await, before + 2);
    }
}

/// Why not `last_value`: it is 1 before the first hit and after it.
#[tokio::test]
async fn a10_the_plain_last_value_misses_the_first_hit() {
    let world = World::source().await;
    assert_eq!(world.release(1).await, "changed");
    let admin = world.us.admin().await;
    let plain = "SELECT last_value FROM regionwise.hits";
    let before = admin.number(plain).await;
    assert_eq!(world.us.app().await.run(ITEM).await, refused("MV001"));
    assert_eq!(admin.number(plain).await, before);
}

#[tokio::test]
async fn a_refusal_carries_the_epoch() {
    let world = World::source().await;
    assert_eq!(world.release(1).await, "changed");
    let app = world.us.app().await;
    let error = app.client.simple_query(ITEM).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.detail()), ("MV001", Some("1")));
}

#[tokio::test]
async fn n4_a_rollback_to_gives_back_the_lock_and_what_was_remembered() {
    let world = World::source().await;
    let app = world.us.app().await;
    app.must("BEGIN; SAVEPOINT a; INSERT INTO items VALUES(901, 10, 1); ROLLBACK TO a")
        .await;
    assert_eq!(world.release(1).await, "changed");
    assert_eq!(app.run(ITEM).await, refused("MV001"));
}

#[tokio::test]
async fn n4_a_lock_from_outside_an_exception_block_survives_it() {
    let world = World::source().await;
    let app = world.us.app().await;
    app.must("BEGIN; INSERT INTO items VALUES(901, 10, 1)")
        .await;
    app.must("DO $$ BEGIN BEGIN INSERT INTO items VALUES(902, 10, 1); RAISE 'x'; EXCEPTION WHEN raise_exception THEN NULL; END; END $$")
        .await;
    app.must("SAVEPOINT a; INSERT INTO items VALUES(903, 10, 1); ROLLBACK TO a")
        .await;
    assert_eq!(world.release(1).await, "busy");
    app.must("COMMIT").await;
    assert_eq!(world.release(1).await, "changed");
}

async fn the_next_transaction_writes(without: &[Rule]) -> Said {
    let world = World::source().await;
    world.us.without(without).await;
    let app = world.us.app().await;
    app.must("INSERT INTO items VALUES(901, 10, 1)").await;
    assert_eq!(world.release(1).await, "changed");
    app.run(ITEM).await
}

#[tokio::test]
async fn n4_what_was_remembered_ends_with_its_transaction() {
    assert_eq!(the_next_transaction_writes(&[]).await, refused("MV001"));
}

#[tokio::test]
async fn n4_a_write_is_lost_when_it_is_remembered_for_the_session() {
    assert_eq!(the_next_transaction_writes(&[FORGET]).await, Ok(1));
}

/// N7: ways to write into user 1's rows. Each must be refused.
const WAYS: [&str; 16] = [
    "INSERT INTO orders VALUES(10, 1, 'x') ON CONFLICT(id) DO UPDATE SET note = 'x'",
    "INSERT INTO orders VALUES(10, 2, 'x') ON CONFLICT(id) DO UPDATE SET note = 'x'",
    "INSERT INTO orders VALUES(10, 1, 'x') ON CONFLICT DO NOTHING",
    "MERGE INTO orders o USING (VALUES(10, 1), (11, 1)) v(i, u) ON o.id = v.i WHEN MATCHED THEN UPDATE SET note = 'x'
       WHEN NOT MATCHED THEN INSERT VALUES(v.i, v.u, 'x')",
    "WITH a AS (UPDATE orders SET note = 'x' WHERE id = 20 RETURNING 1) UPDATE orders SET note = 'x' WHERE id = 10",
    "WITH a AS (UPDATE orders SET user_id = 2 WHERE id = 30 RETURNING 1) INSERT INTO items VALUES(901, 10, 1)",
    "UPDATE items i SET qty = 9 FROM orders o WHERE o.id = i.order_id",
    "UPDATE items SET order_id = 20 WHERE id = 100",
    "UPDATE items SET order_id = 10 WHERE id = 200",
    "UPDATE users SET id = 77 WHERE id = 1",
    "UPDATE users SET email = 'x' WHERE id = 1",
    "DELETE FROM comments WHERE id = 102",
    "DELETE FROM users WHERE id = 1",
    "DELETE FROM part_notes",
    "INSERT INTO users VALUES(1, 'again')",
    "SET session_replication_role = replica; INSERT INTO items VALUES(901, 10, 1)",
];

#[tokio::test]
async fn n7_every_way_to_write_is_refused() {
    for level in LEVELS {
        let world = World::source().await;
        let app = world.us.app().await;
        app.must(&format!(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}"
        ))
        .await;
        let prepared = app
            .client
            .prepare("UPDATE orders SET n = n + 1 WHERE id = $1")
            .await;
        let prepared = prepared.unwrap();
        for _ in 0..7 {
            app.client.execute(&prepared, &[&10_i64]).await.unwrap();
        }
        assert_eq!(world.release(1).await, "changed");
        let cached = app.client.execute(&prepared, &[&10_i64]).await.unwrap_err();
        assert_eq!(cached.code().unwrap().code(), "MV001", "{level}");
        for way in WAYS {
            let crossing = ["order_id = 20", "order_id = 10", "id = 77"];
            let code = if crossing.iter().any(|part| way.contains(part)) {
                "MV002"
            } else {
                "MV001"
            };
            assert_eq!(app.run(way).await, refused(code), "{level}: {way}");
            app.must("SET session_replication_role = origin").await;
        }
        let sink = app
            .client
            .copy_in::<_, &[u8]>("COPY items FROM STDIN")
            .await
            .unwrap();
        futures_util::pin_mut!(sink);
        futures_util::SinkExt::send(&mut sink, &b"901\t10\t1\n"[..])
            .await
            .unwrap();
        let copied = sink.finish().await.unwrap_err();
        assert_eq!(copied.code().unwrap().code(), "MV001", "{level}");
        assert!(world.us.is_frozen(1).await);
    }
}

#[tokio::test]
async fn n8_the_application_cannot_let_go_of_the_lock() {
    let world = World::source().await;
    let app = world.us.app().await;
    app.must("BEGIN; INSERT INTO items VALUES(901, 10, 1)")
        .await;
    app.must("SELECT pg_advisory_unlock_all(), pg_advisory_unlock_shared(7701, hashtext('1')), pg_advisory_unlock(7701, hashtext('1')); RESET ALL")
        .await;
    assert_eq!(world.release(1).await, "busy");
    app.must("INSERT INTO items VALUES(902, 10, 1); COMMIT")
        .await;
    assert_eq!(world.release(1).await, "changed");
}

/// Why preflight refuses an application with session locks in the class.
#[tokio::test]
async fn n8_a_session_lock_in_the_class_blocks_the_fence() {
    let world = World::source().await;
    let app = world.us.app().await;
    app.must("SELECT pg_advisory_lock_shared(7701, hashtext('1'))")
        .await;
    assert_eq!(world.release(1).await, "busy");
}

/// N9: an apply worker brings a row of a user who has moved.
#[tokio::test]
async fn n9_a_subscription_is_refused_and_stuck() {
    let world = World::source().await;
    assert_eq!(world.release(1).await, "changed");
    let publisher = EU.database("bare").await;
    let (there, here) = tokio::join!(publisher.admin(), world.us.admin());
    let name = publisher.name.clone();
    there
        .must("ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey; CREATE PUBLICATION pp FOR TABLE orders")
        .await;
    let text = |sql: String| sql;
    there
        .must(&text(format!(
            "SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"
        )))
        .await;
    here.must(&format!(
        "CREATE SUBSCRIPTION {name} CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={name}' PUBLICATION pp
         WITH (create_slot = false, slot_name = {name}, copy_data = false)",
        EU.port
    ))
    .await;
    there
        .must("INSERT INTO orders VALUES(71, 2, 'home user')")
        .await;
    there
        .must("INSERT INTO orders VALUES(72, 1, 'moved user')")
        .await;
    there
        .must("INSERT INTO orders VALUES(73, 2, 'home user, later')")
        .await;
    let failed = format!(
        "SELECT count(*) FROM pg_stat_subscription_stats WHERE subname = '{name}' AND apply_error_count > 0"
    );
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while here.number(&failed).await == 0 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "nothing was refused"
        );
    }
    let arrived = here
        .text("SELECT string_agg(id::text, ' ') FROM orders WHERE id > 70")
        .await;
    here.must(&format!("ALTER SUBSCRIPTION {name} DISABLE"))
        .await;
    here.must(&format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"))
        .await;
    here.must(&format!("DROP SUBSCRIPTION {name}")).await;
    let free = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}' AND NOT active"
    );
    while there.number(&free).await == 0 {}
    there
        .must(&format!("SELECT pg_drop_replication_slot('{name}')"))
        .await;
    assert_eq!(arrived.as_deref(), Some("71"));
    assert!(world.us.is_frozen(1).await);
}

/// N11: the list of changed rows is switched on while a writer is open. Rows changed since, and rows noted.
async fn watched(exclusive: bool, level: &str) -> (i64, i64) {
    let world = World::source().await;
    let (app, admin) = tokio::join!(world.us.app(), world.us.admin());
    app.must(&format!("BEGIN ISOLATION LEVEL {level}")).await;
    app.must(if level == "READ COMMITTED" {
        "UPDATE items SET qty = 5 WHERE id = 100"
    } else {
        "SELECT 1 FROM items"
    })
    .await;
    let on = format!(
        "BEGIN; {} UPDATE regionwise.route SET watch = true, rev = rev + 1 WHERE usr = '1'; COMMIT",
        if exclusive {
            "SELECT regionwise.lock_homes(ARRAY['1']);"
        } else {
            ""
        }
    );
    let switch = admin.start(&on);
    if switch.waits().await {
        app.must("COMMIT").await;
    }
    switch.end().await.unwrap();
    let before = world.us.digest(1).await;
    if app
        .run("UPDATE items SET qty = 6 WHERE id = 100")
        .await
        .is_ok()
    {
        drop(app.run("COMMIT").await);
    } else {
        app.must("ROLLBACK").await;
    }
    let changed = i64::from(world.us.digest(1).await != before);
    let noted = "SELECT count(*) FROM regionwise.dirty WHERE usr = '1' AND tab = 2 AND key::text[] = '{100}'";
    (changed, world.us.admin().await.number(noted).await)
}

#[tokio::test]
async fn n11_no_change_is_missed_when_the_list_of_changed_rows_is_switched_on() {
    for level in LEVELS {
        let (changed, noted) = watched(true, level).await;
        assert!(
            noted >= changed,
            "{level}: {changed} changed, {noted} noted"
        );
    }
}

#[tokio::test]
async fn n11_a_change_is_missed_when_the_switch_takes_no_lock() {
    let (changed, noted) = watched(false, "READ COMMITTED").await;
    assert!(noted < changed, "{changed} changed, {noted} noted");
}

/// N15: a second sign-up of the same user while the first is open.
async fn second_sign_up(without: &[Rule]) -> Said {
    let world = World::source().await;
    world.us.without(without).await;
    let (first, second) = tokio::join!(world.us.app(), world.us.app());
    let insert = "INSERT INTO users VALUES(50, 'new') ON CONFLICT DO NOTHING";
    first.must(&format!("BEGIN; {insert}")).await;
    let other = second.start(insert);
    assert!(other.waits().await);
    first.must("COMMIT").await;
    other.end().await
}

#[tokio::test]
async fn n15_of_two_sign_ups_one_does_nothing() {
    assert_eq!(second_sign_up(&[]).await, Ok(0));
}

#[tokio::test]
async fn n15_a_sign_up_fails_without_tolerance_for_the_other_ones_route() {
    assert_eq!(second_sign_up(&[SIGN_UP]).await, refused("23505"));
}

#[tokio::test]
async fn n15_a_sign_up_at_the_target_needs_its_route() {
    let world = World::new().await;
    let app = world.eu().app().await;
    let insert = "INSERT INTO users VALUES(60, 't')";
    assert_eq!(app.run(insert).await, refused("MV001"));
    app.must("BEGIN; SELECT regionwise.sign_up('60')").await;
    assert_eq!(app.run(insert).await, Ok(1));
    app.must("COMMIT").await;
}

/// Servers that are crashed, or whose lock table is filled: nobody else uses them.
static CRASHED: LazyLock<Server> = LazyLock::new(|| Server::start("crashed"));
static CROWDED: LazyLock<Server> = LazyLock::new(|| Server::start("crowded"));

/// N5: a prepared transaction, over a crash.
#[tokio::test]
async fn n5_a_prepared_transaction_keeps_its_lock_over_a_crash() {
    prepare(&CRASHED, "us", true).await;
    for (without, expected) in [(&[][..], "busy"), (&[WRITER_LOCK][..], "changed")] {
        let database = CRASHED.database("shop").await;
        database.without(without).await;
        let app = database.app().await;
        let name = &database.name;
        app.must("BEGIN; INSERT INTO items VALUES(901, 10, 1)")
            .await;
        app.must(&format!("PREPARE TRANSACTION '{name}'")).await;
        if without.is_empty() {
            assert_eq!(release(&database, 1).await, "busy");
        }
        CRASHED.crash();
        assert_eq!(release(&database, 1).await, expected);
        let admin = database.admin().await;
        admin.must(&format!("COMMIT PREPARED '{name}'")).await;
        if without.is_empty() {
            assert_eq!(release(&database, 1).await, "changed");
        }
        assert_eq!(database.is_frozen(1).await, without.is_empty());
    }
}

async fn crowd(without: &[Rule]) -> (Database, Session) {
    let database = CROWDED.database("shop").await;
    let admin = database.admin().await;
    admin
        .must("INSERT INTO users SELECT g, 'x' || g FROM generate_series(1000, 40999) g")
        .await;
    admin
        .must("INSERT INTO orders SELECT g, g, 'o' FROM generate_series(1000, 40999) g; ANALYZE")
        .await;
    database.without(without).await;
    let app = database.app().await;
    (database, app)
}

/// N2: one statement over all users, five jobs of 5,000, and what others can do meanwhile.
#[tokio::test]
async fn n2_transactions_over_very_many_users_leave_the_lock_table_to_others() {
    prepare(&CROWDED, "us", true).await;
    let (database, app) = crowd(&[]).await;
    app.must("BEGIN").await;
    assert_eq!(app.run("UPDATE orders SET n = n + 1").await, Ok(40_003));
    let other = database.app().await;
    assert_eq!(
        other.run("INSERT INTO items VALUES(77, 10, 1)").await,
        Ok(1)
    );
    assert_eq!(release(&database, 2).await, "busy");
    app.must("COMMIT").await;
    assert_eq!(release(&database, 2).await, "changed");
    let mut jobs = Vec::new();
    for number in 0..5 {
        let job = database.app().await;
        let first = 1000 + number * 5000;
        let update = format!(
            "BEGIN; UPDATE orders SET n = n + 1 WHERE id BETWEEN {first} AND {}",
            first + 4999
        );
        assert_eq!(job.run(&update).await, Ok(5000));
        jobs.push(job);
    }
    assert_eq!(
        other.run("INSERT INTO items VALUES(78, 10, 1)").await,
        Ok(1)
    );
    drop(jobs);
    drop(database);
    let (_database, app) = crowd(&[GATE]).await;
    assert_eq!(
        app.run("UPDATE orders SET n = n + 1").await,
        refused("53200")
    );
}
