//! `status` reads the journals alone, says what is unknown, and raises its voice when users cannot write.

use serde_json::Value;

use crate::verify::moved;
use crate::world::{Finished, World, eventually};

impl World {
    async fn status(&self) -> Finished {
        self.tool(&["status"]).finish().await
    }
}

fn finds(finished: &Finished, text: &str) -> bool {
    let findings = finished.json["findings"].as_array().unwrap();
    findings
        .iter()
        .any(|finding| finding["text"].as_str().unwrap().contains(text))
}

#[tokio::test]
async fn a_finished_run_and_its_stalls_are_shown() {
    let (world, _) = moved().await;
    let finished = world.status().await.expect(0);
    let us = &finished.json["result"]["clusters"][0];
    assert_eq!(us["routes"], serde_json::json!([["home", 3], ["moved", 9]]));
    let run = &us["runs"][0];
    assert_eq!(run["state"], "finished");
    assert_eq!(run["moved"], 9);
    assert_eq!(run["batches"], 3);
    let (half, most) = (&run["stall_p50"], &run["stall_max"]);
    assert!(
        half.as_i64() <= most.as_i64() && most.as_i64() > Some(0),
        "{run}"
    );
    let eu = &finished.json["result"]["clusters"][1];
    assert_eq!(eu["runs"][0]["state"], "guest");
    assert_eq!(eu["unguarded"], serde_json::json!([]));
}

#[tokio::test]
async fn a_world_without_an_installation_or_a_run_is_no_error_of_ours() {
    let world = World::ready().await;
    let finished = world.status().await.expect(0);
    assert_eq!(
        finished.json["result"]["clusters"][0]["runs"],
        serde_json::json!([])
    );
    world
        .eu
        .admin()
        .await
        .must("DROP SCHEMA regionwise CASCADE")
        .await;
    let finished = world.status().await.expect(10);
    assert!(
        finds(&finished, "nothing is installed in cluster `eu`"),
        "{}",
        finished.said
    );
}

#[tokio::test]
async fn one_cluster_is_enough_to_say_something() {
    let (world, _) = moved().await;
    let mut call = world.tool(&["status"]);
    call.command
        .env("EU_VERIFY_DSN", "postgres://auditor@127.0.0.1:1/nothing");
    let finished = call.finish().await.expect(10);
    assert_eq!(finished.json["reason"], "unreadable");
    assert_eq!(finished.json["result"]["clusters"][0]["cluster"], "us");
    assert_eq!(finished.json["result"]["between_homes"], Value::Null);
}

#[tokio::test]
async fn users_between_two_homes_are_an_alarm_after_five_seconds() {
    let world = World::ready().await;
    let plan = world.plan().await;
    let mut first = world
        .moving("run", &plan, &["--lanes", "1"])
        .hold("released")
        .start();
    assert!(first.is_held().await);
    let soon = world.status().await.expect(0);
    let users = soon.json["result"]["between_homes"]["users"]
        .as_i64()
        .unwrap();
    assert!(users > 0);
    assert!(finds(&soon, "is held by"), "{}", soon.said);
    let us = world.us.admin().await;
    us.must("UPDATE regionwise.journal SET at = at - interval '6 s'")
        .await;
    let late = world.status().await.expect(10);
    assert_eq!(late.json["reason"], "between-homes");
    first.release();
    first.finish().await.expect(0);
    world.status().await.expect(0);
}

#[tokio::test]
async fn who_is_set_aside_is_named_with_the_reason() {
    let world = World::ready().await;
    let clash = "INSERT INTO regionwise.route (usr, state) VALUES ('900', 'active'); \
                 INSERT INTO users (id, email, billing_country) VALUES (900, 'u3@example.com', 'DE')";
    world.eu.admin().await.must(clash).await;
    let plan = world.plan().await;
    world.moving("run", &plan, &[]).finish().await.expect(10);
    let finished = world.status().await.expect(0);
    assert!(finds(&finished, "user 3 is set aside"), "{}", finished.said);
    let us = &finished.json["result"]["clusters"][0];
    assert_eq!(us["aside"]["users"], 1);
}

#[tokio::test]
async fn a_bulk_transaction_at_the_gate_is_named() {
    let world = World::ready().await;
    let bulk = world.us.admin().await;
    bulk.must("BEGIN; LOCK TABLE regionwise.gate IN SHARE MODE")
        .await;
    let finished = world.status().await.expect(0);
    let gate = &finished.json["result"]["clusters"][0]["gate"];
    assert_eq!(gate[0]["pid"], bulk.pid);
    assert!(gate[0]["seconds"].as_f64().is_some());
}

#[tokio::test]
async fn a_partition_without_the_fence_is_named() {
    let world = World::ready().await;
    world
        .us
        .admin()
        .await
        .must("CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2)")
        .await;
    let finished = world.status().await.expect(10);
    assert_eq!(finished.json["reason"], "not-fenced");
    assert!(
        finds(&finished, "events_2 in `us` lacks"),
        "{}",
        finished.said
    );
}

#[tokio::test]
async fn rows_that_a_finished_run_left_staged_are_named() {
    let (world, _) = moved().await;
    let eu = world.eu.admin().await;
    eu.must("INSERT INTO regionwise.route (usr, state, run) SELECT '77', 'staging', run FROM regionwise.run").await;
    let finished = world.status().await.expect(0);
    assert!(
        finds(&finished, "1 users are still `staging` in `eu`"),
        "{}",
        finished.said
    );
}

#[tokio::test]
async fn a_signal_ends_a_verb_that_only_reads_while_it_waits() {
    let world = World::ready().await;
    let (admin, looker) = (world.us.admin().await, world.us.admin().await);
    admin.must("BEGIN").await;
    admin.must("LOCK TABLE users").await;
    let planning = world.tool(&["plan"]).start();
    eventually("the plan waits for the rows", async || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND application_name = 'migrate-eu-users' AND datname = current_database()";
        match looker.number(waits).await {
            0 => Err("nobody waits".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    planning.signal("TERM");
    let finished = planning.finish().await.expect(143);
    assert_eq!(finished.json["verdict"], "cancelled", "{}", finished.json);
    admin.must("ROLLBACK").await;
}
