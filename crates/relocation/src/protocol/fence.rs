//! What the triggers on the tables of a closure let through, for the application and for the mover.

use super::route::{Epoch, Route, State, Token};

/// The fence's answer to a writer of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admit,
    /// Write the route `home` in the same transaction, then admit: this insert is a sign-up.
    SignUp,
    /// MV001; the epoch goes into the error so that the application can tell an old route from a new one.
    Refuse(Option<Epoch>),
}

/// Whether a cluster takes a write to a user's rows. Read under the home lock, in a statement begun after it was had.
///
/// `declared` is what the session says it knows of the user; `signup`: sign-ups create routes in this cluster;
/// `root_insert`: the write is the insert of the user itself.
pub fn admits(
    route: Option<&Route>,
    declared: Option<Epoch>,
    signup: bool,
    root_insert: bool,
) -> Admission {
    match route {
        Some(route) if !route.state.owns() => Admission::Refuse(Some(route.epoch)),
        Some(route) if declared.is_some_and(|declared| declared != route.epoch) => {
            Admission::Refuse(Some(route.epoch))
        }
        Some(_) => Admission::Admit,
        None if signup && root_insert => Admission::SignUp,
        // Also where sign-ups create routes: `install` and each run give one to everybody who is there without.
        None => Admission::Refuse(None),
    }
}

/// Whether a mover may write rows of the user here: at a target while it is staged, at a source while it is purged.
///
/// Under the home lock, shared, until the end of the transaction: whoever changes the route waits for the rows.
pub fn enters(route: Option<&Route>, run: &str, token: Token, during: State) -> bool {
    route.is_some_and(|route| {
        route.state == during && route.token == Some(token) && route.run.as_deref() == Some(run)
    })
}
