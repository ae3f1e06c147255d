//! One server of a set-up: the login to it, what it says of itself, and a script that runs there.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use regionwise_cli::jump;
use regionwise_provision::host::{self, pem};
use regionwise_provision::recipes::{self, Facts, Machine, Phase, Recipe};
use regionwise_provision::step::Step;
use regionwise_provision::{Kind, Labels, WIREGUARD, script, wireguard_label};
use regionwise_provisioner::{Project, Seat, Unmet, first_session, relabel};
use regionwise_remote::root::{Part, RootLogin};

use super::{Baggage, CERTIFICATES, Did, Halt, Setup, SetupArgs, What};
use crate::apply::{self, Applied, Ending, Mode};
use crate::look::World;
use crate::uploads;

/// A server that is up answers ssh within this, also over a bad line.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

impl Setup<'_, '_> {
    /// The first session, or nothing where it was before.
    pub(super) async fn meet(&mut self, machine: &Machine) -> Result<(), Halt> {
        self.stop()?;
        let signals = &self.context.signals;
        let region = &self.region.name;
        let say = |line: &str| self.context.progress.say(format!("{region}: {line}"));
        let seat = self.seat(machine);
        let stop = || signals.now().is_some();
        let Some(project) = self.project_of(machine) else {
            return Ok(());
        };
        let seen = project.inventory.named(Kind::Server, &machine.server);
        let seen = seen.map_or_else(Labels::new, |server| server.labels.clone());
        let meeting = Box::pin(first_session(&seat, &seen, &project.hetzner, &stop, &say));
        let met = tokio::select! {
            met = meeting => met,
            // Safe at any moment: the next run goes on there.
            _ = signals.received() => Err(Unmet::Signal),
        };
        let good = met.is_ok();
        self.did(machine, What::Met(met));
        self.stop()?;
        match good {
            true => Ok(()),
            false => Err(Halt),
        }
    }

    /// The server makes its keys for the mesh and for replication, and says their public halves.
    pub(super) async fn ask(&mut self, machine: &Machine) -> Result<(), Halt> {
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
        // The label as the last look had it. Nobody changes it to another key than that of the server.
        if machine.wireguard.as_deref().and_then(wireguard_label) != Some(label.clone()) {
            match self.looks {
                true => self.did(
                    machine,
                    What::Differs("its WireGuard key is not the one that its label has"),
                ),
                false => self.label(machine, label).await?,
            }
        }
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

    pub(super) fn unsaid(&mut self, machine: &Machine, what: &'static str) -> Halt {
        self.did(machine, What::Unsaid(what));
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
        if self.looks {
            self.did(
                machine,
                What::Differs("its certificate is not the one that certificates/ has"),
            );
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
                self.did(machine, What::Unkept(error));
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
            self.did(machine, What::Unlabelled(error));
            return Err(Halt);
        }
        Ok(())
    }

    pub(super) fn did(&mut self, machine: &Machine, what: What) {
        self.outcome.did.push(Did {
            host: machine.host.clone(),
            what,
        });
    }

    pub(super) async fn make(&mut self, server: &str, phase: Phase) -> Result<(), Halt> {
        self.stop()?;
        let Some(machine) = self.machines.iter().find(|known| known.server == server) else {
            return Ok(());
        };
        let machine = machine.clone();
        let recipe = self.recipe(&machine, phase);
        let mut parts = self.baggage.secrets.parts(&recipe.server);
        if let (Some(_), Some(uploads)) = (&recipe.server.api, &self.baggage.uploads) {
            let there = match apply::region_host_there(&self.login(&machine)).await {
                // A look compares the sum, and needs no upload.
                Ok(_) if self.looks => uploads.region_host_sha256.clone(),
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
    pub(super) async fn script(
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
            _ if self.looks => Mode::Check,
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
        let what = What::Ran {
            steps,
            applied,
            missing,
            related,
        };
        self.did(machine, what);
    }

    pub(super) fn recipe(&self, machine: &Machine, phase: Phase) -> Recipe {
        self.facts().recipe(machine, phase)
    }

    pub(super) fn facts(&self) -> Facts<'_> {
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

    pub(super) fn project_of(&self, machine: &Machine) -> Option<&Project<'_>> {
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
            jump: jump(&self.world.topology, &self.baggage.known_hosts),
            // Those of other regions have been up for long, or are down.
            boot_within: match machine.region == self.region.name {
                true => self.args.boot_within,
                false => self.args.boot_within.min(ANSWERS_WITHIN),
            },
        }
    }

    fn login(&self, machine: &Machine) -> RootLogin {
        root_login(self.world, self.args, self.baggage, machine.address)
    }
}

/// Root's login to a server that known_hosts has.
pub(crate) fn root_login(
    world: &World,
    args: &SetupArgs,
    baggage: &Baggage,
    address: IpAddr,
) -> RootLogin {
    RootLogin {
        address,
        port: 22,
        known_hosts: baggage.known_hosts.clone(),
        identity: args.root_key.clone(),
        jump: jump(&world.topology, &baggage.known_hosts),
    }
}
