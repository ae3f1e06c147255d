//! What comes after the orders: every server is logged in to for the first time, and made what it is to be.

mod baggage;
mod logins;
mod report;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;
use std::{fs, io};

use regionwise_cli::Context;
use regionwise_provision::host::{self, Server, from_pem, pem};
use regionwise_provision::recipes::{self, Facts, Machine, Phase, Recipe};
use regionwise_provision::step::Step;
use regionwise_provision::{Inventory, Kind, Labels, WIREGUARD, script, wireguard_label};
use regionwise_provisioner::{Project, Seat, Settled, Stopped, Unmet, first_session, relabel};
use regionwise_remote::root::{Part, RootLogin};
use regionwise_rollout::Verdict;
use regionwise_topology::Region;

use crate::apply::{self, Applied, Ending, Mode};
use crate::look::{Seen, World};
use crate::region::RegionArgs;
use crate::uploads;
pub(crate) use baggage::Baggage;
pub(crate) use report::of as report;

/// Beside regions.toml. They are public, and whoever asks a node needs them: nobody else vouches for it.
const CERTIFICATES: &str = "certificates";

/// A server that is up answers ssh within this, also over a bad line.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

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
    /// Its labels could not be written.
    Unlabelled(Stopped),
    /// It did not say this of itself.
    Unsaid(&'static str),
    /// Its certificate could not be written into a file here.
    Unkept(io::Error),
    /// A signal came between two servers.
    Stopped(Verdict),
}

/// Makes every server of the region what it is to be, and tells those of other regions about them.
pub(crate) async fn set_up(
    world: &World,
    region: &Region,
    seen: &Seen<'_>,
    args: &RegionArgs,
    baggage: &Baggage,
    context: &Context,
) -> Outcome {
    let inventories: Vec<&Inventory> = seen
        .projects
        .iter()
        .map(|project| &project.inventory)
        .collect();
    let mut setup = Setup {
        world,
        region,
        seen,
        args,
        baggage,
        context,
        machines: recipes::machines(&world.topology.product.name, &inventories),
        outcome: Outcome::default(),
    };
    // Every phase is for all servers; what one of them lacks would make the next phase guess.
    let _ = setup.run().await;
    setup.outcome
}

struct Setup<'a, 's> {
    world: &'a World,
    region: &'a Region,
    seen: &'a Seen<'s>,
    args: &'a RegionArgs,
    baggage: &'a Baggage,
    context: &'a Context,
    machines: Vec<Machine>,
    outcome: Outcome,
}

/// A server failed, or a signal came: what is in `did` says it.
struct Halt;

impl Setup<'_, '_> {
    async fn run(&mut self) -> Result<(), Halt> {
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
        Ok(())
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
                self.outcome.did.push(Did {
                    host: machine.host.clone(),
                    what: What::Waits(why),
                });
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

    /// The first session, or nothing where it was before.
    async fn meet(&mut self, machine: &Machine) -> Result<(), Halt> {
        self.stop()?;
        let signals = &self.context.signals;
        let region = &self.region.name;
        let say = |line: &str| self.context.progress.say(format!("{region}: {line}"));
        let seat = self.seat(machine);
        let stop = || signals.now().is_some();
        let Some(project) = self.project_of(machine) else {
            return Ok(());
        };
        let meeting = Box::pin(first_session(&seat, &project.hetzner, &stop, &say));
        let met = tokio::select! {
            met = meeting => met,
            // Safe at any moment: the next run goes on there.
            _ = signals.received() => Err(Unmet::Signal),
        };
        let good = met.is_ok();
        self.outcome.did.push(Did {
            host: machine.host.clone(),
            what: What::Met(met),
        });
        self.stop()?;
        match good {
            true => Ok(()),
            false => Err(Halt),
        }
    }

    /// The server makes its keys for the mesh and for replication, and says their public halves.
    async fn ask(&mut self, machine: &Machine) -> Result<(), Halt> {
        let server = self.facts().for_keys(machine);
        let steps = host::keys(&server);
        let related = machine.region != self.region.name;
        let facts = self
            .script(machine, steps, Vec::new(), Vec::new(), related)
            .await?;
        let fact = |wanted: &str| {
            let found = facts.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        };
        let (wireguard, certificate) = (fact("wireguard"), fact("certificate"));
        let rows = fact("rows").map(|said| said != "no");
        let renews = fact("renewal").is_some_and(|said| said == "due");
        let Some(label) = wireguard.as_deref().and_then(wireguard_label) else {
            return Err(self.unsaid(machine, "its WireGuard key"));
        };
        self.label(machine, label).await?;
        match &certificate {
            Some(certificate) => self.keep(machine, certificate)?,
            None if server.database.is_some() => {
                return Err(self.unsaid(machine, "the certificate of its node"));
            }
            None => {}
        }
        let address = self.facts().address(machine);
        self.outcome.mesh.insert(machine.server.clone(), address);
        for known in &mut self.machines {
            if known.server == machine.server {
                known.wireguard.clone_from(&wireguard);
                known.rows = rows;
                known.renews = renews;
                known.certificate = certificate.clone().or(known.certificate.take());
            }
        }
        Ok(())
    }

    fn unsaid(&mut self, machine: &Machine, what: &'static str) -> Halt {
        self.outcome.did.push(Did {
            host: machine.host.clone(),
            what: What::Unsaid(what),
        });
        Halt
    }

    /// A node's certificate, as a file for `sslrootcert`.
    fn keep(&mut self, machine: &Machine, certificate: &str) -> Result<(), Halt> {
        let node = recipes::node_on(&self.world.topology, machine.role, &machine.host);
        let Some((_, node)) = node else {
            return Ok(());
        };
        let file = format!("{}.pem", node.name);
        let path = self.baggage.certificates.join(&file);
        let text = pem(certificate);
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let made = fs::create_dir_all(&self.baggage.certificates);
        match made.and_then(|()| fs::write(&path, text)) {
            Ok(()) => {
                self.outcome
                    .certificates
                    .push(format!("{CERTIFICATES}/{file}"));
                Ok(())
            }
            Err(error) => {
                self.outcome.did.push(Did {
                    host: machine.host.clone(),
                    what: What::Unkept(error),
                });
                Err(Halt)
            }
        }
    }

    async fn label(&mut self, machine: &Machine, label: String) -> Result<(), Halt> {
        let Some(project) = self.project_of(machine) else {
            return Ok(());
        };
        let change = |labels: &mut Labels| {
            labels.insert(WIREGUARD.to_owned(), label);
        };
        let written = relabel(&project.hetzner, &machine.server, change).await;
        if let Err(error) = written {
            self.outcome.did.push(Did {
                host: machine.host.clone(),
                what: What::Unlabelled(error),
            });
            return Err(Halt);
        }
        Ok(())
    }

    async fn make(&mut self, server: &str, phase: Phase) -> Result<(), Halt> {
        self.stop()?;
        let Some(machine) = self.machines.iter().find(|known| known.server == server) else {
            return Ok(());
        };
        let machine = machine.clone();
        let recipe = self.recipe(&machine, phase);
        let mut parts = self.baggage.secrets.parts(&recipe.server);
        if let (Some(_), Some(uploads)) = (&recipe.server.api, &self.baggage.uploads) {
            let there = match apply::region_host_there(&self.login(&machine)).await {
                Ok(there) => there,
                Err(error) => {
                    self.ran(
                        &machine,
                        Vec::new(),
                        Applied::ended(Ending::NotOpened(error)),
                        recipe.missing,
                        false,
                    );
                    return Err(Halt);
                }
            };
            parts.extend(uploads.parts(&there));
        }
        let steps = host::steps(&recipe.server);
        let related = machine.region != self.region.name;
        self.script(&machine, steps, parts, recipe.missing, related)
            .await
            .map(drop)
    }

    /// Returns the facts that it said.
    async fn script(
        &mut self,
        machine: &Machine,
        steps: Vec<Step>,
        mut parts: Vec<Part>,
        missing: Vec<String>,
        related: bool,
    ) -> Result<Vec<(String, String)>, Halt> {
        self.stop()?;
        parts.push(uploads::script(&script::render(&steps)));
        let node = recipes::node_on(&self.world.topology, machine.role, &machine.host);
        let mode = match node {
            Some(_) => Mode::Seed,
            None => Mode::Apply,
        };
        let progress = &self.context.progress;
        let say = |line: &str| progress.say(format!("{}: {line}", machine.host));
        let login = self.login(machine);
        let running = apply::apply(&login, &parts, mode, &say, &self.context.signals);
        let applied = Box::pin(running).await;
        let done = matches!(applied.ending, Ending::Done);
        let facts = applied.facts.clone();
        self.ran(machine, steps, applied, missing, related);
        match done {
            true => Ok(facts),
            false => Err(Halt),
        }
    }

    fn ran(
        &mut self,
        machine: &Machine,
        steps: Vec<Step>,
        applied: Applied,
        missing: Vec<String>,
        related: bool,
    ) {
        self.outcome.did.push(Did {
            host: machine.host.clone(),
            what: What::Ran {
                steps,
                applied,
                missing,
                related,
            },
        });
    }

    fn recipe(&self, machine: &Machine, phase: Phase) -> Recipe {
        self.facts().recipe(machine, phase)
    }

    fn facts(&self) -> Facts<'_> {
        let uploads = self.baggage.uploads.as_ref();
        Facts {
            topology: &self.world.topology,
            machines: &self.machines,
            region_host_sha256: uploads.map_or("", |uploads| &uploads.region_host_sha256),
            logins: &self.baggage.secrets.logins,
            backups: &self.baggage.secrets.backups,
            redis_account: self.baggage.secrets.redis_account(),
        }
    }

    fn project_of(&self, machine: &Machine) -> Option<&Project<'_>> {
        let mut projects = self.seen.projects.iter();
        projects.find(|project| {
            let servers = &project.inventory.resources;
            servers
                .iter()
                .any(|found| found.kind() == Kind::Server && found.name == machine.server)
        })
    }

    fn seat<'m>(&'m self, machine: &'m Machine) -> Seat<'m> {
        Seat {
            server: &machine.server,
            address: machine.address,
            port: 22,
            known_hosts: &self.baggage.known_hosts,
            identity: self.args.root_key.as_deref(),
            // Those of other regions have been up for long, or are down.
            boot_within: match machine.region == self.region.name {
                true => self.args.boot_within,
                false => self.args.boot_within.min(ANSWERS_WITHIN),
            },
        }
    }

    fn login(&self, machine: &Machine) -> RootLogin {
        RootLogin {
            address: machine.address,
            port: 22,
            known_hosts: self.baggage.known_hosts.clone(),
            identity: self.args.root_key.clone(),
        }
    }
}
