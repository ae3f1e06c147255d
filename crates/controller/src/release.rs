//! A release as the team writes it down: a small TOML file beside the artefact.
//!
//! ```toml
//! name = "v2"
//! artifact = "shop-api"      # relative to this file
//! sha256 = "…"               # optional: refuse any other artefact
//! config = "shop.toml"       # optional
//! git = "4f2c1d0"            # optional, for the history
//!
//! [env]
//! GREETING = "hello"
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use regionwise_rollout::release::{Digest, Manifest, SchemaRange};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// An env or config larger than this does not fit one message to a host.
const TEXT_LIMIT: usize = 256 * 1024;

/// Names that region-host sets itself; a release that sets them would be somebody else's.
const RESERVED: [&str; 5] = ["LISTEN_ADDRESS", "PORT", "RELEASE", "SLOT", "CONFIG_FILE"];

/// A release, read and hashed.
#[derive(Clone, Debug)]
pub struct Release {
    pub manifest: Manifest,
    pub artifact: PathBuf,
    /// Bytes of the artefact.
    pub size: u64,
    pub env: String,
    pub config: String,
}

/// Why a release file cannot be used. All of them are the caller's to mend; nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    #[error("cannot read `{path}`")]
    Read { path: String, source: io::Error },
    #[error("`{path}` is no release file: {problem}")]
    Syntax { path: String, problem: String },
    #[error("`{path}`: {problem}")]
    Content { path: String, problem: String },
    #[error("artefact `{path}` has sha256 {found}, the release says {expected}")]
    Hash {
        path: String,
        found: Digest,
        expected: Digest,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseFile {
    name: String,
    artifact: PathBuf,
    sha256: Option<Digest>,
    config: Option<PathBuf>,
    git: Option<String>,
    schema: Option<SchemaRange>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

impl Release {
    /// Reads the release file and everything that it names.
    ///
    /// # Errors
    /// [`ReleaseError`]
    pub fn load(path: &Path) -> Result<Self, ReleaseError> {
        let shown = path.display().to_string();
        let file: ReleaseFile =
            toml::from_str(&read_text(path)?).map_err(|error| ReleaseError::Syntax {
                path: shown.clone(),
                problem: error.to_string().trim_end().to_owned(),
            })?;
        let content = |problem: String| ReleaseError::Content {
            path: shown.clone(),
            problem,
        };
        if !Manifest::is_name(&file.name) {
            return Err(content(format!(
                "`{}` cannot be the name of a release: letters, digits, `.`, `_` and `-`, at most 64",
                file.name.escape_debug()
            )));
        }
        if let Some(name) = file
            .env
            .keys()
            .find(|name| !is_env_name(name) || RESERVED.contains(&name.as_str()))
        {
            return Err(content(format!(
                "`{}` cannot be set in `env`",
                name.escape_debug()
            )));
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        let artifact = directory.join(&file.artifact);
        let (found, size) = hash(&artifact)?;
        if let Some(expected) = file.sha256.filter(|expected| *expected != found) {
            return Err(ReleaseError::Hash {
                path: artifact.display().to_string(),
                found,
                expected,
            });
        }
        let config = file
            .config
            .map(|config| read_text(&directory.join(config)))
            .transpose()?
            .unwrap_or_default();
        let env = Manifest::env_text(&file.env);
        if env.len() > TEXT_LIMIT {
            return Err(content("`env` is larger than 256 KiB".to_owned()));
        }
        let manifest = Manifest {
            name: file.name,
            artifact: found,
            env: Digest::of(env.as_bytes()),
            config: Digest::of(config.as_bytes()),
            schema: file.schema,
            git: file.git,
        };
        Ok(Self {
            manifest,
            artifact,
            size,
            env,
            config,
        })
    }
}

fn read_text(path: &Path) -> Result<String, ReleaseError> {
    let shown = path.display().to_string();
    let failed = |source| ReleaseError::Read {
        path: shown.clone(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(TEXT_LIMIT as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > TEXT_LIMIT {
        return Err(ReleaseError::Content {
            path: shown,
            problem: "larger than 256 KiB".to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|error| ReleaseError::Content {
        path: shown,
        problem: format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
    })
}

fn hash(path: &Path) -> Result<(Digest, u64), ReleaseError> {
    let failed = |source| ReleaseError::Read {
        path: path.display().to_string(),
        source,
    };
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a file",
        )));
    }
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Ok((Digest::from_hash(hash), size));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

fn is_env_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
