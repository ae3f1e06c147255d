//! `lab load`: constant load on several regions, until its time is over or a signal asks for the numbers.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use regionwise_cli::duration;
use regionwise_lab::load::{Load as Measured, LoadError, Rate, RegionSummary, Summary, Target};
use regionwise_topology::Topology;
use thiserror::Error;

use crate::report::{self, Failure, Format};
use crate::signals::{self, Stop};

/// Every request is counted, none is repeated; latency counts from the time a request was meant to leave.
#[derive(Args)]
pub(crate) struct Load {
    /// Region and URL, for example us-east=http://127.0.0.1:8080; again for more regions. Without it every region of
    /// --config.
    #[arg(long = "target", value_parser = target, value_name = "REGION=URL")]
    targets: Vec<Target>,
    /// Where the regions and their URLs are read.
    #[arg(
        long,
        env = "REGIONWISE_CONFIG",
        default_value = "regions.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Requests per second and region.
    #[arg(long, value_parser = rate, default_value = "50/s")]
    rate: Rate,
    /// How long; without it until SIGINT or SIGTERM.
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    duration: Option<Duration>,
    /// Create users and orders too; needs a database.
    #[arg(long)]
    writes: bool,
    /// Write a JSON line per second and region to this file.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[arg(long, env = "REGIONWISE_FORMAT", value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Debug, Error)]
enum CannotLoad {
    #[error("cannot read `{}`", .0.display())]
    Config(PathBuf, #[source] io::Error),
    #[error("{0}")]
    Topology(String),
    #[error("cannot create `{}`", .0.display())]
    Log(PathBuf, #[source] io::Error),
}

impl Load {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let runtime = tokio::runtime::Runtime::new()?;
        let format = self.format;
        let (send, stops) = mpsc::channel::<Stop>();
        signals::listen(send)?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // The first signal asks for the numbers; nobody waits for them any more when the receiver is gone.
            if stops.recv().is_ok() {
                let _ = stop.send(());
            }
        });
        let load = self.load()?;
        let summary = runtime
            .block_on(load.run(async {
                // Closed without a signal: nobody can ask any more.
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            }))
            .map_err(|error| match error {
                LoadError::NoTarget | LoadError::Setup { .. } => Failure::invalid(error),
                LoadError::Client(_) | LoadError::Log(_) => Failure::new(error),
            })?;
        let text = match format {
            Format::Human => human(&summary),
            Format::Json => {
                let text = serde_json::to_string_pretty(&summary).map_err(Failure::new)?;
                format!("{text}\n")
            }
        };
        report::print(&text).map(|()| 0)
    }

    fn load(self) -> Result<Measured, Failure> {
        let targets = if self.targets.is_empty() {
            targets_of(&self.config).map_err(|error| {
                Failure::invalid(error).with_hint(Some("lab load --target REGION=URL".to_owned()))
            })?
        } else {
            self.targets
        };
        let log = match self.log {
            Some(path) => Some(
                File::create(&path)
                    .map_err(|error| Failure::invalid(CannotLoad::Log(path, error)))?,
            ),
            None => None,
        };
        Ok(Measured {
            targets,
            rate: self.rate,
            duration: self.duration,
            writes: self.writes,
            log,
        })
    }
}

fn targets_of(config: &PathBuf) -> Result<Vec<Target>, CannotLoad> {
    let bytes = fs::read(config).map_err(|error| CannotLoad::Config(config.clone(), error))?;
    let topology = Topology::parse_bytes(&config.display().to_string(), &bytes)
        .map_err(|problems| CannotLoad::Topology(problems.to_string().trim_end().to_owned()))?;
    let targets = topology.regions.into_iter().map(|region| Target {
        region: region.name,
        url: region.url,
    });
    Ok(targets.collect())
}

fn target(text: &str) -> Result<Target, String> {
    let accepted = "write for example us-east=http://127.0.0.1:8080";
    let (region, url) = text.split_once('=').ok_or(accepted)?;
    let url: reqwest::Url = url
        .parse()
        .map_err(|error| format!("{error}; {accepted}"))?;
    if region.is_empty() || !matches!(url.scheme(), "http" | "https") {
        return Err(accepted.to_owned());
    }
    Ok(Target {
        region: region.to_owned(),
        url,
    })
}

fn rate(text: &str) -> Result<Rate, String> {
    Rate::parse(text)
        .ok_or_else(|| "write for example 50/s; more than 0, at most 10000/s".to_owned())
}

fn human(summary: &Summary) -> String {
    let header = [
        "region", "served", "failed", "p50", "p99", "max", "releases",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(summary.regions.iter().map(row));
    let mut text = report::table(&rows);
    for region in &summary.regions {
        for failed in &region.first_failures {
            let _ = writeln!(
                text,
                "  {} failed at {}: {}: {} (release {})",
                region.region,
                failed.t,
                failed.request,
                failed.kind,
                failed.release.as_deref().unwrap_or("unknown"),
            );
        }
        let told = region.first_failures.len() as u64;
        if region.failed > told {
            let _ = writeln!(
                text,
                "  {} and {} more",
                region.region,
                region.failed - told
            );
        }
    }
    let _ = writeln!(
        text,
        "{} requests served and {} failed in {:.1} s.",
        summary.served(),
        summary.failed(),
        summary.seconds
    );
    text
}

fn row(region: &RegionSummary) -> [String; 7] {
    let releases = region.releases.iter().map(|(release, answers)| {
        let all = answers.served + answers.failed;
        format!("{release}: {all}")
    });
    [
        region.region.clone(),
        region.served.to_string(),
        region.failed.to_string(),
        format!("{:.1} ms", region.p50_ms),
        format!("{:.1} ms", region.p99_ms),
        format!("{:.1} ms", region.max_ms),
        releases.collect::<Vec<_>>().join(", "),
    ]
}
