//! What a set-up needs beside regions.toml, read before anything is ordered: what is missing costs nothing then.

use std::path::PathBuf;

use regionwise_cli::{Common, Context, Failure};
use regionwise_provision::recipes;
use regionwise_provision::{Role, Spec};
use regionwise_topology::Region;

use super::logins::Secrets;
use super::{CERTIFICATES, SetupArgs};
use crate::look::{self, Seen, World};
use crate::uploads::{self, Uploads};

/// What the servers get that is not in regions.toml: read before anything is ordered.
pub(crate) struct Baggage {
    /// `None`: the region has no host.
    pub(super) uploads: Option<Uploads>,
    pub(super) secrets: Secrets,
    pub(super) known_hosts: PathBuf,
    /// Directory of the nodes' certificates.
    pub(super) certificates: PathBuf,
}

impl Baggage {
    pub(crate) async fn read(
        common: &Common,
        args: &SetupArgs,
        context: &Context,
        world: &World,
        region: &Region,
        seen: &Seen<'_>,
    ) -> Result<Self, Failure> {
        let topology = &world.topology;
        if let Some(key) = &args.root_key {
            uploads::opens_root(key, &world.root_keys).await?;
        }
        let names = region.hosts.iter().map(|host| (&host.name, host.tls));
        let new = region.unaddressed.iter().map(|host| (&host.name, host.tls));
        let hosts: Vec<(&String, bool)> = names.chain(new).collect();
        if let Some((name, _)) = hosts.iter().find(|(_, tls)| *tls) {
            return Err(Failure::invalid(format!(
                "host `{name}` has `tls = true`, and the HAProxy of a region host speaks plain HTTP"
            ))
            .with_hint("let TLS end in front of it: `tls = false` for this host"));
        }
        if args.env_file.is_none() && !hosts.is_empty() {
            let text = format!(
                "region `{}` has hosts, and no env file is named",
                region.name
            );
            return Err(Failure::invalid(text)
                .with_hint("name what every release on them gets: --env-file FILE")
                .with_hint("or order the servers, and set none of them up: --servers-only"));
        }
        let projects = seen.projects.iter();
        let servers: Vec<(Role, &str)> = projects
            .flat_map(|project| look::servers(&project.wanted))
            .collect();
        let clusters = recipes::clusters_about(topology, region, &servers);
        let deploy_key = (!hosts.is_empty()).then_some(&topology.ssh.identity);
        context.all_set(Secrets::named(topology, &clusters).chain(deploy_key))?;
        let uploads = match &args.env_file {
            Some(env_file) if !hosts.is_empty() => {
                let region_host = args.region_host.as_deref();
                let read = Uploads::read(common, context, topology, env_file, region_host).await?;
                runs_on_its_hosts(&read, seen)?;
                Some(read)
            }
            _ => None,
        };
        Ok(Self {
            uploads,
            secrets: Secrets::read(common, context, topology, &clusters)?,
            certificates: common.directory().join(CERTIFICATES),
            known_hosts: std::path::absolute(
                context.expand(&topology.ssh.known_hosts, common.directory()),
            )
            .unwrap_or_else(|_| common.directory().join(&topology.ssh.known_hosts)),
        })
    }
}

/// The order may end with any of a host's types.
fn runs_on_its_hosts(uploads: &Uploads, seen: &Seen<'_>) -> Result<(), Failure> {
    let Some(built_for) = uploads.architecture() else {
        return Ok(());
    };
    let wanted = seen.projects.iter().flat_map(|project| &project.wanted);
    for wanted in wanted {
        let Spec::Server(server) = &wanted.spec else {
            continue;
        };
        let other = seen.catalogue.server_types.iter().find(|product| {
            let is_other = |architecture: &String| architecture != built_for;
            server.types.contains(&product.name)
                && product.architecture.as_ref().is_some_and(is_other)
        });
        if let (Role::Api, Some(other)) = (server.role, other) {
            let text = format!(
                "type `{}` of host `{}` is {}, and region-host was built for {built_for}",
                other.name,
                server.host,
                other.architecture.as_deref().unwrap_or_default()
            );
            return Err(Failure::invalid(text)
                .with_hint("name another one with --region-host, or other types in regions.toml"));
        }
    }
    Ok(())
}
