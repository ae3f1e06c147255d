//! The controller's ways to a host: ssh to `region-host`, HTTP as a user would, and for its set-up ssh as root. I/O only,
//! no decisions.

pub mod host_key;
pub mod http;
pub mod identity;
pub mod jump;
pub mod root;
pub mod ssh;
