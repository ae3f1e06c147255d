//! The result for GitHub Actions: outputs, a step summary, annotations. Needs no other tool in the workflow.

use std::io;

use regionwise_rollout::Verdict;

use super::{Finding, Level, Report, Table, outputs};
use crate::context::Context;
use crate::progress::printable;

/// GitHub shows 10 annotations of a step; one is kept for the runner's own "process completed with exit code".
const ANNOTATIONS: usize = 9;
/// GitHub drops a step summary over 1 MiB.
const SUMMARY_LIMIT: usize = 900 * 1024;

pub(super) fn write(report: &Report, context: &Context) -> io::Result<()> {
    if let Some(path) = context.file_from("GITHUB_OUTPUT") {
        outputs::append(report, &path)?;
    }
    if let Some(path) = context.file_from("GITHUB_STEP_SUMMARY") {
        let mut text = summary(report, &context.binary);
        if text.len() > SUMMARY_LIMIT {
            let end = (0..=SUMMARY_LIMIT)
                .rev()
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(0);
            text.truncate(end);
            text.push_str("\n\ncut at 900 KiB\n");
        }
        outputs::append_text(&path, &text)?;
    }
    for finding in annotations(report) {
        let level = match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Notice => "notice",
        };
        context.progress.command(
            &format!("{level} title={}", context.binary),
            &printable(&finding.text),
        );
    }
    Ok(())
}

fn summary(report: &Report, binary: &str) -> String {
    let place = report
        .region
        .as_ref()
        .map(|region| format!(" {region}"))
        .unwrap_or_default();
    let mut text = format!(
        "### {binary}{place}: {}\n\n{}\n\n",
        report.verdict,
        printable(&report.summary)
    );
    for table in report.tables.iter().filter(|table| !table.rows.is_empty()) {
        text.push_str(&markdown(table));
        text.push('\n');
    }
    text.extend(
        report
            .hints
            .iter()
            .map(|hint| format!("- {}\n", printable(hint))),
    );
    text
}

fn markdown(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let cell = |text: &str| printable(text).replace('|', "\\|").replace('\n', "<br>");
    let mut text = line(table.header.iter().map(|name| (*name).to_owned()).collect());
    text.push_str(&line(
        table.header.iter().map(|_| "---".to_owned()).collect(),
    ));
    text.extend(
        table
            .rows
            .iter()
            .map(|row| line(row.iter().map(|value| cell(value)).collect())),
    );
    text
}

/// The verdict first when it is not `proceed`, then the findings, worst first.
fn annotations(report: &Report) -> Vec<Finding> {
    let mut found = Vec::new();
    if report.verdict != Verdict::Proceed {
        found.push(Finding {
            level: Level::Error,
            text: format!("{}: {}", report.verdict, report.summary),
        });
    }
    for level in [Level::Error, Level::Warning, Level::Notice] {
        found.extend(
            report
                .findings
                .iter()
                .filter(|finding| finding.level == level)
                .cloned(),
        );
    }
    found.truncate(ANNOTATIONS);
    found
}
