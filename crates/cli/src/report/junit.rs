//! The result as a JUnit file: one test case, which fails with every verdict but `proceed`.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use regionwise_rollout::Verdict;

use super::{Level, Report};
use crate::progress::printable;

/// One file for each binary and region: steps of one job do not write over each other, and a step that runs again does.
pub(super) fn write(report: &Report, binary: &str, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let name = match &report.region {
        Some(region) => format!("{binary}-{region}.xml"),
        None => format!("{binary}.xml"),
    };
    fs::write(directory.join(name), text(report, binary))
}

fn text(report: &Report, binary: &str) -> String {
    let (failures, errors) = match kind(report.verdict) {
        None => (0, 0),
        Some("failure") => (1, 0),
        Some(_) => (0, 1),
    };
    let suite = escaped(binary);
    let case = escaped(report.region.as_deref().unwrap_or(binary));
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  \
         <testsuite name=\"{suite}\" tests=\"1\" failures=\"{failures}\" errors=\"{errors}\">\n    \
         <testcase classname=\"{suite}\" name=\"{case}\">\n"
    );
    if let Some(kind) = kind(report.verdict) {
        let reason = report.reason.as_deref().unwrap_or(report.verdict.word());
        let _ = writeln!(
            text,
            "      <{kind} type=\"{}\" message=\"{}\">{}</{kind}>",
            escaped(reason),
            escaped(&format!("{}: {}", report.verdict, report.summary)),
            escaped(&details(report))
        );
    } else {
        let _ = writeln!(
            text,
            "      <system-out>{}</system-out>",
            escaped(&report.summary)
        );
    }
    text.push_str("    </testcase>\n  </testsuite>\n</testsuites>\n");
    text
}

/// A failed test is a verdict about the release or the region; an error means that nothing was found out.
fn kind(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Proceed => None,
        Verdict::Pause
        | Verdict::RollBack
        | Verdict::Refused
        | Verdict::RolledBack
        | Verdict::Mixed => Some("failure"),
        Verdict::Failed
        | Verdict::Invalid
        | Verdict::Unreachable
        | Verdict::Unknown
        | Verdict::Locked
        | Verdict::Interrupted
        | Verdict::Terminated => Some("error"),
    }
}

/// What a person reads below the message: causes, findings that matter, what to do next.
fn details(report: &Report) -> String {
    let causes = report
        .causes
        .iter()
        .map(|text| format!("caused by: {text}"));
    let findings = report
        .findings
        .iter()
        .filter(|finding| finding.level != Level::Notice)
        .map(|finding| finding.text.clone());
    let hints = report.hints.iter().map(|text| format!("hint: {text}"));
    let lines: Vec<String> = causes.chain(findings).chain(hints).collect();
    lines.join("\n")
}

/// For an attribute or a text; what no XML may hold is already gone with `printable`.
fn escaped(text: &str) -> String {
    printable(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use regionwise_rollout::Verdict;

    use super::text;
    use crate::report::Report;

    #[test]
    fn every_verdict_but_proceed_is_a_test_that_did_not_pass() {
        for verdict in Verdict::ALL {
            let text = text(
                &Report::new(verdict, "seen").in_region("eu-central"),
                "smoke-test",
            );
            let bad = text.contains("failures=\"1\"") || text.contains("errors=\"1\"");
            assert_eq!(bad, verdict != Verdict::Proceed, "{text}");
            assert_eq!(
                bad,
                text.contains("<failure ") || text.contains("<error "),
                "{text}"
            );
        }
    }

    #[test]
    fn foreign_text_stays_text() {
        let report = Report::new(Verdict::Pause, "a < b & \"c\"\u{1b}[31m")
            .because("</failure>")
            .with_hint("look at <eu-1>");
        let text = text(&report, "smoke-test");
        assert!(
            text.contains("type=\"&lt;/failure&gt;\" message=\"pause: a &lt; b &amp; &quot;c&quot;\u{fffd}[31m\""),
            "{text}"
        );
        assert!(
            text.contains(">hint: look at &lt;eu-1&gt;</failure>"),
            "{text}"
        );
    }
}
