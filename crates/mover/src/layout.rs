//! How the rows of one table travel: which fields come, which are passed on, and into what.

use regionwise_postgres::{CopyIn, Direct, Error};
use regionwise_relocation::closure::Closure;
use regionwise_relocation::sql::select;

/// One table of the closure on the wire.
pub(crate) struct Layout {
    /// The table's number in the closure, as it stands in every row digest.
    pub(crate) number: u16,
    pub(crate) table: String,
    /// By name, as they come.
    pub(crate) columns: Vec<String>,
    /// Whether the target takes a column; it computes generated ones itself.
    written: Vec<bool>,
    copy_in: String,
    /// For tables whose rows travel as text: the temporary table, and what moves its rows on.
    pub(crate) temporary: String,
    insert: Option<String>,
}

/// A table that has got its last row, and the target has not said yet what it thinks of them.
pub(crate) struct Landing<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) sink: CopyIn<'a>,
}

/// Sends the end of `landing` and then `next`, in one round trip. What is wrong with the earlier rows makes everything after
/// them fail too, so it is told first.
pub(crate) async fn land_and<T>(
    landing: Option<Landing<'_>>,
    target: &Direct,
    next: impl Future<Output = T>,
) -> Result<T, Error> {
    let landed = async {
        match landing {
            Some(Landing { layout, sink }) => layout.close(target, sink).await,
            None => Ok(()),
        }
    };
    let (landed, next) = tokio::join!(landed, next);
    landed.map(|()| next)
}

impl Layout {
    pub(crate) fn all(closure: &Closure) -> Vec<Self> {
        let numbers = 0..closure.tables.len();
        numbers.map(|number| Self::of(closure, number)).collect()
    }

    fn of(closure: &Closure, number: usize) -> Self {
        let member = &closure.tables[number];
        let columns = member.columns_by_name();
        Self {
            number: u16::try_from(number).unwrap_or(u16::MAX),
            table: member.table.name.to_string(),
            written: columns
                .iter()
                .map(|each| each.generated.is_none())
                .collect(),
            columns: columns.iter().map(|each| each.name.clone()).collect(),
            copy_in: select::copy_in(closure, number),
            temporary: select::temporary(closure, number),
            insert: member
                .travels_as_text()
                .then(|| select::insert(closure, number)),
        }
    }

    /// Fields of a row as the digest takes them.
    pub(crate) fn fields(&self) -> u16 {
        u16::try_from(self.columns.len()).unwrap_or(u16::MAX)
    }

    /// The fields that the target takes.
    pub(crate) fn passed_on<'a>(
        &self,
        fields: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Vec<Option<&'a [u8]>> {
        fields
            .zip(&self.written)
            .filter_map(|(field, written)| written.then_some(field))
            .collect()
    }

    /// The target, ready to take rows.
    pub(crate) async fn open<'a>(&self, target: &'a Direct) -> Result<CopyIn<'a>, Error> {
        if self.insert.is_some() {
            target.batch(&self.temporary).await?;
        }
        target.copy_in(&self.copy_in).await
    }

    /// After the last row, together with whatever is sent next. How many rows the target says that it stored is no proof;
    /// the digests name the row that is not there.
    async fn close(&self, target: &Direct, sink: CopyIn<'_>) -> Result<(), Error> {
        let inserted = async {
            match &self.insert {
                Some(insert) => target.batch(insert).await,
                None => Ok(()),
            }
        };
        let (stored, inserted) = tokio::join!(sink.finish(), inserted);
        stored?;
        inserted
    }
}
