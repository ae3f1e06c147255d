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
        let beside = || -> std::io::Result<PathBuf> {
            Ok(std::env::current_exe()?.with_file_name("region-host"))
        };
        let path = match region_host {
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
        let secret = &topology.ssh.identity;
        let private = context.secret("the deploy key", secret, common.directory())?;
        let cannot = || format!("cannot use the deploy key `{secret}`");
        let identity = Identity::write(private.expose()).invalid(cannot)?;
        let public = host_key::public_half(identity.path())
            .await
            .invalid(cannot)
            .hint("it must be a private key without a passphrase")?;
        let region_host = Part {
            name: Cow::Borrowed(REGION_HOST),
            bytes,
        };
        Ok(Self {
            region_host_sha256: region_host.sha256(),
            region_host: region_host.bytes,
            deploy_key: format!("{public}\n").into_bytes(),
            env: read(env_file, "the env file")?,
        })
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
