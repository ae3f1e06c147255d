//! The lab's Hetzner by itself: that it refuses, remembers and fails as the original does, and that clients which other
//! people wrote can work with it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test panics like the test does"
)]

mod catalogue;
mod clients;
mod faults;
mod load_balancers;
mod resources;
mod rules;
mod servers;
#[path = "../pypi/venv.rs"]
mod venv;
mod world;
