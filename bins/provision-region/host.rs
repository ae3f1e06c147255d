//! `host`: one server becomes a region host. Steps and script are crate `provision`'s; here is the way to the server.
//!
//! Ends 0 (also when nothing had to change), 2, 10 (a step failed; run it again), 12 (host key or system refused), 13 (nobody
//! could log in afterwards, so the server went back), 20, 21, 22, 130, 143.

mod apply;
mod pin;
mod report;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use regionwise_cli::{Because, Common, Context, Failure, Hint, Report};
use regionwise_provision::{host as recipe, script};
use regionwise_remote::host_key;
use regionwise_remote::identity::Identity;
use regionwise_remote::root::{Part, RootLogin};
use regionwise_topology::{Host, Region, Topology};

use pin::Pinned;

#[derive(clap::Args)]
pub(crate) struct HostArgs {
    /// Where root logs in: an address of regions.toml, or another way to the server that --name names.
    #[arg(value_name = "root@ADDRESS", value_parser = root_at)]
    server: IpAddr,

    /// The server's name in regions.toml, when its address there is another.
    #[arg(long, env = "REGIONWISE_NAME", value_name = "HOST")]
    name: Option<String>,

    /// Fingerprint of the server's ed25519 host key, as its console shows it; then it is pinned in known_hosts.
    #[arg(long, env = "REGIONWISE_HOST_KEY", value_name = "SHA256:...", value_parser = fingerprint)]
    host_key: Option<String>,

    /// Private key that opens root's login; by default the keys that ssh finds by itself.
    #[arg(long, env = "REGIONWISE_ROOT_KEY", value_name = "FILE")]
    root_key: Option<PathBuf>,

    /// NAME=value lines that every release on this host gets: region, database URLs, secrets.
    #[arg(long, env = "REGIONWISE_ENV_FILE", value_name = "FILE")]
    env_file: PathBuf,

    /// The region-host to upload, built for the server; by default the one beside this program.
    #[arg(long, env = "REGIONWISE_REGION_HOST", value_name = "FILE")]
    region_host: Option<PathBuf>,

    /// Say which steps would change something, change nothing.
    #[arg(long, env = "REGIONWISE_DRY_RUN")]
    dry_run: bool,
}

pub(crate) async fn run(
    common: &Common,
    args: &HostArgs,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let (region, host) = find(&topology, args)?;
    if host.tls {
        return Err(Failure::invalid(format!(
            "host `{}` has `tls = true`, and the HAProxy of a region host speaks plain HTTP",
            host.name
        ))
        .with_hint(
            "let TLS end in front of it: `http_port = 80` and `tls = false` for this host",
        ));
    }
    let known_hosts = context.expand(&topology.ssh.known_hosts, common.directory());
    let uploads = uploads(common, args, &topology, context).await?;
    let steps = recipe::steps(&recipe_of(&topology, host, &uploads));

    let names = pin::Names {
        login: args.server,
        deploys: host.address,
        port: host.ssh_port,
    };
    let pinned = pin::check(&known_hosts, &names, args.host_key.as_deref()).await?;
    let login = RootLogin {
        address: args.server,
        port: host.ssh_port,
        known_hosts: pinned.path().to_owned(),
        identity: args.root_key.clone(),
    };
    let say = |line: &str| context.progress.say(format!("{}: {line}", host.name));
    let there = apply::region_host_there(&login)
        .await
        .map_err(|error| not_opened(&error, host))?;
    if !args.dry_run {
        pin_it(&pinned, &known_hosts)?;
    }
    let parts = parts(uploads, &script::render(&steps), &there, args.dry_run);
    let applying = apply::apply(&login, &parts, args.dry_run, &say);
    let applied = tokio::select! {
        applied = applying => applied,
        verdict = context.signals.received() => apply::Applied::stopped(verdict),
    };
    Ok(report::of(&applied, &steps, region, host, args.dry_run))
}

/// The host of regions.toml that this server is.
fn find<'a>(topology: &'a Topology, args: &HostArgs) -> Result<(&'a Region, &'a Host), Failure> {
    let hosts = || {
        topology
            .regions
            .iter()
            .flat_map(|region| region.hosts.iter().map(move |host| (region, host)))
    };
    let found = hosts().find(|(_, host)| match &args.name {
        Some(name) => host.name == *name,
        None => host.address == args.server,
    });
    found.ok_or_else(|| {
        let known: Vec<String> = hosts()
            .map(|(_, host)| format!("{} ({})", host.name, host.address))
            .collect();
        let what = match &args.name {
            Some(name) => format!("no host of regions.toml is named `{name}`"),
            None => format!("no host of regions.toml has the address {}", args.server),
        };
        Failure::invalid(what).with_hint(format!(
            "hosts: {}; or name one with --name",
            known.join(", ")
        ))
    })
}

/// What the server gets, each as a file beside the script.
struct Uploads {
    region_host: Part,
    deploy_key: Part,
    env: Part,
}

async fn uploads(
    common: &Common,
    args: &HostArgs,
    topology: &Topology,
    context: &Context,
) -> Result<Uploads, Failure> {
    let beside = || -> std::io::Result<PathBuf> {
        Ok(std::env::current_exe()?.with_file_name("region-host"))
    };
    let region_host = match &args.region_host {
        Some(path) => path.clone(),
        None => beside().invalid(|| "cannot find this program".to_owned())?,
    };
    let bytes = read(&region_host, "region-host").hint(
        "name it with --region-host; it must be built for Linux and the server's architecture",
    )?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Failure::invalid(format!(
            "`{}` is not a Linux executable",
            region_host.display()
        ))
        .with_hint("build region-host for the server, and name it with --region-host"));
    }
    let private = context.secret("the deploy key", &topology.ssh.identity, common.directory())?;
    let cannot = || format!("cannot use the deploy key `{}`", topology.ssh.identity);
    let identity = Identity::write(private.expose()).invalid(cannot)?;
    let public = host_key::public_half(identity.path())
        .await
        .invalid(cannot)
        .hint("it must be a private key without a passphrase")?;
    Ok(Uploads {
        region_host: Part {
            name: recipe::REGION_HOST,
            bytes,
        },
        deploy_key: Part {
            name: recipe::DEPLOY_KEY,
            bytes: format!("{public}\n").into_bytes(),
        },
        env: Part {
            name: recipe::ENV,
            bytes: read(&args.env_file, "the env file")?,
        },
    })
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).invalid(|| format!("cannot read {what} from `{}`", path.display()))
}

fn recipe_of(topology: &Topology, host: &Host, uploads: &Uploads) -> recipe::Server {
    let mut ports = vec![80, 443];
    if !ports.contains(&host.http_port) {
        ports.push(host.http_port);
    }
    let system = recipe::System {
        ssh_port: host.ssh_port,
        open: ports.into_iter().map(recipe::Opening::anywhere).collect(),
    };
    recipe::Server {
        api: Some(recipe::Api {
            app: topology.product.name.clone(),
            account: topology.ssh.user.clone(),
            address: host.address,
            http_port: host.http_port,
            health_path: topology.health.basic_path.clone(),
            region_host_sha256: uploads.region_host.sha256(),
        }),
        ..recipe::Server::bare(system)
    }
}

/// `region-host` is large: it travels only where it is needed.
fn parts(uploads: Uploads, script: &str, there: &str, dry_run: bool) -> Vec<Part> {
    let mut parts = vec![
        Part {
            name: script::SCRIPT,
            bytes: script.as_bytes().to_vec(),
        },
        uploads.deploy_key,
        uploads.env,
    ];
    if !dry_run && uploads.region_host.sha256() != there {
        parts.push(uploads.region_host);
    }
    parts
}

/// Only after a login has proved that the server holds the key.
fn pin_it(pinned: &Pinned, known_hosts: &Path) -> Result<(), Failure> {
    pinned
        .write(known_hosts)
        .invalid(|| format!("cannot write the host key into `{}`", known_hosts.display()))
}

fn not_opened(error: &regionwise_remote::root::RootError, host: &Host) -> Failure {
    let (verdict, hint) = apply::meaning(error);
    Failure::new(
        verdict,
        format!("cannot log in to `{}` as root: {error}", host.name),
    )
    .with_hint(hint)
}

fn root_at(text: &str) -> Result<IpAddr, String> {
    let address = match text.split_once('@') {
        None => text,
        Some(("root", address)) => address,
        Some((user, _)) => return Err(format!("a server is set up as root, not as `{user}`")),
    };
    let parsed = address
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse();
    parsed.map_err(|_| {
        format!("`{address}` is not an IP address; write for example root@203.0.113.7")
    })
}

fn fingerprint(text: &str) -> Result<String, String> {
    let hash = text.strip_prefix("SHA256:").unwrap_or_default();
    // 32 bytes in base64, without the padding.
    if hash.len() == 43
        && hash
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
    {
        return Ok(text.to_owned());
    }
    Err("this is no fingerprint; write it as `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it, SHA256: and 43 characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_at_an_address_is_taken() {
        for good in [
            "root@203.0.113.7",
            "203.0.113.7",
            "root@2001:db8::1",
            "root@[2001:db8::1]",
        ] {
            assert!(root_at(good).is_ok(), "{good}");
        }
        for bad in ["ubuntu@203.0.113.7", "root@shop.example", "root@", ""] {
            assert!(root_at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fingerprint_is_taken_as_ssh_keygen_prints_it() {
        let good = "SHA256:wrzq2qHJyN0dKZ6Rb0N7Qq2m0X9rP3qv0fE1c4a7b8c";
        assert_eq!(fingerprint(good), Ok(good.to_owned()));
        for bad in [
            "",
            "SHA256:",
            &good[7..],
            &good[..49],
            "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
        ] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }
}
