//! What a runner does with a user whose two routes it has just read. It keeps no other memory: whatever happened to the
//! runner before it, the routes say where to go on.
//!
//! One thing the routes cannot say is what is still on its way. So a token lives only as long as the connections it is
//! used on: a runner that lost one, with a call unanswered or rows uncommitted, claims its batch again and goes on with
//! the new token. A late release then finds the claim gone, and staging with the new token waits for late rows. With the
//! old token, rows have come after the target was compared, and a release after its user was put down as staying home.

use super::change::Change;
use super::objection::Objection;
use super::route::{Route, State, Token};
use super::step;

/// The next step for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// At the target: announce the rows, or take the user over.
    Stage(Change),
    /// Staged by this runner, owned by the source: copy, compare, and [`step::release`] once the digests are equal.
    Copy,
    /// At the target. If the rows differ: mend them from the source's frozen rows and come again, or [`step::cancel`].
    Activate(Change),
    /// At the target: the move was given up before a release that came through all the same.
    Cancel(Change),
    /// At the source: finish a cancel.
    Reopen(Change),
    /// Nothing is left to do for this run.
    Settled(Settled),
    /// Another run is moving the user, or was and is not finished.
    Elsewhere(String),
    Refuse(Objection),
}

/// Where a run left the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// At the source: this run gave it up, and only another run tries again.
    Home,
    /// At the target.
    Moved,
}

/// Reads the two routes for a runner of `run` that holds `token`.
pub fn next(source: Option<&Route>, target: Option<&Route>, run: &str, token: Token) -> Next {
    let Some(source) = source else {
        return match target {
            Some(target) if target.state.owns() => Next::Settled(Settled::Moved),
            Some(_) | None => Next::Refuse(Objection::NoSourceRoute),
        };
    };
    let Some(target) = target else {
        return step::stage(Some(source), None, token).map_or_else(Next::Refuse, Next::Stage);
    };
    match (source.state, target.state) {
        (State::Home | State::Active, State::Home | State::Active) => {
            Next::Refuse(Objection::TwoOwners {
                source_epoch: source.epoch,
                target_epoch: target.epoch,
            })
        }
        (_, State::Home | State::Active) => Next::Settled(Settled::Moved),
        // A run the other way: the source of this one is being filled.
        (State::Staging, _) => elsewhere(source, run),
        (_, State::Staging) => staged(source, target, run, token),
        (State::Home | State::Active, State::Cancelled) if is_by(target, run) => {
            Next::Settled(Settled::Home)
        }
        (State::Moved, State::Cancelled) => cancelled(source, target, run, token),
        (
            State::Home | State::Active | State::Moved | State::Purged | State::Cancelled,
            State::Moved | State::Purged | State::Cancelled,
        ) => step::stage(Some(source), Some(target), token).map_or_else(Next::Refuse, Next::Stage),
    }
}

fn staged(source: &Route, target: &Route, run: &str, token: Token) -> Next {
    if !is_by(target, run) {
        return elsewhere(target, run);
    }
    if target.token != Some(token) {
        return step::stage(Some(source), Some(target), token)
            .map_or_else(Next::Refuse, Next::Stage);
    }
    if source.state.owns() {
        return Next::Copy;
    }
    step::activate(source, target, token).map_or_else(Next::Refuse, Next::Activate)
}

fn cancelled(source: &Route, target: &Route, run: &str, token: Token) -> Next {
    if source.epoch == target.epoch {
        return step::reopen(source, target, token).map_or_else(Next::Refuse, Next::Reopen);
    }
    if is_by(target, run) {
        return step::cancel(source, target, token).map_or_else(Next::Refuse, Next::Cancel);
    }
    // Cancelled in an earlier move: the target lost what this one staged, and the source has released.
    step::stage(Some(source), Some(target), token).map_or_else(Next::Refuse, Next::Stage)
}

fn elsewhere(route: &Route, run: &str) -> Next {
    match &route.run {
        Some(other) if other != run => Next::Elsewhere(other.clone()),
        Some(_) | None => Next::Refuse(Objection::SourceNotOwner(route.state)),
    }
}

fn is_by(route: &Route, run: &str) -> bool {
    route.run.as_deref() == Some(run)
}
