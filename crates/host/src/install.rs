//! `install`: makes the files, the key and the proxy configuration of a host. Running it again changes only what differs.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use regionwise_protocol::Denial;
use rustix::fs::OFlags;

use crate::account::Account;
use crate::deny::{OrDeny, invalid};
use crate::durable;
use crate::layout::{DIRECTORIES, Layout};
use crate::proxy;
use crate::settings::{Settings, parse_env};
use crate::traffic;

/// Given up on a full disk, so that a rollback can still be written down.
const BALLAST: usize = 8 * 1024 * 1024;

/// What `install` needs to know.
pub struct Install {
    pub root: PathBuf,
    pub app: String,
    /// Where HAProxy listens.
    pub listen: SocketAddr,
    /// Ports of blue and green, on loopback.
    pub slot_ports: [u16; 2],
    pub health_path: String,
    /// Public keys that may call this host, one per line.
    pub authorized_keys: String,
    /// Env of every release on this host.
    pub env: String,
    /// The `region-host` that the key is bound to.
    pub helper: PathBuf,
    /// The account that everything belongs to, made when it is missing; `None` is the one that installs.
    pub account: Option<String>,
}

/// What `install` made.
#[derive(Debug)]
pub struct Installed {
    /// Every file, and whether it had to be written, or given its mode or owner.
    pub files: Vec<(PathBuf, bool)>,
    /// The account, and whether it had to be made.
    pub account: Option<(String, bool)>,
}

impl Install {
    /// Makes everything, or with `dry_run` only says what would be made.
    ///
    /// # Errors
    /// On input that cannot work (nothing is written then) and on a disk that refuses.
    pub fn run(&self, dry_run: bool) -> Result<Installed, Denial> {
        let layout = Layout::new(self.root.clone());
        let mut wanted = self.files(&layout)?;
        let account = self
            .account
            .as_deref()
            .map(|name| Account::ensure(name, layout.root(), dry_run))
            .transpose()?;
        if let Some(account) = &account {
            let keys = self.forced_commands(&layout)?.into_bytes();
            wanted.push(File::ours(account.authorized_keys.clone(), keys, 0o600));
        }
        let mut files = Vec::new();
        if !dry_run {
            for directory in DIRECTORIES {
                let path = layout.root().join(directory);
                fs::create_dir_all(&path)
                    .or_host(|| format!("cannot create `{}`", path.display()))?;
            }
        }
        for File {
            path,
            content,
            mode,
            keep,
        } in wanted
        {
            let write = match fs::read(&path).ok() {
                None => true,
                Some(_) if keep => false,
                Some(bytes) => bytes != content,
            };
            let owner = account.as_ref().and_then(Account::ids);
            let give = !write && !is_given(&path, mode, owner);
            if write && !dry_run {
                durable::replace(&layout, &path, &content, mode)?;
            } else if give && !dry_run {
                // Its owner it gets with all others, below.
                set_mode(&path, mode)
                    .or_host(|| format!("cannot set the mode of `{}`", path.display()))?;
            }
            files.push((path, write || give));
        }
        if let (Some(account), false) = (&account, dry_run) {
            account.own(layout.root())?;
        }
        Ok(Installed {
            files,
            account: account.map(|account| (account.name, account.made)),
        })
    }

    fn files(&self, layout: &Layout) -> Result<Vec<File>, Denial> {
        let [blue, green] = self.slot_ports;
        if blue == green || self.slot_ports.contains(&self.listen.port()) {
            return Err(invalid(format!(
                "haproxy and the two slots need three ports, these are {}, {blue} and {green}",
                self.listen.port()
            )));
        }
        parse_env(&self.env, "the env file")?;
        let settings = Settings {
            app: self.app.clone(),
            listen: self.listen,
            blue: SocketAddr::new(Settings::slot_ip(self.listen), blue),
            green: SocketAddr::new(Settings::slot_ip(self.listen), green),
            health_path: self.health_path.clone(),
        };
        let json = serde_json::to_vec_pretty(&settings)
            .or_host(|| "cannot encode the settings".to_owned())?;
        let unset = traffic::text(None).into_bytes();
        Ok(vec![
            File::ours(layout.settings(), json, 0o644),
            File::ours(layout.host_env(), self.env.clone().into_bytes(), 0o600),
            File::ours(
                layout.haproxy_config(),
                proxy::config(layout, &settings).into_bytes(),
                0o644,
            ),
            File::ours(
                layout.authorized_keys(),
                self.forced_commands(layout)?.into_bytes(),
                0o644,
            ),
            // What serves is never touched by an install.
            File::kept(layout.active_map(), unset.clone(), 0o644),
            File::kept(layout.standby_map(), unset, 0o644),
            File::kept(layout.ballast(), vec![0; BALLAST], 0o600),
        ])
    }

    /// Every key may do one thing: speak to `region-host serve`.
    fn forced_commands(&self, layout: &Layout) -> Result<String, Denial> {
        let command = format!(
            "{} serve --root {}",
            plain(&self.helper)?,
            plain(layout.root())?
        );
        let keys = self
            .authorized_keys
            .lines()
            .map(str::trim)
            .filter(|key| !key.is_empty() && !key.starts_with('#'));
        let lines: Vec<String> = keys
            .map(|key| {
                let kind = key.split_whitespace().next().unwrap_or_default();
                if kind.starts_with("ssh-") || kind.starts_with("ecdsa-") || kind.starts_with("sk-")
                {
                    Ok(format!("restrict,command=\"{command}\" {key}\n"))
                } else {
                    // Options before the key would add to ours.
                    Err(invalid(
                        "the authorized key file holds a line that is not a public key alone",
                    ))
                }
            })
            .collect::<Result<_, _>>()?;
        if lines.is_empty() {
            return Err(invalid("the authorized key file holds no key"));
        }
        Ok(lines.concat())
    }
}

/// Whether a file has its mode and its owner: a secret that others can read has the right content, too.
fn is_given(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| {
        there.mode() & 0o7777 == mode
            && owner.is_none_or(|owner| (there.uid(), there.gid()) == owner)
    })
}

/// Not of what a link points to: the account could put one in its place.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// A path as it can stand in a forced command, where the login shell reads it.
fn plain(path: &Path) -> Result<&str, Denial> {
    let text = path.to_str().filter(|text| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b))
    });
    text.ok_or_else(|| {
        invalid(format!(
            "`{}` holds characters that a forced command cannot",
            path.display()
        ))
    })
}

struct File {
    path: PathBuf,
    content: Vec<u8>,
    mode: u32,
    /// Written once, never again.
    keep: bool,
}

impl File {
    fn ours(path: PathBuf, content: Vec<u8>, mode: u32) -> Self {
        Self {
            path,
            content,
            mode,
            keep: false,
        }
    }

    fn kept(path: PathBuf, content: Vec<u8>, mode: u32) -> Self {
        Self {
            path,
            content,
            mode,
            keep: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path) -> Install {
        Install {
            root: root.to_owned(),
            app: "shop".to_owned(),
            listen: ([127, 0, 0, 1], 8080).into(),
            slot_ports: [3001, 3002],
            health_path: "/health/basic".to_owned(),
            authorized_keys: "ssh-ed25519 AAAA a\n".to_owned(),
            env: "PASSWORD=secret\n".to_owned(),
            helper: PathBuf::from("/usr/local/bin/region-host"),
            account: None,
        }
    }

    fn written(installed: &Installed) -> Vec<&Path> {
        let files = installed.files.iter();
        files
            .filter(|(_, written)| *written)
            .map(|(path, _)| path.as_path())
            .collect()
    }

    #[test]
    fn a_mode_that_is_another_one_is_seen_and_mended_like_a_content() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("shop");
        let install = install(&root);
        install.run(false).unwrap();
        assert!(written(&install.run(true).unwrap()).is_empty());
        let layout = Layout::new(root.clone());
        let (env, map) = (layout.host_env(), layout.active_map());
        for path in [&env, &map] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }
        for dry_run in [true, false] {
            assert_eq!(written(&install.run(dry_run).unwrap()), [&env, &map]);
        }
        assert!(is_given(&env, 0o600, None) && is_given(&map, 0o644, None));
        assert!(
            !is_given(&env, 0o600, Some((4242, 4242))),
            "somebody else's"
        );
        assert!(written(&install.run(true).unwrap()).is_empty());
    }

    #[test]
    fn a_link_in_the_place_of_a_file_gives_its_target_no_mode() {
        let directory = tempfile::tempdir().unwrap();
        let install = install(&directory.path().join("shop"));
        install.run(false).unwrap();
        let target = directory.path().join("shadow");
        fs::write(&target, "").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        let map = Layout::new(install.root.clone()).active_map();
        fs::remove_file(&map).unwrap();
        std::os::unix::fs::symlink(&target, &map).unwrap();
        assert!(install.run(false).is_err());
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
    }
}
