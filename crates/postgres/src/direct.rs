//! A session of its own with one server: parameters, pipelining, COPY in both directions.
//!
//! Statements reach the server in the order in which their calls are first polled, also when the calls are polled
//! together: then they share a round trip. One deadline covers each call. A call that meets its deadline or is dropped
//! half way ends the session, because nobody could say what the next statement would meet; whoever wants the others to
//! go on after an error polls them with `join!`, not `try_join!`.
//!
//! Never goes through a pooler, never shows a value of a row in an error.

mod copy;

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Mutex as Turn;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use crate::connect::{Options, log_in, refuses_startup_settings};
use crate::dsn::Dsn;
use crate::error::{Error, Kind};

pub use copy::{CopyIn, CopyOut};

/// The server keeps no more bytes of an `application_name`, and says nothing.
const LONGEST_NAME: usize = 63;

/// Prepared statements of one session. The mover has a few dozen texts.
const MOST_STATEMENTS: usize = 100;

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct DirectOptions {
    /// At most 63 printable ASCII characters.
    pub application_name: String,
    /// For everything from the name look-up to the first answer.
    pub connect_within: Duration,
    /// For one call, and for each piece of a COPY.
    pub answer_within: Duration,
    /// Also talk without TLS to another machine, for example inside a WireGuard mesh.
    pub allow_plaintext: bool,
    pub endpoint: Endpoint,
    /// How long either side may leave bytes unacknowledged before the other gives the connection, and all its locks, up.
    pub tcp_user_timeout: Duration,
    /// For a whole statement; zero is without a limit, for example for a long COPY.
    pub statement_timeout: Duration,
    pub lock_timeout: Duration,
    pub idle_in_transaction_timeout: Duration,
    /// Beside the session's own, for example `role`. `search_path` and `row_security` are not free.
    pub settings: Vec<(&'static str, String)>,
}

/// Which server may be at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Primary,
    /// A primary or a standby.
    Either,
}

/// An open session.
pub struct Direct {
    client: Client,
    connection: JoinHandle<()>,
    /// An aborted connection is not gone at once; what asks in between must not get through.
    ended: AtomicBool,
    place: String,
    answer_within: Duration,
    backend_pid: i32,
    version: u32,
    /// Whose call sends next. Fair: first come, first served.
    turn: Turn<()>,
    statements: Mutex<HashMap<String, Statement>>,
}

impl Direct {
    /// Connects, logs in and makes sure of who answers.
    ///
    /// # Errors
    /// By kind, within `connect_within`; also when a pooler stands between, or a standby answers for a primary.
    pub async fn open(dsn: &Dsn, options: &DirectOptions) -> Result<Self, Error> {
        let limit = options.connect_within;
        match timeout(limit, Self::open_unhurried(dsn, options)).await {
            Ok(session) => session,
            Err(_) => Err(Error::timeout(&dsn.place(), limit)),
        }
    }

    async fn open_unhurried(dsn: &Dsn, options: &DirectOptions) -> Result<Self, Error> {
        let place = dsn.place();
        check_name(&options.application_name, &place)?;
        let mark = mark(&place)?;
        let settings = settings(options, &mark);
        let plain = Options {
            application_name: options.application_name.clone(),
            connect_within: options.connect_within,
            answer_within: options.answer_within,
            allow_plaintext: options.allow_plaintext,
        };
        let logged_in = log_in(dsn, &plain, Some(&settings), Some(options.tcp_user_timeout)).await;
        let (client, connection) = logged_in.map_err(|error| {
            if refuses_startup_settings(&error) {
                return pooled(&place);
            }
            error
        })?;
        let mut session = Self {
            client,
            connection,
            ended: AtomicBool::new(false),
            place,
            answer_within: options.answer_within,
            backend_pid: 0,
            version: 0,
            turn: Turn::new(()),
            statements: Mutex::default(),
        };
        session.recognise(&mark, options.endpoint).await?;
        Ok(session)
    }

    /// The mark is random and travels in the start packet only: a pooler refuses it or swallows it, and a backend
    /// that others use has another one.
    async fn recognise(&mut self, mark: &str, endpoint: Endpoint) -> Result<(), Error> {
        let sql = "SELECT pg_backend_pid(), current_setting('server_version_num')::int4, \
                   coalesce(current_setting('regionwise.session', true), ''), pg_is_in_recovery(), \
                   current_setting('search_path') || ' ' || current_setting('row_security') || ' ' \
                   || current_setting('client_encoding')";
        // Without a prepared statement: one round trip less.
        let answer = self.client.query_typed(sql, &[]).await;
        let rows = answer.map_err(|error| self.failed(&error))?;
        let [row] = rows.as_slice() else {
            return Err(self.unexpected(format!("{} rows instead of one", rows.len())));
        };
        let version: i32 = self.value(row, 1)?;
        self.backend_pid = self.value(row, 0)?;
        self.version = version.unsigned_abs();
        if self.value::<String>(row, 2)? != mark {
            return Err(pooled(&self.place));
        }
        let pinned: String = self.value(row, 4)?;
        if pinned != "pg_catalog off UTF8" {
            return Err(self.unexpected(format!("with the settings `{pinned}`")));
        }
        match (endpoint, self.value(row, 3)?) {
            (Endpoint::Primary, true) => Err(Error::new(
                Kind::ReadOnly,
                &self.place,
                "it is a standby, and a primary is wanted",
            )),
            (Endpoint::Primary, false) | (Endpoint::Either, _) => Ok(()),
        }
    }

    /// The server's process: what `pg_stat_activity` and `pg_locks` call this session.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// `150018` for 15.18.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether the next call can work at all.
    pub fn is_open(&self) -> bool {
        !self.ended.load(Ordering::Acquire) && !self.client.is_closed()
    }

    /// One statement that gives rows. It is prepared when its text is new to the session, which costs a round trip.
    ///
    /// # Errors
    /// By kind, within `answer_within`.
    pub async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.call(async {
            let turn = self.turn.lock().await;
            let statement = self.prepared(sql).await?;
            let answer = self.client.query(&statement, parameters);
            let answer = sent(answer, turn).await;
            answer.map_err(|error| self.failed_statement(sql, &error))
        })
        .await
    }

    /// One statement without parameters, whose text will not come again: nothing is prepared for it.
    ///
    /// # Errors
    /// By kind, within `answer_within`.
    pub async fn ask(&self, sql: &str) -> Result<Vec<Row>, Error> {
        self.call(async {
            let turn = self.turn.lock().await;
            let answer = sent(self.client.query_typed(sql, &[]), turn).await;
            answer.map_err(|error| self.failed(&error))
        })
        .await
    }

    /// One statement that gives none: how many rows it changed.
    ///
    /// # Errors
    /// By kind, within `answer_within`.
    pub async fn execute(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        self.call(async {
            let turn = self.turn.lock().await;
            let statement = self.prepared(sql).await?;
            let answer = self.client.execute(&statement, parameters);
            let answer = sent(answer, turn).await;
            answer.map_err(|error| self.failed_statement(sql, &error))
        })
        .await
    }

    /// Any number of statements, without parameters and without rows; one round trip. Outside a transaction they are
    /// one.
    ///
    /// # Errors
    /// By kind, within `answer_within`.
    pub async fn batch(&self, sql: &str) -> Result<(), Error> {
        self.call(async {
            let turn = self.turn.lock().await;
            let answer = sent(self.client.batch_execute(sql), turn).await;
            answer.map_err(|error| self.failed(&error))
        })
        .await
    }

    /// `COPY .. TO STDOUT`. What comes must be read while anything else of this session is awaited: unread, it blocks
    /// every later answer.
    ///
    /// # Errors
    /// By kind, within `answer_within`.
    pub async fn copy_out(&self, sql: &str) -> Result<CopyOut<'_>, Error> {
        self.call(async {
            let turn = self.turn.lock().await;
            // Not kept: its text names the users of one batch.
            let statement = self.client.prepare(sql).await;
            let statement = statement.map_err(|error| self.failed(&error))?;
            let answer = sent(self.client.copy_out(&statement), turn).await;
            let stream = answer.map_err(|error| self.failed(&error))?;
            Ok(CopyOut::new(self, stream))
        })
        .await
    }

    /// `COPY .. FROM STDIN`. What other calls send waits until this COPY is finished; their deadlines do not.
    ///
    /// # Errors
    /// By kind, within `answer_within`. A COPY that the server refuses takes the session with it: tokio-postgres (0.7) ends it
    /// a second time, and every later answer would be taken for that of the call before.
    pub async fn copy_in(&self, sql: &str) -> Result<CopyIn<'_>, Error> {
        self.call(async {
            let turn = self.turn.lock().await;
            let statement = self.prepared(sql).await?;
            match sent(self.client.copy_in(&statement), turn).await {
                Ok(sink) => Ok(CopyIn::new(self, sink)),
                Err(error) => {
                    self.close();
                    Err(self.failed_statement(sql, &error))
                }
            }
        })
        .await
    }

    /// Ends the session at once: the server rolls back what is open as soon as it notices.
    pub fn close(&self) {
        self.ended.store(true, Ordering::Release);
        self.connection.abort();
    }

    async fn call<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if !self.is_open() {
            return Err(Error::new(
                Kind::Lost,
                &self.place,
                "an earlier call ended it",
            ));
        }
        let unfinished = Unfinished(Some(self));
        let answer = match timeout(self.answer_within, work).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::timeout(&self.place, self.answer_within)),
        };
        if !answer.as_ref().is_err_and(ends_session) {
            unfinished.finished();
        }
        answer
    }

    async fn prepared(&self, sql: &str) -> Result<Statement, Error> {
        let known = self.statements().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await;
        let statement = statement.map_err(|error| self.failed(&error))?;
        let mut statements = self.statements();
        if statements.len() >= MOST_STATEMENTS {
            statements.clear();
        }
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn statements(&self) -> MutexGuard<'_, HashMap<String, Statement>> {
        self.statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_statement(&self, sql: &str, error: &tokio_postgres::Error) -> Error {
        let failed = self.failed(error);
        // The table has changed under the prepared statement; the next try prepares it again.
        if failed.sqlstate() == Some("0A000") {
            self.statements().remove(sql);
        }
        failed
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Error {
        Error::discreet(&self.place, error)
    }

    /// An answer that its reader cannot make sense of. `what` must not hold a value of a row.
    pub fn unexpected(&self, what: impl Into<String>) -> Error {
        Error::new(Kind::Unexpected, &self.place, what)
    }

    fn value<'a, T: tokio_postgres::types::FromSql<'a>>(
        &self,
        row: &'a Row,
        column: usize,
    ) -> Result<T, Error> {
        row.try_get(column)
            .map_err(|error| self.unexpected(format!("what cannot be read: {error}")))
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Ends the session when dropped before the end of what it guards.
struct Unfinished<'a>(Option<&'a Direct>);

impl Unfinished<'_> {
    fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(direct) = self.0 {
            direct.close();
        }
    }
}

/// tokio-postgres sends a request when it is polled first; then it is the next call's turn.
async fn sent<T, G>(request: impl Future<Output = T>, turn: G) -> T {
    let mut request = pin!(request);
    let first = poll_fn(|context| Poll::Ready(request.as_mut().poll(context))).await;
    drop(turn);
    match first {
        Poll::Ready(answer) => answer,
        Poll::Pending => request.await,
    }
}

fn ends_session(error: &Error) -> bool {
    match error.kind {
        // A server's own statement timeout is an answer.
        Kind::Timeout => error.sqlstate().is_none(),
        Kind::Lost | Kind::ShuttingDown | Kind::Protocol => true,
        Kind::Dns
        | Kind::Refused
        | Kind::Tls
        | Kind::Auth
        | Kind::StartingUp
        | Kind::TooManyConnections
        | Kind::Conflict
        | Kind::Permission
        | Kind::Missing
        | Kind::ReadOnly
        | Kind::Server
        | Kind::Unexpected => false,
    }
}

fn check_name(name: &str, place: &str) -> Result<(), Error> {
    let printable = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if name.len() <= LONGEST_NAME && printable {
        return Ok(());
    }
    let why = format!(
        "the application name has {} bytes; the server keeps {LONGEST_NAME} of printable ASCII",
        name.len()
    );
    Err(Error::new(Kind::Unexpected, place, why))
}

fn mark(place: &str) -> Result<String, Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Kind::Unexpected, place, error.to_string()))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn pooled(place: &str) -> Error {
    let why = "as a pooler does: it did not take the session's settings to the server";
    Error::new(Kind::Unexpected, place, why)
}

/// The last of a name counts: what a role or a database may have been given is overruled by what a move needs, that by
/// the caller, and the caller by what is not free.
fn settings(options: &DirectOptions, mark: &str) -> Vec<(&'static str, String)> {
    let millis = |limit: Duration| limit.as_millis().to_string();
    let silence = options.tcp_user_timeout.as_secs().max(1).to_string();
    let mut settings: Vec<(&'static str, String)> = [
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_read_only", "off"),
        ("default_transaction_deferrable", "off"),
        // Without it a server's crash takes back a commit that the other cluster was told of.
        ("synchronous_commit", "on"),
        ("idle_session_timeout", "0"),
        ("standard_conforming_strings", "on"),
        // Compiling takes longer than everything that runs under a fence.
        ("jit", "off"),
        // A statement of a client that is gone ends within a second too, not only one that sends.
        ("client_connection_check_interval", "1000"),
        ("tcp_keepalives_interval", "1"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    settings.extend(options.settings.iter().cloned());
    settings.extend([
        ("search_path", "pg_catalog".to_owned()),
        ("row_security", "off".to_owned()),
        ("regionwise.session", mark.to_owned()),
        ("statement_timeout", millis(options.statement_timeout)),
        ("lock_timeout", millis(options.lock_timeout)),
        (
            "idle_in_transaction_session_timeout",
            millis(options.idle_in_transaction_timeout),
        ),
        ("tcp_user_timeout", millis(options.tcp_user_timeout)),
        ("tcp_keepalives_idle", silence),
    ]);
    settings
}
