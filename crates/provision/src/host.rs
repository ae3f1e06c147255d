//! The steps that make a server what it is to be, in order. Those that could lock somebody out come last, so that nothing fails after.

mod api;
mod backup;
mod bouncer;
pub mod identity;
pub mod mesh;
pub mod postgres;
mod redis;
mod system;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::step::{Action, Command, Fact, File, Guard, Step};

pub use api::Api;
pub use backup::Backup;
pub use bouncer::{Bouncer, Upstream};
pub use mesh::{Mesh, Peer};
pub use postgres::{Account, AccountKind, Database, Migration, Part, Replica, from_pem, pem};
pub use redis::Redis;
pub use system::{Opening, Source, System, Transport};

/// Where the uploaded parts lie beside the script.
pub const REGION_HOST: &str = "region-host";
pub const DEPLOY_KEY: &str = "deploy.pub";
pub const ENV: &str = "env";

/// The step that fails where a host does not get through to a node: mostly what something else has done before.
pub const LOGINS: &str = "bouncer-logins";

/// What one server is to be. Each part adds its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub system: System,
    pub mesh: Option<Mesh>,
    pub database: Option<Database>,
    pub bouncer: Option<Bouncer>,
    pub redis: Option<Redis>,
    pub api: Option<Api>,
}

impl Server {
    /// A server that is nothing yet, for example at its first boot: no secret is in its steps.
    pub const fn bare(system: System) -> Self {
        Self {
            system,
            mesh: None,
            database: None,
            bouncer: None,
            redis: None,
            api: None,
        }
    }
}

/// All steps of a server.
pub fn steps(server: &Server) -> Vec<Step> {
    let mut steps = system::plain();
    steps.extend(server.mesh.iter().flat_map(mesh::steps));
    let mesh = server.mesh.as_ref();
    let database = server.database.iter();
    steps.extend(database.flat_map(|database| postgres::steps(database, mesh)));
    steps.extend(server.bouncer.iter().flat_map(bouncer::steps));
    steps.extend(server.redis.iter().flat_map(redis::steps));
    steps.extend(server.api.iter().flat_map(api::steps));
    steps.extend(system::guarded(&server.system));
    steps
}

/// The steps that make what only this server may have, and tell the public halves: before the server can be the part of a mesh
/// or of a cluster, the others have to know them.
pub fn keys(server: &Server) -> Vec<Step> {
    let mut steps = vec![system::known()];
    steps.extend(server.mesh.iter().flat_map(|_| mesh::keys()));
    let database = server.database.iter();
    steps.extend(database.flat_map(|database| postgres::keys(database, server.mesh.as_ref())));
    steps
}

/// The steps that try whether the product gets through to the nodes. They need the others to be set up, so they are for the end of
/// a run: what is down there must keep nobody from being made.
pub fn logins(server: &Server) -> Vec<Step> {
    server.bouncer.iter().map(|_| bouncer::logins()).collect()
}

/// The steps that say whether a release answers over HTTP: the fact `answers` is `release`, `no-release` where there is none, or
/// `no` and what was said instead.
/// Nothing for a server that is no host.
pub fn answers(server: &Server) -> Vec<Step> {
    server.api.iter().map(api::answers).collect()
}

/// The steps that let the next certificate of a node take over. Nothing for a server without one.
pub fn renewal(server: &Server) -> Vec<Step> {
    let database = server.database.iter();
    database.flat_map(postgres::renewal).collect()
}

/// A program of ours on the server, by its path: what needs a look at the server is looked at there.
#[derive(Clone, Copy)]
struct Tool(&'static str);

impl Tool {
    /// A step whose shell is the program with two verbs of it.
    fn step(
        self,
        name: &'static str,
        reason: &'static str,
        check: &str,
        apply: &str,
        after: &[&'static str],
    ) -> Step {
        command(
            name,
            reason,
            format!("{self} {check}"),
            format!("{self} {apply}"),
            after,
        )
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

fn fact(name: &'static str, reason: &'static str, fact: &'static str, shell: String) -> Step {
    Step {
        name,
        reason,
        action: Action::Fact(Fact { fact, shell }),
        guard: None,
    }
}

fn look(name: &'static str, reason: &'static str, shell: &str) -> Step {
    Step {
        name,
        reason,
        action: Action::Look(shell.to_owned()),
        guard: None,
    }
}

fn packages(name: &'static str, reason: &'static str, packages: &[&'static str]) -> Step {
    Step {
        name,
        reason,
        action: Action::Packages(packages.to_vec()),
        guard: None,
    }
}

fn text(
    name: &'static str,
    reason: &'static str,
    path: impl Into<String>,
    mode: u32,
    text: impl Into<String>,
) -> Step {
    file(name, reason, path, mode, "root:root", text)
}

fn file(
    name: &'static str,
    reason: &'static str,
    path: impl Into<String>,
    mode: u32,
    owner: &'static str,
    text: impl Into<String>,
) -> Step {
    let file = File {
        path: path.into(),
        mode,
        owner,
        text: text.into(),
    };
    Step {
        name,
        reason,
        action: Action::File(file),
        guard: None,
    }
}

fn command(
    name: &'static str,
    reason: &'static str,
    check: impl Into<String>,
    apply: impl Into<String>,
    after: &[&'static str],
) -> Step {
    let command = Command {
        check: check.into(),
        apply: apply.into(),
        after: after.to_vec(),
    };
    Step {
        name,
        reason,
        action: Action::Command(command),
        guard: None,
    }
}

impl Step {
    fn guarded(mut self, undo: &str, keep: &str) -> Self {
        self.guard = Some(Guard {
            undo: undo.to_owned(),
            keep: keep.to_owned(),
        });
        self
    }
}
