//! What servers get besides their script, each as a file beside it.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use regionwise_cli::{Because, Common, Context, Failure, Hint};
use regionwise_provision::host::{DEPLOY_KEY, ENV, REGION_HOST};
use regionwise_provision::script::SCRIPT;
use regionwise_remote::host_key;
use regionwise_remote::identity::Identity;
use regionwise_remote::root::Part;
use regionwise_topology::Topology;

/// For a region host.
pub(crate) struct Uploads {
    region_host: Vec<u8>,
    deploy_key: Vec<u8>,
    env: Vec<u8>,
    /// Hexadecimal.
    pub(crate) region_host_sha256: String,
}

impl Uploads {
    /// Reads them; `region_host` is by default the one beside this program.
    pub(crate) async fn read(
        common: &Common,
        context: &Context,
        topology: &Topology,
        env_file: &Path,
        region_host: Option<&Path>,
    ) -> Result<Self, Failure> {
        let region_host = region_host_of(region_host)?;
        let secret = &topology.ssh.identity;
        let private = context.secret("the deploy key", secret, common.directory())?;
        let cannot = || format!("cannot use the deploy key `{secret}`");
        let identity = Identity::write(private.expose()).invalid(cannot)?;
        let public = host_key::public_half(identity.path())
            .await
            .invalid(cannot)
            .hint("it must be a private key without a passphrase")?;
        let env = read(env_file, "the env file")?;
        if let Some(number) = wrong_line(&env) {
            let path = env_file.display();
            // The line itself may be a secret.
            return Err(
                Failure::invalid(format!("line {number} of `{path}` is not NAME=value"))
                    .with_hint("every release on the hosts gets these lines as its environment"),
            );
        }
        Ok(Self {
            region_host_sha256: region_host.sha256(),
            region_host: region_host.bytes,
            deploy_key: format!("{public}\n").into_bytes(),
            env,
        })
    }

    /// The architecture that `region-host` was built for, as Hetzner names it; `None`: none that it sells.
    pub(crate) fn architecture(&self) -> Option<&'static str> {
        // e_machine of the ELF header, in the byte order of both.
        match self.region_host.get(18..20)? {
            [62, 0] => Some("x86"),
            [183, 0] => Some("arm"),
            _ => None,
        }
    }

    /// The files of a region host. `there` is the sha256 of the `region-host` that it has: that file is large, and travels only
    /// where it is needed.
    pub(crate) fn parts(&self, there: &str) -> Vec<Part> {
        let mut parts = vec![
            part(DEPLOY_KEY, self.deploy_key.clone()),
            part(ENV, self.env.clone()),
        ];
        if self.region_host_sha256 != there {
            parts.push(part(REGION_HOST, self.region_host.clone()));
        }
        parts
    }
}

/// The `region-host` to upload; by default the one beside this program.
pub(crate) fn region_host_of(named: Option<&Path>) -> Result<Part, Failure> {
    let beside = || -> std::io::Result<PathBuf> {
        Ok(std::env::current_exe()?.with_file_name("region-host"))
    };
    let path = match named {
        Some(path) => path.to_owned(),
        None => beside().invalid(|| "cannot find this program".to_owned())?,
    };
    let bytes = read(&path, "region-host").hint(
        "name it with --region-host; it must be built for Linux and the server's architecture",
    )?;
    if !bytes.starts_with(b"\x7fELF") {
        let text = format!("`{}` is not a Linux executable", path.display());
        return Err(Failure::invalid(text)
            .with_hint("build region-host for the server, and name it with --region-host"));
    }
    Ok(part(REGION_HOST, bytes))
}

/// The first line that is neither NAME=value, nor empty, nor a comment. As `region-host install` reads them.
fn wrong_line(env: &[u8]) -> Option<usize> {
    let is_name = |name: &[u8]| {
        !name.is_empty()
            && !name[0].is_ascii_digit()
            && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
    };
    let right = |line: &[u8]| {
        let line = line.trim_ascii();
        let name = line.split(|b| *b == b'=').next().unwrap_or_default();
        line.is_empty() || line.starts_with(b"#") || (line.contains(&b'=') && is_name(name))
    };
    env.split(|b| *b == b'\n')
        .position(|line| !right(line))
        .map(|at| at + 1)
}

/// Refuses a private key that opens none of these accounts: type and base64 of the public halves. One with a passphrase is
/// left to ssh and its agent.
pub(crate) async fn opens_root(private: &Path, root_keys: &[String]) -> Result<(), Failure> {
    read(private, "root's key")?;
    let Ok(public) = host_key::public_half(private).await else {
        return Ok(());
    };
    let words: Vec<&str> = public.split_whitespace().take(2).collect();
    if root_keys.contains(&words.join(" ")) {
        return Ok(());
    }
    let text = format!("`{}` is none of provision.root_keys", private.display());
    Err(Failure::invalid(text).with_hint(
        "name the private half of one of them, or add its public half to provision.root_keys",
    ))
}

/// The script itself.
pub(crate) fn script(text: &str) -> Part {
    part(SCRIPT, text.as_bytes().to_vec())
}

pub(crate) fn part(name: impl Into<Cow<'static, str>>, bytes: Vec<u8>) -> Part {
    Part {
        name: name.into(),
        bytes,
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).invalid(|| format!("cannot read {what} from `{}`", path.display()))
}
