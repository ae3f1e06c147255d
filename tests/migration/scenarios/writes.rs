//! What the product writes while its users move: before, during and after.

use crate::scenarios::{all_at_once, shop};
use crate::session::refused;
use crate::world::{World, eventually};

/// Rows are copied and not yet committed at the target; then this is written at the source.
async fn written_after_the_copy(sql: &str) -> World {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("copied").start();
    assert!(call.is_held().await);
    let shopper = world.us.shopper().await;
    shopper.must(sql).await;
    call.release();
    let finished = call.finish().await.expect(0);
    assert!(
        finished.json["result"]["came_again"].as_u64() > Some(0),
        "{}",
        finished.said
    );
    world.all_moved_equal().await;
    world
}

impl World {
    /// One number from the target.
    async fn arrived(&self, sql: &str) -> i64 {
        self.eu.admin().await.number(sql).await
    }
}

#[tokio::test]
async fn s01_an_update_during_the_copy_arrives() {
    let world = written_after_the_copy("UPDATE orders SET note = 'new' WHERE id = 11").await;
    let sql = "SELECT count(*) FROM orders WHERE id = 11 AND note = 'new'";
    assert_eq!(world.arrived(sql).await, 1);
}

#[tokio::test]
async fn s02_a_child_inserted_during_the_copy_arrives() {
    let world = written_after_the_copy("INSERT INTO orders VALUES (19, 1, 9, 'new')").await;
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM orders WHERE user_id = 1")
            .await,
        3
    );
}

#[tokio::test]
async fn s03_a_grandchild_inserted_during_the_copy_arrives() {
    let sql = "INSERT INTO items VALUES (119, 11, 9); INSERT INTO parts VALUES (11, 9, 'new')";
    let world = written_after_the_copy(sql).await;
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM items WHERE order_id = 11")
            .await,
        3
    );
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM parts WHERE order_id = 11")
            .await,
        2
    );
}

#[tokio::test]
async fn s04_a_child_deleted_during_the_copy_vanishes_at_the_target() {
    let sql = "DELETE FROM items WHERE id = 121; DELETE FROM orders WHERE id = 11";
    let world = written_after_the_copy(sql).await;
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM orders WHERE user_id = 1")
            .await,
        1
    );
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM items WHERE id / 100 = 1")
            .await,
        1
    );
}

#[tokio::test]
async fn s05_a_key_deleted_and_given_again_is_the_new_row() {
    let sql = "DELETE FROM items WHERE id = 111; INSERT INTO items VALUES (111, 12, 77)";
    let world = written_after_the_copy(sql).await;
    assert_eq!(
        world
            .arrived("SELECT order_id * 100 + qty FROM items WHERE id = 111")
            .await,
        1277
    );
}

#[tokio::test]
async fn s06_a_child_whose_key_changes_is_there_once() {
    let sql =
        "UPDATE labels SET id = 1001 WHERE id = 1; UPDATE events SET k = 1 - k WHERE user_id = 3";
    let world = written_after_the_copy(sql).await;
    assert_eq!(
        world
            .arrived("SELECT id FROM labels WHERE user_id = 1")
            .await,
        1001
    );
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM events WHERE user_id = 3")
            .await,
        2
    );
}

#[tokio::test]
async fn s07_a_child_given_to_another_user_goes_where_that_one_goes() {
    // To one who moves, and to one who stays.
    let sql =
        "UPDATE orders SET user_id = 3 WHERE id = 11; UPDATE orders SET user_id = 2 WHERE id = 41";
    let world = written_after_the_copy(sql).await;
    assert_eq!(
        world
            .arrived("SELECT user_id FROM orders WHERE id = 11")
            .await,
        3
    );
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM orders WHERE id = 41")
            .await,
        0
    );
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM items WHERE order_id = 41")
            .await,
        0
    );
    let us = world.us.shopper().await;
    assert_eq!(
        us.run("UPDATE orders SET note = 'mine' WHERE id = 41")
            .await,
        Ok(1)
    );
}

#[tokio::test]
async fn s08_a_writer_that_waits_at_the_fence_retries_at_the_target_and_counts_once() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    // Whoever holds the row of the batch lets the mover wait with the home locks in its hands.
    let (holder, admin) = (world.us.admin().await, world.us.admin().await);
    holder
        .must("BEGIN; SELECT FROM regionwise.batch FOR UPDATE")
        .await;
    call.release();
    let mover_waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'carrier' AND datname = current_database() \
         AND {} = ANY (pg_blocking_pids(pid))",
        holder.pid
    );
    let writer = world.us.shopper().await;
    let count = "UPDATE users SET counter = counter + 1 WHERE id = 1";
    let mut counted = 0;
    let said = loop {
        eventually("the mover waits", async || {
            match admin.number(&mover_waits).await {
                0 => Err("it does not".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        let writing = writer.start(count);
        if writing.waits().await && admin.number(&mover_waits).await > 0 {
            holder.must("COMMIT").await;
            match writing.end().await {
                Ok(rows) => {
                    counted += rows;
                    holder
                        .must("BEGIN; SELECT FROM regionwise.batch FOR UPDATE")
                        .await;
                }
                refused => break refused,
            }
        } else {
            // The mover gave way.
            counted += writing.end().await.unwrap();
        }
    };
    assert_eq!(said, refused("MV001"));
    call.finish().await.expect(0);
    assert_eq!(world.eu.shopper().await.run(count).await, Ok(1));
    let sql = "SELECT counter FROM users WHERE id = 1";
    assert_eq!(
        world.arrived(sql).await,
        i64::try_from(counted).unwrap() + 1
    );
}

async fn old_snapshot(level: &str) {
    let (world, plan) = shop().await;
    let old = world.us.shopper().await;
    let begin = format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM users");
    old.must(&begin).await;
    all_at_once(&world, &plan).finish().await.expect(0);
    let write = "UPDATE users SET counter = counter + 1 WHERE id = 1";
    assert_eq!(old.run(write).await, refused("40001"));
    old.must("ROLLBACK").await;
    // With a new snapshot it is told where the user lives.
    old.must(&begin).await;
    assert_eq!(old.run(write).await, refused("MV001"));
    old.must("ROLLBACK").await;
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s09_a_repeatable_read_writer_with_an_old_snapshot_gets_40001() {
    old_snapshot("REPEATABLE READ").await;
}

#[tokio::test]
async fn s10_a_serializable_writer_with_an_old_snapshot_gets_40001() {
    old_snapshot("SERIALIZABLE").await;
}

#[tokio::test]
async fn s11_a_long_transaction_defers_its_user_and_nobody_else() {
    let (world, plan) = shop().await;
    let slow = world.us.shopper().await;
    slow.must("BEGIN; UPDATE users SET counter = counter + 1 WHERE id = 1")
        .await;
    let call = all_at_once(&world, &plan).start();
    let others = "SELECT count(*)::text FROM regionwise.route WHERE state = 'active'";
    let eu = world.eu.admin().await;
    eventually("the others have moved", async || {
        match eu.text(others).await {
            Some(count) if count == "8" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // Its own user can still write, and so can others of the same user.
    assert_eq!(
        slow.run("UPDATE orders SET note = 'late' WHERE id = 11")
            .await,
        Ok(1)
    );
    assert_eq!(
        world
            .us
            .shopper()
            .await
            .run("UPDATE orders SET note = 'too' WHERE id = 12")
            .await,
        Ok(1)
    );
    slow.must("COMMIT").await;
    let finished = call.finish().await.expect(0);
    let longest = finished.json["result"]["stall_us"]["max"].as_u64().unwrap();
    assert!(
        longest < 2_000_000,
        "the wait was made under the fence: {}",
        finished.said
    );
    world.all_moved_equal().await;
    let sql = "SELECT count(*) FROM orders WHERE note IN ('late', 'too')";
    assert_eq!(world.arrived(sql).await, 2);
}

#[tokio::test]
async fn s12_a_writer_in_replica_role_is_refused_like_any_other() {
    let (world, plan) = shop().await;
    all_at_once(&world, &plan).finish().await.expect(0);
    let admin = world.us.admin().await;
    admin.must("SET session_replication_role = replica").await;
    for write in [
        "UPDATE orders SET note = 'x' WHERE id = 11",
        "DELETE FROM items WHERE id = 111",
        "INSERT INTO parts VALUES (11, 8, 'x')",
    ] {
        assert_eq!(admin.run(write).await, refused("MV001"), "{write}");
    }
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s13_truncate_is_refused_before_during_and_after() {
    let (world, plan) = shop().await;
    let truncate = "TRUNCATE orders CASCADE";
    let (us, eu) = (world.us.admin().await, world.eu.admin().await);
    assert_eq!(us.run(truncate).await, refused("MV002"));
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    for table in ["orders CASCADE", "items", "events_0", "users CASCADE"] {
        let truncate = format!("TRUNCATE {table}");
        assert_eq!(us.run(&truncate).await, refused("MV002"), "{table}");
        assert_eq!(eu.run(&truncate).await, refused("MV002"), "{table}");
    }
    call.release();
    call.finish().await.expect(0);
    assert_eq!(us.run(truncate).await, refused("MV002"));
    assert_eq!(eu.run(truncate).await, refused("MV002"));
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s14_a_transaction_over_two_homes_is_refused_as_one() {
    let (world, plan) = shop().await;
    all_at_once(&world, &plan).finish().await.expect(0);
    for (database, at_home, away) in [(&world.us, 2, 1), (&world.eu, 1, 2)] {
        let both = database.shopper().await;
        both.must(&format!(
            "BEGIN; UPDATE users SET balance = balance - 5 WHERE id = {at_home}"
        ))
        .await;
        let credit = format!("UPDATE users SET balance = balance + 5 WHERE id = {away}");
        match both.run(&credit).await {
            // The row is there: refused. It is not: the product sees that it met nobody.
            Err(code) => assert_eq!(code, "MV001"),
            Ok(rows) => assert_eq!(rows, 0),
        }
        both.must("ROLLBACK").await;
    }
    let total = "SELECT sum(balance)::bigint FROM users";
    assert_eq!(world.us.admin().await.number(total).await, 12_000);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s16_a_prepared_transaction_is_waited_for() {
    let (world, plan) = shop().await;
    let shopper = world.us.shopper().await;
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    shopper
        .must("BEGIN; UPDATE orders SET note = 'prepared' WHERE id = 11; PREPARE TRANSACTION 's16'")
        .await;
    call.release();
    let eu = world.eu.admin().await;
    eventually("the others have moved", async || {
        let sql = "SELECT count(*)::text FROM regionwise.route WHERE state = 'active'";
        match eu.text(sql).await {
            Some(count) if count == "8" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // Not begun while one is there, and its name is told.
    let refused = world.tool(&["plan"]).finish().await.expect(12);
    assert!(refused.said.contains("s16"), "{}", refused.said);
    shopper.must("COMMIT PREPARED 's16'").await;
    call.finish().await.expect(0);
    world.all_moved_equal().await;
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM orders WHERE note = 'prepared'")
            .await,
        1
    );
}

#[tokio::test]
async fn s62_a_long_transaction_of_somebody_else_makes_no_stall_longer() {
    let (world, plan) = shop().await;
    let admin = world.us.admin().await;
    admin
        .must("CREATE TABLE elsewhere (id int); INSERT INTO elsewhere VALUES (1)")
        .await;
    let (reader, writer) = (world.us.admin().await, world.us.admin().await);
    reader
        .must("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM orders")
        .await;
    writer
        .must("BEGIN; UPDATE elsewhere SET id = 2; UPDATE users SET counter = 1 WHERE id = 2")
        .await;
    let finished = all_at_once(&world, &plan).finish().await.expect(0);
    let longest = finished.json["result"]["stall_us"]["max"].as_u64().unwrap();
    assert!(longest < 2_000_000, "{}", finished.said);
    writer.must("COMMIT").await;
    world.all_moved_equal().await;
}

#[tokio::test]
async fn s67_writes_to_every_partition_during_the_move_arrive() {
    let sql = "INSERT INTO events VALUES (901, 1, 0, 'x'), (902, 1, 1, 'x'); INSERT INTO events_0 VALUES (903, 3, 0, 'x'); \
               UPDATE events_1 SET what = 'y' WHERE user_id = 4; DELETE FROM events_0 WHERE user_id = 5";
    let world = written_after_the_copy(sql).await;
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM events WHERE what = 'x'")
            .await,
        3
    );
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM events_1 WHERE what = 'y'")
            .await,
        1
    );
    assert_eq!(
        world
            .arrived("SELECT count(*) FROM events_0 WHERE user_id = 5")
            .await,
        0
    );
    let us = world.us.shopper().await;
    for (partition, k) in [
        ("events", 0),
        ("events", 1),
        ("events_0", 0),
        ("events_1", 1),
    ] {
        let insert = format!("INSERT INTO {partition} VALUES (99, 1, {k}, 'late')");
        assert_eq!(us.run(&insert).await, refused("MV001"), "{partition}");
    }
}

#[tokio::test]
async fn s76_a_session_from_before_the_move_and_a_revocation_is_stopped_by_the_fence() {
    let (world, plan) = shop().await;
    let pooled = world.us.shopper().await;
    let write = "UPDATE orders SET note = 'pooled' WHERE id = 11";
    // Its plan is kept, as poolers keep them.
    let kept = pooled.client.prepare(write).await.unwrap();
    assert_eq!(pooled.client.execute(&kept, &[]).await.unwrap(), 1);
    all_at_once(&world, &plan).finish().await.expect(0);
    let admin = world.us.admin().await;
    let name = &world.us.name;
    admin
        .must(&format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"))
        .await;
    let error = pooled.client.execute(&kept, &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "MV001");
    assert_eq!(pooled.run(write).await, refused("MV001"));
    world.all_moved_equal().await;
}
