//! Routes as the databases have them, and the one call that changes them.
//!
//! Every change is a compare-and-set under the user's home lock (`regionwise.change`), decided by
//! `relocation::protocol`. One call is one transaction and one round trip: no lock is ever held across the network.

use std::collections::HashMap;
use std::time::Duration;

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::digest::Digest;
use regionwise_relocation::protocol::{self, Call, Change, Epoch, Route, State, Token};

/// The routes of these users; a user without one is not in the map.
pub(crate) async fn routes(
    session: &Direct,
    users: &[String],
) -> Result<HashMap<String, Route>, Error> {
    let sql = "SELECT usr, state, epoch, token, digest, rows, run FROM regionwise.route WHERE usr = ANY($1)";
    let rows = session.query(sql, &[&users]).await?;
    rows.iter()
        .map(|row| {
            let state: &str = row.get(1);
            let digest: Option<Vec<u8>> = row.get(4);
            let route = Route {
                state: state
                    .parse::<State>()
                    .map_err(|_| session.unexpected(format!("a route in state `{state}`")))?,
                epoch: epoch_of(session, row.get(2))?,
                token: row
                    .get::<_, Option<i64>>(3)
                    .map(|token| token_of(session, token))
                    .transpose()?,
                digest: digest.map(|bytes| digest_of(session, &bytes)).transpose()?,
                rows: row
                    .get::<_, Option<i64>>(5)
                    .and_then(|rows| u64::try_from(rows).ok()),
                run: row.get(6),
            };
            Ok((row.get(0), route))
        })
        .collect()
}

fn epoch_of(session: &Direct, epoch: i64) -> Result<Epoch, Error> {
    Epoch::try_from(epoch).map_err(|error| session.unexpected(error.to_string()))
}

pub(crate) fn token_of(session: &Direct, token: i64) -> Result<Token, Error> {
    Token::try_from(token).map_err(|error| session.unexpected(error.to_string()))
}

pub(crate) fn digest_of(session: &Direct, bytes: &[u8]) -> Result<Digest, Error> {
    <[u8; 32]>::try_from(bytes)
        .map(Digest)
        .map_err(|_| session.unexpected(format!("a digest of {} bytes", bytes.len())))
}

/// The route after a change that was carried out.
pub(crate) fn after(change: &Change, before: Option<&Route>, run: &str) -> Option<Route> {
    let call = Call {
        run,
        claim: change.claim,
        digest: change.digest,
        rows: before.and_then(|route| route.rows).unwrap_or(0),
    };
    match protocol::apply(before, change, &call) {
        protocol::Outcome::Changed(route) => Some(route),
        // It is as wanted already; what it was before is not known.
        protocol::Outcome::Done => before.cloned(),
        protocol::Outcome::Stale | protocol::Outcome::Differs | protocol::Outcome::ClaimLost => {
            None
        }
    }
}

/// How a call is made.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) run: &'a str,
    /// Wait for locks as long as the session's lock_timeout, or leave busy users for later.
    pub(crate) wait: bool,
    /// The claim that must still hold; only on the run's source, where claims are.
    pub(crate) claim: Option<(i32, Token)>,
    /// Of users whose rows this lane has proven in this cluster: a seal that still holds spares the server their digest.
    pub(crate) seals: Option<&'a HashMap<String, Seal>>,
}

/// Which versions of its rows a user has in one cluster, and what their digest is. Nobody has written a row of a user
/// whose seal is the same (`regionwise.seals`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) versions: Digest,
    pub(crate) digest: Digest,
}

/// What became of one change.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) rows: u64,
    /// How long the home lock was held.
    pub(crate) held: Duration,
}

impl Answer {
    const BUSY: Self = Self {
        outcome: Outcome::Busy,
        rows: 0,
        held: Duration::ZERO,
    };
    /// Known without asking.
    pub(crate) const DIFFERS: Self = Self {
        outcome: Outcome::Differs,
        ..Self::BUSY
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Changed,
    /// The route was as wanted already: an earlier call whose answer was lost.
    Done,
    /// Somebody holds the home lock.
    Busy,
    /// The route is not what the decision was made on.
    Stale,
    /// The rows are not what they must be; nothing was changed.
    Differs,
}

/// Applies changes, each or none of it per user.
pub(crate) async fn apply(
    session: &Direct,
    terms: Terms<'_>,
    changes: &[(&str, Change)],
) -> Result<HashMap<String, Answer>, Error> {
    if changes.is_empty() {
        return Ok(HashMap::new());
    }
    let users: Vec<&str> = changes.iter().map(|(user, _)| *user).collect();
    let states: Vec<Option<String>> = changes
        .iter()
        .map(|(_, change)| change.from.as_ref().map(|from| from.state.to_string()))
        .collect();
    let epochs: Vec<Option<i64>> = changes
        .iter()
        .map(|(_, change)| change.from.as_ref().map(|from| i64::from(from.epoch)))
        .collect();
    let tokens: Vec<Option<i64>> = changes
        .iter()
        .map(|(_, change)| {
            let token = change.from.as_ref().and_then(|from| from.token);
            token.map(i64::from)
        })
        .collect();
    let to_states: Vec<String> = changes
        .iter()
        .map(|(_, c)| c.to.state.to_string())
        .collect();
    let to_epochs: Vec<i64> = changes.iter().map(|(_, c)| i64::from(c.to.epoch)).collect();
    let to_tokens: Vec<i64> = changes
        .iter()
        .map(|(_, change)| i64::from(change.to.token))
        .collect();
    let digests: Vec<Option<&[u8]>> = changes
        .iter()
        .map(|(_, change)| change.digest.as_ref().map(|digest| digest.0.as_slice()))
        .collect();
    let seals: Vec<Option<&[u8]>> = changes
        .iter()
        .map(|(user, change)| {
            let seal = terms.seals?.get(*user)?;
            (change.digest == Some(seal.digest)).then_some(seal.versions.0.as_slice())
        })
        .collect();
    let batch = terms.claim.map(|(batch, _)| batch);
    let claim = terms.claim.map(|(_, token)| i64::from(token));
    let sql = "SELECT usr, outcome, rows, held_us \
               FROM regionwise.change($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    let answer = session
        .query(
            sql,
            &[
                &terms.run,
                &users,
                &states,
                &epochs,
                &tokens,
                &to_states,
                &to_epochs,
                &to_tokens,
                &digests,
                &seals,
                &terms.wait,
                &batch,
                &claim,
            ],
        )
        .await;
    let rows = match answer {
        // Somebody kept a lock for longer than we wait: nothing was changed.
        Err(error) if error.sqlstate() == Some("55P03") => {
            return Ok(users
                .iter()
                .map(|user| ((*user).to_owned(), Answer::BUSY))
                .collect());
        }
        other => other?,
    };
    rows.iter()
        .map(|row| {
            let outcome = match row.get(1) {
                "changed" => Outcome::Changed,
                "done" => Outcome::Done,
                "busy" => Outcome::Busy,
                "stale" => Outcome::Stale,
                "differs" => Outcome::Differs,
                other => return Err(session.unexpected(format!("the outcome `{other}`"))),
            };
            let micros: Option<i64> = row.get(3);
            let answer = Answer {
                outcome,
                rows: row
                    .get::<_, Option<i64>>(2)
                    .and_then(|rows| u64::try_from(rows).ok())
                    .unwrap_or(0),
                held: micros
                    .and_then(|micros| u64::try_from(micros).ok())
                    .map_or(Duration::ZERO, Duration::from_micros),
            };
            Ok((row.get(0), answer))
        })
        .collect()
}
