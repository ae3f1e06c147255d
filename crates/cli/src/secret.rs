//! Secrets by reference, resolved at the edge and never printed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regionwise_topology::Secret;

use crate::context::{Ci, Context};
use crate::failure::{Because, Failure, Hint};

/// The text of a secret. Has no `Debug` and no `Display`, so that no message can hold it by accident.
pub struct SecretText(String);

impl SecretText {
    /// The secret itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Context {
    /// Resolves `env:NAME` or `file:PATH` (relative to `directory`, `~/` is the home directory).
    ///
    /// # Errors
    /// `invalid` when the variable is not set, empty, or the file cannot be read.
    pub fn secret(
        &self,
        what: &str,
        secret: &Secret,
        directory: &Path,
    ) -> Result<SecretText, Failure> {
        let text = match secret {
            Secret::Env(name) => match self.variable(name) {
                Some(value) if !value.is_empty() => value.to_owned(),
                Some(_) => {
                    return Err(Failure::invalid(format!(
                        "cannot read {what}: `{name}` is empty"
                    )));
                }
                None => {
                    return Err(Failure::invalid(format!(
                        "cannot read {what}: `{name}` is not set"
                    ))
                    .with_hint(format!("set the environment variable `{name}`")));
                }
            },
            Secret::File(path) => {
                let path = self.expand(path, directory);
                fs::read_to_string(&path)
                    .invalid(|| format!("cannot read {what} from `{}`", path.display()))
                    .hint("check the `file:` reference in regions.toml")?
            }
        };
        if self.ci == Ci::Github {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                self.progress.command("add-mask", line.trim());
            }
        }
        Ok(SecretText(text))
    }

    /// Refuses when several of these are environment variables that are not set: whoever sets one wants to know of the next.
    /// A single one is left to [`Context::secret`], which says what it is for.
    ///
    /// # Errors
    /// One for all that are missing.
    pub fn all_set<'s>(
        &self,
        secrets: impl IntoIterator<Item = &'s Secret>,
    ) -> Result<(), Failure> {
        let missing: BTreeSet<&str> = secrets
            .into_iter()
            .filter_map(|secret| match secret {
                Secret::Env(name) => Some(name.as_str()),
                Secret::File(_) => None,
            })
            .filter(|name| self.variable(name).is_none_or(str::is_empty))
            .collect();
        if missing.len() < 2 {
            return Ok(());
        }
        let names: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
        let text = format!(
            "these environment variables are not set: {}",
            names.join(", ")
        );
        Err(Failure::invalid(text).with_hint("regions.toml takes secrets from them"))
    }

    /// A path of `regions.toml`: `~/` is the home directory, the rest is relative to the file's directory.
    pub fn expand(&self, path: &str, directory: &Path) -> PathBuf {
        match (path.strip_prefix("~/"), self.variable("HOME")) {
            (Some(rest), Some(home)) => Path::new(home).join(rest),
            _ => directory.join(path),
        }
    }
}
