//! The state machine of a user's two routes: who owns the user, and what may happen next.
//!
//! A user has a [`Route`] in each of two clusters. A run moves it from its *source* to its *target*; a way back is the
//! same with the roles swapped. Everything that changes a route is a [`Change`], computed here from the two routes as
//! they were read, and carried out by `regionwise.change()` as a compare-and-set under the user's home lock. What was
//! read may be old by then: either the row is still exactly as expected, or nothing happens and the runner looks again.
//!
//! [`step`] has one function per step and [`next`] chooses between them; [`reconcile`] is for a cluster that was
//! promoted; [`fence`] says whom the database lets write; [`apply`] is the specification of the SQL. The model check in
//! `tests/model` explores these functions and no copies of them.

mod change;
pub mod fence;
mod next;
mod objection;
mod reconcile;
mod route;
pub mod step;

pub use change::{Call, Change, Expected, Outcome, To, apply};
pub use fence::{Admission, admits, enters};
pub use next::{Next, Settled, next};
pub use objection::Objection;
pub use reconcile::{Reconcile, reconcile};
pub use route::{Epoch, OutOfRange, Route, State, Token, UnknownState};
pub use step::{activate, cancel, may_purge, purge, release, reopen, stage};

#[cfg(test)]
mod tests;
