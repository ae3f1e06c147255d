//! The steps that make a region host, in order. Those that could lock somebody out come last, so that nothing fails after.

mod product;
mod system;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::step::{Action, Command, Content, File, Guard, Step};

/// Where the uploaded parts lie beside the script.
pub const REGION_HOST: &str = "region-host";
pub const DEPLOY_KEY: &str = "deploy.pub";
pub const ENV: &str = "env";

/// What any server of this product gets, whether or not `region-host` is there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    pub ssh_port: u16,
    /// Where the host's own HAProxy listens.
    pub http_port: u16,
}

/// What makes one server a region host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub system: System,
    /// The product's name: also that of its state directory and of its units.
    pub app: String,
    /// The account that the deploy key opens.
    pub account: String,
    /// Where controllers reach the server; HAProxy listens on all addresses of that family.
    pub address: IpAddr,
    pub health_path: String,
    /// Of the `region-host` that is uploaded, hexadecimal.
    pub region_host_sha256: String,
}

/// The steps for a server that has no `region-host` yet, for example at its first boot: no secret is in them.
pub fn system_steps(system: &System) -> Vec<Step> {
    let mut steps = system::plain();
    steps.extend(system::guarded(system));
    steps
}

/// All steps of a region host.
pub fn steps(host: &Host) -> Vec<Step> {
    let mut steps = system::plain();
    steps.extend(product::steps(host));
    steps.extend(system::guarded(&host.system));
    steps
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
