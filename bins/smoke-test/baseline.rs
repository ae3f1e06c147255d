//! What an earlier run wrote: the dependencies that failed before the release came.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use regionwise_cli::{Because, Failure, Hint};
use serde::Deserialize;

/// More than any result of ours.
const LIMIT: u64 = 4 * 1024 * 1024;
/// The version of the fields below.
const SCHEMA: u32 = 1;

/// The parts of a result that matter here; it has more.
#[derive(Deserialize)]
struct Before {
    schema: u32,
    binary: String,
    region: Option<String>,
    result: Result,
}

#[derive(Deserialize)]
struct Result {
    failing_dependencies: BTreeSet<String>,
}

/// Reads the file of `--baseline`; without one nothing failed before, as far as anybody knows.
pub(crate) fn failed_before(
    path: Option<&Path>,
    region: &str,
) -> std::result::Result<BTreeSet<String>, Failure> {
    let Some(path) = path else {
        return Ok(BTreeSet::new());
    };
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).invalid(|| format!("cannot read the baseline `{shown}`"))?;
    file.take(LIMIT)
        .read_to_string(&mut text)
        .invalid(|| format!("cannot read the baseline `{shown}`"))?;
    let before: Before = serde_json::from_str(&text)
        .invalid(|| format!("cannot understand the baseline `{shown}`"))
        .hint(format!(
            "write it with: smoke-test --region {region} --format json > {shown}"
        ))?;
    let refuse = |why: String| Err(Failure::invalid(format!("the baseline `{shown}` {why}")));
    if before.binary != "smoke-test" {
        return refuse(format!(
            "was written by `{}`, not by smoke-test",
            before.binary
        ));
    }
    if before.schema != SCHEMA {
        return refuse(format!("has schema {}; accepted: {SCHEMA}", before.schema));
    }
    match before.region.as_deref() {
        Some(found) if found == region => Ok(before.result.failing_dependencies),
        Some(found) => refuse(format!("is about region `{found}`, not `{region}`")),
        None => refuse("names no region".to_owned()),
    }
}
