//! `provision-region` against a Hetzner that refuses, remembers and has bad days.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test panics like the test does"
)]

mod backup;
mod destroy;
mod emulated;
mod first_session;
mod health;
mod killed;
mod machines;
mod plan;
mod rebuild;
mod refused;
mod region;
mod residency;
mod stopped;
mod whole;
mod world;
