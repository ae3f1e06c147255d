//! The gates against real servers: what `check-replication-lag` and `smoke-test` find, and that they never say
//! `proceed` about what they could not see.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a helper of a test panics like the test does"
)]

mod gate;
mod lag;
mod lag_access;
mod lag_faults;
mod smoke;
mod smoke_lab;
mod world;
