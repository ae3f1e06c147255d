//! The plan of a migration: what moves, what was decided, what stands against it, and a hash that `run` is held to.
//!
//! Made from facts alone: the same facts give the same plan, whatever the order they come in. The hash covers the shapes
//! of both sides, the rules, who moves and which servers these are; sizes and counts are shown, and change every day.

mod estimate;
mod tree;

use std::fmt;

use serde::Serialize;

use super::refusal::{Reason, Refusal, Side, Warning};
use super::rules::{Rules, Unowned};
use super::shape::{Fields, Shape, name, other_user, shape, unowned};
use super::{Decision, Discovered, discover, servers, sides, tables};
use crate::catalog::{Catalog, Server, TableName};

pub use estimate::{Estimate, Load, Rates};
pub use tree::{Branch, Counted, Counts};

/// Grows when a run of an older version could not go on with this one.
pub const PROTOCOL: u32 = 2;

/// Everything that a plan is made of.
#[derive(Clone, Debug)]
pub struct Facts<'f> {
    pub source: Cluster<'f>,
    pub target: Cluster<'f>,
    pub root: &'f TableName,
    pub rules: &'f Rules,
    /// The condition that says who moves.
    pub users: &'f str,
    /// `None` before anything was counted.
    pub counts: Option<&'f Counts>,
}

/// One side.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'f> {
    pub catalog: &'f Catalog,
    pub server: &'f Server,
}

#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The tables as they hang on each other, the root first.
    pub tree: Vec<Branch>,
    pub decided: Vec<Decision>,
    /// Nothing moves while there is one.
    pub refused: Vec<Refusal>,
    pub warnings: Vec<Warning>,
    pub source: Shape,
    pub target: Shape,
    pub hash: PlanHash,
    /// What the engine works with; as the source has it.
    #[serde(skip)]
    pub found: Discovered,
}

/// What an approved plan is known by: a SHA-256, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanHash(String);

impl PlanHash {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a person meant this plan, having typed its first 16 digits or more.
    pub fn is_meant_by(&self, text: &str) -> bool {
        text.len() >= SHOWN && self.0.starts_with(text)
    }
}

/// Enough to tell plans apart, and still to be read aloud.
const SHOWN: usize = 16;

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[..SHOWN])
    }
}

impl Plan {
    /// # Errors
    /// All that stands against a plan without tables: no root to begin from, at one side or both.
    pub fn make(facts: &Facts<'_>) -> Result<Self, Vec<Refusal>> {
        let (source, target) = (&facts.source, &facts.target);
        let discover = |side: &Cluster<'_>| discover(side.catalog, facts.root, facts.rules);
        let (here, there) = match (discover(source), discover(target)) {
            (Ok(here), Ok(there)) => (here, there),
            (here, there) => {
                let reason =
                    |side: Result<Discovered, Box<Reason>>| side.err().map(|reason| *reason);
                return Err(merged(reason(here), reason(there)));
            }
        };
        let mut refused = servers::refusals(source.server, target.server);
        refused.extend(merged(
            reasons(source, &here),
            // What the target lacks, the comparison says.
            reasons(target, &there)
                .into_iter()
                .filter(|reason| !follows_from_a_difference(reason)),
        ));
        refused.extend(sides::refusals(source.catalog, target.catalog, &here));
        refused.extend(facts.counts.map_or_else(Vec::new, |counts| {
            let counted = counted(&here, counts);
            merged(counted, None)
        }));
        let shapes = (shape(&here), shape(&there));
        Ok(Self {
            tree: tree::branches(&here.closure, facts.counts),
            decided: here.decided.clone(),
            refused,
            warnings: servers::warnings(source.server, target.server),
            hash: hash(facts, &shapes),
            source: shapes.0,
            target: shapes.1,
            found: here,
        })
    }

    /// The tree, one line for each table.
    pub fn lines(&self) -> Vec<String> {
        tree::lines(&self.tree)
    }
}

fn reasons(side: &Cluster<'_>, found: &Discovered) -> Vec<Reason> {
    let mut reasons = found.refused.clone();
    reasons.extend(tables::refusals(side.catalog, side.server, found));
    reasons
}

fn follows_from_a_difference(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::RuleForUnknownTable { .. }
            | Reason::RuleForUnknownColumn { .. }
            | Reason::RuleForUnknownKey { .. }
            | Reason::RuleWithoutReference { .. }
            | Reason::RuleLeadsNowhere { .. }
    )
}

/// What is the matter at both sides is said once.
fn merged(
    source: impl IntoIterator<Item = Reason>,
    target: impl IntoIterator<Item = Reason>,
) -> Vec<Refusal> {
    let mut target: Vec<Reason> = target.into_iter().collect();
    let mut refused: Vec<Refusal> = source
        .into_iter()
        .map(|reason| {
            let same = target.iter().position(|other| *other == reason);
            let at = match same.map(|at| target.remove(at)) {
                Some(_) => Side::Both,
                None => Side::Source,
            };
            Refusal { at, reason }
        })
        .collect();
    refused.extend(target.into_iter().map(|reason| Refusal {
        at: Side::Target,
        reason,
    }));
    refused
}

/// What rules refuse to be there, and is.
fn counted(found: &Discovered, counts: &Counts) -> Vec<Reason> {
    let tables = &found.closure.tables;
    let mut refused = Vec::new();
    for (number, then) in &found.unowned {
        let table = &tables[*number].table.name;
        match (then, counts.unowned.get(table)) {
            (Unowned::Refuse, Some(rows)) if *rows > 0 => refused.push(Reason::UnownedRows {
                table: table.clone(),
                rows: *rows,
            }),
            _ => {}
        }
    }
    for crossing in &found.crossings {
        let member = &tables[crossing.table];
        let reference = &member.references[crossing.reference];
        let key = (member.table.name.clone(), reference.columns.clone());
        // Whatever the rule says: no rule moves two users together yet, and a row that changed on its way is not proven.
        match counts.crossing.get(&key) {
            Some(rows) if *rows > 0 => refused.push(Reason::OtherUsersRows {
                table: key.0,
                columns: key.1,
                references: reference.references.clone(),
                rows: *rows,
            }),
            Some(_) | None => {}
        }
    }
    refused
}

fn hash(facts: &Facts<'_>, shapes: &(Shape, Shape)) -> PlanHash {
    let mut fields = Fields::of("regionwise plan");
    fields.number(PROTOCOL as usize);
    name(&mut fields, facts.root);
    fields.text(facts.users);
    for (side, shape) in [(&facts.source, &shapes.0), (&facts.target, &shapes.1)] {
        fields.text(&side.server.system_identifier.to_string());
        fields.text(&side.server.database);
        fields.text(shape.as_str());
    }
    rules(&mut fields, facts.rules);
    PlanHash(fields.hex())
}

fn rules(fields: &mut Fields, rules: &Rules) {
    fields.list(&rules.tables, |fields, (table, rule)| {
        name(fields, table);
        fields.list(rule.owner.as_slice(), |fields, owner| {
            fields.texts(&owner.columns);
            name(fields, &owner.references);
            fields.texts(&owner.referenced);
        });
        fields.texts(&rule.owner_by);
        fields.flag(rule.stays);
        fields.flag(rule.shared);
        fields.option(rule.unowned.map(unowned));
        fields.list(&rule.other_users, |fields, (column, then)| {
            fields.text(column);
            fields.text(other_user(*then));
        });
    });
}
