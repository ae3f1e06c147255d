//! Takes away what a region has, and nothing that is not ours.

use regionwise_provision::{Detail, Inventory, Kind, REGION, Resource};

use crate::stopped::{Stopped, Why};
use crate::{Narrator, Project};

/// What a destroy would take away, in the order in which it goes.
#[derive(Debug, Default)]
pub struct Doomed {
    pub goes: Vec<Resource>,
    /// Volumes: they hold data, and go only when that is asked for by itself.
    pub volumes: Vec<Resource>,
    /// What belongs to the product as a whole, when no other region is left.
    pub shared: Vec<Resource>,
}

/// What went, also when it was stopped.
#[derive(Debug, Default)]
pub struct Gone {
    pub gone: Vec<(Kind, String)>,
    /// Requests that changed something, or may have.
    pub sent: usize,
}

/// What carries our label for this region; what all regions share goes with the last of them.
pub fn doomed(region: &str, inventory: &Inventory) -> Doomed {
    let mut doomed = Doomed::default();
    let mut used = false;
    let ours = inventory
        .resources
        .iter()
        .filter(|resource| resource.is_ours(&inventory.product));
    for resource in ours {
        match (resource.labels.get(REGION), resource.kind()) {
            (Some(of), Kind::Volume) if of == region => doomed.volumes.push(resource.clone()),
            (Some(of), _) if of == region => doomed.goes.push(resource.clone()),
            (None, Kind::SshKey | Kind::PlacementGroup | Kind::Network) => {
                doomed.shared.push(resource.clone());
            }
            // Another region's; or one that somebody labelled by hand, which is for them to delete.
            _ => used = true,
        }
    }
    if used {
        doomed.shared.clear();
    }
    // Whoever else is in a network would be out of it.
    doomed.shared.retain(|resource| {
        resource.kind() != Kind::Network
            || !inventory
                .resources
                .iter()
                .any(|other| !other.is_ours(&inventory.product) && is_in(other, resource.id))
    });
    for list in [&mut doomed.goes, &mut doomed.shared] {
        list.sort_by_key(|resource| turn(resource.kind()));
    }
    doomed
}

fn is_in(resource: &Resource, network: i64) -> bool {
    match &resource.detail {
        Detail::Server(server) => server.networks.contains(&network),
        Detail::Balancer(balancer) => balancer.networks.contains(&network),
        _ => false,
    }
}

impl Doomed {
    /// Everything that goes, volumes when they are asked for.
    pub fn all(&self, with_volumes: bool) -> impl Iterator<Item = &Resource> {
        let volumes = self.volumes.iter().filter(move |_| with_volumes);
        self.goes.iter().chain(volumes).chain(&self.shared)
    }
}

/// What refers to others goes before them; an address can go only when its server has gone.
const fn turn(kind: Kind) -> u8 {
    match kind {
        Kind::Balancer => 0,
        Kind::Server => 1,
        Kind::Volume => 2,
        Kind::Address => 3,
        Kind::Firewall => 4,
        Kind::Network => 5,
        Kind::PlacementGroup => 6,
        Kind::SshKey => 7,
    }
}

/// Takes a region away from one project. Volumes stay unless `with_volumes`; then they are taken off their servers first.
///
/// # Errors
/// [`Stopped`]; `gone` says what has gone until then.
pub async fn destroy(
    project: &mut Project<'_>,
    region: &str,
    with_volumes: bool,
    stop: &dyn Fn() -> bool,
    say: Narrator<'_>,
    gone: &mut Gone,
) -> Result<(), Stopped> {
    let mut destroying = Destroying {
        project,
        stop,
        say,
        gone,
    };
    let first = doomed(region, &destroying.project.inventory);
    if with_volumes {
        destroying.detach(&first.volumes).await?;
    }
    let volumes = first.volumes.iter().filter(|_| with_volumes);
    destroying.delete(first.goes.iter().chain(volumes)).await?;
    // Another region may have begun meanwhile, in the network that all share.
    destroying.look().await?;
    let last = doomed(region, &destroying.project.inventory);
    destroying.delete(last.shared.iter()).await?;
    destroying.look().await?;
    match doomed(region, &destroying.project.inventory).goes.first() {
        None => Ok(()),
        Some(left) => {
            let text = format!("{} is there still", label(left));
            Err(Stopped::new(Why::Busy, text))
        }
    }
}

struct Destroying<'d, 'p> {
    project: &'d mut Project<'p>,
    stop: &'d dyn Fn() -> bool,
    say: Narrator<'d>,
    gone: &'d mut Gone,
}

impl Destroying<'_, '_> {
    async fn detach(&mut self, volumes: &[Resource]) -> Result<(), Stopped> {
        let mut running = Vec::new();
        for volume in volumes {
            if !matches!(&volume.detail, Detail::Volume(of) if of.server.is_some()) {
                continue;
            }
            self.may_go_on()?;
            self.gone.sent += 1;
            let detached = self.project.hetzner.detach(volume.id).await;
            running.extend(detached.map_err(|error| Stopped::by(&label(volume), &error))?);
        }
        self.settle(running).await
    }

    async fn delete(&mut self, resources: impl Iterator<Item = &Resource>) -> Result<(), Stopped> {
        for resource in resources {
            self.may_go_on()?;
            (self.say)(&format!("deletes {}.", label(resource)));
            self.gone.sent += 1;
            let deleted = self
                .project
                .hetzner
                .delete(resource.kind(), resource.id)
                .await;
            let running = deleted.map_err(|error| Stopped::by(&label(resource), &error))?;
            self.settle(running).await?;
            self.gone
                .gone
                .push((resource.kind(), resource.name.clone()));
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Stopped> {
        let inventory = self.project.hetzner.inventory().await;
        self.project.inventory =
            inventory.map_err(|error| Stopped::by("looking at what is left", &error))?;
        Ok(())
    }

    async fn settle(&self, running: Vec<i64>) -> Result<(), Stopped> {
        let settled = self.project.hetzner.settle(running, self.stop).await;
        settled.map_err(|error| Stopped::by("what was deleted", &error))
    }

    fn may_go_on(&self) -> Result<(), Stopped> {
        match (self.stop)() {
            true => Err(Stopped::new(Why::Signal, "stopped between two deletions")),
            false => Ok(()),
        }
    }
}

fn label(resource: &Resource) -> String {
    format!("{} `{}`", resource.kind().word(), resource.name)
}
