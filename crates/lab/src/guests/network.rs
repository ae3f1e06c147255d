//! A network namespace with one bridge: the guests are on it, and whoever runs a command inside.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{GuestError, run};
use crate::processes::MARK;

const BRIDGE: &str = "br0";

/// Addresses exist only inside the namespace, so every network has the same.
pub(super) const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The address of guest `number`, which counts from 1.
pub(super) fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + number)
}

/// Removed when this value goes.
pub(super) struct Network {
    namespace: String,
    /// Every process inside carries it as the mark of its lab.
    mark: PathBuf,
}

impl Network {
    pub(super) fn make(directory: &Path) -> Result<Self, GuestError> {
        let namespace = namespace_of(directory);
        run(
            "make a network namespace",
            Command::new("ip").args(["netns", "add", &namespace]),
        )?;
        let network = Self {
            namespace,
            mark: directory.to_owned(),
        };
        network.ip(&["link", "set", "lo", "up"])?;
        network.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        network.ip(&["addr", "add", &format!("{OURS}/24"), "dev", BRIDGE])?;
        network.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(network)
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The end of a cable on the bridge, for a guest.
    pub(super) fn tap(&self, number: u8) -> Result<String, GuestError> {
        let tap = format!("tap{number}");
        self.ip(&["tuntap", "add", "dev", &tap, "mode", "tap"])?;
        self.ip(&["link", "set", &tap, "master", BRIDGE, "up"])?;
        Ok(tap)
    }

    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program)
            .env(MARK, &self.mark)
            .stdin(Stdio::null());
        command
    }

    /// A thread goes inside and binds it, and what is bound stays where it was bound. A thread cannot come back, and ends.
    pub(super) fn listener(&self, address: SocketAddr) -> Result<TcpListener, GuestError> {
        let doing = || format!("listen on {address} in the network of the guests");
        let inside = File::open(Path::new("/run/netns").join(&self.namespace))
            .map_err(GuestError::io(doing()))?;
        let bind = move || {
            rustix::thread::move_into_link_name_space(
                inside.as_fd(),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )?;
            TcpListener::bind(address)
        };
        let bound = std::thread::spawn(bind).join();
        bound
            .unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))
            .map_err(GuestError::io(doing()))
    }

    /// Removes the namespace of a test that was killed.
    pub(super) fn remove_left(directory: &Path) -> Result<(), GuestError> {
        let namespace = namespace_of(directory);
        if Path::new("/run/netns").join(&namespace).exists() {
            let mut delete = Command::new("ip");
            run(
                "remove a network namespace",
                delete.args(["netns", "delete", &namespace]),
            )?;
        }
        Ok(())
    }

    fn ip(&self, words: &[&str]) -> Result<(), GuestError> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.namespace]).args(words);
        run("set up the network of the guests", &mut ip).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What still runs inside keeps the namespace alive, nameless; the next start in this directory ends it.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.namespace])
            .output();
    }
}

/// Clones and directories beside each other never meet.
fn namespace_of(directory: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    directory.hash(&mut hasher);
    format!("rw-guests-{:016x}", hasher.finish())
}
