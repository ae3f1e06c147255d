//! A seal says that nobody has written a user's rows since they were proven.

use crate::session::Session;
use crate::shop::World;

async fn seal(session: &Session, user: i64) -> String {
    let sql = format!("SELECT encode(seal, 'hex') FROM regionwise.seals(ARRAY['{user}'])");
    session.text(&sql).await.unwrap()
}

/// One on every way to a row: the user's own, a child's, a grandchild's, a tree's, behind a composite key, in a partition.
const WRITES: [&str; 14] = [
    "UPDATE users SET email = email WHERE id = 1",
    "UPDATE orders SET n = n WHERE id = 10",
    "UPDATE items SET qty = 2 WHERE id = 100",
    "UPDATE comments SET txt = 'x' WHERE id = 102",
    "UPDATE part_notes SET txt = txt WHERE id = 100",
    "UPDATE logs SET k = 2 WHERE id = 10",
    "UPDATE gifts SET order_id = NULL WHERE id = 100",
    "INSERT INTO items VALUES (1001, 10, 1)",
    "INSERT INTO comments VALUES (1001, NULL, 102, 'deep')",
    "DELETE FROM part_notes WHERE id = 100",
    "DELETE FROM comments WHERE id = 101",
    "DELETE FROM logs WHERE id = 10",
    "DELETE FROM items WHERE id = 100; INSERT INTO items VALUES (100, 10, 1)",
    "UPDATE items SET order_id = 20 WHERE id = 100",
];

#[tokio::test]
async fn a_seal_breaks_with_every_write_of_the_users_rows_and_with_no_other() {
    let world = World::new().await;
    let admin = world.us.admin().await;
    let proven = seal(&admin, 1).await;
    for write in WRITES {
        let other = seal(&admin, 3).await;
        admin.must("BEGIN").await;
        admin.must(write).await;
        assert_ne!(seal(&admin, 1).await, proven, "{write}");
        assert_eq!(seal(&admin, 3).await, other, "{write}");
        admin.must("ROLLBACK").await;
        assert_eq!(seal(&admin, 1).await, proven, "taken back: {write}");
    }
    admin.must("UPDATE orders SET n = 5 WHERE id = 30").await;
    // What was taken back is dead now: its place is free for other rows.
    for table in ["users", "orders", "items", "comments"] {
        admin.must(&format!("VACUUM (FREEZE) {table}")).await;
    }
    assert_eq!(seal(&admin, 1).await, proven, "frozen rows are the same");
    admin.must("UPDATE orders SET n = n WHERE id = 10").await;
    assert_ne!(seal(&admin, 1).await, proven, "the same values, written");
}

#[tokio::test]
async fn a_seal_counts_the_rows_that_the_digest_counts() {
    let world = World::new().await;
    let admin = world.us.admin().await;
    let both = "SELECT count(*) FROM regionwise.digests('r', ARRAY['1', '2', '9']) d \
                JOIN regionwise.seals(ARRAY['1', '2', '9']) s USING (usr, rows, seal)";
    assert_eq!(admin.number(both).await, 3);
    let rows = "SELECT rows FROM regionwise.seals(ARRAY['1'])";
    assert_eq!(admin.number(rows).await, 10);
}

#[tokio::test]
async fn a_seal_is_of_one_start_of_the_server() {
    // After a crash, transactions that were lost give their numbers to others.
    let world = World::new().await;
    let admin = world.us.admin().await;
    let nothing = "SELECT seal = sha256(timestamptz_send(pg_postmaster_start_time()) || textsend(fingerprint)) \
                   FROM regionwise.seals(ARRAY['9']), regionwise.install";
    let holds = admin.text(&format!("SELECT ({nothing})::text")).await;
    assert_eq!(holds.as_deref(), Some("true"));
}

#[tokio::test]
async fn a_seal_is_of_one_installed_schema() {
    let world = World::new().await;
    let admin = world.us.admin().await;
    let proven = seal(&admin, 1).await;
    // As `install` leaves it after DDL that wrote no row.
    let installed = "UPDATE regionwise.install SET fingerprint = md5(fingerprint)";
    admin.must(installed).await;
    assert_ne!(seal(&admin, 1).await, proven);
}

/// Each leaves names and types of the columns, and the versions of the rows, as they were.
const OTHER_VALUES: [&str; 2] = [
    "ALTER TABLE orders DROP COLUMN note, ADD COLUMN note text",
    "ALTER TABLE parts RENAME COLUMN txt TO other; ALTER TABLE parts ADD COLUMN txt text; ALTER TABLE parts DROP COLUMN other",
];

#[tokio::test]
async fn a_schema_that_gives_the_same_rows_other_values_is_another_one() {
    let world = World::new().await;
    let admin = world.us.admin().await;
    let same =
        "SELECT count(*) FROM regionwise.install WHERE fingerprint = regionwise.fingerprint()";
    let proven = seal(&admin, 1).await;
    for change in OTHER_VALUES {
        admin.must("BEGIN").await;
        admin.must(change).await;
        assert_eq!(seal(&admin, 1).await, proven, "a row was written: {change}");
        assert_eq!(admin.number(same).await, 0, "{change}");
        admin.must("ROLLBACK").await;
    }
    // A table that is only written anew, with all its values, is not.
    admin
        .must("ALTER TABLE orders ADD COLUMN more int NOT NULL DEFAULT 7")
        .await;
    admin
        .must("UPDATE regionwise.install SET fingerprint = regionwise.fingerprint()")
        .await;
    admin.must("VACUUM FULL orders").await;
    assert_eq!(admin.number(same).await, 1);
}

#[tokio::test]
async fn a_type_that_gets_another_attribute_makes_another_schema() {
    let world = World::new().await;
    let admin = world.us.admin().await;
    let same =
        "SELECT count(*) FROM regionwise.install WHERE fingerprint = regionwise.fingerprint()";
    admin
        .must("CREATE TYPE place AS (street text); CREATE TYPE way AS (past place); CREATE DOMAIN trip AS place[]; \
               ALTER TABLE orders ADD COLUMN at place, ADD COLUMN ways place[], ADD COLUMN past way, ADD COLUMN trips trip")
        .await;
    for column in ["at", "ways", "past", "trips"] {
        admin
            .must("UPDATE regionwise.install SET fingerprint = regionwise.fingerprint()")
            .await;
        assert_eq!(admin.number(same).await, 1);
        admin.must("ALTER TYPE place ADD ATTRIBUTE town text").await;
        assert_eq!(admin.number(same).await, 0, "{column}");
        admin
            .must(&format!(
                "ALTER TYPE place DROP ATTRIBUTE town; ALTER TABLE orders DROP COLUMN {column}"
            ))
            .await;
    }
}
