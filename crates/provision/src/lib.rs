//! What makes a Debian or Ubuntu server a region host, as data. Pure: it writes a script and touches nothing.
//!
//! [`host::steps`] is the one list of steps. [`script::render`] makes one POSIX shell script of it, which runs over ssh or
//! from cloud-init ([`cloud_config::render`]) alike; [`said::Line`] reads what the script prints.

pub mod cloud_config;
pub mod host;
pub mod said;
pub mod script;
pub mod step;
