//! Real Debian guests: what needs systemd, packages, a firewall or a reboot. As root, minutes: `scripts/test --guests`.

mod boot;
mod first_boot;
mod host;
mod setting_up;
mod world;
