//! Why a connection could not be used. ssh has one exit code for everything, so its words decide.

use std::io;
use std::net::IpAddr;

use regionwise_protocol::Denial;

/// No connection; nothing was changed on the host.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The administrator's: there is no ssh client here, or it cannot be told where `known_hosts` is.
    #[error("cannot start `ssh`")]
    NoSsh(#[source] io::Error),
    /// It may be an attack: nobody should just retry.
    #[error("the host key is not the pinned one: {said}")]
    HostKey { said: String },
    /// As [`OpenError::HostKey`], of the host in between.
    #[error("the host key of {jump}, the host in between, is not the pinned one: {said}")]
    JumpKey { jump: IpAddr, said: String },
    /// The key is not allowed there, or not readable.
    #[error("the key was not accepted: {said}")]
    Key { said: String },
    /// No route, refused, no answer in time.
    #[error("no connection: {said}")]
    Unreachable { said: String },
    /// ssh works, but `region-host` did not answer.
    #[error("no region-host answers there: {said}")]
    NotRegionHost { said: String },
    /// `region-host` answered and said no.
    #[error("region-host: {}", .0.text)]
    Denied(Denial),
}

/// A request that was not answered with a result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AskError {
    /// A clear no; nothing is under way.
    #[error("{}", .0.text)]
    Denied(Denial),
    /// The outcome is not known.
    #[error("contact lost during `{verb}`: {detail}")]
    Lost { verb: &'static str, detail: String },
}

/// Reads ssh's stderr. The phrases are those of OpenSSH 8 to 10 (`sshconnect.c`, `sshkey.c`, `packet.c`).
pub(crate) fn classify(stderr: &str, detail: String) -> OpenError {
    let last = || {
        let lines = || stderr.lines().filter(|line| !line.trim().is_empty());
        // Behind the error of a host in between stands what follows from it.
        let follows = [
            "by UNKNOWN port",
            "stdio forwarding failed",
            "kex_exchange_identification",
        ];
        let tells = |line: &&str| !follows.iter().any(|text| line.contains(text));
        // Behind the error of a region-host stand its hints.
        let said = lines().find(|line| line.starts_with("error: "));
        // Whose key it is stands before that it failed.
        let whose = |line: &&str| line.contains("host key is known for");
        let said = said.or_else(|| lines().find(whose));
        said.or_else(|| lines().rfind(tells))
            .or_else(|| lines().next_back())
            .unwrap_or(&detail)
            .trim()
            .to_owned()
    };
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| stderr.contains(phrase));
    if has(&[
        "Host key verification failed",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "host key is known for",
    ]) {
        OpenError::HostKey { said: last() }
    } else if has(&[
        // With the methods in brackets it is sshd's; without them a shell's.
        "Permission denied (",
        "error in libcrypto",
        "invalid format",
        "Too many authentication failures",
    ]) {
        OpenError::Key { said: last() }
    } else if has(&[
        "Connection refused",
        "Connection timed out",
        "Operation timed out",
        "No route to host",
        "Network is unreachable",
        "Connection reset",
        "Connection closed",
        "kex_exchange_identification",
        "banner exchange",
    ]) || (stderr.trim().is_empty() && detail.starts_with("no answer"))
    {
        OpenError::Unreachable { said: last() }
    } else {
        OpenError::NotRegionHost { said: last() }
    }
}

#[cfg(test)]
mod tests {
    use super::{OpenError, classify};

    #[test]
    fn the_words_of_ssh_decide() {
        let of = |text: &str| classify(text, "the connection ended".into());
        assert!(matches!(
            of("Host key verification failed."),
            OpenError::HostKey { .. }
        ));
        assert!(matches!(
            of("u@h: Permission denied (publickey)."),
            OpenError::Key { .. }
        ));
        assert!(matches!(
            of("ssh: connect to host h port 1: Connection refused"),
            OpenError::Unreachable { .. }
        ));
        assert!(matches!(
            of("sh: 1: /x/region-host: not found"),
            OpenError::NotRegionHost { .. }
        ));
        assert!(matches!(
            of("sh: 1: /x/region-host: Permission denied"),
            OpenError::NotRegionHost { .. }
        ));
        assert!(matches!(
            classify("", "no answer within 10.0 s".into()),
            OpenError::Unreachable { .. }
        ));
    }
}
