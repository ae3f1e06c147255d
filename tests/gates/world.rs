//! One full lab for the whole test binary. Tests that disturb a cluster hold it alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use regionwise_lab::{Lab, Options};
use regionwise_postgres::{Dsn, Row, Session};
use tempfile::TempDir;

use crate::gate::Gate;

/// Ends with the process: the lab watches a pipe that this process holds.
pub(crate) static LAB: LazyLock<Lab> = LazyLock::new(|| {
    Lab::start(&Options::full(env!("CARGO_BIN_EXE_lab")))
        .unwrap_or_else(|error| panic!("no lab: {error}"))
});

/// A cluster of the lab.
pub(crate) struct Cluster {
    pub(crate) name: &'static str,
    lock: RwLock<()>,
}

pub(crate) static US: Cluster = Cluster {
    name: "us",
    lock: RwLock::new(()),
};
pub(crate) static EU: Cluster = Cluster {
    name: "eu",
    lock: RwLock::new(()),
};

impl Cluster {
    /// For tests that only look.
    pub(crate) fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.lock.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For tests that break something: alone, and only once all standbys keep up again.
    pub(crate) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        let held = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        lag_gate()
            .args(["--cluster", self.name, "--wait", "30s"])
            .run()
            .is(0, "proceed clear");
        held
    }
}

/// The lab's `regions.toml` with a gate that is quicker to decide.
static QUICK: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let text = fs::read_to_string(LAB.regions_toml()).expect("the lab has a regions.toml");
    let quick = text
        .replace("sustained = \"3s\"", "sustained = \"1500ms\"")
        .replace("clear_for = \"1s\"", "clear_for = \"500ms\"")
        .replace("timeout = \"2s\"", "timeout = \"1200ms\"");
    assert_ne!(quick, text);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("regions.toml");
    fs::write(&file, quick).expect("a file");
    (dir, file)
});

/// `check-replication-lag` in the lab's environment.
pub(crate) fn lag_gate() -> Gate {
    lag_gate_of(&QUICK.1)
}

/// The same with another file.
pub(crate) fn lag_gate_of(config: &Path) -> Gate {
    let mut gate = Gate::check_replication_lag(config);
    for (name, value) in LAB
        .env()
        .iter()
        .filter(|(name, _)| name.starts_with("LAB_"))
    {
        gate = gate.env(name, value);
    }
    gate
}

/// A variable of the lab's environment, for example `LAB_US_SIN_DSN`.
pub(crate) fn variable(name: &str) -> &'static str {
    LAB.env()
        .get(name)
        .unwrap_or_else(|| panic!("the lab has no {name}"))
}

/// Runs one statement as superuser and returns its rows.
pub(crate) fn sql(node: &str, statement: &str) -> Vec<Row> {
    let name = format!("LAB_{}_ADMIN_DSN", node.to_uppercase().replace('-', "_"));
    let dsn = Dsn::parse(variable(&name)).unwrap_or_else(|problem| panic!("{name}: {problem}"));
    let options = regionwise_postgres::Options {
        application_name: "gates-test".to_owned(),
        connect_within: Duration::from_secs(10),
        answer_within: Duration::from_secs(10),
        allow_plaintext: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut session = Session::open(&dsn, &options)
            .await
            .unwrap_or_else(|error| panic!("{node}: {error}"));
        session
            .rows(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    })
}

/// Puts right at the end of a test what it broke, also when it fails.
pub(crate) struct Afterwards<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for Afterwards<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Sends a signal to a process of the lab.
pub(crate) fn signal(name: &str, pid: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}").as_str(), pid])
        .status();
    assert!(status.expect("kill runs").success(), "kill -{name} {pid}");
}

/// Waits for an event that a test needs before it goes on.
#[track_caller]
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "this does not happen: {what}"
        );
        std::thread::yield_now();
    }
}
