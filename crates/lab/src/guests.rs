//! The lab's second, rooted world: real Debian guests in a network namespace of their own.
//!
//! For what the rootless lab cannot show: systemd, packages, cloud-init, a firewall, a reboot. The guests run under software
//! emulation, so they need no /dev/kvm; root is needed for the namespace. Nothing outside it is touched.
//!
//! - [`image`] makes the disks once, [`network`] the namespace, [`guest`] is one machine in it.

mod guest;
mod image;
mod network;

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::processes;

pub use guest::{Guest, Machine};
pub use image::{Image, System};
use network::Network;

/// How long guests of a killed test may take to end after SIGKILL.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// What guests need, and the Debian package that brings it.
const PROGRAMS: [(&str, &str); 7] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("cloud-localds", "cloud-image-utils"),
    ("apt-ftparchive", "apt-utils"),
    ("mke2fs", "e2fsprogs"),
    ("ip", "iproute2"),
    ("ssh", "openssh-client"),
];

/// Why there are no guests, with everything that is known about it.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error("{0}")]
    Impossible(String),
    #[error("cannot {doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {doing}: {said}")]
    Said { doing: String, said: String },
}

impl GuestError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// Guests that live as long as this value. Those of a test that was killed end when the next one starts in `directory`.
pub struct Guests {
    guests: Vec<Guest>,
    network: Arc<Network>,
    directory: PathBuf,
    /// Held for the whole life: two test runs never share a directory.
    _lock: File,
    // After the guests have ended.
    _room: Room,
}

impl Guests {
    /// Whether guests can run on this machine.
    ///
    /// # Errors
    /// [`GuestError::Impossible`] says what is missing and how to get it.
    pub fn possible() -> Result<(), GuestError> {
        if !rustix::process::geteuid().is_root() {
            return Err(GuestError::Impossible("guests need root".to_owned()));
        }
        if !Path::new("/dev/net/tun").exists() {
            return Err(GuestError::Impossible(
                "guests need /dev/net/tun".to_owned(),
            ));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories: Vec<PathBuf> = std::env::split_paths(&path)
            .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
            .collect();
        let missing: Vec<&str> = PROGRAMS
            .iter()
            .filter(|(program, _)| !directories.iter().any(|d| d.join(program).is_file()))
            .map(|(_, package)| *package)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.join(" ");
        Err(GuestError::Impossible(format!(
            "guests need packages that are not here: apt-get install --no-install-recommends {list}"
        )))
    }

    /// Boots one guest for each machine; they answer ssh once [`Guest::wait_until_ready`] has returned.
    ///
    /// # Errors
    /// When another process has guests in `directory`, or anything cannot be started. Nothing is left then.
    pub fn boot(directory: &Path, image: &Image, machines: &[Machine]) -> Result<Self, GuestError> {
        Self::possible()?;
        let room = Room::for_guests(machines.len());
        let lock = claim(directory)?;
        let network = Arc::new(Network::make(directory)?);
        let mut guests = Self {
            guests: Vec::new(),
            network,
            directory: directory.to_owned(),
            _lock: lock,
            _room: room,
        };
        for (machine, number) in machines.iter().zip(1..) {
            let guest = Guest::boot(&guests.network, image, directory, machine, number)?;
            guests.guests.push(guest);
        }
        Ok(guests)
    }

    /// In the order of the machines.
    pub fn all(&self) -> &[Guest] {
        &self.guests
    }

    /// A command that runs inside the namespace, from where the guests can be reached.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.network.command(program.as_ref())
    }

    /// A socket that listens inside the namespace, for a server of this process.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the address is taken.
    pub fn listener(&self, address: SocketAddr) -> Result<TcpListener, GuestError> {
        self.network.listener(address)
    }

    /// The name of their network namespace.
    pub fn namespace(&self) -> &str {
        self.network.namespace()
    }

    /// Where consoles, keys and known_hosts of these guests are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Guests that this process may run at a time. Each keeps a core busy while it boots and installs, and with more of them on
/// two cores ssh runs into its own time limits.
const TOGETHER: usize = 3;

static TAKEN: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// Room for some guests, given back when this goes.
struct Room(usize);

impl Room {
    /// Waits until there is room. More than fit run alone.
    fn for_guests(wanted: usize) -> Self {
        let wanted = wanted.min(TOGETHER);
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = LEFT
            .wait_while(taken, |taken| *taken + wanted > TOGETHER)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += wanted;
        Self(wanted)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        LEFT.notify_all();
    }
}

/// Makes `directory` ours alone, and ends what a killed test has left of it.
fn claim(directory: &Path) -> Result<File, GuestError> {
    let doing = || format!("use `{}` for guests", directory.display());
    fs::create_dir_all(directory).map_err(GuestError::io(doing()))?;
    let lock = File::create(directory.join("lock")).map_err(GuestError::io(doing()))?;
    lock.try_lock().map_err(|_| {
        GuestError::Impossible(format!("guests run in `{}` already", directory.display()))
    })?;
    processes::kill_marked(directory, Instant::now() + LEFTOVERS)
        .map_err(GuestError::io(doing()))?;
    Network::remove_left(directory)?;
    Ok(lock)
}

/// Runs a command to its end; its words stand in the error.
fn run(doing: &str, command: &mut Command) -> Result<Output, GuestError> {
    let output = command
        .output()
        .map_err(GuestError::io(format!("{doing}: {command:?}")))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(GuestError::Said {
        doing: doing.to_owned(),
        said: format!(
            "{} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    })
}
