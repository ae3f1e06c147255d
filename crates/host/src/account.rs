//! The account that a host's state belongs to, and whose only key is bound to `region-host serve`.

use std::ffi::CStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use regionwise_protocol::Denial;
use rustix::fs::{AtFlags, CWD, Dir, Gid, Mode, OFlags, Uid, chownat, openat};
use rustix::io::Errno;

use crate::deny::{OrDeny, host, invalid, refused};

pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) made: bool,
    pub(crate) authorized_keys: PathBuf,
    home: PathBuf,
    ids: Option<Ids>,
}

impl Account {
    /// Makes the account when it is missing. Its home is the directory above the state, so that sshd's own checks of
    /// home and key file hold without any setting.
    pub(crate) fn ensure(name: &str, root: &Path, dry_run: bool) -> Result<Self, Denial> {
        let fits = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fits || !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.len() > 31 {
            return Err(invalid(format!(
                "`{}` cannot name an account",
                name.escape_debug()
            )));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(
                invalid("an account can be made and given files by root only")
                    .with_hint("run it with sudo"),
            );
        }
        let parent = root.parent().filter(|parent| *parent != Path::new("/"));
        let parent = parent.ok_or_else(|| invalid("--root must lie below a directory of its own, for example /var/lib/regionwise/shop"))?;
        let (made, home, ids) = match look_up(name)? {
            Some((_, (0, _))) => {
                return Err(
                    refused(format!("`{name}` is root, and a deploy key must not be"))
                        .with_hint("name an account of its own; it is made when it is missing"),
                );
            }
            Some((home, ids)) => (false, home, Some(ids)),
            None => {
                if !dry_run {
                    add(name, parent)?;
                }
                (true, parent.to_owned(), look_up(name)?.map(|(_, ids)| ids))
            }
        };
        let ssh = home.join(".ssh");
        let authorized_keys = ssh.join("authorized_keys");
        // It is the account's to make, and root would write where it points.
        if ssh.is_symlink() {
            return Err(refused(format!("`{}` is a symbolic link", ssh.display())));
        }
        keys_of_others(&authorized_keys, root)?;
        if !dry_run {
            fs::create_dir_all(&home).or_host(|| format!("cannot create `{}`", home.display()))?;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&ssh)
                .or_host(|| format!("cannot create `{}`", ssh.display()))?;
        }
        Ok(Self {
            name: name.to_owned(),
            made,
            authorized_keys,
            home,
            ids,
        })
    }

    /// `None` in a dry run that would make the account.
    pub(crate) const fn ids(&self) -> Option<Ids> {
        self.ids
    }

    /// Gives the home and everything below the state to the account.
    pub(crate) fn own(&self, root: &Path) -> Result<(), Denial> {
        let ids = self
            .ids
            .ok_or_else(|| host(format!("account `{}` was made and is not there", self.name)))?;
        let ssh = self.home.join(".ssh");
        for path in [&self.home, &ssh, &self.authorized_keys] {
            lchown(path, Some(ids.0), Some(ids.1)).or_host(|| cannot_give(path))?;
        }
        let owner = (Uid::from_raw(ids.0), Gid::from_raw(ids.1));
        give_tree(root, owner).or_host(|| cannot_give(root))
    }
}

/// User and group.
pub(crate) type Ids = (u32, u32);

/// Home and ids, from the passwd database.
fn look_up(name: &str) -> Result<Option<(PathBuf, Ids)>, Denial> {
    let action = || format!("cannot look up account `{name}`");
    let output = Command::new("getent")
        .args(["passwd", name])
        .output()
        .or_host(action)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(line) = text.lines().next() else {
        return Ok(None);
    };
    let fields: Vec<&str> = line.split(':').collect();
    match (
        fields.get(2).map(|id| id.parse()),
        fields.get(3).map(|id| id.parse()),
        fields.get(5),
    ) {
        (Some(Ok(user)), Some(Ok(group)), Some(home)) => {
            Ok(Some((PathBuf::from(home), (user, group))))
        }
        _ => Err(host(format!(
            "{}: getent says `{}`",
            action(),
            line.escape_debug()
        ))),
    }
}

fn add(name: &str, home: &Path) -> Result<(), Denial> {
    let action = || format!("cannot make account `{name}`");
    let output = Command::new("useradd")
        // The shell runs the forced command. `*` is no password, and unlike `!` not a locked account either: sshd
        // without PAM would refuse the key of a locked one.
        .args([
            "--system",
            "--user-group",
            "--password",
            "*",
            "--shell",
            "/bin/sh",
            "--home-dir",
        ])
        .arg(home)
        .arg(name)
        .output()
        .or_host(action)?;
    if output.status.success() {
        return Ok(());
    }
    Err(host(format!(
        "{}: {}",
        action(),
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// An account that somebody logs in with stays theirs: every line must be one that an install below `root` wrote.
fn keys_of_others(path: &Path, root: &Path) -> Result<(), Denial> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).or_host(|| format!("cannot read `{}`", path.display())),
    };
    let end = format!(" serve --root {}", root.display());
    let ours = |line: &str| {
        let command = line.strip_prefix("restrict,command=\"");
        let command = command.and_then(|rest| rest.split_once('"'));
        command.is_some_and(|(command, _)| command.ends_with(&end))
    };
    let foreign = text
        .lines()
        .map(str::trim)
        .position(|line| !line.is_empty() && !line.starts_with('#') && !ours(line));
    match foreign {
        None => Ok(()),
        Some(at) => Err(refused(format!(
            "`{}`, line {}, is not of an install below `{}`, and would be lost",
            path.display(),
            at + 1,
            root.display()
        ))
        .with_hint("choose another account, or move the line away first")),
    }
}

/// Every file below `top`, links themselves and not what they point to: the account can put a link anywhere in it, also
/// while we look, so nothing is opened by a path.
fn give_tree(top: &Path, owner: (Uid, Gid)) -> io::Result<()> {
    let directory = openat(CWD, top, OPEN_DIRECTORY, Mode::empty())?;
    give_below(directory.as_fd(), owner)?;
    Ok(rustix::fs::fchown(
        &directory,
        Some(owner.0),
        Some(owner.1),
    )?)
}

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn give_below(directory: BorrowedFd<'_>, owner: (Uid, Gid)) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match openat(directory, name, OPEN_DIRECTORY, Mode::empty()) {
            Ok(below) => give_below(below.as_fd(), owner)?,
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        chownat(directory, name, Some(owner.0), Some(owner.1), nofollow)?;
    }
    Ok(())
}

fn cannot_give(path: &Path) -> String {
    format!("cannot give `{}` to its account", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn keys_that_no_install_wrote_are_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authorized_keys");
        let root = Path::new("/var/lib/regionwise/shop");
        assert!(keys_of_others(&path, root).is_ok(), "there is no file yet");
        let ours = "restrict,command=\"/usr/local/bin/region-host serve --root /var/lib/regionwise/shop\" ssh-ed25519 A a";
        fs::write(&path, format!("# of an install\n\n{ours}\n")).unwrap();
        assert!(keys_of_others(&path, root).is_ok());
        for foreign in [
            "ssh-ed25519 A admin@laptop".to_owned(),
            ours.replace("restrict,", ""),
            ours.replace("serve", "reconcile"),
            ours.replace("regionwise/shop", "regionwise/other"),
            "ssh-ed25519 A region-host serve --root /var/lib/regionwise/shop".to_owned(),
        ] {
            fs::write(&path, format!("{ours}\n{foreign}\n")).unwrap();
            let denial = keys_of_others(&path, root).unwrap_err();
            assert!(
                denial.text.contains("line 2, is not of an install"),
                "{}",
                denial.text
            );
        }
    }

    #[test]
    fn a_link_below_the_state_gives_nothing_away() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (state, outside) = (
            directory.path().join("state"),
            directory.path().join("outside"),
        );
        fs::create_dir_all(state.join("log")).unwrap();
        fs::create_dir(&outside).unwrap();
        for file in [state.join("log/blue.log"), outside.join("shadow")] {
            fs::write(file, "").unwrap();
        }
        symlink(&outside, state.join("releases")).unwrap();
        symlink(outside.join("shadow"), state.join("log/green.log")).unwrap();
        give_tree(&state, (Uid::from_raw(4242), Gid::from_raw(4242))).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        for given in ["", "log", "log/blue.log", "log/green.log", "releases"] {
            assert_eq!(owner(&state.join(given)), 4242, "{given}");
        }
        assert_eq!((owner(&outside), owner(&outside.join("shadow"))), (0, 0));
    }
}
