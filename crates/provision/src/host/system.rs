//! Packages, updates, clock, disk alarm, firewall, sshd.

use ipnet::IpNet;

use super::{command, look, mesh, packages, text};
use crate::step::Step;

/// What any server gets. The firewall follows from this alone, whatever else the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Open from anywhere: whose addresses may come is the cloud's firewall's.
    pub ssh_port: u16,
    pub open: Vec<Opening>,
}

/// What may come in besides ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub transport: Transport,
    pub port: u16,
    pub from: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Anywhere,
    Ranges(Vec<IpNet>),
    /// Whoever is in the mesh: what comes by its interface. Nothing else of this list is open there.
    Mesh,
}

impl Opening {
    pub const fn anywhere(port: u16) -> Self {
        Self {
            transport: Transport::Tcp,
            port,
            from: Source::Anywhere,
        }
    }
}

const SYSTEM_CHECK: &str = r#"
[ "$(id -u)" = 0 ] || { echo 'this needs root'; return 1; }
[ -d /run/systemd/system ] || { echo 'systemd does not run here'; return 1; }
# shellcheck source=/dev/null
. /etc/os-release
case ${ID:-}-${VERSION_ID:-} in
  debian-12 | debian-13 | ubuntu-24.04) ;;
  *) echo "this is ${ID:-nothing known} ${VERSION_ID:-}: only Debian 12, Debian 13 and Ubuntu 24.04 are supported"; return 1 ;;
esac
"#;

const UNATTENDED: &str = r#"// Written by provision-region: security updates by themselves, everything else by a person.
#clear Unattended-Upgrade::Allowed-Origins;
#clear Unattended-Upgrade::Origins-Pattern;
Unattended-Upgrade::Origins-Pattern {
  "origin=Debian,codename=${distro_codename},label=Debian-Security";
  "origin=Debian,codename=${distro_codename}-security,label=Debian-Security";
  "origin=Ubuntu,archive=${distro_codename}-security";
};
// Their packages restart what serves. Upgrade these by hand, one host after another.
Unattended-Upgrade::Package-Blacklist {
  "containerd";
  "docker";
  "haproxy$";
  "pgbouncer$";
  "postgresql";
  "redis";
  "runc$";
};
Unattended-Upgrade::Automatic-Reboot "false";
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
"#;

const NEEDRESTART: &str = r"# Written by provision-region: a library update must not restart what serves.
$nrconf{override_rc}->{qr(^(containerd|docker|haproxy|pgbouncer|postgresql|redis|regionwise-))} = 0;
";

const DISK_ALARM: &str = r#"#!/bin/sh
# Written by provision-region: says in the journal, as a warning, which file system is nearly full.
df -P -x tmpfs -x devtmpfs -x squashfs -x overlay -x efivarfs | awk 'NR > 1 {
  used = $5; sub("%", "", used)
  if (used > 85) printf "<4>only %d %% of %s is free; at 10 %% a deploy is refused\n", 100 - used, $6
}'
"#;

const DISK_SERVICE: &str = "[Unit]
Description=Warn when a file system has less than 15 % free

[Service]
Type=oneshot
ExecStart=/usr/local/lib/regionwise/disk-alarm
SyslogIdentifier=regionwise-disk-alarm
";

const DISK_TIMER: &str = "[Unit]
Description=Look at the free space every ten minutes

[Timer]
OnBootSec=2min
OnUnitActiveSec=10min

[Install]
WantedBy=timers.target
";

const FIREWALL_UNIT: &str = "[Unit]
Description=Packet filter of a region host
Documentation=file:/etc/regionwise/firewall.nft
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
# Its `flush ruleset` would take our table away, too.
After=local-fs.target nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f /etc/regionwise/firewall.nft
ExecReload=/usr/sbin/nft -f /etc/regionwise/firewall.nft
ExecStop=/usr/sbin/nft delete table inet regionwise

[Install]
WantedBy=sysinit.target
";

const FIREWALL_CHECK: &str = r#"
[ -x /usr/sbin/nft ] && nft list chain inet regionwise input && systemctl -q is-active regionwise-firewall \
  && { [ "$armed" = yes ] || systemctl -q is-enabled regionwise-firewall; }
"#;

const FIREWALL_UNDO: &str = r"systemctl daemon-reload || true
systemctl reset-failed regionwise-firewall.service || true
nft delete table inet regionwise || true
if [ -e /etc/regionwise/firewall.nft ]; then
  nft -f /etc/regionwise/firewall.nft
else
  systemctl stop regionwise-firewall.service || ! systemctl -q is-active regionwise-firewall.service
fi";

const SSHD: &str =
    "# Written by provision-region. The first value counts, so this file is read before all others.
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
PermitRootLogin prohibit-password
X11Forwarding no
";

/// What sshd itself makes of all its files.
const SSHD_CHECK: &str = r#"
mkdir -p /run/sshd && sshd -t && sshd -T > "$work/sshd" || return 1
for line in 'passwordauthentication no' 'kbdinteractiveauthentication no'; do
  grep -qx "$line" "$work/sshd" || { echo "sshd does not take '$line': its files in sshd_config.d must come first"; return 1; }
done
"#;

/// A restart, here and when it is applied: sessions outlive it, and it ends when sshd listens. A reload does not, and a second
/// one before sshd has settled kills it. Early in a boot sshd starts after this by itself.
const SSHD_UNDO: &str =
    "if systemctl -q is-active sysinit.target; then systemctl restart ssh.service; fi";

/// Nothing makes a system a known one; the second time it says why it is not.
pub(super) fn known() -> Step {
    command(
        "system",
        "only these systems were tried",
        SYSTEM_CHECK,
        SYSTEM_CHECK,
        &[],
    )
}

/// Steps that lock nobody out.
pub(super) fn plain() -> Vec<Step> {
    vec![
        known(),
        packages(
            "packages",
            "they keep the server safe without anybody",
            &[
                "nftables",
                "unattended-upgrades",
                "logrotate",
                "ca-certificates",
                "systemd-timesyncd|chrony|ntpsec",
            ],
        ),
        command(
            "time-sync",
            "locks and certificates compare clocks",
            "[ \"$(timedatectl show -p NTP --value)\" = yes ]",
            "timedatectl set-ntp true",
            &[],
        ),
        text(
            "security-updates",
            "security updates come by themselves, and restart neither the database nor containers",
            "/etc/apt/apt.conf.d/zz-regionwise",
            0o644,
            UNATTENDED,
        ),
        text(
            "no-surprise-restarts",
            "where needrestart is installed it would restart what serves",
            "/etc/needrestart/conf.d/regionwise.conf",
            0o644,
            NEEDRESTART,
        ),
        command(
            "update-timers",
            "the two timers look for updates every day",
            "systemctl -q is-enabled apt-daily.timer && systemctl -q is-enabled apt-daily-upgrade.timer",
            "systemctl --quiet enable --now apt-daily.timer apt-daily-upgrade.timer",
            &[],
        ),
        text(
            "disk-alarm",
            "a full disk stops a deploy, and says so too late",
            "/usr/local/lib/regionwise/disk-alarm",
            0o755,
            DISK_ALARM,
        ),
        text(
            "disk-alarm-unit",
            "systemd runs it",
            "/etc/systemd/system/regionwise-disk-alarm.service",
            0o644,
            DISK_SERVICE,
        ),
        text(
            "disk-alarm-timer",
            "every ten minutes",
            "/etc/systemd/system/regionwise-disk-alarm.timer",
            0o644,
            DISK_TIMER,
        ),
        command(
            "disk-alarm-on",
            "a timer that is not enabled rings never",
            "systemctl -q is-enabled regionwise-disk-alarm.timer && systemctl -q is-active regionwise-disk-alarm.timer",
            "systemctl daemon-reload && systemctl --quiet enable --now regionwise-disk-alarm.timer",
            &["disk-alarm-unit", "disk-alarm-timer"],
        ),
    ]
}

/// Steps that could.
pub(super) fn guarded(system: &System) -> Vec<Step> {
    vec![
        look(
            "listeners",
            "what the firewall closes is named before it is closed",
            &listeners(system),
        ),
        text(
            "firewall-rules",
            "what listens by accident is not reached from outside",
            "/etc/regionwise/firewall.nft",
            0o644,
            firewall(system),
        )
        .guarded("", ""),
        text(
            "firewall-unit",
            "the rules must be there before the network is",
            "/etc/systemd/system/regionwise-firewall.service",
            0o644,
            FIREWALL_UNIT,
        )
        .guarded("", ""),
        command(
            "firewall",
            "the rules apply now, and again at every boot",
            FIREWALL_CHECK,
            "systemctl daemon-reload && systemctl reload-or-restart regionwise-firewall.service",
            &["firewall-rules", "firewall-unit"],
        )
        .guarded(
            FIREWALL_UNDO,
            "systemctl --quiet enable regionwise-firewall.service",
        ),
        text(
            "sshd-config",
            "passwords are guessed, keys are not",
            "/etc/ssh/sshd_config.d/00-regionwise.conf",
            0o644,
            SSHD,
        )
        .guarded("", ""),
        command(
            "sshd",
            "sshd has read its configuration, and accepts it",
            SSHD_CHECK,
            "sshd -t && systemctl try-restart ssh.service",
            &["sshd-config"],
        )
        .guarded(SSHD_UNDO, ""),
    ]
}

/// Loopback is nobody's business, and DHCP's ports are open.
fn listeners(system: &System) -> String {
    let ssh = Opening::anywhere(system.ssh_port);
    let open: String = std::iter::once(&ssh)
        .chain(&system.open)
        .map(|opening| format!("{}/{} ", opening.transport.word(), opening.port))
        .collect();
    format!("ss -Hltunp | awk -v open=' {open}udp/68 udp/546 ' '{LISTENERS}'\n{BRIDGES}")
}

const LISTENERS: &str = r#"
{
  address = $5; sub(/:[0-9]+$/, "", address)
  port = $5; sub(/.*:/, "", port)
  if (address ~ /^(127\.|\[::1\]|\[::ffff:127\.)/ || index(open, " " $1 "/" port " ")) next
  who = "something"
  if (split($0, part, /"/) > 1) who = part[2]
  if (who == "docker-proxy") who = "a container"
  print who " listens on " $1 "/" port " at " address ", and the firewall lets nobody to it"
}"#;

/// Of virtual machines, podman and others. A server that forwards nothing has nothing to lose.
const BRIDGES: &str = r#"
if [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 1 ]; then
  ip -o link show type bridge | awk -F ': ' '$2 !~ /^(docker|br-)/ { print "nothing is forwarded for bridge " $2 ": the firewall does so for docker* and br-* only" }'
fi"#;

/// A table of our own: those of Docker and others stay as they are.
fn firewall(system: &System) -> String {
    let ssh = Opening::anywhere(system.ssh_port);
    let openings = || std::iter::once(&ssh).chain(&system.open);
    let lines = |lines: Vec<String>| -> String {
        lines.iter().map(|line| format!("    {line}\n")).collect()
    };
    let outside = lines(openings().flat_map(from_outside).collect());
    let mesh = lines(system.open.iter().filter_map(from_the_mesh).collect());
    format!(
        r#"# Written by provision-region.
# Replaces this table in one step, whether or not it was there.
add table inet regionwise
delete table inet regionwise
table inet regionwise {{
  chain mesh {{
{mesh}    drop
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    ct state invalid drop
    iif lo accept
    meta l4proto {{ icmp, ipv6-icmp }} accept
    iifname {interface} jump mesh
    # The answer of a DHCP server may come from an address that nobody asked.
    udp dport {{ 68, 546 }} accept
{outside}  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    # The cloud's metadata holds the user data; a container has no business there.
    ip daddr 169.254.169.254 drop
    ct state established,related accept
    # Containers go out. Nobody comes in to them, whatever Docker publishes: it opens its own chain, not this one.
    iifname "docker*" accept
    iifname "br-*" accept
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    # Nor has a release.
    ip daddr 169.254.169.254 meta skuid != 0 drop
  }}
}}
"#,
        interface = mesh::INTERFACE,
    )
}

fn from_outside(opening: &Opening) -> Vec<String> {
    let port = port(opening);
    match &opening.from {
        Source::Anywhere => vec![format!("{port} accept")],
        Source::Ranges(ranges) => ranges
            .iter()
            .map(|range| {
                let family = if range.addr().is_ipv4() { "ip" } else { "ip6" };
                format!("{family} saddr {range} {port} accept")
            })
            .collect(),
        Source::Mesh => Vec::new(),
    }
}

fn from_the_mesh(opening: &Opening) -> Option<String> {
    (opening.from == Source::Mesh).then(|| format!("{} accept", port(opening)))
}

fn port(opening: &Opening) -> String {
    format!("{} dport {}", opening.transport.word(), opening.port)
}
