//! A host in between, for servers that let ssh in from there only. What it carries is encrypted from end to end, and the keys of
//! both are pinned.

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::ssh::OpenError;
use crate::ssh::failure::classify;
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

/// The way of one connection: direct, or through a host in between.
pub(crate) struct Way<'a> {
    through: Option<(&'a Jump, NamedTempFile)>,
}

impl<'a> Way<'a> {
    pub(crate) fn new(jump: Option<&'a Jump>) -> io::Result<Self> {
        // What its ssh says stands in a file of its own: the words of both connections are the same.
        let log = |jump| Ok::<_, io::Error>((jump, NamedTempFile::new()?));
        Ok(Self {
            through: jump.map(log).transpose()?,
        })
    }

    /// The options that lead there. The key that opens the far side opens the host in between, too.
    ///
    /// `ProxyJump` would take nothing of our own options to the first connection, the pinned keys among them.
    pub(crate) fn options(&self, identity: Option<&Path>) -> io::Result<Vec<OsString>> {
        let Some((jump, log)) = &self.through else {
            return Ok(Vec::new());
        };
        let mut words = vec![OsString::from("ssh"), "-E".into(), log.path().into()];
        // That it may not forward is no error to ssh, and the first value of an option counts.
        words.extend(["-o", "LogLevel=INFO"].map(OsString::from));
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
        // Its banner is nobody's concern.
        let _ = write!(command, "-W '[%h]:%p' -- {} 2> /dev/null", jump.address);
        Ok(vec!["-o".into(), format!("ProxyCommand={command}").into()])
    }

    /// Why a connection could not be used, from what ssh said of it: the host in between is named where it was that one.
    pub(crate) fn failure(&self, stderr: &str, detail: String) -> OpenError {
        let found = classify(stderr, detail.clone());
        // All that the far connection can say of the near one is that it is closed.
        let (OpenError::Unreachable { .. }, Some((jump, log))) = (&found, &self.through) else {
            return found;
        };
        let log = std::fs::read_to_string(log.path()).unwrap_or_default();
        if log.trim().is_empty() {
            return found;
        }
        let by = |said: String| format!("by way of {}, port {}: {said}", jump.address, jump.port);
        match classify(&log, detail) {
            OpenError::HostKey { said } => OpenError::JumpKey {
                jump: jump.address,
                said,
            },
            OpenError::Key { said } => OpenError::Key { said: by(said) },
            OpenError::Unreachable { said } | OpenError::NotRegionHost { said } => {
                OpenError::Unreachable { said: by(said) }
            }
            other => other,
        }
    }
}
