//! [`regionwise_postgres::Direct`] against real servers.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests fail and tell as tests do"
)]

mod copies;
mod digests;
mod errors;
mod server;
mod sessions;
