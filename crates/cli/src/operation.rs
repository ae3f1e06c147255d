//! The name of an operation: it travels through deploy, gates, rollback and close.

use std::time::SystemTime;

use crate::context::Context;
use crate::failure::Failure;

/// Locks and histories show it, one line each.
const LONGEST: usize = 100;

/// Checks the given name, or makes one: of the CI run where there is one (a re-run of the same attempt resumes), else
/// of the time.
///
/// # Errors
/// `invalid` when the name holds other characters than letters, digits and `. _ : -`.
pub fn operation_id(
    given: Option<&str>,
    region: &str,
    context: &Context,
) -> Result<String, Failure> {
    match given {
        Some(id) => {
            let fits = id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
            if id.is_empty() || id.len() > LONGEST || !fits {
                return Err(Failure::invalid(format!(
                    "`{}` cannot name an operation",
                    id.escape_debug()
                ))
                .with_hint("letters, digits and `. _ : -`, at most 100"));
            }
            Ok(id.to_owned())
        }
        None => {
            let run = context
                .variable("GITHUB_RUN_ID")
                .filter(|id| !id.is_empty());
            let attempt = context.variable("GITHUB_RUN_ATTEMPT").unwrap_or("1");
            Ok(match run {
                Some(run) => format!("{run}-{attempt}-{region}"),
                None => {
                    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
                    format!(
                        "{}-{}-{region}",
                        now.replace([':', '-'], ""),
                        std::process::id()
                    )
                }
            })
        }
    }
}
