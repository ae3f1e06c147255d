//! One ssh connection to one `region-host`, kept for the whole operation.
//!
//! The system's `ssh` with pinned host keys and nothing from anybody's configuration.

pub(crate) mod failure;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regionwise_protocol::{LINE_LIMIT, Reply, Request, VERSION};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::jump::{Jump, Way};

pub use failure::{AskError, OpenError};

/// TCP and ssh handshake; `ssh` itself gives up after this.
const CONNECT_SECONDS: u32 = 5;
/// From starting `ssh` to the answer of `hello`.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// What ssh says on stderr is kept up to this many lines, for the error.
const STDERR_LINES: usize = 20;

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Target {
    /// The host's name in regions.toml, for messages.
    pub name: String,
    pub user: String,
    pub address: IpAddr,
    pub port: u16,
    pub known_hosts: PathBuf,
    pub identity: PathBuf,
    /// `None`: it is reached directly.
    pub jump: Option<Jump>,
}

/// An open connection whose `hello` was answered.
pub struct Session {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Mutex<VecDeque<String>>>,
    /// Version of the `region-host` over there.
    pub helper: String,
}

impl Session {
    /// Connects, checks the host key, and greets.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed on the host.
    pub async fn open(target: &Target, app: &str) -> Result<Self, OpenError> {
        let way = Way::new(target.jump.as_ref()).map_err(OpenError::NoSsh)?;
        let mut child = Command::new("ssh")
            .args(options(target, &way).map_err(OpenError::NoSsh)?)
            // A terminal's Ctrl-C is for the controller, which settles the region over this connection.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(OpenError::NoSsh)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(OpenError::NoSsh(io::Error::other("no pipes to ssh")));
        };
        let (kept, collecting) = collect(stderr);
        let mut session = Self {
            name: target.name.clone(),
            child,
            stdin,
            stdout: BufReader::new(stdout),
            stderr: kept,
            helper: String::new(),
        };
        let hello = Request::Hello {
            protocol: VERSION,
            controller: env!("CARGO_PKG_VERSION").to_owned(),
            app: app.to_owned(),
        };
        match session.ask(&hello, HELLO_LIMIT).await {
            Ok(Reply::Hello { helper, .. }) => {
                session.helper = helper;
                Ok(session)
            }
            Ok(_) => Err(OpenError::NotRegionHost {
                said: "another reply to hello".to_owned(),
            }),
            Err(AskError::Denied(denial)) => Err(OpenError::Denied(denial)),
            Err(AskError::Lost { detail, .. }) => {
                // ssh's own words come with its end, and decide: they must have been read, too.
                let end = async {
                    let _ = session.child.wait().await;
                    let _ = collecting.await;
                };
                let _ = timeout(Duration::from_secs(1), end).await;
                Err(way.failure(&session.stderr_text(), detail))
            }
        }
    }

    /// The host's name in regions.toml.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One request, one reply, within `limit`.
    ///
    /// # Errors
    /// [`AskError::Denied`] is a clear no; after [`AskError::Lost`] the outcome of the request is not known.
    pub async fn ask(&mut self, request: &Request, limit: Duration) -> Result<Reply, AskError> {
        let talk = async {
            self.send(request).await?;
            self.reply().await
        };
        let late = format!("no answer within {:.1} s", limit.as_secs_f64());
        answer(request, timeout(limit, talk).await.unwrap_or(Err(late)))
    }

    /// Sends the first `size` bytes behind their request, as the request announces them.
    ///
    /// # Errors
    /// As [`Session::ask`]; also when there are fewer, and the connection has ended then.
    pub async fn put_blob(
        &mut self,
        request: &Request,
        size: u64,
        bytes: &mut (impl AsyncRead + Unpin),
        limit: Duration,
    ) -> Result<Reply, AskError> {
        let talk = async {
            self.send(request).await?;
            let sent = tokio::io::copy(&mut bytes.take(size), &mut self.stdin)
                .await
                .map_err(|error| error.to_string())?;
            if sent < size {
                // The other side waits for the rest, and would take the next request for it.
                let _ = self.child.start_kill();
                return Err(format!("the artefact ends after {sent} of {size} bytes"));
            }
            self.stdin
                .flush()
                .await
                .map_err(|error| error.to_string())?;
            self.reply().await
        };
        let late = format!("not sent within {:.0} s", limit.as_secs_f64());
        answer(request, timeout(limit, talk).await.unwrap_or(Err(late)))
    }

    async fn send(&mut self, request: &Request) -> Result<(), String> {
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.stdin
            .write_all(&line)
            .await
            .map_err(|error| error.to_string())?;
        self.stdin.flush().await.map_err(|error| error.to_string())
    }

    /// The next reply that is not progress.
    async fn reply(&mut self) -> Result<Reply, String> {
        loop {
            let mut line = Vec::new();
            let limited = &mut (&mut self.stdout).take(LINE_LIMIT as u64);
            let read = limited
                .read_until(b'\n', &mut line)
                .await
                .map_err(|error| error.to_string())?;
            if read == 0 {
                return Err("the connection ended".to_owned());
            }
            match serde_json::from_slice(&line) {
                Ok(Reply::Progress { .. }) => {}
                Ok(reply) => return Ok(reply),
                Err(_) => return Err(format!("not a reply of region-host: {}", excerpt(&line))),
            }
        }
    }

    /// Closes this side and waits for the last line; `false` when it did not come.
    pub async fn close(mut self) -> bool {
        drop(self.stdin);
        let mut rest = Vec::new();
        let limited = &mut (&mut self.stdout).take(LINE_LIMIT as u64);
        let read = timeout(Duration::from_secs(2), limited.read_to_end(&mut rest)).await;
        let last = rest
            .split(|byte| *byte == b'\n')
            .rfind(|line| !line.is_empty());
        let clean = last.is_some_and(|line| matches!(serde_json::from_slice(line), Ok(Reply::Bye)));
        let ended = timeout(Duration::from_secs(2), self.child.wait()).await;
        clean && read.is_ok() && ended.is_ok()
    }

    fn stderr_text(&self) -> String {
        let lines = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn options(target: &Target, way: &Way<'_>) -> io::Result<Vec<OsString>> {
    let mut options = pinned(&target.known_hosts)?;
    options.extend(way.options(Some(&target.identity))?);
    options.extend(["-o".into(), "IdentitiesOnly=yes".into()]);
    options.extend(["-i".into(), target.identity.clone().into()]);
    options.extend(["-p".into(), target.port.to_string().into()]);
    options.extend(["-l".into(), OsString::from(&target.user), "--".into()]);
    options.push(target.address.to_string().into());
    Ok(options)
}

/// What every connection of ours has: only pinned keys, nobody's configuration, no questions, and an end.
pub(crate) fn pinned(known_hosts: &Path) -> io::Result<Vec<OsString>> {
    let settings = [
        "BatchMode=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        format!("UserKnownHostsFile={}", quoted(known_hosts)?),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "HostKeyAlgorithms=ssh-ed25519".to_owned(),
        format!("ConnectTimeout={CONNECT_SECONDS}"),
        "ServerAliveInterval=5".to_owned(),
        "ServerAliveCountMax=3".to_owned(),
        "ForwardAgent=no".to_owned(),
        "ControlMaster=no".to_owned(),
        "PreferredAuthentications=publickey".to_owned(),
        "LogLevel=ERROR".to_owned(),
    ];
    let mut options: Vec<OsString> = ["-T", "-F", "none"].map(OsString::from).into();
    options.extend(
        settings
            .into_iter()
            .flat_map(|setting| ["-o".into(), setting.into()]),
    );
    Ok(options)
}

/// A path as the value of `-o`: ssh splits it at spaces outside quotes, expands `%` and `${}`, and knows no way to write
/// every character.
fn quoted(path: &Path) -> io::Result<String> {
    let text = path
        .to_str()
        .filter(|text| !text.contains(['"', '\\']) && !text.contains("${"));
    text.map(|text| format!("\"{}\"", text.replace('%', "%%")))
        .ok_or_else(|| {
            let found = path.display();
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{found}` cannot stand in its options"),
            )
        })
}

/// Keeps the last lines of stderr, and keeps reading so that ssh never blocks on it.
pub(crate) fn collect(
    stderr: impl AsyncRead + Unpin + Send + 'static,
) -> (Arc<Mutex<VecDeque<String>>>, JoinHandle<()>) {
    let kept = Arc::new(Mutex::new(VecDeque::new()));
    let lines = Arc::clone(&kept);
    let collecting = tokio::spawn(async move {
        let mut reader = BufReader::new(stderr);
        loop {
            let mut line = Vec::new();
            let limited = &mut (&mut reader).take(4096);
            match limited.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    if lines.len() == STDERR_LINES {
                        lines.pop_front();
                    }
                    lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
            }
        }
    });
    (kept, collecting)
}

/// A reply is a result or a clear no; without one the outcome of the request is not known.
fn answer(request: &Request, talked: Result<Reply, String>) -> Result<Reply, AskError> {
    match talked {
        Ok(Reply::Denied(denial)) => Err(AskError::Denied(denial)),
        Ok(reply) => Ok(reply),
        Err(detail) => Err(AskError::Lost {
            verb: request.verb(),
            detail,
        }),
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
    format!("`{}`", text.escape_debug())
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    fn target(known_hosts: &str) -> Target {
        Target {
            name: "web-1".to_owned(),
            user: "regionwise".to_owned(),
            address: [203, 0, 113, 7].into(),
            port: 2222,
            known_hosts: known_hosts.into(),
            identity: "key".into(),
            jump: None,
        }
    }

    #[test]
    fn ssh_reads_the_path_of_the_pinned_keys_as_it_is() {
        // `-G` prints the options as ssh understood them.
        let options = options(
            &target("/a b/100% sure/known_hosts"),
            &Way::new(None).unwrap(),
        )
        .unwrap();
        let output = process::Command::new("ssh")
            .arg("-G")
            .args(&options)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let line = "userknownhostsfile /a b/100% sure/known_hosts";
        assert!(said.lines().any(|found| found == line), "{said}");
    }

    /// The other side of a blob: answers at once, and keeps all that comes after the request's line.
    fn receiver(file: &Path) -> Session {
        let mut child = Command::new("sh")
            .args([
                "-c",
                r#"read -r line; echo '{"reply":"done"}'; cat > "$1""#,
                "receiver",
            ])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Session {
            name: "web-1".to_owned(),
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            stderr: Arc::default(),
            helper: String::new(),
        }
    }

    #[tokio::test]
    async fn an_artefact_is_sent_as_long_as_it_was_announced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("received");
        // The file grew after it was measured: the rest would be taken for a request.
        let mut session = receiver(&file);
        let sent = session
            .put_blob(&Request::Renew, 4, &mut &b"blobmore"[..], HELLO_LIMIT)
            .await;
        assert!(matches!(sent, Ok(Reply::Done)), "{sent:?}");
        session.close().await;
        assert_eq!(std::fs::read(&file).unwrap(), b"blob");

        let mut session = receiver(&file);
        let sent = session
            .put_blob(&Request::Renew, 4, &mut &b"blo"[..], HELLO_LIMIT)
            .await;
        let error = sent.unwrap_err().to_string();
        assert!(
            error.ends_with("the artefact ends after 3 of 4 bytes"),
            "{error}"
        );
        let ended = timeout(HELLO_LIMIT, session.child.wait()).await;
        assert!(
            ended.is_ok(),
            "the connection must not take another request"
        );
    }

    #[test]
    fn a_path_that_ssh_would_change_is_refused() {
        for path in ["/a\"b", "/a\\b", "/${HOME}/known_hosts"] {
            let error = options(&target(path), &Way::new(None).unwrap())
                .unwrap_err()
                .to_string();
            assert_eq!(error, format!("`{path}` cannot stand in its options"));
        }
    }
}
