//! What `lab` prints, and how it fails.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::ValueEnum;
use regionwise_lab::control::{ControlError, Status};
use regionwise_lab::launch::LaunchError;
use regionwise_lab::link::Fault;

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Human,
    Json,
}

const FAILED: u8 = 1;
const INVALID: u8 = 2;

/// Why `lab` could not do what it was asked.
pub(crate) struct Failure {
    code: u8,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self {
            code: FAILED,
            error: error.into(),
            hint: None,
        }
    }

    /// The caller must change something first.
    pub(crate) fn invalid(error: impl Error + Send + Sync + 'static) -> Self {
        Self {
            code: INVALID,
            ..Self::new(error)
        }
    }

    pub(crate) fn because(text: String, error: io::Error) -> Self {
        Self {
            code: FAILED,
            error: anyhow::Error::new(error).context(text),
            hint: None,
        }
    }

    pub(crate) fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    pub(crate) fn print(self) -> ExitCode {
        let mut text = format!("{}\n", self.error);
        for cause in self.error.chain().skip(1) {
            let _ = writeln!(text, "  caused by: {cause}");
        }
        if let Some(hint) = self.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
        // Nowhere left to say that stderr is closed.
        let _ = io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.code)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let hint = error.hint();
        let failure = match error {
            ControlError::NotRunning { .. } | ControlError::Refused { .. } => Self::invalid(error),
            ControlError::Broken { .. } => Self::new(error),
        };
        failure.with_hint(hint)
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let hint = error.hint();
        let failure = if error.is_invalid() {
            Self::invalid(error)
        } else {
            Self::new(error)
        };
        failure.with_hint(hint)
    }
}

/// The result, on stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::because("cannot write to stdout".to_owned(), error))
}

/// Progress, on stderr. A closed one must not stop a lab.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

pub(crate) fn tell_up(part: &str, millis: u64) {
    tell(&format!("{:>7.2} s  {part}", seconds(millis)));
}

pub(crate) fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}

pub(crate) fn json(status: &Status) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(status).map_err(Failure::new)?;
    Ok(format!("{text}\n"))
}

/// Lines for `eval`.
pub(crate) fn exports(status: &Status) -> String {
    let quote = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
    status
        .env
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", quote(value)))
        .collect()
}

pub(crate) fn human(status: &Status) -> String {
    let mut text = format!(
        "Lab in {}\n  block {}, account {}, guard {}, supervisor {}, ready after {:.2} s\n\n",
        status.dir.display(),
        status.block,
        status.account,
        status.guard_pid,
        status.supervisor_pid,
        seconds(status.ready_after_ms)
    );
    let mut rows = vec![["process", "role", "region", "address", "pid"].map(str::to_owned)];
    for process in &status.processes {
        let pid = match (&process.pid, &process.ended) {
            (Some(pid), _) => pid.to_string(),
            (None, Some(ended)) => format!("ended: {ended}"),
            (None, None) => "ended".to_owned(),
        };
        let address = process.address.to_string();
        rows.push([
            process.name.clone(),
            process.role.clone(),
            process.region.clone(),
            address,
            pid,
        ]);
    }
    text += &table(&rows);
    let mut rows =
        vec![["link", "latency", "bandwidth", "fault", "open, in flight"].map(str::to_owned)];
    for link in &status.links {
        rows.push([
            format!("{} -> {}", link.from, link.to),
            format!("{} ms", link.latency_ms),
            link.bandwidth
                .map_or_else(|| "-".to_owned(), |bytes| format!("{bytes} B/s")),
            fault(link.fault).to_owned(),
            format!("{}, {} B", link.connections, link.in_flight_bytes),
        ]);
    }
    text.push('\n');
    text += &table(&rows);
    let mut rows = vec![["dependency", "url", "state"].map(str::to_owned)];
    for stub in &status.dependencies {
        let state = if stub.up { "up" } else { "down" };
        rows.push([stub.name.clone(), stub.url.clone(), state.to_owned()]);
    }
    text.push('\n');
    text += &table(&rows);
    text.push_str("\nSeen from the world:\n");
    for (part, address) in &status.addresses {
        let _ = writeln!(text, "  {part:<14} {address}");
    }
    text
}

fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "-",
        Fault::Cut => "cut",
        Fault::HalfOpen => "half-open",
    }
}

pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
