//! The same script as user data: what a server does at its first boot, before anybody has logged in.

use std::fmt::Write;

/// Hetzner's limit for user data, in bytes.
pub const LIMIT: usize = 32 * 1024;

const PATH: &str = "/var/lib/regionwise-setup";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the user data has {0} bytes, and a cloud takes at most {LIMIT}")]
pub struct TooLarge(pub usize);

/// The host key that a server is born with, in OpenSSH's forms. Root can read it in the server's metadata for as long as the
/// server lives: the first session ([`crate::host::identity`]) puts one in its place that never left the server.
#[derive(Clone, Copy)]
pub struct HostKey<'a> {
    pub private: &'a str,
    pub public: &'a str,
}

/// User data of a new server: its host key and no other one, root's login by key only, and `script` at the first boot.
///
/// # Errors
/// When it is larger than a cloud takes.
pub fn of_a_server(key: HostKey<'_>, script: Option<&str>) -> Result<String, TooLarge> {
    let mut text = String::from("#cloud-config\ndisable_root: false\nssh_pwauth: false\n");
    text.push_str("ssh_deletekeys: true\nssh_genkeytypes: []\nssh_keys:\n  ed25519_private: |\n");
    for line in key.private.lines() {
        let _ = writeln!(text, "    {line}");
    }
    let _ = writeln!(text, "  ed25519_public: {}", key.public);
    text.push_str(&script.map(at_first_boot).unwrap_or_default());
    fitting(text)
}

/// User data that runs `script` once. Nobody can confirm at a first boot, so a guarded change is kept when every step
/// went well; a server that locks its owner out there has nothing on it yet.
///
/// User data stays readable on the server and in the cloud's metadata: the script must hold no secret.
///
/// # Errors
/// When it is larger than a cloud takes.
pub fn render(script: &str) -> Result<String, TooLarge> {
    fitting(format!("#cloud-config\n{}", at_first_boot(script)))
}

fn fitting(text: String) -> Result<String, TooLarge> {
    match text.len() {
        size if size > LIMIT => Err(TooLarge(size)),
        _ => Ok(text),
    }
}

fn at_first_boot(script: &str) -> String {
    let mut text =
        format!("write_files:\n  - path: {PATH}\n    permissions: '0700'\n    content: |\n");
    for line in script.lines() {
        // A blank line needs no indentation, and trailing blanks would be noise.
        let _ = if line.is_empty() {
            writeln!(text)
        } else {
            writeln!(text, "      {line}")
        };
    }
    let _ = write!(text, "runcmd:\n  - sh {PATH} apply && sh {PATH} confirm\n");
    text
}
