//! The servers of a product reach each other over WireGuard, in one flat mesh. Private keys are made on the servers and never
//! leave them.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use sha2::{Digest, Sha256};

use super::{command, fact, look, packages, text};
use crate::step::Step;

/// The interface of the mesh on every server.
pub const INTERFACE: &str = "regionwise0";

/// WireGuard over IPv6 takes 80 bytes of a packet, and the internet carries 1500.
const MTU: u16 = 1420;

/// A peer that is idle still shakes hands, so that one that does not is gone; and stateful firewalls stay open.
const KEEPALIVE_SECONDS: u8 = 25;

const KEY: &str = "/etc/wireguard/key";
const TOOL: &str = "/usr/local/lib/regionwise/mesh";
const UNIT: &str = "regionwise-mesh.service";

/// The mesh as one server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    pub product: String,
    /// Of this server.
    pub name: String,
    /// UDP, the same on every server.
    pub port: u16,
    /// All others. One that is no longer here is no longer let in.
    pub peers: Vec<Peer>,
}

/// Another server of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub name: String,
    /// Base64, as `wg` writes it.
    pub public_key: String,
    /// `None`: it comes to us, we cannot go to it.
    pub endpoint: Option<IpAddr>,
}

/// The address of a server in the mesh of a product. It follows from both names, so nobody hands addresses out, and every
/// runner knows them: a prefix of RFC 4193 (fd00::/8 and 40 bits), subnet 0, and 64 bits for the server.
pub fn address(product: &str, server: &str) -> Ipv6Addr {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..6].copy_from_slice(&Sha256::digest(product)[..5]);
    bytes[8..].copy_from_slice(&Sha256::digest(server)[..8]);
    Ipv6Addr::from(bytes)
}

impl Mesh {
    pub(super) fn address(&self) -> Ipv6Addr {
        address(&self.product, &self.name)
    }
}

/// The key of this server, before anybody else is known.
pub(super) fn keys() -> Vec<Step> {
    let made = format!(
        "install -d -m 700 /etc/wireguard && ( umask 077 && wg genkey > {KEY}.new ) && mv {KEY}.new {KEY} && sync"
    );
    vec![
        packages(
            "mesh-packages",
            "the kernel has WireGuard, and these talk to it",
            &["wireguard-tools"],
        ),
        command(
            "mesh-key",
            "a private key that was never elsewhere cannot be taken there",
            format!("[ -s {KEY} ] && [ \"$(stat -c '%a %U' {KEY})\" = '600 root' ]"),
            // One that is there stays: others know its public half.
            format!("if [ -s {KEY} ]; then chmod 600 {KEY} && chown root: {KEY}; else {made}; fi"),
            &[],
        ),
        fact(
            "mesh-public-key",
            "the others let in whoever has the private half",
            "wireguard",
            format!("wg pubkey < {KEY}"),
        ),
    ]
}

pub(super) fn steps(mesh: &Mesh) -> Vec<Step> {
    let file = |name, reason, file: &str, content| {
        text(
            name,
            reason,
            format!("/etc/regionwise/mesh/{file}"),
            0o644,
            content,
        )
    };
    let mut steps = keys();
    steps.extend([
        file("mesh-server", "its own address follows from its name", "server", server(mesh)),
        file("mesh-peers", "whoever is not here is not let in", "peers", peers(mesh)),
        file("mesh-allowed", "a peer sends from its own address only", "allowed", allowed(mesh)),
        file("mesh-names", "people know names, not keys", "names", names(mesh)),
        text("mesh-tool", "it brings the interface to what the files say", TOOL, 0o755, include_str!("mesh/mesh.sh")),
        text(
            "mesh-unit",
            "the mesh is there before what listens in it",
            format!("/etc/systemd/system/{UNIT}"),
            0o644,
            unit(&mesh.product),
        ),
        command(
            "mesh",
            "the interface has these peers now, and again after a boot",
            format!("{TOOL} matches && systemctl -q is-active {UNIT} && systemctl -q is-enabled {UNIT}"),
            // A reload changes peers, and interrupts none that stays.
            format!(
                "systemctl daemon-reload && systemctl --quiet enable {UNIT} && systemctl reload-or-restart {UNIT}"
            ),
            &["mesh-server", "mesh-peers", "mesh-tool", "mesh-unit"],
        ),
        look(
            "mesh-handshakes",
            "a peer that does not answer may not be set up yet",
            SILENT,
        ),
    ]);
    steps
}

/// A handshake takes two ways through the internet; one that was lost is tried again after 5 s.
const SILENT: &str = r#"
for _ in 1 2 3 4 5 6 7 8 9 10; do
  silent=$(/usr/local/lib/regionwise/mesh silent) || return 1
  [ -n "$silent" ] || break
  sleep 1
done
for peer in $silent; do
  echo "no handshake with $peer in the last 180 s: it may not be set up yet, or UDP does not get through"
done
"#;

fn server(mesh: &Mesh) -> String {
    format!(
        "address={}\nport={}\nmtu={MTU}\n",
        mesh.address(),
        mesh.port
    )
}

/// For `wg syncconf`, without the private key.
fn peers(mesh: &Mesh) -> String {
    let mut text = format!("ListenPort = {}\n", mesh.port);
    for peer in &mesh.peers {
        let _ = write!(
            text,
            "\n# {}\n[Peer]\nPublicKey = {}\nAllowedIPs = {}/128\n",
            peer.name,
            peer.public_key,
            address(&mesh.product, &peer.name)
        );
        if let Some(endpoint) = peer.endpoint {
            let endpoint = SocketAddr::new(endpoint, mesh.port);
            let _ = write!(
                text,
                "Endpoint = {endpoint}\nPersistentKeepalive = {KEEPALIVE_SECONDS}\n"
            );
        }
    }
    text
}

/// As `wg show regionwise0 allowed-ips` says it.
fn allowed(mesh: &Mesh) -> String {
    lines(mesh, |peer| {
        address(&mesh.product, &peer.name).to_string() + "/128"
    })
}

fn names(mesh: &Mesh) -> String {
    lines(mesh, |peer| peer.name.clone())
}

fn lines(mesh: &Mesh, value: impl Fn(&Peer) -> String) -> String {
    let lines: String = mesh
        .peers
        .iter()
        .map(|peer| format!("{} {}\n", peer.public_key, value(peer)))
        .collect();
    // A file of ours ends with a line feed, also without peers.
    if lines.is_empty() {
        "\n".to_owned()
    } else {
        lines
    }
}

fn unit(product: &str) -> String {
    format!(
        "[Unit]
Description=WireGuard mesh of {product}
After=network-pre.target
Wants=network-pre.target
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={TOOL} up
ExecReload={TOOL} up
ExecStop=/bin/ip link delete {INTERFACE}

[Install]
WantedBy=multi-user.target
"
    )
}
