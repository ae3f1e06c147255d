//! The lab keeps its promises: nothing outlives it, links do what they say, clusters replicate.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests fail and tell as tests do"
)]

mod clusters;
mod hosts;
mod life;
mod support;
