//! The schema of the attacks: users, orders, three levels below them, a tree, composite keys, partitions; its closure;
//! and a small mover that works with the real functions.

use std::io::Cursor;
use std::sync::LazyLock;

use futures_util::{SinkExt as _, StreamExt as _, pin_mut};
use regionwise_relocation::catalog::{
    Column, Identity, Persistence, Table, TableKind, TableName, Type,
};
use regionwise_relocation::closure::{Closure, Link, Member, Owner, Reference};
use regionwise_relocation::sql::install::{self, Terms};
use regionwise_relocation::sql::select;
use regionwise_relocation::tuple::{CopyReader, TupleWriter};
use tokio::sync::OnceCell;

use crate::servers::{Database, EU, Server, US};
use crate::session::{Said, Session};

pub(crate) const SCHEMA: &str = "
CREATE TABLE users(id bigint PRIMARY KEY, email text UNIQUE);
CREATE TABLE orders(id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE, note text, n int NOT NULL DEFAULT 0);
CREATE INDEX ON orders(user_id);
CREATE TABLE items(id bigint PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE, qty int);
CREATE INDEX ON items(order_id);
CREATE TABLE gifts(id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE, order_id bigint REFERENCES orders ON DELETE SET NULL ON UPDATE CASCADE);
CREATE INDEX ON gifts(user_id); CREATE INDEX ON gifts(order_id);
CREATE TABLE comments(id bigint PRIMARY KEY, order_id bigint REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE,
  parent_id bigint REFERENCES comments ON DELETE CASCADE, txt text, CHECK (num_nonnulls(order_id, parent_id) = 1));
CREATE INDEX ON comments(order_id); CREATE INDEX ON comments(parent_id);
CREATE TABLE parts(order_id bigint REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE, line int, txt text, PRIMARY KEY(order_id, line));
CREATE TABLE part_notes(id bigint PRIMARY KEY, order_id bigint NOT NULL, line int NOT NULL, txt text,
  FOREIGN KEY(order_id, line) REFERENCES parts ON DELETE CASCADE ON UPDATE CASCADE);
CREATE INDEX ON part_notes(order_id, line);
CREATE TABLE logs(id bigint, user_id bigint NOT NULL REFERENCES users, k int, PRIMARY KEY(id, k)) PARTITION BY LIST(k);
CREATE TABLE logs1 PARTITION OF logs FOR VALUES IN (1); CREATE TABLE logs2 PARTITION OF logs FOR VALUES IN (2);
CREATE INDEX ON logs(user_id);
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
GRANT USAGE, CREATE ON SCHEMA public TO app;
";

/// Users 1 to 3, each with the same rows; user 1 has order 10 with item 100, and so on.
pub(crate) fn fixture() -> String {
    let each = (1..=3).map(|u| {
        let o = u * 10;
        format!(
            "INSERT INTO users VALUES({u},'e{u}'); INSERT INTO orders VALUES({o},{u},'o'); INSERT INTO items VALUES({o}0,{o},1);
             INSERT INTO parts VALUES({o},1,'p'); INSERT INTO part_notes VALUES({o}0,{o},1,'pn');
             INSERT INTO comments VALUES({o}0,{o},null,'c'),({o}1,null,{o}0,'re'),({o}2,null,{o}1,'re re');
             INSERT INTO gifts VALUES({o}0,{u},{o}); INSERT INTO logs VALUES({o},{u},1);"
        )
    });
    each.collect()
}

pub(crate) const TABLES: [&str; 8] = [
    "users",
    "orders",
    "items",
    "gifts",
    "comments",
    "parts",
    "part_notes",
    "logs",
];

fn link(column: &[&str], parent: usize, parent_columns: &[&str]) -> Link {
    Link {
        columns: column.iter().map(|name| (*name).to_owned()).collect(),
        parent,
        parent_columns: parent_columns
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
        operators: column.iter().map(|_| "pg_catalog.=".to_owned()).collect(),
        deferrable: false,
        nullable: false,
    }
}

fn nullable(link: Link) -> Link {
    Link {
        nullable: true,
        ..link
    }
}

/// The closure of [`SCHEMA`], with columns as the server has them.
pub(crate) async fn closure(session: &Session) -> Closure {
    let owners = [
        Owner::Root,
        Owner::Through(vec![link(&["user_id"], 0, &["id"])]),
        Owner::Through(vec![link(&["order_id"], 1, &["id"])]),
        Owner::Through(vec![link(&["user_id"], 0, &["id"])]),
        Owner::Through(vec![
            nullable(link(&["order_id"], 1, &["id"])),
            nullable(link(&["parent_id"], 4, &["id"])),
        ]),
        Owner::Through(vec![link(&["order_id"], 1, &["id"])]),
        Owner::Through(vec![link(&["order_id", "line"], 5, &["order_id", "line"])]),
        Owner::Through(vec![link(&["user_id"], 0, &["id"])]),
    ];
    let mut tables = Vec::new();
    for (name, owner) in TABLES.iter().zip(owners) {
        tables.push(Member {
            table: table(session, name).await,
            owner,
            references: Vec::new(),
        });
    }
    tables[3].references.push(Reference {
        name: "gifts_order_id_fkey".to_owned(),
        columns: vec!["order_id".to_owned()],
        references: TableName::new("public", "orders"),
        referenced_columns: vec!["id".to_owned()],
        operators: vec!["pg_catalog.=".to_owned()],
    });
    Closure { tables }
}

/// A table as the server describes it, as far as statements need to know.
pub(crate) async fn table(session: &Session, name: &str) -> Table {
    let sql = format!(
        "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), ns.nspname || '.' || s.proname, a.attnotnull,
                a.attgenerated <> '', a.attidentity = 'a',
                t.typtype = 'c' OR (e.typtype IN ('e', 'c') AND t.typelem <> 0),
                oc.nspname || '.' || o.oprname
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typsubscript = 'array_subscript_handler'::regproc
         LEFT JOIN pg_proc s ON s.oid = t.typsend LEFT JOIN pg_namespace ns ON ns.oid = s.pronamespace
         LEFT JOIN pg_opclass c ON c.opcintype = t.oid AND c.opcdefault AND c.opcmethod = 403
         LEFT JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amoplefttype = t.oid AND m.amoprighttype = t.oid AND m.amopstrategy = 3
         LEFT JOIN pg_operator o ON o.oid = m.amopopr LEFT JOIN pg_namespace oc ON oc.oid = o.oprnamespace
         WHERE a.attrelid = 'public.{name}'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    );
    // So that names of types come with their schemas.
    session.must("SET search_path = pg_catalog").await;
    let rows = session.client.query(sql.as_str(), &[]).await.unwrap();
    session.must("RESET search_path").await;
    let columns = rows
        .iter()
        .map(|row| Column {
            name: row.get(0),
            kind: Type {
                name: row.get(1),
                send: row.get(2),
                carries_oids: row.get::<_, Option<bool>>(6).unwrap_or(false),
                local: false,
                equals: row.get(7),
            },
            not_null: row.get(3),
            generated: row.get::<_, bool>(4).then(String::new),
            identity: row.get::<_, bool>(5).then_some(Identity::Always),
            default: None,
            collation: None,
        })
        .collect();
    let names = async |sql: String| -> Vec<String> {
        let rows = session.client.query(sql.as_str(), &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let primary_key = names(format!(
        "SELECT a.attname::text FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY k(n, place)
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
         WHERE i.indrelid = 'public.{name}'::regclass AND i.indisprimary ORDER BY k.place"
    ));
    let partitions = names(format!(
        "SELECT c.relname::text FROM pg_partition_tree('public.{name}') p JOIN pg_class c ON c.oid = p.relid
         WHERE p.relid <> 'public.{name}'::regclass ORDER BY 1"
    ));
    let (primary_key, partitions) = (primary_key.await, partitions.await);
    Table {
        name: TableName::new("public", name),
        kind: if partitions.is_empty() {
            TableKind::Ordinary
        } else {
            TableKind::Partitioned
        },
        columns,
        primary_key,
        indexes: Vec::new(),
        partitions: partitions
            .into_iter()
            .map(|name| TableName::new("public", name))
            .collect(),
        triggers: Vec::new(),
        rewrites: Vec::new(),
        late_keys: Vec::new(),
        row_security: false,
        forced_row_security: false,
        estimated_rows: -1,
        bytes: 0,
        filtered_publications: Vec::new(),
        subscriptions: Vec::new(),
        inherits: false,
        persistence: Persistence::Permanent,
    }
}

pub(crate) fn terms(cluster: &str, signup: bool) -> Terms {
    Terms {
        cluster: cluster.to_owned(),
        class: 7701,
        signup,
        adopt: false,
        shape: "shape".to_owned(),
        movers: vec!["mover".to_owned()],
        verifiers: vec!["verifier".to_owned()],
    }
}

const ROLES: &str = "CREATE ROLE app LOGIN; CREATE ROLE mover LOGIN; CREATE ROLE verifier LOGIN; \
    GRANT SET ON PARAMETER session_replication_role TO app; GRANT pg_signal_backend TO mover";

/// The template databases `bare` (schema only) and `shop` (fence too, and at the source the fixture).
pub(crate) async fn prepare(server: &'static Server, cluster: &str, signup: bool) -> Closure {
    let admin = server.session("postgres", "postgres").await;
    admin.must(ROLES).await;
    admin.must("CREATE DATABASE bare").await;
    let bare = server.session("postgres", "bare").await;
    bare.must(SCHEMA).await;
    let closure = closure(&bare).await;
    drop(bare);
    admin.must("CREATE DATABASE shop TEMPLATE bare").await;
    let shop = server.session("postgres", "shop").await;
    shop.must(&install::script(&closure, &terms(cluster, signup)))
        .await;
    shop.must(
        "INSERT INTO regionwise.run (run, plan, direction, salt, state) VALUES ('r', 'p', 'there', decode(repeat('5a', 32), 'hex'), 'running')",
    )
    .await;
    if signup {
        shop.must(&fixture()).await;
    }
    drop(shop);
    // A template must have no sessions; those just closed may need a moment.
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname IN ('bare', 'shop')";
    while admin.number(busy).await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    closure
}

static PREPARED: LazyLock<OnceCell<Closure>> = LazyLock::new(OnceCell::new);

async fn prepared() -> &'static Closure {
    PREPARED
        .get_or_init(|| async {
            let (closure, _) = tokio::join!(prepare(&US, "us", true), prepare(&EU, "eu", false));
            closure
        })
        .await
}

/// Both databases of one test: users 1, 2 and 3 live in `us`.
pub(crate) struct World {
    pub(crate) us: Database,
    eu: Option<Database>,
    pub(crate) closure: &'static Closure,
}

impl World {
    pub(crate) async fn new() -> Self {
        let closure = prepared().await;
        let (us, eu) = tokio::join!(US.database("shop"), EU.database("shop"));
        Self {
            us,
            eu: Some(eu),
            closure,
        }
    }

    /// Only the source: for attacks that need no more.
    pub(crate) async fn source() -> Self {
        Self {
            closure: prepared().await,
            us: US.database("shop").await,
            eu: None,
        }
    }

    pub(crate) fn eu(&self) -> &Database {
        self.eu.as_ref().expect("a world with a target")
    }

    /// P1: the user's route at the target is `staging` with this token.
    pub(crate) async fn stage(&self, user: i64, token: i64) -> String {
        let mover = self.eu().mover().await;
        Change::of(user)
            .to("staging", 0, token)
            .wait()
            .apply(&mover)
            .await
    }

    /// P2: the user's rows, as the real statements copy them, in one transaction of the mover.
    pub(crate) async fn copy(&self, user: i64, token: i64) {
        let (from, to) = tokio::join!(self.us.mover(), self.eu().mover());
        to.must("BEGIN").await;
        enter(&to, user, token, "staging").await.unwrap();
        for number in 0..self.closure.tables.len() {
            copy_table(self.closure, number, user, &from, &to).await;
        }
        to.must("COMMIT").await;
    }

    /// P1 and P2.
    pub(crate) async fn arrive(&self, user: i64) {
        assert_eq!(self.stage(user, 1).await, "changed");
        self.copy(user, 1).await;
    }

    /// P6: home to moved, with the digest of the rows as they are now.
    pub(crate) async fn release(&self, user: i64) -> String {
        release(&self.us, user).await
    }

    /// P7: staging to active, if the digest is the one of P6.
    pub(crate) async fn activate(&self, user: i64) -> String {
        let digest = self.us.released(user).await;
        let mover = self.eu().mover().await;
        Change::of(user)
            .from("staging", 0, 1)
            .to("active", 1, 1)
            .digest(digest)
            .apply(&mover)
            .await
    }

    /// All of it.
    pub(crate) async fn transfer(&self, user: i64) {
        self.arrive(user).await;
        assert_eq!(self.release(user).await, "changed");
        assert_eq!(self.activate(user).await, "changed");
    }
}

pub(crate) async fn release(database: &Database, user: i64) -> String {
    let mover = database.mover().await;
    let now = database.digest(user).await;
    let change = Change::of(user).from("home", 0, None).to("moved", 1, 1);
    change.digest(now).apply(&mover).await
}

impl Database {
    /// The digest of a user's rows as they are.
    pub(crate) async fn digest(&self, user: i64) -> Vec<u8> {
        let admin = self.admin().await;
        let sql = "SELECT digest FROM regionwise.digests('r', ARRAY[$1])";
        let row = admin.client.query_one(sql, &[&user.to_string()]).await;
        row.unwrap().get(0)
    }

    /// The digest in the route.
    pub(crate) async fn released(&self, user: i64) -> Vec<u8> {
        let admin = self.admin().await;
        let sql = "SELECT digest FROM regionwise.route WHERE usr = $1";
        let row = admin.client.query_one(sql, &[&user.to_string()]).await;
        row.unwrap().get(0)
    }

    /// Whether a moved user's rows are what the commit point saw.
    pub(crate) async fn is_frozen(&self, user: i64) -> bool {
        self.digest(user).await == self.released(user).await
    }

    pub(crate) async fn route(&self, user: i64) -> Option<String> {
        let admin = self.admin().await;
        let sql =
            format!("SELECT state || ' ' || epoch FROM regionwise.route WHERE usr = '{user}'");
        admin.text(&sql).await
    }

    /// Takes a rule out of a function: `old` must stand in it.
    pub(crate) async fn weaken(&self, function: &str, old: &str, new: &str) {
        let admin = self.admin().await;
        let sql = "SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = 'regionwise'::regnamespace AND p.proname ~ $1";
        let pattern = format!("^{function}$");
        let rows = admin.client.query(sql, &[&pattern]).await.unwrap();
        let mut changed = 0;
        for row in rows {
            let text: String = row.get(0);
            if text.contains(old) {
                changed += 1;
                admin.must(&text.replace(old, new)).await;
            }
        }
        assert!(changed > 0, "no {function} has `{old}`");
    }
}

/// One call of `regionwise.change` for one user.
pub(crate) struct Change {
    user: String,
    from: Option<(String, i64, Option<i64>)>,
    to: (String, i64, Option<i64>),
    digest: Option<Vec<u8>>,
    wait: bool,
    claim: Option<(i32, i64)>,
}

impl Change {
    pub(crate) fn of(user: i64) -> Self {
        Self {
            user: user.to_string(),
            from: None,
            to: ("staging".to_owned(), 0, None),
            digest: None,
            wait: false,
            claim: None,
        }
    }

    pub(crate) fn from(mut self, state: &str, epoch: i64, token: impl Into<Option<i64>>) -> Self {
        self.from = Some((state.to_owned(), epoch, token.into()));
        self
    }

    pub(crate) fn to(mut self, state: &str, epoch: i64, token: impl Into<Option<i64>>) -> Self {
        self.to = (state.to_owned(), epoch, token.into());
        self
    }

    pub(crate) fn digest(mut self, digest: Vec<u8>) -> Self {
        self.digest = Some(digest);
        self
    }

    pub(crate) fn wait(mut self) -> Self {
        self.wait = true;
        self
    }

    pub(crate) fn claim(mut self, batch: i32, token: i64) -> Self {
        self.claim = Some((batch, token));
        self
    }

    /// The outcome, or the SQLSTATE.
    pub(crate) async fn apply(self, mover: &Session) -> String {
        let (state, epoch, token) = match self.from {
            Some((state, epoch, token)) => (Some(state), Some(epoch), token),
            None => (None, None, None),
        };
        let (batch, claim) = self.claim.unzip();
        let (to, to_epoch, to_token) = self.to;
        let answer = mover
            .client
            .query_one(
                "SELECT outcome FROM regionwise.change('r', ARRAY[$1], ARRAY[$2], ARRAY[$3::bigint], ARRAY[$4::bigint],
                     ARRAY[$5], ARRAY[$6::bigint], ARRAY[$7::bigint], ARRAY[$8::bytea], NULL, $9, $10, $11)",
                &[
                    &self.user, &state, &epoch, &token, &to, &to_epoch, &to_token, &self.digest,
                    &self.wait, &batch, &claim,
                ],
            )
            .await;
        match answer {
            Ok(row) => row.get(0),
            Err(error) => match error.code() {
                Some(code) if code.code().starts_with("MV") || code.code() == "55P03" => {
                    code.code().to_owned()
                }
                _ => panic!("{}", crate::session::told(&error)),
            },
        }
    }
}

pub(crate) async fn enter(mover: &Session, user: i64, token: i64, state: &str) -> Said {
    mover
        .run(&format!(
            "SELECT regionwise.enter('r', {token}, ARRAY['{user}'], '{state}')"
        ))
        .await
}

/// Sends one table's rows of a user from one session to the other, as the mover does.
pub(crate) async fn copy_table(
    closure: &Closure,
    number: usize,
    user: i64,
    from: &Session,
    to: &Session,
) -> u64 {
    let member = &closure.tables[number];
    let user = user.to_string();
    let sql = select::copy_out(closure, number, &[user.as_str()]);
    let stream = from.client.copy_out(sql.as_str()).await.unwrap();
    let columns = member.columns_by_name();
    let mut reader = CopyReader::new(u16::try_from(columns.len() + 1).unwrap());
    let mut writer = TupleWriter::new();
    pin_mut!(stream);
    while let Some(piece) = stream.next().await {
        reader.push(&piece.unwrap());
        while let Some(tuple) = reader.next().unwrap() {
            let fields: Vec<Option<&[u8]>> = tuple.fields().collect();
            assert_eq!(fields[0], Some(user.as_bytes()));
            let kept = fields[1..].iter().zip(&columns);
            let kept: Vec<Option<&[u8]>> = kept
                .filter(|(_, column)| column.generated.is_none())
                .map(|(field, _)| *field)
                .collect();
            writer.append(kept);
        }
    }
    writer.trailer();
    if member.travels_as_text() {
        to.must(&select::temporary(closure, number)).await;
    }
    let sql = select::copy_in(closure, number);
    let sink = to.client.copy_in::<_, Cursor<Vec<u8>>>(sql.as_str()).await;
    let sink = sink.unwrap();
    pin_mut!(sink);
    sink.send(Cursor::new(writer.take())).await.unwrap();
    let rows = sink.finish().await.unwrap();
    if member.travels_as_text() {
        to.must(&select::insert(closure, number)).await;
    }
    rows
}
