//! Postgres, as the primary of its cluster or as a standby: the distribution's packages, our configuration.
//!
//! What needs a look at the server is in `postgres/node.sh`, which becomes a program there; `config.rs` has the files that it
//! and Postgres read.

mod config;

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use regionwise_relocation::sql::install;

use super::backup::{self, Backup};
use super::mesh::Mesh;
use super::{Tool, command, fact, file, look, packages, text};
use crate::script::quoted;
use crate::step::Step;

pub use config::{from_pem, pem};

const TOOL: Tool = Tool("/usr/local/lib/regionwise/postgres");
const CERTIFICATES: Tool = Tool("/usr/local/lib/regionwise/certificate");
/// Files of ours. Postgres reads them, so its group may.
const SETTINGS: &str = "/etc/regionwise/postgres";
const KEY: &str = "/etc/regionwise/postgres/server.key";
const CERTIFICATE: &str = "/etc/regionwise/postgres/server.crt";
/// Where all data is, and where a volume is mounted.
const TOP: &str = "/var/lib/postgresql/regionwise";
const MOUNT: &str = "var-lib-postgresql-regionwise.mount";
/// From crate `postgres`: what `check-replication-lag` reads and writes.
const HEARTBEAT: &str = include_str!("../../../postgres/src/heartbeat.sql");

/// One node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub cluster: String,
    /// `[a-z0-9-]+`
    pub node: String,
    pub part: Part,
    /// Hetzner's id of the volume that the data lies on; `None` is the server's own disk.
    pub volume: Option<i64>,
    /// The product's database.
    pub database: String,
    /// Made by the primary; a standby gets them from there.
    pub accounts: Vec<Account>,
    /// `None`: no users' rows leave this cluster or come to it.
    pub migration: Option<Migration>,
    /// From where accounts may log in, with TLS and a password, besides the server itself.
    pub clients: Vec<IpNet>,
    /// Addresses of this server to listen at, besides loopback and the mesh.
    pub listen: Vec<IpAddr>,
    /// `None`: it has none.
    pub backup: Option<Backup>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Primary {
        /// Whether there may be no rows yet: no standby has any, and each that could have some was asked.
        first: bool,
        /// All that may receive.
        standbys: Vec<Replica>,
        /// Every standby that the cluster is to have, also one that is not there: only of others nobody waits any more.
        known: Vec<String>,
        /// So many of them must confirm a commit. 0: none.
        sync: u32,
        /// Whether all of them are there: before, commits wait as they did.
        complete: bool,
        /// Whether this is its last time in a run: now commits begin to wait, and the first backup is made and proven, which may
        /// take hours.
        last: bool,
    },
    Standby {
        primary: Replica,
    },
}

/// Another node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub node: String,
    /// The server it is on.
    pub server: String,
    /// In the mesh.
    pub address: Ipv6Addr,
    /// As its fact `certificate` says it: DER in base64; with a space between, the next one, too. `None`: nobody has asked it
    /// yet.
    pub certificate: Option<String>,
}

/// Who moves users' rows here, as `migrate-eu-users install` wants them to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Names of accounts.
    pub movers: Vec<String>,
    /// Names of accounts.
    pub verifiers: Vec<String>,
}

/// Who logs in. The password comes in a staged file, see [`Account::password`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `[a-z0-9_-]+`
    pub name: String,
    pub kind: AccountKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountKind {
    /// Reads what `check-replication-lag` needs, and no table.
    Monitor,
    /// Owns the product's database.
    App,
    /// Nothing yet: the installation of a migration gives it its rights.
    Mover,
    /// As [`AccountKind::Mover`].
    Verifier,
}

impl Account {
    /// The name of the file beside the script that holds the password: one line of printable ASCII, eight characters or more.
    pub fn password(&self) -> String {
        format!("password-{}", self.name)
    }
}

/// The key and the certificate of this node, before anybody else is known.
pub(super) fn keys(database: &Database, mesh: Option<&Mesh>) -> Vec<Step> {
    let node = &database.node;
    vec![
        packages("database-openssl", "it makes the certificate", &["openssl"]),
        text(
            "database-certificate-form",
            "it must sign nobody else: one node may not speak as another",
            format!("{SETTINGS}/certificate.conf"),
            0o644,
            config::certificate(node, mesh),
        ),
        text(
            "database-certificate-tool",
            "what lies there is looked at there",
            CERTIFICATES.0,
            0o755,
            include_str!("postgres/certificate.sh"),
        ),
        CERTIFICATES.step(
            "database-key",
            "a private key that was never elsewhere cannot be taken there",
            &format!("own_so {node}"),
            &format!("own {node}"),
            &[],
        ),
        CERTIFICATES.step(
            "database-next-key",
            "the others trust the next certificate long before this one ends",
            &format!("next_so {node}"),
            &format!("make_next {node}"),
            &[],
        ),
        fact(
            "database-rows",
            "a primary must not begin anew while a standby has its rows",
            "rows",
            format!(
                "if ls {TOP}/[0-9][0-9]/PG_VERSION > /dev/null 2>&1; then echo yes; else echo no; fi"
            ),
        ),
        fact(
            "database-renewal",
            "it takes over when all others have it",
            "renewal",
            format!("{CERTIFICATES} renewal {node}"),
        ),
        fact(
            "database-certificate",
            "the other nodes trust exactly this one, and the next one before it is shown",
            "certificate",
            format!("{CERTIFICATES} trusted {node}"),
        ),
    ]
}

/// The next certificate takes over: only when all who speak to this node were told of it.
pub(super) fn renewal(database: &Database) -> Vec<Step> {
    let node = &database.node;
    vec![
        CERTIFICATES.step(
            "database-renewed",
            "a certificate ends, and its node must not",
            &format!("taken_so {node}"),
            &format!("take {node}"),
            &[],
        ),
        reload(),
        shown(),
    ]
}

/// Postgres keeps the old one when it cannot read the new one, and says so in its log only. What a killed run has noted as loaded
/// may not be, so it is told again.
fn shown() -> Step {
    command(
        "database-shown",
        "what it shows is what the others trust",
        format!("{CERTIFICATES} shown_so"),
        format!("{TOOL} configure > /dev/null && {CERTIFICATES} show"),
        &[],
    )
}

pub(super) fn steps(database: &Database, mesh: Option<&Mesh>) -> Vec<Step> {
    let mut steps = vec![
        text(
            "database-no-default",
            "Debian's package makes a cluster by itself, without checksums",
            "/etc/postgresql-common/createcluster.d/regionwise.conf",
            0o644,
            "create_main_cluster = false\n",
        ),
        packages(
            "database-packages",
            "the distribution's Postgres gets its security updates",
            &["postgresql"],
        ),
    ];
    steps.extend(keys(database, mesh));
    steps.push(part(database));
    steps.extend(files(database, mesh));
    let backup = database.backup.as_ref();
    steps.extend(backup.map_or_else(Vec::new, |backup| backup::files(backup, &database.cluster)));
    steps.extend(volume(database));
    if backup.is_some() {
        steps.extend(backup::place(&database.part));
    }
    steps.extend(cluster(&database.part));
    match &database.part {
        Part::Primary {
            standbys,
            sync,
            complete,
            last,
            ..
        } => {
            let begins = *last && *complete;
            let names = begins.then(|| config::sync_names(*sync, standbys));
            steps.extend(primary(names.as_deref()));
            if database.migration.is_some() {
                steps.push(migration());
            }
            if *last {
                steps.push(look(
                    "database-votes",
                    "with fewer, the loss of this server may be the loss of a commit",
                    &format!("{TOOL} votes {sync}"),
                ));
            }
        }
        Part::Standby { .. } => steps.extend(standby()),
    }
    steps.push(TOOL.step(
        "database-collations",
        "the order of an index must not depend on the node",
        "collations_so",
        "collations_so",
        &[],
    ));
    match backup {
        Some(_) => steps.extend(backup::running(&database.part, &database.cluster)),
        None => steps.push(backup::none()),
    }
    steps.push(look(
        "database-notes",
        "what only a person decides",
        &format!("{TOOL} notes && {CERTIFICATES} notes {}", database.node),
    ));
    steps
}

/// Before any file says otherwise: a node that was refused later would serve by them after its next start.
fn part(database: &Database) -> Step {
    let node = &database.node;
    let (wrong, why) = match &database.part {
        Part::Primary { .. } => (
            "[ -e \"$data/standby.signal\" ]",
            format!(
                "is a standby, and {node} shall be the primary of {}: fence the old primary, then promote it",
                database.cluster
            ),
        ),
        Part::Standby { .. } => (
            "[ ! -e \"$data/standby.signal\" ]",
            "was promoted or never was a standby, and may have writes of its own: look at them, then move it away, and it is seeded again"
                .to_owned(),
        ),
    };
    let shell = format!(
        "for there in {TOP}/[0-9][0-9]/PG_VERSION; do\n  data=${{there%/PG_VERSION}}\n  \
         if [ -s \"$there\" ] && {wrong}; then\n    echo \"$data {why}\"\n    return 1\n  fi\ndone"
    );
    command(
        "database-part",
        "only a person makes a standby a primary, or the other way round",
        shell.clone(),
        shell,
        &[],
    )
}

fn files(database: &Database, mesh: Option<&Mesh>) -> Vec<Step> {
    let shared = |name, reason, path: &str, content| {
        file(
            name,
            reason,
            format!("{SETTINGS}/{path}"),
            0o640,
            "root:postgres",
            content,
        )
    };
    let mut steps = vec![
        command(
            "database-key-readable",
            "Postgres reads the key, and nobody else",
            format!("[ \"$(stat -c '%a %U:%G' {KEY})\" = '640 root:postgres' ]"),
            format!("chown root:postgres {KEY} && chmod 640 {KEY}"),
            &["database-key"],
        ),
        text(
            "database-tool",
            "what needs a look at the server is looked at there",
            TOOL.0,
            0o755,
            include_str!("postgres/node.sh"),
        ),
        shared(
            "database-node",
            "what this node is",
            "node",
            config::node(database),
        ),
        shared(
            "database-config",
            "the same on every node of the cluster, so that each can be promoted",
            "regionwise.conf",
            config::postgresql(database, mesh),
        ),
        shared(
            "database-logins",
            "who is not listed is rejected",
            "pg_hba.conf",
            config::hba(database),
        ),
        shared(
            "database-names",
            "a certificate opens one role",
            "pg_ident.conf",
            config::ident(database),
        ),
        shared(
            "database-peers",
            "the certificates of the other nodes, and no authority",
            "peers.crt",
            config::peers(database),
        ),
        text(
            "database-unit",
            "without its disk or its addresses it must not start",
            "/etc/systemd/system/postgresql@.service.d/regionwise.conf",
            0o644,
            config::unit(),
        ),
    ];
    if let Part::Standby { primary } = &database.part
        && let Some(certificate) = &primary.certificate
    {
        steps.push(shared(
            "database-primary",
            "a standby streams from this one only",
            "primary.crt",
            pem(certificate),
        ));
    }
    if let Some(monitor) = config::named(database, AccountKind::Monitor) {
        let grants = config::heartbeat(monitor, config::named(database, AccountKind::App));
        steps.push(shared(
            "database-heartbeat",
            "check-replication-lag writes there, and reads",
            "heartbeat.sql",
            grants,
        ));
    }
    if let Some(Migration { movers, verifiers }) = &database.migration {
        steps.push(shared(
            "database-migration-rights",
            "what the accounts of a migration have that only a superuser gives",
            "migration.sql",
            install::prepared(movers, verifiers),
        ));
        steps.push(shared(
            "database-migration-look",
            "whether they have it",
            "migration-lacks.sql",
            install::unprepared(movers, verifiers),
        ));
    }
    steps
}

fn volume(database: &Database) -> Vec<Step> {
    let Some(volume) = database.volume else {
        return Vec::new();
    };
    vec![
        text(
            "database-mount",
            "the volume is found by its number, whatever the kernel names it",
            format!("/etc/systemd/system/{MOUNT}"),
            0o644,
            config::mount(volume),
        ),
        TOOL.step(
            "database-volume",
            "the data outlives the server",
            "volume_made",
            "make_volume",
            &["database-mount"],
        ),
        TOOL.step(
            "database-volume-filled",
            "what a larger volume has more is used, while it serves",
            "volume_filled",
            "fill_volume",
            &[],
        ),
    ]
}

/// A node that runs, whatever its part. Nothing here restarts one.
fn cluster(part: &Part) -> Vec<Step> {
    // As an argument, not in a file: that a standby has rows by now must change nothing here.
    let make = match part {
        Part::Primary { first: true, .. } => "make_cluster first",
        _ => "make_cluster",
    };
    let mut steps = vec![
        TOOL.step(
            "database-sizes",
            "memory and disk are those of this server",
            "sizes_so",
            "set_sizes",
            &[],
        ),
        TOOL.step(
            "database-cluster",
            "made once, in an empty place",
            "cluster_made",
            make,
            &[],
        ),
        TOOL.step(
            "database-running",
            "it runs now, and again after a boot",
            "running_so",
            "run",
            &["database-unit"],
        ),
    ];
    if let Part::Primary { .. } = part {
        steps.push(TOOL.step(
            "database-departed",
            "commits must not wait for a standby that is let in no more",
            "departed_so",
            "forget_departed",
            &[],
        ));
    }
    steps.push(reload());
    steps.push(shown());
    steps
}

fn reload() -> Step {
    TOOL.step(
        "database-reload",
        "it has read what the files say, and takes it",
        "configured_so",
        "configure",
        &[
            "database-config",
            "database-logins",
            "database-names",
            "database-peers",
            "database-sizes",
            "database-key",
            "database-departed",
        ],
    )
}

/// The names come as an argument, not as a file: leaving them as they are must change nothing.
fn primary(sync: Option<&str>) -> Vec<Step> {
    let mut steps = vec![
        TOOL.step(
            "database-replicas",
            "one role and one slot for each standby",
            "replicas_so",
            "make_replicas",
            &[],
        ),
        TOOL.step(
            "database-accounts",
            "an account may do what it is for",
            "accounts_so \"$staged\"",
            "make_accounts \"$staged\"",
            &["database-heartbeat"],
        ),
    ];
    if let Some(names) = sync {
        let names = quoted(names);
        steps.push(TOOL.step(
            "database-sync",
            "a commit is in more than one place, once there is another place",
            &format!("sync_so {names}"),
            &format!("set_sync {names}"),
            &[],
        ));
    }
    steps
}

fn migration() -> Step {
    TOOL.step(
        "database-migration",
        "who owns the tables installs the fence, and needs no superuser for it",
        "migration_so",
        "prepare_migration",
        &["database-migration-rights"],
    )
}

fn standby() -> Vec<Step> {
    vec![TOOL.step(
        "database-streaming",
        "a standby that does not stream is none",
        "streams_so",
        "stream",
        &[],
    )]
}
