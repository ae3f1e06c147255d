//! Why a run went no further.

use regionwise_hetzner::{Error, Kind};
use regionwise_provision::Reaction;

/// Why, as a word for programs, and in a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Stopped {
    pub why: Why,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The token is none, or may not write.
    Token,
    /// A limit of the account or project.
    Limit,
    /// No type of the list is left at any location.
    SoldOut,
    /// The next order would cost more than the budget has left.
    Budget,
    /// Somebody else's resource has the name.
    Foreign,
    /// Protected against deletion.
    Protected,
    /// Locked, in conflict, or limited for longer than patience lasts.
    Busy,
    /// The API cannot be reached.
    Unreachable,
    /// An order was sent, and nobody can say whether it was carried out.
    Lost,
    /// The provider began and did not succeed, or did not end.
    Action,
    /// The provider does not take the order as it is.
    Order,
    /// Somebody asked the run to stop.
    Signal,
}

impl Why {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Limit => "limit",
            Self::SoldOut => "sold-out",
            Self::Budget => "over-budget",
            Self::Foreign => "foreign",
            Self::Protected => "protected",
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Action => "action-failed",
            Self::Order => "order-refused",
            Self::Signal => "signal",
        }
    }
}

impl Stopped {
    pub fn new(why: Why, text: impl Into<String>) -> Self {
        Self {
            why,
            text: text.into(),
        }
    }

    /// What the API said, about `what`.
    pub fn by(what: &str, error: &Error) -> Self {
        let why = match error.kind {
            Kind::Answered(reaction) => match reaction {
                Reaction::Token => Why::Token,
                Reaction::Limit => Why::Limit,
                Reaction::SoldOut => Why::SoldOut,
                Reaction::Taken => Why::Foreign,
                Reaction::Protected => Why::Protected,
                Reaction::Busy | Reaction::Slow => Why::Busy,
                Reaction::Unsure => Why::Lost,
                Reaction::Absent | Reaction::Already | Reaction::Wrong => Why::Order,
            },
            Kind::Unreachable => Why::Unreachable,
            Kind::Lost | Kind::Unreadable => Why::Lost,
            Kind::Action => Why::Action,
            Kind::Stopped => Why::Signal,
        };
        Self::new(why, format!("{what}: {error}"))
    }
}
