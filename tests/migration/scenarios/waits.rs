//! Locks that somebody keeps, and servers that take long: the mover gives way and comes again, and keeps no writer for long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::link::Link;
use crate::scenarios::{all_at_once, shop};
use crate::session::{Session, refused};
use crate::verify::PAST_THE_FENCE;
use crate::world::{Finished, PATIENCE, Running, Servers, USERS, WIDE, World};

/// Statements of the mover that began to wait for `holder`, without those that keep its claims alive.
async fn waits(admin: &Session, holder: &Session) -> BTreeSet<String> {
    let sql = format!(
        "SELECT pid || ' ' || query_start FROM pg_stat_activity WHERE {} = ANY (pg_blocking_pids(pid)) \
         AND usename = 'carrier' AND query NOT LIKE 'UPDATE regionwise.batch b SET expires%'",
        holder.pid
    );
    let rows = admin.client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until the mover has met the lock of `holder` so often.
async fn comes_again(call: &mut Running, admin: &Session, holder: &Session, times: usize) {
    let began = Instant::now();
    let mut seen = BTreeSet::new();
    while seen.len() < times {
        assert!(!call.has_ended(), "it gave up after {seen:?}");
        assert!(
            began.elapsed() < PATIENCE,
            "it came no more often: {seen:?}"
        );
        seen.extend(waits(admin, holder).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A transaction of somebody else at the target that has inserted this address and is open.
async fn taking(world: &World, address: &str) -> Session {
    let holder = world.eu.admin().await;
    let insert = format!(
        "{PAST_THE_FENCE}; INSERT INTO users (id, email, billing_country) VALUES (901, '{address}', 'DE')"
    );
    holder.must(&insert).await;
    holder
}

#[tokio::test]
async fn an_address_that_an_open_transaction_may_take_at_the_target_is_waited_for_by_the_copy() {
    let (world, plan) = shop().await;
    let holder = taking(&world, "u1@example.com").await;
    let admin = world.eu.admin().await;
    let mut call = all_at_once(&world, &plan).start();
    // As often as it takes to find the one user among nine, and then some.
    comes_again(&mut call, &admin, &holder, 8).await;
    holder.must("ROLLBACK").await;
    call.finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn an_address_that_an_open_transaction_may_take_after_the_copy_is_waited_for() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    let shopper = world.us.shopper().await;
    let changes = "UPDATE users SET email = 'new@example.com' WHERE id = 1";
    shopper.must(changes).await;
    let holder = taking(&world, "new@example.com").await;
    let admin = world.eu.admin().await;
    call.release();
    comes_again(&mut call, &admin, &holder, 4).await;
    holder.must("ROLLBACK").await;
    call.finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn a_table_that_is_locked_at_the_target_is_waited_for() {
    let (world, plan) = shop().await;
    let (holder, admin) = (world.eu.admin().await, world.eu.admin().await);
    // As CREATE INDEX does.
    holder.must("BEGIN; LOCK orders IN SHARE MODE").await;
    let mut call = all_at_once(&world, &plan).start();
    comes_again(&mut call, &admin, &holder, 4).await;
    holder.must("ROLLBACK").await;
    call.finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
#[ignore = "torture: a minute, the time that a lock is waited for"]
async fn torture_a_user_whose_address_stays_taken_by_an_open_transaction_is_set_aside() {
    let (world, plan) = shop().await;
    let holder = taking(&world, "u1@example.com").await;
    let finished = all_at_once(&world, &plan).finish().await.expect(10);
    assert_eq!(finished.json["reason"], "set-aside", "{}", finished.said);
    assert_eq!(finished.json["result"]["set_aside"], 1, "{}", finished.said);
    assert!(finished.said.contains("locked"), "{}", finished.said);
    let mut others = world.chosen().await;
    others.retain(|user| user != "1");
    assert_eq!(world.at_home(&world.eu).await, others);
    holder.must("ROLLBACK").await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn a_batch_that_a_broken_session_still_holds_is_waited_for_while_its_users_have_no_home() {
    let (world, plan) = shop().await;
    let mut call = all_at_once(&world, &plan).hold("released").start();
    assert!(call.is_held().await);
    assert!(!world.between().await.is_empty());
    // As the mover's own session does at a source that has not noticed yet that it broke.
    let (holder, admin) = (world.us.admin().await, world.us.admin().await);
    holder
        .must("BEGIN; SELECT FROM regionwise.batch FOR SHARE")
        .await;
    call.links.iter().for_each(Link::cut);
    call.release();
    // More often than sessions may break in a row.
    comes_again(&mut call, &admin, &holder, 9).await;
    holder.must("ROLLBACK").await;
    call.finish().await.expect(0);
    world.all_moved_equal().await;
}

#[tokio::test]
async fn an_installation_that_met_a_lock_says_whether_one_cluster_is_done() {
    let world = World::bare(Servers::shared(), &WIDE, USERS).await;
    for (database, code) in [(&world.us, 20), (&world.eu, 21)] {
        let holder = database.admin().await;
        holder.must("BEGIN; LOCK users IN ROW EXCLUSIVE MODE").await;
        let finished = world.install().await.expect(code);
        let half = finished.said.contains("one after the other");
        assert_eq!(half, code == 21, "{}", finished.said);
        holder.must("ROLLBACK").await;
    }
    world.install().await.expect(0);
}

/// Who counts user 1 up without a pause, until it is sent away or stopped.
#[derive(Default)]
struct Busy {
    done: AtomicI64,
    /// In milliseconds, of one write.
    longest: AtomicU64,
}

impl Busy {
    async fn write(&self, session: Session) {
        let count = "UPDATE users SET counter = counter + 1 WHERE id = 1";
        loop {
            let began = Instant::now();
            let said = session.run(count).await;
            let took = u64::try_from(began.elapsed().as_millis()).unwrap();
            self.longest.fetch_max(took, Ordering::SeqCst);
            if said.is_err() {
                assert_eq!(said, refused("MV001"));
                return;
            }
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// It was held under the user's lock, and not for much longer than a user of few rows may be: 5 s.
    fn waited_for_seconds(&self) {
        let longest = self.longest.load(Ordering::SeqCst);
        assert!((4_000..9_000).contains(&longest), "{longest} ms");
    }
}

/// The target takes half a minute for digests, in those of the next calls that `slow` is true of; the first of them is made
/// under the lock of a user who never stops writing.
async fn busy_at_a_slow_target(slow: &str) -> (World, Finished, Arc<Busy>, JoinHandle<()>) {
    let (world, plan) = shop().await;
    let busy = Arc::new(Busy::default());
    let session = world.us.shopper().await;
    let writing = Arc::clone(&busy);
    let writer = tokio::spawn(async move { writing.write(session).await });
    // The last of the rounds without the lock.
    let mut call = all_at_once(&world, &plan).hold("mended#4").start();
    assert!(call.is_held().await);
    let eu = world.eu.admin().await;
    eu.must("CREATE SEQUENCE calls").await;
    let begin = format!(
        "BEGIN IF (SELECT {slow} FROM nextval('public.calls') n) THEN PERFORM pg_sleep(30); END IF;"
    );
    world.eu.weaken("digests", "BEGIN", &begin).await;
    call.release();
    let finished = call.finish().await;
    (world, finished, busy, writer)
}

#[tokio::test]
async fn a_target_that_is_slow_once_while_a_busy_user_is_locked_keeps_its_writers_for_seconds() {
    let (world, finished, busy, writer) = busy_at_a_slow_target("n = 1").await;
    finished.expect(0);
    writer.await.unwrap();
    busy.waited_for_seconds();
    let sql = "SELECT counter FROM users WHERE id = 1";
    let counted = world.eu.admin().await.number(sql).await;
    assert_eq!(counted, busy.done.load(Ordering::SeqCst));
    world.all_moved_equal().await;
}

#[tokio::test]
async fn a_busy_user_whose_last_changes_take_too_long_again_is_set_aside() {
    // Every second call is the one without the lock, before it is tried again.
    let (world, finished, busy, writer) = busy_at_a_slow_target("n % 2 = 1").await;
    let finished = finished.expect(10);
    assert_eq!(finished.json["reason"], "set-aside", "{}", finished.said);
    assert_eq!(finished.json["result"]["set_aside"], 1, "{}", finished.said);
    assert!(
        finished.said.contains("never stops writing"),
        "{}",
        finished.said
    );
    busy.waited_for_seconds();
    assert!(!writer.is_finished());
    writer.abort();
    assert!(world.at_home(&world.us).await.contains(&"1".to_owned()));
    world.nobody_lost().await;
}
