//! The writers of `scripts/bench migrate`: an application that goes on while its users move, and remembers every write
//! that it was promised.
//!
//!     ledger SOURCE TARGET USERS CLIENTS WRITES_PER_SECOND TRANSACTION_MS
//!
//! One write is one statement: a counter of a user goes up and an order comes. With TRANSACTION_MS it stands in a
//! transaction that then stays open for so long. Half of the writes go to every 120th user, so that there are users who
//! have written since they were copied. What is refused, or meets no user, is tried again on the other side, as an
//! application does that reads its route anew. The first line of stdout says that it writes; a line of stdin ends the
//! writing, another one asks the target for everything that was promised: `lost` orders are not there, `lost_updates`
//! are increments that the counters do not show.
//!
//! `stalls_us` has, for each write that met the fence, the time from its first try to its promise. It met the fence when
//! it was refused and its first try came before the target had committed that the user lives there; whoever is refused
//! later only remembered an old route. The users are split by whether a release found them changed since their copy.
#![expect(
    clippy::print_stdout,
    reason = "its output is what the benchmark reads"
)]

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::time::{interval, sleep};
use tokio_postgres::{Client, NoTls, Statement};

/// Orders of the ledger have ids from here on.
const FIRST_ORDER: i64 = 1 << 40;
/// As long as an application may wait for its user to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// One of so many users is hot.
const USERS_PER_HOT_ONE: u64 = 120;

const WRITE: &str = "WITH owner AS (UPDATE users SET version = version + 1 WHERE id = $1 RETURNING id)
    INSERT INTO orders (id, user_id, created_at, total, note) SELECT $2, id, now(), 1, 'ledger' FROM owner";

type Problem = Box<dyn Error + Send + Sync>;

struct Side {
    client: Client,
    /// Unprepared while the tables are not there.
    write: Option<Statement>,
}

impl Side {
    /// In a transaction that stays open for `open`; of its own statement's length when that is zero.
    async fn write(
        &mut self,
        user: i64,
        order: i64,
        open: Duration,
    ) -> Result<u64, tokio_postgres::Error> {
        let write = match &self.write {
            Some(write) => write.clone(),
            None => self.client.prepare(WRITE).await?,
        };
        self.write = Some(write.clone());
        if open.is_zero() {
            return self.client.execute(&write, &[&user, &order]).await;
        }
        let transaction = self.client.transaction().await?;
        let written = transaction.execute(&write, &[&user, &order]).await?;
        if written > 0 {
            sleep(open).await;
        }
        transaction.commit().await?;
        Ok(written)
    }
}

/// A promised write.
struct Written {
    order: i64,
    user: i64,
    /// The first try, in microseconds since 1970: the servers stamp their commits with the same clock.
    began: i64,
    /// From the first try to the promise, in microseconds.
    wait: u64,
    refused: bool,
}

#[derive(Default)]
struct Tally {
    promised: Vec<Written>,
    refused: u64,
    given_up: u64,
}

/// What the writers of one run share.
#[derive(Clone, Copy)]
struct Pace {
    users: u64,
    pause: Duration,
    open: Duration,
}

#[tokio::main]
async fn main() -> Result<(), Problem> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [source, target, users, clients, rate, open] = words.as_slice() else {
        return Err("SOURCE TARGET USERS CLIENTS WRITES_PER_SECOND TRANSACTION_MS".into());
    };
    let (clients, rate): (u64, u64) = (clients.parse()?, rate.parse()?);
    let pace = Pace {
        users: users.parse()?,
        pause: Duration::from_micros(1_000_000 * clients / rate.max(1)),
        open: Duration::from_millis(open.parse()?),
    };
    let stopped = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for number in 0..clients {
        let sides = [connect(source).await?, connect(target).await?];
        writers.push(tokio::spawn(write(
            sides,
            number,
            pace,
            Arc::clone(&stopped),
        )));
    }
    println!("writing");
    let mut lines = BufReader::new(stdin()).lines();
    lines.next_line().await?;
    stopped.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    for writer in writers {
        let one = writer.await??;
        all.promised.extend(one.promised);
        all.refused += one.refused;
        all.given_up += one.given_up;
    }
    println!("stopped");
    lines.next_line().await?;
    let [source, target] = [connect(source).await?.client, connect(target).await?.client];
    let (lost, lost_updates) = lost(&target, &all.promised).await?;
    let stalls = stalls(&source, &target, &all.promised).await?;
    let mut waits = Histogram::<u64>::new(3)?;
    for one in &all.promised {
        waits.record(one.wait)?;
    }
    let report = serde_json::json!({
        "promised": all.promised.len(), "refused": all.refused, "given_up": all.given_up,
        "lost": lost, "lost_updates": lost_updates,
        "wait_p50_us": waits.value_at_quantile(0.5), "wait_p99_us": waits.value_at_quantile(0.99),
        "wait_max_us": waits.max(),
        "stalls_us": { "unchanged": stalls.unchanged, "changed": stalls.changed },
    });
    println!("{report}");
    Ok(())
}

async fn connect(dsn: &str) -> Result<Side, Problem> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(connection);
    Ok(Side {
        client,
        write: None,
    })
}

async fn write(
    mut sides: [Side; 2],
    number: u64,
    pace: Pace,
    stopped: Arc<AtomicBool>,
) -> Result<Tally, Problem> {
    let mut tally = Tally::default();
    // Where a user was found last.
    let mut routes: HashMap<u64, usize> = HashMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15 ^ (number + 1);
    let mut order = FIRST_ORDER + i64::try_from(number << 32)?;
    let mut ticks = interval(pace.pause);
    while !stopped.load(Ordering::Relaxed) {
        ticks.tick().await;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let user = chosen(random, pace.users);
        let id = i64::try_from(user)?;
        order += 1;
        let (began, mut refused) = (Instant::now(), false);
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        loop {
            let at = routes.entry(user).or_insert(0);
            match sides[*at].write(id, order, pace.open).await {
                Ok(1) => {
                    tally.promised.push(Written {
                        order,
                        user: id,
                        began: i64::try_from(since_1970.as_micros())?,
                        wait: u64::try_from(began.elapsed().as_micros())?,
                        refused,
                    });
                    break;
                }
                Ok(_) => *at = 1 - *at,
                // The server promises nothing then, and nothing of it is there.
                Err(error) if error.as_db_error().is_some() => *at = 1 - *at,
                Err(error) => return Err(error.into()),
            }
            refused = true;
            tally.refused += 1;
            if began.elapsed() > PATIENCE {
                tally.given_up += 1;
                break;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
    Ok(tally)
}

/// Half of the writes go to the hot users.
fn chosen(random: u64, users: u64) -> u64 {
    let (hot, place) = (random & 1 == 0, random >> 1);
    if hot {
        place % users.div_ceil(USERS_PER_HOT_ONE) * USERS_PER_HOT_ONE + 1
    } else {
        place % users + 1
    }
}

#[derive(Default)]
struct Stalls {
    unchanged: Vec<u64>,
    changed: Vec<u64>,
}

/// Waits of the writes that met the fence; none where there is no fence.
async fn stalls(source: &Client, target: &Client, promised: &[Written]) -> Result<Stalls, Problem> {
    let mut stalls = Stalls::default();
    let fence = "SELECT to_regclass('regionwise.route') IS NOT NULL";
    if !target.query_one(fence, &[]).await?.get::<_, bool>(0) {
        return Ok(stalls);
    }
    let sql =
        "SELECT usr::bigint, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint
               FROM regionwise.route WHERE state = 'active'";
    let arrivals = target.query(sql, &[]).await?;
    let arrived: HashMap<i64, i64> = arrivals
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let sql = "SELECT usr::bigint FROM regionwise.member WHERE rounds > 0";
    let rows = source.query(sql, &[]).await?;
    let changed: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let before_arrival = |one: &Written| arrived.get(&one.user).is_some_and(|at| one.began < *at);
    for one in promised
        .iter()
        .filter(|one| one.refused && before_arrival(one))
    {
        if changed.contains(&one.user) {
            stalls.changed.push(one.wait);
        } else {
            stalls.unchanged.push(one.wait);
        }
    }
    Ok(stalls)
}

async fn lost(client: &Client, promised: &[Written]) -> Result<(i64, i64), Problem> {
    let (orders, users): (Vec<i64>, Vec<i64>) =
        promised.iter().map(|one| (one.order, one.user)).unzip();
    let sql = "SELECT count(*) FROM unnest($1::bigint[]) AS promised (id)
               WHERE NOT EXISTS (SELECT 1 FROM orders WHERE orders.id = promised.id)";
    let lost: i64 = client.query_one(sql, &[&orders]).await?.get(0);
    let sql = "SELECT coalesce(sum(greatest(n - coalesce(version, 0), 0)), 0)::bigint
               FROM (SELECT id, count(*) AS n FROM unnest($1::bigint[]) AS promised (id) GROUP BY id) AS promised
               LEFT JOIN users USING (id)";
    let lost_updates: i64 = client.query_one(sql, &[&users]).await?.get(0);
    Ok((lost, lost_updates))
}
