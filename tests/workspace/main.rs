//! The workspace itself: arrows between crates, documents that say what the code does, releases and examples.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may fail as the test itself does"
)]

use std::process::Output;

mod documents;
mod examples;
mod layering;
mod releasing;

/// Asserts the exit code; what was printed.
#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}
