//! PgBouncer, beside a Postgres: many clients, few connections.

use super::mesh::Mesh;
use super::postgres::{self, Database};
use super::{command, look, packages, text};
use crate::step::Step;

const TOOL: &str = "/usr/local/lib/regionwise/bouncer";
const SETTINGS: &str = "/etc/regionwise/pgbouncer";

/// Where it listens: at the addresses of its Postgres.
pub(super) fn steps(database: &Database, mesh: Option<&Mesh>, port: u16) -> Vec<Step> {
    let file = |name, reason, file: &str, content| {
        text(name, reason, format!("{SETTINGS}/{file}"), 0o644, content)
    };
    let tool = |name, reason, check: &str, apply: &str, after: &[&'static str]| {
        let line = |verb| format!("{TOOL} {verb}");
        command(name, reason, line(check), line(apply), after)
    };
    let accounts: Vec<&str> = database
        .accounts
        .iter()
        .map(|account| account.name.as_str())
        .collect();
    let server = format!("port={port}\naccounts='{}'\n", accounts.join(" "));
    vec![
        packages(
            "bouncer-packages",
            "the distribution's PgBouncer gets its security updates",
            &["pgbouncer"],
        ),
        text(
            "bouncer-tool",
            "what needs a look at the server is looked at there",
            TOOL,
            0o755,
            include_str!("bouncer/bouncer.sh"),
        ),
        file(
            "bouncer-server",
            "who may log in, and where",
            "server",
            server,
        ),
        file(
            "bouncer-config",
            "a connection is lent for one transaction",
            "pgbouncer.ini",
            config(database, mesh, port),
        ),
        text(
            "bouncer-unit",
            "the configuration is ours, and its addresses must be there first",
            "/etc/systemd/system/pgbouncer.service.d/regionwise.conf",
            0o644,
            UNIT,
        ),
        tool(
            "bouncer-prepared",
            "a newer one keeps prepared statements",
            "prepared_so",
            "set_prepared",
            &[],
        ),
        tool(
            "bouncer-users",
            "one password opens both",
            "users_so",
            "set_users",
            &["bouncer-server"],
        ),
        tool(
            "bouncer-running",
            "it runs now, and again after a boot",
            "running_so",
            "run",
            &[
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

fn config(database: &Database, mesh: Option<&Mesh>, port: u16) -> String {
    format!(
        "; Written by provision-region.
[databases]
{name} = host=127.0.0.1 port=5432 dbname={name}

[pgbouncer]
listen_addr = {addresses}
listen_port = {port}
unix_socket_dir = /var/run/postgresql
auth_type = scram-sha-256
auth_file = {SETTINGS}/users.txt
client_tls_sslmode = require
client_tls_cert_file = {certificate}
client_tls_key_file = {key}
pool_mode = transaction
max_client_conn = 1000
default_pool_size = 20
ignore_startup_parameters = extra_float_digits
%include {SETTINGS}/prepared.ini
",
        name = database.database,
        addresses = postgres::addresses(database, mesh).join(", "),
        certificate = postgres::CERTIFICATE,
        key = postgres::KEY,
    )
}

const UNIT: &str = "[Unit]
Wants=network-online.target
After=network-online.target regionwise-mesh.service postgresql.service

[Service]
ExecStart=
ExecStart=/usr/sbin/pgbouncer /etc/regionwise/pgbouncer/pgbouncer.ini
";
