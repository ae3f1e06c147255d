//! Which row is not equal, and in which columns. Values are compared here and go nowhere.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::closure::Closure;
use regionwise_relocation::sql::{delta, parents};
use regionwise_relocation::tuple::CopyReader;
use serde::Serialize;

use crate::layout::Layout;
use crate::rows::{Differing, RowDigest, differing};
use crate::shared::Shared;

/// So many rows are looked at column by column; the rest is counted.
const LOOKED_AT: usize = 10;

/// Rows whose keys a run keeps while it looks which ones differ: when a whole user does, there may be millions.
const KEPT: usize = 10_000;

/// What is not equal of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    pub user: String,
    pub rows: Vec<Row>,
    /// Rows that are not equal, those in `rows` included.
    pub count: usize,
    /// Whether there may be more: of very many it is not known which two are one row that changed.
    pub at_least: bool,
}

impl Mismatch {
    pub(crate) const fn or_more(&self) -> &'static str {
        if self.at_least { "at least " } else { "" }
    }
}

/// A row that is not the same in both clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub table: String,
    pub key: Vec<String>,
    pub how: Difference,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "difference", content = "columns")]
pub enum Difference {
    MissingAtTarget,
    ExtraAtTarget,
    /// In these columns.
    Columns(Vec<String>),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.rows.first() else {
            return write!(
                f,
                "user {}: the rows that went over the wire are not those of the source",
                self.user
            );
        };
        write!(f, "user {}: {first}", self.user)?;
        match self.count.saturating_sub(1) {
            0 => Ok(()),
            1 => f.write_str(", and one more row"),
            more => write!(f, ", and {}{more} more rows", self.or_more()),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, key, how } = self;
        let key = key.join(", ");
        match how {
            Difference::MissingAtTarget => write!(f, "{table} ({key}) is missing at the target"),
            Difference::ExtraAtTarget => write!(f, "{table} ({key}) is not at the source"),
            Difference::Columns(columns) if columns.is_empty() => write!(
                f,
                "{table} ({key}) differs in no column of the plan; the schema may have changed"
            ),
            Difference::Columns(columns) => {
                write!(f, "{table} ({key}) differs in {}", columns.join(", "))
            }
        }
    }
}

/// Compares a user's rows in the two sessions, as each of them sees them now.
pub(crate) async fn locate(
    shared: &Shared,
    source: &Direct,
    target: &Direct,
    user: &str,
) -> Result<Mismatch, Error> {
    let users = [user.to_owned()];
    let run = shared.run.id.as_str();
    let mut found = differing(source, target, run, &users, KEPT).await?;
    let sides = Sides {
        closure: &shared.closure,
        layouts: &shared.layouts,
        source,
        target,
    };
    let differing = found.remove(user).unwrap_or_default();
    let compared = compare(&sides, user, differing, &HashSet::new()).await?;
    Ok(compared.mismatch)
}

/// Where rows are compared.
#[derive(Clone, Copy)]
pub(crate) struct Sides<'a> {
    pub(crate) closure: &'a Closure,
    pub(crate) layouts: &'a [Layout],
    pub(crate) source: &'a Direct,
    pub(crate) target: &'a Direct,
}

/// A row by the number of its table and its primary key.
pub(crate) type Name = (usize, Vec<String>);

pub(crate) struct Compared {
    pub(crate) mismatch: Mismatch,
    /// Rows that went together with a noted one.
    pub(crate) went_along: usize,
}

/// Says how a user's rows differ, but for those that are `noted` as written since.
pub(crate) async fn compare(
    sides: &Sides<'_>,
    user: &str,
    differing: Differing,
    noted: &HashSet<Name>,
) -> Result<Compared, Error> {
    let (whole, least) = (differing.is_whole(), differing.least());
    let (here, there) = (by_name(differing.here), by_name(differing.there));
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for name in here.iter().filter(|name| !noted.contains(*name)) {
        match there.contains(name) {
            false => missing.push(name.clone()),
            true => found.push((name.clone(), None)),
        }
    }
    let all = missing.len();
    let missing = without_noted_parents(sides, missing, noted).await?;
    let went_along = all - missing.len();
    let missing = missing.into_iter();
    found.extend(missing.map(|name| (name, Some(Difference::MissingAtTarget))));
    let extra = there
        .iter()
        .filter(|name| !here.contains(*name) && !noted.contains(*name));
    found.extend(extra.map(|name| (name.clone(), Some(Difference::ExtraAtTarget))));
    let mut mismatch = Mismatch {
        user: user.to_owned(),
        rows: Vec::new(),
        count: if whole { found.len() } else { least },
        at_least: !whole,
    };
    for ((number, key), how) in found.into_iter().take(LOOKED_AT) {
        let how = match how {
            // Of a row that was kept for one side the other may have been left out.
            Some(how) if whole => how,
            Some(_) | None => difference(sides, number, &key).await?,
        };
        mismatch.rows.push(Row {
            table: sides.layouts[number].table.clone(),
            key,
            how,
        });
    }
    Ok(Compared {
        mismatch,
        went_along,
    })
}

fn by_name(rows: Vec<RowDigest>) -> BTreeSet<Name> {
    let each = rows.into_iter();
    each.map(|row| (row.table, row.key)).collect()
}

/// Takes out rows that a cascade removed: the fence notes the parent alone. The source still has the way up.
async fn without_noted_parents(
    sides: &Sides<'_>,
    missing: Vec<Name>,
    noted: &HashSet<Name>,
) -> Result<Vec<Name>, Error> {
    if noted.is_empty() {
        return Ok(missing);
    }
    // What stands at each of them on its way up; a ring in a tree is passed through once.
    let mut climbing: Vec<(usize, Name)> = missing.iter().cloned().enumerate().collect();
    let mut seen: HashSet<(usize, Name)> = climbing.iter().cloned().collect();
    let mut excused = HashSet::new();
    while !climbing.is_empty() {
        let mut tables: BTreeMap<usize, Vec<(usize, Vec<String>)>> = BTreeMap::new();
        for (of, (number, key)) in climbing.drain(..) {
            tables.entry(number).or_default().push((of, key));
        }
        for (number, rows) in tables {
            let keys: Vec<Vec<String>> = rows.iter().map(|(_, key)| key.clone()).collect();
            let Some(sql) = parents::parents(sides.closure, number, &keys) else {
                continue;
            };
            for row in sides.source.ask(&sql).await? {
                let place: i64 = row.get(0);
                let place = usize::try_from(place - 1).ok();
                let Some((of, _)) = place.and_then(|place| rows.get(place)) else {
                    return Err(sides.source.unexpected("a parent that nobody asked for"));
                };
                let table: i32 = row.get(1);
                let parent: Name = (usize::try_from(table).unwrap_or(0), row.get(2));
                if noted.contains(&parent) {
                    excused.insert(*of);
                } else if seen.insert((*of, parent.clone())) {
                    climbing.push((*of, parent));
                }
            }
        }
        climbing.retain(|(of, _)| !excused.contains(of));
    }
    let left = missing.into_iter().enumerate();
    Ok(left
        .filter(|(of, _)| !excused.contains(of))
        .map(|(_, name)| name)
        .collect())
}

/// How one row differs.
async fn difference(sides: &Sides<'_>, number: usize, key: &[String]) -> Result<Difference, Error> {
    let layout = &sides.layouts[number];
    let sql = delta::copy_out(sides.closure, number, &[key.to_vec()]);
    let fields = layout.fields();
    let (here, there) = tokio::join!(
        fetch(sides.source, &sql, fields),
        fetch(sides.target, &sql, fields)
    );
    let (here, there) = match (here?, there?) {
        (Some(_), None) => return Ok(Difference::MissingAtTarget),
        (None, Some(_)) => return Ok(Difference::ExtraAtTarget),
        (here, there) => (here.unwrap_or_default(), there.unwrap_or_default()),
    };
    let columns = layout.columns.iter();
    let differ = columns
        .zip(here.iter().zip(&there))
        .filter(|(_, (here, there))| here != there)
        .map(|(column, _)| column.clone());
    Ok(Difference::Columns(differ.collect()))
}

/// The values of one row, if it is there.
async fn fetch(
    session: &Direct,
    sql: &str,
    fields: u16,
) -> Result<Option<Vec<Option<Vec<u8>>>>, Error> {
    let mut out = session.copy_out(sql).await?;
    let mut reader = CopyReader::new(fields + 1);
    let mut found = None;
    while let Some(piece) = out.next().await? {
        reader.push(&piece);
        let malformed = |error| session.unexpected(format!("a COPY that is none: {error}"));
        while let Some(tuple) = reader.next().map_err(malformed)? {
            let fields = tuple.fields().skip(1);
            found = Some(fields.map(|field| field.map(<[u8]>::to_vec)).collect());
        }
    }
    Ok(found)
}
