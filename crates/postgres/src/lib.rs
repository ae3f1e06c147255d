//! Postgres as seen from outside: connections with a deadline on every step, errors by name, replication facts.
//!
//! Decides nothing: what a number means stands in `rollout::lag`. A DSN never appears in an error, and no type here
//! that holds one can be printed.

mod connect;
mod direct;
mod dsn;
mod error;
pub mod heartbeat;
pub mod replication;
mod tls;

pub use connect::{Options, Row, Session};
pub use direct::{CopyIn, CopyOut, Direct, DirectOptions, Endpoint};
pub use dsn::{Dsn, DsnProblem};
pub use error::{Error, Kind};
