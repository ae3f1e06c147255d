//! The private key as ssh wants it: a file of mode 0600 that ends with the run.

use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// A private key in a file of its own, removed when this value goes.
pub struct Identity {
    file: NamedTempFile,
}

impl Identity {
    /// Writes the key with the line ends that ssh needs: a CI secret often lost its last one or has CRLF, and ssh then
    /// says `error in libcrypto`.
    ///
    /// # Errors
    /// When the text is not a private key at all, or the temporary file cannot be written.
    pub fn write(key: &str) -> io::Result<Self> {
        let lines: Vec<&str> = key
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        let framed = |line: Option<&&str>, word: &str| {
            line.is_some_and(|line| {
                line.starts_with(&format!("-----{word} ")) && line.ends_with("PRIVATE KEY-----")
            })
        };
        if !framed(lines.first(), "BEGIN") || !framed(lines.last(), "END") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this is not a private key in PEM or OpenSSH form",
            ));
        }
        // tempfile creates with mode 0600.
        let mut file = tempfile::Builder::new()
            .prefix("regionwise-key-")
            .tempfile()?;
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.flush()?;
        Ok(Self { file })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Identity;

    #[test]
    fn a_key_without_its_last_newline_or_with_crlf_becomes_a_key_file() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\r\nabc\r\n-----END OPENSSH PRIVATE KEY-----";
        let identity = Identity::write(key).unwrap();
        let text = fs::read_to_string(identity.path()).unwrap();
        assert_eq!(
            text,
            "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n"
        );
        let path = identity.path().to_owned();
        drop(identity);
        assert!(!path.exists());
    }

    #[test]
    fn a_public_key_is_not_a_private_one() {
        assert!(Identity::write("ssh-ed25519 AAAA somebody").is_err());
        assert!(Identity::write("").is_err());
    }
}
