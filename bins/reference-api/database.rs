//! Connections to one database, usually through PgBouncer in transaction mode.
//!
//! Transaction mode knows no named prepared statements (PgBouncer before 1.21), so every statement goes out unnamed with
//! its types, and nothing is set on a session. Every call has a deadline; a connection that failed or was given up in
//! the middle is closed, never used again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join3;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

/// For one call, waiting for a connection included. Longer than the round trip from Singapore to the US many times over.
const DEADLINE: Duration = Duration::from_secs(3);

/// PgBouncer serves many of these with few server connections; more would only queue there.
const CONNECTIONS: usize = 16;

/// Connections opened at the same time. A login costs both sides far more than a query, and while one is under way another
/// connection usually comes back.
const OPENING: usize = 2;

/// A parameter and its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// What a transaction says of itself to the fence: whose rows it is about, and how often that user had moved when the route
/// was read.
#[derive(Clone, Copy)]
pub(crate) struct Declaration {
    pub(crate) user: i64,
    pub(crate) epoch: i64,
}

impl Declaration {
    /// Local settings end with the transaction: PgBouncer gives the session to somebody else then.
    fn begin(self) -> String {
        format!(
            "BEGIN; SELECT set_config('regionwise.uid', '{}', true), set_config('regionwise.epoch', '{}', true)",
            self.user, self.epoch
        )
    }
}

pub(crate) struct Database(Arc<Pool>);

struct Pool {
    config: tokio_postgres::Config,
    idle: Mutex<Vec<Client>>,
    /// One for each connection in use or being opened.
    permits: Arc<Semaphore>,
    opening: Semaphore,
}

#[derive(Debug, Error)]
pub(crate) enum DatabaseError {
    /// The database's or the network's fault.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The database's or the network's fault.
    #[error("cannot connect")]
    Connect(#[source] tokio_postgres::Error),
    /// See the SQLSTATE.
    #[error("cannot run the statement")]
    Statement(#[source] tokio_postgres::Error),
}

impl DatabaseError {
    pub(crate) fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Statement(error) => error.code(),
            Self::Deadline | Self::Connect(_) => None,
        }
    }

    /// Whether the statement itself is wrong: neither the connection nor a server that is going away.
    pub(crate) fn is_a_bug(&self) -> bool {
        // 08: connection, 25006: read-only after a switchover, 53: resources, 57: shutting down or cancelled,
        // 40: serialization, 55P03: lock not available, MV001: the user is at home in another cluster.
        const PASSING: [&str; 7] = ["08", "25006", "53", "57", "40", "55P03", "MV001"];
        self.sqlstate().is_some_and(|state| {
            !PASSING
                .iter()
                .any(|prefix| state.code().starts_with(prefix))
        })
    }

    /// Whether the connection broke rather than the statement.
    fn lost_connection(&self) -> bool {
        match self {
            Self::Statement(error) => {
                error.is_closed()
                    || match error.code() {
                        None => true,
                        Some(state) => {
                            state.code().starts_with("08") || state.code().starts_with("57P")
                        }
                    }
            }
            Self::Deadline | Self::Connect(_) => false,
        }
    }
}

impl Database {
    pub(crate) fn new(mut config: tokio_postgres::Config) -> Self {
        config
            .application_name("reference-api")
            .connect_timeout(DEADLINE);
        Self(Arc::new(Pool {
            config,
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            opening: Semaphore::new(OPENING),
        }))
    }

    /// The same database with connections of its own: does not wait behind the callers of this one.
    pub(crate) fn apart(&self) -> Self {
        Self::new(self.0.config.clone())
    }

    /// Runs a statement that must not run twice.
    pub(crate) async fn query_once(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        within_deadline(self.attempt(None, sql, parameters))
            .await
            .map_err(|failed| failed.error)
    }

    /// Runs a statement that may run twice: again on a new connection when a used one turns out to be broken, as all
    /// are after a restart of the bouncer or the primary.
    pub(crate) async fn query_repeatable(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        self.attempt_twice(None, sql, parameters).await
    }

    /// Runs a statement that may run twice in a transaction that declares itself first.
    pub(crate) async fn query_declared(
        &self,
        declaration: Declaration,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        self.attempt_twice(Some(declaration), sql, parameters).await
    }

    async fn attempt_twice(
        &self,
        declaration: Option<Declaration>,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let attempts = async {
            match self.attempt(declaration, sql, parameters).await {
                Err(failed) if failed.used && failed.error.lost_connection() => {
                    self.0.forget_idle();
                    self.attempt(declaration, sql, parameters).await
                }
                result => result,
            }
        };
        within_deadline(attempts)
            .await
            .map_err(|failed| failed.error)
    }

    /// Runs several statements without parameters as one transaction block.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), DatabaseError> {
        let batch = async {
            let lease = self.0.lease().await?;
            // Not put back after an error: it could be left inside the failed transaction.
            lease
                .client
                .batch_execute(sql)
                .await
                .map_err(|error| lease.failed(error))?;
            self.0.put_back(lease.client);
            Ok(())
        };
        within_deadline(batch).await.map_err(|failed| failed.error)
    }

    async fn attempt(
        &self,
        declaration: Option<Declaration>,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Failed> {
        let lease = self.0.lease().await?;
        let result = match declaration {
            None => lease.client.query_typed(sql, parameters).await,
            Some(declaration) => transaction(&lease.client, declaration, sql, parameters).await,
        };
        match result {
            Ok(rows) => {
                self.0.put_back(lease.client);
                Ok(rows)
            }
            Err(error) => {
                let failed = lease.failed(error);
                if !failed.error.lost_connection() {
                    self.0.put_back(lease.client);
                }
                Err(failed)
            }
        }
    }
}

/// Everything is sent at once and answered in this order, so that a transaction costs one round trip like a statement. After an
/// error the server skips the rest, and its COMMIT only ends the failed transaction: the connection is clean either way.
async fn transaction(
    client: &Client,
    declaration: Declaration,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let begin = declaration.begin();
    let (begun, rows, committed) = join3(
        client.batch_execute(&begin),
        client.query_typed(sql, parameters),
        client.batch_execute("COMMIT"),
    )
    .await;
    begun?;
    let rows = rows?;
    committed?;
    Ok(rows)
}

/// A connection for one statement or transaction.
struct Lease {
    client: Client,
    /// Whether it had been used before.
    used: bool,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    fn failed(&self, error: tokio_postgres::Error) -> Failed {
        Failed {
            error: DatabaseError::Statement(error),
            used: self.used,
        }
    }
}

struct Failed {
    error: DatabaseError,
    /// Whether the connection had been used before.
    used: bool,
}

impl Pool {
    async fn lease(self: &Arc<Self>) -> Result<Lease, Failed> {
        // An error would mean that the semaphore is closed, which nothing does; it is treated as a long wait.
        let gone = |error| Failed { error, used: false };
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| gone(DatabaseError::Deadline))?;
        if let Some(client) = self.take_idle() {
            return Ok(Lease {
                client,
                used: true,
                _permit: permit,
            });
        }
        let (send, opened) = oneshot::channel();
        let pool = Arc::clone(self);
        // A task of its own: a caller that gives up must not undo the opening. Otherwise a slow moment, in which every
        // caller gives up just before its connection is there, would never end.
        tokio::spawn(async move {
            let lease = pool.open().await.map(|(client, used)| Lease {
                client,
                used,
                _permit: permit,
            });
            if let Err(Ok(lease)) = send.send(lease) {
                pool.put_back(lease.client);
            }
        });
        match opened.await {
            Ok(lease) => lease.map_err(gone),
            Err(_) => Err(gone(DatabaseError::Deadline)),
        }
    }

    /// Opens a connection, or takes one that came back while this one waited for its turn.
    async fn open(&self) -> Result<(Client, bool), DatabaseError> {
        let opening = async {
            let _turn = self.opening.acquire().await;
            if let Some(client) = self.take_idle() {
                return Ok((client, true));
            }
            let (client, connection) = self
                .config
                .connect(NoTls)
                .await
                .map_err(DatabaseError::Connect)?;
            // Ends by itself when the client is dropped; its error also reaches the statement that waits.
            tokio::spawn(connection);
            Ok((client, false))
        };
        timeout(DEADLINE, opening)
            .await
            .unwrap_or(Err(DatabaseError::Deadline))
    }

    fn take_idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    fn put_back(&self, client: Client) {
        if !client.is_closed() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(client);
        }
    }

    /// One broken connection means that those opened before it are broken too.
    fn forget_idle(&self) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

async fn within_deadline<T>(call: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let late = Failed {
        error: DatabaseError::Deadline,
        used: false,
    };
    timeout(DEADLINE, call).await.unwrap_or(Err(late))
}
