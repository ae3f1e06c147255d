//! The result for people: verdict and tables to stdout, causes and hints to stderr.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;

use super::{Level, Report, Table};
use crate::context::Context;
use crate::progress::{printable, write_line};

pub(super) fn write(report: &Report, context: &Context) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let place = report
        .region
        .as_ref()
        .map(|region| format!(" {region}"))
        .unwrap_or_default();
    writeln!(out, "{}{place}: {}", context.binary, report.verdict)?;
    for line in printable(&report.summary).lines() {
        writeln!(out, "  {line}")?;
    }
    for table in report.tables.iter().filter(|table| !table.rows.is_empty()) {
        writeln!(out)?;
        write!(out, "{}", indented(&render(table)))?;
    }
    out.flush()?;
    for cause in &report.causes {
        write_line(&format!("  caused by: {}", printable(cause)));
    }
    for finding in &report.findings {
        let word = match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Notice => "note",
        };
        write_line(&format!("  {word}: {}", printable(&finding.text)));
    }
    for hint in &report.hints {
        write_line(&format!("  hint: {}", printable(hint)));
    }
    Ok(())
}

fn render(table: &Table) -> String {
    let mut rendered = comfy_table::Table::new();
    rendered.load_preset(NOTHING).set_header(&table.header);
    for row in &table.rows {
        rendered.add_row(row.iter().map(|cell| printable(cell)));
    }
    rendered.to_string()
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!(" {}\n", line.trim_end()))
        .collect()
}
