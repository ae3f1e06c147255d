//! The commands that disturb a running lab.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use regionwise_cli::duration;
use regionwise_lab::LinkChange;
use regionwise_lab::control::{ProcessAction, Request, StandbyAction};
use regionwise_lab::link::Fault;

use crate::report::Failure;
use crate::{Where, ask};

/// A link has a direction: bytes from FROM to TO.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Link {
    #[command(flatten)]
    at: Where,
    /// A region, or `world` for the controller and the users.
    from: String,
    to: String,
    /// One way.
    #[arg(long, value_parser = duration, value_name = "DURATION", group = "change")]
    latency: Option<Duration>,
    /// Shared by all connections, for example 10MB/s.
    #[arg(long, value_parser = bandwidth, value_name = "BYTES/S", group = "change")]
    bandwidth: Option<NonZeroU64>,
    /// Nothing arrives and nothing is lost.
    #[arg(long, group = "change", conflicts_with = "half_open")]
    cut: bool,
    /// The far side closes, the near side hears nothing of it.
    #[arg(long, group = "change")]
    half_open: bool,
    /// Change the last byte of this text wherever it crosses the link in one piece.
    #[arg(long, value_name = "TEXT", group = "change")]
    corrupt: Option<String>,
    /// End every open connection with RST, now.
    #[arg(long, group = "change")]
    reset: bool,
    /// First back to the usual delay, without fault, limit and corruption.
    #[arg(long, group = "change")]
    clear: bool,
    /// The opposite link too.
    #[arg(long)]
    both: bool,
}

impl Link {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let fault = match (self.cut, self.half_open) {
            (true, _) => Some(Fault::Cut),
            (false, true) => Some(Fault::HalfOpen),
            (false, false) => None,
        };
        let change = LinkChange {
            clear: self.clear,
            latency_ms: self.latency.map(millis),
            bandwidth: self.bandwidth,
            fault,
            corrupt: self.corrupt,
            reset: self.reset,
            both: self.both,
        };
        ask(
            &self.at,
            &Request::Link {
                from: self.from,
                to: self.to,
                change,
            },
        )
    }
}

#[derive(Args)]
pub(crate) struct Standby {
    #[command(flatten)]
    at: Where,
    /// For example us-sin.
    name: String,
    #[command(subcommand)]
    action: StandbyChange,
}

#[derive(Subcommand)]
enum StandbyChange {
    /// Stop replaying: every write makes the lag grow.
    Hold,
    /// Go on replaying.
    Release,
    /// Replay every transaction this much later; 0s ends it.
    ApplyDelay {
        #[arg(value_parser = duration, value_name = "DURATION")]
        delay: Duration,
    },
}

impl Standby {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let action = match self.action {
            StandbyChange::Hold => StandbyAction::Hold,
            StandbyChange::Release => StandbyAction::Release,
            StandbyChange::ApplyDelay { delay } => StandbyAction::ApplyDelay {
                millis: millis(delay),
            },
        };
        ask(
            &self.at,
            &Request::Standby {
                name: self.name,
                action,
            },
        )
    }
}

#[derive(Args)]
pub(crate) struct Dependency {
    #[command(flatten)]
    at: Where,
    /// For example payments.
    name: String,
    state: State,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Up,
    Down,
}

impl Dependency {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let up = match self.state {
            State::Up => true,
            State::Down => false,
        };
        ask(
            &self.at,
            &Request::Dependency {
                name: self.name,
                up,
            },
        )
    }
}

#[derive(Args)]
pub(crate) struct Process {
    #[command(flatten)]
    at: Where,
    /// As `lab status` names it, for example us-1/haproxy or eu-nbg.
    name: String,
    action: ProcessChange,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProcessChange {
    Kill,
    /// Hung is not dead.
    Freeze,
    Thaw,
    /// After it was killed.
    Start,
}

impl Process {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let action = match self.action {
            ProcessChange::Kill => ProcessAction::Kill,
            ProcessChange::Freeze => ProcessAction::Freeze,
            ProcessChange::Thaw => ProcessAction::Thaw,
            ProcessChange::Start => ProcessAction::Start,
        };
        ask(
            &self.at,
            &Request::Process {
                name: self.name,
                action,
            },
        )
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `10MB/s`, `512kB/s`, `4096`: decimal units, as networks count.
fn bandwidth(text: &str) -> Result<NonZeroU64, String> {
    let accepted = || "write for example 10MB/s, 512kB/s or 4096".to_owned();
    let number = text.strip_suffix("/s").unwrap_or(text);
    let units = [
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
        ("B", 1),
        ("", 1),
    ];
    let (digits, unit) = units
        .into_iter()
        .find_map(|(suffix, unit)| number.strip_suffix(suffix).map(|digits| (digits, unit)))
        .ok_or_else(accepted)?;
    let digits: u64 = digits.trim().parse().map_err(|_| accepted())?;
    digits
        .checked_mul(unit)
        .and_then(NonZeroU64::new)
        .ok_or_else(accepted)
}

#[cfg(test)]
mod tests {
    use super::bandwidth;

    #[test]
    fn bandwidth_takes_decimal_units_and_never_zero() {
        for (text, bytes) in [
            ("10MB/s", 10_000_000),
            ("512kB/s", 512_000),
            ("4096", 4096),
            ("7B/s", 7),
        ] {
            assert_eq!(bandwidth(text).map(u64::from), Ok(bytes), "{text}");
        }
        for text in ["0", "", "MB/s", "fast", "-1kB", "99999999999GB/s"] {
            assert!(bandwidth(text).is_err(), "{text}");
        }
    }
}
