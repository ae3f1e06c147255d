//! Guests for the tests of this binary: one image for all, a directory for each test.

use std::path::{Path, PathBuf};

use regionwise_lab::guests::{Guests, Image, Machine};

/// What a host installs. The guests have a repository with exactly these and what they need.
const PACKAGES: [&str; 11] = [
    "haproxy",
    "nftables",
    "unattended-upgrades",
    "systemd-timesyncd",
    "logrotate",
    "ca-certificates",
    "needrestart",
    "wireguard-tools",
    "postgresql",
    "redis-server",
    "pgbouncer",
];

/// Where the guests of that test are.
pub(crate) fn directory(test: &str) -> PathBuf {
    home().join(test)
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests")
}

/// Boots the machines and waits for them; `None` after a visible skip where guests cannot run.
pub(crate) fn boot(test: &str, machines: &[Machine]) -> Option<Guests> {
    let guests = start(test, machines)?;
    for guest in guests.all() {
        guest.wait_until_ready().unwrap();
    }
    Some(guests)
}

/// As [`boot`], without waiting.
pub(crate) fn start(test: &str, machines: &[Machine]) -> Option<Guests> {
    Some(Guests::boot(&directory(test), &image()?, machines).unwrap())
}

/// As [`boot`], with all packages on the servers already: `apt` takes minutes there.
pub(crate) fn boot_installed(test: &str, machines: &[Machine]) -> Option<Guests> {
    let guests = start_installed(test, machines)?;
    for guest in guests.all() {
        guest.wait_until_ready().unwrap();
    }
    Some(guests)
}

/// As [`boot_installed`], without waiting.
pub(crate) fn start_installed(test: &str, machines: &[Machine]) -> Option<Guests> {
    let image = image()?.installed();
    Some(Guests::boot(&directory(test), &image, machines).unwrap())
}

fn image() -> Option<Image> {
    if let Err(error) = Guests::possible() {
        println!("skipped: {error}");
        return None;
    }
    Some(Image::bare(&home().join("bare"), &PACKAGES).unwrap())
}
