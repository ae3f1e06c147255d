//! How much a run reads: a batch costs what its own users' rows cost, however full the table is by then.

use crate::world::{Schema, World};

static DEEP: Schema = Schema {
    name: "deep",
    sql: "
CREATE TABLE users (id bigint PRIMARY KEY);
CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users);
CREATE INDEX ON orders (user_id);
CREATE TABLE items (id bigint PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders);
CREATE INDEX ON items (order_id);
",
    rows: "
INSERT INTO users SELECT generate_series(1, {users});
INSERT INTO orders SELECT 10 * u + o, u FROM generate_series(1, {users}) u, generate_series(1, 2) o;
INSERT INTO items SELECT 10 * o.id + i, o.id FROM orders o, generate_series(1, 2) i;
ANALYZE;
",
    users: "true",
    rules: "",
    owned: &[],
};

const USERS: i64 = 3_000;

/// The target looks at a row when it is proven and when it is sealed, at an order both times also on the way to its items:
/// 16 reads for a user's 6 rows.
const READS: i64 = 16;

#[tokio::test]
async fn a_batch_reads_its_own_rows_in_a_table_without_statistics() {
    let world = World::bare(crate::world::Servers::shared(), &DEEP, USERS).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    let east = world.eu.admin().await;
    // As where autovacuum has not come by yet.
    for table in ["orders", "items"] {
        east.must(&format!(
            "ALTER TABLE {table} SET (autovacuum_enabled = false)"
        ))
        .await;
    }
    // So many users that the planner, left alone, takes them for most of the table.
    let run = [
        "run",
        "--plan",
        &plan,
        "--batch-size",
        "250",
        "--lanes",
        "1",
    ];
    world.tool(&run).finish().await.expect(0);
    // A session tells what it has read when it ends.
    east.must("SELECT pg_stat_force_next_flush()").await;
    let read = east
        .number(
            "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables \
             WHERE relname IN ('orders', 'items')",
        )
        .await;
    let (least, most) = (USERS * READS, USERS * READS * 3 / 2);
    assert!(
        read >= least,
        "{read} rows read, {least} expected: not all was counted"
    );
    assert!(read <= most, "{read} rows read, {least} expected");
}
