//! PgBouncer on a host: the product says `127.0.0.1` in every region, and knows neither certificates nor where its database is.

use std::fmt::Write;
use std::net::IpAddr;

use super::postgres::pem;
use super::{Tool, file, look, packages, text};
use crate::step::Step;

const TOOL: Tool = Tool("/usr/local/lib/regionwise/bouncer");
const SETTINGS: &str = "/etc/regionwise/pgbouncer";
/// On loopback only.
const PORT: u16 = 6432;

/// The way of a host to its database: `NAME` leads to where it is written, `NAME_read` to the copy that is near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bouncer {
    /// The one that the nodes are of.
    pub cluster: String,
    /// The product's database.
    pub database: String,
    /// `[a-z0-9_-]+`: as whom the product logs in, here and there. Its password comes in a staged file, [`Bouncer::password`].
    pub account: String,
    pub write: Upstream,
    pub read: Upstream,
}

/// A node behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub node: String,
    /// In the mesh, or of loopback when it is this very server.
    pub address: IpAddr,
    pub port: u16,
    /// As its fact `certificate` says it. No other one is spoken to.
    pub certificate: String,
}

impl Bouncer {
    /// The name of the file beside the script that holds the password, the same as that of the account at its primary.
    pub fn password(&self) -> String {
        format!("password-{}", self.account)
    }
}

pub(super) fn steps(bouncer: &Bouncer) -> Vec<Step> {
    let shared = |name, reason, path: &str, content| {
        let path = format!("{SETTINGS}/{path}");
        file(name, reason, path, 0o640, "root:postgres", content)
    };
    let server = format!(
        "account={}\ndatabase={}\nport={PORT}\n",
        bouncer.account, bouncer.database
    );
    vec![
        packages(
            "bouncer-packages",
            "the distribution's PgBouncer gets its security updates",
            &["pgbouncer", "postgresql-client"],
        ),
        text(
            "bouncer-tool",
            "what needs a look at the server is looked at there",
            TOOL.0,
            0o755,
            include_str!("bouncer/bouncer.sh"),
        ),
        shared("bouncer-server", "who may log in", "server", server),
        shared(
            "bouncer-nodes",
            "these nodes are spoken to, and no authority is asked",
            "nodes.crt",
            certificates(bouncer),
        ),
        shared(
            "bouncer-config",
            "a connection is lent for one transaction",
            "pgbouncer.ini",
            config(bouncer),
        ),
        text(
            "bouncer-unit",
            "the configuration is ours, and the mesh must be there first",
            "/etc/systemd/system/pgbouncer.service.d/regionwise.conf",
            0o644,
            UNIT,
        ),
        TOOL.step(
            "bouncer-prepared",
            "a newer one keeps prepared statements",
            "prepared_so",
            "set_prepared",
            &[],
        ),
        TOOL.step(
            "bouncer-users",
            "whoever is on the host needs the password still",
            "users_so \"$staged\"",
            "set_users \"$staged\"",
            &["bouncer-server"],
        ),
        TOOL.step(
            "bouncer-running",
            "it runs now, and again after a boot",
            "running_so",
            "run",
            &[
                "bouncer-nodes",
                "bouncer-config",
                "bouncer-unit",
                "bouncer-prepared",
                "bouncer-users",
            ],
        ),
        look(
            "bouncer-notes",
            "what a driver has to know",
            &format!("{TOOL} notes"),
        ),
    ]
}

pub(super) fn logins() -> Step {
    TOOL.step(
        super::LOGINS,
        "the product gets through to the nodes",
        "logins_so \"$staged\"",
        "log_in \"$staged\"",
        &[],
    )
}

fn certificates(bouncer: &Bouncer) -> String {
    let mut text = String::new();
    let read = (bouncer.read.certificate != bouncer.write.certificate).then_some(&bouncer.read);
    for upstream in std::iter::once(&bouncer.write).chain(read) {
        let _ = write!(text, "# {}\n{}", upstream.node, pem(&upstream.certificate));
    }
    text
}

fn config(bouncer: &Bouncer) -> String {
    let name = &bouncer.database;
    let to = |upstream: &Upstream| {
        format!(
            "host={} port={} dbname={name}",
            upstream.address, upstream.port
        )
    };
    format!(
        "; Written by provision-region.
[databases]
{name} = {}
{name}_read = {}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {PORT}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {SETTINGS}/users.txt
server_tls_sslmode = verify-ca
server_tls_ca_file = {SETTINGS}/nodes.crt
pool_mode = transaction
max_client_conn = 1000
default_pool_size = 20
ignore_startup_parameters = extra_float_digits
%include {SETTINGS}/prepared.ini
",
        to(&bouncer.write),
        to(&bouncer.read),
    )
}

const UNIT: &str = "[Unit]
After=regionwise-mesh.service postgresql.service

[Service]
# What it reads now is what is loaded.
ExecStartPre=-+/usr/local/lib/regionwise/bouncer note_loaded
ExecStart=
ExecStart=/usr/sbin/pgbouncer /etc/regionwise/pgbouncer/pgbouncer.ini
";
