//! What a cluster needs before it can be measured. Shown, never run: it needs rights that a gate must not have.

use regionwise_cli::Report;
use regionwise_postgres::heartbeat;
use regionwise_rollout::Verdict;
use serde_json::json;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show the SQL; `--format json` has it alone, under `result.sql`.
    #[arg(long, required = true)]
    print_sql: bool,

    /// The role in the DSNs of `regions.toml`.
    #[arg(long, env = "REGIONWISE_LAG_ROLE", default_value = "regionwise_lag", value_parser = role)]
    role: String,
}

pub(crate) fn report(args: &Args) -> Report {
    let sql = heartbeat::SCHEMA.replace("regionwise_lag", &format!("\"{}\"", args.role));
    let mut report = Report::new(Verdict::Proceed, sql.clone());
    report.result = json!({ "sql": sql });
    report.with_hint("run it once on the primary of every cluster, as a superuser")
}

/// A name that needs no escaping: the SQL is pasted into a superuser's shell.
fn role(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.@".contains(c);
    match !text.is_empty() && text.len() <= 63 && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("accepted: letters, digits and _-.@, at most 63".to_owned()),
    }
}
