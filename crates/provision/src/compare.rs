//! One wanted resource beside what there is.

use rust_decimal::Decimal;

use crate::catalogue::{Catalogue, Offer, Product, Stock};
use crate::inventory::{Detail, Inventory, Resource, Service, address_name, volume_name};
use crate::plan::{Change, Difference, Line, Remedy};
use crate::wanted::{BalancerSpec, Kind, ServerSpec, Spec, Wanted};

pub(crate) struct Compare<'a> {
    pub(crate) product: &'a str,
    pub(crate) inventory: &'a Inventory,
    pub(crate) catalogue: &'a Catalogue,
    /// Id of the load balancer's.
    pub(crate) certificate: Option<i64>,
}

impl Compare<'_> {
    pub(crate) fn change(&self, wanted: &Wanted) -> Change {
        let owned = wanted.clone();
        let Some(found) = self.found(wanted) else {
            return self.order(owned);
        };
        let (mut mend, differs) = self.differences(wanted, found);
        match &wanted.spec {
            // The key itself is what is wanted: somebody's entry of it will do, and stays theirs.
            Spec::SshKey(_) if differs.is_empty() => {
                let id = found.id;
                mend.clear();
                return Change::There {
                    wanted: owned,
                    id,
                    mend,
                    differs,
                };
            }
            // Born with its server, it has no label of anybody yet, and would go with it.
            Spec::Address { .. } if !found.is_ours(self.product) => {
                let newborn =
                    matches!(&found.detail, Detail::Address(address) if address.auto_delete);
                if !newborn || !found.labels.is_empty() {
                    return Change::Foreign(owned, found.id);
                }
                if self.inventory.named(Kind::Address, &wanted.name).is_some() {
                    let why = format!(
                        "another address has its name; the server has {}",
                        found.name
                    );
                    return Change::Blocked(owned, why);
                }
            }
            _ if !found.is_ours(self.product) => return Change::Foreign(owned, found.id),
            _ => {}
        }
        let labelled = wanted
            .labels
            .iter()
            .all(|(key, value)| found.labels.get(key) == Some(value));
        if found.name != wanted.name || !labelled {
            mend.insert(0, Remedy::Labels);
        }
        mend.dedup();
        Change::There {
            wanted: owned,
            id: found.id,
            mend,
            differs,
        }
    }

    /// What is not there.
    fn order(&self, wanted: Wanted) -> Change {
        let orderable = match &wanted.spec {
            Spec::Server(server) => match self
                .kept(&wanted.name, &server.locations)
                .and_then(|()| self.kept_volume(&wanted.name, &server.locations))
            {
                Ok(()) => !self.server_orders(&wanted.name, server).is_empty(),
                Err(why) => return Change::Blocked(wanted, why),
            },
            Spec::Balancer(balancer) => {
                let types = &self.catalogue.balancer_types;
                Catalogue::orders(types, &balancer.types, &balancer.locations)
                    .next()
                    .is_some()
            }
            _ => true,
        };
        match orderable {
            true => Change::Create(wanted),
            false => Change::SoldOut(wanted),
        }
    }

    /// An address of an earlier server of that name binds the next one to its place; one that cannot be had again is in the
    /// way, because the new one would get its name.
    fn kept(&self, server: &str, locations: &[String]) -> Result<(), String> {
        let name = address_name(server);
        let Some(found) = self.inventory.named(Kind::Address, &name) else {
            return Ok(());
        };
        if self.inventory.kept_address(server, locations).is_some() {
            return Ok(());
        }
        match &found.detail {
            _ if !found.is_ours(self.product) => {
                Err(format!("somebody else's primary ip has the name {name}"))
            }
            Detail::Address(address) if address.server.is_some() => {
                Err(format!("another server has its address {}", address.text))
            }
            Detail::Address(address) => Err(format!(
                "its address {} is in {}, where it may not stand any more: delete that address",
                address.text, address.location
            )),
            _ => Ok(()),
        }
    }

    /// A volume that an earlier server of that name left cannot follow it elsewhere.
    fn kept_volume(&self, server: &str, locations: &[String]) -> Result<(), String> {
        let name = volume_name(server);
        match self
            .inventory
            .named(Kind::Volume, &name)
            .map(|found| &found.detail)
        {
            Some(Detail::Volume(volume)) if !locations.contains(&volume.location) => Err(format!(
                "its volume {name} is in {}: a volume stays where it is",
                volume.location
            )),
            _ => Ok(()),
        }
    }

    fn server_orders(&self, name: &str, server: &ServerSpec) -> Vec<Order> {
        orders(self.catalogue, self.inventory, name, server)
    }

    /// The address that the server has, if the server is there.
    fn born_with(&self, server: &str) -> Option<i64> {
        match self
            .inventory
            .named(Kind::Server, server)
            .map(|found| &found.detail)
        {
            Some(Detail::Server(server)) => server.address.as_ref().map(|(id, _)| *id),
            _ => None,
        }
    }

    fn found(&self, wanted: &Wanted) -> Option<&Resource> {
        match &wanted.spec {
            Spec::Address { server } => {
                let id = self.born_with(server)?;
                let is_it = |found: &&Resource| found.kind() == Kind::Address && found.id == id;
                self.inventory.resources.iter().find(is_it)
            }
            Spec::SshKey(key) => self
                .inventory
                .ssh_key(key)
                .or_else(|| self.inventory.named(Kind::SshKey, &wanted.name)),
            // A stranger's network of that name is not in the way of ours.
            Spec::Network { .. } => self
                .inventory
                .named(Kind::Network, &wanted.name)
                .filter(|found| found.is_ours(self.product)),
            _ => self.inventory.named(wanted.kind(), &wanted.name),
        }
    }

    /// What can be mended, and what cannot.
    fn differences(&self, wanted: &Wanted, found: &Resource) -> (Vec<Remedy>, Vec<Difference>) {
        let id = |kind, name: &str| self.inventory.id(kind, name);
        let mut mend = Vec::new();
        let mut differs = Vec::new();
        let mut say = |grave: bool, what: String| differs.push(Difference { what, grave });
        match (&wanted.spec, &found.detail) {
            (Spec::SshKey(key), Detail::SshKey(there)) if key != there => {
                say(true, "another key has this name".to_owned());
            }
            (Spec::Network { zone, range }, Detail::Network(there)) => {
                if there.range != Some(*range) {
                    say(true, format!("its range is not {range}"));
                } else if !there.zones.contains(zone) {
                    mend.push(Remedy::Subnet);
                }
            }
            (Spec::Firewall(rules), Detail::Firewall(there)) if *rules != there.rules => {
                mend.push(Remedy::Rules);
            }
            (Spec::Server(spec), Detail::Server(there)) => {
                if !spec.types.contains(&there.kind) {
                    say(
                        false,
                        format!("it is a {}; to rescale it forfeits its price", there.kind),
                    );
                }
                if !spec.locations.contains(&there.location) {
                    say(true, format!("it stands in {}", there.location));
                }
                let firewall = id(Kind::Firewall, &spec.firewall);
                if firewall.is_none_or(|id| !there.firewalls.contains(&id)) {
                    mend.push(Remedy::Protect);
                }
                if there.firewalls.len() > 1 {
                    say(true, "further firewalls are applied to it".to_owned());
                }
                let network = id(Kind::Network, &spec.network);
                if network.is_none_or(|id| !there.networks.contains(&id)) {
                    mend.push(Remedy::Join);
                }
                let group = id(Kind::PlacementGroup, &spec.placement_group);
                if group.is_some() && there.placement_group != group {
                    say(
                        true,
                        format!("it is not in placement group {}", spec.placement_group),
                    );
                }
            }
            (Spec::Address { .. }, Detail::Address(there)) if there.auto_delete => {
                mend.push(Remedy::Labels);
            }
            (Spec::Volume { server, size_gb }, Detail::Volume(there)) => {
                let place = match self
                    .inventory
                    .named(Kind::Server, server)
                    .map(|found| &found.detail)
                {
                    Some(Detail::Server(server)) => Some(&server.location),
                    _ => None,
                };
                if place.is_some_and(|place| *place != there.location) {
                    say(
                        true,
                        format!("it is in {}, and its server is not", there.location),
                    );
                } else if there.server.is_none() {
                    mend.push(Remedy::Attach);
                } else if there.server != id(Kind::Server, server) {
                    say(
                        true,
                        format!("it is attached to another server than {server}"),
                    );
                }
                let (from, to) = (there.size_gb, *size_gb);
                if from < to {
                    mend.push(Remedy::Grow { from, to });
                } else if from > to {
                    say(
                        false,
                        format!("it has {from} GB, and a volume never shrinks"),
                    );
                }
            }
            (Spec::Balancer(spec), Detail::Balancer(there)) => {
                if !spec.types.contains(&there.kind) {
                    say(false, format!("it is a {}", there.kind));
                }
                if !spec.locations.contains(&there.location) {
                    say(true, format!("it stands in {}", there.location));
                }
                let network = id(Kind::Network, &spec.network);
                if network.is_none_or(|id| !there.networks.contains(&id)) {
                    match there.networks.is_empty() {
                        true => mend.push(Remedy::Join),
                        // It can be in one only.
                        false => say(true, "it is in another network".to_owned()),
                    }
                }
                if there.further_targets > 0 {
                    say(
                        true,
                        format!("{} further targets get its traffic", there.further_targets),
                    );
                }
                if !there.selectors.contains(&spec.selector) {
                    mend.push(Remedy::Target);
                }
                let service = self.service(spec);
                let others = there
                    .services
                    .iter()
                    .filter(|known| known.port != service.port);
                for other in others {
                    // With its certificate it redirects port 80 by itself, and does not get it while another service has it.
                    say(
                        true,
                        format!("it serves port {}, too: delete that service", other.port),
                    );
                }
                match there
                    .services
                    .iter()
                    .find(|known| known.port == service.port)
                {
                    Some(known) if *known == service => {}
                    Some(_) => mend.push(Remedy::Settings),
                    None if there.services.is_empty() => mend.push(Remedy::Service),
                    None => {}
                }
            }
            _ => {}
        }
        (mend, differs)
    }

    fn service(&self, spec: &BalancerSpec) -> Service {
        let (port, protocol) = match spec.certificate {
            Some(_) => (443, "https"),
            None => (80, "http"),
        };
        Service {
            port,
            protocol: protocol.to_owned(),
            destination: 80,
            certificates: self
                .certificate
                .filter(|_| spec.certificate.is_some())
                .into_iter()
                .collect(),
            health_path: Some(spec.health_path.clone()),
        }
    }

    pub(crate) fn existing(&self, resource: &Resource) -> Option<Line> {
        let (what, price) = match &resource.detail {
            Detail::Server(server) => {
                self.of_type(&self.catalogue.server_types, &server.kind, &server.location)
            }
            Detail::Balancer(balancer) => self.of_type(
                &self.catalogue.balancer_types,
                &balancer.kind,
                &balancer.location,
            ),
            Detail::Volume(volume) => self.of_volume(volume.size_gb),
            Detail::Address(address) => self.of_address(&address.location),
            Detail::SshKey(_)
            | Detail::PlacementGroup
            | Detail::Network(_)
            | Detail::Firewall(_) => {
                return None;
            }
        };
        Some(Line {
            name: resource.name.clone(),
            what,
            price,
            new: false,
        })
    }

    pub(crate) fn ordered(&self, wanted: &Wanted) -> Option<Line> {
        let (what, price) = match &wanted.spec {
            Spec::Server(server) => {
                let first = self
                    .server_orders(&wanted.name, server)
                    .into_iter()
                    .next()?;
                (first.what(), first.price)
            }
            Spec::Balancer(balancer) => {
                let types = &self.catalogue.balancer_types;
                let mut orders = Catalogue::orders(types, &balancer.types, &balancer.locations);
                let first = orders.next().map(Order::of)?;
                (first.what(), first.price)
            }
            Spec::Volume { size_gb, .. } => self.of_volume(*size_gb),
            // One that is kept is counted where it is.
            Spec::Address { server }
                if self
                    .inventory
                    .named(Kind::Address, &address_name(server))
                    .is_some() =>
            {
                return None;
            }
            // Where its server comes to stand; the dearest of the locations, if they differ.
            Spec::Address { .. } => {
                let price = self.catalogue.prices.ipv4.values().max().copied();
                ("IPv4".to_owned(), price)
            }
            Spec::SshKey(_) | Spec::PlacementGroup | Spec::Network { .. } | Spec::Firewall(_) => {
                return None;
            }
        };
        Some(Line {
            name: wanted.name.clone(),
            what,
            price,
            new: true,
        })
    }

    fn of_type(
        &self,
        products: &[Product],
        name: &str,
        location: &str,
    ) -> (String, Option<Decimal>) {
        let product = products.iter().find(|product| product.name == name);
        let price = product.and_then(|product| product.offers.get(location)?.price);
        (format!("{name} in {location}"), price)
    }

    pub(crate) fn of_volume(&self, size_gb: u32) -> (String, Option<Decimal>) {
        let price = self
            .catalogue
            .prices
            .volume_gb
            .map(|gb| gb * Decimal::from(size_gb));
        (format!("{size_gb} GB"), price)
    }

    fn of_address(&self, location: &str) -> (String, Option<Decimal>) {
        (
            "IPv4".to_owned(),
            self.catalogue.prices.ipv4.get(location).copied(),
        )
    }
}

/// One type at one location that may be ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub kind: String,
    pub location: String,
    pub price: Option<Decimal>,
    stock: Stock,
}

impl Order {
    pub fn of((kind, location, offer): (&str, &str, &Offer)) -> Self {
        Self {
            kind: kind.to_owned(),
            location: location.to_owned(),
            price: offer.price,
            stock: offer.stock,
        }
    }

    fn what(&self) -> String {
        let unsure = match self.stock {
            Stock::Unknown => ", stock unknown",
            Stock::Available | Stock::Gone => "",
        };
        format!("{} in {}{unsure}", self.kind, self.location)
    }
}

/// The orders for a server that may be tried, the best first. An address that is kept for it can be had in its place only.
pub fn orders(
    catalogue: &Catalogue,
    inventory: &Inventory,
    name: &str,
    server: &ServerSpec,
) -> Vec<Order> {
    let kept = inventory
        .kept_address(name, &server.locations)
        .map(|kept| &kept.detail);
    let locations = match kept {
        Some(Detail::Address(kept)) => vec![kept.location.clone()],
        _ => server.locations.clone(),
    };
    Catalogue::orders(&catalogue.server_types, &server.types, &locations)
        .map(Order::of)
        .collect()
}
