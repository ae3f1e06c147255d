//! The story as a person lives it: `scripts/rollout`, preflight and the first server, with real binaries over real hosts.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may fail as the test itself does"
)]

mod demo;
mod first_server;
mod killed;
mod preflight;
mod rollout;
mod setup;
mod stopped;
mod world;
