//! Our workflows and actions, run by a real workflow engine (act, without containers), and read by four linters.
//!
//! What is asserted comes from files that steps wrote and from the results of jobs, never from a log: act loses the last
//! lines of a short step now and then. What act cannot show is listed in docs/github.md.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may fail as the test itself does"
)]

mod act;
mod actions;
mod compat;
mod generated;
mod lab;

mod lint;
mod matrix;
mod migrate;
mod provision;
mod rollout;
mod setup;
mod single;
mod tools;
#[path = "../pypi/venv.rs"]
mod venv;
