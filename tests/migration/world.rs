//! Two databases, a `regions.toml` and the real binary: what a test of `migrate-eu-users` begins with.
//!
//! Every call of the binary has a directory of its own and connections through links of its own, which a test can cut.
//! What the databases hold is read with SQL that owes nothing to the program under test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, OnceCell};

use crate::link::Link;
use crate::servers::{Database, Server};
use crate::session::Session;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_migrate-eu-users");

/// What a test waits for at most; only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Servers of the worlds alone: `install` makes roles, and those belong to the whole server.
pub(crate) static EAST: LazyLock<Server> = LazyLock::new(|| Server::start("east"));
pub(crate) static WEST: LazyLock<Server> = LazyLock::new(|| Server::start("west"));

/// A product's tables, and whose each row is.
pub(crate) struct Schema {
    /// Prefix of its template databases.
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
    /// Fills the source; `{users}` stands for their number.
    pub(crate) rows: &'static str,
    /// Of `[migration]`: who moves.
    pub(crate) users: &'static str,
    /// More lines of `regions.toml`.
    pub(crate) rules: &'static str,
    /// Each table with a query of the columns `usr` and `line`.
    pub(crate) owned: &'static [(&'static str, &'static str)],
}

/// Direct and indirect rows, a composite key, a tree, partitions, an enum array, a generated column.
pub(crate) static WIDE: Schema = Schema {
    name: "wide",
    sql: "
CREATE TYPE mood AS ENUM ('calm', 'glad', 'cross');
CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, billing_country text NOT NULL,
  counter bigint NOT NULL DEFAULT 0, balance bigint NOT NULL DEFAULT 1000);
CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, seq bigint NOT NULL, note text);
CREATE INDEX ON orders (user_id);
CREATE TABLE items (id bigint PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, qty int NOT NULL);
CREATE INDEX ON items (order_id);
CREATE TABLE parts (order_id bigint REFERENCES orders ON DELETE CASCADE, line int, txt text, PRIMARY KEY (order_id, line));
CREATE TABLE comments (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, parent_id bigint REFERENCES comments, txt text);
CREATE INDEX ON comments (user_id);
CREATE INDEX ON comments (parent_id);
CREATE TABLE events (id bigint, user_id bigint NOT NULL REFERENCES users, k int, what text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE events_0 PARTITION OF events FOR VALUES IN (0);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
CREATE INDEX ON events (user_id);
CREATE TABLE labels (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, moods mood[], price numeric NOT NULL,
  doubled numeric GENERATED ALWAYS AS (price * 2) STORED, body jsonb, payload bytea);
CREATE INDEX ON labels (user_id);
",
    rows: "
INSERT INTO users SELECT u, 'u' || u || '@example.com', (ARRAY['DE', 'FR', 'US', 'IE'])[u % 4 + 1] FROM generate_series(1, {users}) u;
INSERT INTO comments SELECT u * 10 + c, u, CASE WHEN c > 1 THEN u * 10 + c - 1 END, 'c' || c FROM generate_series(1, {users}) u, generate_series(1, 3) c;
INSERT INTO events SELECT u * 10 + e, u, e % 2, 'e' || e FROM generate_series(1, {users}) u, generate_series(1, 2) e;
INSERT INTO labels (id, user_id, moods, price, body, payload) SELECT u, u, ARRAY['glad', NULL, 'cross']::mood[], u / 4.0, jsonb_build_object('u', u), decode(md5(u::text), 'hex')
  FROM generate_series(1, {users}) u;
",
    users: "billing_country IN ('DE', 'FR', 'IE')",
    rules: "",
    owned: &[
        ("users", "SELECT id::text AS usr, t::text AS line FROM users t"),
        ("orders", "SELECT user_id::text AS usr, t::text AS line FROM orders t"),
        ("items", "SELECT o.user_id::text AS usr, t::text AS line FROM items t JOIN orders o ON o.id = t.order_id"),
        ("parts", "SELECT o.user_id::text AS usr, t::text AS line FROM parts t JOIN orders o ON o.id = t.order_id"),
        ("comments", "SELECT user_id::text AS usr, t::text AS line FROM comments t"),
        ("events", "SELECT user_id::text AS usr, t::text AS line FROM events t"),
        ("labels", "SELECT user_id::text AS usr, t::text AS line FROM labels t"),
    ],
};

/// Users of a world, few enough that a batch of 4 has company.
pub(crate) const USERS: i64 = 12;

/// Roles of a whole server, made once: `shopper` writes as the product does, `carrier` moves, `auditor` only reads.
const ROLES: &str = "
CREATE ROLE shopper LOGIN; CREATE ROLE carrier LOGIN; CREATE ROLE auditor LOGIN;
CREATE ROLE regionwise_move NOLOGIN; CREATE ROLE regionwise_verify NOLOGIN;
GRANT SET ON PARAMETER session_replication_role TO regionwise_move;
";

/// A standby that is gone is another test's subject.
const ALONE: [&str; 2] = [
    "ALTER SYSTEM SET synchronous_standby_names = ''",
    "SELECT pg_reload_conf()",
];

/// For the product's tables of a template.
const GRANTS: &str = "GRANT ALL ON ALL TABLES IN SCHEMA public TO shopper;";

/// Two installations at once would make the same rights of the same roles.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// The two servers of a world.
#[derive(Clone, Copy)]
pub(crate) struct Servers {
    pub(crate) us: &'static Server,
    pub(crate) eu: &'static Server,
}

impl Servers {
    pub(crate) fn shared() -> Self {
        Self {
            us: &EAST,
            eu: &WEST,
        }
    }

    /// Makes the roles, once for each server.
    async fn roles(self) {
        for server in [self.us, self.eu] {
            let admin = server.session("postgres", "postgres").await;
            let there = "SELECT count(*) FROM pg_roles WHERE rolname = 'shopper'";
            if admin.number(there).await == 0 {
                admin.must(ROLES).await;
                for setting in ALONE {
                    admin.must(setting).await;
                }
            }
        }
    }
}

/// Both databases of one test.
pub(crate) struct World {
    pub(crate) us: Database,
    pub(crate) eu: Database,
    pub(crate) schema: &'static Schema,
    pub(crate) users: i64,
    directory: tempfile::TempDir,
}

/// Templates of `WIDE` on the shared servers, with the fence in them.
static READY: OnceCell<()> = OnceCell::const_new();

impl World {
    /// The schema in both, [`USERS`] users in the source, no fence.
    pub(crate) async fn new(schema: &'static Schema) -> Self {
        Self::bare(Servers::shared(), schema, USERS).await
    }

    pub(crate) async fn bare(servers: Servers, schema: &'static Schema, users: i64) -> Self {
        let world = Self::empty(servers, "template1", schema, users).await;
        {
            let _one = INSTALLING.lock().await;
            servers.roles().await;
        }
        let (us, eu) = (world.us.admin().await, world.eu.admin().await);
        us.must(schema.sql).await;
        eu.must(schema.sql).await;
        us.must(&schema.rows.replace("{users}", &users.to_string()))
            .await;
        us.must(GRANTS).await;
        eu.must(GRANTS).await;
        world
    }

    /// [`WIDE`] with the fence installed; a copy of templates that are made once.
    pub(crate) async fn ready() -> Self {
        let servers = Servers::shared();
        READY
            .get_or_init(|| Self::template(servers, &WIDE, USERS))
            .await;
        Self::copy(servers, &WIDE, USERS).await
    }

    /// Makes the databases that [`Self::copy`] copies.
    pub(crate) async fn template(servers: Servers, schema: &'static Schema, users: i64) {
        let world = Self::bare(servers, schema, users).await;
        world.install().await.expect(0);
        for database in [&world.us, &world.eu] {
            let name = &database.name;
            let admin = database.server.session("postgres", "postgres").await;
            let busy = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
            while admin.number(&busy).await > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let copy = format!("CREATE DATABASE {} TEMPLATE {name}", schema.name);
            admin.must(&copy).await;
        }
    }

    pub(crate) async fn copy(servers: Servers, schema: &'static Schema, users: i64) -> Self {
        Self::empty(servers, schema.name, schema, users).await
    }

    async fn empty(servers: Servers, template: &str, schema: &'static Schema, users: i64) -> Self {
        let (us, eu) = tokio::join!(servers.us.database(template), servers.eu.database(template));
        let directory = tempfile::tempdir().unwrap();
        Self {
            us,
            eu,
            schema,
            users,
            directory,
        }
    }

    pub(crate) async fn install(&self) -> Finished {
        let _one = INSTALLING.lock().await;
        self.tool(&["install", "--mover", "carrier", "--verifier", "auditor"])
            .finish()
            .await
    }

    /// The hash of the plan that the binary makes.
    pub(crate) async fn plan(&self) -> String {
        let finished = self.tool(&["plan"]).finish().await.expect(0);
        finished.json["result"]["plan"]["hash"]
            .as_str()
            .unwrap_or_else(|| panic!("no hash: {}", finished.json))
            .to_owned()
    }

    /// A call of the binary, from a directory where nobody has been.
    pub(crate) fn tool(&self, words: &[&str]) -> Call {
        let directory = tempfile::tempdir_in(self.directory.path()).unwrap().keep();
        let links = [&self.us, &self.eu].map(|database| Link::to(database.server.port));
        std::fs::write(directory.join("regions.toml"), self.regions_toml()).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .args(words)
            .args(["--format", "json", "--ci", "none"])
            .current_dir(&directory)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("USER", "tester")
            .env("HOSTNAME", directory.file_name().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (name, link, database) in [("US", &links[0], &self.us), ("EU", &links[1], &self.eu)] {
            for (role, user) in [
                ("INSTALL", "postgres"),
                ("MOVE", "carrier"),
                ("VERIFY", "auditor"),
            ] {
                let dsn = format!(
                    "postgres://{user}@127.0.0.1:{}/{}",
                    link.port, database.name
                );
                command.env(format!("{name}_{role}_DSN"), dsn);
            }
        }
        Call {
            command,
            hold: directory.join("held"),
            links,
        }
    }

    /// `run` or `revert` in batches of 4.
    pub(crate) fn moving(&self, verb: &str, plan: &str, more: &[&str]) -> Call {
        let words = [&[verb, "--plan", plan, "--batch-size", "4"], more].concat();
        self.tool(&words)
    }

    fn regions_toml(&self) -> String {
        let Schema { users, rules, .. } = self.schema;
        format!(
            r#"
[product]
name = "shop"
[ssh]
known_hosts = "known_hosts"
identity = "env:NONE"
[regions.home]
location = "ash"
traffic = 1.0
cluster = "us"
url = "https://shop.example"
[regions.home.hosts.web-1]
address = "203.0.113.7"
tls = false
[clusters.us]
primary = {{ name = "us-primary", location = "ash", dsn = "env:US_INSTALL_DSN" }}
standbys = []
[clusters.eu]
primary = {{ name = "eu-primary", location = "fsn1", dsn = "env:EU_INSTALL_DSN" }}
standbys = []
[migration]
from = "us"
to = "eu"
root = "users"
users = "{users}"
route_cache_ttl = "1s"
[migration.roles]
install = {{ from = "env:US_INSTALL_DSN", to = "env:EU_INSTALL_DSN" }}
move = {{ from = "env:US_MOVE_DSN", to = "env:EU_MOVE_DSN" }}
verify = {{ from = "env:US_VERIFY_DSN", to = "env:EU_VERIFY_DSN" }}
{rules}
"#
        )
    }

    /// A directory that ends with the world, for files of a test.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// What stands where.
impl World {
    /// All lines of all tables, by user and table.
    pub(crate) async fn dump(&self, database: &Database) -> BTreeMap<String, BTreeSet<String>> {
        let admin = database.admin().await;
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (table, sql) in self.schema.owned {
            for row in admin.client.query(*sql, &[]).await.unwrap() {
                let (user, line): (String, String) = (row.get(0), row.get(1));
                let lines = found.entry(user).or_default();
                assert!(
                    lines.insert(format!("{table} {line}")),
                    "{table} {line} twice"
                );
            }
        }
        found
    }

    /// State and epoch by user.
    pub(crate) async fn routes(&self, database: &Database) -> BTreeMap<String, (String, i64)> {
        let admin = database.admin().await;
        let sql = "SELECT usr, state, epoch FROM regionwise.route";
        let rows = admin.client.query(sql, &[]).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), (row.get(1), row.get(2))))
            .collect()
    }

    /// Where each user is at home; panics when a user has two homes or none.
    pub(crate) async fn homes(&self) -> BTreeMap<String, &Database> {
        let (us, eu) = (self.routes(&self.us).await, self.routes(&self.eu).await);
        let owns = |route: Option<&(String, i64)>| {
            route.is_some_and(|(state, _)| state == "home" || state == "active")
        };
        let mut homes = BTreeMap::new();
        for user in 1..=self.users {
            let user = user.to_string();
            let home = match (us.get(&user), eu.get(&user)) {
                // From before the installation.
                (None, None) => &self.us,
                (here, there) => match (owns(here), owns(there)) {
                    (true, false) => &self.us,
                    (false, true) => &self.eu,
                    _ => panic!("the routes of user {user} are {here:?} and {there:?}"),
                },
            };
            homes.insert(user, home);
        }
        homes
    }

    /// Users whom nobody serves now: released by one side and not taken over by the other.
    pub(crate) async fn between(&self) -> Vec<String> {
        // In the order of the move, there or back: whoever is on the way is not missed.
        let (us, eu) = (self.routes(&self.us).await, self.routes(&self.eu).await);
        let again = self.routes(&self.us).await;
        let owns = |routes: &BTreeMap<String, (String, i64)>, user: &String| {
            routes
                .get(user)
                .is_none_or(|(state, _)| state == "home" || state == "active")
        };
        let there = |user: &String| eu.contains_key(user) && owns(&eu, user);
        let all = us.keys().cloned();
        all.filter(|user| !owns(&us, user) && !there(user) && !owns(&again, user))
            .collect()
    }

    /// Of these, who is in the hands of nobody, or of the process `pid`, which is gone: another runner at work may have
    /// some on their way, and one that was killed before it keeps those that nobody has taken over yet.
    pub(crate) async fn left_between(&self, pid: Option<u32>) -> Vec<String> {
        let between = self.between().await;
        let mut others = BTreeSet::new();
        for database in [&self.us, &self.eu] {
            let sql = "SELECT m.usr FROM regionwise.member m JOIN regionwise.batch b USING (run, batch) \
                       WHERE m.usr = ANY($1) AND b.state = 'open' AND b.holder NOT LIKE '%, pid ' || $2";
            let pid = pid.map_or_else(String::new, |pid| pid.to_string());
            let admin = database.admin().await;
            let rows = admin.client.query(sql, &[&between, &pid]).await.unwrap();
            others.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        // Whoever arrived while we looked was in good hands too.
        let still = self.between().await;
        let left = between.into_iter().filter(|user| !others.contains(user));
        left.filter(|user| still.contains(user)).collect()
    }

    /// Whether everybody has one home, and the own row in it.
    pub(crate) async fn nobody_lost(&self) {
        let (us, eu) = (self.dump(&self.us).await, self.dump(&self.eu).await);
        for (user, home) in self.homes().await {
            let rows = if std::ptr::eq(home, &raw const self.us) {
                us.get(&user)
            } else {
                eu.get(&user)
            };
            let own = format!("users ({user},");
            assert!(
                rows.is_some_and(|rows| rows.iter().any(|line| line.starts_with(&own))),
                "user {user} has no row at home"
            );
        }
    }

    /// Who of the users that the migration is about are at home in `database`.
    pub(crate) async fn at_home(&self, database: &Database) -> Vec<String> {
        let homes = self.homes().await;
        homes
            .into_iter()
            .filter(|(_, home)| std::ptr::eq(*home, database))
            .map(|(user, _)| user)
            .collect()
    }

    /// Users whom the migration is about.
    pub(crate) async fn chosen(&self) -> Vec<String> {
        let sql = format!(
            "SELECT id::text FROM users WHERE {} ORDER BY 1",
            self.schema.users
        );
        let mut found = BTreeSet::new();
        for database in [&self.us, &self.eu] {
            let rows = database
                .admin()
                .await
                .client
                .query(&sql, &[])
                .await
                .unwrap();
            found.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        found.into_iter().collect()
    }

    /// Rows at `database` of users who neither live there nor have left it by a move: staged rows that nobody took away.
    pub(crate) async fn leftovers(&self, database: &Database) -> Vec<String> {
        let routes = self.routes(database).await;
        let rows = self.dump(database).await;
        rows.into_iter()
            .filter(|(user, _)| match routes.get(user) {
                Some((state, _)) => !["home", "active", "moved"].contains(&state.as_str()),
                None => !std::ptr::eq(database, &raw const self.us),
            })
            .flat_map(|(_, lines)| lines)
            .collect()
    }

    /// Waits until no session of the mover is left, and with it no lock; the server may need a moment to notice.
    pub(crate) async fn no_locks_left(&self) {
        for database in [&self.us, &self.eu] {
            let admin = database.admin().await;
            let sql = "SELECT string_agg(concat_ws(' ', application_name, state, left(query, 100)), '; ') \
                       FROM pg_stat_activity WHERE datname = current_database() AND usename = 'carrier'";
            eventually("the mover's sessions are gone", async || {
                admin.text(sql).await.map_or(Ok(()), Err)
            })
            .await;
            let locks = "SELECT string_agg(l.locktype || ' ' || l.mode || ' of ' || a.usename, '; ') \
                         FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                         WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                         AND a.usename <> 'shopper'";
            assert_eq!(admin.text(locks).await, None);
        }
    }
}

/// Looks again and again until it is so; at the end says what was seen last.
pub(crate) async fn eventually(what: &str, look: impl AsyncFn() -> Result<(), String>) {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(()) => return,
            Err(seen) if began.elapsed() > PATIENCE => panic!("never {what}: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

impl Database {
    /// A session of the product.
    pub(crate) async fn shopper(&self) -> Session {
        self.server.session("shopper", &self.name).await
    }
}

/// A call of the binary that has not begun.
pub(crate) struct Call {
    pub(crate) command: Command,
    hold: PathBuf,
    /// Its ways to the source and to the target of `[migration]`.
    pub(crate) links: [Link; 2],
}

impl Call {
    /// It stops at this point, `NAME` or `NAME#N`.
    pub(crate) fn hold(mut self, point: &str) -> Self {
        self.command
            .env("REGIONWISE_HOLD_AT", point)
            .env("REGIONWISE_HOLD_FILE", &self.hold);
        self
    }

    pub(crate) fn start(mut self) -> Running {
        Running {
            child: self.command.spawn().unwrap(),
            hold: self.hold,
            links: self.links,
        }
    }

    pub(crate) async fn finish(self) -> Finished {
        self.start().finish().await
    }
}

/// A call under way.
pub(crate) struct Running {
    child: Child,
    hold: PathBuf,
    pub(crate) links: [Link; 2],
}

impl Running {
    /// Waits until it holds; false when it ended without having come there.
    pub(crate) async fn is_held(&mut self) -> bool {
        let began = Instant::now();
        loop {
            if self.hold.exists() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "neither held nor ended");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Lets it go on.
    pub(crate) fn release(&self) {
        let _ = std::fs::remove_file(&self.hold);
    }

    /// None when it is over.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// `name` as `kill` knows it. It may be gone already, and then nothing happens.
    pub(crate) fn signal(&self, name: &str) {
        if let Some(pid) = self.child.id() {
            let kill = std::process::Command::new("kill")
                .args([&format!("-{name}"), &pid.to_string()])
                .stderr(Stdio::null())
                .status();
            kill.unwrap();
        }
    }

    /// Ends it as a power failure would.
    pub(crate) async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) async fn finish(self) -> Finished {
        let Self { child, links, .. } = self;
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
        let output = output.await.expect("it hangs").unwrap();
        drop(links);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Finished {
            code: output.status.code(),
            json: serde_json::from_str(&said).unwrap_or(Value::Null),
            said,
            told: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A call that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    /// None when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) json: Value,
    pub(crate) said: String,
    pub(crate) told: String,
}

impl Finished {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.said, self.told);
        self
    }
}
