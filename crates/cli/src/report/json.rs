//! The result for programs: one JSON object on stdout. Fields may be added; `schema` grows when one changes its meaning.

use std::io::{self, Write};

use regionwise_rollout::Verdict;
use serde::Serialize;

use super::{Finding, Report};
use crate::context::Context;

/// Version of this object's fields.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    binary: &'a str,
    version: &'a str,
    verdict: Verdict,
    exit_code: u8,
    region: Option<&'a str>,
    reason: Option<&'a str>,
    summary: &'a str,
    causes: &'a [String],
    findings: &'a [Finding],
    hints: &'a [String],
    result: &'a serde_json::Value,
}

pub(super) fn write(report: &Report, context: &Context) -> io::Result<()> {
    let document = Document {
        schema: SCHEMA,
        binary: &context.binary,
        version: env!("CARGO_PKG_VERSION"),
        verdict: report.verdict,
        exit_code: report.verdict.exit_code(),
        region: report.region.as_deref(),
        reason: report.reason.as_deref(),
        summary: &report.summary,
        causes: &report.causes,
        findings: &report.findings,
        hints: &report.hints,
        result: &report.result,
    };
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &document)?;
    writeln!(out)
}
