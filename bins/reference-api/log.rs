//! One JSON line on stdout at the start, one on stderr for each error.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{Value, json};

use crate::config::Identity;

/// Says on stdout that requests are answered from now on.
pub(crate) fn started(identity: &Identity, listen: SocketAddr) -> anyhow::Result<()> {
    let line = json!({
        "release": identity.release,
        "listen": listen.to_string(),
        "region": identity.region,
        "host": identity.host,
        "slot": identity.slot,
        "pid": std::process::id(),
    });
    writeln!(io::stdout(), "{line}").context("cannot write to stdout")
}

/// Says on stdout what a migration found and did.
pub(crate) fn migrated(result: &Value) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{result}").context("cannot write to stdout")
}

/// A failed action with everything that led to it.
pub(crate) fn error(action: &str, error: &anyhow::Error) {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    write(&json!({ "at": now(), "level": "error", "error": action, "caused_by": causes }));
}

pub(crate) fn event(level: &str, text: &str) {
    write(&json!({ "at": now(), "level": level, "error": text }));
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn write(line: &Value) {
    // Nobody can be told that stderr is gone.
    let _ = writeln!(io::stderr(), "{line}");
}
