//! The contract every binary keeps: arguments, context, verdict to exit code, reports, progress.
//!
//! A binary is `fn main() -> ExitCode { regionwise_cli::start(run) }` and a `run` that returns one [`Report`] or one
//! [`Failure`]. Only the reports of this crate write to stdout and stderr.

mod access;
mod args;
mod context;
mod documents;
mod ending;
mod failure;
mod operation;
mod progress;
mod report;
mod secret;
mod signal;
mod start;

pub use access::{Reach, jump};
pub use args::{Common, WithCommon, duration};
pub use context::{Ci, Context, Format, wall_ms};
pub use ending::report;
pub use failure::{Because, Failure, Hint};
pub use operation::operation_id;
pub use progress::{Progress, Watch, Work};
pub use report::{Finding, Level, Report, Table};
pub use secret::SecretText;
pub use signal::Signals;
pub use start::start;
