//! Columns of a closure table, in the order that digests and COPY agree on.

use crate::catalog::{Column, Identity};
use crate::closure::Member;

impl Member {
    /// Every column, generated ones included, by name: the order of the table may differ between two clusters.
    pub fn columns_by_name(&self) -> Vec<&Column> {
        let mut columns: Vec<&Column> = self.table.columns.iter().collect();
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        columns
    }

    /// Those that can be written; Postgres computes the others.
    pub fn written_columns(&self) -> Vec<&Column> {
        let mut columns = self.columns_by_name();
        columns.retain(|column| column.generated.is_none());
        columns
    }

    /// Whether a column's binary form means something in its own database only, so that rows travel as text through
    /// a temporary table.
    pub fn travels_as_text(&self) -> bool {
        self.table
            .columns
            .iter()
            .any(|column| column.kind.carries_oids)
    }

    pub(super) fn has_identity_always(&self) -> bool {
        self.table
            .columns
            .iter()
            .any(|column| column.identity == Some(Identity::Always))
    }
}
