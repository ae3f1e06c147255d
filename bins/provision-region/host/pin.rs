//! The server's host key: pinned before, or shown on its console and given by a person. Never trusted because it came first.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use regionwise_cli::{Because, Failure};
use regionwise_remote::host_key::{self, HostKey};
use regionwise_remote::jump::Jump;
use regionwise_remote::root::RootError;
use regionwise_rollout::Verdict;
use tempfile::NamedTempFile;

use crate::apply;

/// The keys that a connection may meet.
pub(super) enum Pinned {
    /// In the known_hosts of regions.toml.
    Before(PathBuf),
    /// Given by its fingerprint; in a file of its own until a login has worked.
    Given { line: String, file: NamedTempFile },
}

impl Pinned {
    /// The known_hosts for this run.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Before(path) => path,
            Self::Given { file, .. } => file.path(),
        }
    }

    /// Adds a given key to `known_hosts`.
    pub(super) fn write(&self, known_hosts: &Path) -> io::Result<()> {
        let Self::Given { line, .. } = self else {
            return Ok(());
        };
        // A file of a person's may lack its last line end.
        let text = match fs::read_to_string(known_hosts) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let gap = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(known_hosts)?;
        file.write_all(format!("{gap}{line}\n").as_bytes())
    }
}

/// How the server is called: root may reach it by another address than deploys do.
pub(super) struct Names {
    pub(super) login: IpAddr,
    pub(super) deploys: IpAddr,
    pub(super) port: u16,
}

/// How it is reached.
pub(super) struct Way {
    pub(super) jump: Option<Jump>,
    pub(super) identity: Option<PathBuf>,
}

/// Finds the key to insist on, or refuses.
pub(super) async fn check(
    known_hosts: &Path,
    names: &Names,
    way: &Way,
    given: Option<&str>,
) -> Result<Pinned, Failure> {
    let (address, port) = (names.login, names.port);
    let known_hosts = std::path::absolute(known_hosts).unwrap_or_else(|_| known_hosts.to_owned());
    let cannot = || "cannot look for the server's host key".to_owned();
    let pinned = host_key::pinned(&known_hosts, address, port)
        .await
        .invalid(cannot)?;
    match (pinned.first(), given) {
        // ssh itself compares it with what the server shows.
        (Some(_), None) => Ok(Pinned::Before(known_hosts)),
        (Some(_), Some(given)) if pinned.iter().any(|pinned| pinned == given) => {
            Ok(Pinned::Before(known_hosts))
        }
        (Some(pinned), Some(given)) => Err(Failure::new(
            Verdict::Refused,
            format!(
                "`{}` pins the host key {pinned} for {address}, and --host-key is {given}",
                known_hosts.display()
            ),
        )
        .with_hint("if the server was rebuilt, take its old line out of the file first")),
        (None, given) => {
            let shown =
                host_key::shown(address, port, way.jump.as_ref(), way.identity.as_deref()).await;
            let shown = shown.map_err(|error| {
                let error = RootError::Open(error);
                let (verdict, hint) = apply::meaning(&error);
                Failure::new(
                    verdict,
                    format!("cannot look for the host key of {address}: {error}"),
                )
                .with_hint(hint)
            })?;
            let shown = shown.ok_or_else(|| {
                Failure::new(
                    Verdict::Unreachable,
                    format!(
                        "no ssh server with an ed25519 host key answers at {address}, port {port}"
                    ),
                )
                .with_hint("nothing was changed, the same command may be run again")
            })?;
            trusted(&shown, given, &known_hosts, names)
        }
    }
}

fn trusted(
    shown: &HostKey,
    given: Option<&str>,
    known_hosts: &Path,
    names: &Names,
) -> Result<Pinned, Failure> {
    let (address, fingerprint) = (names.login, &shown.fingerprint);
    match given {
        Some(given) if given == fingerprint => {
            let cannot = || "cannot write a temporary file".to_owned();
            let mut file = NamedTempFile::new().invalid(cannot)?;
            let line = shown.line(&[names.login, names.deploys], names.port);
            writeln!(file, "{line}").invalid(cannot)?;
            Ok(Pinned::Given { line, file })
        }
        Some(given) => Err(Failure::new(
            Verdict::Refused,
            format!("{address} shows the host key {fingerprint}, and --host-key is {given}"),
        )
        .with_hint("somebody may be in between: compare again on the server's own console, not over the network")),
        None => Err(Failure::new(
            Verdict::Refused,
            format!("the host key of {address} is not in `{}`; it shows {fingerprint}", known_hosts.display()),
        )
        .with_hint("on the server's own console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
        .with_hint(format!("if it prints the same, run this again with --host-key {fingerprint}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_key_is_added_on_a_line_of_its_own_and_a_pinned_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known_hosts");
        let given = || Pinned::Given {
            line: "a ssh-ed25519 AAAA".to_owned(),
            file: NamedTempFile::new().unwrap(),
        };
        given().write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a ssh-ed25519 AAAA\n");
        fs::write(&path, "b ssh-ed25519 BBBB").unwrap();
        given().write(&path).unwrap();
        Pinned::Before(path.clone()).write(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "b ssh-ed25519 BBBB\na ssh-ed25519 AAAA\n"
        );
    }
}
