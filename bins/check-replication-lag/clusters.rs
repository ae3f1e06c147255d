//! Which clusters are looked at, and how their nodes are reached.

use std::collections::BTreeSet;
use std::sync::Arc;

use regionwise_cli::{Because, Context, Failure, Hint};
use regionwise_postgres::Dsn;
use regionwise_topology::{Cluster, Node, Topology};

use crate::Args;

/// The clusters of this run.
pub(crate) struct Chosen {
    pub(crate) clusters: Vec<Measured>,
    /// Clusters that say `standbys = []`: an answer, and nothing to measure.
    pub(crate) without_standbys: Vec<String>,
}

/// A cluster with at least one standby.
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) primary: Server,
    pub(crate) standbys: Vec<Server>,
    /// How many synchronous standbys a commit waits for.
    pub(crate) sync: u32,
}

/// One of its nodes.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) dsn: Arc<Dsn>,
}

/// Resolves every connection string before the first connection, so that a missing one costs no time.
pub(crate) fn chosen(
    topology: &Topology,
    args: &Args,
    context: &Context,
) -> Result<Chosen, Failure> {
    let (with, without): (Vec<&Cluster>, Vec<&Cluster>) = named(topology, args)?
        .into_iter()
        .partition(|cluster| !cluster.standbys.is_empty());
    let server = |node: &Node| server(node, args, context);
    let clusters = with
        .into_iter()
        .map(|cluster| {
            Ok(Measured {
                name: cluster.name.clone(),
                sync: cluster.sync,
                primary: server(&cluster.primary)?,
                standbys: cluster
                    .standbys
                    .iter()
                    .map(server)
                    .collect::<Result<_, _>>()?,
            })
        })
        .collect::<Result<_, Failure>>()?;
    Ok(Chosen {
        clusters,
        without_standbys: without
            .into_iter()
            .map(|cluster| cluster.name.clone())
            .collect(),
    })
}

fn named<'a>(topology: &'a Topology, args: &Args) -> Result<Vec<&'a Cluster>, Failure> {
    let mut names: BTreeSet<&str> = args.cluster.iter().map(String::as_str).collect();
    if let Some(region) = &args.region {
        names.insert(&args.common.region(topology, region)?.cluster);
    }
    if names.is_empty() || names.contains("all") {
        return Ok(topology.clusters.values().collect());
    }
    let of = |name: &str| {
        topology.clusters.get(name).ok_or_else(|| {
            let names: Vec<&str> = topology.clusters.keys().map(String::as_str).collect();
            let config = args.common.config.display();
            Failure::invalid(format!("`{name}` is not a cluster of `{config}`"))
                .with_hint(format!("clusters: {}", names.join(", ")))
        })
    };
    names.into_iter().map(of).collect()
}

fn server(node: &Node, args: &Args, context: &Context) -> Result<Server, Failure> {
    let what = format!("the DSN of `{}`", node.name);
    let secret = context.secret(&what, &node.dsn, args.common.directory())?;
    let dsn = Dsn::parse(secret.expose())
        .invalid(|| format!("cannot use {what} from `{}`", node.dsn))
        .hint(
            "for example postgres://regionwise_lag:PASSWORD@10.0.0.2:5432/shop?sslmode=verify-full",
        )?;
    Ok(Server {
        name: node.name.clone(),
        location: node.location.clone(),
        dsn: Arc::new(dsn),
    })
}
