//! `lab timeline`: what users noticed of a rollout, from two logs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use regionwise_lab::timeline;
use thiserror::Error;

use crate::report::{self, Failure, Format};

/// One row per region and release, in time order.
#[derive(Args)]
pub(crate) struct Timeline {
    /// Event log of scripts/rollout.
    #[arg(long, value_name = "FILE")]
    rollout: PathBuf,
    /// Log of `lab load`.
    #[arg(long, value_name = "FILE")]
    load: PathBuf,
    #[arg(long, env = "REGIONWISE_FORMAT", value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Error)]
#[error("cannot read `{}`", .path.display())]
struct CannotRead {
    path: PathBuf,
    source: io::Error,
}

impl Timeline {
    pub(crate) fn run(&self) -> Result<u8, Failure> {
        let timeline =
            timeline::read(&read(&self.rollout)?, &read(&self.load)?).map_err(Failure::invalid)?;
        let text = match self.format {
            Format::Human => timeline.table(),
            Format::Json => {
                let text = serde_json::to_string_pretty(&timeline).map_err(Failure::new)?;
                format!("{text}\n")
            }
        };
        report::print(&text).map(|()| 0)
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|source| {
        Failure::invalid(CannotRead {
            path: path.to_owned(),
            source,
        })
    })
}
