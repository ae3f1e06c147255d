//! After a promotion: brings the promoted cluster's routes up to what the other cluster knows, before writes open.
//!
//! What is to be done for a user follows from both routes (`protocol::reconcile`); it is done, and the routes are read
//! again, until nothing is left to do. Running it once more changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::protocol::{Change, Objection, Reconcile, reconcile};
use tokio::time::sleep;

use crate::change::{self, Outcome, routes};
use crate::ends::{End, Purpose};
use crate::lane::borrowed;
use crate::run::timeline;

/// Users that are read together.
const PAGE: i64 = 500;

/// How often a user is looked at; a busy one needs several.
const LOOKS: u32 = 100;

/// What was done, in users.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// Users with a route in the promoted cluster.
    pub users: u64,
    /// Moves under way whose runners before the promotion are sent away.
    pub raised: u64,
    /// Users of whom the promoted cluster did not know any more that they live in the other one.
    pub fenced: u64,
    /// Of these, whose rows are those that moved: they can be purged.
    pub proven: u64,
    /// Whose rows are others: they stay, and are never purged.
    pub not_proven: Vec<String>,
    /// Whom somebody kept locked all the time.
    pub busy: Vec<String>,
    /// Whom both clusters own, and this promotion did not make it so.
    pub two_owners: Vec<String>,
}

/// Reconciles `promoted` with `other`.
///
/// # Errors
/// A cluster cannot be reached, or says something unexpected; what was done stays, and a new call goes on.
pub async fn reconcile_routes(
    promoted: &End,
    other: &End,
    done: impl Fn(u64),
) -> Result<Reconciled, Error> {
    let name = "regionwise reconcile";
    let (promoted, other) = tokio::try_join!(
        // Users' rows are hashed, and nobody waits for it: the application is kept out.
        promoted.open(Purpose::Book, name),
        other.open(Purpose::Book, name),
    )?;
    let timelines = [timeline(&promoted).await?, timeline(&other).await?];
    let mut reconciled = Reconciled::default();
    let mut last = String::new();
    loop {
        let sql = "SELECT usr FROM regionwise.route WHERE usr > $1 ORDER BY usr LIMIT $2";
        let rows = promoted.query(sql, &[&last, &PAGE]).await?;
        let users: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let Some(end) = users.last().cloned() else {
            return Ok(reconciled);
        };
        last = end;
        reconciled.users += u64::try_from(users.len()).unwrap_or(0);
        page(&promoted, &other, timelines, users, &mut reconciled).await?;
        done(reconciled.users);
    }
}

/// Where a change is made, and in whose name.
type Place = (Side, Option<String>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Other,
    Promoted,
}

/// Looks at these users until there is nothing left to do for any of them.
async fn page(
    promoted: &Direct,
    other: &Direct,
    timelines: [u32; 2],
    users: Vec<String>,
    reconciled: &mut Reconciled,
) -> Result<(), Error> {
    let mut users = users;
    // Their rows were compared, and are others.
    let mut differ: HashSet<String> = HashSet::new();
    for look in 0..LOOKS {
        let (here, there) = tokio::join!(routes(promoted, &users), routes(other, &users));
        let (here, there) = (here?, there?);
        let mut changes: BTreeMap<Place, Vec<(String, Change)>> = BTreeMap::new();
        let mut kinds: HashMap<String, Kind> = HashMap::new();
        for user in users.drain(..) {
            let (place, change, kind) =
                match reconcile(here.get(&user), there.get(&user), timelines) {
                    Ok(Reconcile::Open) => continue,
                    Ok(Reconcile::Prove { .. }) if differ.contains(&user) => continue,
                    Ok(Reconcile::Raise { run, change }) => {
                        ((Side::Other, run), change, Kind::Raised)
                    }
                    Ok(Reconcile::Fence { run, change }) => {
                        ((Side::Promoted, run), change, Kind::Fenced)
                    }
                    Ok(Reconcile::Prove { run, change }) => {
                        ((Side::Promoted, run), change, Kind::Proven)
                    }
                    Err(Objection::TwoOwners { .. }) => {
                        reconciled.two_owners.push(user);
                        continue;
                    }
                    Err(objection) => return Err(promoted.unexpected(objection.to_string())),
                };
            kinds.insert(user.clone(), kind);
            changes.entry(place).or_default().push((user, change));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let mut any = false;
        for ((side, run), changes) in changes {
            let session = match side {
                Side::Other => other,
                Side::Promoted => promoted,
            };
            let outcomes = apply(session, run.as_deref().unwrap_or(""), &changes).await?;
            for (user, _) in changes {
                match (outcomes.get(&user), kinds.get(&user)) {
                    (Some(Outcome::Changed), Some(kind)) => {
                        any = true;
                        kind.count(reconciled);
                    }
                    (Some(Outcome::Differs), _) => {
                        any = true;
                        differ.insert(user.clone());
                        reconciled.not_proven.push(user.clone());
                    }
                    _ => {}
                }
                users.push(user);
            }
        }
        if !any {
            sleep(Duration::from_millis(u64::from(look.min(50)))).await;
        }
    }
    reconciled.busy.extend(users);
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Raised,
    Fenced,
    Proven,
}

impl Kind {
    fn count(self, reconciled: &mut Reconciled) {
        match self {
            Self::Raised => reconciled.raised += 1,
            Self::Fenced => reconciled.fenced += 1,
            Self::Proven => reconciled.proven += 1,
        }
    }
}

async fn apply(
    session: &Direct,
    run: &str,
    changes: &[(String, Change)],
) -> Result<HashMap<String, Outcome>, Error> {
    let terms = change::Terms {
        run,
        wait: true,
        claim: None,
        seals: None,
    };
    match change::apply(session, terms, &borrowed(changes)).await {
        // The run is not known here, or its salt is erased: nothing can be proven any more.
        Err(error) if error.sqlstate() == Some("MV005") => Ok(changes
            .iter()
            .map(|(user, _)| (user.clone(), Outcome::Differs))
            .collect()),
        other => Ok(other?
            .into_iter()
            .map(|(user, answer)| (user, answer.outcome))
            .collect()),
    }
}
