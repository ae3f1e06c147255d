//! Requests, replies, and the reasons for which a host says no.

use regionwise_rollout::lease::Holder;
use regionwise_rollout::release::{Digest, Manifest};
use regionwise_rollout::slot::Slot;
use serde::{Deserialize, Serialize};

use crate::view::HostFacts;

/// What the controller asks. The first one of a connection is [`Request::Hello`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    Hello {
        protocol: u32,
        controller: String,
        app: String,
    },
    Status,
    /// Takes or takes over the lock. An unconfirmed switch of another operation is settled first.
    Lock {
        holder: Holder,
        ttl_ms: u64,
    },
    Renew,
    Unlock,
    /// Whether the artefact and the release are already here.
    Has {
        manifest: Manifest,
    },
    /// Followed by `size` raw bytes.
    PutBlob {
        digest: Digest,
        size: u64,
    },
    PutRelease {
        manifest: Manifest,
        env: String,
        config: String,
    },
    /// Starts the release in the idle slot and waits until it is healthy.
    Prepare {
        release: String,
        start_deadline_ms: u64,
        interval_ms: u64,
        successes: u32,
    },
    /// Stops what this operation prepared. What serves is not touched.
    Abandon,
    /// Switches to the slot where `release` is prepared; nothing to do where it serves already. Without a confirm in
    /// `confirm_within_ms` the host goes back alone.
    Commit {
        release: String,
        confirm_within_ms: u64,
    },
    Confirm,
    /// Takes an unconfirmed switch of this operation back.
    Revert,
    /// Waits until the old slot has answered what it had accepted, then keeps it warm.
    Drain {
        deadline_ms: u64,
    },
    /// What a rollback would do here. `operation` is the one to undo; `to` names another release.
    Target {
        operation: Option<String>,
        to: Option<String>,
    },
    /// Marks the release that this operation brought as verified.
    Close {
        operation: String,
    },
}

impl Request {
    /// The verb, for messages.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Status => "status",
            Self::Lock { .. } => "lock",
            Self::Renew => "renew",
            Self::Unlock => "unlock",
            Self::Has { .. } => "has",
            Self::PutBlob { .. } => "put-blob",
            Self::PutRelease { .. } => "put-release",
            Self::Prepare { .. } => "prepare",
            Self::Abandon => "abandon",
            Self::Commit { .. } => "commit",
            Self::Confirm => "confirm",
            Self::Revert => "revert",
            Self::Drain { .. } => "drain",
            Self::Target { .. } => "target",
            Self::Close { .. } => "close",
        }
    }
}

/// What the host answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// More is coming; `text` is for people.
    Progress {
        text: String,
    },
    Hello {
        protocol: u32,
        helper: String,
    },
    Status(Box<HostFacts>),
    Locked {
        fence: u64,
        settled: Option<String>,
    },
    Has {
        artifact: bool,
        release: bool,
    },
    Prepared(Prepared),
    Switched(Switched),
    Drained {
        left: u64,
    },
    Target {
        release: Option<String>,
        serving: Option<String>,
    },
    Done,
    Denied(Denial),
    /// The connection was closed by the controller and nothing is under way.
    Bye,
}

/// The result of `prepare`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prepared {
    pub slot: Slot,
    /// It serves already; a commit has nothing to do.
    pub already_serving: bool,
    /// It was running and healthy, nothing had to be started.
    pub warm: bool,
    pub took_ms: u64,
}

/// The result of `commit` and `revert`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Switched {
    /// What serves now, seen by a request through the proxy; `None` when nothing serves.
    pub release: Option<String>,
    pub already: bool,
    /// From the write-ahead record to the proven request.
    pub took_us: u64,
}

/// A clear no. Nothing is under way afterwards.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Denial {
    pub kind: DenialKind,
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DenialKind {
    /// The request does not fit this host: version, app, name, hash.
    Invalid,
    /// A safety rule.
    Refused,
    /// Somebody else has the lock.
    Locked,
    /// The release is bad: it did not become healthy.
    Unhealthy,
    /// Disk, proxy, process: the host, not the release.
    Host,
    /// State that cannot be read. Never taken for an empty host.
    Corrupt,
}

impl Denial {
    pub fn new(kind: DenialKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            hint: None,
        }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
