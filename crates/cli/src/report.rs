//! One result, several renderings: text and JSON on stdout, outputs, summary, annotations and JUnit for a CI.

mod github;
mod human;
mod json;
mod junit;
mod outputs;

use std::process::ExitCode;

use regionwise_rollout::Verdict;
use serde::Serialize;

use crate::context::{Ci, Context, Format};
use crate::failure::Failure;
use crate::progress::write_line;

/// What a run found and did.
pub struct Report {
    pub verdict: Verdict,
    /// One sentence: what is true now.
    pub summary: String,
    pub region: Option<String>,
    /// Why, as a word for programs: `lagging`, `no-samples`, `deadman`.
    pub reason: Option<String>,
    /// The binary's own fields, under `result` in JSON.
    pub result: serde_json::Value,
    pub tables: Vec<Table>,
    pub findings: Vec<Finding>,
    /// What to do next, as commands where there are some.
    pub hints: Vec<String>,
    /// Outputs for a workflow besides `verdict` and `reason`.
    pub outputs: Vec<(&'static str, String)>,
    /// The error's chain, outermost first, when the run ended in a failure.
    causes: Vec<String>,
}

impl Report {
    pub fn new(verdict: Verdict, summary: impl Into<String>) -> Self {
        Self {
            verdict,
            summary: summary.into(),
            region: None,
            reason: None,
            result: serde_json::Value::Null,
            tables: Vec::new(),
            findings: Vec::new(),
            hints: Vec::new(),
            outputs: Vec::new(),
            causes: Vec::new(),
        }
    }

    pub(crate) fn from_failure(failure: &Failure) -> Self {
        let mut chain = failure.chain();
        let summary = chain.remove(0);
        Self {
            causes: chain,
            hints: failure.hints.clone(),
            ..Self::new(failure.verdict, summary)
        }
    }

    #[must_use]
    pub fn in_region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Writes every rendering and returns the exit code.
    pub(crate) fn finish(&self, context: &Context) -> ExitCode {
        let written = match context.format {
            Format::Human => human::write(self, context),
            Format::Json => json::write(self, context),
        };
        let reported = match context.ci {
            Ci::Github => github::write(self, context),
            Ci::Gitlab | Ci::None | Ci::Auto => Ok(()),
        };
        let outputs = context
            .outputs
            .as_ref()
            .map_or(Ok(()), |path| outputs::append(self, path));
        let junit = context.junit.as_ref().map_or(Ok(()), |directory| {
            junit::write(self, &context.binary, directory)
        });
        for error in [written, reported, outputs, junit]
            .into_iter()
            .filter_map(Result::err)
        {
            write_line(&format!("error: cannot write the report: {error}"));
        }
        ExitCode::from(self.verdict.exit_code())
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warning,
    Notice,
}

/// One thing worth an annotation.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub level: Level,
    pub text: String,
}

/// A small table for people.
#[derive(Clone, Debug)]
pub struct Table {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}
