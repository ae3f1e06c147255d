//! `host`: one server becomes a region host. Steps and script are crate `provision`'s; here is the way to the server.
//!
//! Ends 0 (also when nothing had to change), 2, 10 (a step failed; run it again), 12 (host key or system refused), 13 (nobody
//! could log in afterwards, so the server went back), 20, 21, 22, 130, 143.

mod pin;
mod report;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use regionwise_cli::{Because, Common, Context, Failure, Report, jump};
use regionwise_provision::{Role, host as recipe, recipes, script};
use regionwise_remote::root::RootLogin;
use regionwise_topology::{Host, Region, Topology};

use crate::apply;
use crate::uploads::{self, Uploads};
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
    let topology = common.unprovisioned()?;
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
    let uploads = Uploads::read(
        common,
        context,
        &topology,
        &args.env_file,
        args.region_host.as_deref(),
    )
    .await?;
    let steps = recipe::steps(&recipe_of(&topology, host, &uploads));

    let jump = jump(&topology, &known_hosts);
    let way = pin::Way {
        jump: jump.clone(),
        identity: args.root_key.clone(),
    };
    let names = pin::Names {
        login: args.server,
        deploys: host.address,
        port: host.ssh_port,
    };
    let pinned = pin::check(&known_hosts, &names, &way, args.host_key.as_deref()).await?;
    let login = RootLogin {
        address: args.server,
        port: host.ssh_port,
        known_hosts: pinned.path().to_owned(),
        identity: args.root_key.clone(),
        jump,
    };
    let say = |line: &str| context.progress.say(format!("{}: {line}", host.name));
    let there = apply::region_host_there(&login)
        .await
        .map_err(|error| not_opened(&error, host))?;
    if !args.dry_run {
        pin_it(&pinned, &known_hosts)?;
    }
    let mode = match args.dry_run {
        true => apply::Mode::Check,
        false => apply::Mode::Apply,
    };
    // A dry run changes nothing, and needs no `region-host` to compare its sum.
    let there = match args.dry_run {
        true => &uploads.region_host_sha256,
        false => &there,
    };
    let mut parts = uploads.parts(there);
    parts.push(uploads::script(&script::render(&steps)));
    let applied = apply::apply(&login, &parts, mode, &say, &context.signals).await;
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

fn recipe_of(topology: &Topology, host: &Host, uploads: &Uploads) -> recipe::Server {
    let mut open = recipes::openings(topology, Role::Api, &host.name);
    let own = recipe::Opening::anywhere(host.http_port);
    if !open.contains(&own) {
        open.push(own);
    }
    let system = recipe::System {
        ssh_port: host.ssh_port,
        open,
    };
    recipe::Server {
        api: Some(recipe::Api {
            app: topology.product.name.clone(),
            account: topology.ssh.user.clone(),
            address: host.address,
            http_port: host.http_port,
            health_path: topology.health.basic_path.clone(),
            region_host_sha256: uploads.region_host_sha256.clone(),
        }),
        ..recipe::Server::bare(system)
    }
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
