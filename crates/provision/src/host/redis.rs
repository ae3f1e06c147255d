//! Redis, for the servers of its own region: the distribution's package, our configuration.

use std::net::IpAddr;

use super::{Tool, look, packages, text};
use crate::step::Step;

const TOOL: Tool = Tool("/usr/local/lib/regionwise/redis");
const SETTINGS: &str = "/etc/regionwise/redis";

/// One Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Besides loopback: its addresses in the mesh and in a private network. Nothing but the mesh encrypts.
    pub listen: Vec<IpAddr>,
    /// `[a-z0-9_-]+`: who may log in. The password comes in a staged file, [`Redis::PASSWORD`].
    pub account: String,
}

impl Redis {
    /// Where the password lies beside the script: one line of eight characters or more.
    pub const PASSWORD: &str = "redis-password";
}

pub(super) fn steps(redis: &Redis) -> Vec<Step> {
    let file = |name, reason, file: &str, content| {
        text(name, reason, format!("{SETTINGS}/{file}"), 0o644, content)
    };
    vec![
        packages(
            "redis-packages",
            "the distribution's Redis gets its security updates",
            &["redis-server"],
        ),
        text(
            "redis-tool",
            "what needs a look at the server is looked at there",
            TOOL.0,
            0o755,
            include_str!("redis/redis.sh"),
        ),
        file(
            "redis-server",
            "who may log in",
            "server",
            format!("account={}\n", redis.account),
        ),
        file(
            "redis-config",
            "it listens where it is asked, and keeps what it was given",
            "redis.conf",
            config(redis),
        ),
        text(
            "redis-unit",
            "the configuration is ours, and its addresses must be there first",
            "/etc/systemd/system/redis-server.service.d/regionwise.conf",
            0o644,
            UNIT,
        ),
        TOOL.step(
            "redis-sizes",
            "the memory is that of this server",
            "sizes_so",
            "set_sizes",
            &[],
        ),
        TOOL.step(
            "redis-users",
            "nobody gets in without a password",
            "users_so \"$staged\"",
            "set_users \"$staged\"",
            &["redis-server"],
        ),
        TOOL.step(
            "redis-running",
            "it runs now, and again after a boot",
            "running_so",
            "run",
            &[],
        ),
        TOOL.step(
            "redis-logins",
            "whom it lets in is whom the file names, and nobody else",
            "logins_so \"$staged\"",
            "give_users \"$staged\"",
            &[],
        ),
        look(
            "redis-notes",
            "what only a person decides",
            &format!("{TOOL} notes"),
        ),
    ]
}

/// What has a time to live may go when the memory is full; what has none is kept, and a write is refused.
fn config(redis: &Redis) -> String {
    let mut addresses = vec!["127.0.0.1".to_owned(), "::1".to_owned()];
    addresses.extend(redis.listen.iter().map(IpAddr::to_string));
    format!(
        "# Written by provision-region.
bind {}
port 6379
dir /var/lib/redis
aclfile {SETTINGS}/users.acl
appendonly yes
appendfsync everysec
maxmemory-policy volatile-lru
include {SETTINGS}/sizes.conf
",
        addresses.join(" ")
    )
}

const UNIT: &str = "[Unit]
Wants=network-online.target
After=network-online.target regionwise-mesh.service

[Service]
ExecStart=
ExecStart=/usr/bin/redis-server /etc/regionwise/redis/redis.conf --supervised systemd --daemonize no
";
