//! `verify`: proves again that everything moved so far is complete and equal. Reads, and changes nothing.
//!
//! Users come in pages, each page under one snapshot per cluster. What looks wrong is looked at again in new snapshots:
//! a run that goes on meanwhile must not look like a loss.

mod prove;
mod selection;

use std::collections::HashMap;

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::closure::Closure;
use regionwise_relocation::protocol::{Route, State};

use crate::change::routes;
use crate::ends::{Ends, Purpose};
use crate::journal;
use crate::layout::Layout;
use crate::mismatch::Sides;

pub use prove::{Found, Wrong};
pub(crate) use prove::{Moved, prove};
pub use selection::{Selection, Strangers};

/// Users in one snapshot.
const PAGE: i64 = 500;

/// Looks at a user who seems wrong, the first included.
const LOOKS: usize = 3;

/// What is to be proven.
pub struct Check {
    pub ends: Ends,
    pub closure: Closure,
    /// Of the closure, as `install` wrote it into both clusters.
    pub shape: String,
    /// Only what failed before; everybody who moved, and everything, when `None`.
    pub only: Option<Only>,
}

/// What an earlier report found wrong.
#[derive(Clone, Debug, Default)]
pub struct Only {
    pub users: Vec<String>,
    /// Whether tables had other numbers of rows upwards than downwards: they are counted again.
    pub selections: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Users who were looked at: whom the source has given away, with the purged ones; or who were asked for.
    pub users: u64,
    pub purged: u64,
    /// At home in one cluster, and not given away by the source (any more): nothing is there to prove.
    pub not_moved: u64,
    /// Users all of whose rows are equal, and how many rows that are.
    pub equal: u64,
    pub rows: u64,
    /// Users who wrote since, with the number of rows that cannot be compared.
    pub touched: Vec<(String, usize)>,
    pub wrong: Vec<(String, Wrong)>,
    /// Users whom both clusters own.
    pub two_homes: Vec<String>,
    pub selections: Vec<Selection>,
    pub strangers: Vec<Strangers>,
    /// Why a cluster has not the tables and fences that this closure needs.
    pub other_shape: Option<String>,
}

impl Verified {
    /// Everybody who left has arrived, and every table is there.
    pub fn is_complete(&self) -> bool {
        self.other_shape.is_none()
            && self.two_homes.is_empty()
            && !self.wrong.iter().any(|(_, wrong)| wrong.is_incomplete())
            && self.selections.iter().all(Selection::agrees)
    }

    /// Every row that can be compared is equal.
    pub fn is_equal(&self) -> bool {
        self.other_shape.is_none() && self.wrong.iter().all(|(_, wrong)| wrong.is_incomplete())
    }
}

/// Looks at everybody. `done` hears how many are done.
///
/// # Errors
/// A cluster cannot be reached, or says something unexpected: nothing is proven then.
pub async fn verify(check: &Check, done: impl Fn(u64)) -> Result<Verified, Error> {
    let name = "regionwise verify";
    let (source, target) = tokio::try_join!(
        check.ends.source.open(Purpose::Verify, name),
        check.ends.target.open(Purpose::Verify, name),
    )?;
    let mut verified = Verified::default();
    for session in [&source, &target] {
        verified.other_shape = journal::not_installed(session, &check.shape).await?;
        if verified.other_shape.is_some() {
            return Ok(verified);
        }
    }
    let layouts = Layout::all(&check.closure);
    let sides = Sides {
        closure: &check.closure,
        layouts: &layouts,
        source: &source,
        target: &target,
    };
    if let Some(only) = &check.only {
        for users in only.users.chunks(usize::try_from(PAGE).unwrap_or(1)) {
            take(&sides, users.to_vec(), &mut verified).await?;
            done(verified.users);
        }
        if only.selections {
            verified.selections = selection::selections(&source, &check.closure, &layouts).await?;
        }
        return Ok(verified);
    }
    let mut last = String::new();
    loop {
        let users = page(&source, GONE, &last).await?;
        let Some(end) = users.last().cloned() else {
            break;
        };
        last = end;
        take(&sides, users, &mut verified).await?;
        done(verified.users);
    }
    two_homes(&source, &target, &mut verified).await?;
    verified.two_homes.sort();
    verified.two_homes.dedup();
    verified.selections = selection::selections(&source, &check.closure, &layouts).await?;
    for (end, session) in [(&check.ends.source, &source), (&check.ends.target, &target)] {
        let found = selection::strangers(session, &end.cluster, &check.closure, &layouts).await?;
        verified.strangers.extend(found);
    }
    Ok(verified)
}

/// Users whom this cluster has given away.
const GONE: &str = "state IN ('moved', 'purged')";
/// Users at home in this cluster, whether they came by a run, were adopted or signed up.
const OWNED: &str = "state IN ('home', 'active')";

async fn page(session: &Direct, which: &str, last: &str) -> Result<Vec<String>, Error> {
    let sql = format!(
        "SELECT usr FROM regionwise.route WHERE {which} AND usr > $1 ORDER BY usr LIMIT {PAGE}"
    );
    let rows = session.query(&sql, &[&last]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Looks at these users, again at those who seem wrong, and adds up.
async fn take(sides: &Sides<'_>, users: Vec<String>, verified: &mut Verified) -> Result<(), Error> {
    let mut users = users;
    let mut found = HashMap::new();
    for look in 1..=LOOKS {
        let now = look_at(sides, &users).await?;
        let wrong = |found: &Found| matches!(found, Found::Wrong(_) | Found::TwoHomes);
        let (again, known): (Vec<_>, Vec<_>) = now
            .into_iter()
            .partition(|(_, found)| look < LOOKS && wrong(found));
        found.extend(known);
        users = again.into_iter().map(|(user, _)| user).collect();
        if users.is_empty() {
            break;
        }
    }
    for (user, found) in found {
        verified.users += 1;
        match found {
            Found::Equal { rows } => {
                verified.equal += 1;
                verified.rows += rows;
            }
            Found::Touched { rows } => verified.touched.push((user, rows)),
            Found::Purged => verified.purged += 1,
            Found::NotMoved => verified.not_moved += 1,
            Found::TwoHomes => verified.two_homes.push(user),
            Found::Wrong(wrong) => verified.wrong.push((user, wrong)),
        }
    }
    verified.touched.sort();
    verified.wrong.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(())
}

/// Under one snapshot in each cluster. Everybody who is asked for is in the answer.
async fn look_at(sides: &Sides<'_>, users: &[String]) -> Result<HashMap<String, Found>, Error> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let (source, target) = (sides.source, sides.target);
    tokio::try_join!(source.batch(BEGIN), target.batch(BEGIN))?;
    let found = async {
        let (here, there) = tokio::join!(routes(source, users), routes(target, users));
        let (mut here, mut there) = (here?, there?);
        let mut moved = Vec::new();
        let mut found = HashMap::new();
        for user in users {
            let (source, target) = (here.remove(user), there.remove(user));
            match source {
                Some(source) if matches!(source.state, State::Moved | State::Purged) => {
                    let user = user.clone();
                    moved.push(Moved {
                        user,
                        source,
                        target,
                    });
                }
                source => drop(found.insert(user.clone(), not_given_away(source, target))),
            }
        }
        found.extend(prove(sides, &moved).await?);
        Ok(found)
    };
    let found = found.await;
    tokio::try_join!(source.batch("ROLLBACK"), target.batch("ROLLBACK"))?;
    found
}

/// Of a user whom the source has not given away, only the home can be looked at.
fn not_given_away(source: Option<Route>, target: Option<Route>) -> Found {
    let owns = |route: &Option<Route>| route.as_ref().is_some_and(|route| route.state.owns());
    match (owns(&source), owns(&target)) {
        (true, true) => Found::TwoHomes,
        (true, false) | (false, true) => Found::NotMoved,
        (false, false) => {
            let state = target.map(|route| route.state.to_string());
            Found::Wrong(Wrong::NotAtHome(state))
        }
    }
}

/// Users whom both clusters own.
async fn two_homes(source: &Direct, target: &Direct, verified: &mut Verified) -> Result<(), Error> {
    let mut last = String::new();
    loop {
        let users = page(target, OWNED, &last).await?;
        let Some(end) = users.last().cloned() else {
            return Ok(());
        };
        last = end;
        let owned = |routes: HashMap<String, Route>| {
            let mut users: Vec<String> = routes
                .into_iter()
                .filter(|(_, route)| route.state.owns())
                .map(|(user, _)| user)
                .collect();
            users.sort();
            users
        };
        // On the way back the source owns a user a moment after the target has let it go, so the source is asked first.
        let doubtful = owned(routes(source, &users).await?);
        if !doubtful.is_empty() {
            let still = owned(routes(target, &doubtful).await?);
            verified.two_homes.extend(still);
        }
    }
}
