//! The same script as user data: what a server does at its first boot, before anybody has logged in.

use std::fmt::Write;

/// Hetzner's limit for user data, in bytes.
pub const LIMIT: usize = 32 * 1024;

const PATH: &str = "/var/lib/regionwise-setup";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the user data has {0} bytes, and a cloud takes at most {LIMIT}")]
pub struct TooLarge(pub usize);

/// User data that runs `script` once. Nobody can confirm at a first boot, so a guarded change is kept when every step
/// went well; a server that locks its owner out there has nothing on it yet.
///
/// User data stays readable on the server and in the cloud's metadata: the script must hold no secret.
///
/// # Errors
/// When it is larger than a cloud takes.
pub fn render(script: &str) -> Result<String, TooLarge> {
    let mut text = format!(
        "#cloud-config\nwrite_files:\n  - path: {PATH}\n    permissions: '0700'\n    content: |\n"
    );
    for line in script.lines() {
        // A blank line needs no indentation, and trailing blanks would be noise.
        let _ = if line.is_empty() {
            writeln!(text)
        } else {
            writeln!(text, "      {line}")
        };
    }
    let _ = write!(text, "runcmd:\n  - sh {PATH} apply && sh {PATH} confirm\n");
    if text.len() > LIMIT {
        return Err(TooLarge(text.len()));
    }
    Ok(text)
}
