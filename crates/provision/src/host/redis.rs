//! Redis, for the servers of its own region.

use std::net::IpAddr;

/// One Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Besides loopback: its addresses in the mesh and in a private network.
    pub listen: Vec<IpAddr>,
    /// Who may log in. The password comes in a staged file, [`Redis::PASSWORD`].
    pub account: String,
}

impl Redis {
    /// Where the password lies beside the script: one line.
    pub const PASSWORD: &str = "redis-password";
}
