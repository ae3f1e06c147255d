//! What `region-host` does on its server: state files, HAProxy, slot processes, dead-man. I/O only; the decisions are
//! those of `regionwise-rollout`.
//!
//! Everything a host knows is a file below its root ([`layout`]); there is no daemon. Every verb takes the state lock,
//! reads the files, acts and writes, so that a verb that dies at any point leaves files the next one can settle.

mod account;
mod clock;
mod deny;
mod durable;
mod history;
mod host;
mod install;
mod layout;
mod process;
mod proxy;
mod session;
mod settings;
mod store;
mod traffic;
mod verbs;

pub use host::Host;
pub use install::{Install, Installed};
pub use process::exec_slot;
pub use session::serve;
