//! Whether users who moved are where they must be, and their rows what moved: the proof of `verify`, and of each purge.
//!
//! The frozen rows at the source must have the digest of the commit point, and so must the rows at the target, but for
//! those that the user has written since: the fence notes them, and they are left out row by row.

use std::collections::{HashMap, HashSet};
use std::fmt;

use regionwise_postgres::Error;
use regionwise_relocation::protocol::{Epoch, Route, State};
use serde::Serialize;

use crate::mismatch::{Mismatch, Name, Sides, compare};
use crate::rows::differing;
use crate::ship::{Proven, digests};

/// A user whom the source has given away, with both routes.
#[derive(Clone, Debug)]
pub(crate) struct Moved {
    pub(crate) user: String,
    pub(crate) source: Route,
    pub(crate) target: Option<Route>,
}

/// What was found out about a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Every row is the one that moved, in both clusters.
    Equal {
        rows: u64,
    },
    /// So many rows were written since the user arrived; all others are equal.
    Touched {
        rows: usize,
    },
    /// The rows at the source are gone, by a purge; the user is at home at the target.
    Purged,
    /// The source has not given the user away, or not any more, and the user has one home.
    NotMoved,
    /// Both clusters own the user.
    TwoHomes,
    Wrong(Wrong),
}

/// What is wrong with a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "wrong", content = "about")]
pub enum Wrong {
    /// The source has given the user away, and the target does not own it: its state there, if it has a route.
    NotAtHome(Option<String>),
    /// The target owns the user from another move than the source's last one: by epochs, source and target.
    OtherMove(u64, u64),
    /// A purge would have deleted another number of rows than were proven.
    OtherCount { wanted: u64, deleted: u64 },
    /// Given away without a proof, by a reconcile.
    NotProven,
    /// The frozen rows at the source are not those that moved.
    SourceChanged(Mismatch),
    /// Rows at the target changed that nobody has written.
    TargetChanged(Mismatch),
}

impl Wrong {
    /// Whether nothing was compared, because the routes say that there is nothing to compare.
    pub(crate) fn is_no_proof(&self) -> bool {
        match self {
            Self::NotAtHome(_) | Self::OtherMove(..) | Self::NotProven => true,
            Self::OtherCount { .. } | Self::SourceChanged(_) | Self::TargetChanged(_) => false,
        }
    }

    /// Whether it is about where the user is, not about rows.
    pub fn is_incomplete(&self) -> bool {
        match self {
            Self::NotAtHome(_) | Self::OtherMove(..) => true,
            Self::NotProven
            | Self::OtherCount { .. }
            | Self::SourceChanged(_)
            | Self::TargetChanged(_) => false,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |f: &mut fmt::Formatter<'_>, mismatch: &Mismatch| match mismatch.rows.first() {
            None => f.write_str("the two clusters do not tell which ones"),
            Some(row) => match mismatch.count.saturating_sub(1) {
                0 => write!(f, "{row}"),
                more => write!(f, "{row}, and {}{more} more", mismatch.or_more()),
            },
        };
        match self {
            Self::NotAtHome(None) => f.write_str("the target has no route for the user"),
            Self::NotAtHome(Some(state)) => write!(f, "the target is `{state}`"),
            Self::OtherMove(source, target) => write!(
                f,
                "the source gave the user away at epoch {source}, and the target has epoch {target}"
            ),
            Self::OtherCount { wanted, deleted } => write!(
                f,
                "{deleted} rows would be deleted where {wanted} were proven, with others of the same chunk"
            ),
            Self::NotProven => f.write_str("the rows were never proven equal"),
            Self::SourceChanged(mismatch) => {
                f.write_str("the frozen rows at the source are not those that moved: ")?;
                rows(f, mismatch)
            }
            Self::TargetChanged(mismatch) => {
                f.write_str("rows at the target changed and nobody wrote them: ")?;
                rows(f, mismatch)
            }
        }
    }
}

/// Looks at these users. Both sessions must each see one snapshot, or rows that cannot change.
pub(crate) async fn prove(
    sides: &Sides<'_>,
    users: &[Moved],
) -> Result<HashMap<String, Found>, Error> {
    let mut found = HashMap::new();
    let mut runs: HashMap<&str, Vec<&Moved>> = HashMap::new();
    for moved in users {
        match by_routes(moved) {
            Ok(run) => runs.entry(run).or_default().push(moved),
            Err(known) => drop(found.insert(moved.user.clone(), known)),
        }
    }
    for (run, users) in runs {
        of_run(sides, run, &users, &mut found).await?;
    }
    Ok(found)
}

/// The run whose salt is in the digests, or what the routes alone say.
fn by_routes(moved: &Moved) -> Result<&str, Found> {
    let (source, target) = (&moved.source, moved.target.as_ref());
    let Some(target) = target.filter(|target| target.state.owns()) else {
        let state = moved.target.as_ref().map(|target| target.state.to_string());
        return Err(Found::Wrong(Wrong::NotAtHome(state)));
    };
    if source.state == State::Purged && source.epoch <= target.epoch {
        return Err(Found::Purged);
    }
    if source.epoch != target.epoch {
        let number = |epoch: Epoch| u64::try_from(i64::from(epoch)).unwrap_or(u64::MAX);
        let (source, target) = (number(source.epoch), number(target.epoch));
        return Err(Found::Wrong(Wrong::OtherMove(source, target)));
    }
    match &source.run {
        Some(run) if source.digest.is_some() && source.digest == target.digest => Ok(run),
        Some(_) | None => Err(Found::Wrong(Wrong::NotProven)),
    }
}

async fn of_run(
    sides: &Sides<'_>,
    run: &str,
    users: &[&Moved],
    found: &mut HashMap<String, Found>,
) -> Result<(), Error> {
    let keys: Vec<String> = users.iter().map(|moved| moved.user.clone()).collect();
    let (here, there, noted) = tokio::join!(
        digests(sides.source, run, &keys),
        digests(sides.target, run, &keys),
        noted(sides, &keys)
    );
    let (here, there, mut noted) = (here?.rows, there?.rows, noted?);
    let mut closer = Vec::new();
    for moved in users {
        let proven = moved.source.digest.map(|digest| Proven {
            digest,
            rows: moved.source.rows.unwrap_or(u64::MAX),
        });
        let same = |rows: &HashMap<String, Proven>| rows.get(&moved.user).copied() == proven;
        match (same(&here), same(&there), noted.contains_key(&moved.user)) {
            (true, true, false) => {
                let rows = moved.source.rows.unwrap_or(0);
                found.insert(moved.user.clone(), Found::Equal { rows });
            }
            (at_source, _, _) => closer.push((moved.user.clone(), at_source)),
        }
    }
    if closer.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = closer.iter().map(|(user, _)| user.clone()).collect();
    let mut rows = differing(sides.source, sides.target, run, &keys, usize::MAX).await?;
    for (user, at_source) in closer {
        let noted = noted.remove(&user).unwrap_or_default();
        let rows = rows.remove(&user).unwrap_or_default();
        let compared = compare(sides, &user, rows, &noted).await?;
        let outcome = match (at_source, compared.mismatch.count) {
            (false, _) => Found::Wrong(Wrong::SourceChanged(compared.mismatch)),
            (true, 0) if !noted.is_empty() => Found::Touched {
                rows: noted.len() + compared.went_along,
            },
            (true, _) => Found::Wrong(Wrong::TargetChanged(compared.mismatch)),
        };
        found.insert(user, outcome);
    }
    Ok(())
}

/// What these users wrote at the target since they are at home there.
async fn noted(
    sides: &Sides<'_>,
    users: &[String],
) -> Result<HashMap<String, HashSet<Name>>, Error> {
    let sql = "SELECT DISTINCT d.usr, d.tab, d.key::text[] FROM regionwise.dirty d \
               JOIN regionwise.route r ON r.usr = d.usr AND d.at_epoch >= r.epoch WHERE d.usr = ANY($1)";
    let mut noted: HashMap<String, HashSet<Name>> = HashMap::new();
    for row in sides.target.query(sql, &[&users]).await? {
        let table: i32 = row.get(1);
        let table = usize::try_from(table)
            .map_err(|_| sides.target.unexpected(format!("table number {table}")))?;
        let key: Vec<Option<String>> = row.get(2);
        let key: Option<Vec<String>> = key.into_iter().collect();
        let key = key.ok_or_else(|| sides.target.unexpected("a noted key that is NULL"))?;
        noted.entry(row.get(0)).or_default().insert((table, key));
    }
    Ok(noted)
}
