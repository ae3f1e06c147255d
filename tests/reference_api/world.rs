//! One whole lab for all tests of this binary, and the API in it as if on one of its hosts.

use std::sync::LazyLock;

use regionwise_lab::{Lab, Options};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::process::Process;

/// Never dropped: the lab ends, and removes its directory, with this process.
static WORLD: LazyLock<RwLock<Lab>> = LazyLock::new(|| {
    let lab = Lab::start(&Options::full(env!("CARGO_BIN_EXE_lab")))
        .unwrap_or_else(|error| panic!("{error}"));
    RwLock::new(lab)
});

/// For a test that disturbs nothing which another one needs.
pub(crate) async fn shared() -> RwLockReadGuard<'static, Lab> {
    WORLD.read().await
}

/// For a test that breaks something, and mends it before it ends.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, Lab> {
    WORLD.write().await
}

/// Starts the API with what a release finds in its environment on that host.
pub(crate) fn on_host(lab: &Lab, host: &str, more: &[(&str, &str)]) -> Process {
    let file = lab
        .directory()
        .path()
        .join("hosts")
        .join(host)
        .join("lab.env");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut variables: Vec<(&str, &str)> = text
        .lines()
        .map(|line| line.split_once('=').unwrap())
        .collect();
    variables.extend(more);
    Process::start(&variables)
}
