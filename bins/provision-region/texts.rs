//! What is said about a plan and what was done.

use std::fmt::Write;

use regionwise_cli::{Finding, Level, Report, Table};
use regionwise_provision::{Cost, Kind, Plan};
use regionwise_provisioner::{Done, Why};
use regionwise_rollout::Verdict;
use regionwise_topology::Region;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::addresses;
use crate::look::Seen;

/// Names a plan by what it would do, and where: the same changes at the same prices have the same hash.
pub(crate) fn hash(seen: &Seen<'_>) -> String {
    let mut text = String::new();
    for (plan, reference) in seen.plans.iter().zip(&seen.references) {
        let _ = writeln!(text, "{reference}");
        for change in plan.changes.iter().filter(|change| !change.is_as_wanted()) {
            let wanted = match change.writes() {
                true => json!(change.wanted()),
                false => Value::Null,
            };
            let (word, kind, name) = (change.word(), change.kind().word(), change.name());
            let _ = writeln!(text, "{word} {kind} {name} {} {wanted}", change.note());
        }
        for line in plan.lines.iter().filter(|line| line.new) {
            let price = line
                .price
                .map(|price| price.to_string())
                .unwrap_or_default();
            let _ = writeln!(text, "{} {} {price}", line.name, line.what);
        }
    }
    data_encoding::HEXLOWER.encode(&Sha256::digest(text)[..8])
}

/// The table of a plan, its cost and its hash.
pub(crate) fn report(
    verdict: Verdict,
    region: &Region,
    seen: &Seen<'_>,
    cost: &Cost,
    hash: &str,
) -> Report {
    let mut report = Report::new(verdict, String::new()).in_region(&region.name);
    let currency = &seen.catalogue.prices.currency;
    let mut rows = Vec::new();
    let mut changes = Vec::new();
    for plan in &seen.plans {
        for change in &plan.changes {
            let line = plan
                .lines
                .iter()
                .find(|line| line.name == change.name() && kind_costs(change.kind()));
            let price = match line.map(|line| line.price) {
                None => String::new(),
                Some(None) => "unknown".to_owned(),
                Some(Some(price)) => format!("{price:.2} {currency}"),
            };
            let what = line.map(|line| line.what.clone()).unwrap_or_default();
            rows.push(vec![
                change.word().to_owned(),
                change.kind().word().to_owned(),
                change.name().to_owned(),
                what.clone(),
                price,
                change.note(),
            ]);
            changes.push(json!({
                "change": change.word(), "kind": change.kind().word(), "name": change.name(), "what": what,
                "price": line.and_then(|line| line.price).map(|price| price.to_string()), "note": change.note(),
            }));
        }
    }
    report.tables.push(Table {
        header: vec!["change", "kind", "name", "what", "a month, net", "note"],
        rows,
    });
    report.result = json!({
        "plan": hash, "changes": changes, "cost": cost_json(cost), "requests": seen.requests(),
        "addresses": addresses::known(seen).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    });
    report.outputs.push(("plan", hash.to_owned()));
    let without = seen.without_backup.iter();
    report.findings.extend(without.map(|cluster| Finding {
        level: Level::Notice,
        text: format!(
            "cluster {cluster} has no backup: [provision.backup.{cluster}] says where to"
        ),
    }));
    report
}

/// Whether anything is other than before, for programs.
pub(crate) fn changed(report: &mut Report, changed: bool) {
    report.outputs.push(("changed", changed.to_string()));
    if !report.result.is_object() {
        report.result = json!({});
    }
    report.result["changed"] = changed.into();
}

/// Resources of several kinds may have one name; only these cost something.
const fn kind_costs(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Server | Kind::Address | Kind::Volume | Kind::Balancer
    )
}

fn cost_json(cost: &Cost) -> Value {
    match cost {
        Cost::Within {
            sum,
            currency,
            rest,
        } => {
            json!({ "sum": sum.to_string(), "currency": currency, "rest": rest.map(|rest| rest.to_string()) })
        }
        Cost::Over {
            sum,
            currency,
            budget,
        } => {
            json!({ "sum": sum.to_string(), "currency": currency, "budget": budget.to_string() })
        }
        Cost::Unknown(why) => json!({ "unknown": why }),
    }
}

/// `14 to create, 1 to mend, 3 kept`
pub(crate) fn planned(plans: &[Plan]) -> String {
    let count = |word: &str| {
        let all = plans.iter().flat_map(|plan| &plan.changes);
        all.filter(|change| change.word() == word).count()
    };
    let parts = [
        (count("create"), "to create"),
        (count("mend"), "to mend"),
        (count("keep"), "kept"),
        (
            count("differs"),
            "that differ in what only a person may change",
        ),
        (count("stray"), "no longer wanted and left"),
    ];
    let said: Vec<String> = parts
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, text)| format!("{n} {text}"))
        .collect();
    said.join(", ")
}

/// `Created 14, mended 2`
pub(crate) fn did(done: &Done) -> String {
    let parts = [
        (done.made.len(), "created"),
        (done.mended.len(), "mended"),
        (done.rebuilt.len(), "rebuilt"),
        (done.found.len(), "made by another run meanwhile"),
    ];
    let said: Vec<String> = parts
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, text)| format!("{n} {text}"))
        .collect();
    said.join(", ")
}

/// What to do about it.
pub(crate) const fn next(why: Why) -> &'static str {
    match why {
        Why::Token => "give a token with the right to read and write, as provision.token says",
        Why::Limit => {
            "look into the console: a limit of the project, or of the account, is in the way"
        }
        Why::SoldOut => {
            "wait for stock, or add types under [provision] or fallback_locations to the region"
        }
        Why::Budget => "raise [budget], or put cheaper types first under [provision]",
        Why::Foreign => "rename the other one, or take it over: provision-region adopt",
        Why::Protected => "lift the protection in the console if it may really go",
        Why::Busy => "wait until nobody else works on it",
        Why::Unreachable => "look at status.hetzner.com",
        Why::Lost => "look what is there: provision-region status",
        Why::Action => "look at the resource in the console; delete it there if it is broken",
        Why::Order => "mend what the message names in regions.toml",
        Why::Signal => "nothing is left half-done",
    }
}
