//! The identity of a release: artefact, env and config, each by its SHA-256.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 as 64 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new().chain_update(bytes))
    }

    /// The digest of everything that `hash` was given.
    pub fn from_hash(hash: Sha256) -> Self {
        Self(
            hash.finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }

    /// A digest that somebody wrote down; `None` unless it has exactly the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.len() == 64
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        well_formed.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for a table.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Digests become file names on the host: nothing but hex may pass.
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("not a sha256 of 64 lower-case hex digits"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// Versions of the database schema that a release works with, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRange {
    pub min: u32,
    pub max: u32,
}

/// One immutable release. A name never comes back with another content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`
    pub name: String,
    pub artifact: Digest,
    pub env: Digest,
    pub config: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaRange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<String>,
}

impl Manifest {
    /// The identity of everything that decides how the release behaves.
    pub fn digest(&self) -> Digest {
        Digest::of(
            format!(
                "artifact {}\nenv {}\nconfig {}\n",
                self.artifact, self.env, self.config
            )
            .as_bytes(),
        )
    }

    /// Whether `name` can be the name of a release: it becomes a directory on every host.
    pub fn is_name(name: &str) -> bool {
        let mut bytes = name.bytes();
        bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
            && name.len() <= 64
            && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    }

    /// The env of a release as it is stored and hashed: sorted `NAME=value` lines, values JSON-quoted.
    pub fn env_text(env: &BTreeMap<String, String>) -> String {
        env.iter()
            .map(|(name, value)| format!("{name}={}\n", serde_json::Value::from(value.as_str())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Manifest};

    #[test]
    fn names_that_would_leave_their_directory_are_no_names() {
        for good in ["v2", "2026-11-24.1", "a_b"] {
            assert!(Manifest::is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "-rf",
            "a/b",
            "a b",
            "v2\n",
            &"x".repeat(65),
        ] {
            assert!(!Manifest::is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_digest_is_only_hex() {
        assert!(Digest::parse(&"a".repeat(64)).is_some());
        for bad in ["", "../../etc/passwd", &"A".repeat(64), &"a".repeat(63)] {
            assert!(Digest::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }
}
