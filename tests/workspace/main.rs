//! The workspace itself: arrows between crates, documents that say what the code does, releases and examples.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may fail as the test itself does"
)]

mod documents;
mod examples;
mod layering;
mod releasing;
