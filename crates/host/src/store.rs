//! Releases on this host: artefacts by hash, and per release its manifest, env and config.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use regionwise_protocol::Denial;
use regionwise_rollout::release::{Digest, Manifest};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::deny::{OrDeny, host, invalid, refused};
use crate::durable;
use crate::layout::Layout;
use crate::settings::parse_env;

/// The releases of one host.
pub(crate) struct Store<'a> {
    layout: &'a Layout,
}

impl<'a> Store<'a> {
    pub(crate) fn new(layout: &'a Layout) -> Self {
        Self { layout }
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.layout.blob(digest).is_file()
    }

    /// Takes `size` bytes from `input` and keeps them when their hash is the promised one.
    pub(crate) async fn receive(
        &self,
        digest: &Digest,
        size: u64,
        input: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), Denial> {
        let directory = self.layout.blobs();
        let action = || format!("cannot store artefact {}", digest.short());
        let mut file = NamedTempFile::new_in(&directory).or_host(action)?;
        let mut hash = Sha256::new();
        let mut left = size;
        let mut failed = None;
        let mut buffer = vec![0; 256 * 1024];
        // All bytes are read also after a failed write: the next request comes behind them.
        while left > 0 {
            let most = usize::try_from(left.min(buffer.len() as u64)).unwrap_or(buffer.len());
            let read = input.read(&mut buffer[..most]).await.or_host(action)?;
            if read == 0 {
                return Err(host(format!(
                    "{}: the connection ended {left} bytes early",
                    action()
                )));
            }
            hash.update(&buffer[..read]);
            if failed.is_none() {
                failed = file.write_all(&buffer[..read]).err();
            }
            left -= read as u64;
        }
        if let Some(error) = failed {
            return Err(error).or_host(action);
        }
        let found = Digest::from_hash(hash);
        if found != *digest {
            return Err(invalid(format!(
                "artefact has sha256 {found}, expected {digest}"
            )));
        }
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o755))
            .or_host(action)?;
        file.as_file().sync_all().or_host(action)?;
        file.persist(self.layout.blob(digest)).or_host(action)?;
        durable::sync_directory(&directory).or_host(action)
    }

    pub(crate) fn manifest(&self, name: &str) -> Result<Option<Manifest>, Denial> {
        if !Manifest::is_name(name) {
            return Err(invalid(format!(
                "`{}` cannot be the name of a release",
                name.escape_debug()
            )));
        }
        durable::read(&self.layout.release(name).join("manifest.json"))
    }

    /// Whether exactly this release is complete here.
    ///
    /// # Errors
    /// Refuses a known name with another content: a release is immutable.
    pub(crate) fn has_release(&self, manifest: &Manifest) -> Result<bool, Denial> {
        match self.manifest(&manifest.name)? {
            None => Ok(false),
            Some(known) if known.digest() == manifest.digest() => Ok(true),
            Some(known) => Err(refused(format!(
                "release `{}` is already here with digest {}, this one has {}",
                manifest.name,
                known.digest().short(),
                manifest.digest().short()
            ))
            .with_hint("a release is immutable: give the new content a new name")),
        }
    }

    /// Writes a release down. The manifest comes last: with it the release exists.
    pub(crate) fn put(&self, manifest: &Manifest, env: &str, config: &str) -> Result<(), Denial> {
        if self.has_release(manifest)? && self.has_blob(&manifest.artifact) {
            return Ok(());
        }
        for (what, expected, text) in [
            ("env", &manifest.env, env),
            ("config", &manifest.config, config),
        ] {
            let found = Digest::of(text.as_bytes());
            if found != *expected {
                return Err(invalid(format!(
                    "{what} of release `{}` has sha256 {found}, expected {expected}",
                    manifest.name
                )));
            }
        }
        if !self.has_blob(&manifest.artifact) {
            return Err(invalid(format!(
                "artefact {} of release `{}` is not here",
                manifest.artifact.short(),
                manifest.name
            )));
        }
        parse_env(env, "the release's env")?;
        let directory = self.layout.release(&manifest.name);
        fs::create_dir_all(&directory)
            .or_host(|| format!("cannot create `{}`", directory.display()))?;
        durable::replace(self.layout, &directory.join("env"), env.as_bytes(), 0o600)?;
        durable::replace(
            self.layout,
            &directory.join("config"),
            config.as_bytes(),
            0o600,
        )?;
        durable::write(self.layout, &directory.join("manifest.json"), manifest)
    }

    /// The env of a release, checked against its manifest.
    pub(crate) fn env(&self, manifest: &Manifest) -> Result<BTreeMap<String, String>, Denial> {
        let path = self.layout.release(&manifest.name).join("env");
        let text =
            fs::read_to_string(&path).or_host(|| format!("cannot read `{}`", path.display()))?;
        if Digest::of(text.as_bytes()) != manifest.env {
            return Err(refused(format!(
                "the env of release `{}` was changed on this host",
                manifest.name
            )));
        }
        parse_env(&text, "the release's env")
    }

    /// Names of the complete releases, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, Denial> {
        let directory = self.layout.releases();
        let entries = fs::read_dir(&directory)
            .or_host(|| format!("cannot list `{}`", directory.display()))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| self.layout.release(name).join("manifest.json").is_file())
            .collect();
        names.sort();
        Ok(names)
    }
}
