//! The servers of a product reach each other over WireGuard, in one flat mesh.

use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest, Sha256};

/// The interface of the mesh on every server.
pub const INTERFACE: &str = "regionwise0";

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
