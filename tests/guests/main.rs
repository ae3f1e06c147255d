//! Real Debian guests: what needs systemd, packages, a firewall or a reboot. As root, minutes: `scripts/test --guests`.
//! `script` and `node` need neither.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test ends where it cannot go on, and says why it was skipped and how long it took"
)]

mod answers;
mod backup;
mod backup_tool;
mod boot;
mod certificate_tool;
mod containers;
mod database;
mod first_boot;
mod first_session;
mod host;
mod node;
mod ports;
mod redis_tool;
mod region_host_tool;
mod script;
mod seeding;
mod setting_up;
mod store;
mod three_regions;
mod upgrade;
#[path = "../pypi/venv.rs"]
mod venv;
mod world;
