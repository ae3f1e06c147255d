//! Why a step is not taken.

use super::route::{Epoch, State, Token};

/// The one thing that speaks against a step. Nothing was changed; whoever gets it looks at both routes again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// The run has not created the routes that were missing, or the user is not the source's.
    #[error("the source has no route for the user")]
    NoSourceRoute,
    /// Nothing was staged at the target.
    #[error("the target has no route for the user")]
    NoTargetRoute,
    /// The source is neither the owner nor, as released, the one to roll forward from.
    #[error("the source is `{0}`: there is nothing to move from it")]
    SourceNotOwner(State),
    #[error("the source is `{0}`, not `moved`: ownership was not released")]
    NotReleased(State),
    #[error("the target is `{0}`, not `staging`")]
    NotStaging(State),
    #[error("the target is `{0}`, not `active`: the user has no other home yet")]
    NotActive(State),
    /// Both clusters own the user: this must never be seen, and nothing repairs it by itself.
    #[error("both clusters own the user, at epoch {source_epoch} and {target_epoch}")]
    TwoOwners {
        source_epoch: Epoch,
        target_epoch: Epoch,
    },
    /// The user lives at the target already.
    #[error("the target already owns the user")]
    AlreadyThere,
    /// Another runner works on the user: this one has lost its claim and must stop.
    #[error("the route has token {held}, and {offered} is not above it")]
    Superseded { held: Token, offered: Token },
    /// The route was staged by somebody else.
    #[error("the target was staged with token {held:?}, not with {own}")]
    NotOurs { held: Option<Token>, own: Token },
    /// A move was given up half way: the source has to be opened again first.
    #[error("the move to epoch {0} was cancelled at the target, and the source is not open again")]
    CancelUnfinished(Epoch),
    /// An activation or a cancel that would take the target back in time.
    #[error("the source was released with epoch {released}, and the target is at {reached}")]
    EpochNotAbove { released: Epoch, reached: Epoch },
    /// One of the two routes has been restored to an older time.
    #[error(
        "the source owns the user at epoch {source_epoch}, and the target gave it away at {target_epoch}"
    )]
    SourceBehind {
        source_epoch: Epoch,
        target_epoch: Epoch,
    },
    /// Of a cancel: the target must say so first, with the epoch of the release.
    #[error("the target is `{state}` at epoch {reached}, not `cancelled` at {released}")]
    NotCancelled {
        state: State,
        reached: Epoch,
        released: Epoch,
    },
    #[error(
        "the source gave the user away at epoch {released}, and the target is active since {reached}"
    )]
    OtherMove { released: Epoch, reached: Epoch },
    /// Released without a digest, by a reconcile: the rows here are not proven to be the ones that moved.
    #[error("the source's rows were never proven equal to the target's")]
    NotProven,
    #[error("the rows were purged already")]
    AlreadyPurged,
}
