//! Tables outside the closure that look as if they held users' rows: a column named as those that lead to a user, or an
//! id beside a column that says of which table. Erasure would miss them, so each wants a word of the operator.

use std::collections::BTreeMap;

use super::ownership::Graph;
use super::refusal::Reason;
use super::rules::Rules;
use super::{Decision, Discovered, Owner};
use crate::catalog::{Column, Table, TableName};

pub(super) fn judge(graph: &Graph<'_>, key: &str, rules: &Rules, found: &mut Discovered) {
    let names = names(graph, key, found);
    let mut apart = 0;
    for (name, table) in &graph.tables {
        let moves = found.closure.position(name).is_some();
        match polymorphic(table, graph) {
            Some((id, _)) if moves => found.decided.push(Decision::Polymorphic {
                table: (*name).clone(),
                id,
            }),
            Some((id, kind)) if rules.of(name).is_none() => {
                found.refused.push(Reason::Polymorphic {
                    table: (*name).clone(),
                    id,
                    kind,
                });
                continue;
            }
            _ => {}
        }
        if moves || rules.of(name).is_some() {
            continue;
        }
        match looks_owned(table, graph, &names) {
            Some(reason) => found.refused.push(reason),
            None => apart += 1,
        }
    }
    if apart > 0 {
        found.decided.push(Decision::Apart { tables: apart });
    }
}

/// Names that lead to a user, each with the kind of its values and the column that has it.
type Names = BTreeMap<String, Vec<(Kind, String)>>;

fn names(graph: &Graph<'_>, key: &str, found: &Discovered) -> Names {
    let root = &found.closure.root().table;
    let mut names = Names::new();
    let mut add = |name: &str, kind: &str, of: String| {
        let name = plain(name);
        // Every table has an id; only what leads elsewhere has a name of its own.
        if name != "id" {
            names.entry(name).or_default().push((Kind::of(kind), of));
        }
    };
    let user = &found.closure.user_key().kind.name;
    let singular = root.name.name.strip_suffix('s').unwrap_or(&root.name.name);
    for made_up in [
        format!("{singular}_{key}"),
        format!("{}_{key}", root.name.name),
        key.to_owned(),
    ] {
        add(&made_up, user, format!("{}.{key}", root.name));
    }
    for member in &found.closure.tables {
        let Owner::Through(links) = &member.owner else {
            continue;
        };
        let owner_links = links
            .iter()
            .filter(|link| found.closure.tables[link.parent].table.name != member.table.name);
        for link in owner_links {
            if let [column] = link.columns.as_slice() {
                let kind = kind_of(&member.table, column);
                add(column, kind, format!("{}.{column}", member.table.name));
            }
        }
    }
    for (table, edges) in &graph.edges {
        for edge in edges
            .iter()
            .filter(|edge| edge.parent == root.name && edge.parent != **table)
        {
            if let [column] = edge.columns.as_slice() {
                let kind = kind_of(graph.tables[*table], column);
                add(column, kind, format!("{table}.{column}"));
            }
        }
    }
    names
}

fn kind_of<'t>(table: &'t Table, column: &str) -> &'t str {
    table
        .column(column)
        .map_or("", |column| column.kind.name.as_str())
}

fn looks_owned(table: &Table, graph: &Graph<'_>, names: &Names) -> Option<Reason> {
    table.columns.iter().find_map(|column| {
        let kind = Kind::of(&column.kind.name);
        let alike = names.get(&plain(&column.name))?;
        let (_, like) = alike.iter().find(|(other, _)| *other == kind)?;
        (!refers(graph, &table.name, &column.name)).then(|| Reason::LooksOwned {
            table: table.name.clone(),
            column: column.name.clone(),
            like: like.clone(),
        })
    })
}

/// What a foreign key explains is no look-alike.
fn refers(graph: &Graph<'_>, table: &TableName, column: &str) -> bool {
    graph
        .edges_of(table)
        .iter()
        .any(|edge| edge.columns.iter().any(|name| name == column))
}

/// `commentable_id` with `commentable_type`, `object_id` with `content_type_id`.
fn polymorphic(table: &Table, graph: &Graph<'_>) -> Option<(String, String)> {
    let by_name = |name: &str| {
        table
            .columns
            .iter()
            .find(|column| plain(&column.name) == name)
    };
    let pair = |column: &Column| {
        let name = plain(&column.name);
        let subject = name.strip_suffix("id")?;
        let kind = match subject {
            "" => return None,
            "object" => by_name("objecttype").or_else(|| by_name("contenttypeid")),
            subject => by_name(&format!("{subject}type")),
        }?;
        let explained = refers(graph, &table.name, &column.name);
        (!explained).then(|| (column.name.clone(), kind.name.clone()))
    };
    table.columns.iter().find_map(pair)
}

/// `userId`, `user_id` and `USER_ID` are one name.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| *c != '_')
        .flat_map(char::to_lowercase)
        .collect()
}

/// Values that could be compared with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Text,
    Other(String),
}

impl Kind {
    fn of(kind: &str) -> Self {
        let base = kind.split('(').next().unwrap_or(kind);
        match base {
            "smallint" | "integer" | "bigint" | "numeric" => Self::Whole,
            "text" | "character varying" | "character" => Self::Text,
            other if other.ends_with("citext") => Self::Text,
            other => Self::Other(other.to_owned()),
        }
    }
}
