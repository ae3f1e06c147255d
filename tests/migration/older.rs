//! A run that is given up for another plan loses its claims: a runner of it that was stopped moves nobody any more.

use crate::servers::Database;
use crate::world::{Finished, Running, Schema, WIDE, World, eventually};

/// Another plan: fewer users move.
pub(crate) static GERMANS: Schema = Schema {
    users: "billing_country = 'DE'",
    ..WIDE
};

/// Users who are on their way to a cluster.
const UNSETTLED: &str = "SELECT count(*) FROM regionwise.route WHERE state = 'staging'";

impl World {
    /// A run of everybody that is stopped before it releases its first users; all its claims have lapsed.
    async fn stopped_before_a_release(&self, plan: &str) -> Running {
        let mut older = self
            .moving("run", plan, &["--lanes", "1"])
            .hold("releasing")
            .start();
        assert!(older.is_held().await);
        older.signal("STOP");
        let us = self.us.admin().await;
        let held = "SELECT count(*) FROM regionwise.batch WHERE expires >= clock_timestamp()";
        eventually("the claims lapse", async || match us.number(held).await {
            0 => Ok(()),
            held => Err(format!("{held} are held")),
        })
        .await;
        older
    }

    /// Only Germans move from now on.
    async fn run_of_another_plan(&mut self) -> String {
        self.schema = &GERMANS;
        let plan = self.plan().await;
        self.moving("run", &plan, &[]).finish().await.expect(0);
        plan
    }

    async fn only_germans_moved(&self) {
        assert_eq!(self.at_home(&self.eu).await, self.chosen().await);
        self.nobody_lost().await;
        assert_eq!(self.eu.admin().await.number(UNSETTLED).await, 0);
    }
}

async fn released_by(database: &Database, plan: &str) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM regionwise.journal j JOIN regionwise.run r USING (run) WHERE r.plan = '{plan}' AND j.facts ? 'moved'"
    );
    database.admin().await.number(&sql).await
}

fn between_homes(status: &Finished) -> &serde_json::Value {
    &status.json["result"]["between_homes"]["users"]
}

#[tokio::test]
async fn a_stopped_runner_of_a_run_that_was_given_up_releases_nobody() {
    let mut world = World::ready().await;
    let older_plan = world.plan().await;
    let older = world.stopped_before_a_release(&older_plan).await;
    let plan = world.run_of_another_plan().await;
    older.release();
    older.signal("CONT");
    let ended = older.finish().await.expect(10);
    assert_eq!(ended.json["reason"], "paused", "{}", ended.said);
    assert!(
        ended.said.contains("given up for another plan"),
        "{}",
        ended.said
    );
    assert_eq!(released_by(&world.us, &older_plan).await, 0);
    assert!(released_by(&world.us, &plan).await > 0);
    world.only_germans_moved().await;
    world.tool(&["status"]).finish().await.expect(0);
    world.no_locks_left().await;
}

#[tokio::test]
async fn what_a_run_left_after_it_was_given_up_is_seen_and_settled_by_the_next_one() {
    let mut world = World::ready().await;
    let older_plan = world.plan().await;
    let older = world.stopped_before_a_release(&older_plan).await;
    older.kill().await;
    let plan = world.run_of_another_plan().await;
    let us = world.us.admin().await;
    let eu = world.eu.admin().await;
    let run = us
        .text("SELECT run FROM regionwise.run WHERE note = 'given up for another plan'")
        .await
        .unwrap();
    let given_up = eu
        .text(&format!(
            "SELECT usr FROM regionwise.route WHERE run = '{run}' AND state = 'cancelled' LIMIT 1"
        ))
        .await
        .unwrap();
    // A release that came after the cancel, and a user staged for nobody.
    us.must(&format!(
        "UPDATE regionwise.route SET state = 'moved', epoch = epoch + 1, run = '{run}' WHERE usr = '{given_up}'"
    ))
    .await;
    let unmoved = us
        .text("SELECT usr FROM regionwise.route WHERE state = 'home' ORDER BY usr DESC LIMIT 1")
        .await
        .unwrap();
    eu.must(&format!(
        "INSERT INTO regionwise.route (usr, state, run, token) VALUES ('{unmoved}', 'staging', '{run}', 1) \
         ON CONFLICT (usr) DO UPDATE SET state = 'staging'"
    ))
    .await;
    // When it was released stands nowhere: that is no reason to call it young.
    let status = world.tool(&["status"]).finish().await.expect(10);
    assert_eq!(status.json["reason"], "between-homes", "{}", status.said);
    assert_eq!(*between_homes(&status), 1, "{}", status.said);
    world.moving("run", &plan, &[]).finish().await.expect(0);
    let status = world.tool(&["status"]).finish().await.expect(0);
    assert_eq!(*between_homes(&status), 0, "{}", status.said);
    world.only_germans_moved().await;
}
