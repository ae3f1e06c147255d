//! `lab hetzner -- COMMAND`: an empty Hetzner project for the life of one command, to see what `provision-region` would do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::mpsc::channel;

use clap::Args;
use regionwise_lab::hetzner::Hetzner as Api;
use regionwise_lab::processes::{become_subreaper, kill_descendants};
use tokio::runtime::Runtime;

use crate::report::Failure;
use crate::run::run_to_its_end;
use crate::signals;
use crate::up::Event;

/// Opens nothing anywhere: this API is on loopback, and its servers are entries in a list.
const TOKEN: &str = "a-token-of-the-lab-and-of-no-cloud";

#[derive(Args)]
pub(crate) struct Hetzner {
    /// How many looks at an action show it still running.
    #[arg(long, default_value_t = 3)]
    looks: usize,
    /// Name of a certificate that is in the project already, as somebody made it in the console. May be given again.
    #[arg(long, value_name = "NAME")]
    certificate: Vec<String>,
    /// The command, with HCLOUD_TOKEN and the endpoint in its environment.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Hetzner {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        become_subreaper()?;
        let runtime = Runtime::new()?;
        let api = runtime.block_on(Api::start(TOKEN))?;
        api.project(|project| {
            project.latency = self.looks;
            project.certificates = self.certificate;
        });
        let (sender, events) = channel();
        signals::listen::<Event>(sender.clone())?;
        let env = BTreeMap::from(
            [
                ("HCLOUD_TOKEN", TOKEN.to_owned()),
                ("HCLOUD_ENDPOINT", api.url()),
                ("REGIONWISE_HCLOUD_ENDPOINT", api.url()),
                // Nothing here takes half a minute.
                ("REGIONWISE_TICK", "20ms".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let code = run_to_its_end(&self.command, &env, sender, &events);
        kill_descendants();
        code
    }
}
