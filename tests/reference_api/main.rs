//! The reference API as processes: how it starts, answers, fails on purpose, drains, and how the load sees it.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod behaviour;
mod drain;
mod faults;
mod fence;
mod health;
mod homes;
mod installed;
mod load;
mod process;
mod start;
mod world;
