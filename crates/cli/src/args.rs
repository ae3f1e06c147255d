//! Arguments that every binary takes, and what they load.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regionwise_topology::{Region, Topology};

use crate::context::{Ci, Format};
use crate::failure::{Because, Failure, Hint};

/// A file larger than this is not a configuration that a person wrote.
const CONFIG_LIMIT: u64 = 1024 * 1024;

/// Flags of every binary. Order of precedence: flag, environment, default.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// The regions and clusters this is about.
    #[arg(
        long,
        env = "REGIONWISE_CONFIG",
        default_value = "regions.toml",
        value_name = "FILE",
        global = true
    )]
    pub config: PathBuf,

    /// How the result is written to stdout.
    #[arg(
        long,
        env = "REGIONWISE_FORMAT",
        default_value = "human",
        global = true
    )]
    pub format: Format,

    /// Which CI to report to; `auto` looks at the environment.
    #[arg(long, env = "REGIONWISE_CI", default_value = "auto", global = true)]
    pub ci: Ci,

    /// Also append the outputs as NAME=value lines to this file, for shell scripts and other CIs.
    #[arg(long, env = "REGIONWISE_OUTPUTS", value_name = "FILE", global = true)]
    pub outputs: Option<PathBuf>,

    /// Also write a JUnit file for this run into this directory: GitLab and others show it as a test.
    #[arg(long, env = "REGIONWISE_JUNIT", value_name = "DIR", global = true)]
    pub junit: Option<PathBuf>,
}

/// Arguments that contain [`Common`].
pub trait WithCommon {
    fn common(&self) -> &Common;
}

impl Common {
    /// Reads and checks the file that `--config` names.
    ///
    /// # Errors
    /// `invalid` with every problem that the file has.
    pub fn topology(&self) -> Result<Topology, Failure> {
        let text = self.read_config()?;
        Topology::parse_bytes(&self.config.display().to_string(), &text)
            .map_err(|problems| Failure::invalid(problems.to_string().trim_end().to_owned()))
    }

    /// As [`Common::topology`], for what makes the servers: hosts may be without an address.
    ///
    /// # Errors
    /// `invalid` with every problem that the file has.
    pub fn unprovisioned(&self) -> Result<Topology, Failure> {
        let text = self.read_config()?;
        Topology::parse_unprovisioned(&self.config.display().to_string(), &text)
            .map_err(|problems| Failure::invalid(problems.to_string().trim_end().to_owned()))
    }

    fn read_config(&self) -> Result<Vec<u8>, Failure> {
        let path = self.config.display();
        let file = fs::File::open(&self.config)
            .invalid(|| format!("cannot read `{path}`"))
            .hint("name the file with --config, or start from examples/three-regions.toml")?;
        let mut text = Vec::new();
        file.take(CONFIG_LIMIT + 1)
            .read_to_end(&mut text)
            .invalid(|| format!("cannot read `{path}`"))?;
        if text.len() as u64 > CONFIG_LIMIT {
            return Err(Failure::invalid(format!("`{path}` is larger than 1 MiB")));
        }
        Ok(text)
    }

    /// The directory that relative paths of the file are relative to.
    pub fn directory(&self) -> &Path {
        match self.config.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// The region of that name.
    ///
    /// # Errors
    /// `invalid` with the names there are.
    pub fn region<'a>(&self, topology: &'a Topology, name: &str) -> Result<&'a Region, Failure> {
        topology.region(name).ok_or_else(|| {
            let names: Vec<&str> = topology
                .regions
                .iter()
                .map(|region| region.name.as_str())
                .collect();
            Failure::invalid(format!(
                "`{name}` is not a region of `{}`",
                self.config.display()
            ))
            .with_hint(format!("regions: {}", names.join(", ")))
        })
    }
}

/// Parses `500ms`, `2s`, `1m 30s`; for `#[arg(value_parser = duration)]`.
///
/// # Errors
/// A text for clap that says what is accepted.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write for example 500ms, 2s or 1m"))
}
