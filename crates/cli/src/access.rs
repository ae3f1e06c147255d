//! How this run reaches region-host: the `[ssh]` section of regions.toml, with the key in a file of its own.

use std::path::Path;

use regionwise_controller::Access;
use regionwise_remote::identity::Identity;
use regionwise_remote::jump::Jump;
use regionwise_topology::Topology;

use crate::args::Common;
use crate::context::Context;
use crate::failure::{Because, Failure, Hint};

/// Access to the hosts for as long as this value lives: the key's file ends with it.
pub struct Reach {
    pub access: Access,
    _identity: Identity,
}

/// The host in between, if there is one; its key is pinned where those of the hosts are.
pub fn jump(topology: &Topology, known_hosts: &Path) -> Option<Jump> {
    let jump = topology.ssh.jump.as_ref()?;
    Some(Jump {
        user: jump.user.clone(),
        address: jump.address,
        port: jump.port,
        known_hosts: std::path::absolute(known_hosts).unwrap_or_else(|_| known_hosts.to_owned()),
    })
}

impl Context {
    /// Resolves `[ssh]`: known_hosts must exist, the key must be one.
    ///
    /// # Errors
    /// `invalid`; nothing was contacted.
    pub fn reach(&self, common: &Common, topology: &Topology) -> Result<Reach, Failure> {
        let directory = common.directory();
        let known_hosts = self.expand(&topology.ssh.known_hosts, directory);
        // ssh reads it from another directory, should it ever change its own.
        let known_hosts = std::path::absolute(&known_hosts).unwrap_or(known_hosts);
        if !Path::new(&known_hosts).is_file() {
            return Err(Failure::invalid(format!("cannot read the pinned host keys `{}`", known_hosts.display()))
                .with_hint("write them when a server is made, one `[address]:port ssh-ed25519 key` line per host"));
        }
        let key = self.secret("the ssh key", &topology.ssh.identity, directory)?;
        let identity = Identity::write(key.expose())
            .invalid(|| format!("cannot use the ssh key `{}`", topology.ssh.identity))
            .hint("give the whole private key, from -----BEGIN to -----END")?;
        let access = Access {
            app: topology.product.name.clone(),
            user: topology.ssh.user.clone(),
            jump: jump(topology, &known_hosts),
            known_hosts,
            identity: identity.path().to_owned(),
        };
        Ok(Reach {
            access,
            _identity: identity,
        })
    }
}
