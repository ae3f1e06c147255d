//! The files of a node, as text. No secret is in any of them.

use std::fmt::Write;
use std::net::IpAddr;

use super::{
    Account, AccountKind, CERTIFICATE, Database, HEARTBEAT, KEY, Part, Replica, SETTINGS, TOOL, TOP,
};
use crate::host::backup;
use crate::host::mesh::Mesh;
use crate::script::quoted;

/// A node's certificate, for `openssl req -x509`. Nodes trust exactly this one, as server and as client. It is no authority,
/// so its key cannot make another name.
pub(super) fn certificate(node: &str, mesh: Option<&Mesh>) -> String {
    let mesh = mesh.map_or_else(String::new, |mesh| format!(", IP:{}", mesh.address()));
    format!(
        "[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = {node}
[extensions]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:{node}, DNS:localhost, IP:127.0.0.1, IP:::1{mesh}
"
    )
}

/// The fact `certificate` as PEM: each of its words is the base64 of one.
pub fn pem(certificates: &str) -> String {
    let mut text = String::new();
    for certificate in certificates.split(' ') {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = certificate;
        while !rest.is_empty() {
            let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// What [`pem`] wrote, as the fact was; `None`: there is no certificate in it.
pub fn from_pem(text: &str) -> Option<String> {
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let words = blocks.filter_map(|block| block.split_once("-----END CERTIFICATE-----"));
    let words: Vec<String> = words
        .map(|(word, _)| word.split_whitespace().collect())
        .collect();
    Some(words.join(" ")).filter(|text| !text.is_empty())
}

fn others(database: &Database) -> &[Replica] {
    match &database.part {
        Part::Primary { standbys, .. } => standbys,
        Part::Standby { primary } => std::slice::from_ref(primary),
    }
}

pub(super) fn peers(database: &Database) -> String {
    let known = others(database).iter().filter_map(|other| {
        let certificate = pem(other.certificate.as_deref()?);
        Some(format!("# {}\n{certificate}", other.node))
    });
    let text: String = known.collect();
    if text.is_empty() {
        "# Nobody yet.\n".to_owned()
    } else {
        text
    }
}

/// The role and the slot of a standby.
fn replica(node: &str) -> String {
    format!("replica_{}", node.replace('-', "_"))
}

/// The first account of a kind.
pub(super) fn named(database: &Database, kind: AccountKind) -> Option<&Account> {
    database
        .accounts
        .iter()
        .find(|account| account.kind == kind)
}

/// What `node.sh` reads.
pub(super) fn node(database: &Database) -> String {
    let name = |kind| named(database, kind).map_or("", |account| &account.name);
    let accounts: Vec<String> = database
        .accounts
        .iter()
        .map(|account| match account.kind {
            AccountKind::Monitor => format!("monitor:{}", account.name),
            AccountKind::App => format!("app:{}", account.name),
            AccountKind::Mover => format!("mover:{}", account.name),
            AccountKind::Verifier => format!("verifier:{}", account.name),
        })
        .collect();
    let names: Vec<&str> = match &database.part {
        Part::Primary { standbys, .. } => standbys.iter().map(|one| one.node.as_str()).collect(),
        Part::Standby { .. } => Vec::new(),
    };
    let known = match &database.part {
        Part::Primary { known, .. } => known.as_slice(),
        Part::Standby { .. } => &[],
    };
    let (part, primary) = match &database.part {
        Part::Primary { .. } => ("primary", ""),
        Part::Standby { primary } => ("standby", primary.node.as_str()),
    };
    let volume = database.volume.map(device).unwrap_or_default();
    let mut text = String::new();
    for (name, value) in [
        ("cluster", database.cluster.as_str()),
        ("node", &database.node),
        ("part", part),
        ("primary", primary),
        ("conninfo", &conninfo(database).unwrap_or_default()),
        ("standbys", &names.join(" ")),
        ("known", &known.join(" ")),
        ("database", &database.database),
        ("accounts", &accounts.join(" ")),
        ("owner", name(AccountKind::App)),
        ("monitor", name(AccountKind::Monitor)),
        ("volume", &volume),
        ("mount", super::MOUNT),
    ] {
        let _ = writeln!(text, "{name}={}", quoted(value));
    }
    text
}

/// For `synchronous_standby_names`: `count` of them. 0 is nobody's vote: asynchronous.
pub(super) fn sync_names(count: u32, standbys: &[Replica]) -> String {
    if count == 0 {
        return String::new();
    }
    let quoted: Vec<String> = standbys
        .iter()
        .map(|one| format!("\"{}\"", one.node))
        .collect();
    format!("ANY {count} ({})", quoted.join(", "))
}

/// How a standby reaches its primary: the pinned certificate says who it is, so its name in the mesh need not.
fn conninfo(database: &Database) -> Option<String> {
    let Part::Standby { primary } = &database.part else {
        return None;
    };
    let node = &database.node;
    Some(format!(
        "host={} port=5432 user={} application_name={node} sslmode=verify-ca sslrootcert={SETTINGS}/primary.crt sslcert={CERTIFICATE} \
         sslkey={KEY} connect_timeout=10 keepalives_idle=10 keepalives_interval=5 keepalives_count=3",
        primary.address,
        replica(node),
    ))
}

pub(super) fn postgresql(database: &Database, mesh: Option<&Mesh>) -> String {
    let mut addresses = vec!["localhost".to_owned()];
    addresses.extend(mesh.map(|mesh| mesh.address().to_string()));
    addresses.extend(database.listen.iter().map(IpAddr::to_string));
    let known = others(database)
        .iter()
        .any(|other| other.certificate.is_some());
    let peers = if known {
        format!("{SETTINGS}/peers.crt")
    } else {
        String::new()
    };
    let mut text = format!(
        "# Written by provision-region. Your own settings belong into another file of conf.d.
listen_addresses = '{}'
hba_file = '{SETTINGS}/pg_hba.conf'
ident_file = '{SETTINGS}/pg_ident.conf'
password_encryption = 'scram-sha-256'
ssl = on
ssl_min_protocol_version = 'TLSv1.3'
ssl_cert_file = '{CERTIFICATE}'
ssl_key_file = '{KEY}'
ssl_ca_file = '{peers}'
wal_level = 'replica'
max_wal_senders = 16
max_replication_slots = 16
wal_log_hints = on
hot_standby = on
# A standby says every second how far it is: the lag gate reads it.
wal_receiver_status_interval = '1s'
# What a line of the network lost is noticed in half a minute.
wal_sender_timeout = '30s'
wal_receiver_timeout = '30s'
log_connections = on
log_lock_waits = on
include '{SETTINGS}/sizes.conf'
include_if_exists '{SETTINGS}/sync.conf'
",
        addresses.join(", ")
    );
    text.push_str(&backup::archiving(
        database.backup.as_ref(),
        &database.cluster,
    ));
    if let Some(conninfo) = conninfo(database) {
        let _ = writeln!(text, "primary_conninfo = '{conninfo}'");
        let _ = writeln!(text, "primary_slot_name = '{}'", replica(&database.node));
    }
    text
}

/// The first line that fits decides, and the last ones fit everybody.
pub(super) fn hba(database: &Database) -> String {
    let mut text = String::from("# Written by provision-region.\nlocal all postgres peer\n");
    if let Part::Primary { standbys, .. } = &database.part {
        for standby in standbys {
            let _ = writeln!(
                text,
                "hostssl replication {} {}/128 cert map=regionwise",
                replica(&standby.node),
                standby.address
            );
        }
    }
    for account in &database.accounts {
        let mut allow = |kind: &str, from: &str| {
            let _ = writeln!(
                text,
                "{kind} \"{}\" \"{}\" {from} scram-sha-256",
                database.database, account.name
            );
        };
        for loopback in ["127.0.0.1/32", "::1/128"] {
            allow("host", loopback);
        }
        for client in &database.clients {
            allow("hostssl", &client.to_string());
        }
    }
    text.push_str("local replication all reject\nlocal all all reject\nhost replication all all reject\nhost all all all reject\n");
    text
}

pub(super) fn ident(database: &Database) -> String {
    let mut text = String::from(
        "# Written by provision-region. The name of a certificate, and the role that it opens.\n",
    );
    if let Part::Primary { standbys, .. } = &database.part {
        for standby in standbys {
            let _ = writeln!(
                text,
                "regionwise \"{}\" {}",
                standby.node,
                replica(&standby.node)
            );
        }
    }
    text
}

/// The product's own /health/db looks at the heartbeat, too.
pub(super) fn heartbeat(monitor: &Account, app: Option<&Account>) -> String {
    let named = |role: &str| {
        let (_, tables) = HEARTBEAT.split_once("CREATE ").unwrap_or_default();
        let text = format!("-- Written by provision-region.\nCREATE {tables}");
        text.replace("regionwise_lag", &format!("\"{role}\""))
    };
    let Some(app) = app else {
        return named(&monitor.name);
    };
    // `monitor`'s grants come last: whoever looks whether all was done looks at them.
    let app: String = named(&app.name)
        .lines()
        .filter(|line| line.starts_with("GRANT ") && !line.contains("pg_monitor"))
        .map(|line| format!("{line}\n"))
        .collect();
    let monitor = named(&monitor.name);
    let (tables, grants) = monitor.split_once("GRANT ").unwrap_or((&monitor, ""));
    format!("{tables}{app}GRANT {grants}")
}

fn device(volume: i64) -> String {
    format!("/dev/disk/by-id/scsi-0HC_Volume_{volume}")
}

pub(super) fn mount(volume: i64) -> String {
    format!(
        "[Unit]
Description=Volume of the database

[Mount]
What={}
Where={TOP}
Type=ext4
Options=noatime

[Install]
WantedBy=multi-user.target
",
        device(volume)
    )
}

pub(super) fn unit() -> String {
    format!(
        "[Unit]
RequiresMountsFor={TOP}
# Its addresses are those of the mesh and of the private network.
Wants=network-online.target
After=network-online.target regionwise-mesh.service

[Service]
# What it reads now is what is loaded.
ExecStartPre=-+{TOOL} note_loaded
"
    )
}
