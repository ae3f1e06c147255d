//! Why a run could not find out or could not do what it was asked: kind, chain and hints in one value.

use std::fmt;

use anyhow::Error;
use regionwise_rollout::Verdict;

/// A run that ended without a result of its own. Printed in one place, with its `caused by:` chain and hints.
pub struct Failure {
    pub verdict: Verdict,
    pub error: Error,
    pub hints: Vec<String>,
}

impl Failure {
    pub fn new(
        verdict: Verdict,
        text: impl fmt::Display + fmt::Debug + Send + Sync + 'static,
    ) -> Self {
        Self {
            verdict,
            error: Error::msg(text),
            hints: Vec::new(),
        }
    }

    /// Usage or configuration: the caller's to mend; nothing was touched.
    pub fn invalid(text: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self::new(Verdict::Invalid, text)
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The failure and everything that led to it, outermost first.
    pub fn chain(&self) -> Vec<String> {
        self.error.chain().map(ToString::to_string).collect()
    }
}

/// An error that nobody foresaw is a bug of ours, and handled as `unknown`.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            verdict: Verdict::Failed,
            error,
            hints: Vec::new(),
        }
    }
}

/// Names the failed action and its verdict at the place where the error happens.
pub trait Because<T> {
    /// # Errors
    /// The error with `text` above it, as `verdict`.
    fn because(self, verdict: Verdict, text: impl FnOnce() -> String) -> Result<T, Failure>;

    /// # Errors
    /// The error with `text` above it, as [`Verdict::Invalid`].
    fn invalid(self, text: impl FnOnce() -> String) -> Result<T, Failure>
    where
        Self: Sized,
    {
        self.because(Verdict::Invalid, text)
    }
}

impl<T, E: Into<Error>> Because<T> for Result<T, E> {
    fn because(self, verdict: Verdict, text: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            verdict,
            error: error.into().context(text()),
            hints: Vec::new(),
        })
    }
}

/// Adds what to do next to a failure on its way up.
pub trait Hint<T> {
    /// # Errors
    /// The same failure, one hint longer.
    fn hint(self, hint: impl Into<String>) -> Result<T, Failure>;
}

impl<T> Hint<T> for Result<T, Failure> {
    fn hint(self, hint: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|failure| failure.with_hint(hint))
    }
}
