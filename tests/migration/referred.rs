//! Rows that go on the way back while rows that stay refer to them: no reference is left that leads nowhere.

use crate::purge::kept;

const DANGLING: &str = "SELECT count(*) FROM receipts r WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = r.of_order)";

/// Order 31 of user 3 was deleted at the new home, and at the old one a receipt for it was written.
#[tokio::test]
async fn a_row_that_is_referred_to_at_the_old_home_keeps_its_user_at_the_new_one() {
    let (world, plan) = kept().await;
    let us = world.us.admin().await;
    us.must("INSERT INTO receipts VALUES (1, 31)").await;
    let eu = world.eu.shopper().await;
    eu.must("DELETE FROM orders WHERE id = 31").await;
    let there = world.dump(&world.eu).await["3"].clone();

    let reverted = world.moving("revert", &plan, &[]).finish().await.expect(10);
    assert_eq!(reverted.json["result"]["set_aside"], 1, "{}", reverted.said);
    let why = "a row of receipts, a table that stays, refers to it";
    let status = world.tool(&["status"]).finish().await;
    assert!(status.said.contains(why), "{}", status.said);
    assert_eq!(us.number(DANGLING).await, 0);
    assert_eq!(world.at_home(&world.eu).await, ["3"]);
    assert_eq!(world.dump(&world.eu).await["3"], there);

    // The team deletes the receipt, and the user comes home.
    us.must("DELETE FROM receipts").await;
    world.moving("revert", &plan, &[]).finish().await.expect(0);
    assert_eq!(world.dump(&world.us).await["3"], there);
    world.nobody_lost().await;
}

/// A table whose rule is `set-null` lets go, as at a purge.
#[tokio::test]
async fn a_reference_that_may_be_let_go_is_set_to_null() {
    let (world, plan) = kept().await;
    let us = world.us.admin().await;
    us.must("INSERT INTO audit VALUES (100, NULL, 'gone', 31), (101, NULL, 'there', 32)")
        .await;
    let eu = world.eu.shopper().await;
    eu.must("DELETE FROM orders WHERE id = 31").await;

    world.moving("revert", &plan, &[]).finish().await.expect(0);
    let refers = "SELECT string_agg(id || ' ' || coalesce(about::text, 'nothing'), ', ' ORDER BY id) FROM audit WHERE id >= 100";
    let refers = us.text(refers).await;
    assert_eq!(refers.as_deref(), Some("100 nothing, 101 32"));
    world.nobody_lost().await;
}

/// A row that only changed is referred to as before.
#[tokio::test]
async fn rows_that_change_may_be_referred_to() {
    let (world, plan) = kept().await;
    let us = world.us.admin().await;
    us.must("INSERT INTO receipts VALUES (1, 31)").await;
    let eu = world.eu.shopper().await;
    eu.must("UPDATE orders SET note = 'changed' WHERE id = 31")
        .await;

    world.moving("revert", &plan, &[]).finish().await.expect(0);
    let changed = "SELECT count(*) FROM receipts r JOIN orders o ON o.id = r.of_order WHERE o.note = 'changed'";
    assert_eq!(us.number(changed).await, 1);
    world.nobody_lost().await;
}

/// Rows that exclude each other are deleted and inserted again, and who refers to them does not notice.
#[tokio::test]
async fn rows_that_exchange_unique_values_may_be_referred_to() {
    let (world, plan) = kept().await;
    let us = world.us.admin().await;
    us.must(
        "INSERT INTO receipts VALUES (1, 31); INSERT INTO audit VALUES (100, NULL, 'there', 31)",
    )
    .await;
    let eu = world.eu.shopper().await;
    let exchange = "BEGIN; UPDATE orders SET place = 0 WHERE id = 31; UPDATE orders SET place = 1 WHERE id = 32; \
                    UPDATE orders SET place = 2 WHERE id = 31; COMMIT";
    eu.must(exchange).await;

    world.moving("revert", &plan, &[]).finish().await.expect(0);
    let places =
        "SELECT string_agg(id || ' at ' || place, ', ' ORDER BY id) FROM orders WHERE user_id = 3";
    assert_eq!(us.text(places).await.as_deref(), Some("31 at 2, 32 at 1"));
    assert_eq!(us.number(DANGLING).await, 0);
    assert_eq!(
        us.number("SELECT about FROM audit WHERE id = 100").await,
        31
    );
    assert_eq!(
        us.number("SELECT count(*) FROM audit WHERE who = 3").await,
        1
    );
    world.nobody_lost().await;
}

/// A user who is set aside on the way back for another reason keeps what refers to it, too.
#[tokio::test]
async fn who_is_set_aside_on_the_way_back_loses_no_reference() {
    let (world, plan) = kept().await;
    let us = world.us.admin().await;
    us.must("INSERT INTO audit VALUES (100, NULL, 'there', 31); INSERT INTO users VALUES (900, 'taken@example.com', 'US')")
        .await;
    let eu = world.eu.shopper().await;
    eu.must("UPDATE users SET email = 'taken@example.com' WHERE id = 3")
        .await;

    let reverted = world.moving("revert", &plan, &[]).finish().await.expect(10);
    assert_eq!(reverted.json["result"]["set_aside"], 1, "{}", reverted.said);
    assert_eq!(world.at_home(&world.eu).await, ["3"]);
    assert_eq!(
        us.number("SELECT about FROM audit WHERE id = 100").await,
        31
    );
    us.must("DELETE FROM users WHERE id = 900").await;
    world.moving("revert", &plan, &[]).finish().await.expect(0);
    assert_eq!(
        us.number("SELECT about FROM audit WHERE id = 100").await,
        31
    );
    world.nobody_lost().await;
}
