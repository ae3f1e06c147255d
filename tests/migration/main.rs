//! Moving users between two live clusters, on real servers.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a helper of a test panics like the test does"
)]

mod attacks_mover;
mod attacks_owner;
mod attacks_ways;
mod attacks_zero_rows;
mod corruption;
mod cost;
mod crash;
mod dice;
mod install;
mod ledger;
mod link;
mod older;
mod purge;
mod reads;
mod reconcile;
mod referred;
mod scenarios;
mod schema_change;
mod seals;
mod servers;
mod session;
mod shop;
mod statements;
mod status;
mod stopped;
mod survey;
mod torture;
mod verify;
mod weaken;
mod world;
