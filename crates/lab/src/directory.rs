//! The directory of one lab: what lies where, and who may use it.
//!
//! A lab holds a lock on its `lab.log` for its whole life: the file is the stderr of guard and supervisor, so
//! the lock ends exactly when both are gone, however they ended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::account::Account;
use crate::processes;

/// Programs that run inside the lab, copied so that a rebuild never disturbs it.
pub const PROGRAMS: [&str; 3] = ["lab", "region-host", "reference-api"];

/// The longest path of a lab. A unix socket address holds 107 bytes, and the deepest socket below the
/// directory needs 47 of them.
pub const MAX_LENGTH: usize = 60;

/// A link in the place of the log is not followed.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

const MARKER: &str = "regionwise-lab";
const MARKER_TEXT: &str = "This directory belongs to a regionwise lab and is removed with it.\n";

/// How long leftovers of a dead lab may take to end after SIGKILL.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// Paths inside a lab's directory.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("cannot start a lab in `{dir}`: one runs there{at}")]
    Live { dir: PathBuf, at: String },
    #[error("cannot use `{0}` for a lab: it exists, and no lab has made it")]
    Foreign(PathBuf),
    #[error(
        "cannot use `{dir}` for a lab: its path has {length} bytes, and more than {MAX_LENGTH} leave no room for \
         socket names"
    )]
    TooLong { dir: PathBuf, length: usize },
    #[error("cannot find the program `{0}` that the lab needs")]
    ProgramMissing(PathBuf),
    #[error("cannot {doing} `{path}`")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl ClaimError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Live { dir, .. } => Some(format!("lab down --dir {}", dir.display())),
            Self::Foreign(_) | Self::TooLong { .. } => {
                Some("lab up --dir ANOTHER_DIRECTORY".to_owned())
            }
            Self::ProgramMissing(_) => Some("cargo build --bins".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// A directory that is ours now: nobody else can start a lab there while `log` is open.
#[derive(Debug)]
pub struct Claim {
    pub directory: Directory,
    /// Locked. Becomes the stderr of the guard.
    pub log: File,
}

impl Directory {
    /// The directory that `path` names now, also through links and from another working directory: the mark of
    /// its processes is this one spelling.
    pub fn at(path: &Path) -> io::Result<Self> {
        let absolute = std::path::absolute(path)?;
        match (absolute.parent(), absolute.file_name()) {
            // The directory itself need not exist yet.
            (Some(parent), Some(name)) if !absolute.exists() => Ok(Self {
                path: fs::canonicalize(parent)?.join(name),
            }),
            _ => Ok(Self {
                path: fs::canonicalize(absolute)?,
            }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The programs inside the lab.
    pub fn program(&self, name: &str) -> PathBuf {
        self.path.join("bin").join(name)
    }

    pub fn host(&self, name: &str) -> PathBuf {
        self.path.join("hosts").join(name)
    }

    pub fn node(&self, name: &str) -> PathBuf {
        self.path.join("nodes").join(name)
    }

    /// What the lab itself writes for the parts of a region.
    pub fn region(&self, name: &str) -> PathBuf {
        self.path.join("regions").join(name)
    }

    pub fn log_of(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    pub fn regions_toml(&self) -> PathBuf {
        self.path.join("regions.toml")
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.path.join("known_hosts")
    }

    pub fn deploy_key(&self) -> PathBuf {
        self.path.join("deploy_key")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    pub fn status_json(&self) -> PathBuf {
        self.path.join("status.json")
    }

    /// Written by the guard: the block that this lab has reserved.
    pub fn block_file(&self) -> PathBuf {
        self.path.join("block")
    }

    pub fn lab_log(&self) -> PathBuf {
        self.path.join("lab.log")
    }

    /// Whether guard or supervisor of a lab is alive here.
    pub fn is_live(&self) -> io::Result<bool> {
        match File::open(self.lab_log()) {
            Ok(log) => Ok(!try_lock(&log)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a lab has made this directory.
    pub fn is_ours(&self) -> bool {
        self.path.join(MARKER).is_file()
    }

    /// Makes the directory for a new lab of `account`, after clearing what a dead one left there, and copies
    /// the programs from `bin_dir` into it. Where the caller is root everything belongs to `account` afterwards.
    pub fn claim(path: &Path, bin_dir: &Path, account: &Account) -> Result<Claim, ClaimError> {
        let directory = Self::at(path).map_err(io_error("resolve", path))?;
        let length = directory.path.as_os_str().as_bytes().len();
        if length > MAX_LENGTH {
            return Err(ClaimError::TooLong {
                dir: directory.path,
                length,
            });
        }
        let log = directory.lock_or_make(account)?;
        directory.clear_except_log()?;
        let ended = processes::kill_marked(&directory.path, Instant::now() + LEFTOVERS);
        ended.map_err(io_error("end what a dead lab left in", &directory.path))?;
        directory.fill(bin_dir)?;
        if account.drop {
            directory.give_to(account)?;
        }
        Ok(Claim { directory, log })
    }

    fn lock_or_make(&self, account: &Account) -> Result<File, ClaimError> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => self.write_marker()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.adopt(account)?,
            Err(error) => return Err(io_error("make", &self.path)(error)),
        }
        let path = self.lab_log();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(&path);
        let log = log.map_err(io_error("open", &path))?;
        if try_lock(&log).map_err(io_error("lock", &path))? {
            return Ok(log);
        }
        let block = fs::read_to_string(self.block_file());
        let at = block.map_or_else(
            |_| " and is starting".to_owned(),
            |block| format!(" at {}", block.trim_end()),
        );
        Err(ClaimError::Live {
            dir: self.path.clone(),
            at,
        })
    }

    /// Takes over a directory that exists: an empty one, or one that an earlier lab has made.
    fn adopt(&self, account: &Account) -> Result<(), ClaimError> {
        let owner = fs::symlink_metadata(&self.path).map_err(io_error("read", &self.path))?;
        // In a shared temporary directory anybody can make one with this name and put links into it.
        let trusted = [rustix::process::getuid().as_raw(), account.uid].contains(&owner.uid());
        if !trusted || !owner.is_dir() {
            return Err(ClaimError::Foreign(self.path.clone()));
        }
        if is_empty(&self.path)? {
            return self.write_marker();
        }
        if self.is_ours() {
            Ok(())
        } else {
            Err(ClaimError::Foreign(self.path.clone()))
        }
    }

    fn write_marker(&self) -> Result<(), ClaimError> {
        let marker = self.path.join(MARKER);
        fs::write(&marker, MARKER_TEXT).map_err(io_error("write", &marker))
    }

    fn clear_except_log(&self) -> Result<(), ClaimError> {
        self.remove_contents(|name| name == MARKER || name == "lab.log")
            .map_err(io_error("clear", &self.path))
    }

    /// Removes what is large and secret, and keeps the logs.
    pub fn remove_all_but_logs(&self) -> io::Result<()> {
        self.remove_contents(|name| [MARKER, "lab.log", "logs"].contains(&name))
    }

    /// Removes the directory. Where only its parent's owner could do that, an empty one stays.
    pub fn remove(&self) -> io::Result<()> {
        self.remove_contents(|_| false)?;
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            done => done,
        }
    }

    fn remove_contents(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(&keep) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn fill(&self, bin_dir: &Path) -> Result<(), ClaimError> {
        for name in ["bin", "hosts", "nodes", "regions", "logs"] {
            let path = self.path.join(name);
            fs::DirBuilder::new()
                .mode(0o755)
                .create(&path)
                .map_err(io_error("make", &path))?;
        }
        for name in PROGRAMS {
            let (from, to) = (bin_dir.join(name), self.program(name));
            if !from.is_file() {
                return Err(ClaimError::ProgramMissing(from));
            }
            // A copy, not a hard link: root must not change the owner of the original, and a linker may write
            // into the file it replaces.
            fs::copy(&from, &to).map_err(io_error("copy", &from))?;
        }
        Ok(())
    }

    fn give_to(&self, account: &Account) -> Result<(), ClaimError> {
        let mut paths = vec![self.path.clone()];
        while let Some(path) = paths.pop() {
            lchown(&path, Some(account.uid), Some(account.gid))
                .map_err(io_error("change the owner of", &path))?;
            if path.is_dir() && !path.is_symlink() {
                for entry in fs::read_dir(&path).map_err(io_error("read", &path))? {
                    paths.push(entry.map_err(io_error("read", &path))?.path());
                }
            }
        }
        Ok(())
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_empty(path: &Path) -> Result<bool, ClaimError> {
    Ok(fs::read_dir(path)
        .map_err(io_error("read", path))?
        .next()
        .is_none())
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    let path = path.to_owned();
    move |source| ClaimError::Io {
        doing,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{ClaimError, Directory, PROGRAMS};
    use crate::account::Account;

    fn programs() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for name in PROGRAMS {
            fs::write(dir.path().join(name), name).expect("a program");
        }
        dir
    }

    fn claim(path: &Path, bin_dir: &Path) -> Result<super::Claim, ClaimError> {
        let account = Account {
            name: "ada".to_owned(),
            uid: 1000,
            gid: 1000,
            drop: false,
        };
        Directory::claim(path, bin_dir, &account)
    }

    #[test]
    fn a_live_lab_keeps_its_directory_and_a_dead_one_leaves_it() {
        let (temp, bins) = (tempfile::tempdir().expect("a directory"), programs());
        let path = temp.path().join("lab");
        let first = claim(&path, bins.path()).expect("a claim");
        fs::write(path.join("left"), "over").expect("a file");
        fs::write(first.directory.block_file(), "127.9.8.0/24\n").expect("a file");
        let error = claim(&path, bins.path()).expect_err("live");
        assert!(
            error
                .to_string()
                .ends_with("one runs there at 127.9.8.0/24"),
            "{error}"
        );
        assert_eq!(
            error.hint(),
            Some(format!("lab down --dir {}", path.display()))
        );
        assert!(first.directory.is_live().expect("a lock"));
        drop(first);
        let second = claim(&path, bins.path()).expect("a claim");
        assert!(!path.join("left").exists());
        assert_eq!(
            fs::read(second.directory.program("lab")).expect("a program"),
            b"lab"
        );
    }

    #[test]
    fn a_foreign_directory_is_left_alone() {
        let (temp, bins) = (tempfile::tempdir().expect("a directory"), programs());
        fs::write(temp.path().join("thesis.txt"), "years").expect("a file");
        assert!(matches!(
            claim(temp.path(), bins.path()),
            Err(ClaimError::Foreign(_))
        ));
        assert!(temp.path().join("thesis.txt").exists());
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused() {
        let (temp, bins) = (tempfile::tempdir().expect("a directory"), programs());
        let path = temp.path().join("x".repeat(60));
        assert!(matches!(
            claim(&path, bins.path()),
            Err(ClaimError::TooLong { .. })
        ));
    }

    #[test]
    fn a_missing_program_is_named() {
        let temp = tempfile::tempdir().expect("a directory");
        let error = claim(&temp.path().join("lab"), temp.path()).expect_err("missing");
        assert!(matches!(error, ClaimError::ProgramMissing(path) if path.ends_with("lab")));
    }
}
