//! A session as a test needs it: what a statement came to, and whether it waits for somebody.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// What a statement came to: how many rows, or its SQLSTATE.
pub(crate) type Said = Result<u64, String>;

pub(crate) fn refused(code: &str) -> Said {
    Err(code.to_owned())
}

#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Arc<Client>,
    pub(crate) pid: i32,
    port: u16,
    database: String,
}

impl Session {
    pub(crate) async fn open(
        port: u16,
        user: &str,
        database: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(port)
            .user(user)
            .dbname(database)
            .application_name("test");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await?;
        Ok(Self {
            client: Arc::new(client),
            pid: pid.get(0),
            port,
            database: database.to_owned(),
        })
    }

    /// Statements in one message, as `psql` sends them; the last one counts.
    pub(crate) async fn run(&self, sql: &str) -> Said {
        match self.client.simple_query(sql).await {
            Ok(messages) => {
                let mut rows = 0;
                for message in messages {
                    if let SimpleQueryMessage::CommandComplete(count) = message {
                        rows = count;
                    }
                }
                Ok(rows)
            }
            Err(error) => Err(error
                .code()
                .map_or_else(|| "no connection".to_owned(), |code| code.code().to_owned())),
        }
    }

    /// Statements that nobody expects to fail.
    pub(crate) async fn must(&self, sql: &str) -> u64 {
        match self.client.simple_query(sql).await {
            Ok(messages) => messages
                .iter()
                .rev()
                .find_map(|message| match message {
                    SimpleQueryMessage::CommandComplete(count) => Some(*count),
                    _ => None,
                })
                .unwrap_or(0),
            Err(error) => panic!("{}: {sql}", told(&error)),
        }
    }

    /// The text of the first column of the first row.
    pub(crate) async fn text(&self, sql: &str) -> Option<String> {
        let messages = self
            .client
            .simple_query(sql)
            .await
            .unwrap_or_else(|error| panic!("{}: {sql}", told(&error)));
        messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        })?
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let text = self.text(sql).await;
        text.unwrap_or_else(|| panic!("no answer: {sql}"))
            .parse()
            .unwrap()
    }

    /// The same in the background.
    pub(crate) fn start(&self, sql: &str) -> Running {
        let (session, sql) = (self.clone(), sql.to_owned());
        Running {
            task: tokio::spawn(async move { session.run(&sql).await }),
            pid: self.pid,
            port: self.port,
            database: self.database.clone(),
        }
    }
}

pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => format!(
            "{} {} {}",
            told.code().code(),
            told.message(),
            told.where_().unwrap_or("")
        ),
        None => error.to_string(),
    }
}

/// A statement under way.
pub(crate) struct Running {
    task: JoinHandle<Said>,
    pid: i32,
    port: u16,
    database: String,
}

impl Running {
    /// Whether it waits for a lock; false once it is over.
    pub(crate) async fn waits(&self) -> bool {
        let watcher = Session::open(self.port, "postgres", &self.database)
            .await
            .unwrap();
        let sql = format!(
            "SELECT count(*) FROM unnest(pg_blocking_pids({})) p",
            self.pid
        );
        loop {
            if self.task.is_finished() {
                return false;
            }
            if watcher.number(&sql).await > 0 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn end(self) -> Said {
        tokio::time::timeout(Duration::from_secs(30), self.task)
            .await
            .expect("it hangs")
            .unwrap()
    }
}
