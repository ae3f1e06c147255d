//! The product behind the fence that `migrate-eu-users install` makes, in the lab's own accounts, and the mover's own functions.

use std::time::Duration;

use regionwise_lab::{Lab, Options};
use regionwise_mover::survey;
use regionwise_postgres::{Dsn, Options as SessionOptions, Session};
use regionwise_relocation::catalog::TableName;
use regionwise_relocation::closure::discover;
use regionwise_relocation::closure::rules::Rules;
use regionwise_relocation::sql::install::{Terms, script};
use tokio_postgres::{Client, NoTls};

use crate::fence::{Clusters, fresh_key};
use crate::homes::{Way, everywhere, keys_of, move_under_requests, new_user, place, route};

const RUN: &str = "by-hand";

fn dsn(lab: &Lab, cluster: &str, role: &str) -> String {
    lab.env()[&format!("LAB_{}_{role}_DSN", cluster.to_uppercase())].clone()
}

async fn connect(dsn: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn install(lab: &Lab) {
    for (cluster, signup) in [("us", true), ("eu", false)] {
        let dsn = dsn(lab, cluster, "INSTALL");
        let options = SessionOptions {
            application_name: "install".to_owned(),
            connect_within: Duration::from_secs(10),
            answer_within: Duration::from_secs(10),
            allow_plaintext: false,
        };
        let mut session = Session::open(&Dsn::parse(&dsn).unwrap(), &options)
            .await
            .unwrap();
        let catalog = survey::catalog(&mut session).await.unwrap();
        let found = discover(&catalog, &TableName::written("users"), &Rules::default()).unwrap();
        assert!(found.refused.is_empty(), "{:?}", found.refused);
        let terms = Terms {
            cluster: cluster.to_owned(),
            class: 7701,
            signup,
            adopt: true,
            shape: "by hand".to_owned(),
            movers: vec!["regionwise_mover".to_owned()],
            verifiers: vec!["regionwise_verifier".to_owned()],
        };
        let sql = script(&found.closure, &terms);
        let client = connect(&dsn).await;
        client.batch_execute(&sql).await.unwrap();
    }
}

/// One cluster, as the mover.
struct Side(Client);

/// What a route should be and become.
struct Change<'a> {
    user: i64,
    /// State and epoch; `None` where there is no route.
    from: Option<(String, i64)>,
    to: (&'a str, i64),
    token: i64,
    digest: Option<&'a [u8]>,
}

impl Side {
    async fn of(lab: &Lab, cluster: &str) -> Self {
        let client = connect(&dsn(lab, cluster, "MOVE")).await;
        let sql = format!(
            "SET ROLE regionwise_move; SET lock_timeout = '2s';
             INSERT INTO regionwise.run (run, plan, direction, salt, state)
             VALUES ('{RUN}', '', '', decode(repeat('5a', 32), 'hex'), 'running')"
        );
        client.batch_execute(&sql).await.unwrap();
        Self(client)
    }

    async fn change(&self, change: Change<'_>) -> String {
        let sql = "SELECT outcome FROM regionwise.change($1, ARRAY[$2], ARRAY[$3], ARRAY[$4::bigint], ARRAY[NULL::bigint], \
                   ARRAY[$5], ARRAY[$6::bigint], ARRAY[$7::bigint], ARRAY[$8::bytea], NULL, true, NULL, NULL)";
        let state = change.from.as_ref().map(|(state, _)| state.as_str());
        let epoch = change.from.as_ref().map(|(_, epoch)| *epoch);
        let row = self
            .0
            .query_one(
                sql,
                &[
                    &RUN,
                    &change.user.to_string(),
                    &state,
                    &epoch,
                    &change.to.0,
                    &change.to.1,
                    &change.token,
                    &change.digest,
                ],
            )
            .await
            .unwrap();
        row.get(0)
    }

    async fn digest(&self, user: i64) -> Vec<u8> {
        let sql = "SELECT digest FROM regionwise.digests($1, ARRAY[$2])";
        let row = self.0.query_one(sql, &[&RUN, &user.to_string()]).await;
        row.unwrap().get(0)
    }
}

/// What `to` has not got. No quotes in these tests' rows, and an order never changes.
async fn copy(from: &Side, to: &Side, user: i64, token: i64) {
    let mut statements = vec![format!(
        "BEGIN; SET LOCAL session_replication_role = replica; \
         SELECT regionwise.enter('{RUN}', {token}, ARRAY['{user}'], 'staging')"
    )];
    for (table, owner) in [("users", "id"), ("orders", "user_id")] {
        let there =
            format!("SELECT coalesce(array_agg(id), '{{}}') FROM {table} WHERE {owner} = {user}");
        let there: Vec<i64> = to.0.query_one(&there, &[]).await.unwrap().get(0);
        let sql = format!(
            "SELECT coalesce(json_agg(t), '[]')::text FROM {table} t WHERE {owner} = {user} AND id <> ALL ($1)"
        );
        let rows: String = from.0.query_one(&sql, &[&there]).await.unwrap().get(0);
        statements.push(format!(
            "INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, '{rows}') ON CONFLICT DO NOTHING"
        ));
    }
    statements.push("COMMIT".to_owned());
    to.0.batch_execute(&statements.join("; ")).await.unwrap();
}

async fn lead(from: &Side, to: &Side, user: i64, token: i64) {
    let (here, there) = (
        route(&from.0, user).await.unwrap(),
        route(&to.0, user).await,
    );
    let (epoch, before) = (here.1 + 1, there.as_ref().map_or(0, |(_, epoch)| *epoch));
    let staged = to.change(Change {
        user,
        from: there,
        to: ("staging", before),
        token,
        digest: None,
    });
    assert_eq!(staged.await, "changed");
    // The shoppers go on, so a copy may be old before it is done; one that brings what is new only is done sooner each time.
    let mut tries = 0;
    let digest = loop {
        tries += 1;
        assert!(tries <= 500, "the shoppers of {user} were faster 500 times");
        copy(from, to, user, token).await;
        let digest = to.digest(user).await;
        let released = from.change(Change {
            user,
            from: Some(here.clone()),
            to: ("moved", epoch),
            token,
            digest: Some(&digest),
        });
        match released.await.as_str() {
            "changed" => break digest,
            "differs" | "busy" => {}
            other => panic!("released: {other}"),
        }
    };
    let activated = to.change(Change {
        user,
        from: Some(("staging".to_owned(), before)),
        to: ("active", epoch),
        token,
        digest: Some(&digest),
    });
    assert_eq!(activated.await, "changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_move_behind_the_installed_fence_and_no_request_fails() {
    let start = || Lab::start(&Options::full(env!("CARGO_BIN_EXE_lab")));
    let lab = tokio::task::spawn_blocking(start).await.unwrap();
    let lab = lab.unwrap_or_else(|error| panic!("{error}"));
    let clusters = Clusters::of(&lab).await;
    let apis = everywhere(&lab, &[]);
    // Both were there before the fence, and are adopted.
    let earlier = [new_user(&apis[0]).await, new_user(&apis[1]).await];
    install(&lab).await;
    let later = [
        new_user(&apis[0]).await,
        new_user(&apis[1]).await,
        new_user(&apis[2]).await,
    ];
    let homes = [
        &clusters.us,
        &clusters.eu,
        &clusters.us,
        &clusters.eu,
        &clusters.us,
    ];
    for (user, home) in earlier.iter().chain(&later).zip(homes) {
        for api in &apis {
            let placed = place(api, *user, &fresh_key(), "book").await;
            assert_eq!(placed.status, 201, "{}", placed.body);
        }
        assert_eq!(keys_of(home, *user).await.len(), 3);
    }
    let (us, eu) = (Side::of(&lab, "us").await, Side::of(&lab, "eu").await);
    move_under_requests(&lab, &clusters, async |user, way| match way {
        Way::ToEu => lead(&us, &eu, user, 1 << 40 | 1).await,
        Way::ToUs => lead(&eu, &us, user, 1 << 40 | 2).await,
    })
    .await;
}
