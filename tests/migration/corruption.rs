//! One table of corruptions, each planted where a row can go wrong: on the wire from the source, on the wire to the
//! target, in rows that were proven and wait, and in rows that have moved.
//!
//! Whatever it is: nobody is activated with it, and what is said names the row and the column, never a value.

mod wire;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio::sync::OnceCell;

use crate::scenarios::all_at_once;
use crate::session::Session;
use crate::world::{Finished, Schema, Servers, World};
use wire::{Forged, Forgery, Wire};

/// A column of every kind that a comparison may be blind to.
static VAULT: Schema = Schema {
    name: "vault",
    sql: "
CREATE TYPE mood AS ENUM ('calm', 'glad', 'cross');
CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, counter bigint NOT NULL DEFAULT 0);
CREATE TABLE vault (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, word text, alias text, at timestamptz,
  num numeric, doubled numeric GENERATED ALWAYS AS (num * 2) STORED, ratio float8, thin float4, big bigint, small int,
  flag boolean, doc jsonb, payload bytea, grid int[], span interval, day date, token uuid, code char(8));
CREATE INDEX ON vault (user_id);
CREATE TABLE notes (id bigint PRIMARY KEY, vault_id bigint NOT NULL REFERENCES vault, txt text);
CREATE INDEX ON notes (vault_id);
CREATE TABLE tags (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, moods mood[]);
CREATE INDEX ON tags (user_id);
",
    // Of each user: a full row, one of empty and special values, one of the two that collide, one of NULLs.
    rows: "
INSERT INTO users SELECT u, 'canary' || u || '@example.com' FROM generate_series(1, {users}) u;
INSERT INTO vault (id, user_id, word, alias, at, num, ratio, thin, big, small, flag, doc, payload, grid, span, day, token, code)
  SELECT u * 10 + 1, u, 'canary-word', 'canary-Jos' || chr(233), '2024-03-31 01:59:59.123456+00', 1234567890.5, 0.3, 0.1, 123456789012,
    7, true, '{\"x\": 1.0, \"gone\": null}', '\\x0102030405', '{1,2}', '1 mon', '2024-02-29',
    '6c1d9c3e-51d2-4c80-b5b1-0d3b0c2a9f10', 'canary' FROM generate_series(1, {users}) u;
INSERT INTO vault (id, user_id, num, ratio, thin, big, small, payload, at, day)
  SELECT u * 10 + 2, u, 1.0, 0, 0, 5, 8, '\\xa0a1a2a3a4', 'infinity', 'infinity' FROM generate_series(1, {users}) u;
INSERT INTO vault (id, user_id, word, alias) SELECT u * 10 + 3, u, 'balance-35434', 'balance-97609' FROM generate_series(1, {users}) u;
INSERT INTO vault (id, user_id) SELECT u * 10 + 4, u FROM generate_series(1, {users}) u;
INSERT INTO notes SELECT u, u * 10 + 1, 'canary-note' FROM generate_series(1, {users}) u;
INSERT INTO tags SELECT u, u, '{calm,NULL,glad}' FROM generate_series(1, {users}) u;
",
    users: "true",
    rules: "",
    owned: &[
        ("users", "SELECT id::text AS usr, t::text AS line FROM users t"),
        ("vault", "SELECT user_id::text AS usr, t::text AS line FROM vault t"),
        ("notes", "SELECT v.user_id::text AS usr, t::text AS line FROM notes t JOIN vault v ON v.id = t.vault_id"),
        ("tags", "SELECT user_id::text AS usr, t::text AS line FROM tags t"),
    ],
};

/// What must be said of a row.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// It differs in this column.
    Column(&'static str),
    Missing,
    Extra,
}

/// `{u}` is the user, `{v}` another one.
struct Case {
    name: &'static str,
    table: &'static str,
    sql: &'static str,
    says: Says,
}

const fn value(name: &'static str, column: &'static str, sql: &'static str) -> Case {
    Case {
        name,
        table: "vault",
        sql,
        says: Says::Column(column),
    }
}

const fn row(name: &'static str, table: &'static str, says: Says, sql: &'static str) -> Case {
    Case {
        name,
        table,
        sql,
        says,
    }
}

/// The first eighteen are those that casts to text, coarse hashes and counts were seen to miss.
const CASES: &[Case] = &[
    value(
        "null to empty",
        "word",
        "UPDATE vault SET word = '' WHERE id = {u}2",
    ),
    value(
        "null to a space",
        "word",
        "UPDATE vault SET word = ' ' WHERE id = {u}2",
    ),
    value(
        "a space at the end",
        "word",
        "UPDATE vault SET word = word || ' ' WHERE id = {u}1",
    ),
    value(
        "a microsecond",
        "at",
        "UPDATE vault SET at = at + interval '1 us' WHERE id = {u}1",
    ),
    value(
        "half a second",
        "at",
        "UPDATE vault SET at = at + interval '0.5 s' WHERE id = {u}1",
    ),
    value(
        "a float's last bit",
        "ratio",
        "UPDATE vault SET ratio = 0.1::float8 + 0.2::float8 WHERE id = {u}1",
    ),
    value(
        "negative zero",
        "ratio",
        "UPDATE vault SET ratio = '-0' WHERE id = {u}2",
    ),
    value(
        "a float's fourth decimal",
        "ratio",
        "UPDATE vault SET ratio = 0.3001 WHERE id = {u}1",
    ),
    value(
        "a number's scale",
        "num",
        "UPDATE vault SET num = 1.00 WHERE id = {u}2",
    ),
    value(
        "a number's eleventh decimal",
        "num",
        "UPDATE vault SET num = num + 0.00000000001 WHERE id = {u}1",
    ),
    value(
        "a twelve-digit bigint",
        "big",
        "UPDATE vault SET big = big + 1 WHERE id = {u}1",
    ),
    value(
        "null to false",
        "flag",
        "UPDATE vault SET flag = false WHERE id = {u}2",
    ),
    value(
        "null to a word for null",
        "word",
        "UPDATE vault SET word = '<null>' WHERE id = {u}2",
    ),
    value(
        "a pair that collides in 32 bits",
        "word",
        "UPDATE vault SET word = 'balance-97609' WHERE id = {u}3",
    ),
    value(
        "composed to decomposed",
        "alias",
        "UPDATE vault SET alias = normalize(alias, NFD) WHERE id = {u}1",
    ),
    value(
        "one bit of bytes",
        "payload",
        "UPDATE vault SET payload = set_bit(payload, 0, 1 - get_bit(payload, 0)) WHERE id = {u}1",
    ),
    value(
        "a scale in a document",
        "doc",
        "UPDATE vault SET doc = '{\"x\": 1.00, \"gone\": null}' WHERE id = {u}1",
    ),
    value(
        "null to zero",
        "word",
        "UPDATE vault SET word = '0' WHERE id = {u}2",
    ),
    // What sums, counts and comparisons by key miss.
    row(
        "a missing row",
        "vault",
        Says::Missing,
        "DELETE FROM vault WHERE id = {u}2",
    ),
    row(
        "a missing row of nulls",
        "vault",
        Says::Missing,
        "DELETE FROM vault WHERE id = {u}4",
    ),
    row(
        "an extra row of nulls",
        "vault",
        Says::Extra,
        "INSERT INTO vault (id, user_id) VALUES ({u}5, {u})",
    ),
    row(
        "a row twice, under another key",
        "vault",
        Says::Extra,
        "INSERT INTO vault (id, user_id, word, alias) SELECT {u}5, user_id, word, alias FROM vault WHERE id = {u}3",
    ),
    row(
        "a row of another user",
        "vault",
        Says::Missing,
        "UPDATE vault SET user_id = {v} WHERE id = {u}4",
    ),
    row(
        "a key that changed",
        "vault",
        Says::Missing,
        "UPDATE vault SET id = {u}6 WHERE id = {u}4",
    ),
    value(
        "two rows with each other's bytes",
        "payload",
        "UPDATE vault SET payload = (SELECT o.payload FROM vault o WHERE o.id / 10 = vault.id / 10 AND o.id <> vault.id AND o.id % 10 < 3) WHERE id IN ({u}1, {u}2)",
    ),
    value(
        "two changes that cancel in a sum",
        "big",
        "UPDATE vault SET big = big + CASE id % 10 WHEN 1 THEN 1 ELSE -1 END WHERE id IN ({u}1, {u}2)",
    ),
    value(
        "two changes that cancel in an xor",
        "payload",
        "UPDATE vault SET payload = set_byte(payload, 1, get_byte(payload, 1) # 255) WHERE id IN ({u}1, {u}2)",
    ),
    value(
        "a colliding pair with each other's columns",
        "alias",
        "UPDATE vault SET word = alias, alias = word WHERE id = {u}3",
    ),
    value(
        "two columns with each other's values",
        "small",
        "UPDATE vault SET small = 5, big = 8 WHERE id = {u}2",
    ),
    // Values that look alike.
    value(
        "bounds of an array",
        "grid",
        "UPDATE vault SET grid = '[0:1]={1,2}' WHERE id = {u}1",
    ),
    value(
        "dimensions of an array",
        "grid",
        "UPDATE vault SET grid = '{{1,2}}' WHERE id = {u}1",
    ),
    value(
        "a zero byte at the end",
        "payload",
        "UPDATE vault SET payload = payload || '\\x00' WHERE id = {u}1",
    ),
    value(
        "a month of thirty days",
        "span",
        "UPDATE vault SET span = '30 days' WHERE id = {u}1",
    ),
    value(
        "infinity with the other sign",
        "at",
        "UPDATE vault SET at = '-infinity' WHERE id = {u}2",
    ),
    value(
        "before Christ",
        "day",
        "UPDATE vault SET day = '0001-12-31 BC' WHERE id = {u}1",
    ),
    value(
        "not a number",
        "ratio",
        "UPDATE vault SET ratio = 'NaN' WHERE id = {u}2",
    ),
    value(
        "a digit of a uuid",
        "token",
        "UPDATE vault SET token = '6c1d9c3e-51d2-4c80-b5b1-0d3b0c2a9f11' WHERE id = {u}1",
    ),
    value(
        "a key of a document that held null",
        "doc",
        "UPDATE vault SET doc = doc - 'gone' WHERE id = {u}1",
    ),
    value(
        "a small float's last bit",
        "thin",
        "UPDATE vault SET thin = '0.10000001' WHERE id = {u}1",
    ),
    value(
        "a letter of padded text",
        "code",
        "UPDATE vault SET code = 'canarY' WHERE id = {u}1",
    ),
    row(
        "an enum array in another order",
        "tags",
        Says::Column("moods"),
        "UPDATE tags SET moods = '{glad,NULL,calm}' WHERE id = {u}",
    ),
    row(
        "an enum array without its null",
        "tags",
        Says::Column("moods"),
        "UPDATE tags SET moods = '{calm,glad}' WHERE id = {u}",
    ),
    row(
        "a grandchild of another parent",
        "notes",
        Says::Column("vault_id"),
        "UPDATE notes SET vault_id = {u}3 WHERE id = {u}",
    ),
    row(
        "a grandchild's text",
        "notes",
        Says::Column("txt"),
        "UPDATE notes SET txt = 'canary-nota' WHERE id = {u}",
    ),
    row(
        "the user's own row",
        "users",
        Says::Column("email"),
        "UPDATE users SET email = 'Canary{u}@example.com' WHERE id = {u}",
    ),
];

impl Case {
    fn of(&self, user: i64, other: i64) -> String {
        self.sql
            .replace("{u}", &user.to_string())
            .replace("{v}", &other.to_string())
    }

    /// One value of one row.
    fn is_a_value(&self) -> bool {
        matches!(self.says, Says::Column(_)) && self.table == "vault"
    }

    /// Whether this is the row, and what is the matter with it.
    fn is_told(&self, user: i64, mismatch: &Value) -> bool {
        let rows = mismatch["rows"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let named = rows.iter().any(|row| {
            let table = row["table"].as_str().unwrap_or_default();
            let key = row["key"][0].as_str().unwrap_or_default();
            let how = &row["how"];
            let word = how["difference"].as_str();
            let columns = how["columns"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let right = match self.says {
                Says::Column(column) => columns.iter().any(|each| each == column),
                Says::Missing => word == Some("missing-at-target"),
                Says::Extra => word == Some("extra-at-target"),
            };
            right && table.ends_with(self.table) && key.starts_with(&user.to_string())
        });
        named && mismatch["user"] == user.to_string().as_str()
    }
}

/// What no report may show: parts of the rows' values.
#[track_caller]
fn tells_no_value(finished: &Finished) {
    let all = format!("{}{}", finished.said, finished.told).to_lowercase();
    for value in ["canary", "balance-", "123456789012", "6c1d9c3e", "@example"] {
        assert!(!all.contains(value), "`{value}` in {all}");
    }
}

/// How a session leaves the fence, the foreign keys and the triggers aside.
const ASIDE: &str = "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL ROLE regionwise_move; \
                     SET LOCAL regionwise.entered = 'staging by hand'";

static READY: OnceCell<()> = OnceCell::const_new();

/// Two users of each case: the one that it is about, and the other.
async fn vault() -> World {
    let users = i64::try_from(CASES.len()).unwrap() + 1;
    let servers = Servers::shared();
    READY
        .get_or_init(|| World::template(servers, &VAULT, users))
        .await;
    World::copy(servers, &VAULT, users).await
}

fn user_of(place: usize) -> i64 {
    i64::try_from(place).unwrap() + 1
}

/// As if no run had ever been.
async fn forget(world: &World) {
    for database in [&world.us, &world.eu] {
        let admin = database.admin().await;
        admin
            .must(
                "DELETE FROM regionwise.member; DELETE FROM regionwise.batch; DELETE FROM regionwise.journal; \
                 DELETE FROM regionwise.run; DELETE FROM regionwise.route",
            )
            .await;
    }
}

/// One run, in which one COPY says what `twin` sees.
async fn lied_to(world: &World, plan: &str, forgery: Forgery) -> Finished {
    let (place, name) = match forgery.wire {
        Wire::FromSource => (0, "US_MOVE_DSN"),
        Wire::ToTarget => (1, "EU_MOVE_DSN"),
    };
    let database = [&world.us, &world.eu][place];
    let mut call = all_at_once(world, plan);
    let forged = Forged::on_the_way_to(call.links[place].port, forgery).await;
    let dsn = format!(
        "postgres://carrier@127.0.0.1:{}/{}",
        forged.port, database.name
    );
    call.command.env(name, dsn);
    let finished = call.finish().await;
    assert!(
        forged.was_heard(),
        "nobody copied: {}{}",
        finished.said,
        finished.told
    );
    finished
}

async fn twin(world: &World, corrupt: &str) -> Session {
    let twin = world.us.admin().await;
    twin.must(&format!("{ASIDE}; {corrupt}")).await;
    twin
}

/// Cases on one wire, each in a run of its own.
async fn on_the_wire(wire: Wire, meant: impl Fn(usize, &Case) -> bool) {
    let world = vault().await;
    let plan = world.plan().await;
    let before = world.dump(&world.us).await;
    let shopper = world.us.shopper().await;
    let mut failed = Vec::new();
    for (place, case) in CASES.iter().enumerate() {
        if !meant(place, case) {
            continue;
        }
        let user = user_of(place);
        let twin = twin(&world, &case.of(user, user + 1)).await;
        let forgery = Forgery {
            wire,
            table: case.table,
            twin: twin.clone(),
            cut: 0,
        };
        let finished = lied_to(&world, &plan, forgery).await;
        twin.must("ROLLBACK").await;
        tells_no_value(&finished);
        let mismatch = &finished.json["result"]["mismatch"];
        if finished.code != Some(10)
            || finished.json["reason"] != "mismatch"
            || !case.is_told(user, mismatch)
        {
            failed.push(format!(
                "{}: {:?} {}{}",
                case.name, finished.code, finished.said, finished.told
            ));
        }
        // Everybody works on at the source, and nothing is at the target.
        assert_eq!(
            world.at_home(&world.eu).await,
            Vec::<String>::new(),
            "{}",
            case.name
        );
        assert!(world.dump(&world.eu).await.is_empty(), "{}", case.name);
        let write = format!("UPDATE users SET counter = counter + 1 WHERE id = {user}");
        assert_eq!(shopper.run(&write).await, Ok(1), "{}", case.name);
        shopper
            .must(&format!("UPDATE users SET counter = 0 WHERE id = {user}"))
            .await;
        forget(&world).await;
    }
    assert!(failed.is_empty(), "{failed:#?}");
    world.moving("run", &plan, &[]).finish().await.expect(0);
    assert_eq!(world.dump(&world.eu).await, before);
}

/// Every value on one of the two ways, everything else on both.
#[tokio::test]
async fn nothing_that_the_source_did_not_say_is_activated() {
    on_the_wire(Wire::FromSource, |place, case| {
        place % 2 == 0 && case.is_a_value()
    })
    .await;
}

#[tokio::test]
async fn no_row_that_the_source_did_not_say_is_activated() {
    on_the_wire(Wire::FromSource, |_, case| !case.is_a_value()).await;
}

#[tokio::test]
async fn nothing_that_changed_on_the_way_to_the_target_is_activated() {
    on_the_wire(Wire::ToTarget, |place, case| {
        place % 2 == 1 && case.is_a_value()
    })
    .await;
}

#[tokio::test]
async fn no_row_that_changed_on_the_way_to_the_target_is_activated() {
    on_the_wire(Wire::ToTarget, |_, case| !case.is_a_value()).await;
}

#[tokio::test]
#[ignore = "torture"]
async fn torture_every_corruption_on_both_ways() {
    on_the_wire(Wire::FromSource, |_, _| true).await;
    on_the_wire(Wire::ToTarget, |_, _| true).await;
}

/// The last bytes are lost, but the COPY ends as if it were whole.
#[tokio::test]
async fn a_copy_that_ends_too_early_is_no_copy() {
    // Two bytes are the end mark, on which nothing hangs; with more the last row is not whole. What the source says is then
    // asked for once more.
    for (wire, cut) in [
        (Wire::FromSource, 2),
        (Wire::FromSource, 9),
        (Wire::ToTarget, 2),
        (Wire::ToTarget, 9),
    ] {
        let world = vault().await;
        let plan = world.plan().await;
        let before = world.dump(&world.us).await;
        let forgery = Forgery {
            wire,
            table: "vault",
            twin: twin(&world, "SELECT 1").await,
            cut,
        };
        let finished = lied_to(&world, &plan, forgery).await;
        tells_no_value(&finished);
        let harmless = cut == 2 || wire == Wire::FromSource;
        assert_eq!(
            finished.code == Some(0),
            harmless,
            "{wire:?} {cut}: {finished:?}"
        );
        let rows = world.dump(&world.eu).await;
        for user in world.at_home(&world.eu).await {
            assert_eq!(rows[&user], before[&user], "{wire:?} {cut}");
        }
    }
}

/// Every user with another corruption, in rows that were proven and wait for their release.
#[tokio::test]
async fn what_changed_after_the_proof_is_mended_before_anybody_sees_it() {
    let world = vault().await;
    let plan = world.plan().await;
    let before = world.dump(&world.us).await;
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    corrupt_all(&world).await;
    assert_eq!(
        differing(&before, &world.dump(&world.eu).await).len(),
        CASES.len() + 1
    );
    call.release();
    let finished = call.finish().await.expect(0);
    assert_eq!(finished.json["result"]["moved"], before.len());
    let after = world.dump(&world.eu).await;
    assert_eq!(differing(&before, &after), BTreeSet::new());
    world.verify().await.expect(0);
}

/// Every user with another corruption, in rows that nobody but `verify` looks at any more.
#[tokio::test]
async fn what_changes_in_moved_rows_is_found_by_verify() {
    let world = vault().await;
    let plan = world.plan().await;
    all_at_once(&world, &plan).finish().await.expect(0);
    world.verify().await.expect(0);
    corrupt_all(&world).await;
    let finished = world.verify().await.expect(10);
    tells_no_value(&finished);
    let wrong = finished.json["result"]["wrong"].as_array().unwrap();
    let mut unseen = Vec::new();
    for (place, case) in CASES.iter().enumerate() {
        let user = user_of(place);
        let found = wrong
            .iter()
            .find(|one| one["user"] == user.to_string().as_str());
        if !found.is_some_and(|one| case.is_told(user, &one["what"]["about"])) {
            unseen.push(format!("{}: {found:?}", case.name));
        }
    }
    assert!(unseen.is_empty(), "{unseen:#?}");
}

/// At the target.
async fn corrupt_all(world: &World) {
    let admin = world.eu.admin().await;
    admin.must(ASIDE).await;
    let last = user_of(CASES.len());
    for (place, case) in CASES.iter().enumerate() {
        admin.must(&case.of(user_of(place), last)).await;
    }
    admin.must("COMMIT").await;
}

fn differing(
    one: &BTreeMap<String, BTreeSet<String>>,
    other: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeSet<String> {
    let users = one.keys().chain(other.keys());
    users
        .filter(|user| one.get(*user) != other.get(*user))
        .cloned()
        .collect()
}

/// A target that cannot hold the rows as they are: its user comes back, whenever it turns out.
#[tokio::test]
async fn a_target_that_changes_rows_for_ever_gives_its_user_back() {
    let world = vault().await;
    let plan = world.plan().await;
    let before = world.dump(&world.us).await;
    let mut call = all_at_once(&world, &plan).hold("shipped").start();
    assert!(call.is_held().await);
    let admin = world.eu.admin().await;
    admin
        .must(
            "CREATE FUNCTION lower_it() RETURNS trigger LANGUAGE plpgsql AS \
               'BEGIN NEW.word := upper(NEW.word); RETURN NEW; END'; \
             CREATE TRIGGER always BEFORE INSERT OR UPDATE ON vault FOR EACH ROW EXECUTE FUNCTION lower_it(); \
             ALTER TABLE vault ENABLE ALWAYS TRIGGER always",
        )
        .await;
    admin
        .must(&format!(
            "{ASIDE}; UPDATE vault SET big = 4 WHERE id = 31; COMMIT"
        ))
        .await;
    call.release();
    let finished = call.finish().await.expect(10);
    tells_no_value(&finished);
    let mismatch = &finished.json["result"]["mismatch"];
    assert_eq!(mismatch["user"], "3", "{}", finished.said);
    assert_eq!(mismatch["rows"][0]["key"][0], "31");
    assert!(
        mismatch["rows"][0]["how"]["columns"]
            .as_array()
            .unwrap()
            .contains(&"word".into()),
        "{}",
        finished.said
    );
    assert!(world.at_home(&world.us).await.contains(&"3".to_owned()));
    assert_eq!(
        world
            .us
            .shopper()
            .await
            .run("UPDATE vault SET big = 6 WHERE id = 31")
            .await,
        Ok(1)
    );
    // Whoever has moved has moved whole.
    let rows = world.dump(&world.eu).await;
    for user in world.at_home(&world.eu).await {
        assert_eq!(rows[&user], before[&user]);
    }
    world.no_locks_left().await;
    // Once the cause is gone: the run that gave the user up is finished first, the next one brings it.
    admin.must("DROP TRIGGER always ON vault").await;
    all_at_once(&world, &plan).finish().await.expect(10);
    all_at_once(&world, &plan).finish().await.expect(0);
    assert_eq!(world.at_home(&world.us).await, Vec::<String>::new());
    world.verify().await.expect(0);
}
