//! Statements: the objects that `install` puts into both databases, and what the mover asks of a closure's tables.
//!
//! - [`install`] writes the script: tables, [`fence`] triggers, the functions that change routes and make digests, grants.
//! - [`select`] reads and writes the rows of users, [`delta`] single rows by their primary key.
//!
//! Everything is text; nothing here runs it. Names are quoted always, and operators are written with their schema,
//! because these statements run under a pinned `search_path`, where a bare `=` compares a `citext` as text.

pub mod count;
pub mod delta;
mod digest;
mod fence;
pub mod install;
mod members;
pub mod name;
mod owner;
pub mod parents;
pub mod purge;
pub mod refer;
mod rows;
pub mod select;

/// What the text of a value depends on. Keys of rows are compared as text, so each is made under these settings, by
/// whomever.
pub const TEXT_FORM: [(&str, &str); 9] = [
    ("datestyle", "ISO, MDY"),
    ("timezone", "UTC"),
    ("intervalstyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("xmloption", "content"),
];

/// The role that the mover takes on with `SET ROLE`.
pub const MOVE_ROLE: &str = "regionwise_move";

/// The role that may read everything that moves, and changes nothing.
pub const VERIFY_ROLE: &str = "regionwise_verify";
