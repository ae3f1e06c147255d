//! Where everything lies below a host's root, by default `/var/lib/regionwise/<app>`.

use std::path::{Path, PathBuf};

use regionwise_rollout::release::Digest;
use regionwise_rollout::slot::Slot;

/// The directories below the root, all of them.
pub(crate) const DIRECTORIES: [&str; 5] = ["blobs", "releases", "slots", "traffic", "log"];

/// Paths of one host's state.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What `install` was told.
    pub(crate) fn settings(&self) -> PathBuf {
        self.root.join("host.json")
    }

    /// Env of the host itself: region, database URLs, secrets. Mode 0600.
    pub(crate) fn host_env(&self) -> PathBuf {
        self.root.join("env")
    }

    pub(crate) fn haproxy_config(&self) -> PathBuf {
        self.root.join("haproxy.cfg")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.root.join("admin.sock")
    }

    pub(crate) fn authorized_keys(&self) -> PathBuf {
        self.root.join("authorized_keys")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.as_str())
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    /// `name` must have passed `Manifest::is_name`.
    pub(crate) fn release(&self, name: &str) -> PathBuf {
        self.root.join("releases").join(name)
    }

    pub(crate) fn slot(&self, slot: Slot) -> PathBuf {
        self.root.join("slots").join(format!("{slot}.json"))
    }

    /// Of the process in the slot; the one before it has `.1` at the end.
    pub(crate) fn log(&self, slot: Slot) -> PathBuf {
        self.root.join("log").join(format!("{slot}.log"))
    }

    /// The map that HAProxy loads at its start: the truth about traffic.
    pub(crate) fn active_map(&self) -> PathBuf {
        self.root.join("traffic/active.map")
    }

    /// Exchanged with [`Self::active_map`] at a switch, so that a switch allocates nothing.
    pub(crate) fn standby_map(&self) -> PathBuf {
        self.root.join("traffic/standby.map")
    }

    pub(crate) fn intent(&self) -> PathBuf {
        self.root.join("intent.json")
    }

    pub(crate) fn lease(&self) -> PathBuf {
        self.root.join("lease.json")
    }

    pub(crate) fn state_lock(&self) -> PathBuf {
        self.root.join("state.lock")
    }

    pub(crate) fn history(&self) -> PathBuf {
        self.root.join("history.jsonl")
    }

    /// Space that is given up on a full disk, so that a rollback can still be written down.
    pub(crate) fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}
