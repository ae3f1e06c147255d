//! The system's programs that a lab needs, found before anything is started.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where each program is.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) haproxy: PathBuf,
    pub(crate) sshd: PathBuf,
    pub(crate) ssh_keygen: PathBuf,
    /// Absent in a lab without clusters.
    pub(crate) databases: Option<Databases>,
}

#[derive(Clone, Debug)]
pub(crate) struct Databases {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
    pub(crate) pgbouncer: PathBuf,
    pub(crate) redis: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot find `{program}`{wanted}")]
pub(crate) struct MissingProgram {
    program: &'static str,
    wanted: &'static str,
    package: &'static str,
}

impl MissingProgram {
    pub(crate) fn hint(&self) -> String {
        format!("apt-get install --no-install-recommends {}", self.package)
    }
}

/// The oldest Postgres whose row filters, pause states and statistics everything here relies on.
const OLDEST_POSTGRES: u32 = 15;

impl Programs {
    pub(crate) fn find(clusters: bool) -> Result<Self, MissingProgram> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
        // Not in the PATH of ordinary accounts.
        directories.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        let find = |program: &'static str, package: &'static str| {
            let found = directories
                .iter()
                .map(|directory| directory.join(program))
                .find(|path| path.is_file());
            found.ok_or(MissingProgram {
                program,
                wanted: "",
                package,
            })
        };
        let databases = if clusters {
            let postgres = postgres_directory()?;
            Some(Databases {
                initdb: postgres.join("initdb"),
                postgres: postgres.join("postgres"),
                pgbouncer: find("pgbouncer", "pgbouncer")?,
                redis: find("redis-server", "redis-server")?,
            })
        } else {
            None
        };
        Ok(Self {
            haproxy: find("haproxy", "haproxy")?,
            sshd: find("sshd", "openssh-server")?,
            ssh_keygen: find("ssh-keygen", "openssh-client")?,
            databases,
        })
    }
}

fn postgres_directory() -> Result<PathBuf, MissingProgram> {
    let said = std::process::Command::new("pg_config")
        .arg("--bindir")
        .output();
    let said = said
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let from_pg_config = said
        .map(|text| PathBuf::from(text.trim()))
        .filter(|path| path.join("initdb").is_file());
    let packaged = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = newest(packaged.map(|entry| entry.path()));
    // The client library brings a pg_config without a server, so what it names must exist.
    from_pg_config
        .filter(|path| version(path) >= Some(OLDEST_POSTGRES))
        .or(newest)
        .ok_or(MissingProgram {
            program: "initdb",
            wanted: " of Postgres 15 or newer",
            package: "postgresql",
        })
}

/// The `bin` of the newest version among `/usr/lib/postgresql/VERSION`.
fn newest(versions: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let usable = versions.filter_map(|path| {
        let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let bin = path.join("bin");
        (version >= OLDEST_POSTGRES && bin.join("initdb").is_file()).then_some((version, bin))
    });
    usable
        .max_by_key(|(version, _)| *version)
        .map(|(_, bin)| bin)
}

/// Major version of the Postgres in that directory.
fn version(bin: &Path) -> Option<u32> {
    let output = std::process::Command::new(bin.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_ascii_whitespace()
        .nth(2)?
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::newest;

    #[test]
    fn the_newest_postgres_wins_by_number_and_an_old_or_empty_one_never() {
        let temp = tempfile::tempdir().expect("a directory");
        let make = |version: &str| {
            let bin = temp.path().join(version).join("bin");
            fs::create_dir_all(&bin).expect("a directory");
            fs::write(bin.join("initdb"), "").expect("a file");
        };
        let versions = || {
            fs::read_dir(temp.path())
                .expect("versions")
                .flatten()
                .map(|entry| entry.path())
        };
        make("9");
        make("14");
        fs::create_dir_all(temp.path().join("18")).expect("a directory");
        assert_eq!(newest(versions()), None);
        make("15");
        make("16");
        assert_eq!(newest(versions()), Some(temp.path().join("16/bin")));
    }
}
