//! The databases of the clusters: every login works, every node has the role that regions.toml gives it.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use regionwise_cli::Context;
use regionwise_postgres::{Dsn, Error, Kind, Options, Session};
use regionwise_rollout::Verdict;
use regionwise_topology::{Cluster, Node};

use crate::found::Found;

/// Nodes with a usable login, and an obstacle for each without one.
pub(crate) struct Logins<'a> {
    pub(crate) ready: Vec<Login<'a>>,
    pub(crate) missing: Vec<Found>,
}

pub(crate) struct Login<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    primary: bool,
    dsn: Dsn,
}

/// Resolves the DSN of every node of these clusters.
pub(crate) fn logins<'a>(
    clusters: &[&'a Cluster],
    context: &Context,
    directory: &Path,
) -> Logins<'a> {
    let mut logins = Logins {
        ready: Vec::new(),
        missing: Vec::new(),
    };
    for cluster in clusters {
        let nodes = [(&cluster.primary, true)]
            .into_iter()
            .chain(cluster.standbys.iter().map(|node| (node, false)));
        for (node, primary) in nodes {
            let what = format!("the DSN of `{}`", node.name);
            let resolved = context
                .secret(&what, &node.dsn, directory)
                .map_err(|failure| failure.chain().join(": "))
                .and_then(|secret| {
                    Dsn::parse(secret.expose())
                        .map_err(|problem| format!("cannot use {what}: {problem}"))
                });
            match resolved {
                Ok(dsn) => logins.ready.push(Login {
                    cluster,
                    node,
                    primary,
                    dsn,
                }),
                Err(text) => logins
                    .missing
                    .push(of(cluster, node, Verdict::Invalid, text)),
            }
        }
    }
    logins
}

/// Logs in everywhere at once.
pub(crate) async fn look(logins: &[Login<'_>], limit: Duration, plaintext: bool) -> Vec<Found> {
    join_all(logins.iter().map(|login| of_node(login, limit, plaintext)))
        .await
        .into_iter()
        .flatten()
        .collect()
}

async fn of_node(login: &Login<'_>, limit: Duration, plaintext: bool) -> Option<Found> {
    match role(login, limit, plaintext).await {
        Ok(in_recovery) if in_recovery != login.primary => None,
        Ok(in_recovery) => {
            let (is, should) = if in_recovery {
                ("a standby", "primary")
            } else {
                ("a primary", "standby")
            };
            let text = format!("it is {is}, and the {should} in regions.toml");
            let hint =
                "two writers, or a promotion that regions.toml does not know: settle that first"
                    .to_owned();
            Some(Found {
                hint: Some(hint),
                ..of(login.cluster, login.node, Verdict::Refused, text)
            })
        }
        Err(error) => {
            let (verdict, hint) = match error.kind {
                Kind::Auth | Kind::Tls => (Verdict::Invalid, format!("check `{}`", login.node.dsn)),
                _ => (
                    Verdict::Pause,
                    format!("check-replication-lag --cluster {}", login.cluster.name),
                ),
            };
            Some(Found {
                hint: Some(hint),
                ..of(login.cluster, login.node, verdict, error.to_string())
            })
        }
    }
}

/// Whether the node is a standby, by its own word.
async fn role(login: &Login<'_>, limit: Duration, plaintext: bool) -> Result<bool, Error> {
    let options = Options {
        application_name: "regionwise preflight".to_owned(),
        connect_within: limit,
        answer_within: limit,
        allow_plaintext: plaintext,
    };
    let mut session = Session::open(&login.dsn, &options).await?;
    session
        .row("select pg_is_in_recovery() as standby")
        .await?
        .flag("standby")
}

fn of(cluster: &Cluster, node: &Node, verdict: Verdict, text: String) -> Found {
    Found {
        place: cluster.name.clone(),
        part: node.name.clone(),
        verdict,
        text,
        hint: None,
    }
}
