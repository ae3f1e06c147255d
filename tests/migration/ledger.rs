//! Writers that remember what they were promised, while users move, and the check of it afterwards.
//!
//! Each write counts its user up and appends an order, whose id only one client uses. A client notes what became of it:
//! done, not done, or unknown when the answer to COMMIT was lost. At the end every promised write must be there exactly
//! once, in the order of its user's counter, at the user's home, and all rows must be what those writes made of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::SimpleQueryMessage;

use crate::dice::Dice;
use crate::servers::{Database, Server};
use crate::session::Session;
use crate::world::{PATIENCE, World};

/// The three that say whose rows they write and which route they know, and one that does not.
const CLIENTS: i64 = 4;
const UNDECLARED: i64 = 3;

/// One write, as its client meant it.
#[derive(Clone, Debug)]
struct Write {
    id: i64,
    user: i64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// An order with two items and a part, and perhaps an event and a comment.
    Append {
        event: bool,
        comment: bool,
    },
    /// Takes an earlier order's items away and changes its part.
    Amend {
        order: i64,
        first: bool,
    },
    /// Overwrites the user's label.
    Label,
    Transfer {
        to: i64,
        amount: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done(i64),
    Unknown,
}

/// What all clients have noted. A write that was not done is not in it, but its id is.
#[derive(Default)]
struct Log {
    writes: Vec<(Write, Outcome)>,
    failed: HashSet<i64>,
    /// What must never be seen, seen by a client.
    violations: Vec<String>,
    done: Vec<u64>,
    /// Writes that were refused at first and done afterwards.
    redirected: u64,
    longest: Duration,
}

/// Clients at work.
pub(crate) struct Ledger {
    log: Arc<Mutex<Log>>,
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<()>>,
    before: BTreeMap<String, BTreeSet<String>>,
}

/// What was found right.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) done: usize,
    pub(crate) unknown: usize,
    pub(crate) redirected: u64,
    pub(crate) longest: Duration,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            done,
            unknown,
            redirected,
            longest,
        } = self;
        let millis = longest.as_millis();
        write!(
            f,
            "{done} writes done, {redirected} of them after a refusal, {unknown} unknown, the longest took {millis} ms"
        )
    }
}

impl Ledger {
    /// `pace` is the longest pause of a client between two writes.
    pub(crate) async fn open(world: &World, dice: &Dice, pace: Duration) -> Self {
        Self::volume(world, dice, pace, 0).await
    }

    /// One of up to ten ledgers over the same world, one after the other.
    pub(crate) async fn volume(world: &World, dice: &Dice, pace: Duration, volume: i64) -> Self {
        let mut before = BTreeMap::new();
        let (us, eu) = (world.dump(&world.us).await, world.dump(&world.eu).await);
        for (user, home) in world.homes().await {
            let rows = if std::ptr::eq(home, &raw const world.us) {
                &us
            } else {
                &eu
            };
            before.insert(user.clone(), rows.get(&user).cloned().unwrap_or_default());
        }
        let log = Arc::new(Mutex::new(Log {
            done: vec![0; usize::try_from(CLIENTS).unwrap()],
            ..Log::default()
        }));
        let (stop, stopping) = watch::channel(false);
        let clients = (0..CLIENTS).map(|number| {
            let client = Client {
                number,
                users: world.users,
                sides: [Side::of(&world.us), Side::of(&world.eu)],
                routes: HashMap::new(),
                dice: dice.fork(u64::try_from(number).unwrap()),
                mine: Vec::new(),
                written: volume * 100_000,
                pace,
                log: Arc::clone(&log),
            };
            tokio::spawn(client.work(stopping.clone()))
        });
        Self {
            clients: clients.collect(),
            log,
            stop,
            before,
        }
    }

    /// Waits until every client has been promised `more` further writes.
    pub(crate) async fn goes_on(&self, more: u64) {
        let goal: Vec<u64> = self
            .log
            .lock()
            .unwrap()
            .done
            .iter()
            .map(|done| done + more)
            .collect();
        let began = Instant::now();
        loop {
            let done = self.log.lock().unwrap().done.clone();
            if done.iter().zip(&goal).all(|(done, goal)| done >= goal) {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE && !self.clients.iter().any(JoinHandle::is_finished),
                "clients hang: {done:?} of {goal:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the clients and holds what they noted against what is there.
    pub(crate) async fn close(mut self, world: &World) -> Checked {
        self.stop.send_replace(true);
        for client in &mut self.clients {
            let ended = tokio::time::timeout(PATIENCE, client).await;
            ended.expect("a client hangs").unwrap();
        }
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        assert!(log.violations.is_empty(), "{:#?}", log.violations);
        check(world, &self.before, &log).await;
        let done = log
            .writes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Done(_)));
        let done = done.count();
        Checked {
            done,
            unknown: log.writes.len() - done,
            redirected: log.redirected,
            longest: log.longest,
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        for client in &self.clients {
            client.abort();
        }
    }
}

struct Side {
    server: &'static Server,
    database: String,
    session: Option<Session>,
}

impl Side {
    fn of(database: &Database) -> Self {
        Self {
            server: database.server,
            database: database.name.clone(),
            session: None,
        }
    }

    async fn session(&mut self) -> Option<Session> {
        if self
            .session
            .as_ref()
            .is_none_or(|session| session.client.is_closed())
        {
            let opened = Session::open(self.server.port, "shopper", &self.database).await;
            self.session = opened.ok();
        }
        self.session.clone()
    }
}

struct Client {
    number: i64,
    users: i64,
    /// Source and target of `[migration]`.
    sides: [Side; 2],
    /// Where a user's home was when it was last looked at; without an epoch it has no route yet.
    routes: HashMap<i64, (usize, Option<i64>)>,
    dice: Dice,
    /// Own orders that are there for certain and were not amended.
    mine: Vec<(i64, i64)>,
    written: i64,
    pace: Duration,
    log: Arc<Mutex<Log>>,
}

/// How one attempt ended.
enum Attempt {
    Done(i64),
    /// Nothing was written: look at the route again.
    Again,
    Unknown,
    Violation(String),
}

impl Client {
    async fn work(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let write = self.choose();
            let began = Instant::now();
            let mut attempts = 0;
            loop {
                attempts += 1;
                match self.attempt(&write).await {
                    Attempt::Done(seq) => {
                        self.note(write, Outcome::Done(seq), attempts, began);
                        break;
                    }
                    Attempt::Unknown => {
                        self.note(write, Outcome::Unknown, attempts, began);
                        break;
                    }
                    Attempt::Violation(text) => {
                        self.log.lock().unwrap().violations.push(text);
                        break;
                    }
                    Attempt::Again => {
                        self.routes.clear();
                        if *stop.borrow() || self.is_hopeless(&write).await {
                            self.log.lock().unwrap().failed.insert(write.id);
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            }
            let pause = self
                .dice
                .below(1 + u64::try_from(self.pace.as_micros()).unwrap());
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
    }

    fn choose(&mut self) -> Write {
        self.written += 1;
        let id = (self.number + 1) * 1_000_000 + self.written;
        let user = 1 + i64::try_from(self.dice.below(u64::try_from(self.users).unwrap())).unwrap();
        let plain = Kind::Append {
            event: self.dice.percent(30),
            comment: self.dice.percent(30),
        };
        let (user, kind) = match self.dice.below(100) {
            0..50 => (user, plain),
            50..70 if !self.mine.is_empty() => {
                let place = self.dice.below(u64::try_from(self.mine.len()).unwrap());
                let (user, order) = self.mine.swap_remove(usize::try_from(place).unwrap());
                let first = self.number != UNDECLARED && self.dice.percent(50);
                (user, Kind::Amend { order, first })
            }
            50..85 => (user, Kind::Label),
            _ => {
                let to = 1 + user % self.users;
                let amount = 1 + i64::try_from(self.dice.below(9)).unwrap();
                (user, Kind::Transfer { to, amount })
            }
        };
        Write { id, user, kind }
    }

    fn note(&mut self, write: Write, outcome: Outcome, attempts: u32, began: Instant) {
        let mut log = self.log.lock().unwrap();
        if let Outcome::Done(_) = outcome {
            log.done[usize::try_from(self.number).unwrap()] += 1;
            log.redirected += u64::from(attempts > 1);
            log.longest = log.longest.max(began.elapsed());
            if let Kind::Append { .. } = write.kind {
                self.mine.push((write.user, write.id));
            }
        }
        log.writes.push((write, outcome));
    }

    /// A transfer between users who have come to live apart.
    async fn is_hopeless(&mut self, write: &Write) -> bool {
        let Kind::Transfer { to, .. } = write.kind else {
            return false;
        };
        let (from, to) = (self.route(write.user).await, self.route(to).await);
        matches!((from, to), (Some((from, _)), Some((to, _))) if from != to)
    }

    /// The target is asked first: whoever is at home there cannot be at home at the source later with an older epoch.
    async fn route(&mut self, user: i64) -> Option<(usize, Option<i64>)> {
        if let Some(known) = self.routes.get(&user) {
            return Some(*known);
        }
        let mut seen = [None, None];
        for side in [1, 0] {
            let session = self.sides[side].session().await?;
            let sql = "SELECT state, epoch FROM regionwise.route WHERE usr = $1";
            let row = session
                .client
                .query_opt(sql, &[&user.to_string()])
                .await
                .ok()?;
            seen[side] = row.map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1)));
        }
        let owns = |side: usize| {
            let route: &Option<(String, i64)> = &seen[side];
            route
                .as_ref()
                .filter(|(state, _)| state == "home" || state == "active")
                .map(|(_, epoch)| *epoch)
        };
        let found = match (owns(0), owns(1)) {
            (Some(here), Some(there)) if there >= here => {
                let text = format!("user {user} is at home in both: epochs {here} and {there}");
                self.log.lock().unwrap().violations.push(text);
                return None;
            }
            (Some(epoch), _) => (0, Some(epoch)),
            (None, Some(epoch)) => (1, Some(epoch)),
            (None, None) if seen[0].is_none() => (0, None),
            (None, None) => return None,
        };
        self.routes.insert(user, found);
        Some(found)
    }

    async fn attempt(&mut self, write: &Write) -> Attempt {
        let Some((side, epoch)) = self.route(write.user).await else {
            return Attempt::Again;
        };
        if let Kind::Transfer { to, .. } = write.kind
            && self.route(to).await.is_none_or(|(other, _)| other != side)
        {
            return Attempt::Again;
        }
        let Some(session) = self.sides[side].session().await else {
            return Attempt::Again;
        };
        let level = *self.dice.one(&[
            "READ COMMITTED",
            "READ COMMITTED",
            "REPEATABLE READ",
            "SERIALIZABLE",
        ]);
        let mut begin = format!("BEGIN ISOLATION LEVEL {level};");
        if let (Some(epoch), true) = (epoch, self.number != UNDECLARED) {
            let declared = format!(
                "SELECT set_config('regionwise.uid', '{}', true), set_config('regionwise.epoch', '{epoch}', true)",
                write.user
            );
            begin.push_str(&declared);
        }
        if session.client.simple_query(&begin).await.is_err() {
            return self.back(side, &session).await;
        }
        let mut seq = 0;
        for (place, (sql, wanted)) in write.statements().iter().enumerate() {
            match session.client.simple_query(sql).await {
                Err(_) => return self.back(side, &session).await,
                Ok(messages) => {
                    let (rows, first) = counted(&messages);
                    if rows != *wanted {
                        let after = self.back(side, &session).await;
                        // Nothing is known of the user yet when an undeclared session's first row is not there.
                        let unseen = rows == 0
                            && (self.number == UNDECLARED && place == 0 || epoch.is_none());
                        let other = matches!(write.kind, Kind::Transfer { .. }) && place == 1;
                        if unseen || other {
                            return after;
                        }
                        return Attempt::Violation(format!(
                            "{rows} rows instead of {wanted}, {level}, client {}, at side {side}: {sql}",
                            self.number
                        ));
                    }
                    seq = first.unwrap_or(seq);
                }
            }
            if self.dice.percent(10) {
                tokio::time::sleep(Duration::from_micros(self.dice.below(4000))).await;
            }
        }
        match session.client.simple_query("COMMIT").await {
            Ok(_) => Attempt::Done(seq),
            Err(error) => match error.code().map(tokio_postgres::error::SqlState::code) {
                // The server was stopped: before or after, nobody knows.
                None => Attempt::Unknown,
                Some(code) if code.starts_with("57") || code.starts_with("08") => Attempt::Unknown,
                Some(_) => self.back(side, &session).await,
            },
        }
    }

    async fn back(&mut self, side: usize, session: &Session) -> Attempt {
        if session.client.simple_query("ROLLBACK").await.is_err() {
            self.sides[side].session = None;
        }
        Attempt::Again
    }
}

/// Rows of the last statement, and the number in the last row that came back.
fn counted(messages: &[SimpleQueryMessage]) -> (u64, Option<i64>) {
    let mut rows = 0;
    let mut number = None;
    for message in messages {
        match message {
            SimpleQueryMessage::CommandComplete(count) => rows = *count,
            SimpleQueryMessage::Row(row) => number = row.get(0).and_then(|text| text.parse().ok()),
            _ => {}
        }
    }
    (rows, number)
}

impl Write {
    /// Each with the number of rows that it must touch.
    fn statements(&self) -> Vec<(String, u64)> {
        let Self { id, user, .. } = self;
        let mut all = vec![(
            format!("UPDATE users SET counter = counter + 1 WHERE id = {user}"),
            1,
        )];
        match self.kind {
            Kind::Append { event, comment } => {
                all.push(self.order());
                all.push((
                    format!("INSERT INTO items VALUES ({id}0, {id}, 1), ({id}1, {id}, 2)"),
                    2,
                ));
                all.push((format!("INSERT INTO parts VALUES ({id}, 1, 'p')"), 1));
                if event {
                    let k = id % 2;
                    all.push((format!("INSERT INTO events VALUES ({id}, {user}, {k}, 'e')"), 1));
                }
                if comment {
                    let sql = format!("INSERT INTO comments VALUES ({id}, {user}, {user}1, 'c')");
                    all.push((sql, 1));
                }
                return all;
            }
            Kind::Amend { order, first } => {
                let place = if first { 0 } else { 1 };
                let sql = format!("DELETE FROM items WHERE order_id = {order}");
                all.insert(place, (sql, 2));
                let sql = format!("UPDATE parts SET txt = 'a{id}' WHERE order_id = {order}");
                all.insert(place, (sql, 1));
            }
            Kind::Label => all.push((
                format!(
                    "UPDATE labels SET moods = '{{calm}}', price = {id}, body = NULL, payload = NULL WHERE id = {user}"
                ),
                1,
            )),
            Kind::Transfer { to, amount } => {
                all[0].0 = format!(
                    "UPDATE users SET counter = counter + 1, balance = balance - {amount} WHERE id = {user}"
                );
                all.push((
                    format!("UPDATE users SET balance = balance + {amount} WHERE id = {to}"),
                    1,
                ));
            }
        }
        all.push(self.order());
        all
    }

    fn order(&self) -> (String, u64) {
        let Self { id, user, .. } = self;
        let sql = format!(
            "INSERT INTO orders SELECT {id}, id, counter, 'n{id}' FROM users WHERE id = {user} RETURNING seq"
        );
        (sql, 1)
    }

    /// What it makes of the rows; transfers change the other user's too.
    fn apply(&self, seq: i64, lines: &mut BTreeSet<String>) {
        let Self { id, user, .. } = self;
        lines.insert(format!("orders ({id},{user},{seq},n{id})"));
        match self.kind {
            Kind::Append { event, comment } => {
                lines.insert(format!("items ({id}0,{id},1)"));
                lines.insert(format!("items ({id}1,{id},2)"));
                lines.insert(format!("parts ({id},1,p)"));
                if event {
                    lines.insert(format!("events ({id},{user},{},e)", id % 2));
                }
                if comment {
                    lines.insert(format!("comments ({id},{user},{user}1,c)"));
                }
            }
            Kind::Amend { order, .. } => {
                for item in 0..2 {
                    lines.remove(&format!("items ({order}{item},{order},{})", item + 1));
                }
                lines.remove(&format!("parts ({order},1,p)"));
                lines.insert(format!("parts ({order},1,a{id})"));
            }
            Kind::Label => {
                lines.retain(|line| !line.starts_with("labels ("));
                let doubled = id * 2;
                lines.insert(format!("labels ({user},{user},{{calm}},{id},{doubled},,)"));
            }
            Kind::Transfer { .. } => {}
        }
    }
}

/// An order as it stands in the table: id, number in the order of its user.
fn orders(lines: &BTreeSet<String>) -> BTreeMap<i64, i64> {
    let orders = lines
        .iter()
        .filter_map(|line| line.strip_prefix("orders ("));
    orders
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            (fields[0].parse().unwrap(), fields[2].parse().unwrap())
        })
        .collect()
}

/// Counter and balance.
fn standing(lines: &BTreeSet<String>) -> (String, i64, i64) {
    let line = lines
        .iter()
        .find(|line| line.starts_with("users ("))
        .expect("a user's own row");
    let mut fields = line.trim_end_matches(')').rsplitn(3, ',');
    let (balance, counter) = (fields.next().unwrap(), fields.next().unwrap());
    let identity = fields.next().unwrap().to_owned();
    (identity, counter.parse().unwrap(), balance.parse().unwrap())
}

async fn check(world: &World, before: &BTreeMap<String, BTreeSet<String>>, log: &Log) {
    let (us, eu) = (world.dump(&world.us).await, world.dump(&world.eu).await);
    let homes = world.homes().await;
    let none = BTreeSet::new();
    let mut received: HashMap<i64, i64> = HashMap::new();
    let mut balances = Vec::new();
    for (user, home) in &homes {
        let (here, away) = match std::ptr::eq(*home, &raw const world.us) {
            true => (us.get(user), eu.get(user)),
            false => (eu.get(user), us.get(user)),
        };
        let (here, away) = (here.unwrap_or(&none), away.unwrap_or(&none));
        let stored = orders(here);
        let (identity, counter, balance) = standing(&before[user]);
        let mut happened: BTreeMap<i64, &Write> = BTreeMap::new();
        for (write, outcome) in &log.writes {
            if write.user.to_string() != *user {
                continue;
            }
            let seq = match (outcome, stored.get(&write.id)) {
                (Outcome::Done(seq), Some(there)) if seq == there => *seq,
                (Outcome::Done(seq), there) => {
                    panic!("user {user}: {write:?} was promised as {seq}, there is {there:?}")
                }
                (Outcome::Unknown, Some(there)) => *there,
                (Outcome::Unknown, None) => continue,
            };
            let twice = happened.insert(seq, write);
            assert!(
                twice.is_none(),
                "user {user}: {write:?} and {twice:?} are both {seq}"
            );
        }
        for id in stored.keys() {
            assert!(
                !log.failed.contains(id),
                "user {user}: order {id} was not written, and is there"
            );
        }
        let numbers: Vec<i64> = happened.keys().copied().collect();
        let all: Vec<i64> = (counter + 1..).take(numbers.len()).collect();
        assert_eq!(
            numbers, all,
            "user {user}: a write is missing or was counted twice"
        );
        // What they made of the rows there were.
        let mut model = before[user].clone();
        let mut own = balance;
        for (seq, write) in &happened {
            write.apply(*seq, &mut model);
            if let Kind::Transfer { to, amount } = write.kind {
                own -= amount;
                *received.entry(to).or_default() += amount;
            }
        }
        model.retain(|line| !line.starts_with("users ("));
        let rows: BTreeSet<String> = here
            .iter()
            .filter(|line| !line.starts_with("users ("))
            .cloned()
            .collect();
        let lost: Vec<&String> = model.difference(&rows).collect();
        let more: Vec<&String> = rows.difference(&model).collect();
        assert!(
            lost.is_empty() && more.is_empty(),
            "user {user} at home: lost {lost:#?}, too much {more:#?}"
        );
        let (name, reached, holds) = standing(here);
        let last = counter + i64::try_from(happened.len()).unwrap();
        assert_eq!((name, reached), (identity, last), "user {user}");
        balances.push((user.parse::<i64>().unwrap(), own, holds));
        // The copy that was left behind stands still: a beginning of what happened, nothing else.
        let frozen = orders(away);
        for (id, seq) in &frozen {
            let same = stored.get(id);
            assert_eq!(
                same,
                Some(seq),
                "user {user}: order {id} is written where the user does not live"
            );
        }
    }
    for (user, own, holds) in balances {
        let expected = own + received.get(&user).copied().unwrap_or(0);
        assert_eq!(holds, expected, "user {user}: money is lost or made");
    }
}

/// The check itself: each of these must be found.
async fn tampered(side: usize, sql: &str) {
    let world = World::ready().await;
    let ledger = Ledger::open(&world, &Dice::new(1), Duration::from_millis(2)).await;
    ledger.goes_on(5).await;
    ledger.stop.send_replace(true);
    let database = [&world.us, &world.eu][side];
    let admin = database.admin().await;
    // Whatever is under way ends first.
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shopper' AND state <> 'idle' AND datname = current_database()";
    while admin.number(busy).await > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    admin
        .must(&format!(
            "ALTER TABLE items DISABLE TRIGGER USER; ALTER TABLE users DISABLE TRIGGER USER; \
             ALTER TABLE orders DISABLE TRIGGER USER; {sql}"
        ))
        .await;
    ledger.close(&world).await;
}

#[tokio::test]
#[should_panic(expected = "lost")]
async fn the_check_finds_a_lost_row() {
    tampered(
        0,
        "DELETE FROM items WHERE id = (SELECT min(id) FROM items)",
    )
    .await;
}

#[tokio::test]
#[should_panic(expected = "was promised as")]
async fn the_check_finds_a_lost_write() {
    let sql = "ALTER TABLE items DROP CONSTRAINT items_order_id_fkey; ALTER TABLE parts DROP CONSTRAINT parts_order_id_fkey; \
               DELETE FROM orders WHERE id = (SELECT min(id) FROM orders)";
    tampered(0, sql).await;
}

#[tokio::test]
#[should_panic(expected = "money is lost or made")]
async fn the_check_finds_money_that_is_made() {
    tampered(0, "UPDATE users SET balance = balance + 1 WHERE id = 3").await;
}

#[tokio::test]
#[should_panic(expected = "is written where the user does not live")]
async fn the_check_finds_a_write_at_the_wrong_side() {
    let sql = "INSERT INTO users VALUES (1, 'x', 'DE'); INSERT INTO orders VALUES (1, 1, 1, 'n')";
    tampered(1, sql).await;
}
