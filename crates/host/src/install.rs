//! `install`: makes the files, the key and the proxy configuration of a host. Running it again changes only what differs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use regionwise_protocol::Denial;

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
    /// Every file, and whether it had to be written.
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
            let current = fs::read(&path).ok();
            let write = match &current {
                None => true,
                Some(_) if keep => false,
                Some(bytes) => *bytes != content,
            };
            if write && !dry_run {
                durable::replace(&layout, &path, &content, mode)?;
            }
            files.push((path, write));
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
