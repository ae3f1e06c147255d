//! Host keys: which one is pinned, and which one a server shows. Nothing here trusts the second.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// An ed25519 host key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// The key itself, in base64.
    key: String,
    /// `SHA256:...`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

impl HostKey {
    /// The line of known_hosts, without its end, that pins the key for these addresses of one server.
    pub fn line(&self, addresses: &[IpAddr], port: u16) -> String {
        let mut names: Vec<String> = addresses
            .iter()
            .map(|address| name(*address, port))
            .collect();
        names.dedup();
        format!("{} ssh-ed25519 {}", names.join(","), self.key)
    }
}

/// How known_hosts names a server.
fn name(address: IpAddr, port: u16) -> String {
    if port == 22 {
        address.to_string()
    } else {
        format!("[{address}]:{port}")
    }
}

/// The fingerprints of ed25519 keys that the file pins for this server; none when there is no such file.
///
/// # Errors
/// When `ssh-keygen` cannot be started.
pub async fn pinned(known_hosts: &Path, address: IpAddr, port: u16) -> io::Result<Vec<String>> {
    if !known_hosts.exists() {
        return Ok(Vec::new());
    }
    let mut keygen = Command::new("ssh-keygen");
    keygen
        .args(["-l", "-F", &name(address, port), "-f"])
        .arg(known_hosts);
    // It ends 1 when there is none.
    let output = keygen.stdin(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let fingerprint = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let fingerprint = words.next()?;
        (kind == "ED25519").then(|| fingerprint.to_owned())
    };
    Ok(text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(fingerprint)
        .collect())
}

/// The ed25519 key that the server shows to anybody; `None` when it shows none within 5 s.
///
/// # Errors
/// When `ssh-keyscan` or `ssh-keygen` cannot be used.
pub async fn shown(address: IpAddr, port: u16) -> io::Result<Option<HostKey>> {
    let mut scan = Command::new("ssh-keyscan");
    scan.args([
        "-T",
        "5",
        "-t",
        "ed25519",
        "-p",
        &port.to_string(),
        "--",
        &address.to_string(),
    ]);
    let output = scan.stdin(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let key = text
        .lines()
        .find_map(|line| line.split_once(" ssh-ed25519 "));
    let Some((_, key)) = key else {
        return Ok(None);
    };
    let key = key.trim().to_owned();
    let fingerprint = fingerprint(&format!("ssh-ed25519 {key}")).await?;
    Ok(Some(HostKey { key, fingerprint }))
}

async fn fingerprint(line: &str) -> io::Result<String> {
    let mut child = Command::new("ssh-keygen")
        .args(["-l", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let fingerprint = text
        .split_whitespace()
        .find(|word| word.starts_with("SHA256:"));
    fingerprint
        .map(ToOwned::to_owned)
        .ok_or_else(|| refused("ssh-keygen", &output))
}

/// The public half of a private key, as one line.
///
/// # Errors
/// When the file is not a private key, or needs a passphrase.
pub async fn public_half(private: &Path) -> io::Result<String> {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-y", "-P", "", "-f"]).arg(private);
    let output = keygen.stdin(Stdio::null()).output().await?;
    if !output.status.success() {
        return Err(refused("ssh-keygen", &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn refused(program: &str, output: &Output) -> io::Error {
    let said = String::from_utf8_lossy(&output.stderr);
    io::Error::other(format!("{program}: {}", said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pinned_key_is_found_by_address_and_port_and_has_the_fingerprint_that_ssh_prints() {
        let directory = tempfile::tempdir().unwrap();
        let (key, known_hosts) = (
            directory.path().join("key"),
            directory.path().join("known_hosts"),
        );
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(made.await.unwrap().success());
        let public = public_half(&key).await.unwrap();
        let address = IpAddr::from([203, 0, 113, 7]);
        let line = format!("{} {public}", name(address, 2222));
        assert!(
            line.starts_with("[203.0.113.7]:2222 ssh-ed25519 AAAA"),
            "{line}"
        );
        assert_eq!(
            pinned(&known_hosts, address, 2222).await.unwrap(),
            Vec::<String>::new()
        );
        std::fs::write(&known_hosts, format!("# ours\n{line}\n")).unwrap();
        let wanted = fingerprint(&line).await.unwrap();
        assert!(wanted.starts_with("SHA256:"), "{wanted}");
        assert_eq!(
            pinned(&known_hosts, address, 2222).await.unwrap(),
            std::slice::from_ref(&wanted)
        );
        for (address, port) in [(address, 22), (IpAddr::from([203, 0, 113, 8]), 2222)] {
            assert_eq!(
                pinned(&known_hosts, address, port).await.unwrap(),
                Vec::<String>::new()
            );
        }
        // Root reaches it by one address, deploys by another.
        let key = HostKey {
            key: public.split_whitespace().nth(1).unwrap().to_owned(),
            fingerprint: wanted.clone(),
        };
        let both = [address, IpAddr::from([10, 0, 0, 7])];
        std::fs::write(&known_hosts, key.line(&both, 22)).unwrap();
        for address in both {
            assert_eq!(
                pinned(&known_hosts, address, 22).await.unwrap(),
                std::slice::from_ref(&wanted)
            );
        }
        assert!(
            key.line(&[address; 2], 22)
                .starts_with("203.0.113.7 ssh-ed25519 ")
        );
    }

    #[tokio::test]
    async fn what_is_no_private_key_has_no_public_half() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "ssh-ed25519 AAAA somebody\n").unwrap();
        let error = public_half(&path).await.unwrap_err().to_string();
        assert!(error.starts_with("ssh-keygen: "), "{error}");
    }
}
