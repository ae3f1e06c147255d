//! A host in between, for servers that let ssh in from there only. What it carries is encrypted from end to end, and the keys of
//! both are pinned.

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::ssh::pinned;

/// Where ssh goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    pub user: String,
    pub address: IpAddr,
    pub port: u16,
    /// Pins its host key.
    pub known_hosts: PathBuf,
}

/// The options that lead through it; none without one. The key that opens the far side opens it, too.
///
/// `ProxyJump` would take nothing of our own options to the first connection, the pinned keys among them.
pub(crate) fn through(jump: Option<&Jump>, identity: Option<&Path>) -> io::Result<Vec<OsString>> {
    let Some(jump) = jump else {
        return Ok(Vec::new());
    };
    // That it may not forward is no error to ssh, and the first value of an option counts.
    let mut words: Vec<OsString> = ["ssh", "-o", "LogLevel=INFO"].map(OsString::from).into();
    words.extend(pinned(&jump.known_hosts)?);
    if let Some(identity) = identity {
        words.extend(["-o", "IdentitiesOnly=yes", "-i"].map(OsString::from));
        words.push(identity.into());
    }
    let port = jump.port.to_string();
    words.extend(["-p", &port, "-l", &jump.user].map(OsString::from));
    let mut command = String::new();
    for word in words {
        let word = word.into_string().map_err(|word| {
            let text = format!("`{}` cannot stand in its options", word.display());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        // ssh expands `%`, and hands the rest to a shell behind an `exec`.
        let word = word.replace('%', "%%").replace('\'', r"'\''");
        let _ = write!(command, "'{word}' ");
    }
    let _ = write!(command, "-W '[%h]:%p' -- {}", jump.address);
    Ok(vec!["-o".into(), format!("ProxyCommand={command}").into()])
}
