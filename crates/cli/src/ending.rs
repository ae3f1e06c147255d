//! From the ending of an operation on a region to its report.

use regionwise_controller::Ending;
use serde_json::{Value, json};

use crate::report::{Report, Table};

/// The report of an operation on `region`.
pub fn report(ending: &Ending, region: &str, operation: &str) -> Report {
    let timings: Vec<Value> = ending
        .timings
        .iter()
        .map(|(step, took)| json!({ "step": step, "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX) }))
        .collect();
    let mut report = Report::new(ending.verdict, &ending.summary)
        .in_region(region)
        .because(ending.reason);
    report.result = json!({
        "operation": operation,
        "traffic": ending.traffic.word(),
        "changed": ending.changed,
        "hosts": ending.hosts,
        "timings": timings,
    });
    report.tables.push(Table {
        header: vec!["host", "release", "note"],
        rows: ending
            .hosts
            .iter()
            .map(|host| {
                vec![
                    host.host.clone(),
                    host.release.clone().unwrap_or_else(|| "-".to_owned()),
                    host.note.clone(),
                ]
            })
            .collect(),
    });
    report.hints.clone_from(&ending.hints);
    report.outputs.push(("operation", operation.to_owned()));
    report
        .outputs
        .push(("traffic", ending.traffic.word().to_owned()));
    report.outputs.push(("changed", ending.changed.to_string()));
    report.outputs.push(("serves", serves(ending)));
    report
}

/// The release that every host ended on; empty when they differ, nothing serves, or it is not known.
fn serves(ending: &Ending) -> String {
    let mut releases = ending.hosts.iter().map(|host| host.release.as_deref());
    match releases.next().flatten() {
        Some(first) if releases.all(|release| release == Some(first)) => first.to_owned(),
        _ => String::new(),
    }
}
