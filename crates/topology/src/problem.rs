//! What is wrong with a `regions.toml`, and how it reads.
//!
//! A rule returns a [`Finding`], which knows the key but no line; [`Problems`] adds the lines. No text here ever
//! quotes a secret: see [`quoted`].

use std::fmt;

use crate::document::Document;

/// Everything that is wrong with a file. Never empty; in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The one problem of a file that could not be read further.
    pub(crate) fn whole_file(
        file: &str,
        position: Position,
        found: String,
        accepted: &str,
    ) -> Self {
        Self(vec![Problem::at(
            position,
            file,
            Finding::new(&Key::default(), found, accepted),
        )])
    }

    pub(crate) fn located(document: &Document<'_>, findings: Vec<Finding>) -> Self {
        let locate = |finding: Finding| {
            Problem::at(document.position(&finding.key), document.file(), finding)
        };
        let mut problems: Vec<Problem> = findings.into_iter().map(locate).collect();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self(problems)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    fn text(&self) -> String {
        let texts: Vec<String> = self.0.iter().map(Problem::to_string).collect();
        texts.join("\n")
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One thing that is wrong with a file. Reads as "`key` is `found`".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The dotted path, for example `regions.us-east.traffic`. Empty when the problem is the file as a whole.
    pub key: String,
    /// The value, or what can be said of it. Never a secret.
    pub found: String,
    pub accepted: String,
    /// What the author of the file probably meant, or does next.
    pub hint: Option<String>,
}

impl Problem {
    fn at(Position { line, column }: Position, file: &str, finding: Finding) -> Self {
        Self {
            file: file.to_owned(),
            line,
            column,
            key: finding.key.to_string(),
            found: finding.found,
            accepted: finding.accepted,
            hint: finding.hint,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        match self.key.as_str() {
            "" => write!(f, "this is {}", self.found)?,
            key => write!(f, "`{key}` is {}", self.found)?,
        }
        write!(f, "\n  accepted: {}", self.accepted)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// A broken rule, before the line is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) key: Key,
    pub(crate) found: String,
    pub(crate) accepted: String,
    pub(crate) hint: Option<String>,
}

impl Finding {
    pub(crate) fn new(key: &Key, found: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self {
            key: key.clone(),
            found: found.into(),
            accepted: accepted.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Points at the candidate that was probably meant, if one is close.
    pub(crate) fn meant<'a>(
        self,
        word: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let hint = closest(word, candidates).map(|meant| format!("did you mean `{meant}`?"));
        Self { hint, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// The dotted path of a value. Empty for the document itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Name(String),
    Index(usize),
}

impl Key {
    pub(crate) fn name(&self, name: &str) -> Self {
        self.step(Step::Name(name.to_owned()))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        Self([self.0.as_slice(), &[step]].concat())
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) => {
                    let dot = if at == 0 { "" } else { "." };
                    write!(
                        f,
                        "{dot}{}",
                        if is_bare(name) {
                            name.clone()
                        } else {
                            quoted(name)
                        }
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// TOML wants no quotes around such a key.
fn is_bare(name: &str) -> bool {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= QUOTE_LIMIT && name.chars().all(bare)
}

/// A longer text says no more to a reader, and the report stays readable.
const QUOTE_LIMIT: usize = 60;

/// Text from the file, fit to be shown: on one line, not too long, and withheld when it may hold credentials.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains("://") && text.contains('@') {
        return "a URL with credentials".to_owned();
    }
    let shown: String = text.chars().take(QUOTE_LIMIT).collect();
    let more = if shown.len() < text.len() { ".." } else { "" };
    format!("\"{}{more}\"", shown.escape_debug())
}

/// A name in backticks, and anything else as [`quoted`].
pub(crate) fn ticked(name: &str) -> String {
    if is_bare(name) {
        format!("`{name}`")
    } else {
        quoted(name)
    }
}

/// `` `a`, `b`, `c` ``
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(ticked).collect();
    names.join(", ")
}

pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A third of the letters may differ: `trafic` is `traffic`, `eu` is not `us`.
    let limit = word.chars().count().div_ceil(3).min(3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}
