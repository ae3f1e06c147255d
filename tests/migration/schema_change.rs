//! DDL in the middle of a run (C17): nobody is moved with a column missing, and a new plan clears up after the old one.

use crate::world::World;

const COLUMN: &str = "ALTER TABLE orders ADD COLUMN gift boolean NOT NULL DEFAULT false";

#[tokio::test]
async fn a_column_added_after_the_copy_stops_the_run_before_anybody_is_released() {
    let world = World::ready().await;
    let plan = world.plan().await;
    let mut run = world
        .moving("run", &plan, &["--lanes", "1"])
        .hold("shipped")
        .start();
    assert!(run.is_held().await);
    world.us.admin().await.must(COLUMN).await;
    let user = world.chosen().await.swap_remove(0);
    let gift = format!("UPDATE orders SET gift = true WHERE user_id = {user}");
    let given = world.us.shopper().await.must(&gift).await;
    run.release();
    let ended = run.finish().await.expect(10);
    assert_eq!(ended.json["reason"], "paused", "{}", ended.said);
    assert!(ended.said.contains("the schema at"), "{}", ended.said);
    let ways =
        ["install", "plan", "run --plan HASH"].map(|verb| format!("migrate-eu-users {verb}"));
    let hints = ended.json["hints"].as_array().unwrap();
    assert_eq!(hints.len(), ways.len(), "{}", ended.said);
    for (hint, way) in hints.iter().zip(&ways) {
        assert!(hint.as_str().unwrap().starts_with(way), "{hint}");
    }
    assert_eq!(world.at_home(&world.eu).await, Vec::<String>::new());

    // The old plan is not run any more; with the column at both sides a new one takes over what it left.
    let refused = world.moving("run", &plan, &[]).finish().await.expect(12);
    assert_eq!(refused.json["reason"], "plan-changed", "{}", refused.said);
    world.eu.admin().await.must(COLUMN).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    world.moving("run", &plan, &[]).finish().await.expect(0);
    assert_eq!(world.at_home(&world.eu).await, world.chosen().await);
    let eu = world.eu.admin().await;
    let gifts = eu.number("SELECT count(*) FROM orders WHERE gift").await;
    assert_eq!(gifts.unsigned_abs(), given);
    world.no_locks_left().await;
    let left = "SELECT count(*) FROM regionwise.route WHERE state = 'staging'";
    assert_eq!(eu.number(left).await, 0);
}

/// Written in no row: each side has the moment of its own ALTER TABLE.
const MOMENT: &str = "ALTER TABLE comments ADD COLUMN created timestamptz NOT NULL DEFAULT now()";

#[tokio::test]
async fn a_column_that_differs_and_is_installed_after_the_proof_activates_nobody() {
    let world = World::ready().await;
    let plan = world.plan().await;
    let mut run = world
        .moving("run", &plan, &["--lanes", "1"])
        .hold("shipped")
        .start();
    assert!(run.is_held().await);
    for database in [&world.us, &world.eu] {
        database.admin().await.must(MOMENT).await;
    }
    world.install().await.expect(0);
    run.release();
    let ended = run.finish().await.expect(10);
    assert!(
        ended.said.contains("the schema may have changed"),
        "{}",
        ended.said
    );
    assert_eq!(
        world.at_home(&world.eu).await,
        Vec::<String>::new(),
        "{}",
        ended.said
    );
    assert_eq!(world.between().await, Vec::<String>::new());
    world.no_locks_left().await;

    // The new plan sends what the column has.
    let plan = world.plan().await;
    world.moving("run", &plan, &[]).finish().await.expect(0);
    assert_eq!(world.at_home(&world.eu).await, world.chosen().await);
    world.verify().await.expect(0);
}

/// Each renewal of a claim is under way for a while, and a run that pauses takes longer still.
const SLOW_RENEWALS: &str = "
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$ BEGIN
  IF current_query() LIKE '%SET expires = clock_timestamp()%unnest(%' THEN PERFORM pg_sleep(1.5); END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER slow BEFORE UPDATE ON regionwise.batch FOR EACH STATEMENT EXECUTE FUNCTION slow();
CREATE FUNCTION slower() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$ BEGIN
  PERFORM pg_sleep(2.5);
  RETURN NEW;
END $$;
CREATE TRIGGER slower BEFORE UPDATE ON regionwise.run FOR EACH ROW WHEN (NEW.state = 'paused') EXECUTE FUNCTION slower();
";

#[tokio::test]
async fn a_renewal_that_comes_late_does_not_take_a_batch_again_that_was_given_back() {
    let world = World::ready().await;
    let plan = world.plan().await;
    let us = world.us.admin().await;
    let mut run = world
        .moving("run", &plan, &["--lanes", "1"])
        .hold("shipped")
        .start();
    assert!(run.is_held().await);
    us.must(SLOW_RENEWALS).await;
    for database in [&world.us, &world.eu] {
        database.admin().await.must(COLUMN).await;
    }
    let late = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    let is_late = async |wanted: i64| {
        let what = format!("{wanted} renewals are under way");
        crate::world::eventually(&what, async || match us.number(late).await {
            seen if seen == wanted => Ok(()),
            seen => Err(seen.to_string()),
        })
        .await;
    };
    is_late(1).await;
    run.release();
    run.finish().await.expect(10);
    is_late(0).await;
    let held = "SELECT count(*) FROM regionwise.batch WHERE state = 'open' AND expires IS NOT NULL";
    assert_eq!(us.number(held).await, 0);
    us.must("DROP TRIGGER slow ON regionwise.batch; DROP TRIGGER slower ON regionwise.run")
        .await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    world.moving("run", &plan, &[]).finish().await.expect(0);
    assert_eq!(world.at_home(&world.eu).await, world.chosen().await);
}

#[tokio::test]
async fn another_plan_waits_while_somebody_works_and_finishes_whom_he_released() {
    let world = World::ready().await;
    let plan = world.plan().await;
    let mut run = world
        .moving("run", &plan, &["--lanes", "1"])
        .hold("released")
        .start();
    assert!(run.is_held().await);
    for database in [&world.us, &world.eu] {
        database.admin().await.must(COLUMN).await;
    }
    world.install().await.expect(0);
    let other = world.plan().await;
    let locked = world.moving("run", &other, &[]).finish().await.expect(22);
    assert_eq!(locked.json["reason"], "other-plan", "{}", locked.said);
    assert!(!world.between().await.is_empty());
    run.kill().await;
    // Its claims lapse after two seconds.
    crate::world::eventually("the new plan is run", async || {
        let ended = world.moving("run", &other, &[]).finish().await;
        match ended.code {
            Some(0) => Ok(()),
            code => Err(format!("{code:?}: {}", ended.said)),
        }
    })
    .await;
    assert_eq!(world.at_home(&world.eu).await, world.chosen().await);
    assert_eq!(world.between().await, Vec::<String>::new());
    world.no_locks_left().await;
}
