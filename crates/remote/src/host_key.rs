//! Host keys: which one is pinned, and which one a server shows. Nothing here trusts the second.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::jump::{Jump, Way};
use crate::ssh::{OpenError, pinned as ssh_options};

/// An ed25519 host key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// The key itself, in base64.
    key: String,
    /// `SHA256:...`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

impl HostKey {
    /// `ssh-ed25519 AAAA..`
    pub fn public(&self) -> String {
        format!("ssh-ed25519 {}", self.key)
    }

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

/// The key whose public half is this line, `ssh-ed25519 AAAA..`.
///
/// # Errors
/// When it is none, or `ssh-keygen` cannot be used.
pub async fn read(public: &str) -> io::Result<HostKey> {
    let mut words = public.split_whitespace();
    let (Some("ssh-ed25519"), Some(key)) = (words.next(), words.next()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("`{public}` is no ed25519 host key"),
        ));
    };
    let fingerprint = fingerprint(&format!("ssh-ed25519 {key}")).await?;
    Ok(HostKey {
        key: key.to_owned(),
        fingerprint,
    })
}

/// Makes `known_hosts` pin this key for these addresses, and no other key: lines that pin one for an address lose that
/// address, or go. Comments, other servers and lines with a marker (`@revoked`) stay. Returns whether the file changed.
///
/// # Errors
/// When the file cannot be read or written, or `ssh-keygen` cannot be used.
pub async fn pin(
    known_hosts: &Path,
    key: &HostKey,
    addresses: &[IpAddr],
    port: u16,
) -> io::Result<bool> {
    let text = match std::fs::read_to_string(known_hosts) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let mut lines: Vec<Option<String>> = text.lines().map(|line| Some(line.to_owned())).collect();
    let mut right = true;
    for address in addresses {
        let name = name(*address, port);
        let found = lines_about(known_hosts, &name).await?;
        let mut pinned = false;
        for at in found {
            let Some(line) = lines.get_mut(at) else {
                continue;
            };
            let Some(text) = line.take() else { continue };
            if text.starts_with('@') || is_of(&text, key) {
                pinned |= !text.starts_with('@');
                *line = Some(text);
            } else {
                *line = without(&text, &name);
                right = false;
            }
        }
        right &= pinned;
    }
    if right {
        return Ok(false);
    }
    let mut all: Vec<String> = lines.into_iter().flatten().collect();
    let new = key.line(addresses, port);
    if !all.contains(&new) {
        all.push(new);
    }
    replace(known_hosts, &format!("{}\n", all.join("\n")))?;
    Ok(true)
}

/// Numbers of the lines, from 0, that name a server, hashed names too.
async fn lines_about(known_hosts: &Path, name: &str) -> io::Result<Vec<usize>> {
    if !known_hosts.exists() {
        return Ok(Vec::new());
    }
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-F", name, "-f"]).arg(known_hosts);
    let output = keygen.stdin(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `# Host 203.0.113.7 found: line 3`, with a word more behind it for some.
    let number = |line: &str| {
        let (_, rest) = line.split_once(" found: line ")?;
        let number: usize = rest.split_whitespace().next()?.parse().ok()?;
        number.checked_sub(1)
    };
    Ok(text
        .lines()
        .filter(|line| line.starts_with('#'))
        .filter_map(number)
        .collect())
}

fn is_of(line: &str, key: &HostKey) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    matches!(words[..], [_, "ssh-ed25519", found, ..] if found == key.key)
}

/// The line for the other names on it, if there are any. A hashed line has one name.
fn without(line: &str, name: &str) -> Option<String> {
    let (names, rest) = line.split_once(char::is_whitespace)?;
    let others: Vec<&str> = names.split(',').filter(|other| *other != name).collect();
    (!names.starts_with('|') && !others.is_empty()).then(|| format!("{} {rest}", others.join(",")))
}

/// Whole or not at all: a known_hosts that was cut off would leave servers out.
fn replace(known_hosts: &Path, text: &str) -> io::Result<()> {
    let directory = known_hosts
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    let permissions = match std::fs::metadata(known_hosts) {
        Ok(there) => there.permissions(),
        // Public keys, and checked in.
        Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o644),
    };
    file.as_file().set_permissions(permissions)?;
    file.persist(known_hosts)?;
    Ok(())
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

/// The ed25519 key that the server shows to anybody; `None` when it shows none within 5 s. `identity` opens the host in between.
///
/// # Errors
/// When the OpenSSH programs cannot be used, or the host in between is not whom it should be or lets nobody through.
pub async fn shown(
    address: IpAddr,
    port: u16,
    jump: Option<&Jump>,
    identity: Option<&Path>,
) -> Result<Option<HostKey>, OpenError> {
    let text = match jump {
        None => scanned(address, port).await.map_err(OpenError::NoSsh)?,
        Some(_) => learned(address, port, jump, identity).await?,
    };
    let key = text
        .lines()
        .find_map(|line| line.split_once(" ssh-ed25519 "));
    let Some((_, key)) = key else {
        return Ok(None);
    };
    let key = key.trim().to_owned();
    let fingerprint = fingerprint(&format!("ssh-ed25519 {key}")).await;
    let fingerprint = fingerprint.map_err(OpenError::NoSsh)?;
    Ok(Some(HostKey { key, fingerprint }))
}

async fn scanned(address: IpAddr, port: u16) -> io::Result<String> {
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
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// ssh-keyscan knows no way through another host. An ssh that may log in with nothing writes the key into a file that nobody reads
/// but us, and ends.
async fn learned(
    address: IpAddr,
    port: u16,
    jump: Option<&Jump>,
    identity: Option<&Path>,
) -> Result<String, OpenError> {
    let way = Way::new(jump).map_err(OpenError::NoSsh)?;
    let asked = async {
        let file = tempfile::NamedTempFile::new()?;
        let mut ssh = Command::new("ssh");
        // The first value of an option counts.
        ssh.args(["-o", "StrictHostKeyChecking=accept-new"]);
        ssh.args(["-o", "PreferredAuthentications=none"]);
        ssh.args(ssh_options(file.path())?)
            .args(way.options(identity)?);
        ssh.args(["-p", &port.to_string(), "--"]);
        ssh.args([&address.to_string(), "true"]);
        let output = ssh.stdin(Stdio::null()).output().await?;
        let key = std::fs::read_to_string(file.path())?;
        Ok::<_, io::Error>((key, output.stderr))
    };
    let (key, stderr) = asked.await.map_err(OpenError::NoSsh)?;
    if !key.is_empty() {
        return Ok(key);
    }
    let stderr = String::from_utf8_lossy(&stderr);
    match way.failure(&stderr, "no answer".to_owned()) {
        // It may boot.
        OpenError::Unreachable { .. } => Ok(String::new()),
        error => Err(error),
    }
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
        let known_hosts = directory.path().join("known_hosts");
        let (key, public) = made(directory.path(), "key");
        assert_eq!(public_half(&key).await.unwrap(), public);
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

    /// A new key: its file, and its public half.
    fn made(directory: &Path, name: &str) -> (std::path::PathBuf, String) {
        let file = directory.join(name);
        let keygen = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(&file)
            .status();
        assert!(keygen.unwrap().success());
        let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
        (file, public.trim().to_owned())
    }

    #[tokio::test]
    async fn pinning_replaces_what_another_key_had_of_that_server_and_leaves_all_others() {
        let directory = tempfile::tempdir().unwrap();
        let (_, old) = made(directory.path(), "old");
        let (_, new) = made(directory.path(), "new");
        let (old, new) = (read(&old).await.unwrap(), read(&new).await.unwrap());
        let known_hosts = directory.path().join("known_hosts");
        let address = IpAddr::from([203, 0, 113, 7]);
        let other = IpAddr::from([203, 0, 113, 8]);
        let lines = [
            "# ours".to_owned(),
            old.line(&[address, other], 22),
            old.line(&[address], 2222),
            format!("@revoked {}", new.line(&[[203, 0, 113, 9].into()], 22)),
        ];
        std::fs::write(&known_hosts, lines.join("\n")).unwrap();
        assert!(pin(&known_hosts, &new, &[address], 22).await.unwrap());
        let expected = [
            "# ours".to_owned(),
            old.line(&[other], 22),
            lines[2].clone(),
            lines[3].clone(),
            new.line(&[address], 22),
        ];
        let now = std::fs::read_to_string(&known_hosts).unwrap();
        assert_eq!(now, format!("{}\n", expected.join("\n")));
        assert!(!pin(&known_hosts, &new, &[address], 22).await.unwrap());
        // Hashed, as ssh writes them where it is told to.
        let hash = std::process::Command::new("ssh-keygen")
            .args(["-q", "-H", "-f"])
            .arg(&known_hosts)
            .status();
        assert!(hash.unwrap().success());
        assert!(pin(&known_hosts, &old, &[address], 22).await.unwrap());
        let fingerprint = std::slice::from_ref(&old.fingerprint);
        assert_eq!(
            pinned(&known_hosts, address, 22).await.unwrap(),
            fingerprint
        );
        assert_eq!(pinned(&known_hosts, other, 22).await.unwrap(), fingerprint);
    }

    #[tokio::test]
    async fn a_new_known_hosts_is_made_with_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let (_, public) = made(directory.path(), "key");
        let key = read(&public).await.unwrap();
        let known_hosts = directory.path().join("known_hosts");
        let address = IpAddr::from([203, 0, 113, 7]);
        assert!(pin(&known_hosts, &key, &[address], 22).await.unwrap());
        let now = std::fs::read_to_string(&known_hosts).unwrap();
        assert_eq!(now, format!("{}\n", key.line(&[address], 22)));
        assert!(read("ssh-rsa AAAA").await.is_err());
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
