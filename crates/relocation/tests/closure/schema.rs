//! A catalog in a few words: `table("orders").id().column("user_id", "bigint")`.

use regionwise_relocation::catalog::{
    Action, Catalog, Column, ForeignKey, Index, Persistence, Sequence, Server, Table, TableKind,
    TableName, Trigger, Type,
};
use regionwise_relocation::closure::refusal::Reason;
use regionwise_relocation::closure::rules::{OtherUser, OwnerRule, Rules, TableRule, Unowned};
use regionwise_relocation::closure::{Closure, Discovered, Owner, discover};

pub(crate) fn name(text: &str) -> TableName {
    TableName::written(text)
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn kind(name: &str) -> Type {
    Type {
        name: name.to_owned(),
        send: Some(format!("pg_catalog.{name}send")),
        carries_oids: false,
        local: false,
        equals: Some("pg_catalog.=".to_owned()),
    }
}

/// A table under construction.
#[derive(Clone)]
pub(crate) struct Draft {
    table: Table,
    keys: Vec<ForeignKey>,
}

pub(crate) fn table(of: &str) -> Draft {
    Draft {
        table: Table {
            name: name(of),
            kind: TableKind::Ordinary,
            columns: Vec::new(),
            primary_key: Vec::new(),
            indexes: Vec::new(),
            partitions: Vec::new(),
            triggers: Vec::new(),
            row_security: false,
            forced_row_security: false,
            estimated_rows: -1,
            bytes: 0,
            filtered_publications: Vec::new(),
            subscriptions: Vec::new(),
            inherits: false,
            rewrites: Vec::new(),
            late_keys: Vec::new(),
            persistence: Persistence::Permanent,
        },
        keys: Vec::new(),
    }
}

impl Draft {
    pub(crate) fn id(self) -> Self {
        self.column("id", "bigint").key(&["id"])
    }

    /// A column that may not be NULL.
    pub(crate) fn column(mut self, column: &str, of: &str) -> Self {
        self.table.columns.push(Column {
            name: column.to_owned(),
            kind: kind(of),
            not_null: true,
            generated: None,
            identity: None,
            default: None,
            collation: None,
        });
        self
    }

    pub(crate) fn nullable(self, column: &str, of: &str) -> Self {
        let mut with = self.column(column, of);
        if let Some(column) = with.table.columns.last_mut() {
            column.not_null = false;
        }
        with
    }

    pub(crate) fn key(mut self, columns: &[&str]) -> Self {
        self.table.primary_key = texts(columns);
        self.unique(columns)
    }

    pub(crate) fn unique(self, columns: &[&str]) -> Self {
        let mut with = self.index(columns);
        if let Some(index) = with.table.indexes.last_mut() {
            index.unique = true;
        }
        with
    }

    pub(crate) fn index(mut self, columns: &[&str]) -> Self {
        self.table.indexes.push(Index {
            name: format!("{}_{}", self.table.name.name, columns.join("_")),
            columns: texts(columns),
            unique: false,
        });
        self
    }

    /// A foreign key without an index.
    pub(crate) fn bare_refers(mut self, columns: &[&str], to: &str, referenced: &[&str]) -> Self {
        self.keys.push(ForeignKey {
            name: format!("{}_{}_fkey", self.table.name.name, columns.join("_")),
            table: self.table.name.clone(),
            columns: texts(columns),
            references: name(to),
            referenced_columns: texts(referenced),
            operators: columns.iter().map(|_| "pg_catalog.=".to_owned()).collect(),
            deferrable: false,
            validated: true,
            on_delete: Action::Cascade,
            on_update: Action::NoAction,
        });
        self
    }

    pub(crate) fn refers(self, columns: &[&str], to: &str, referenced: &[&str]) -> Self {
        self.bare_refers(columns, to, referenced).index(columns)
    }

    /// A column of the type of `id` that may not be NULL, with a foreign key and an index.
    pub(crate) fn belongs(self, column: &str, to: &str) -> Self {
        self.column(column, "bigint").refers(&[column], to, &["id"])
    }

    pub(crate) fn may_belong(self, column: &str, to: &str) -> Self {
        self.nullable(column, "bigint")
            .refers(&[column], to, &["id"])
    }

    /// Changes the foreign key that was added last.
    pub(crate) fn with_key(mut self, change: impl FnOnce(&mut ForeignKey)) -> Self {
        change(self.keys.last_mut().unwrap());
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Table)) -> Self {
        change(&mut self.table);
        self
    }

    /// Changes the column that was added last.
    pub(crate) fn with_column(mut self, change: impl FnOnce(&mut Column)) -> Self {
        change(self.table.columns.last_mut().unwrap());
        self
    }
}

pub(crate) fn catalog(drafts: &[Draft]) -> Catalog {
    Catalog {
        tables: drafts.iter().map(|draft| draft.table.clone()).collect(),
        foreign_keys: drafts.iter().flat_map(|draft| draft.keys.clone()).collect(),
        sequences: Vec::new(),
    }
}

pub(crate) fn users() -> Draft {
    table("users")
        .id()
        .column("email", "text")
        .unique(&["email"])
}

pub(crate) fn orders() -> Draft {
    table("orders").id().belongs("user_id", "users")
}

pub(crate) fn sequence(of: &str, increment: i64, start: i64) -> Sequence {
    Sequence {
        name: TableName::new("public", format!("{of}_id_seq")),
        used_by: Some((name(of), "id".to_owned())),
        increment,
        start,
        minimum: 1,
        maximum: i64::MAX,
        last_value: None,
        cycles: false,
    }
}

pub(crate) fn trigger(of: &str, enabled: char) -> Trigger {
    Trigger {
        name: of.to_owned(),
        before: true,
        per_row: true,
        enabled,
        function: "public.stamp".to_owned(),
    }
}

pub(crate) fn server(system_identifier: u64) -> Server {
    Server {
        system_identifier,
        database: "shop".to_owned(),
        in_recovery: false,
        timeline: Some(1),
        version: 150_018,
        encoding: "UTF8".to_owned(),
        changed_collations: Vec::new(),
        lock_slots: 6_400,
        prepared: Vec::new(),
        pooled: false,
        role: "mover".to_owned(),
        bypasses_row_security: false,
        synchronous: "ANY 1 (standby)".to_owned(),
        standbys: 1,
    }
}

// Rules.

pub(crate) fn rules(tables: &[(&str, TableRule)]) -> Rules {
    Rules {
        tables: tables
            .iter()
            .map(|(table, rule)| (name(table), rule.clone()))
            .collect(),
    }
}

pub(crate) fn stays() -> TableRule {
    TableRule {
        stays: true,
        ..TableRule::default()
    }
}

pub(crate) fn shared() -> TableRule {
    TableRule {
        shared: true,
        ..TableRule::default()
    }
}

pub(crate) fn unowned(then: Unowned) -> TableRule {
    TableRule {
        unowned: Some(then),
        ..TableRule::default()
    }
}

pub(crate) fn owner_by(keys: &[&str]) -> TableRule {
    TableRule {
        owner_by: texts(keys),
        ..TableRule::default()
    }
}

pub(crate) fn owner(columns: &[&str], references: &str, referenced: &[&str]) -> TableRule {
    TableRule {
        owner: Some(OwnerRule {
            columns: texts(columns),
            references: name(references),
            referenced: texts(referenced),
        }),
        ..TableRule::default()
    }
}

pub(crate) fn other_user(column: &str, then: OtherUser) -> TableRule {
    let mut rule = TableRule::default();
    rule.other_users.insert(column.to_owned(), then);
    rule
}

// Results.

pub(crate) fn found(drafts: &[Draft], rules: &Rules) -> Discovered {
    discover(&catalog(drafts), &name("users"), rules).unwrap()
}

pub(crate) fn refused(drafts: &[Draft], rules: &Rules) -> Vec<Reason> {
    found(drafts, rules).refused
}

/// `orders by user_id>users`, one for each table below the root, in the order of the closure.
pub(crate) fn ways(closure: &Closure) -> Vec<String> {
    let way = |number: usize| {
        let member = &closure.tables[number];
        let Owner::Through(links) = &member.owner else {
            return member.table.name.to_string();
        };
        let links: Vec<String> = links
            .iter()
            .map(|link| {
                let parent = &closure.tables[link.parent].table.name;
                assert!(link.parent <= number, "parents come first");
                assert_eq!(link.columns.len(), link.operators.len());
                format!("{}>{parent}", link.columns.join("+"))
            })
            .collect();
        format!("{} by {}", member.table.name, links.join(", "))
    };
    (0..closure.tables.len()).map(way).collect()
}
