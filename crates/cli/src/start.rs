//! From arguments to exit code: the frame around every binary's `run`.

use std::process::ExitCode;

use clap::Parser;

use crate::args::WithCommon;
use crate::context::Context;
use crate::documents;
use crate::failure::Failure;
use crate::progress::write_line;
use crate::report::Report;

/// Parses the arguments, reads the surroundings, runs, reports, and returns the verdict's exit code.
pub fn start<A, F>(run: F) -> ExitCode
where
    A: Parser + WithCommon,
    F: AsyncFnOnce(A, &Context) -> Result<Report, Failure>,
{
    let command = documents::with_flags(A::command());
    let name = command.get_name().to_owned();
    let matches = command.after_help(footer()).get_matches();
    match documents::print(&matches, A::command()) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            write_line(&format!("error: cannot write to stdout: {error}"));
            return ExitCode::FAILURE;
        }
    }
    let args = A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            write_line(&format!("error: cannot start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let context = match Context::read(&name, args.common()) {
            Ok(context) => context,
            Err(error) => {
                write_line(&format!("error: cannot listen for signals: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let report = match run(args, &context).await {
            Ok(report) => report,
            Err(failure) => Report::from_failure(&failure),
        };
        report.finish(&context)
    })
}

fn footer() -> String {
    format!(
        "Almost every flag has an environment variable; the order is flag, environment, default.\n\
         Exit codes: README.md. `--completions {}` and `--man` print what they say.",
        documents::shells().join("|")
    )
}
