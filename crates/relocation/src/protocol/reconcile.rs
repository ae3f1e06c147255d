//! After a promotion: the new primary may have lost the last changes of its routes, a release above all (C14).
//!
//! Until every user is [`Reconcile::Open`] the application stays out of the promoted cluster. Comparing epochs is not
//! enough: between release and activation the other cluster still shows the old epoch, and a mover that has read the lost
//! release would activate it later. So its token is outdated first.

use super::change::{Change, To};
use super::objection::Objection;
use super::route::{Route, State, Token};

/// What has to be done for a user before writes open; after a change, read both routes again.
///
/// Each change is made in the name of the run that the other route names: a route raised in another name would send that
/// run's movers away, and nobody would finish the move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reconcile {
    /// At the other cluster.
    Raise { run: Option<String>, change: Change },
    /// At the promoted cluster: the user lives at the other one.
    Fence { run: Option<String>, change: Change },
    /// At the promoted cluster: whether its rows are those that moved. `Differs` is no failure and ends the matter: the
    /// rows stay, because [`super::may_purge`] does not accept them.
    Prove { run: Option<String>, change: Change },
    /// Nothing more to do.
    Open,
}

/// Compares a promoted cluster with the other one. `timelines` are those of both now, after the promotion.
///
/// # Errors
/// Both own the user and the promoted cluster is not behind: it was not this promotion that lost something.
pub fn reconcile(
    promoted: Option<&Route>,
    other: Option<&Route>,
    timelines: [u32; 2],
) -> Result<Reconcile, Objection> {
    let (Some(promoted), Some(other)) = (promoted, other) else {
        return Ok(Reconcile::Open);
    };
    let seen = [promoted.token, other.token];
    let token = Token::after(seen.into_iter().flatten(), timelines);
    if other.state == State::Staging && other.token.is_none_or(|held| held.is_older_than(timelines))
    {
        let to = To {
            state: State::Staging,
            epoch: other.epoch,
            token,
        };
        let (run, change) = (other.run.clone(), Change::of(Some(other), to));
        return Ok(Reconcile::Raise { run, change });
    }
    if !other.state.owns() {
        return Ok(Reconcile::Open);
    }
    if promoted.state.owns() {
        if promoted.epoch >= other.epoch {
            return Err(Objection::TwoOwners {
                source_epoch: promoted.epoch,
                target_epoch: other.epoch,
            });
        }
        let to = To {
            state: State::Moved,
            epoch: other.epoch,
            token,
        };
        let (run, change) = (other.run.clone(), Change::of(Some(promoted), to));
        return Ok(Reconcile::Fence { run, change });
    }
    Ok(prove(promoted, other, token))
}

fn prove(promoted: &Route, other: &Route, token: Token) -> Reconcile {
    let same_move = promoted.state == State::Moved && promoted.epoch == other.epoch;
    if !same_move || other.digest.is_none() || promoted.digest == other.digest {
        return Reconcile::Open;
    }
    let to = To {
        state: State::Moved,
        epoch: promoted.epoch,
        token,
    };
    Reconcile::Prove {
        run: other.run.clone(),
        change: Change {
            digest: other.digest,
            ..Change::of(Some(promoted), to)
        },
    }
}
