//! A Postgres of one test, on a unix socket, gone with the test.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use regionwise_lab::account::{Account, choose};
use regionwise_postgres::{Direct, DirectOptions, Dsn, Endpoint, Error};
use tempfile::TempDir;

/// Nothing here takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) directory: TempDir,
    pub(crate) port: u16,
    account: Account,
    process: Child,
}

impl Server {
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("rw-direct-")
            .tempdir()
            .expect("a directory");
        let account = choose().expect("an account");
        if account.drop {
            chown(directory.path(), Some(account.uid), Some(account.gid)).expect("an owner");
        }
        let data = directory.path().join("data");
        let initdb = program(&account, "initdb")
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync", "--no-instructions"])
            .output()
            .expect("initdb");
        assert!(initdb.status.success(), "{initdb:?}");
        // Free now; nobody else asks for ports while this one is taken again.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        append(
            &data.join("postgresql.conf"),
            &format!(
                "port = {port}\nlisten_addresses = '127.0.0.1'\n\
                 unix_socket_directories = '{}'\nfsync = off\nmax_connections = 30\n",
                directory.path().display()
            ),
        );
        let process = spawn(&account, &data);
        let server = Self {
            directory,
            port,
            account,
            process,
        };
        server.wait();
        server
    }

    /// Starts it again as a standby that has nobody to follow.
    pub(crate) fn become_standby(&mut self) {
        self.stop();
        let data = self.directory.path().join("data");
        append(&data.join("standby.signal"), "");
        self.process = spawn(&self.account, &data);
        self.wait();
    }

    /// A PgBouncer in transaction mode before it; its socket's port.
    pub(crate) fn pooler(&self, settings: &str) -> Pooler {
        let port = self.port.wrapping_add(1).max(1024);
        let directory = self.directory.path();
        let config = directory.join("pgbouncer.ini");
        fs::write(
            &config,
            format!(
                "[databases]\n* = host={0} port={1} user=postgres\n[pgbouncer]\nlisten_port = {port}\n\
                 unix_socket_dir = {0}\nauth_type = any\npool_mode = transaction\n{settings}\n",
                directory.display(),
                self.port
            ),
        )
        .expect("a written file");
        let mut command = Command::new("/usr/sbin/pgbouncer");
        if self.account.drop {
            command.uid(self.account.uid).gid(self.account.gid);
        }
        let process = command
            .arg("--quiet")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer");
        let socket = directory.join(format!(".s.PGSQL.{port}"));
        until(|| UnixStream::connect(&socket).is_ok());
        Pooler { port, process }
    }

    pub(crate) fn dsn(&self, port: u16, role: &str) -> Dsn {
        let host = self.directory.path().display();
        Dsn::parse(&format!(
            "host={host} port={port} user={role} dbname=postgres"
        ))
        .expect("a connection string")
    }

    pub(crate) async fn open(&self) -> Direct {
        self.open_with(&options()).await.expect("a session")
    }

    pub(crate) async fn open_with(&self, options: &DirectOptions) -> Result<Direct, Error> {
        Direct::open(&self.dsn(self.port, "postgres"), options).await
    }

    /// Through TCP, for example through a proxy.
    pub(crate) async fn open_tcp(&self, port: u16, options: &DirectOptions) -> Direct {
        let dsn = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
        let dsn = Dsn::parse(&dsn).expect("a connection string");
        Direct::open(&dsn, options).await.expect("a session")
    }

    fn wait(&self) {
        // Its last line says `ready` once sessions are welcome.
        let state = self.directory.path().join("data/postmaster.pid");
        until(|| fs::read_to_string(&state).is_ok_and(|text| text.trim_end().ends_with("ready")));
    }

    fn stop(&mut self) {
        let data = self.directory.path().join("data");
        let _ = program(&self.account, "pg_ctl")
            .args(["-s", "-m", "immediate", "-D"])
            .arg(data)
            .arg("stop")
            .stderr(Stdio::null())
            .status();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) struct Pooler {
    pub(crate) port: u16,
    process: Child,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // SIGKILL leaves the socket behind; the next pooler takes it over.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn options() -> DirectOptions {
    DirectOptions {
        application_name: "regionwise test".to_owned(),
        connect_within: PATIENCE,
        answer_within: PATIENCE,
        allow_plaintext: false,
        endpoint: Endpoint::Primary,
        tcp_user_timeout: Duration::from_secs(3),
        statement_timeout: Duration::ZERO,
        lock_timeout: Duration::ZERO,
        idle_in_transaction_timeout: Duration::ZERO,
        settings: Vec::new(),
    }
}

fn spawn(account: &Account, data: &Path) -> Child {
    program(account, "postgres")
        .arg("-D")
        .arg(data)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("postgres")
}

fn program(account: &Account, name: &str) -> Command {
    let mut command = Command::new(binaries().join(name));
    if account.drop {
        command.uid(account.uid).gid(account.gid);
    }
    command.current_dir("/");
    command
}

/// The newest packaged Postgres, or the one of the PATH.
fn binaries() -> PathBuf {
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    packaged
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file())
        .max()
        .unwrap_or_default()
}

fn append(path: &Path, text: &str) {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .expect("a written file");
}

/// For what another process does and tells nobody.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "it never came");
        std::thread::yield_now();
    }
}
