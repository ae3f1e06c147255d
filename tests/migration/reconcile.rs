//! A promoted cluster that lost the last changes of its routes (scenario 22, C14).

use crate::session::refused;
use crate::verify::moved;
use crate::world::{Finished, World};

/// What a standby has that never saw the release of this user.
fn forget(user: i64) -> String {
    format!(
        "UPDATE regionwise.route SET state = 'home', epoch = 0, token = NULL, run = NULL, digest = NULL, rows = NULL, \
         watch = false WHERE usr = '{user}'"
    )
}

impl World {
    async fn reconcile(&self, promoted: &str) -> Finished {
        self.tool(&["reconcile", "--promoted", promoted])
            .finish()
            .await
    }
}

#[tokio::test]
async fn a_promoted_source_that_forgot_a_release_is_fenced_again() {
    let (world, plan) = moved().await;
    let admin = world.us.admin().await;
    admin.must(&forget(1)).await;
    admin.must(&forget(3)).await;
    // The rows of user 3 are older, too.
    world
        .us
        .tamper("UPDATE orders SET note = 'older' WHERE id = 31")
        .await;
    let finished = world.reconcile("us").await.expect(0);
    let result = &finished.json["result"];
    assert_eq!(result["fenced"], 2, "{}", finished.said);
    assert_eq!(result["proven"], 1);
    assert_eq!(result["not_proven"], serde_json::json!(["3"]));
    let shopper = world.us.shopper().await;
    for id in [11, 31] {
        let write = format!("UPDATE orders SET note = 'lost' WHERE id = {id}");
        assert_eq!(shopper.run(&write).await, refused("MV001"));
    }
    // What was done is done.
    let again = world.reconcile("us").await.expect(0);
    assert_eq!(again.json["result"]["fenced"], 0);
    assert_eq!(again.json["result"]["not_proven"], serde_json::json!(["3"]));
    // The others can be purged, this one keeps its rows.
    let purged = world
        .tool(&["purge", "--plan", &plan])
        .finish()
        .await
        .expect(10);
    assert_eq!(purged.json["result"]["users"], 8, "{}", purged.said);
    assert_eq!(purged.json["result"]["kept"][0]["user"], "3");
    assert_eq!(
        admin
            .number("SELECT count(*) FROM orders WHERE user_id = 3")
            .await,
        2
    );
    world.nobody_lost().await;
}

#[tokio::test]
async fn a_release_that_was_lost_before_the_target_took_over_is_finished_by_the_run() {
    let world = World::ready().await;
    let plan = world.plan().await;
    let mut first = world
        .moving("run", &plan, &["--lanes", "1"])
        .hold("released")
        .start();
    assert!(first.is_held().await);
    first.kill().await;
    let (us, eu) = (world.us.admin().await, world.eu.admin().await);
    let released = "SELECT count(*) FROM regionwise.route WHERE state = 'moved'";
    assert!(us.number(released).await > 0);
    us.must("UPDATE regionwise.route SET state = 'home', epoch = 0, token = NULL, run = NULL, digest = NULL WHERE state = 'moved'")
        .await;
    // A token of the timeline before the promotion.
    let staged = eu
        .must("UPDATE regionwise.route SET token = 7 WHERE state = 'staging'")
        .await;
    let finished = world.reconcile("us").await.expect(0);
    let result = &finished.json["result"];
    assert_eq!(result["raised"].as_u64(), Some(staged), "{}", finished.said);
    assert_eq!(result["fenced"], 0);
    let old = "SELECT count(*) FROM regionwise.route WHERE state = 'staging' AND token < (1::bigint << 40)";
    assert_eq!(eu.number(old).await, 0);
    world.moving("run", &plan, &[]).finish().await.expect(0);
    world.nobody_lost().await;
    world.verify().await.expect(0);
}

#[tokio::test]
async fn a_promoted_target_that_forgot_the_run_is_told_of_it_again() {
    let world = World::ready().await;
    let plan = world.plan().await;
    let mut call = world
        .moving("run", &plan, &["--lanes", "1"])
        .hold("claimed")
        .start();
    assert!(call.is_held().await);
    let eu = world.eu.admin().await;
    assert_eq!(eu.must("DELETE FROM regionwise.run").await, 1);
    call.release();
    call.finish().await.expect(0);
    world.nobody_lost().await;
    world.verify().await.expect(0);
}

#[tokio::test]
async fn a_run_whose_salt_is_gone_at_the_source_ends_with_that_reason() {
    let world = World::ready().await;
    let plan = world.plan().await;
    let mut call = world.moving("run", &plan, &[]).hold("claimed").start();
    assert!(call.is_held().await);
    let us = world.us.admin().await;
    us.must("UPDATE regionwise.run SET salt = NULL").await;
    call.release();
    let finished = call.finish().await.expect(21);
    let said = format!("{}{}", finished.said, finished.told);
    assert!(said.contains("has no salt"), "{said}");
    world.nobody_lost().await;
}

#[tokio::test]
async fn two_owners_that_no_promotion_made_are_refused() {
    let (world, _) = moved().await;
    let admin = world.us.admin().await;
    admin
        .must("UPDATE regionwise.route SET state = 'active', epoch = 5 WHERE usr = '4'")
        .await;
    admin.must(&forget(1)).await;
    let finished = world.reconcile("us").await.expect(12);
    assert_eq!(finished.json["reason"], "two-owners");
    assert_eq!(
        finished.json["result"]["two_owners"],
        serde_json::json!(["4"])
    );
    assert_eq!(finished.json["result"]["fenced"], 1);
}

#[tokio::test]
async fn a_promoted_target_and_a_cluster_that_is_none() {
    let (world, _) = moved().await;
    let finished = world.reconcile("eu").await.expect(0);
    assert_eq!(finished.json["result"]["fenced"], 0);
    world.reconcile("asia").await.expect(2);
}
