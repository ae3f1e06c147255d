//! The workspace itself: arrows between crates, and documents that say what the code does.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may fail as the test itself does"
)]

mod documents;
mod layering;
