//! A user's route in one cluster, as stored in `regionwise.route`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// What a cluster is to a user. A cluster without a row for the user has no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Owns the user, since sign-up: only where sign-ups create routes, and never again after the first move.
    Home,
    /// Receives the rows; nobody but the mover with the route's token may write.
    Staging,
    /// Owns the user after a move, or after one that was taken back.
    Active,
    /// Owned the user until the route's epoch; the rows are frozen.
    Moved,
    /// As `Moved`, and the rows are gone.
    Purged,
    /// Received rows for a move that was given up.
    Cancelled,
}

impl State {
    /// Whether the cluster is where the user's rows count and may be written.
    pub const fn owns(self) -> bool {
        match self {
            Self::Home | Self::Active => true,
            Self::Staging | Self::Moved | Self::Purged | Self::Cancelled => false,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Staging => "staging",
            Self::Active => "active",
            Self::Moved => "moved",
            Self::Purged => "purged",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The word in the column `state`.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word in the column `state` that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no state of a route is called `{0}`")]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<Self, UnknownState> {
        [
            Self::Home,
            Self::Staging,
            Self::Active,
            Self::Moved,
            Self::Purged,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|state| state.word() == word)
        .ok_or_else(|| UnknownState(word.to_owned()))
    }
}

/// A negative number where Postgres keeps an epoch or a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no epoch and no token: both count from 0")]
pub struct OutOfRange(pub i64);

/// How often ownership of a user changed. Grows with every change and decides which of two clusters is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Before any move.
    pub const FIRST: Self = Self(0);

    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a runner holds while it works on a batch; of two runners the one with the higher token is right.
///
/// The high bits are the *generation*: the timelines of both clusters added up, so that every promotion of either one
/// makes a new generation. A standby may have lost claims whose counters nobody knows any more; they are all of an
/// older generation. (The higher of the two timelines would not do: a promotion of the other cluster leaves it as it is.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// A generation has room for 2^40 claims, and a bigint for 2^23 generations.
const COUNTER_BITS: u32 = 40;

impl Token {
    /// A token above all that were seen: both routes of each user of the batch, and the batch's claim.
    ///
    /// `timelines` are those of the two clusters now.
    pub fn after(seen: impl IntoIterator<Item = Self>, timelines: [u32; 2]) -> Self {
        let highest = seen.into_iter().max().map_or(0, |token| token.0);
        Self(highest.max(generation(timelines) << COUNTER_BITS) + 1)
    }

    /// Whether the token was given out before the promotion that made `timelines`.
    pub fn is_older_than(self, timelines: [u32; 2]) -> bool {
        self.0 >> COUNTER_BITS < generation(timelines)
    }
}

fn generation(timelines: [u32; 2]) -> u64 {
    timelines.into_iter().map(u64::from).sum()
}

macro_rules! bigint {
    ($name:ident) => {
        impl TryFrom<i64> for $name {
            type Error = OutOfRange;

            fn try_from(column: i64) -> Result<Self, OutOfRange> {
                u64::try_from(column)
                    .map(Self)
                    .map_err(|_| OutOfRange(column))
            }
        }

        impl From<$name> for i64 {
            fn from(value: $name) -> Self {
                // Each counts up by one from a bigint; saturating keeps the comparison in the database honest.
                Self::try_from(value.0).unwrap_or(Self::MAX)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

bigint!(Epoch);
bigint!(Token);

/// A row of `regionwise.route`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    pub state: State,
    pub epoch: Epoch,
    /// Of the runner that changed the route last.
    pub token: Option<Token>,
    /// Of the user's rows when the route last changed under a digest check.
    pub digest: Option<Digest>,
    pub rows: Option<u64>,
    /// The run that changed the route last.
    pub run: Option<String>,
}

impl Route {
    /// A user that signed up here and has never moved.
    pub const fn home() -> Self {
        Self {
            state: State::Home,
            epoch: Epoch::FIRST,
            token: None,
            digest: None,
            rows: None,
            run: None,
        }
    }
}
