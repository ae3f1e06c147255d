//! Attacks by movers: woken late, stopped, killed between the commit point and the activation, without a claim; and
//! what a fence costs those who wait for it.

use std::time::{Duration, Instant};

use regionwise_relocation::sql::select;

use crate::session::{Said, refused};
use crate::shop::{Change, World, enter};
use crate::stopped::Stopped;
use crate::weaken::{CLAIM, DIGEST, LOCAL_COMMIT, MOVER_LOCK, Rule};

/// A2: a mover with an open transaction at the target is overtaken, the user becomes active, the old mover commits.
/// Whether the target's rows are then the source's.
async fn late_commit(without: &[Rule]) -> bool {
    let world = World::new().await;
    world.eu().without(without).await;
    world.arrive(1).await;
    let late = world.eu().mover().await;
    late.must("BEGIN").await;
    enter(&late, 1, 1, "staging").await.unwrap();
    late.must("INSERT INTO public.orders VALUES(11, 1, 'deleted at the source meanwhile')")
        .await;
    let next = world.eu().mover().await;
    let raise = || {
        Change::of(1)
            .from("staging", 0, 1)
            .to("staging", 0, 2)
            .wait()
    };
    let raised = raise().apply(&next).await;
    assert_eq!(world.release(1).await, "changed");
    let released = world.us.released(1).await;
    let activate = |token| {
        let digest = released.clone();
        Change::of(1)
            .from("staging", 0, token)
            .to("active", 1, token)
            .digest(digest)
    };
    if raised == "changed" {
        assert_eq!(activate(2).apply(&next).await, "changed");
    } else {
        assert_eq!(raised, "busy");
        assert_eq!(activate(1).apply(&next).await, "busy");
    }
    late.must("COMMIT").await;
    late.must("BEGIN").await;
    assert_eq!(
        enter(&late, 1, 1, "staging").await.is_err(),
        raised == "changed",
        "from its next transaction on"
    );
    late.must("ROLLBACK").await;
    if raised != "changed" {
        assert_eq!(raise().apply(&next).await, "changed");
        assert_eq!(enter(&late, 1, 1, "staging").await, refused("MV003"));
        assert_eq!(activate(2).apply(&next).await, "differs");
        next.must("BEGIN").await;
        enter(&next, 1, 2, "staging").await.unwrap();
        next.must("DELETE FROM public.orders WHERE id = 11; COMMIT")
            .await;
        assert_eq!(activate(2).apply(&next).await, "changed");
    }
    assert_eq!(world.eu().route(1).await.as_deref(), Some("active 1"));
    world.eu().digest(1).await == released
}

#[tokio::test]
async fn a2_a_mover_that_wakes_late_is_waited_for() {
    assert!(late_commit(&[]).await);
}

#[tokio::test]
async fn a2_a_deleted_row_comes_back_without_the_movers_home_locks() {
    assert!(!late_commit(&[MOVER_LOCK]).await);
}

#[tokio::test]
async fn a_mover_writes_only_where_it_has_entered_and_only_what_it_may() {
    let world = World::new().await;
    assert_eq!(world.stage(1, 1).await, "changed");
    let mover = world.eu().mover().await;
    let insert = "INSERT INTO public.users VALUES(1, 'e1')";
    assert_eq!(mover.run(insert).await, refused("MV003"));
    assert_eq!(enter(&mover, 1, 2, "staging").await, refused("MV003"));
    assert_eq!(enter(&mover, 1, 1, "moved").await, refused("MV003"));
    assert_eq!(enter(&mover, 2, 1, "staging").await, refused("MV003"));
    // What was entered ends with its transaction.
    mover.must("BEGIN").await;
    enter(&mover, 1, 1, "staging").await.unwrap();
    assert_eq!(mover.run(insert).await, Ok(1));
    mover.must("ROLLBACK").await;
    assert_eq!(mover.run(insert).await, refused("MV003"));
    mover.must("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert_eq!(enter(&mover, 1, 1, "staging").await, refused("MV003"));
    mover.must("ROLLBACK; RESET ROLE").await;
    assert_eq!(
        mover
            .run("SELECT regionwise.digests('none', ARRAY['1'])")
            .await,
        refused("MV005")
    );
    mover.must("SET ROLE NONE").await;
    assert!(
        mover.run(insert).await.is_err(),
        "its own login is no mover"
    );
    // At the source: rows of a moved user are deleted, never written.
    assert_eq!(world.release(1).await, "changed");
    let mover = world.us.mover().await;
    mover.must("BEGIN").await;
    enter(&mover, 1, 1, "moved").await.unwrap();
    mover.must("SAVEPOINT s").await;
    let update = "UPDATE public.orders SET note = 'x' WHERE id = 10";
    assert_eq!(mover.run(update).await, refused("MV003"));
    mover.must("ROLLBACK TO s").await;
    assert_eq!(
        mover.run("DELETE FROM public.items WHERE id = 100").await,
        Ok(1)
    );
    mover.must("ROLLBACK").await;
}

#[tokio::test]
async fn a_change_says_what_became_of_it() {
    let world = World::source().await;
    let mover = world.us.mover().await;
    let digest = world.us.digest(1).await;
    let release = || Change::of(1).from("home", 0, None).to("moved", 1, 7);
    let wrong = release().digest(vec![0; 32]).apply(&mover).await;
    assert_eq!(wrong, "differs");
    assert_eq!(world.us.route(1).await.as_deref(), Some("home 0"));
    let writer = world.us.app().await;
    writer
        .must("BEGIN; UPDATE orders SET n = 1 WHERE id = 10")
        .await;
    assert_eq!(release().digest(digest.clone()).apply(&mover).await, "busy");
    assert_eq!(
        release().digest(digest.clone()).wait().apply(&mover).await,
        "busy"
    );
    writer.must("ROLLBACK").await;
    assert_eq!(
        release().digest(digest.clone()).apply(&mover).await,
        "changed"
    );
    assert_eq!(release().digest(digest.clone()).apply(&mover).await, "done");
    let other = Change::of(1).from("home", 0, None).to("moved", 1, 8);
    assert_eq!(other.digest(digest).apply(&mover).await, "stale");
    let unknown = Change::of(99).from("home", 0, None).to("moved", 1, 7);
    assert_eq!(unknown.apply(&mover).await, "stale");
    let rows = "SELECT rows FROM regionwise.route WHERE usr = '1'";
    assert_eq!(world.us.admin().await.number(rows).await, 10);
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(world.us.admin().await.number(held).await, 0);
}

#[tokio::test]
async fn a_change_sees_what_the_last_writer_committed() {
    let world = World::source().await;
    let mover = world.us.mover().await;
    mover.must("SET lock_timeout = '10s'").await;
    let digest = world.us.digest(1).await;
    let writer = world.us.app().await;
    writer
        .must("BEGIN; UPDATE orders SET n = 1 WHERE id = 10")
        .await;
    let waiting = tokio::spawn({
        let mover = mover.clone();
        async move {
            let change = Change::of(1).from("home", 0, None).to("moved", 1, 7);
            change.digest(digest).wait().apply(&mover).await
        }
    });
    let admin = world.us.admin().await;
    let waits = format!(
        "SELECT count(*) FROM unnest(pg_blocking_pids({})) p",
        mover.pid
    );
    while admin.number(&waits).await == 0 {}
    writer.must("COMMIT").await;
    assert_eq!(waiting.await.unwrap(), "differs");
}

#[tokio::test]
async fn a_mover_without_its_claim_changes_nothing() {
    for (without, outcome) in [(&[][..], "MV003"), (&[CLAIM][..], "changed")] {
        let world = World::source().await;
        world.us.without(without).await;
        let admin = world.us.admin().await;
        admin
            .must("INSERT INTO regionwise.batch (run, batch, state, holder, token) VALUES ('r', 1, 'open', 'somebody else', 8)")
            .await;
        let mover = world.us.mover().await;
        let change = Change::of(1).from("home", 0, None).to("moved", 1, 7);
        assert_eq!(change.claim(1, 7).apply(&mover).await, outcome);
        let change = Change::of(2).from("home", 0, None).to("moved", 1, 8);
        assert_eq!(change.claim(1, 8).apply(&mover).await, "changed");
    }
}

#[tokio::test]
async fn corrupt_rows_activate_only_without_the_digest() {
    for (without, outcome) in [(&[][..], "differs"), (&[DIGEST][..], "changed")] {
        let world = World::new().await;
        world.eu().without(without).await;
        world.arrive(1).await;
        assert_eq!(world.release(1).await, "changed");
        let rot = world.eu().admin().await;
        rot.must("ALTER TABLE orders DISABLE TRIGGER USER; UPDATE orders SET note = 'O' WHERE id = 10; ALTER TABLE orders ENABLE TRIGGER USER")
            .await;
        assert_eq!(world.activate(1).await, outcome);
    }
}

/// A3: the client that called is stopped, and never reads the answer. The call is one transaction of the server, so
/// nothing waits for the client.
#[tokio::test]
async fn a3_a_mover_stopped_in_a_call_holds_nothing() {
    let world = World::source().await;
    let digest = world.us.digest(1).await;
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let call = format!(
        "SELECT regionwise.change('r', ARRAY['1'], ARRAY['home'], ARRAY[0::bigint], NULL, ARRAY['moved'], ARRAY[1::bigint], \
         ARRAY[1::bigint], ARRAY['\\x{hex}'::bytea], NULL, true, NULL, NULL), repeat('x', 50000000)"
    );
    let stopped = Stopped::sends(&world.us, &call);
    let admin = world.us.admin().await;
    let state = "SELECT state FROM regionwise.route WHERE usr = '1'";
    // The answer is greater than any socket's buffer, so the server may be stuck in sending it, with its locks.
    let writer = world.us.app().await;
    writer.must("SET statement_timeout = '9s'").await;
    let began = Instant::now();
    let write = writer
        .run("UPDATE orders SET note = 'x' WHERE id = 10")
        .await;
    let took = began.elapsed();
    assert!(took < Duration::from_millis(5600), "{took:?}");
    let released = admin.text(state).await.as_deref() == Some("moved");
    assert_eq!(write, if released { refused("MV001") } else { Ok(1) });
    drop(stopped);
    // As it is really called: the answer fits, and it is over at once.
    let call = call
        .replace(", repeat('x', 50000000)", "")
        .replace("'1'", "'2'");
    let digest = world.us.digest(2).await;
    let other: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let stopped = Stopped::sends(&world.us, &call.replace(&hex, &other));
    let state = "SELECT state FROM regionwise.route WHERE usr = '2'";
    while admin.text(state).await.as_deref() != Some("moved") {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    let held = format!("SELECT count(*) FROM pg_locks WHERE pid = {}", stopped.pid);
    while admin.number(&held).await > 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    drop(stopped);
}

#[tokio::test]
async fn a3_busy_users_do_not_hold_up_the_others() {
    let world = World::source().await;
    let admin = world.us.admin().await;
    admin
        .must("INSERT INTO users SELECT g, 'x' || g FROM generate_series(100, 139) g; INSERT INTO orders SELECT g, g, 'o' FROM generate_series(100, 139) g")
        .await;
    let mut open = Vec::new();
    for user in (100..140).step_by(2) {
        let writer = world.us.app().await;
        writer
            .must(&format!("BEGIN; UPDATE orders SET n = 1 WHERE id = {user}"))
            .await;
        open.push(writer);
    }
    let mover = world.us.mover().await;
    let call = |wait: bool| {
        format!(
            "SELECT count(*) FILTER (WHERE outcome = 'changed') || ' ' || count(*) FILTER (WHERE outcome = 'busy') || ' ' || (max(held_us) < 400000)
             FROM regionwise.change('r', ARRAY(SELECT g::text FROM generate_series(100, 139) g), array_fill('home'::text, ARRAY[40]),
               array_fill(0::bigint, ARRAY[40]), NULL, array_fill('moved'::text, ARRAY[40]), array_fill(1::bigint, ARRAY[40]),
               array_fill(1::bigint, ARRAY[40]), NULL, NULL, {wait}, NULL, NULL)"
        )
    };
    // In a transaction of its own that is taken back: only what it had is of interest.
    mover.must("BEGIN").await;
    assert_eq!(
        mover.text(&call(false)).await.as_deref(),
        Some("20 20 true")
    );
    mover.must("ROLLBACK").await;
    // Waiting, the one patience is for all of them, and not for each.
    assert_eq!(mover.text(&call(true)).await.as_deref(), Some("20 20 true"));
    drop(open);
}

#[tokio::test]
async fn a3_a_hot_user_is_fenced_between_overlapping_writers() {
    let world = World::source().await;
    let mut writers = Vec::new();
    for number in 0..4_i64 {
        let writer = world.us.app().await;
        writers.push(tokio::spawn(async move {
            for round in 0..200_i64 {
                let id = 10_000 + number * 1000 + round;
                writer.must("BEGIN").await;
                let said = writer
                    .run(&format!("INSERT INTO items VALUES({id}, 10, 1)"))
                    .await;
                said?;
                tokio::time::sleep(Duration::from_millis(60)).await;
                writer.must("COMMIT").await;
            }
            Ok(0)
        }));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let admin = world.us.admin().await;
    while admin.number("SELECT count(*) FROM items").await < 10 {}
    let mover = world.us.mover().await;
    let began = Instant::now();
    let change = Change::of(1).from("home", 0, None).to("moved", 1, 1);
    assert_eq!(change.wait().apply(&mover).await, "changed");
    assert!(began.elapsed() < Duration::from_secs(1));
    for writer in writers {
        assert_eq!(writer.await.unwrap(), refused("MV001"));
    }
}

/// The commit point while the synchronous standby is gone: how long a writer waits for his answer.
async fn writer_beside_a_dead_standby(without: &[Rule]) -> Said {
    let world = World::source().await;
    world.us.without(without).await;
    let mover = world.us.mover().await;
    mover.must("SET synchronous_commit = remote_apply").await;
    let release = tokio::spawn({
        let mover = mover.clone();
        async move {
            let change = Change::of(1).from("home", 0, None).to("moved", 1, 1);
            change.apply(&mover).await
        }
    });
    let admin = world.us.admin().await;
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND (wait_event = 'SyncRep' OR state = 'idle')",
        mover.pid
    );
    while admin.number(&waits).await == 0 || !without.is_empty() && release.is_finished() {}
    if without.is_empty() {
        assert_eq!(release.await.unwrap(), "changed");
    }
    let writer = world.us.app().await;
    writer.must("SET statement_timeout = '1s'").await;
    let said = writer
        .run("UPDATE orders SET note = 'x' WHERE id = 10")
        .await;
    admin
        .must(&format!("SELECT pg_cancel_backend({})", mover.pid))
        .await;
    said
}

#[tokio::test]
async fn a3_the_commit_point_does_not_wait_for_a_dead_standby() {
    assert_eq!(writer_beside_a_dead_standby(&[]).await, refused("MV001"));
}

#[tokio::test]
async fn a3_writers_wait_for_a_dead_standby_without_the_local_commit() {
    assert_eq!(
        writer_beside_a_dead_standby(&[LOCAL_COMMIT]).await,
        refused("57014")
    );
}

/// A6: the purge against an open insert that refers to a row of the moved user. Dangling references afterwards.
async fn dangling_after_purge(check_first: bool) -> i64 {
    let world = World::source().await;
    assert_eq!(world.release(1).await, "changed");
    let (writer, mover) = tokio::join!(world.us.app(), world.us.mover());
    writer
        .must("BEGIN; INSERT INTO gifts VALUES(901, 2, 10)")
        .await;
    mover.must("SET lock_timeout = 0; BEGIN").await;
    enter(&mover, 1, 1, "moved").await.unwrap();
    for number in (2..8).rev() {
        let delete = select::delete(world.closure, number, &["1"]);
        assert!(mover.must(&delete).await > 0, "table {number}");
    }
    let dangling = "SELECT count(*) FROM public.gifts g WHERE g.order_id = 10 AND g.user_id <> 1";
    let before = mover.number(dangling).await;
    let delete = mover.start(&select::delete(world.closure, 1, &["1"]));
    assert!(delete.waits().await);
    writer.must("COMMIT").await;
    assert_eq!(delete.end().await, Ok(1));
    let found = if check_first {
        before
    } else {
        mover.number(dangling).await
    };
    mover
        .must(if found > 0 { "ROLLBACK" } else { "COMMIT" })
        .await;
    let left = "SELECT count(*) FROM gifts g WHERE order_id IS NOT NULL AND NOT EXISTS (SELECT FROM orders o WHERE o.id = g.order_id)";
    world.us.admin().await.number(left).await
}

#[tokio::test]
async fn a6_a_purge_looks_for_dangling_references_after_it_deleted() {
    assert_eq!(dangling_after_purge(false).await, 0);
}

#[tokio::test]
async fn a6_a_reference_dangles_when_the_purge_looks_first() {
    assert_eq!(dangling_after_purge(true).await, 1);
}

#[tokio::test]
async fn a6_a_child_of_a_moved_parent_is_refused() {
    let world = World::source().await;
    assert_eq!(world.release(1).await, "changed");
    let app = world.us.app().await;
    let insert = "INSERT INTO items VALUES(902, 10, 1)";
    assert_eq!(app.run(insert).await, refused("MV001"));
}

/// A9: the mover is gone after the commit point. Both sides refuse; whoever takes over finishes, or takes it back.
#[tokio::test]
async fn a9_another_mover_finishes_what_a_killed_one_left() {
    let world = World::new().await;
    world.arrive(1).await;
    assert_eq!(world.release(1).await, "changed");
    let write = "UPDATE orders SET note = 'after' WHERE id = 10";
    let (us, eu) = tokio::join!(world.us.app(), world.eu().app());
    assert_eq!(us.run(write).await, refused("MV001"));
    assert_eq!(eu.run(write).await, refused("MV001"));
    let next = world.eu().mover().await;
    let raise = Change::of(1).from("staging", 0, 1).to("staging", 0, 2);
    assert_eq!(raise.wait().apply(&next).await, "changed");
    assert_eq!(
        world.activate(1).await,
        "stale",
        "the killed one, awake again"
    );
    let digest = world.us.released(1).await;
    let activate = Change::of(1).from("staging", 0, 2).to("active", 1, 2);
    assert_eq!(activate.digest(digest).apply(&next).await, "changed");
    assert_eq!(us.run(write).await, refused("MV001"));
    assert_eq!(eu.run(write).await, Ok(1));
}

#[tokio::test]
async fn a9_what_cannot_be_repaired_goes_back_home() {
    let world = World::new().await;
    world.arrive(1).await;
    assert_eq!(world.release(1).await, "changed");
    let (source, target) = tokio::join!(world.us.mover(), world.eu().mover());
    target.must("BEGIN").await;
    enter(&target, 1, 1, "staging").await.unwrap();
    target
        .must("INSERT INTO public.orders VALUES(66, 1, 'rot'); COMMIT")
        .await;
    assert_eq!(world.activate(1).await, "differs");
    let cancel = Change::of(1).from("staging", 0, 1).to("cancelled", 1, 1);
    assert_eq!(cancel.wait().apply(&target).await, "changed");
    let reopen = Change::of(1).from("moved", 1, 1).to("home", 2, 1);
    assert_eq!(reopen.wait().apply(&source).await, "changed");
    let write = "UPDATE orders SET note = 'after' WHERE id = 10";
    assert_eq!(world.us.app().await.run(write).await, Ok(1));
    assert_eq!(world.eu().app().await.run(write).await, refused("MV001"));
    assert_eq!(
        world.activate(1).await,
        "stale",
        "cancelled stays cancelled"
    );
}

#[tokio::test]
async fn the_application_cannot_change_routes() {
    let world = World::source().await;
    let app = world.us.app().await;
    for forbidden in [
        "UPDATE regionwise.route SET state = 'home'",
        "SELECT regionwise.lock_homes(ARRAY['1'])",
        "SELECT regionwise.enter('r', 1, ARRAY['1'], 'moved')",
        "SELECT regionwise.salt('r')",
        "SELECT salt FROM regionwise.run",
        "SELECT digest FROM regionwise.route",
    ] {
        assert_eq!(app.run(forbidden).await, refused("42501"), "{forbidden}");
    }
    let may =
        "SELECT state, epoch FROM regionwise.route WHERE usr = '1' AND regionwise.is_home('1')";
    assert_eq!(app.run(may).await, Ok(1));
}
