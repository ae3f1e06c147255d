//! Rows by primary key and digest: what tells which of a user's rows differ.
//!
//! Both servers send the digests of a user's rows in ascending order, a portion at a time, and they are merged here: of
//! millions of rows only those are kept that one side has alone. The order is that of the digests, not of the keys: bytes
//! are sorted alike under every collation and encoding, and faster; a digest covers table and key.

use std::collections::{HashMap, VecDeque};

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::digest::{Digest, UserHasher};
use tokio_postgres::Row;

use crate::change::digest_of;
use crate::ship::Proven;

/// Rows per round trip, of which each takes some 300 bytes of memory until it is compared.
const PORTION: usize = 10_000;

/// One row of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowDigest {
    pub(crate) user: String,
    /// Number in the closure.
    pub(crate) table: usize,
    pub(crate) key: Vec<String>,
    pub(crate) digest: Digest,
}

/// The rows of some users at one server, in the snapshot of the moment when it was opened. A session has one at a time.
pub(crate) struct Listing<'a> {
    session: &'a Direct,
    arrived: VecDeque<Row>,
    /// Whether the server has sent everything.
    whole: bool,
    last: Option<Digest>,
}

impl<'a> Listing<'a> {
    /// One round trip: everything is sent together, also behind what the caller has sent.
    ///
    /// WITH HOLD, because not every caller has a transaction open.
    pub(crate) async fn open(
        session: &'a Direct,
        run: &str,
        users: &[String],
    ) -> Result<Self, Error> {
        let declare = "DECLARE regionwise_rows NO SCROLL CURSOR WITH HOLD FOR \
                       SELECT usr, tab, key, digest FROM regionwise.row_digests($1, $2) ORDER BY digest";
        let mut listing = Self {
            session,
            arrived: VecDeque::new(),
            whole: false,
            last: None,
        };
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&run, &users];
        let asked = async {
            tokio::join!(
                session.batch(CLOSE),
                session.execute(declare, &parameters),
                listing.fill()
            )
        };
        let (closed, declared, filled) = Box::pin(asked).await;
        closed?;
        declared?;
        filled?;
        Ok(listing)
    }

    async fn fill(&mut self) -> Result<(), Error> {
        if self.whole || !self.arrived.is_empty() {
            return Ok(());
        }
        let fetch = format!("FETCH {PORTION} FROM regionwise_rows");
        self.arrived = Box::pin(self.session.ask(&fetch)).await?.into();
        self.whole = self.arrived.len() < PORTION;
        Ok(())
    }

    fn next_digest(&self) -> Result<Option<Digest>, Error> {
        let next = self.arrived.front();
        next.map(|row| digest_of(self.session, row.get(3)))
            .transpose()
    }

    /// The row whose digest is the next one, `digest`.
    fn take(&mut self, digest: Digest) -> Result<Row, Error> {
        if self.last.is_some_and(|last| last >= digest) {
            return Err(self.session.unexpected("rows that are out of order"));
        }
        self.last = Some(digest);
        let row = self.arrived.pop_front();
        row.ok_or_else(|| self.session.unexpected("no row where one was"))
    }

    fn row(&self, row: &Row, digest: Digest) -> Result<RowDigest, Error> {
        let table: i32 = row.get(1);
        let unexpected = |_| self.session.unexpected(format!("table number {table}"));
        Ok(RowDigest {
            user: row.get(0),
            table: usize::try_from(table).map_err(unexpected)?,
            key: row.get(2),
            digest,
        })
    }
}

/// Ends every cursor of the session: the listing, also one that an error has left open.
pub(crate) const CLOSE: &str = "CLOSE ALL";

/// A row that one side has alone; a row that changed is two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lone {
    Here(RowDigest),
    There(RowDigest),
}

/// The same users' rows at two servers.
pub(crate) struct Comparison<'a> {
    here: Listing<'a>,
    there: Listing<'a>,
    users: HashMap<String, UserHasher>,
    most_rows: u64,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(here: Listing<'a>, there: Listing<'a>) -> Self {
        Self {
            here,
            there,
            users: HashMap::new(),
            most_rows: 0,
        }
    }

    /// The next row that is not at both sides, in the order of the digests.
    pub(crate) async fn next(&mut self) -> Result<Option<Lone>, Error> {
        loop {
            let (here, there) = tokio::join!(self.here.fill(), self.there.fill());
            here?;
            there?;
            match (self.here.next_digest()?, self.there.next_digest()?) {
                (None, None) => return Ok(None),
                (Some(here), Some(there)) if here == there => {
                    let row = self.here.take(here)?;
                    self.there.take(there)?;
                    self.count(row.get(0), here);
                }
                (Some(here), there) if there.is_none_or(|there| here < there) => {
                    let row = self.here.take(here)?;
                    self.count(row.get(0), here);
                    return Ok(Some(Lone::Here(self.here.row(&row, here)?)));
                }
                (_, Some(there)) => {
                    let row = self.there.take(there)?;
                    return Ok(Some(Lone::There(self.there.row(&row, there)?)));
                }
                (Some(_), None) => return Err(self.here.session.unexpected("rows without an end")),
            }
        }
    }

    /// Rows at the source of the user who has most of them, so far.
    pub(crate) const fn most_rows(&self) -> u64 {
        self.most_rows
    }

    fn count(&mut self, user: &str, digest: Digest) {
        match self.users.get_mut(user) {
            Some(hasher) => {
                hasher.push(digest);
                self.most_rows = self.most_rows.max(hasher.rows());
            }
            None => {
                let mut hasher = UserHasher::default();
                hasher.push(digest);
                self.users.insert(user.to_owned(), hasher);
            }
        }
    }

    /// What the rows `here` are, when [`Comparison::next`] has come to its end. Users without rows are not listed.
    pub(crate) fn here(self) -> HashMap<String, Proven> {
        let users = self.users.into_iter();
        users
            .map(|(user, hasher)| {
                let rows = hasher.rows();
                let digest = hasher.finish();
                (user, Proven { digest, rows })
            })
            .collect()
    }
}

/// Rows of one user that one side has alone: the first ones, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differing {
    pub(crate) here: Vec<RowDigest>,
    pub(crate) there: Vec<RowDigest>,
    all_here: usize,
    all_there: usize,
}

impl Differing {
    fn add(&mut self, lone: Lone, most: usize) {
        let has_room = self.here.len() + self.there.len() < most;
        let (row, rows, all) = match lone {
            Lone::Here(row) => (row, &mut self.here, &mut self.all_here),
            Lone::There(row) => (row, &mut self.there, &mut self.all_there),
        };
        *all += 1;
        if has_room {
            rows.push(row);
        }
    }

    /// Whether every row was kept.
    pub(crate) const fn is_whole(&self) -> bool {
        self.here.len() == self.all_here && self.there.len() == self.all_there
    }

    /// So many rows differ at least: a row that changed is one at each side.
    pub(crate) fn least(&self) -> usize {
        self.all_here.max(self.all_there)
    }
}

/// By user, of each at most `most` rows; who differs in nothing is not listed.
pub(crate) async fn differing(
    source: &Direct,
    target: &Direct,
    run: &str,
    users: &[String],
    most: usize,
) -> Result<HashMap<String, Differing>, Error> {
    let (here, there) = tokio::join!(
        Listing::open(source, run, users),
        Listing::open(target, run, users)
    );
    let mut comparison = Comparison::new(here?, there?);
    let mut found: HashMap<String, Differing> = HashMap::new();
    while let Some(lone) = comparison.next().await? {
        let (Lone::Here(row) | Lone::There(row)) = &lone;
        found.entry(row.user.clone()).or_default().add(lone, most);
    }
    let (here, there) = tokio::join!(source.batch(CLOSE), target.batch(CLOSE));
    here?;
    there?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_rows_that_differ_the_first_are_kept_and_all_are_counted() {
        let row = |number: u8| RowDigest {
            user: "1".to_owned(),
            table: 0,
            key: vec![number.to_string()],
            digest: Digest([number; 32]),
        };
        let mut differing = Differing::default();
        for number in 0..3 {
            differing.add(Lone::Here(row(number)), 5);
        }
        assert!(differing.is_whole());
        for number in 3..100 {
            differing.add(Lone::There(row(number)), 5);
        }
        assert!(!differing.is_whole());
        assert_eq!((differing.here.len(), differing.there.len()), (3, 2));
        assert_eq!(differing.least(), 97);
    }
}
