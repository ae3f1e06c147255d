//! Carries out what a plan orders and mends, kind after kind.

use std::collections::BTreeSet;
use std::time::Duration;

use regionwise_hetzner::{Choice, Error};
use regionwise_provision::{
    Catalogue, Change, Detail, Kind, Order, Reaction, Remedy, Resource, ServerSpec, Spec, Wanted,
    cloud_config::TooLarge, orders,
};
use rust_decimal::Decimal;

use crate::birth::Birth;
use crate::purse::Purse;
use crate::stopped::{Stopped, Why};
use crate::{Narrator, Project};

/// A write whose answer was lost may still be on its way: how often and when it is looked for.
const LOOKS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// What a run did, also when it was stopped.
#[derive(Debug, Default)]
pub struct Done {
    /// Kind and name of what was made.
    pub made: Vec<(Kind, String)>,
    /// Kind and name of what another run had made meanwhile.
    pub found: Vec<(Kind, String)>,
    /// Kind, name and difference of what was mended.
    pub mended: Vec<(Kind, String, Remedy)>,
    /// Names of servers that were installed anew.
    pub rebuilt: Vec<String>,
    /// What was sent last, and nobody knows whether it was done.
    pub unsure: Option<String>,
    /// Whether another run's lock was taken away.
    pub took_over: bool,
}

impl Done {
    /// Whether something is known to be other than before.
    pub const fn changed(&self) -> bool {
        !self.made.is_empty()
            || !self.mended.is_empty()
            || !self.rebuilt.is_empty()
            || self.took_over
    }
}

/// Everything that a run needs besides the project.
pub struct Run<'a> {
    pub catalogue: &'a Catalogue,
    pub purse: &'a mut Purse,
    /// The user data of a server, from the host key that it is born with.
    pub user_data: &'a dyn Fn(&ServerSpec, &Birth) -> Result<String, TooLarge>,
    /// Whether somebody asked to stop; asked before every write.
    pub stop: &'a dyn Fn() -> bool,
    pub say: Narrator<'a>,
}

/// Carries out `changes`. What blocks a plan must have been refused before.
///
/// # Errors
/// [`Stopped`]; `done` says what was done until then.
pub async fn apply(
    project: &mut Project<'_>,
    changes: &[Change],
    run: Run<'_>,
    done: &mut Done,
) -> Result<(), Stopped> {
    let mut applying = Applying {
        project,
        run,
        done,
        running: Vec::new(),
        locks: BTreeSet::new(),
    };
    applying.let_servers_arrive().await?;
    for kind in Kind::ALL {
        for change in changes.iter().filter(|change| change.kind() == kind) {
            match change {
                Change::Create(wanted) => applying.create(wanted).await?,
                Change::There {
                    wanted, id, mend, ..
                } => {
                    for remedy in mend {
                        applying.mend(wanted, *id, *remedy).await?;
                    }
                }
                Change::Foreign(..)
                | Change::Blocked(..)
                | Change::SoldOut(_)
                | Change::Stray(..) => {}
            }
        }
        // What comes next refers to what was made here.
        applying.settle().await?;
    }
    Ok(())
}

struct Applying<'r, 'p, 'a> {
    project: &'r mut Project<'p>,
    run: Run<'a>,
    done: &'r mut Done,
    /// Actions that are not awaited yet.
    running: Vec<i64>,
    /// Names of placement groups that this run made itself, and nobody else.
    locks: BTreeSet<String>,
}

/// How a resource came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ordered {
    Made,
    /// Another run made it, or this one did and its answer was lost.
    Found,
}

impl Applying<'_, '_, '_> {
    async fn create(&mut self, wanted: &Wanted) -> Result<(), Stopped> {
        match &wanted.spec {
            Spec::Server(spec) => {
                let (catalogue, inventory) = (self.run.catalogue, &self.project.inventory);
                let mut orders = orders(catalogue, inventory, &wanted.name, spec);
                if inventory
                    .kept_address(&wanted.name, &spec.locations)
                    .is_none()
                {
                    // It comes with an address of its own, which costs, too.
                    for order in &mut orders {
                        let address = catalogue.prices.ipv4.get(&order.location);
                        order.price = order
                            .price
                            .zip(address)
                            .map(|(server, address)| server + address);
                    }
                }
                let birth = Birth::make()
                    .await
                    .map_err(|error| Stopped::new(Why::Order, error.to_string()))?;
                let user_data = (self.run.user_data)(spec, &birth)
                    .map_err(|error| Stopped::new(Why::Order, error.to_string()))?;
                let choice = Choice {
                    user_data: Some(&user_data),
                    host_key: Some(&birth.label),
                    ..Choice::default()
                };
                self.first_that_is_left(wanted, &orders, choice).await
            }
            Spec::Balancer(spec) => {
                let types = &self.run.catalogue.balancer_types;
                let orders: Vec<Order> = Catalogue::orders(types, &spec.types, &spec.locations)
                    .map(Order::of)
                    .collect();
                let choice = Choice {
                    certificate: self.project.certificate,
                    ..Choice::default()
                };
                self.first_that_is_left(wanted, &orders, choice).await
            }
            Spec::Address { server } => self.adopt_address(wanted, server).await,
            Spec::Network { .. } => self.network(wanted).await,
            Spec::Volume { size_gb, .. } => {
                let price = self.price_of(*size_gb);
                self.run.purse.allows(&label(wanted), price)?;
                self.order(wanted, &Choice::default()).await?;
                self.run.purse.pay(price);
                Ok(())
            }
            Spec::PlacementGroup => {
                if self.order(wanted, &Choice::default()).await? == Ordered::Made {
                    self.locks.insert(wanted.name.clone());
                }
                Ok(())
            }
            Spec::SshKey(_) | Spec::Firewall(_) => {
                self.order(wanted, &Choice::default()).await?;
                Ok(())
            }
        }
    }

    fn price_of(&self, size_gb: u32) -> Option<Decimal> {
        let gb = self.run.catalogue.prices.volume_gb;
        gb.map(|gb| gb * Decimal::from(size_gb))
    }

    /// Orders the first type and location that the provider has left.
    async fn first_that_is_left(
        &mut self,
        wanted: &Wanted,
        orders: &[Order],
        choice: Choice<'_>,
    ) -> Result<(), Stopped> {
        let mut last = None;
        for Order {
            kind,
            location,
            price,
            ..
        } in orders
        {
            let what = format!("{}, a {kind} in {location}", label(wanted));
            self.run.purse.allows(&what, *price)?;
            let choice = Choice {
                kind,
                location,
                ..choice
            };
            match self.order(wanted, &choice).await {
                Ok(_) => {
                    self.run.purse.pay(*price);
                    return Ok(());
                }
                Err(stopped) if stopped.why == Why::SoldOut => {
                    (self.run.say)(&format!("{stopped}; tries the next type."));
                    last = Some(stopped);
                }
                Err(stopped) => return Err(stopped),
            }
        }
        let nothing = || {
            let text = format!("{}: none of its types can be ordered", label(wanted));
            Stopped::new(Why::SoldOut, text)
        };
        Err(last.unwrap_or_else(nothing))
    }

    /// One order to its end: made, found to be made, or refused.
    async fn order(&mut self, wanted: &Wanted, choice: &Choice<'_>) -> Result<Ordered, Stopped> {
        self.may_go_on()?;
        (self.run.say)(&format!("creates {}.", label(wanted)));
        let Project {
            hetzner, inventory, ..
        } = &mut *self.project;
        match hetzner.create(wanted, inventory, choice).await {
            Ok(made) => {
                self.running.extend(made.actions);
                self.done.made.push((wanted.kind(), wanted.name.clone()));
                self.project.inventory.take(made.resource);
                Ok(Ordered::Made)
            }
            Err(error) if error.is(Reaction::Taken) => {
                let found = self.look_for(wanted, &error).await?;
                self.took(wanted, found);
                Ok(Ordered::Found)
            }
            Err(error) if error.may_be_done() => {
                self.done.unsure = Some(label(wanted));
                let found = self.look_for(wanted, &error).await?;
                self.done.unsure = None;
                // Ours, as far as anybody can tell; another run's lock it is not safe to take it for.
                self.done.made.push((wanted.kind(), wanted.name.clone()));
                self.project.inventory.take(found);
                Ok(Ordered::Found)
            }
            Err(error) => Err(Stopped::by(&label(wanted), &error)),
        }
    }

    /// The name is taken, or the answer was lost: what is there under our name and label is what was ordered.
    async fn look_for(&self, wanted: &Wanted, error: &Error) -> Result<Resource, Stopped> {
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            let found = self.named(wanted).await?;
            if let Some(ours) = found.iter().find(|found| carries(found, wanted)) {
                return Ok(ours.clone());
            }
            if let Some(other) = found.first().filter(|_| wanted.kind() != Kind::Network) {
                let text = format!(
                    "{} has the id {} and labels of somebody else; it was not touched",
                    label(wanted),
                    other.id
                );
                return Err(Stopped::new(Why::Foreign, text));
            }
        }
        let mut stopped = Stopped::by(&label(wanted), error);
        if stopped.why == Why::Foreign {
            // Taken, and yet nobody has it: it is going just now.
            stopped.why = Why::Busy;
        }
        Err(stopped)
    }

    async fn named(&self, wanted: &Wanted) -> Result<Vec<Resource>, Stopped> {
        let found = self
            .project
            .hetzner
            .named(wanted.kind(), &wanted.name)
            .await;
        found.map_err(|error| Stopped::by(&label(wanted), &error))
    }

    fn took(&mut self, wanted: &Wanted, resource: Resource) {
        self.done.found.push((wanted.kind(), wanted.name.clone()));
        self.project.inventory.take(resource);
    }

    /// The name of a network may be there twice: the placement group of the same name, which may not, says who makes it.
    async fn network(&mut self, wanted: &Wanted) -> Result<(), Stopped> {
        let lock = Wanted {
            spec: Spec::PlacementGroup,
            ..wanted.clone()
        };
        for _ in 0..3 {
            // With the lock, one look: whoever had it before may have made the network.
            let looks = match self.locks.contains(&wanted.name) {
                true => &LOOKS[..1],
                false => &LOOKS[..],
            };
            // Without it, whoever has it is at it, or was killed in between: these looks give it time.
            if self.appears(wanted, looks).await? {
                return Ok(());
            }
            if self.locks.contains(&wanted.name) {
                self.order(wanted, &Choice::default()).await?;
                return self.keep_the_oldest(wanted).await;
            }
            (self.run.say)(&format!(
                "takes over {}, which somebody began to make.",
                label(wanted)
            ));
            let group = self
                .project
                .inventory
                .id(Kind::PlacementGroup, &wanted.name);
            if let Some(id) = group {
                let gone = self.project.hetzner.delete(Kind::PlacementGroup, id).await;
                gone.map_err(|error| Stopped::by(&label(&lock), &error))?;
                self.done.took_over = true;
            }
            if self.order(&lock, &Choice::default()).await? == Ordered::Made {
                self.locks.insert(wanted.name.clone());
            }
        }
        let text = format!("{}: another run makes it over and over", label(wanted));
        Err(Stopped::new(Why::Busy, text))
    }

    async fn appears(&mut self, wanted: &Wanted, looks: &[Duration]) -> Result<bool, Stopped> {
        for pause in looks {
            tokio::time::sleep(*pause).await;
            let found = self.named(wanted).await?;
            let ours = found.into_iter().filter(|found| carries(found, wanted));
            if let Some(oldest) = ours.min_by_key(|found| found.id) {
                self.took(wanted, oldest);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whoever had the lock before may have been slow and not dead: of two networks the younger one, which nothing is in yet,
    /// goes, by the hand of the run that made it.
    async fn keep_the_oldest(&mut self, wanted: &Wanted) -> Result<(), Stopped> {
        let mine = self.project.inventory.id(Kind::Network, &wanted.name);
        let found = self.named(wanted).await?;
        let ours = found.into_iter().filter(|found| carries(found, wanted));
        let Some(oldest) = ours.min_by_key(|found| found.id) else {
            let text = format!("{} is gone again", label(wanted));
            return Err(Stopped::new(Why::Busy, text));
        };
        if let Some(mine) = mine.filter(|mine| *mine != oldest.id) {
            let gone = self.project.hetzner.delete(Kind::Network, mine).await;
            gone.map_err(|error| Stopped::by(&label(wanted), &error))?;
            self.project
                .inventory
                .resources
                .retain(|known| known.kind() != Kind::Network || known.id != mine);
        }
        self.project.inventory.take(oldest);
        Ok(())
    }

    /// The address came with its server, named by Hetzner, and would go with it.
    async fn adopt_address(&mut self, wanted: &Wanted, server: &str) -> Result<(), Stopped> {
        let found = self.project.inventory.named(Kind::Server, server);
        let id = match found.map(|found| &found.detail) {
            Some(Detail::Server(server)) => server.address.as_ref().map(|(id, _)| *id),
            _ => None,
        };
        let Some(id) = id else {
            let text = format!(
                "{}: server {server} has no public IPv4 address",
                label(wanted)
            );
            return Err(Stopped::new(Why::Order, text));
        };
        self.mend(wanted, id, Remedy::Labels).await
    }

    async fn mend(&mut self, wanted: &Wanted, id: i64, remedy: Remedy) -> Result<(), Stopped> {
        self.may_go_on()?;
        (self.run.say)(&format!("mends {} of {}.", remedy.word(), label(wanted)));
        let price = match remedy {
            Remedy::Grow { from, to } => self.price_of(to - from),
            _ => None,
        };
        if let Remedy::Grow { .. } = remedy {
            self.run.purse.allows(&label(wanted), price)?;
        }
        let choice = Choice {
            certificate: self.project.certificate,
            ..Choice::default()
        };
        let Project {
            hetzner, inventory, ..
        } = &*self.project;
        let mended = hetzner.mend(wanted, id, remedy, inventory, &choice).await;
        // Another run was faster. The look at the end sees whether it is as it should be.
        let mended = match mended {
            Err(error) if error.is(Reaction::Already) => return Ok(()),
            mended => mended,
        };
        let actions = mended.map_err(|error| {
            if error.may_be_done() {
                self.done.unsure = Some(format!("{} of {}", remedy.word(), label(wanted)));
            }
            Stopped::by(&label(wanted), &error)
        })?;
        self.run.purse.pay(price);
        self.running.extend(actions);
        self.done
            .mended
            .push((wanted.kind(), wanted.name.clone(), remedy));
        Ok(())
    }

    /// A run that was stopped may have left servers on their way, and those are locked.
    async fn let_servers_arrive(&mut self) -> Result<(), Stopped> {
        let inventory = &self.project.inventory;
        let ours = inventory
            .resources
            .iter()
            .filter(|found| found.is_ours(&inventory.product));
        let arrived = |found: &Resource| match &found.detail {
            Detail::Server(server) => server.status == "running",
            _ => true,
        };
        if ours.into_iter().all(arrived) {
            return Ok(());
        }
        let servers = self.project.hetzner.servers(self.run.stop).await;
        for server in servers.map_err(|error| Stopped::by("servers that are there", &error))? {
            self.project.inventory.take(server);
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Stopped> {
        let running = std::mem::take(&mut self.running);
        let settled = self.project.hetzner.settle(running, self.run.stop).await;
        settled.map_err(|error| Stopped::by("what was ordered", &error))
    }

    fn may_go_on(&self) -> Result<(), Stopped> {
        match (self.run.stop)() {
            true => Err(Stopped::new(Why::Signal, "stopped between two orders")),
            false => Ok(()),
        }
    }
}

/// Whether all the labels that ours would have are on it.
fn carries(found: &Resource, wanted: &Wanted) -> bool {
    let labels = &wanted.labels;
    labels
        .iter()
        .all(|(key, value)| found.labels.get(key) == Some(value))
}

fn label(wanted: &Wanted) -> String {
    format!("{} `{}`", wanted.kind().word(), wanted.name)
}
