//! Scenarios that need size, loss or minutes: `cargo test --test migration -- --ignored torture_`.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regionwise_lab::link::{self, Fault, Link, Shape};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::dice::{self, Dice};
use crate::ledger::Ledger;
use crate::scenarios::{all_at_once, shop};
use crate::world::{Call, Running, Schema, Servers, World};

static HEAVY: Schema = Schema {
    name: "heavy",
    sql: "
CREATE TABLE users (id bigint PRIMARY KEY, counter bigint NOT NULL DEFAULT 0);
CREATE TABLE documents (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, body jsonb);
CREATE INDEX ON documents (user_id);
",
    rows: "
INSERT INTO users SELECT u FROM generate_series(1, {users}) u;
INSERT INTO documents SELECT u, u, jsonb_build_object('small', u) FROM generate_series(1, {users}) u;
INSERT INTO documents SELECT 100, 1, jsonb_build_object('text', repeat('0123456789', 20 * 1024 * 1024));
",
    users: "true",
    rules: "",
    owned: &[
        ("users", "SELECT id::text AS usr, t::text AS line FROM users t"),
        (
            "documents",
            "SELECT user_id::text AS usr, id || md5(body::text) AS line FROM documents t",
        ),
    ],
};

#[tokio::test]
#[ignore = "torture"]
async fn torture_s46_a_document_of_two_hundred_megabytes_moves() {
    let world = World::bare(Servers::shared(), &HEAVY, 3).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    let before = world.dump(&world.us).await;
    all_at_once(&world, &plan).finish().await.expect(0);
    assert_eq!(world.dump(&world.eu).await, before);
    world.verify().await.expect(0);
}

/// `ROWS=..` makes it smaller.
static MANY: Schema = Schema {
    name: "many",
    sql: "
CREATE TABLE users (id bigint PRIMARY KEY, counter bigint NOT NULL DEFAULT 0);
CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, n bigint NOT NULL DEFAULT 0);
CREATE INDEX ON orders (user_id);
",
    rows: "INSERT INTO users SELECT u FROM generate_series(1, {users}) u;",
    users: "true",
    rules: "",
    owned: &[("users", "SELECT id::text AS usr, t::text AS line FROM users t")],
};

#[tokio::test]
#[ignore = "torture"]
async fn torture_s47_a_user_of_five_million_rows_moves_under_five_hundred_writes_a_second_in_64_mb()
{
    let rows: i64 = std::env::var("ROWS").map_or(5_000_000, |rows| rows.parse().unwrap());
    let world = World::bare(Servers::shared(), &MANY, 3).await;
    let fill =
        format!("INSERT INTO orders SELECT i, 1, 0 FROM generate_series(1, {rows}) i; ANALYZE");
    world.us.admin().await.must(&fill).await;
    world.install().await.expect(0);
    let plan = world.plan().await;
    let (stop, stopping) = watch::channel(false);
    let writers: Vec<JoinHandle<(i64, Duration)>> = (0..5)
        .map(|number: i64| {
            let (server, name) = (world.us.server, world.us.name.clone());
            let stop = stopping.clone();
            tokio::spawn(async move {
                let session = server.session("shopper", &name).await;
                let mut beat = tokio::time::interval(Duration::from_millis(10));
                let (mut promised, mut longest) = (0, Duration::ZERO);
                while !*stop.borrow() {
                    beat.tick().await;
                    let asked = Instant::now();
                    let id = (promised * 7919 + number * 1_000_003) % rows + 1;
                    let write = format!("UPDATE orders SET n = n + 1 WHERE id = {id}");
                    match session.run(&write).await {
                        Ok(rows) => promised += i64::try_from(rows).unwrap(),
                        Err(code) => {
                            assert_eq!(code, "MV001");
                            break;
                        }
                    }
                    longest = longest.max(asked.elapsed());
                }
                (promised, longest)
            })
        })
        .collect();
    let began = Instant::now();
    let mut call = world.tool(&["run", "--plan", &plan, "--lanes", "1"]);
    call.command.env("TOKIO_WORKER_THREADS", "2");
    let mut call = call.start();
    let peak = peak_until_the_end(&mut call).await;
    let took = began.elapsed();
    let finished = call.finish().await.expect(0);
    stop.send_replace(true);
    let (mut promised, mut longest) = (0, Duration::ZERO);
    for writer in writers {
        let (its, wait) = writer.await.unwrap();
        promised += its;
        longest = longest.max(wait);
    }
    println!(
        "{rows} rows in {took:?}, {promised} writes, longest wait {longest:?}, {peak} KiB, {}",
        finished.json["result"]["stall_us"]
    );
    assert!(peak > 0 && peak <= 64 * 1024, "{peak} KiB");
    let (us, eu) = (world.us.admin().await, world.eu.admin().await);
    let all = "SELECT md5(string_agg(id || ':' || n, ',' ORDER BY id)) FROM orders";
    assert_eq!(us.text(all).await, eu.text(all).await);
    assert_eq!(
        eu.number("SELECT sum(n)::bigint FROM orders").await,
        promised
    );
}

/// The same, seen for the last time before it ended.
pub(super) async fn peak_until_the_end(call: &mut Running) -> u64 {
    let mut peak = 0;
    while !call.has_ended() {
        peak = peak_of(call).unwrap_or(peak);
        // The kernel keeps the maximum; nothing tells of the moment before the end.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    peak
}

/// The most memory that the process ever had, in KiB; none once it is gone.
fn peak_of(call: &Running) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", call.pid()?)).ok()?;
    let mut lines = status.lines();
    let peak = lines.find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().trim_end_matches(" kB").parse().ok()
}

/// A call whose ways lead over lines of 90 ms, 10 Mbit/s, which lose a connection now and then.
async fn over_a_bad_line(world: &World, mut call: Call, losing: watch::Receiver<bool>) -> Call {
    let names = [("US", &world.us), ("EU", &world.eu)];
    for (way, (name, database)) in call.links.iter().zip(names) {
        let shape = Shape {
            latency: Duration::from_millis(45),
            bandwidth: NonZeroU64::new(1_250_000),
            fault: Fault::None,
        };
        let [there, back] = [(); 2].map(|()| Arc::new(Link::new(shape.latency)));
        there.set(shape);
        back.set(shape);
        let line = Arc::clone(&there);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, way.port);
        tokio::spawn(async move {
            link::serve(listener, target, there, back).await;
        });
        let mut losing = losing.clone();
        tokio::spawn(async move {
            // A line that loses one packet in a hundred shows as a connection that breaks; TCP repairs the rest.
            while !*losing.borrow_and_update() {
                tokio::time::sleep(Duration::from_secs(20)).await;
                line.reset();
            }
        });
        let dsn = format!("postgres://carrier@127.0.0.1:{port}/{}", database.name);
        call.command.env(format!("{name}_MOVE_DSN"), dsn);
    }
    call
}

/// Over this line everybody of a batch writes again while it is brought up to date, and each break begins it anew.
#[tokio::test]
#[ignore = "torture"]
async fn torture_s50_a_slow_line_that_breaks_moves_everybody() {
    let seed = dice::seed();
    println!("SEED={seed}");
    let (world, plan) = shop().await;
    let ledger = Ledger::open(&world, &Dice::new(seed), Duration::from_millis(200)).await;
    let (stop, stopped) = watch::channel(false);
    let mut codes = Vec::new();
    loop {
        let call = world.moving("run", &plan, &["--lanes", "2"]);
        let call = over_a_bad_line(&world, call, stopped.clone()).await;
        let finished = call.finish().await;
        codes.push(finished.code);
        match finished.code {
            Some(0) => break,
            // Contact was lost before, or in the middle; the same command again.
            Some(20 | 21) if codes.len() < 20 => {}
            _ => panic!("{codes:?} {finished:?}"),
        }
    }
    stop.send_replace(true);
    println!("{codes:?} {}", ledger.close(&world).await);
    assert_eq!(world.at_home(&world.eu).await, world.chosen().await);
}

#[tokio::test]
#[ignore = "torture"]
async fn torture_s75_a_schema_of_twenty_thousand_tables_fits_into_little_memory() {
    let (world, _) = shop().await;
    for database in [&world.us, &world.eu] {
        let admin = database.admin().await;
        for part in 0..40 {
            let tables: Vec<String> = (0..500)
                .map(|table| {
                    format!("CREATE TABLE more_{part}_{table} (id bigint PRIMARY KEY, a text, b int, c timestamptz)")
                })
                .collect();
            admin.must(&tables.join(";")).await;
        }
    }
    let plan = world.plan().await;
    let mut call = all_at_once(&world, &plan);
    call.command.env("TOKIO_WORKER_THREADS", "2");
    let mut call = call.hold("copied").start();
    assert!(call.is_held().await);
    let peak = peak_of(&call).unwrap();
    call.release();
    call.finish().await.expect(0);
    world.all_moved_equal().await;
    println!("{} MiB", peak / 1024);
    assert!(peak < 512 * 1024, "{peak} KiB");
}
