//! The environment as a value, and the one error for what is wrong in it.

use std::collections::BTreeMap;
use std::fmt::Display;

/// Variables by name. An empty value counts as unset, because env files cannot unset.
pub(crate) struct Environment(BTreeMap<String, String>);

/// A variable whose value cannot be used: the fault of whoever wrote the release's env. Never carries a secret's value.
#[derive(Debug)]
pub(crate) struct WrongValue {
    pub(crate) name: String,
    /// What is wrong with it.
    pub(crate) problem: String,
    pub(crate) accepted: &'static str,
}

impl std::error::Error for WrongValue {}

impl Display for WrongValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cannot use `{}`: {}; accepted: {}",
            self.name, self.problem, self.accepted
        )
    }
}

impl Environment {
    /// The process environment; read once.
    pub(crate) fn of_process() -> Result<Self, WrongValue> {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            // A foreign variable that is not text is none of ours.
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    variables.insert(name, value);
                }
                Err(_) if is_ours(&name) => {
                    return Err(WrongValue {
                        name,
                        problem: "not UTF-8".to_owned(),
                        accepted: "text",
                    });
                }
                Err(_) => {}
            }
        }
        Ok(Self(variables))
    }

    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.get(name).unwrap_or(default)
    }

    /// The parsed value, `None` when the variable is unset.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        accepted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, WrongValue> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match parse(value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(WrongValue {
                name: name.to_owned(),
                problem: format!("found `{value}`"),
                accepted,
            }),
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, _)| name.as_str())
    }
}

/// Whether the variable is one that this program reads.
fn is_ours(name: &str) -> bool {
    crate::config::VARIABLES.contains(&name) || crate::faults::VARIABLES.contains(&name)
}
