//! What comes after the orders: every server is logged in to for the first time, and made what it is to be.

mod baggage;
mod compare;
mod health;
mod logins;
mod report;
mod server;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use regionwise_cli::{Context, duration};
use regionwise_provision::Inventory;
use regionwise_provision::host::{self, Server, from_pem};
use regionwise_provision::recipes::{self, Machine, Phase};
use regionwise_provision::step::Step;
use regionwise_provisioner::{Settled, Stopped, Unmet};
use regionwise_rollout::Verdict;
use regionwise_topology::Region;

use crate::apply::Applied;
use crate::look::{Seen, World};
pub(crate) use baggage::Baggage;
pub(crate) use report::{compared, of as report};
pub(crate) use server::root_login;

/// Beside regions.toml. They are public, and whoever asks a node needs them: nobody else vouches for it.
const CERTIFICATES: &str = "certificates";

/// What a set-up needs from whoever runs it.
#[derive(clap::Args)]
pub(crate) struct SetupArgs {
    /// NAME=value lines that every release on the region's hosts gets: region, database URLs, secrets.
    #[arg(long, env = "REGIONWISE_ENV_FILE", value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// The region-host to upload, built for the servers; by default the one beside this program.
    #[arg(long, env = "REGIONWISE_REGION_HOST", value_name = "FILE")]
    region_host: Option<PathBuf>,

    /// Private key that opens root's login; by default the keys that ssh finds by itself.
    #[arg(long, env = "REGIONWISE_ROOT_KEY", value_name = "FILE")]
    root_key: Option<PathBuf>,

    /// How long a server that runs may take until it answers ssh.
    #[arg(long, env = "REGIONWISE_BOOT_WITHIN", value_name = "DURATION", value_parser = duration, default_value = "10m")]
    boot_within: Duration,
}

/// What became of the servers.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(super) did: Vec<Did>,
    /// Files with certificates of nodes that are new or other ones now.
    pub(super) certificates: Vec<String>,
    /// Where servers reach each other, by name.
    pub(super) mesh: BTreeMap<String, Ipv6Addr>,
}

/// One thing that was done with a server, or tried.
pub(super) struct Did {
    pub(super) host: String,
    pub(super) what: What,
}

pub(super) enum What {
    /// The first session; with what it is in the way of.
    Met(Result<Settled, Unmet>),
    /// A script.
    Ran {
        steps: Vec<Step>,
        applied: Applied,
        missing: Vec<String>,
        /// Of another region: what it does not learn is said, and the run goes on.
        related: bool,
    },
    /// Something is for a later run.
    Waits(&'static str),
    /// It is not as it should be, and nothing was changed.
    Differs(&'static str),
    /// Whether a release answers over HTTP; `false`: there is none yet.
    Serves(bool),
    /// What answers in place of a release that should.
    Mute(String),
    /// Nobody has set it up, so nobody asked it.
    Unmet,
    /// The load balancer that `Did` names does not find these hosts healthy.
    Unbalanced(Vec<String>),
    /// What the load balancer finds could not be seen.
    Unseen(Stopped),
    /// Its labels could not be written.
    Unlabelled(Stopped),
    /// It did not say this of itself.
    Unsaid(&'static str),
    /// Its certificate could not be written into a file here.
    Unkept(io::Error),
    /// A signal came between two servers.
    Stopped(Verdict),
}

/// Makes every server of a region what it is to be, and tells those of other regions about them; or compares.
pub(crate) struct Setup<'a, 's> {
    world: &'a World,
    region: &'a Region,
    seen: &'a Seen<'s>,
    args: &'a SetupArgs,
    baggage: &'a Baggage,
    context: &'a Context,
    /// Time between two looks at what the provider sees of the servers.
    tick: Duration,
    machines: Vec<Machine>,
    /// Nothing is changed.
    looks: bool,
    outcome: Outcome,
}

/// A server failed, or a signal came: what is in `did` says it.
struct Halt;

impl<'a, 's> Setup<'a, 's> {
    pub(crate) fn new(
        world: &'a World,
        region: &'a Region,
        seen: &'a Seen<'s>,
        args: &'a SetupArgs,
        baggage: &'a Baggage,
        context: &'a Context,
        tick: Duration,
    ) -> Self {
        let projects = seen.projects.iter();
        let inventories: Vec<&Inventory> = projects.map(|project| &project.inventory).collect();
        Self {
            world,
            region,
            seen,
            args,
            baggage,
            context,
            tick,
            machines: recipes::machines(&world.topology.product.name, &inventories),
            looks: false,
            outcome: Outcome::default(),
        }
    }

    /// Sets up, as far as it goes.
    pub(crate) async fn run(mut self) -> Outcome {
        // Every phase is for all servers; what one of them lacks would make the next phase guess.
        let _ = self.phases().await;
        self.outcome
    }

    async fn phases(&mut self) -> Result<(), Halt> {
        self.remember();
        let own = self.of_the_region();
        for machine in &own {
            self.meet(machine).await?;
        }
        let mut related = Vec::new();
        let mut untold = Vec::new();
        if recipes::has_mesh(&self.world.topology) {
            for machine in &own {
                self.ask(machine).await?;
            }
            for machine in self.met_before() {
                // One that is down must not keep this region from coming up.
                if self.meet(&machine).await.is_ok() && self.ask(&machine).await.is_ok() {
                    related.push(machine.server);
                }
            }
            self.stop()?;
            for server in &related {
                self.stop()?;
                if self.make(server, Phase::Peers).await.is_err() {
                    untold.push(server.clone());
                }
            }
        }
        let mut ordered: Vec<&Machine> = own.iter().collect();
        ordered.sort_by_key(|machine| self.rank(machine));
        for machine in ordered {
            self.make(&machine.server, Phase::Whole).await?;
        }
        for server in self.dependents(&related) {
            self.stop()?;
            if self.make(&server, Phase::Dependent).await.is_err() {
                untold.push(server);
            }
        }
        let told = untold.is_empty() && related.len() == self.met_before().len();
        self.renew(&own, told).await?;
        self.try_logins(|machine| {
            let reached = related.contains(&machine.server) && !untold.contains(&machine.server);
            reached || own.iter().any(|known| known.server == machine.server)
        })
        .await?;
        for machine in self.primaries_about(&own, &related) {
            self.make(&machine, Phase::Synchronous).await?;
        }
        self.see_health(&own).await
    }

    /// Whether the product gets through from every host to its nodes, now that all that could be set up are. One that does not
    /// keeps nothing else from being done.
    async fn try_logins(&mut self, is_set_up: impl Fn(&Machine) -> bool) -> Result<(), Halt> {
        let asked = self.machines.iter().filter(|machine| is_set_up(machine));
        for machine in asked.cloned().collect::<Vec<_>>() {
            self.stop()?;
            let server = self.recipe(&machine, Phase::Dependent).server;
            let steps = host::logins(&server);
            if steps.is_empty() {
                continue;
            }
            let parts = self.baggage.secrets.parts(&Server {
                bouncer: server.bouncer,
                ..Server::bare(server.system)
            });
            let _ = self.script(&machine, steps, parts, Vec::new(), false).await;
        }
        Ok(())
    }

    /// Where the next certificate of a node is old enough: it takes over, if everybody was told of it.
    async fn renew(&mut self, own: &[Machine], told: bool) -> Result<(), Halt> {
        let due = |machine: &&Machine| {
            let mut known = self.machines.iter();
            known.any(|known| known.server == machine.server && known.renews)
        };
        let due: Vec<&Machine> = own.iter().filter(due).collect();
        for machine in due {
            self.stop()?;
            let file = recipes::node_on(&self.world.topology, machine.role, &machine.host)
                .map(|(_, node)| format!("{CERTIFICATES}/{}.pem", node.name));
            let waits = if file.is_some_and(|file| self.outcome.certificates.contains(&file)) {
                Some(
                    "its next certificate has not taken over: its file here did not have it before this run",
                )
            } else if told {
                None
            } else {
                Some("its next certificate has not taken over: some servers were not told of it")
            };
            if let Some(why) = waits {
                self.did(machine, What::Waits(why));
            } else {
                let steps = host::renewal(&self.recipe(machine, Phase::Whole).server);
                self.script(machine, steps, Vec::new(), Vec::new(), false)
                    .await?;
            }
        }
        Ok(())
    }

    /// The certificates that earlier runs have kept: for nodes that cannot be asked now.
    fn remember(&mut self) {
        for machine in &mut self.machines {
            let node = recipes::node_on(&self.world.topology, machine.role, &machine.host);
            let Some((_, node)) = node else { continue };
            let path = self.baggage.certificates.join(format!("{}.pem", node.name));
            let kept = fs::read_to_string(path).unwrap_or_default();
            machine.certificate = from_pem(&kept);
        }
    }

    fn stop(&mut self) -> Result<(), Halt> {
        let Some(verdict) = self.context.signals.now() else {
            return Ok(());
        };
        self.outcome.did.push(Did {
            host: self.region.name.clone(),
            what: What::Stopped(verdict),
        });
        Err(Halt)
    }

    fn of_the_region(&self) -> Vec<Machine> {
        let wanted = |machine: &&Machine| {
            let mut wanted = self
                .seen
                .projects
                .iter()
                .flat_map(|project| &project.wanted);
            wanted.any(|wanted| wanted.name == machine.server)
        };
        self.machines.iter().filter(wanted).cloned().collect()
    }

    /// Servers of other regions that have had their first session: the others learn of this region in theirs.
    fn met_before(&self) -> Vec<Machine> {
        let others = self.machines.iter();
        let others = others.filter(|machine| machine.region != self.region.name && machine.settled);
        others.cloned().collect()
    }

    /// Servers of other regions with a standby, or with a way to rows, that may lead into this region.
    fn dependents(&self, related: &[String]) -> Vec<String> {
        let depends = |machine: &&Machine| {
            let server = self.recipe(machine, Phase::Dependent).server;
            let standby = server.database.is_some() && !self.is_primary(machine);
            related.contains(&machine.server) && (standby || server.bouncer.is_some())
        };
        let mut found: Vec<&Machine> = self.machines.iter().filter(depends).collect();
        found.sort_by_key(|machine| self.rank(machine));
        let names = found.into_iter().map(|machine| machine.server.clone());
        names.collect()
    }

    /// Primaries of the clusters that have a node in this region, as far as they could be reached.
    fn primaries_about(&self, own: &[Machine], related: &[String]) -> Vec<String> {
        let topology = &self.world.topology;
        let cluster_of = |machine: &Machine| {
            let found = recipes::node_on(topology, machine.role, &machine.host);
            found.map(|(cluster, _)| cluster.name.as_str())
        };
        let here: Vec<&str> = own.iter().filter_map(cluster_of).collect();
        let reached = self.machines.iter().filter(|machine| {
            related.contains(&machine.server)
                || own.iter().any(|known| known.server == machine.server)
        });
        reached
            .filter(|machine| self.is_primary(machine))
            .filter(|machine| cluster_of(machine).is_some_and(|cluster| here.contains(&cluster)))
            .map(|machine| machine.server.clone())
            .collect()
    }

    /// A standby copies from its primary. Hosts are last: from the first moment on they have nodes to speak to.
    fn rank(&self, machine: &Machine) -> u8 {
        let node = recipes::node_on(&self.world.topology, machine.role, &machine.host);
        match node {
            Some(_) if self.is_primary(machine) => 0,
            Some(_) => 1,
            None => 2,
        }
    }

    fn is_primary(&self, machine: &Machine) -> bool {
        let found = recipes::node_on(&self.world.topology, machine.role, &machine.host);
        found.is_some_and(|(cluster, node)| cluster.primary.name == node.name)
    }
}
