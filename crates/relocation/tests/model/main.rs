//! The protocol of a move, explored in every order of steps and faults that a case allows.
//!
//! The model drives the functions of [`regionwise_relocation::protocol`] and has no copy of them: [`mover`] is the loop of
//! a runner around `next`, [`calls`] is `regionwise.change()` around `apply`, [`writer`] is the application under `admits`,
//! [`faults`] what goes wrong. Transactions are open between their lock, their reads, their writes and their COMMIT; a
//! call or a COMMIT whose sender is gone still arrives, at any time later. [`broken`] lists the rules that can be left out.
//!
//! What must hold is in [`holds`] and, for states that can always be finished, in [`finishes`]; what must fail, in its
//! smallest configuration, in [`fails`]. Rules that only fail together are a pair there: each alone must hold where both
//! fail, else they would be no pair. `--nocapture` prints the number of states of each case.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::use_debug,
    reason = "a helper of a test fails the test, and the sizes of the explorations are its output"
)]

mod broken;
mod calls;
mod explore;
mod fails;
mod faults;
mod finishes;
mod holds;
mod mover;
mod purge;
mod world;
mod writer;
