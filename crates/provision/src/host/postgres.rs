//! Postgres, as the primary of its cluster or as a standby.

use std::net::Ipv6Addr;

use ipnet::IpNet;

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
    /// From where accounts may log in, with TLS and a password, besides the server itself.
    pub clients: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Primary {
        /// All that may receive.
        standbys: Vec<Replica>,
        /// `Some(n)`: n of them must confirm a commit, from the moment on at which all stream; `None` leaves it as it is.
        sync: Option<u32>,
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
    /// As its fact `certificate` says it: DER in base64, on one line. `None`: nobody has asked it yet.
    pub certificate: Option<String>,
}

/// Who logs in. The password comes in a staged file, see [`Account::password`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub kind: AccountKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountKind {
    /// Reads what `check-replication-lag` needs, and no table.
    Monitor,
    /// Owns the product's database.
    App,
}

impl Account {
    /// The name of the file beside the script that holds the password: one line of printable ASCII.
    pub fn password(&self) -> String {
        format!("password-{}", self.name)
    }
}
