//! The steps that make a server what it is to be, in order. Those that could lock somebody out come last, so that nothing fails after.

mod api;
pub mod identity;
pub mod mesh;
pub mod postgres;
mod redis;
mod system;
#[cfg(test)]
mod tests;

use crate::step::{Action, Command, Content, File, Guard, Step};

pub use api::Api;
pub use mesh::{Mesh, Peer};
pub use postgres::{Account, AccountKind, Database, Part, Replica};
pub use redis::Redis;
pub use system::{Opening, Source, System, Transport};

/// Where the uploaded parts lie beside the script.
pub const REGION_HOST: &str = "region-host";
pub const DEPLOY_KEY: &str = "deploy.pub";
pub const ENV: &str = "env";

/// What one server is to be. Each part adds its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub system: System,
    pub mesh: Option<Mesh>,
    pub database: Option<Database>,
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
            redis: None,
            api: None,
        }
    }
}

/// All steps of a server.
pub fn steps(server: &Server) -> Vec<Step> {
    let mut steps = system::plain();
    steps.extend(server.api.iter().flat_map(api::steps));
    steps.extend(system::guarded(&server.system));
    steps
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
    let content = Content::Text(text.into());
    let file = File {
        path: path.into(),
        mode,
        owner: "root:root",
        content,
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

/// TEMPORARY
pub fn keys(_: &Server) -> Vec<Step> {
    Vec::new()
}
