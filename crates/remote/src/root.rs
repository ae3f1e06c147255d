//! Root's login, for the set-up of a server: one command, files on its stdin, its lines as they come.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::jump::{Jump, Way};
use crate::ssh::{OpenError, collect, pinned};

/// ssh's own exit status, when there was no connection or it broke.
const SSH_FAILED: i32 = 255;
/// A directory that only root reads, and that ends with the command however it ends.
const STAGE: &str = "umask 077; d=$(mktemp -d /run/regionwise-staged.XXXXXX) && trap 'rm -rf \"$d\"' EXIT && trap 'exit 1' HUP INT PIPE TERM";
/// The first line of every command: from here on it may have been done, wholly or in part.
const BEGUN: &str = "regionwise: begun";
/// No line of a script is longer.
const LINE_LIMIT: u64 = 16 * 1024;

/// Where and how root logs in.
#[derive(Clone, Debug)]
pub struct RootLogin {
    pub address: IpAddr,
    pub port: u16,
    pub known_hosts: PathBuf,
    /// `None`: the keys that ssh finds by itself, in the agent and in `~/.ssh`.
    pub identity: Option<PathBuf>,
    /// `None`: it is reached directly.
    pub jump: Option<Jump>,
}

/// A file for the far side.
pub struct Part {
    /// `[a-z0-9._-]+`
    pub name: Cow<'static, str>,
    pub bytes: Vec<u8>,
}

impl Part {
    /// Hexadecimal sha256 of the bytes.
    pub fn sha256(&self) -> String {
        let digest = Sha256::digest(&self.bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// No connection: nothing was run.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The command may have run, wholly or in part.
    #[error("contact lost: {0}")]
    Lost(String),
}

impl RootLogin {
    /// Runs `command` in a POSIX shell in a new connection, and hands each line of its stdout to `line`. Returns its
    /// exit status.
    ///
    /// # Errors
    /// [`RootError::Open`] when nothing was run, [`RootError::Lost`] when that is not known.
    pub async fn run(
        &self,
        command: &str,
        stdin: &[u8],
        limit: Duration,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<i32, RootError> {
        let running = self.talk(command, stdin, line);
        let late = || {
            Err(RootError::Lost(format!(
                "no end within {} s",
                limit.as_secs()
            )))
        };
        timeout(limit, running).await.unwrap_or_else(|_| late())
    }

    /// As [`RootLogin::run`], with files: they lie in a directory that only root reads, `$d` in `command`, and are gone
    /// when it ends.
    ///
    /// # Errors
    /// As [`RootLogin::run`].
    pub async fn run_with(
        &self,
        parts: &[Part],
        command: &str,
        limit: Duration,
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<i32, RootError> {
        // Reads exactly its own bytes, and leaves the rest in the pipe.
        let take = |part: &Part| format!(" && head -c {} > \"$d/{}\"", part.bytes.len(), part.name);
        let taken: String = parts.iter().map(take).collect();
        let script = format!("{STAGE}{taken} && {command}");
        let stdin: Vec<u8> = parts
            .iter()
            .flat_map(|part| part.bytes.iter().copied())
            .collect();
        self.run(&script, &stdin, limit, line).await
    }

    async fn talk(
        &self,
        command: &str,
        input: &[u8],
        line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<i32, RootError> {
        let way = Way::new(self.jump.as_ref()).map_err(OpenError::NoSsh)?;
        let mut child = self.ssh(command, &way)?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(OpenError::NoSsh(io::Error::other("no pipes to ssh")).into());
        };
        let (kept, collecting) = collect(stderr);
        let send = async move {
            // Whoever does not read its stdin has failed, and says so by its exit status.
            let _ = stdin.write_all(input).await;
            let _ = stdin.shutdown().await;
        };
        let mut begun = false;
        let receive = async {
            let mut reader = BufReader::new(stdout);
            loop {
                let mut bytes = Vec::new();
                let read = (&mut reader)
                    .take(LINE_LIMIT)
                    .read_until(b'\n', &mut bytes)
                    .await;
                if !read.is_ok_and(|read| read > 0) {
                    break;
                }
                let text = String::from_utf8_lossy(&bytes);
                let text = text.trim_end_matches(['\n', '\r']);
                // What a login shell's own files say is not ours.
                if !begun {
                    begun = text == BEGUN;
                    continue;
                }
                line(text);
            }
        };
        tokio::join!(send, receive);
        let status = child
            .wait()
            .await
            .map_err(|error| RootError::Lost(error.to_string()))?;
        let _ = collecting.await;
        let stderr = {
            let lines = kept
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            lines.iter().cloned().collect::<Vec<_>>().join("\n")
        };
        match status.code() {
            Some(SSH_FAILED) | None if begun => Err(RootError::Lost(stderr)),
            Some(SSH_FAILED) | None => Err(way
                .failure(&stderr, "the connection ended".to_owned())
                .into()),
            Some(code) => Ok(code),
        }
    }

    fn ssh(&self, command: &str, way: &Way<'_>) -> Result<tokio::process::Child, OpenError> {
        let mut ssh = Command::new("ssh");
        ssh.args(pinned(&self.known_hosts).map_err(OpenError::NoSsh)?);
        let options = way.options(self.identity.as_deref());
        ssh.args(options.map_err(OpenError::NoSsh)?);
        if let Some(identity) = &self.identity {
            ssh.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(identity);
        }
        ssh.args(["-p", &self.port.to_string(), "-l", "root", "--"]);
        // Root's login shell may be any; it only has to start this one.
        ssh.arg(self.address.to_string()).arg(format!(
            "exec sh -c '{}'",
            format!("echo {BEGUN}; {command}").replace('\'', r"'\''")
        ));
        ssh.process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(OpenError::NoSsh)
    }
}
