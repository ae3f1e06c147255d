//! A change of a route: what is expected, what is written, and what the database does with it.

use super::route::{Epoch, Route, State, Token};
use crate::digest::Digest;

/// One compare-and-set on one route, for `regionwise.change()`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// How the row must be; `None`: there must be none.
    pub from: Option<Expected>,
    pub to: To,
    /// The user's rows in this cluster must have this digest now, under the lock; it is then stored with the route. That
    /// nobody has written the rows since they had it (a seal) is as good as hashing them again.
    pub digest: Option<Digest>,
    /// The batch must still be claimed with this token. Only at the source, where the batches are: at the target the
    /// token in the route itself does the same.
    pub claim: Option<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    pub state: State,
    pub epoch: Epoch,
    /// `None`: any token, or none.
    pub token: Option<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct To {
    pub state: State,
    pub epoch: Epoch,
    pub token: Token,
}

impl Change {
    /// Expects the route as it was read, with its state, epoch and token.
    pub(super) fn of(seen: Option<&Route>, to: To) -> Self {
        Self {
            from: seen.map(|route| Expected {
                state: route.state,
                epoch: route.epoch,
                token: route.token,
            }),
            to,
            digest: None,
            claim: None,
        }
    }
}

/// What the call has in its hands beside the row when it holds the home lock.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub run: &'a str,
    /// The batch's claim.
    pub claim: Option<Token>,
    /// Digest and number of the user's rows, from a snapshot taken *after* the lock was had.
    pub digest: Option<Digest>,
    pub rows: u64,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The row is now this.
    Changed(Route),
    /// The row was so already: an earlier call succeeded and its answer was lost.
    Done,
    /// The row is not as expected: look at both routes again.
    Stale,
    /// The rows do not have the digest.
    Differs,
    /// Another runner has the batch (MV003).
    ClaimLost,
}

/// What `regionwise.change()` does to one row under the home lock.
pub fn apply(row: Option<&Route>, change: &Change, call: &Call<'_>) -> Outcome {
    if change.claim.is_some() && change.claim != call.claim {
        return Outcome::ClaimLost;
    }
    if row.is_some_and(|row| is_done(row, change)) {
        return Outcome::Done;
    }
    if !is_expected(row, change.from) {
        return Outcome::Stale;
    }
    if change.digest.is_some() && change.digest != call.digest {
        return Outcome::Differs;
    }
    let proven = change.digest.is_some();
    Outcome::Changed(Route {
        state: change.to.state,
        epoch: change.to.epoch,
        token: Some(change.to.token),
        digest: change.digest.or(row.and_then(|row| row.digest)),
        rows: if proven {
            Some(call.rows)
        } else {
            row.and_then(|row| row.rows)
        },
        run: Some(call.run.to_owned()),
    })
}

fn is_done(row: &Route, change: &Change) -> bool {
    row.state == change.to.state
        && row.epoch == change.to.epoch
        && row.token == Some(change.to.token)
        && (change.digest.is_none() || row.digest == change.digest)
}

fn is_expected(row: Option<&Route>, from: Option<Expected>) -> bool {
    match (row, from) {
        (None, None) => true,
        (Some(row), Some(from)) => {
            row.state == from.state
                && row.epoch == from.epoch
                && (from.token.is_none() || row.token == from.token)
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}
