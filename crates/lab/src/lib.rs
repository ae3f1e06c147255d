//! The lab: three regions on one machine, for tests and the demo. Not part of what is deployed.
//!
//! `lab up` starts a guard, which starts a supervisor, which starts everything else:
//! - [`layout`] is pure and says what there is and where it listens.
//! - [`link`] shapes the traffic between regions.
//! - [`launch`] starts and ends a lab from outside, [`control`] talks to a running one.
//! - [`Lab`] is all of that for a test.
//!
//! [`github`] and [`hetzner`] answer as those APIs do, and as they do on a bad day.
//! [`guests`] are real Debian machines, for what needs a system of its own.
//! [`fill`] makes users and orders. [`load`] and [`timeline`] put requests on a product and show what became of them.

pub mod account;
mod block;
mod bouncer;
pub mod control;
mod dependency;
pub mod directory;
pub mod fault;
pub mod fill;
pub mod github;
pub mod guard;
pub mod guests;
pub mod hetzner;
mod host;
mod lab;
pub mod launch;
pub mod layout;
pub mod link;
pub mod load;
mod postgres;
pub mod processes;
mod programs;
mod regions_file;
mod running;
mod site;
mod skip;
pub mod supervisor;
pub mod timeline;

pub use control::LinkChange;
pub use lab::{Lab, NoLab, Options, Standby};
pub use site::Progress;
pub use skip::skipped;
