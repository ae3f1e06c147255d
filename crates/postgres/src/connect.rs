//! A session with one server: a deadline around connecting and around every query.
//!
//! The deadlines are ours because the server's do not help against a server that hangs: with a stopped postmaster no
//! `statement_timeout` ever fires. After a deadline the connection is dropped, so that a late answer meets nobody.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, NoTls, TlsConnect};
use tokio_postgres::{Client, Config, SimpleQueryMessage, SimpleQueryRow};

use crate::dsn::{Dsn, Encryption, Server};
use crate::error::{Error, Kind};
use crate::tls::Roots;

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct Options {
    pub application_name: String,
    /// For everything from the name look-up to the first answer.
    pub connect_within: Duration,
    /// For one query.
    pub answer_within: Duration,
    /// Also talk without TLS to another machine, for example inside a WireGuard mesh.
    pub allow_plaintext: bool,
}

/// An open session. Broken after a deadline or a lost connection; every later query then says so.
pub struct Session {
    client: Option<Client>,
    connection: JoinHandle<()>,
    place: String,
    answer_within: Duration,
    settings: Vec<(&'static str, String)>,
    about: About,
}

/// What a session learns about its server while it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct About {
    version: u32,
    pg_monitor: bool,
    pooled: bool,
}

impl About {
    /// Whether the settings arrived tells whether somebody stands between: PgBouncer either refuses them at the
    /// start (08P01) or, with `ignore_startup_parameters = options`, swallows them.
    async fn ask(client: &Client, place: &str) -> Result<Self, Error> {
        let sql = "SELECT pg_catalog.current_setting('server_version_num') AS version, \
                   pg_catalog.current_setting('row_security') AS row_security, \
                   pg_catalog.current_setting('search_path') AS search_path, \
                   pg_catalog.pg_has_role('pg_monitor', 'USAGE') AS pg_monitor";
        let answer = client
            .simple_query(sql)
            .await
            .map_err(|error| Error::postgres(place, &error))?;
        let row = only(rows_of(answer, place), place)?;
        let direct = row.text("row_security") == Some("off")
            && row.text("search_path") == Some("pg_catalog");
        Ok(Self {
            version: row.parse("version")?,
            pg_monitor: row.flag("pg_monitor")?,
            pooled: !direct,
        })
    }
}

/// One row of an answer, as text. The simple protocol also works through PgBouncer before 1.21, which knows no
/// prepared statements in transaction mode.
pub struct Row {
    row: SimpleQueryRow,
    place: String,
}

impl Session {
    /// Connects, logs in and applies the session's settings.
    ///
    /// # Errors
    /// By kind, within `connect_within`.
    pub async fn open(dsn: &Dsn, options: &Options) -> Result<Self, Error> {
        let limit = options.connect_within;
        match timeout(limit, Self::open_unhurried(dsn, options)).await {
            Ok(session) => session,
            Err(_) => Err(Error::timeout(&dsn.place(), limit)),
        }
    }

    async fn open_unhurried(dsn: &Dsn, options: &Options) -> Result<Self, Error> {
        let settings = settings(options.answer_within);
        let direct = log_in(dsn, options, Some(&settings), None).await;
        let (client, connection) = match direct {
            Err(error) if refuses_startup_settings(&error) => {
                log_in(dsn, options, None, None).await?
            }
            other => other?,
        };
        let about = About::ask(&client, &dsn.place()).await?;
        Ok(Self {
            client: Some(client),
            connection,
            place: dsn.place(),
            answer_within: options.answer_within,
            settings,
            about,
        })
    }

    /// `150018` for 15.18.
    pub fn version(&self) -> u32 {
        self.about.version
    }

    /// Whether the role may see other sessions' replication columns; without it they are NULL, without an error.
    pub fn has_pg_monitor(&self) -> bool {
        self.about.pg_monitor
    }

    /// A pooler stands between: settings hold for one transaction only, and the next one may meet another server.
    pub fn is_pooled(&self) -> bool {
        self.about.pooled
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether the next query can work at all.
    pub fn is_open(&self) -> bool {
        self.client
            .as_ref()
            .is_some_and(|client| !client.is_closed())
    }

    /// Reads: one statement, one round trip.
    ///
    /// # Errors
    /// By kind, within `answer_within`.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        if self.about.pooled {
            return self.transaction("READ ONLY", "", sql, "").await;
        }
        self.ask(sql).await
    }

    /// Reads exactly one row.
    ///
    /// # Errors
    /// By kind; also when there is no row, or more than one.
    pub async fn row(&mut self, sql: &str) -> Result<Row, Error> {
        let rows = self.rows(sql).await?;
        only(rows, &self.place)
    }

    /// Writes in one transaction; `before` are its `SET LOCAL`s, `after` is read once it is committed, all in one round
    /// trip. A failed write ends the session: a transaction that is half done must not be reused.
    ///
    /// # Errors
    /// By kind, within `answer_within`.
    pub async fn write(&mut self, before: &str, sql: &str, after: &str) -> Result<Vec<Row>, Error> {
        self.transaction("READ WRITE", before, sql, after).await
    }

    async fn transaction(
        &mut self,
        mode: &str,
        before: &str,
        sql: &str,
        after: &str,
    ) -> Result<Vec<Row>, Error> {
        let settings: String = match self.about.pooled {
            true => self
                .settings
                .iter()
                .map(|(name, value)| format!("SET LOCAL {name} = '{value}'; "))
                .collect(),
            false => String::new(),
        };
        let answer = self
            .ask(&format!(
                "BEGIN {mode}; {settings}{before} {sql}; COMMIT; {after}"
            ))
            .await;
        if answer.is_err() {
            self.close();
        }
        answer
    }

    async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        let Some(client) = &self.client else {
            return Err(Error::new(
                Kind::Lost,
                &self.place,
                "an earlier query broke it",
            ));
        };
        let answer = match timeout(self.answer_within, client.simple_query(sql)).await {
            Ok(Ok(messages)) => return Ok(rows_of(messages, &self.place)),
            Ok(Err(error)) => Error::postgres(&self.place, &error),
            Err(_) => Error::timeout(&self.place, self.answer_within),
        };
        if matches!(
            answer.kind,
            Kind::Timeout | Kind::Lost | Kind::ShuttingDown | Kind::Protocol
        ) {
            self.close();
        }
        Err(answer)
    }

    fn close(&mut self) {
        self.client = None;
        self.connection.abort();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Row {
    /// The value of a column; `None` for NULL and for a column that is not there.
    pub fn text(&self, column: &str) -> Option<&str> {
        self.row.try_get(column).ok().flatten()
    }

    /// # Errors
    /// `unexpected` when the value is NULL or not a `T`.
    pub fn parse<T: FromStr>(&self, column: &str) -> Result<T, Error> {
        match self.optional(column)? {
            Some(value) => Ok(value),
            None => Err(Error::new(
                Kind::Unexpected,
                &self.place,
                format!("NULL for `{column}`"),
            )),
        }
    }

    /// # Errors
    /// `unexpected` when there is a value and it is not a `T`.
    pub fn optional<T: FromStr>(&self, column: &str) -> Result<Option<T>, Error> {
        self.text(column)
            .map(|text| {
                let wrong = || {
                    Error::new(
                        Kind::Unexpected,
                        &self.place,
                        format!("`{text}` for `{column}`"),
                    )
                };
                text.parse().map_err(|_| wrong())
            })
            .transpose()
    }

    /// # Errors
    /// `unexpected` when the value is NULL or not a boolean.
    pub fn flag(&self, column: &str) -> Result<bool, Error> {
        match self.text(column) {
            Some("t") => Ok(true),
            Some("f") => Ok(false),
            other => Err(Error::new(
                Kind::Unexpected,
                &self.place,
                format!("{other:?} for `{column}`"),
            )),
        }
    }
}

/// A text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What every session sets: no row hidden by a policy without an error, no name looked up in a foreign schema, no
/// statement, lock or open transaction that outlives our interest in it.
fn settings(answer_within: Duration) -> Vec<(&'static str, String)> {
    let millis = answer_within.as_millis();
    vec![
        ("search_path", "pg_catalog".to_owned()),
        ("row_security", "off".to_owned()),
        // Reading the catalogs takes a few milliseconds, compiling the query some eighty.
        ("jit", "off".to_owned()),
        ("statement_timeout", millis.to_string()),
        ("lock_timeout", millis.to_string()),
        (
            "idle_in_transaction_session_timeout",
            (millis * 2).to_string(),
        ),
    ]
}

pub(crate) fn refuses_startup_settings(error: &Error) -> bool {
    error.kind == Kind::Protocol && error.detail.contains("unsupported startup parameter")
}

/// `settings` travel in the start packet; after `unheard_for` without an acknowledgement the system gives the connection
/// up.
pub(crate) async fn log_in(
    dsn: &Dsn,
    options: &Options,
    settings: Option<&[(&'static str, String)]>,
    unheard_for: Option<Duration>,
) -> Result<(Client, JoinHandle<()>), Error> {
    let place = dsn.place();
    let mut config = dsn.config.clone();
    config.application_name(&options.application_name);
    if let Some(settings) = settings {
        let ours: Vec<String> = settings
            .iter()
            .map(|(name, value)| format!("-c {name}={}", escaped(value)))
            .collect();
        let theirs = config.get_options().unwrap_or_default();
        config.options(format!("{theirs} {}", ours.join(" ")).trim());
    }
    match &dsn.server {
        Server::Unix { socket } => {
            let stream = UnixStream::connect(socket)
                .await
                .map_err(|error| Error::io(&place, &error))?;
            start(&config, stream, NoTls, &place).await
        }
        Server::Tcp {
            host,
            address,
            port,
        } => {
            let stream = reach(host, *address, *port, &place).await?;
            if let Some(limit) = unheard_for {
                watch(&stream, limit).map_err(|error| Error::io(&place, &error))?;
            }
            let local = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
            let roots = match &dsn.encryption {
                Encryption::Verified(roots) => roots,
                Encryption::Unsaid if local || options.allow_plaintext => {
                    return start(&config, stream, NoTls, &place).await;
                }
                Encryption::Unsaid => &Roots::Public,
                Encryption::Plaintext if local || options.allow_plaintext => {
                    return start(&config, stream, NoTls, &place).await;
                }
                Encryption::Plaintext => {
                    let why = "`sslmode` asks for none, and the server is on another machine";
                    return Err(Error::new(Kind::Tls, &place, why));
                }
            };
            let tls = |error: String| Error::new(Kind::Tls, &place, error);
            let mut connector = roots.connector().map_err(tls)?;
            let connector = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, host)
                .map_err(|_| tls(format!("`{host}` cannot stand in a certificate")))?;
            config.ssl_mode(SslMode::Require);
            start(&config, stream, connector, &place).await
        }
    }
}

/// A value in the start packet's `options`, where a space ends it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(' ', "\\ ")
}

/// A silent connection is asked for a sign of life, and both an unanswered question and unacknowledged bytes end it.
fn watch(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    // Elsewhere unacknowledged bytes end it only by the deadline of the step that sent them.
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    sockopt::set_socket_keepalive(stream, true)?;
    // The smallest steps that the system knows.
    sockopt::set_tcp_keepidle(stream, limit.max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    Ok(())
}

async fn reach(
    host: &str,
    address: Option<IpAddr>,
    port: u16,
    place: &str,
) -> Result<TcpStream, Error> {
    let addresses: Vec<SocketAddr> = match address {
        Some(address) => vec![SocketAddr::new(address, port)],
        None => {
            let found = lookup_host((host, port)).await;
            found
                .map_err(|error| Error::new(Kind::Dns, place, error.to_string()))?
                .collect()
        }
    };
    let mut last = Error::new(Kind::Dns, place, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // A probe is one small packet each way: Nagle's wait would be measured as lag.
                stream
                    .set_nodelay(true)
                    .map_err(|error| Error::io(place, &error))?;
                return Ok(stream);
            }
            Err(error) => last = Error::io(place, &error),
        }
    }
    Err(last)
}

async fn start<S, T>(
    config: &Config,
    stream: S,
    tls: T,
    place: &str,
) -> Result<(Client, JoinHandle<()>), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config
        .connect_raw(stream, tls)
        .await
        .map_err(|error| Error::postgres(place, &error))?;
    let task = tokio::spawn(async move {
        // How the connection ended is told to the query that waits for it.
        let _ = connection.await;
    });
    Ok((client, task))
}

fn rows_of(messages: Vec<SimpleQueryMessage>, place: &str) -> Vec<Row> {
    messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(Row {
                row,
                place: place.to_owned(),
            }),
            _ => None,
        })
        .collect()
}

fn only(mut rows: Vec<Row>, place: &str) -> Result<Row, Error> {
    match (rows.pop(), rows.len()) {
        (Some(row), 0) => Ok(row),
        (last, more) => {
            let count = more + usize::from(last.is_some());
            Err(Error::new(
                Kind::Unexpected,
                place,
                format!("{count} rows instead of one"),
            ))
        }
    }
}
