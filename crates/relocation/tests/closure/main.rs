//! Closures, refusals and plans on catalogs that are written by hand.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test panics like the test does"
)]

mod discover;
mod lookalike;
mod plan;
mod refusals;
mod schema;
