//! Users who are at home in one cluster and whose requests come in anywhere, also while they move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use regionwise_lab::Lab;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::fence::{Clusters, Hits, Move, fenced, fresh_key};
use crate::process::{Process, client, eventually};
use crate::world::{alone, on_host};

const HOSTS: [&str; 3] = ["us-1", "eu-1", "sin-1"];

/// Long enough that only an error makes a process forget.
const FOR_EVER: (&str, &str) = ("ROUTE_CACHE_TTL", "1h");

pub(crate) struct Answer {
    pub(crate) status: u16,
    retries: u64,
    pub(crate) body: Value,
}

async fn sent(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let retries = answer
        .headers()
        .get("x-region-retries")
        .map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    Answer {
        status: answer.status().as_u16(),
        retries,
        body: answer.json().await.unwrap(),
    }
}

pub(crate) async fn place(api: &Process, user: i64, key: &str, item: &str) -> Answer {
    let request = client()
        .post(api.url(&format!("/users/{user}/orders")))
        .header("idempotency-key", key)
        .json(&json!({"item": item, "amount_cents": 100}));
    sent(request).await
}

async fn get(api: &Process, path: &str) -> Answer {
    sent(client().get(api.url(path))).await
}

/// As the client of a write a moment ago.
async fn listed(api: &Process, user: i64) -> BTreeSet<i64> {
    let request = client()
        .get(api.url(&format!("/users/{user}/orders")))
        .header("cookie", "just_wrote=1");
    let answer = sent(request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let orders = answer.body["orders"].as_array().unwrap();
    orders
        .iter()
        .map(|order| order["id"].as_i64().unwrap())
        .collect()
}

pub(crate) async fn new_user(api: &Process) -> i64 {
    let body = json!({"email": format!("{}@shop.example", fresh_key()), "name": "Ada", "billing_country": "DE"});
    let answer = sent(client().post(api.url("/users")).json(&body)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body["id"].as_i64().unwrap()
}

pub(crate) async fn route(cluster: &Client, user: i64) -> Option<(String, i64)> {
    let sql = "SELECT state, epoch FROM regionwise.route WHERE usr = $1";
    let row = cluster.query_opt(sql, &[&user.to_string()]).await.unwrap();
    row.map(|row| (row.get(0), row.get(1)))
}

pub(crate) async fn keys_of(cluster: &Client, user: i64) -> Vec<String> {
    let sql =
        "SELECT idempotency_key::text FROM orders WHERE user_id = $1 ORDER BY idempotency_key";
    let rows = cluster.query(sql, &[&user]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

pub(crate) fn everywhere(lab: &Lab, more: &[(&str, &str)]) -> [Process; 3] {
    HOSTS.map(|host| on_host(lab, host, more))
}

/// Somebody who places orders through one process and looks at them through another, so that only a refusal tells the first
/// one of a move.
struct Shopper {
    user: i64,
    writer: Process,
    reader: Process,
    /// Orders that were answered.
    placed: AtomicU64,
    retries: AtomicU64,
    stop: AtomicBool,
}

impl Shopper {
    /// The keys of all orders that were answered.
    async fn shop(&self) -> Vec<String> {
        let (mut keys, mut ids) = (Vec::new(), BTreeSet::new());
        while !self.stop.load(Ordering::Relaxed) {
            let (user, key) = (self.user, fresh_key());
            let placed = place(&self.writer, user, &key, "book").await;
            assert_eq!(placed.status, 201, "{}", placed.body);
            self.retries.fetch_add(placed.retries, Ordering::Relaxed);
            self.placed.fetch_add(1, Ordering::Relaxed);
            keys.push(key);
            let id = placed.body["id"].as_i64().unwrap();
            assert!(ids.insert(id), "two orders got the id {id}");
            let seen = listed(&self.reader, user).await;
            // A list ends after 50, and the other cluster may have given greater ids.
            let is_full = seen.len() == 50;
            assert!(seen.contains(&id) || is_full, "{id} is not among {seen:?}");
            for path in [format!("/orders/{id}"), format!("/users/{user}")] {
                let read = get(&self.reader, &path).await;
                assert_eq!(read.status, 200, "{path}: {}", read.body);
            }
        }
        keys
    }

    /// Waits for an order that began after now.
    async fn another_round(&self) {
        let before = self.placed.load(Ordering::Relaxed);
        eventually("another order is placed", async || {
            (self.placed.load(Ordering::Relaxed) >= before + 2).then_some(())
        })
        .await;
    }
}

/// A user's way from one home to the other.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    ToEu,
    ToUs,
}

/// Two users with shoppers in every region move to the EU, the second one home again; `lead` carries out one way.
pub(crate) async fn move_under_requests(
    lab: &Lab,
    clusters: &Clusters,
    lead: impl AsyncFn(i64, Way),
) {
    let (mut users, mut shoppers) = (Vec::new(), Vec::new());
    let signs_up = on_host(lab, "us-1", &[]);
    for _ in 0..2 {
        let user = new_user(&signs_up).await;
        users.push(user);
        for host in HOSTS {
            let shopper = Arc::new(Shopper {
                user,
                writer: on_host(lab, host, &[FOR_EVER]),
                reader: on_host(lab, host, &[]),
                placed: AtomicU64::new(0),
                retries: AtomicU64::new(0),
                stop: AtomicBool::new(false),
            });
            let shopping = Arc::clone(&shopper);
            let task = tokio::spawn(async move { shopping.shop().await });
            shoppers.push((shopper, task));
        }
    }
    // Whoever remembers the second one's first epoch must not write by it in the end.
    for (user, way) in [
        (users[0], Way::ToEu),
        (users[1], Way::ToEu),
        (users[1], Way::ToUs),
    ] {
        let another_round = async || {
            let of_user = shoppers.iter().filter(|(shopper, _)| shopper.user == user);
            let rounds = of_user.map(|(shopper, _)| shopper.another_round());
            futures_util::future::join_all(rounds).await;
        };
        another_round().await;
        lead(user, way).await;
        another_round().await;
    }
    let (mut answered, mut retries): (Vec<(i64, String)>, u64) = (Vec::new(), 0);
    for (shopper, task) in shoppers {
        shopper.stop.store(true, Ordering::Relaxed);
        let keys = task.await.unwrap();
        answered.extend(keys.into_iter().map(|key| (shopper.user, key)));
        retries += shopper.retries.load(Ordering::Relaxed);
    }
    for (user, home) in users.iter().zip([&clusters.eu, &clusters.us]) {
        let of_user = answered.iter().filter(|(whose, _)| whose == user);
        let mut wanted: Vec<String> = of_user.map(|(_, key)| key.clone()).collect();
        wanted.sort();
        assert_eq!(keys_of(home, *user).await, wanted);
    }
    // Each of three processes by each of three moves.
    assert!(retries >= 9, "the moves were noticed only {retries} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_move_there_and_back_under_requests_in_every_region_and_none_fails() {
    let lab = fenced().await;
    let clusters = Clusters::of(lab).await;
    move_under_requests(lab, &clusters, async |user, way| {
        let (from, to) = match way {
            Way::ToEu => (&clusters.us, &clusters.eu),
            Way::ToUs => (&clusters.eu, &clusters.us),
        };
        let way = Move { from, to, user };
        way.release().await;
        way.activate().await;
    })
    .await;
}

#[tokio::test]
async fn a_stale_route_heals_at_the_first_refusal_and_the_answer_says_so() {
    let lab = fenced().await;
    let clusters = Clusters::of(lab).await;
    for api in everywhere(lab, &[FOR_EVER]) {
        let user = new_user(&on_host(lab, "us-1", &[])).await;
        let placed = place(&api, user, &fresh_key(), "book").await;
        assert_eq!((placed.status, placed.retries), (201, 0));
        let there = Move {
            from: &clusters.us,
            to: &clusters.eu,
            user,
        };
        there.release().await;
        there.activate().await;
        let placed = place(&api, user, &fresh_key(), "book").await;
        assert_eq!((placed.status, placed.retries), (201, 1), "{}", placed.body);
        let placed = place(&api, user, &fresh_key(), "book").await;
        assert_eq!((placed.status, placed.retries), (201, 0));
        // There and back: only the epoch tells that the remembered home is an old one.
        let back = Move {
            from: &clusters.eu,
            to: &clusters.us,
            user,
        };
        back.release().await;
        back.activate().await;
        there.release().await;
        there.activate().await;
        let placed = place(&api, user, &fresh_key(), "book").await;
        assert_eq!((placed.status, placed.retries), (201, 1), "{}", placed.body);
        assert_eq!(keys_of(&clusters.eu, user).await.len(), 4);
    }
}

#[tokio::test]
async fn reads_come_from_the_home_and_never_from_the_copy_left_behind() {
    let lab = fenced().await;
    let clusters = Clusters::of(lab).await;
    let apis = everywhere(lab, &[FOR_EVER]);
    let user = new_user(&apis[0]).await;
    let path = format!("/users/{user}");
    let first = place(&apis[0], user, &fresh_key(), "book").await.body["id"].clone();
    for api in &apis {
        assert_eq!(get(api, &path).await.body["name"], "Ada");
    }
    let there = Move {
        from: &clusters.us,
        to: &clusters.eu,
        user,
    };
    there.release().await;
    there.activate().await;
    let rename = format!("UPDATE users SET name = 'Grace' WHERE id = {user}");
    clusters.eu.batch_execute(&rename).await.unwrap();
    let change = format!(
        "BEGIN; SET LOCAL regionwise.uid = '{user}'; SET LOCAL regionwise.epoch = '1';
         UPDATE orders SET item = 'lamp' WHERE user_id = {user}; COMMIT"
    );
    clusters.eu.batch_execute(&change).await.unwrap();
    for api in &apis {
        // A standby shows what it has replayed, in this product as without any move.
        eventually("the standbys have replayed the move", async || {
            (get(api, &path).await.body["name"] == "Grace").then_some(())
        })
        .await;
        let orders = get(api, &format!("{path}/orders")).await;
        assert_eq!(orders.body["orders"][0]["item"], "lamp");
        let order = get(api, &format!("/orders/{first}")).await;
        assert_eq!(order.body["item"], "lamp");
    }
}

#[tokio::test]
async fn a_key_sent_again_after_the_move_finds_the_first_order() {
    let lab = fenced().await;
    let clusters = Clusters::of(lab).await;
    let apis = everywhere(lab, &[FOR_EVER]);
    let (user, key) = (new_user(&apis[0]).await, fresh_key());
    let first = place(&apis[0], user, &key, "book").await;
    assert_eq!(first.status, 201);
    let there = Move {
        from: &clusters.us,
        to: &clusters.eu,
        user,
    };
    there.release().await;
    there.activate().await;
    for api in &apis {
        let again = place(api, user, &key, "book").await;
        assert_eq!((again.status, &again.body), (200, &first.body));
        let other = place(api, user, &key, "lamp").await;
        assert_eq!(other.status, 409, "{}", other.body);
    }
    // The copy left behind holds the key of somebody who is not at home here.
    let neighbour = new_user(&apis[0]).await;
    let taken = place(&apis[0], neighbour, &key, "book").await;
    assert_eq!((taken.status, taken.retries), (409, 0), "{}", taken.body);
    assert_eq!(keys_of(&clusters.eu, user).await, [key]);
}

#[tokio::test]
async fn a_request_between_the_commit_points_waits_for_the_second() {
    let lab = fenced().await;
    let clusters = Clusters::of(lab).await;
    let apis = everywhere(lab, &[FOR_EVER]).map(Arc::new);
    let user = new_user(&apis[0]).await;
    let there = Move {
        from: &clusters.us,
        to: &clusters.eu,
        user,
    };
    for api in &apis {
        assert_eq!(place(api, user, &fresh_key(), "book").await.status, 201);
    }
    let hits = Hits::of(&clusters.us, user).await;
    there.release().await;
    let waiting = apis.each_ref().map(|api| {
        let api = Arc::clone(api);
        tokio::spawn(async move {
            let placed = place(&api, user, &fresh_key(), "book").await;
            (placed, get(&api, &format!("/users/{user}")).await)
        })
    });
    eventually("every write was refused once", async || {
        (hits.count().await >= 3).then_some(())
    })
    .await;
    there.activate().await;
    for answer in waiting {
        let (placed, read) = answer.await.unwrap();
        assert_eq!((placed.status, read.status), (201, 200), "{}", placed.body);
        assert!(placed.retries > 0);
    }
    assert_eq!(keys_of(&clusters.eu, user).await.len(), 6);
}

#[tokio::test]
async fn a_user_without_a_home_is_refused_after_two_seconds() {
    let lab = fenced().await;
    let clusters = Clusters::of(lab).await;
    let api = on_host(lab, "us-1", &[]);
    let user = new_user(&api).await;
    let there = Move {
        from: &clusters.us,
        to: &clusters.eu,
        user,
    };
    there.release().await;
    let started = Instant::now();
    let placed = place(&api, user, &fresh_key(), "book").await;
    assert_eq!(
        (placed.status, &placed.body["error"]["code"]),
        (503, &json!("user-moving"))
    );
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(4),
        "{took:?}"
    );
    let read = get(&api, &format!("/users/{user}")).await;
    assert_eq!(read.status, 503, "{}", read.body);
    assert!(keys_of(&clusters.us, user).await.is_empty());
    there.activate().await;
}

#[tokio::test]
async fn a_transaction_that_lost_a_race_is_tried_again() {
    let lab = fenced().await;
    let clusters = Clusters::of(lab).await;
    for (name, state) in [("race", "40001"), ("deadlock", "40P01")] {
        // A sequence remembers also what was rolled back: every second try gets through.
        let sql = format!(
            "CREATE SEQUENCE {name}; GRANT USAGE ON SEQUENCE {name} TO shop;
             CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('{name}') % 2 = 1 THEN RAISE EXCEPTION 'lost' USING ERRCODE = '{state}'; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER {name} BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.item = '{name}')
                 EXECUTE FUNCTION {name}();"
        );
        clusters.us.batch_execute(&sql).await.unwrap();
        let api = on_host(lab, "us-1", &[]);
        let user = new_user(&api).await;
        let placed = place(&api, user, &fresh_key(), name).await;
        assert_eq!((placed.status, placed.retries), (201, 1), "{}", placed.body);
        assert_eq!(keys_of(&clusters.us, user).await.len(), 1);
    }
}

#[tokio::test]
async fn a_new_user_is_at_home_where_they_signed_up_and_served_everywhere() {
    let lab = fenced().await;
    let clusters = Clusters::of(lab).await;
    let apis = everywhere(lab, &[]);
    for (index, cluster, state) in [
        (0, &clusters.us, "home"),
        (1, &clusters.eu, "active"),
        (2, &clusters.us, "home"),
    ] {
        let user = new_user(&apis[index]).await;
        assert_eq!(route(cluster, user).await, Some((state.to_owned(), 0)));
        for api in &apis {
            let placed = place(api, user, &fresh_key(), "book").await;
            assert_eq!(placed.status, 201, "{}", placed.body);
        }
        assert_eq!(keys_of(cluster, user).await.len(), 3);
    }
}

#[tokio::test]
async fn an_unknown_user_and_an_unknown_order_are_not_found_anywhere() {
    let lab = fenced().await;
    for api in everywhere(lab, &[]) {
        for path in [
            "/users/999999999",
            "/users/999999999/orders",
            "/orders/999999999",
        ] {
            assert_eq!(get(&api, path).await.status, 404, "{path}");
        }
        let placed = place(&api, 999_999_999, &fresh_key(), "book").await;
        assert_eq!((placed.status, placed.retries), (404, 0), "{}", placed.body);
    }
}

#[tokio::test]
async fn an_install_and_a_removal_are_noticed_without_a_restart() {
    let lab = alone().await;
    let clusters = Clusters::of(&lab).await;
    let apis = everywhere(&lab, &[("ROUTE_CACHE_TTL", "100ms")]);
    let user = new_user(&apis[0]).await;
    // As without any migration: nobody looks beyond the own cluster.
    assert_eq!(get(&apis[1], &format!("/users/{user}")).await.status, 404);
    clusters.install().await;
    eventually("the EU finds the user at home in the US", async || {
        (get(&apis[1], &format!("/users/{user}")).await.status == 200).then_some(())
    })
    .await;
    for api in &apis {
        let placed = place(api, user, &fresh_key(), "book").await;
        assert_eq!(placed.status, 201, "{}", placed.body);
    }
    // Refused by the fence before the processes have looked: they look at once.
    let just_before = on_host(&lab, "eu-1", &[FOR_EVER]);
    clusters.remove().await;
    assert_eq!(get(&just_before, "/users/999999999").await.status, 404);
    clusters.install().await;
    new_user(&just_before).await;
    clusters.remove().await;
    for api in &apis {
        new_user(api).await;
    }
    let placed = place(&apis[0], user, &fresh_key(), "book").await;
    assert_eq!(placed.status, 201, "{}", placed.body);
    eventually("the EU does not know the user again", async || {
        (get(&apis[1], &format!("/users/{user}")).await.status == 404).then_some(())
    })
    .await;
}
