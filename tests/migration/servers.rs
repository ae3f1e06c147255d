//! Two real Postgres servers for all tests of this binary; each test has databases of its own in them.
//!
//! A shell that waits for the end of its input keeps them: it comes when this process is gone, however it went.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use regionwise_lab::account::{self, Account};

use crate::session::Session;

/// The source of most tests.
pub(crate) static US: LazyLock<Server> = LazyLock::new(|| Server::start("us"));
/// The target of most tests.
pub(crate) static EU: LazyLock<Server> = LazyLock::new(|| Server::start("eu"));

pub(crate) struct Server {
    pub(crate) port: u16,
    data: PathBuf,
    /// Held open; the shell ends the server when it is closed.
    _keeper: Child,
    made: AtomicU32,
    /// Databases that their tests have left.
    left: Mutex<Vec<String>>,
}

/// Nobody waits for the synchronous standby that is not there, except who asks for it.
const CONFIG: &str = "
listen_addresses = '127.0.0.1'
max_connections = 200
max_prepared_transactions = 10
shared_buffers = 64MB
wal_level = logical
fsync = off
full_page_writes = off
max_wal_size = 2GB
log_min_messages = warning
synchronous_standby_names = 'gone'
synchronous_commit = local
deadlock_timeout = 300ms
";

static ACCOUNT: LazyLock<Account> =
    LazyLock::new(|| account::choose().expect("an account that Postgres accepts"));

/// One directory for this process, which the account owns.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = std::env::temp_dir().join(format!("regionwise-migration-{}", std::process::id()));
    fs::create_dir(&root).expect("a directory for the servers");
    chown(&root, Some(ACCOUNT.uid), Some(ACCOUNT.gid)).expect("the account's directory");
    root
});

/// The directory of the newest Postgres.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("Postgres is installed");
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop().expect("a Postgres server")
});

fn as_account(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if ACCOUNT.drop {
        command
            .arg(format!("--reuid={}", ACCOUNT.uid))
            .arg(format!("--regid={}", ACCOUNT.gid))
            .arg("--clear-groups");
    }
    command.arg(program).env_remove("PGDATA").current_dir("/");
    command
}

impl Server {
    /// A server that nobody else uses: for tests that crash it or fill its lock table.
    pub(crate) fn start(name: &str) -> Self {
        let data = ROOT.join(name);
        let done = as_account(&PROGRAMS.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync", "--no-instructions", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        drop(listener);
        let config = format!(
            "{CONFIG}port = {port}\nunix_socket_directories = '{}'\n",
            ROOT.display()
        );
        let file = data.join("postgresql.auto.conf");
        fs::write(&file, config).expect("a configuration");
        Self {
            port,
            _keeper: keep(&data),
            data,
            made: AtomicU32::new(0),
            left: Mutex::new(Vec::new()),
        }
    }

    /// Ends it at once, without a checkpoint, and starts it again.
    pub(crate) fn crash(&self) {
        for action in ["stop", "start"] {
            let done = as_account(&PROGRAMS.join("pg_ctl"))
                .args([action, "-w", "-s", "-m", "immediate", "-l"])
                .arg(self.data.with_extension("log"))
                .arg("-D")
                .arg(&self.data)
                .stdout(Stdio::null())
                .status()
                .expect("pg_ctl runs");
            assert!(done.success(), "pg_ctl {action}");
        }
    }

    /// A new database, a copy of `template`. Those of tests that are over go first.
    pub(crate) async fn database(&'static self, template: &str) -> Database {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let admin = self.session("postgres", "postgres").await;
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        for old in left {
            admin
                .must(&format!("DROP DATABASE {old} WITH (FORCE)"))
                .await;
        }
        admin
            .must(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await;
        Database { server: self, name }
    }

    /// Waits until the server answers.
    pub(crate) async fn session(&self, user: &str, database: &str) -> Session {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            match Session::open(self.port, user, database).await {
                Ok(session) => return session,
                Err(error) if tokio::time::Instant::now() < deadline => {
                    // Starting up, or not listening yet: there is nothing to wait on.
                    drop(error);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("no session as {user} in {database}: {error}"),
            }
        }
    }
}

fn keep(data: &Path) -> Child {
    let script = "\"$1\"/pg_ctl start -w -s -D \"$2\" -l \"$2.log\" >&2; read -r _; \
                  \"$1\"/pg_ctl stop -s -m immediate -D \"$2\"; rm -rf \"$2\" \"$2.log\"; \
                  rmdir \"$3\" 2>/dev/null; true";
    as_account(Path::new("/bin/sh"))
        .args(["-c", script, "sh"])
        .args([PROGRAMS.as_path(), data, &ROOT])
        // Ctrl-C must not reach it before its work is done.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("a shell")
}

/// A database of one test.
pub(crate) struct Database {
    pub(crate) server: &'static Server,
    pub(crate) name: String,
}

impl Database {
    pub(crate) async fn admin(&self) -> Session {
        self.server.session("postgres", &self.name).await
    }

    /// A session of the application.
    pub(crate) async fn app(&self) -> Session {
        self.server.session("app", &self.name).await
    }

    /// A session of the mover, in its role and without foreign keys and application triggers.
    pub(crate) async fn mover(&self) -> Session {
        let session = self.server.session("mover", &self.name).await;
        session
            .must(
                "SET ROLE regionwise_move; SET session_replication_role = replica; \
                 SET lock_timeout = '200ms'; SET idle_in_transaction_session_timeout = '5s'; \
                 SET statement_timeout = '20s'; SET search_path = pg_catalog; SET row_security = off",
            )
            .await;
        session
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let mut left = self
            .server
            .left
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        left.push(std::mem::take(&mut self.name));
    }
}
