//! Files that are whole after a crash: written beside, synced, renamed, directory synced.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use regionwise_protocol::Denial;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use crate::deny::{OrDeny, corrupt};
use crate::layout::Layout;

/// Replaces `path` by `bytes`, wholly or not at all. On a full disk the ballast goes first.
pub(crate) fn replace(layout: &Layout, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Denial> {
    let first = try_replace(path, bytes, mode);
    let written = match first {
        Err(error)
            if error.kind() == ErrorKind::StorageFull
                && fs::remove_file(layout.ballast()).is_ok() =>
        {
            try_replace(path, bytes, mode)
        }
        other => other,
    };
    written.or_host(|| format!("cannot write `{}`", path.display()))
}

fn try_replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = parent(path);
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Writes a value as JSON.
pub(crate) fn write<T: Serialize>(layout: &Layout, path: &Path, value: &T) -> Result<(), Denial> {
    let text = serde_json::to_vec_pretty(value)
        .or_host(|| format!("cannot encode `{}`", path.display()))?;
    replace(layout, path, &text, 0o600)
}

/// Reads a JSON value; `None` when there is no file. A file that does not parse is an error, never "nothing".
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Denial> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).or_host(|| format!("cannot read `{}`", path.display())),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        corrupt(format!("`{}` is damaged: {error}", path.display()))
            .with_hint("keep the file as evidence; restore it from the last line of history.jsonl")
    })
}

/// Removes a file; no error when it is not there.
pub(crate) fn remove(path: &Path) -> Result<(), Denial> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| sync_directory(parent(path))),
    };
    removed.or_host(|| format!("cannot remove `{}`", path.display()))
}

pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    // Every path of `Layout` lies below the root.
    path.parent().unwrap_or(Path::new("."))
}
