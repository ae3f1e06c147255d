//! The shape of a closure: a hash over everything whose change in the middle of a run would make the plan, the fence or
//! the digests wrong. Sizes, comments, indexes and our own triggers are no part of it.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::rules::{OtherUser, Unowned};
use super::{Discovered, Member, Owner, Reference};
use crate::catalog::{Column, TableKind, TableName, Trigger};

/// A SHA-256, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Shape(String);

impl Shape {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Equal for two databases whose closures are equal, however they came to be.
pub fn shape(found: &Discovered) -> Shape {
    let mut fields = Fields::of("regionwise shape 1");
    fields.list(&found.closure.tables, member);
    fields.list(&found.crossings, |fields, crossing| {
        fields.number(crossing.table);
        fields.number(crossing.reference);
        fields.text(other_user(crossing.then));
    });
    fields.list(&found.unowned, |fields, (table, then)| {
        fields.number(*table);
        fields.text(unowned(*then));
    });
    fields.list(&found.shared, name);
    fields.list(&found.left_behind, |fields, left| {
        name(fields, &left.table);
        reference(fields, &left.reference);
        fields.text(other_user(left.then));
    });
    Shape(fields.hex())
}

fn member(fields: &mut Fields, member: &Member) {
    let table = &member.table;
    name(fields, &table.name);
    fields.text(match table.kind {
        TableKind::Ordinary => "ordinary",
        TableKind::Partitioned => "partitioned",
        TableKind::Foreign => "foreign",
    });
    let mut columns: Vec<&Column> = table.columns.iter().collect();
    columns.sort_by_key(|column| &column.name);
    fields.list(columns, column);
    fields.texts(&table.primary_key);
    fields.list(&table.partitions, name);
    let ours = |trigger: &&Trigger| trigger.function.starts_with("regionwise.");
    fields.list(
        table
            .triggers
            .iter()
            .filter(|trigger| !ours(trigger))
            .collect::<Vec<_>>(),
        |fields, trigger| {
            fields.text(&trigger.name);
            fields.text(&trigger.function);
            fields.text(&trigger.enabled.to_string());
            fields.flag(trigger.before);
            fields.flag(trigger.per_row);
        },
    );
    fields.flag(table.row_security);
    fields.flag(table.forced_row_security);
    match &member.owner {
        Owner::Root => fields.text("root"),
        Owner::Through(links) => fields.list(links, |fields, link| {
            fields.texts(&link.columns);
            fields.number(link.parent);
            fields.texts(&link.parent_columns);
            fields.texts(&link.operators);
            fields.flag(link.deferrable);
            fields.flag(link.nullable);
        }),
    }
    fields.list(&member.references, reference);
}

fn column(fields: &mut Fields, column: &Column) {
    fields.text(&column.name);
    fields.text(&column.kind.name);
    fields.option(column.kind.send.as_deref());
    fields.flag(column.kind.carries_oids);
    fields.flag(column.not_null);
    fields.option(column.generated.as_deref());
    fields.option(column.collation.as_deref());
}

fn reference(fields: &mut Fields, reference: &Reference) {
    fields.texts(&reference.columns);
    name(fields, &reference.references);
    fields.texts(&reference.referenced_columns);
    fields.texts(&reference.operators);
}

pub(super) fn name(fields: &mut Fields, table: &TableName) {
    fields.text(&table.schema);
    fields.text(&table.name);
}

pub(super) fn other_user(then: OtherUser) -> &'static str {
    match then {
        OtherUser::SetNull => "set-null",
        OtherUser::Refuse => "refuse",
    }
}

pub(super) fn unowned(then: Unowned) -> &'static str {
    match then {
        Unowned::Stay => "stay",
        Unowned::Refuse => "refuse",
    }
}

/// A hash over fields, each with its length, so that no two lists of fields run into the same bytes.
pub(super) struct Fields(Sha256);

impl Fields {
    pub(super) fn of(what: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.text(what);
        fields
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text.as_bytes());
    }

    pub(super) fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_be_bytes());
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.number(usize::from(flag));
    }

    pub(super) fn option(&mut self, text: Option<&str>) {
        self.flag(text.is_some());
        self.text(text.unwrap_or_default());
    }

    pub(super) fn texts(&mut self, texts: &[String]) {
        self.list(texts, |fields, text| fields.text(text));
    }

    pub(super) fn list<I>(&mut self, items: I, mut each: impl FnMut(&mut Self, I::Item))
    where
        I: IntoIterator<IntoIter: ExactSizeIterator>,
    {
        let items = items.into_iter();
        self.number(items.len());
        for item in items {
            each(self, item);
        }
    }

    pub(super) fn hex(self) -> String {
        let bytes = self.0.finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
