//! The steps of a move, each computed from both routes as they were read. No step trusts what it read: the change names
//! it, and is refused by the database when it is no longer so.

use super::change::{Change, To};
use super::objection::Objection;
use super::route::{Epoch, Route, State, Token};
use crate::digest::Digest;

/// P1: the target says `staging` before it gets a row. With a higher token, a take-over: from then on the runner before
/// is refused, and because the change takes the home lock exclusive none of its transactions is open any more.
///
/// # Errors
/// The source owns nothing, the target owns the user, a cancel is not finished, or the token is not above the target's.
pub fn stage(
    source: Option<&Route>,
    target: Option<&Route>,
    token: Token,
) -> Result<Change, Objection> {
    let source = source.ok_or(Objection::NoSourceRoute)?;
    let reached = target.map_or(Epoch::FIRST, |target| target.epoch);
    if let Some(target) = target {
        stageable(source, target)?;
        above(target.token, token)?;
    }
    if !source.state.owns() && source.state != State::Moved {
        return Err(Objection::SourceNotOwner(source.state));
    }
    if source.state == State::Moved && source.epoch <= reached {
        return Err(Objection::EpochNotAbove {
            released: source.epoch,
            reached,
        });
    }
    let to = To {
        state: State::Staging,
        epoch: reached,
        token,
    };
    Ok(Change::of(target, to))
}

fn stageable(source: &Route, target: &Route) -> Result<(), Objection> {
    match target.state {
        State::Home | State::Active if source.state.owns() => Err(Objection::TwoOwners {
            source_epoch: source.epoch,
            target_epoch: target.epoch,
        }),
        State::Home | State::Active => Err(Objection::AlreadyThere),
        // Staging again here would race with whoever opens the source again.
        State::Cancelled if source.state == State::Moved && source.epoch == target.epoch => {
            Err(Objection::CancelUnfinished(source.epoch))
        }
        State::Moved | State::Purged if source.state.owns() && source.epoch < target.epoch => {
            Err(Objection::SourceBehind {
                source_epoch: source.epoch,
                target_epoch: target.epoch,
            })
        }
        State::Staging | State::Moved | State::Purged | State::Cancelled => Ok(()),
    }
}

fn above(held: Option<Token>, offered: Token) -> Result<(), Objection> {
    match held {
        Some(held) if held >= offered => Err(Objection::Superseded { held, offered }),
        Some(_) | None => Ok(()),
    }
}

fn not_below(held: Option<Token>, offered: Token) -> Result<(), Objection> {
    match held {
        Some(held) if held > offered => Err(Objection::Superseded { held, offered }),
        Some(_) | None => Ok(()),
    }
}

/// P6, the commit point: the source gives the user away, if its rows still have the digest that the target has.
///
/// The new epoch is above both: a source that was promoted without its last changes may be behind a cancelled target.
///
/// # Errors
/// The source is not the owner, or the target is not staged with this token.
pub fn release(
    source: &Route,
    target: &Route,
    token: Token,
    digest: Digest,
) -> Result<Change, Objection> {
    if !source.state.owns() {
        return Err(Objection::SourceNotOwner(source.state));
    }
    staged_with(target, token)?;
    let to = To {
        state: State::Moved,
        epoch: source.epoch.max(target.epoch).next(),
        token,
    };
    Ok(Change {
        digest: Some(digest),
        claim: Some(token),
        ..Change::of(Some(source), to)
    })
}

fn staged_with(target: &Route, token: Token) -> Result<(), Objection> {
    if target.state != State::Staging {
        return Err(Objection::NotStaging(target.state));
    }
    if target.token != Some(token) {
        return Err(Objection::NotOurs {
            held: target.token,
            own: token,
        });
    }
    Ok(())
}

/// P7: the target owns the user, if its rows have the digest that the source released.
///
/// # Errors
/// The source did not release, with a digest and an epoch above the target's, or the target is not staged with this token.
pub fn activate(source: &Route, target: &Route, token: Token) -> Result<Change, Objection> {
    if source.state != State::Moved {
        return Err(Objection::NotReleased(source.state));
    }
    staged_with(target, token)?;
    if source.epoch <= target.epoch {
        return Err(Objection::EpochNotAbove {
            released: source.epoch,
            reached: target.epoch,
        });
    }
    let digest = source.digest.ok_or(Objection::NotProven)?;
    let to = To {
        state: State::Active,
        epoch: source.epoch,
        token,
    };
    Ok(Change {
        digest: Some(digest),
        ..Change::of(Some(target), to)
    })
}

/// Gives a move up, at the target: before the commit point, or after it when P7 found rows that cannot be mended. Then
/// it carries the epoch of the release, so that nobody activates it, and [`reopen`] is next.
///
/// # Errors
/// The target is not staged with this token (or, staged by nobody, not cancelled with an older epoch).
pub fn cancel(source: &Route, target: &Route, token: Token) -> Result<Change, Objection> {
    let released = match source.state {
        State::Home | State::Active => None,
        State::Moved if source.epoch > target.epoch => Some(source.epoch),
        State::Moved => {
            return Err(Objection::EpochNotAbove {
                released: source.epoch,
                reached: target.epoch,
            });
        }
        State::Staging | State::Purged | State::Cancelled => {
            return Err(Objection::SourceNotOwner(source.state));
        }
    };
    if target.state == State::Cancelled && released.is_some() {
        // The release was on its way when the move was given up before it.
        not_below(target.token, token)?;
    } else {
        staged_with(target, token)?;
    }
    let to = To {
        state: State::Cancelled,
        epoch: released.unwrap_or(target.epoch),
        token,
    };
    Ok(Change::of(Some(target), to))
}

/// After [`cancel`] behind the commit point: the source owns the user again.
///
/// # Errors
/// The target is not cancelled with the epoch of the source's release (the other order would make two owners), or was
/// cancelled with a higher token: by a later run, whose batch this runner's claim does not cover.
pub fn reopen(source: &Route, target: &Route, token: Token) -> Result<Change, Objection> {
    if source.state != State::Moved {
        return Err(Objection::NotReleased(source.state));
    }
    if target.state != State::Cancelled || target.epoch != source.epoch {
        return Err(Objection::NotCancelled {
            state: target.state,
            reached: target.epoch,
            released: source.epoch,
        });
    }
    not_below(target.token, token)?;
    let to = To {
        state: State::Active,
        epoch: source.epoch.next(),
        token,
    };
    Ok(Change {
        claim: Some(token),
        ..Change::of(Some(source), to)
    })
}

/// P11: whether rows may be deleted at the source, and with which token [`super::enters`] is asked: the release's, in the
/// name of the route's run.
///
/// Before the first delete the rows must also still have the route's digest. The transaction of that delete journals that
/// the purge has begun: whoever goes on with a purge cut short finds rows that no longer have it.
///
/// # Errors
/// The source did not release the user in the very move that made the target active, or the rows were not proven equal.
pub fn may_purge(source: &Route, target: &Route) -> Result<Token, Objection> {
    match source.state {
        State::Moved => {}
        State::Purged => return Err(Objection::AlreadyPurged),
        State::Home | State::Staging | State::Active | State::Cancelled => {
            return Err(Objection::NotReleased(source.state));
        }
    }
    if target.state != State::Active {
        return Err(Objection::NotActive(target.state));
    }
    if source.epoch != target.epoch {
        return Err(Objection::OtherMove {
            released: source.epoch,
            reached: target.epoch,
        });
    }
    match source.token {
        Some(token) if source.digest.is_some() && source.digest == target.digest => Ok(token),
        Some(_) | None => Err(Objection::NotProven),
    }
}

/// P11, when the last row is deleted.
///
/// # Errors
/// As [`may_purge`].
pub fn purge(source: &Route, target: &Route) -> Result<Change, Objection> {
    let token = may_purge(source, target)?;
    let to = To {
        state: State::Purged,
        epoch: source.epoch,
        token,
    };
    Ok(Change::of(Some(source), to))
}
