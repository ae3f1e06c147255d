//! Every sample as a line of JSON, for whoever wants to draw or recompute the verdict.

use std::fs;
use std::io::{LineWriter, Write};
use std::path::Path;
use std::time::Duration;

use regionwise_cli::{Because, Failure};
use regionwise_rollout::Verdict;
use regionwise_rollout::lag::{Sample, Seen};
use serde::Serialize;

/// The file of `--samples`, or nothing. Whole lines, so that somebody can follow it.
pub(crate) struct File(Option<LineWriter<fs::File>>);

#[derive(Serialize)]
struct Line<'a> {
    cluster: &'a str,
    standby: &'a str,
    /// When the probe was sent and when its outcome was known, since the start of the run.
    from_ms: f64,
    to_ms: f64,
    seen: &'static str,
    lag_ms: Option<f64>,
    lag_min_ms: Option<f64>,
    lag_max_ms: Option<f64>,
    cause: Option<&'a str>,
    detail: Option<&'a str>,
}

impl File {
    pub(crate) fn create(path: Option<&Path>) -> Result<Self, Failure> {
        let create = |path: &Path| {
            fs::File::create(path).invalid(|| format!("cannot create `{}`", path.display()))
        };
        Ok(Self(path.map(create).transpose()?.map(LineWriter::new)))
    }

    pub(crate) fn write(
        &mut self,
        cluster: &str,
        standby: &str,
        sample: &Sample,
    ) -> Result<(), Failure> {
        let Some(file) = &mut self.0 else {
            return Ok(());
        };
        let empty = Line {
            cluster,
            standby,
            from_ms: millis(sample.from),
            to_ms: millis(sample.to),
            seen: "lag",
            lag_ms: None,
            lag_min_ms: None,
            lag_max_ms: None,
            cause: None,
            detail: None,
        };
        let line = match &sample.seen {
            Seen::Lag(bounds) => Line {
                lag_ms: Some(millis(bounds.estimate())),
                lag_min_ms: Some(millis(bounds.min)),
                lag_max_ms: Some(millis(bounds.max)),
                ..empty
            },
            Seen::AtLeast(lag) => Line {
                seen: "at-least",
                lag_min_ms: Some(millis(*lag)),
                ..empty
            },
            Seen::Unknown(cause) => Line {
                seen: "unknown",
                cause: Some(cause.word),
                detail: Some(&cause.detail),
                ..empty
            },
        };
        // The record is part of what was asked for: a run that cannot keep it has not done its job.
        let written = serde_json::to_writer(&mut *file, &line).map_err(std::io::Error::from);
        written
            .and_then(|()| writeln!(file))
            .because(Verdict::Pause, || "cannot write the samples".to_owned())
    }

    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Some(mut file) = self.0 else {
            return Ok(());
        };
        file.flush()
            .because(Verdict::Pause, || "cannot write the samples".to_owned())
    }
}

pub(crate) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
