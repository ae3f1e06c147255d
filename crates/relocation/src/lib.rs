//! Moving a user's rows from one live Postgres cluster to another, as far as it can be decided without a database.
//!
//! Facts about two schemas come in ([`catalog`]), the set of rows that hang on a user comes out ([`closure`]), with the
//! reasons why it cannot be moved. [`protocol`] is the state machine of a user's two routes: what `migrate-eu-users run`
//! executes and what the model check explores. [`tuple`] and [`digest`] say what proves a row equal; [`sql`] writes the
//! statements. Nothing here connects, reads the clock or draws a random number.

pub mod catalog;
pub mod closure;
pub mod digest;
pub mod protocol;
pub mod sql;
pub mod tuple;
