//! `report-rollout` against a GitHub of the lab that has bad days, and what it sends against GitHub's own description.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a helper of a test panics like the test does"
)]

mod deployment;
mod environments;
mod finish;
mod stopped;
mod wire;
mod world;
