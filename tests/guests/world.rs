//! Guests for the tests of this binary: one image for all, a directory for each test.

use std::path::{Path, PathBuf};

use regionwise_lab::guests::{Guests, Image, Machine, System};

/// What a host installs. The guests have a repository with exactly these, those of others, and what they need.
const PACKAGES: [&str; 13] = [
    "haproxy",
    "nftables",
    "unattended-upgrades",
    "systemd-timesyncd",
    "logrotate",
    "ca-certificates",
    "needrestart",
    "wireguard-tools",
    "postgresql",
    "postgresql-client",
    "redis-server",
    "pgbouncer",
    "pgbackrest",
];

/// What somebody else installs on a host.
const OF_OTHERS: [&str; 4] = ["docker.io", "containerd", "iptables", "apparmor"];

/// Where the guests of that test are.
pub(crate) fn directory(test: &str) -> PathBuf {
    home().join(test)
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests")
}

/// Boots bare machines and waits for them; `None` after a visible skip where guests cannot run.
pub(crate) fn boot(system: System, test: &str, machines: &[Machine]) -> Option<Guests> {
    let guests = start(system, test, machines)?;
    for guest in guests.all() {
        guest.wait_until_ready().unwrap();
    }
    Some(guests)
}

/// As [`boot`], without waiting.
pub(crate) fn start(system: System, test: &str, machines: &[Machine]) -> Option<Guests> {
    Some(Guests::boot(&directory(test), &image(system)?, machines).unwrap())
}

/// As [`boot`], of Debian 12 with all packages on the servers already: `apt` takes minutes there.
pub(crate) fn boot_installed(test: &str, machines: &[Machine]) -> Option<Guests> {
    let guests = start_installed(test, machines)?;
    for guest in guests.all() {
        guest.wait_until_ready().unwrap();
    }
    Some(guests)
}

/// As [`boot_installed`], without waiting.
pub(crate) fn start_installed(test: &str, machines: &[Machine]) -> Option<Guests> {
    let image = image(System::Debian12)?.installed();
    Some(Guests::boot(&directory(test), &image, machines).unwrap())
}

fn image(system: System) -> Option<Image> {
    if let Err(error) = Guests::possible() {
        println!("skipped: {error}");
        return None;
    }
    let directory = home().join(system.name());
    Some(Image::bare(system, &directory, &PACKAGES, &OF_OTHERS).unwrap())
}
