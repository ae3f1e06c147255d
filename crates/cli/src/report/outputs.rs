//! The outputs as `NAME=value` lines: what GitHub reads from `GITHUB_OUTPUT`, GitLab as dotenv, and a shell script.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::Report;

pub(super) fn append(report: &Report, path: &Path) -> io::Result<()> {
    append_text(path, &lines(report))
}

pub(super) fn append_text(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(text.as_bytes())
}

fn lines(report: &Report) -> String {
    let reason = report.reason.as_deref().unwrap_or("");
    let own = report
        .outputs
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    [("verdict", report.verdict.word()), ("reason", reason)]
        .into_iter()
        .chain(own)
        // An output is one line: a line break would start another output.
        .map(|(name, value)| format!("{name}={}\n", value.replace(['\r', '\n'], " ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use regionwise_rollout::Verdict;

    use super::lines;
    use crate::report::Report;

    #[test]
    fn a_line_break_in_a_value_cannot_make_another_output() {
        let mut report = Report::new(Verdict::Pause, "held").because("lagging\nverdict=proceed");
        report
            .outputs
            .push(("host", "eu-1\r\nverdict=proceed".to_owned()));
        assert_eq!(
            lines(&report),
            "verdict=pause\nreason=lagging verdict=proceed\nhost=eu-1  verdict=proceed\n"
        );
    }
}
