//! Backups of a cluster: pgBackRest into a bucket, a timer for each day, and a restore that proves them each week.
//!
//! All nodes have all of it, so that each can be promoted; the program of `backup/` works on the primary. The secrets come in
//! a staged file, [`Backup::SECRETS`], and are in no text here.

use super::postgres::Part;
use super::{Tool, command, file, look, packages, text};
use crate::script::quoted;
use crate::step::Step;

/// One program in three files, the second and third of which use what the first one has.
const PROGRAM: &str = concat!(
    include_str!("backup/backup.sh"),
    include_str!("backup/restore.sh"),
    include_str!("backup/notes.sh"),
);
const TOOL: Tool = Tool("/usr/local/lib/regionwise/backup");
/// Files of ours. pgBackRest runs as Postgres and reads them, so its group may.
const SETTINGS: &str = "/etc/regionwise/backup";
/// After so many seconds what was written is on its way, also when it is little: so much is lost with all nodes of a cluster.
const ARCHIVE_SECONDS: u32 = 60;

/// Where the backups of a node's cluster go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The product; the first part of every path in the bucket.
    pub product: String,
    /// Of the S3-compatible store, which speaks TLS.
    pub host: String,
    pub port: u16,
    /// `[a-z0-9.-]+`
    pub bucket: String,
    /// What S3 calls the region of the store.
    pub region: String,
    /// How many days one can go back, at least.
    pub keep_days: u16,
    /// Certificate of the authority that vouches for the store, as PEM; `None` are the public ones.
    pub authority: Option<String>,
}

impl Backup {
    /// Where key, secret and passphrase lie beside the script, as [`Backup::secrets`] writes them.
    pub const SECRETS: &str = "backup-secrets";

    /// The file with the secrets. Each is printable ASCII without a space.
    pub fn secrets(key: &str, secret: &str, passphrase: &str) -> String {
        format!(
            "[global]\nrepo1-s3-key={key}\nrepo1-s3-key-secret={secret}\nrepo1-cipher-pass={passphrase}\n"
        )
    }

    fn store(&self) -> String {
        match self.port {
            443 => format!("https://{}", self.host),
            port => format!("https://{}:{port}", self.host),
        }
    }
}

/// What Postgres is told of it. `archive_mode` is on in any case: it needs a restart, and a backup may be wished for later.
pub(super) fn archiving(backup: Option<&Backup>, cluster: &str) -> String {
    let (command, seconds) = match backup {
        Some(_) => (
            format!(
                "pgbackrest --config={SETTINGS}/pgbackrest.conf --config-include-path={SETTINGS}/conf.d --stanza={cluster} archive-push %p"
            ),
            ARCHIVE_SECONDS,
        ),
        None => ("/bin/true".to_owned(), 0),
    };
    format!("archive_mode = on\narchive_command = '{command}'\narchive_timeout = '{seconds}s'\n")
}

/// Before there is a disk.
pub(super) fn files(backup: &Backup, cluster: &str) -> Vec<Step> {
    let shared = |name, reason, path: &str, content| {
        let path = format!("{SETTINGS}/{path}");
        file(name, reason, path, 0o640, "root:postgres", content)
    };
    let mut steps = vec![
        packages(
            "backup-packages",
            "the distribution's pgBackRest gets its security updates",
            &["pgbackrest", "ca-certificates"],
        ),
        text(
            "backup-tool",
            "what needs a look at the server is looked at there",
            TOOL.0,
            0o755,
            PROGRAM,
        ),
        shared(
            "backup-settings",
            "what the repository is, in words",
            "settings",
            format!(
                "repository={}\n",
                quoted(&format!("bucket {} at {}", backup.bucket, backup.store()))
            ),
        ),
        shared(
            "backup-config",
            "encrypted before it leaves the server, and kept for as long as it is wanted",
            "pgbackrest.conf",
            config(backup, cluster),
        ),
    ];
    if let Some(authority) = &backup.authority {
        let mut authority = authority.trim_end().to_owned();
        authority.push('\n');
        steps.push(shared(
            "backup-authority",
            "the store is who it says",
            "authority.pem",
            authority,
        ));
    }
    steps.push(TOOL.step(
        "backup-secrets",
        "the store lets this cluster in, and only it can read what is there",
        "secrets_so \"$staged\"",
        "set_secrets \"$staged\"",
        &[],
    ));
    steps
}

/// Once there is a disk, and before there is a cluster.
pub(super) fn place(part: &Part) -> Vec<Step> {
    let mut steps = vec![TOOL.step(
        "backup-sizes",
        "a store that is gone must not fill the disk",
        "here_so",
        "set_here",
        &[],
    )];
    if matches!(part, Part::Primary { .. }) {
        // There is nothing to apply: a person decides.
        steps.push(TOOL.step(
            "backup-place",
            "a cluster that was lost is brought back, and not begun anew",
            "place_so",
            "place_so",
            &[],
        ));
    }
    steps
}

/// Once the cluster runs.
pub(super) fn running(part: &Part, cluster: &str) -> Vec<Step> {
    let unit = |name, reason, unit: &str, content| {
        let path = format!("/etc/systemd/system/regionwise-backup{unit}");
        text(name, reason, path, 0o644, content)
    };
    let timers = "regionwise-backup.timer regionwise-backup-proof.timer";
    let mut steps = vec![
        unit(
            "backup-unit",
            "one backup",
            ".service",
            service(&format!("Backup of the cluster {cluster}"), "run", ""),
        ),
        unit(
            "backup-timer",
            "a backup every day",
            ".timer",
            timer("One backup every day", "*-*-* 01:00", "4h"),
        ),
        unit(
            "backup-proof-unit",
            "one restore",
            "-proof.service",
            service(
                &format!("Proof that the cluster {cluster} comes back"),
                "prove",
                // What it found out stays so, and every try fetches everything. The tool has another code for "not now".
                "RestartPreventExitStatus=1\n",
            ),
        ),
        unit(
            "backup-proof-timer",
            "a backup that was never restored is none",
            "-proof.timer",
            timer("One restore every week", "Sun *-*-* 07:00", "4h"),
        ),
        command(
            "backup-timers",
            "they come now, and after every boot",
            format!("systemctl -q is-active {timers} && systemctl -q is-enabled {timers}"),
            format!(
                "systemctl daemon-reload && systemctl --quiet enable {timers} && systemctl restart {timers}"
            ),
            &[
                "backup-unit",
                "backup-timer",
                "backup-proof-unit",
                "backup-proof-timer",
            ],
        ),
    ];
    if let Part::Primary { last: true, .. } = part {
        steps.push(TOOL.step(
            "backup-begun",
            "what is written arrives there, and there is a first backup",
            "begun_so",
            "begin",
            &[],
        ));
        steps.push(TOOL.step(
            "backup-proven",
            "it came back once, with every page whole",
            "proven_so",
            "prove",
            &[],
        ));
    }
    // Before there can be a backup there is nothing to say of it.
    if !matches!(part, Part::Primary { last: false, .. }) {
        steps.push(look(
            "backup-notes",
            "what only a person decides",
            &format!("{TOOL} notes"),
        ));
    }
    steps
}

/// A cluster that has none any more.
pub(super) fn none() -> Step {
    let timers = "regionwise-backup.timer regionwise-backup-proof.timer";
    command(
        "backup-off",
        "no backup is wanted of this cluster",
        format!("! systemctl -q is-enabled {timers} 2> /dev/null"),
        format!("systemctl --quiet disable --now {timers} && rm -f {SETTINGS}/conf.d/secrets.conf"),
        &[],
    )
}

/// What of it is of the server follows there.
fn config(backup: &Backup, cluster: &str) -> String {
    let Backup {
        product,
        host,
        port,
        bucket,
        region,
        keep_days,
        authority,
    } = backup;
    let authority = match authority {
        Some(_) => format!("repo1-storage-ca-file={SETTINGS}/authority.pem\n"),
        None => String::new(),
    };
    format!(
        "# Written by provision-region. Secrets and sizes are in conf.d.
[global]
repo1-type=s3
repo1-path=/{product}
repo1-s3-endpoint={host}
repo1-storage-port={port}
repo1-s3-bucket={bucket}
repo1-s3-region={region}
# A name for each bucket is not what every store has.
repo1-s3-uri-style=path
{authority}repo1-cipher-type=aes-256-cbc
# Small files go together: a store is slow at each.
repo1-bundle=y
# Full ones go once there is a newer one that is old enough.
repo1-retention-full-type=time
repo1-retention-full={keep_days}
compress-type=zst
start-fast=y
lock-path=/var/lib/pgbackrest/lock
log-level-console=warn
log-level-stderr=off
[{cluster}]
pg1-port=5432
pg1-socket-path=/var/run/postgresql
"
    )
}

/// It bounds its own time, by the size of the data. A store that is gone for an hour is no lost day.
fn service(description: &str, verb: &str, restart: &str) -> String {
    format!(
        "[Unit]
Description={description}
Wants=network-online.target
After=network-online.target postgresql.service
StartLimitIntervalSec=20h
StartLimitBurst=4

[Service]
Type=oneshot
ExecStart={TOOL} {verb}
TimeoutStartSec=infinity
Restart=on-failure
RestartSec=1h
{restart}# The cluster serves meanwhile. The rest of this the tool does, also for a person.
CPUWeight=20
"
    )
}

/// Each server at a time of its own, and always at that.
fn timer(description: &str, when: &str, spread: &str) -> String {
    format!(
        "[Unit]
Description={description}

[Timer]
OnCalendar={when}
RandomizedDelaySec={spread}
FixedRandomDelay=yes
Persistent=yes

[Install]
WantedBy=timers.target
"
    )
}
