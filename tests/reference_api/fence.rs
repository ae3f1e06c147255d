//! A small fence and mover, written for these tests from the contract alone: routes, the home lock, MV001, the declaration. What it
//! leaves out (chains of owners, old snapshots, verification) is not the product's business.

use std::sync::atomic::{AtomicU64, Ordering};

use regionwise_lab::{Lab, Options};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// Stricter than the real one: an order must be declared for its own user, and a sign-up must not carry the declaration of
/// whoever had the server connection before.
const INSTALL: &str = "
BEGIN;
CREATE TABLE regionwise.install (signup boolean NOT NULL);
CREATE TABLE regionwise.route (usr text PRIMARY KEY, state text NOT NULL, epoch bigint NOT NULL DEFAULT 0);
CREATE FUNCTION regionwise.refuse(u text, why text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- A sequence keeps what the refusal takes back.
    IF to_regclass('regionwise.hits_' || u) IS NOT NULL THEN PERFORM nextval('regionwise.hits_' || u); END IF;
    RAISE EXCEPTION 'user % is not written here: %', u, why USING ERRCODE = 'MV001';
END $$;
CREATE FUNCTION regionwise.check_home(u text, declared text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r regionwise.route; BEGIN
    PERFORM pg_advisory_xact_lock_shared(7701, hashtext(u));
    SELECT * INTO r FROM regionwise.route WHERE usr = u;
    IF r.usr IS NULL OR r.state NOT IN ('home', 'active') OR r.epoch::text <> declared THEN
        PERFORM regionwise.refuse(u, coalesce(r.state, 'no route'));
    END IF;
END $$;
CREATE FUNCTION regionwise.fence_users() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF current_setting('regionwise.mover', true) = 'on' THEN RETURN NEW; END IF;
    IF TG_OP = 'INSERT' AND current_setting('regionwise.uid', true) <> '' THEN
        RAISE EXCEPTION 'a sign-up that says it is user %', current_setting('regionwise.uid', true);
    END IF;
    IF TG_OP = 'INSERT' AND (SELECT signup FROM regionwise.install) THEN
        INSERT INTO regionwise.route VALUES (NEW.id::text, 'home') ON CONFLICT DO NOTHING;
    END IF;
    PERFORM regionwise.check_home(NEW.id::text, NULL);
    RETURN NEW;
END $$;
CREATE FUNCTION regionwise.fence_orders() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF current_setting('regionwise.mover', true) = 'on' THEN RETURN NEW; END IF;
    IF current_setting('regionwise.uid', true) IS DISTINCT FROM NEW.user_id::text THEN
        RAISE EXCEPTION 'an order of user % in a transaction for user %', NEW.user_id, current_setting('regionwise.uid', true);
    END IF;
    PERFORM regionwise.check_home(NEW.user_id::text, NULL);
    RETURN NEW;
END $$;
CREATE FUNCTION regionwise.fence_declared() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM regionwise.check_home(current_setting('regionwise.uid'), current_setting('regionwise.epoch'));
    RETURN NULL;
END $$;
CREATE FUNCTION regionwise.sign_up(u text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN INSERT INTO regionwise.route VALUES (u, 'active') ON CONFLICT DO NOTHING; RETURN FOUND; END $$;
CREATE TRIGGER \"~regionwise\" BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION regionwise.fence_users();
CREATE TRIGGER \"~regionwise\" BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION regionwise.fence_orders();
CREATE TRIGGER \"~regionwise_1\" BEFORE INSERT OR UPDATE ON orders FOR EACH STATEMENT
    WHEN (current_setting('regionwise.uid', true) <> '') EXECUTE FUNCTION regionwise.fence_declared();
CREATE TRIGGER \"~regionwise_1\" BEFORE INSERT OR UPDATE ON users FOR EACH STATEMENT
    WHEN (current_setting('regionwise.uid', true) <> '') EXECUTE FUNCTION regionwise.fence_declared();
GRANT SELECT ON regionwise.route, regionwise.install TO shop;";

const REMOVE: &str = "
BEGIN;
DROP TRIGGER \"~regionwise\" ON users;
DROP TRIGGER \"~regionwise\" ON orders;
DROP TRIGGER \"~regionwise_1\" ON orders;
DROP TRIGGER \"~regionwise_1\" ON users;
DROP FUNCTION regionwise.refuse, regionwise.check_home, regionwise.fence_users, regionwise.fence_orders,
    regionwise.fence_declared, regionwise.sign_up;
DROP TABLE regionwise.install, regionwise.route;
COMMIT;";

/// Both primaries, as their superuser.
pub(crate) struct Clusters {
    pub(crate) us: Client,
    pub(crate) eu: Client,
}

impl Clusters {
    pub(crate) async fn of(lab: &Lab) -> Self {
        Self {
            us: connect(lab, "us").await,
            eu: connect(lab, "eu").await,
        }
    }

    /// Makes everybody who is there already at home where their row is, as an install does.
    pub(crate) async fn install(&self) {
        for (client, signup, state) in [(&self.us, true, "home"), (&self.eu, false, "active")] {
            let sql = format!(
                "{INSTALL} INSERT INTO regionwise.install VALUES ({signup});
                 INSERT INTO regionwise.route SELECT id::text, '{state}' FROM users; COMMIT;"
            );
            client.batch_execute(&sql).await.unwrap();
        }
    }

    pub(crate) async fn remove(&self) {
        for client in [&self.us, &self.eu] {
            client.batch_execute(REMOVE).await.unwrap();
        }
    }
}

async fn connect(lab: &Lab, cluster: &str) -> Client {
    let variable = format!("LAB_{}_PRIMARY_ADMIN_DSN", cluster.to_uppercase());
    let (client, connection) = tokio_postgres::connect(&lab.env()[&variable], NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

/// A lab with the fence, for all tests that need one; never dropped, it ends with this process.
pub(crate) async fn fenced() -> &'static Lab {
    static FENCED: OnceCell<Lab> = OnceCell::const_new();
    FENCED
        .get_or_init(|| async {
            let start = || Lab::start(&Options::full(env!("CARGO_BIN_EXE_lab")));
            let lab = tokio::task::spawn_blocking(start)
                .await
                .unwrap()
                .unwrap_or_else(|error| panic!("{error}"));
            Clusters::of(&lab).await.install().await;
            lab
        })
        .await
}

/// One user's way from one cluster to the other.
pub(crate) struct Move<'a> {
    pub(crate) from: &'a Client,
    pub(crate) to: &'a Client,
    pub(crate) user: i64,
}

impl Move<'_> {
    /// Copies beforehand, then copies the rest under the home lock and takes the home away.
    pub(crate) async fn release(&self) {
        let user = self.user;
        let stage = format!(
            "INSERT INTO regionwise.route VALUES ('{user}', 'staging')
             ON CONFLICT (usr) DO UPDATE SET state = 'staging'"
        );
        self.to.batch_execute(&stage).await.unwrap();
        self.copy().await;
        let fence = format!("BEGIN; SELECT pg_advisory_xact_lock(7701, hashtext('{user}'))");
        self.from.batch_execute(&fence).await.unwrap();
        self.copy().await;
        let release = format!(
            "UPDATE regionwise.route SET state = 'moved', epoch = epoch + 1 WHERE usr = '{user}'; COMMIT"
        );
        self.from.batch_execute(&release).await.unwrap();
    }

    /// Gives the home to the other side.
    pub(crate) async fn activate(&self) {
        let user = self.user;
        let sql = format!("SELECT epoch FROM regionwise.route WHERE usr = '{user}'");
        let epoch: i64 = self.from.query_one(&sql, &[]).await.unwrap().get(0);
        let activate = format!(
            "BEGIN; SELECT pg_advisory_xact_lock(7701, hashtext('{user}'));
             UPDATE regionwise.route SET state = 'active', epoch = {epoch} WHERE usr = '{user}'; COMMIT"
        );
        self.to.batch_execute(&activate).await.unwrap();
    }

    async fn copy(&self) {
        for (table, owner) in [("users", "id"), ("orders", "user_id")] {
            let sql = format!(
                "SELECT coalesce(json_agg(t), '[]')::text FROM {table} t WHERE {owner} = {}",
                self.user
            );
            let rows: String = self.from.query_one(&sql, &[]).await.unwrap().get(0);
            // No quotes in these tests' rows.
            let insert = format!(
                "BEGIN; SET LOCAL regionwise.mover = 'on';
                 INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, '{rows}') ON CONFLICT DO NOTHING;
                 COMMIT"
            );
            self.to.batch_execute(&insert).await.unwrap();
        }
    }
}

/// Counts the refusals of one user's writes from now on.
pub(crate) struct Hits<'a> {
    cluster: &'a Client,
    user: i64,
}

impl<'a> Hits<'a> {
    pub(crate) async fn of(cluster: &'a Client, user: i64) -> Self {
        let sql = format!("CREATE SEQUENCE regionwise.hits_{user}");
        cluster.batch_execute(&sql).await.unwrap();
        Self { cluster, user }
    }

    pub(crate) async fn count(&self) -> i64 {
        let sql = format!(
            "SELECT coalesce(pg_sequence_last_value('regionwise.hits_{}'), 0)",
            self.user
        );
        self.cluster.query_one(&sql, &[]).await.unwrap().get(0)
    }
}

/// A key nobody has used.
pub(crate) fn fresh_key() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("00000000-0000-4000-a000-{number:012}")
}
