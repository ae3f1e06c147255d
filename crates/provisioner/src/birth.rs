//! The host key with which a server is born: made here, so that the first connection is pinned, and kept nowhere else.

use std::io;
use std::process::Stdio;

use data_encoding::{BASE32_NOPAD, BASE64};
use sha2::{Digest, Sha256};
use tokio::process::Command;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum NoKey {
    #[error("cannot run ssh-keygen: {0}")]
    Run(#[from] io::Error),
    #[error("ssh-keygen: {0}")]
    Said(String),
    #[error("what ssh-keygen wrote is no public key")]
    Unreadable,
}

/// A one-time ed25519 host key.
pub struct Birth {
    /// In OpenSSH's form; for the user data and nowhere else.
    pub private: String,
    /// `ssh-ed25519 AAAA..`
    pub public: String,
    /// SHA-256 of the key in base32 without padding, 52 characters: a label may not hold the base64 that OpenSSH writes.
    pub label: String,
}

impl Birth {
    /// Makes one.
    ///
    /// # Errors
    /// [`NoKey`]
    pub async fn make() -> Result<Self, NoKey> {
        let directory = tempfile::Builder::new()
            .prefix("regionwise-key-")
            .tempdir()?;
        let file = directory.path().join("host");
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(&file);
        run(command).await?;
        let public = tokio::fs::read_to_string(file.with_extension("pub")).await?;
        let public = bare(&public)?;
        Ok(Self {
            private: tokio::fs::read_to_string(&file).await?,
            label: label(&public)?,
            public,
        })
    }
}

async fn run(mut command: Command) -> Result<(), NoKey> {
    let output = command.stdin(Stdio::null()).output().await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(NoKey::Said(said.trim().to_owned()));
    }
    Ok(())
}

/// Without the comment.
fn bare(line: &str) -> Result<String, NoKey> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some(kind), Some(key)) => Ok(format!("{kind} {key}")),
        _ => Err(NoKey::Unreadable),
    }
}

fn label(public: &str) -> Result<String, NoKey> {
    let key = public.split(' ').nth(1).ok_or(NoKey::Unreadable)?;
    let bytes = BASE64
        .decode(key.as_bytes())
        .map_err(|_| NoKey::Unreadable)?;
    Ok(BASE32_NOPAD.encode(&Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE32_NOPAD, BASE64_NOPAD};

    use super::Birth;

    #[tokio::test]
    async fn the_label_is_the_fingerprint_that_openssh_shows() {
        let birth = Birth::make().await.unwrap();
        assert_eq!(birth.label.len(), 52);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.pub");
        std::fs::write(&file, &birth.public).unwrap();
        let shown = std::process::Command::new("ssh-keygen")
            .arg("-lf")
            .arg(&file)
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let hash = shown
            .split("SHA256:")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        let bytes = BASE64_NOPAD.decode(hash.as_bytes()).unwrap();
        assert_eq!(birth.label, BASE32_NOPAD.encode(&bytes));
    }
}
