//! Why the API did not do or say what it was asked. No text holds the token: it travels in a header only.

use regionwise_provision::Reaction;

/// What a caller decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The API answered with an error.
    Answered(Reaction),
    /// Nothing was sent, or what only reads had no answer: nothing was changed.
    Unreachable,
    /// A write was sent, and nobody knows whether it was done.
    Lost,
    /// An answer that is not what Hetzner documents.
    Unreadable,
    /// An action ended with an error, or did not end in time.
    Action,
    /// The caller asked to stop.
    Stopped,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    pub kind: Kind,
    text: String,
}

impl Error {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// Whether what was written may be there all the same.
    pub const fn may_be_done(&self) -> bool {
        matches!(
            self.kind,
            Kind::Lost | Kind::Unreadable | Kind::Answered(Reaction::Unsure)
        )
    }

    pub fn is(&self, reaction: Reaction) -> bool {
        self.kind == Kind::Answered(reaction)
    }
}
