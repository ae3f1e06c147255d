//! The controller's two ways to a host: ssh to `region-host`, and HTTP as a user would. I/O only, no decisions.

pub mod http;
pub mod identity;
pub mod ssh;
