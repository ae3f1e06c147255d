//! From regions.toml to the servers of a region and what they need around them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use regionwise_topology::{BalancerServers, Node, Provision, Region, Secret, Topology};
use sha2::{Digest, Sha256};

use crate::catalogue::Catalogue;
use crate::inventory::{address_name, volume_name};
use crate::ownership::{api_selector, of_region, of_role, shared};
use crate::recipes::{MESH_PORT, POSTGRES_PORT, clients_from_outside, has_mesh, node_on};
use crate::wanted::{
    BalancerSpec, FirewallRule, GROUP_LIMIT, Known, NAME_LIMIT, Project, Protocol, Role,
    ServerSpec, Spec, Undecided, Wanted,
};

/// What the answer depends on.
pub(crate) struct World<'a, 'c> {
    pub(crate) topology: &'a Topology,
    pub(crate) provision: &'a Provision,
    pub(crate) region: &'a Region,
    pub(crate) catalogue: &'c Catalogue,
    pub(crate) ssh_keys: &'c [String],
}

impl<'a> World<'a, '_> {
    /// The servers with what belongs to each, and the token of the project that holds them.
    pub(crate) fn machines(&self) -> Result<Vec<(&'a Secret, Vec<Wanted>)>, Undecided> {
        let region = self.region;
        let mut places = vec![region.location.clone()];
        places.extend(region.fallback_locations.iter().cloned());
        let zone = self.zone(&format!("region `{}`", region.name), &region.location)?;
        for location in &region.fallback_locations {
            if self.zone(&format!("region `{}`", region.name), location)? != zone {
                return Err(Undecided::Zone {
                    region: region.name.clone(),
                    location: location.clone(),
                    first: region.location.clone(),
                });
            }
        }
        let home = self.token(&region.cluster);
        let mut machines = Vec::new();
        let addressed = region.hosts.iter().map(|host| {
            // With TLS of its own, and no load balancer, it listens on 443.
            let standard = host.ssh_port == 22
                && matches!((host.http_port, host.tls), (80, false) | (443, true));
            (&host.name, host.tls, standard)
        });
        let pending = region
            .unaddressed
            .iter()
            .map(|host| (&host.name, host.tls, host.standard_ports));
        for (host, tls, standard) in addressed.chain(pending) {
            if tls && self.provision.load_balancer.is_some() {
                return Err(Undecided::Tls { host: host.clone() });
            }
            if !standard {
                return Err(Undecided::Port { host: host.clone() });
            }
            let types = &self.provision.api;
            let carried = self.carried_by(host, home)?;
            // Where it carries a node, no other place than the node's will do.
            let places = match carried {
                Some(node) => std::slice::from_ref(&node.location),
                None => &places,
            };
            let database = self.provision.database.as_ref();
            let volume = carried.and_then(|_| database?.volume_gb);
            machines.push((home, self.machine(host, Role::Api, types, places, volume)?));
        }
        if let Some(redis) = &self.provision.redis {
            let name = redis_name(region);
            machines.push((
                home,
                self.machine(&name, Role::Redis, &redis.types, &places, None)?,
            ));
        }
        if let Some(database) = &self.provision.database {
            for cluster in self.topology.clusters.values() {
                for node in std::iter::once(&cluster.primary).chain(&cluster.standbys) {
                    if node.host.is_some() || self.region_of(node)? != region.name {
                        continue;
                    }
                    // Its location is what regions.toml says and the residency was checked for: no other will do.
                    let place = std::slice::from_ref(&node.location);
                    let size = database.volume_gb;
                    let machine =
                        self.machine(&node.name, Role::Database, &database.types, place, size)?;
                    machines.push((self.token(&cluster.name), machine));
                }
            }
        }
        Ok(machines)
    }

    /// The project of a cluster's rows.
    fn token(&self, cluster: &str) -> &'a Secret {
        let residency = self.topology.clusters[cluster].residency.as_ref();
        let own = residency.and_then(|name| self.topology.residencies.get(name)?.token.as_ref());
        own.unwrap_or(&self.provision.token)
    }

    /// The node that lives on a host.
    fn carried_by(&self, host: &str, home: &Secret) -> Result<Option<&'a Node>, Undecided> {
        if self.provision.database.is_none() {
            return Ok(None);
        }
        let found = self.topology.clusters.values().find_map(|cluster| {
            let mut nodes = std::iter::once(&cluster.primary).chain(&cluster.standbys);
            let node = nodes.find(|node| node.host.as_deref() == Some(host))?;
            Some((cluster, node))
        });
        match found {
            Some((cluster, node)) if self.token(&cluster.name) != home => Err(Undecided::Project {
                node: node.name.clone(),
                host: host.to_owned(),
            }),
            found => Ok(found.map(|(_, node)| node)),
        }
    }

    fn region_of(&self, node: &'a Node) -> Result<&'a str, Undecided> {
        if let Some(region) = &node.region {
            return Ok(region);
        }
        let regions = &self.topology.regions;
        if let Some(region) = regions
            .iter()
            .find(|region| region.location == node.location)
        {
            return Ok(&region.name);
        }
        let zone = self.zone(&format!("node `{}`", node.name), &node.location)?;
        let mut near = regions
            .iter()
            .filter(|region| self.catalogue.zone(&region.location) == Some(zone));
        match (near.next(), near.next()) {
            (Some(only), None) => Ok(&only.name),
            _ => Err(Undecided::Node {
                node: node.name.clone(),
                zone: zone.to_owned(),
            }),
        }
    }

    fn machine(
        &self,
        name: &str,
        role: Role,
        types: &[String],
        locations: &[String],
        volume_gb: Option<u32>,
    ) -> Result<Vec<Wanted>, Undecided> {
        let zone = self.zone(name, &locations[0])?;
        let server = format!("{}-{name}", self.product());
        let labels = of_role(self.product(), &self.region.name, role);
        let of = |name: String, spec| Wanted {
            name,
            labels: labels.clone(),
            spec,
        };
        let mut all = vec![
            of(
                server.clone(),
                Spec::Server(ServerSpec {
                    host: name.to_owned(),
                    role,
                    types: types.to_vec(),
                    locations: locations.to_vec(),
                    image: self.provision.image.clone(),
                    ssh_keys: self.ssh_keys.to_vec(),
                    placement_group: self.group_name(role),
                    network: self.network_name(zone),
                    firewall: self.firewall_name(role),
                }),
            ),
            of(
                address_name(&server),
                Spec::Address {
                    server: server.clone(),
                },
            ),
        ];
        if let Some(size_gb) = volume_gb {
            all.push(of(volume_name(&server), Spec::Volume { server, size_gb }));
        }
        Ok(all)
    }

    /// What the provider would refuse in the middle of the orders.
    pub(crate) fn check(&self, projects: &[Project<'_>]) -> Result<(), Undecided> {
        let region = &self.region.name;
        for project in projects {
            let mut roles: BTreeMap<Role, usize> = BTreeMap::new();
            for wanted in &project.wanted {
                let Spec::Server(server) = &wanted.spec else {
                    continue;
                };
                let name = wanted.name.clone();
                if name.len() > NAME_LIMIT || name.ends_with('-') {
                    return Err(Undecided::Unnameable { name });
                }
                *roles.entry(server.role).or_default() += 1;
            }
            let crowded = roles.into_iter().find(|(_, count)| *count > GROUP_LIMIT);
            if let Some((role, count)) = crowded {
                return Err(Undecided::Crowded {
                    region: region.clone(),
                    role: role.word(),
                    count,
                });
            }
        }
        self.names_of_all_regions()
    }

    /// One name for two servers would be taken from one region by the other, in turns.
    fn names_of_all_regions(&self) -> Result<(), Undecided> {
        let mut names = BTreeSet::new();
        let mut once = |name: &str| match names.insert(name.to_owned()) {
            true => Ok(()),
            false => Err(Undecided::Name {
                name: name.to_owned(),
            }),
        };
        for region in &self.topology.regions {
            region.hosts.iter().try_for_each(|host| once(&host.name))?;
            region
                .unaddressed
                .iter()
                .try_for_each(|host| once(&host.name))?;
            if self.provision.redis.is_some() {
                once(&redis_name(region))?;
            }
        }
        if self.provision.database.is_some() {
            for cluster in self.topology.clusters.values() {
                let mut nodes = std::iter::once(&cluster.primary)
                    .chain(&cluster.standbys)
                    .filter(|node| node.host.is_none());
                nodes.try_for_each(|node| once(&node.name))?;
            }
        }
        Ok(())
    }

    /// What the servers of one project need around them.
    pub(crate) fn around(
        &self,
        project: &Project<'_>,
        networks: &[Known<'_>],
        taken: &mut BTreeSet<IpNet>,
    ) -> Result<Vec<Wanted>, Undecided> {
        let (product, region) = (self.product(), self.region.name.as_str());
        let mut roles = BTreeSet::new();
        let mut zones = BTreeSet::new();
        for wanted in &project.wanted {
            if let Spec::Server(server) = &wanted.spec {
                roles.insert(server.role);
                zones.insert(self.zone(&wanted.name, &server.locations[0])?);
            }
        }
        let keys = self.ssh_keys.iter().map(|key| Wanted {
            name: self.key_name(key),
            labels: shared(product),
            spec: Spec::SshKey(key.clone()),
        });
        let groups = roles.iter().map(|role| Wanted {
            name: self.group_name(*role),
            labels: of_role(product, region, *role),
            spec: Spec::PlacementGroup,
        });
        let mut around: Vec<Wanted> = keys.chain(groups).collect();
        for zone in zones {
            let name = self.network_name(zone);
            let known = networks
                .iter()
                .find(|known| known.token == project.token && known.name == name);
            let range = match known {
                Some(known) => known.range,
                None => free_range(zone, taken).ok_or_else(|| Undecided::Range {
                    zone: zone.to_owned(),
                })?,
            };
            taken.insert(range);
            // Who makes this one makes the network, too: networks may have one name twice, placement groups may not.
            around.push(Wanted {
                name: name.clone(),
                labels: shared(product),
                spec: Spec::PlacementGroup,
            });
            around.push(Wanted {
                name,
                labels: shared(product),
                spec: Spec::Network {
                    zone: zone.to_owned(),
                    range,
                },
            });
        }
        // One firewall is for all servers behind it: where one of them has a node, the others do not listen there.
        let has_node = |firewall: &str| {
            project.wanted.iter().any(|wanted| match &wanted.spec {
                Spec::Server(server) => {
                    server.firewall == firewall
                        && node_on(self.topology, server.role, &server.host).is_some()
                }
                _ => false,
            })
        };
        let firewalls: BTreeSet<String> =
            roles.iter().map(|role| self.firewall_name(*role)).collect();
        for name in firewalls {
            let api = name == self.firewall_name(Role::Api);
            let spec = Spec::Firewall(self.rules(api, has_node(&name)));
            around.push(Wanted {
                name,
                labels: of_region(product, region),
                spec,
            });
        }
        if let Some(balancer) = &self.provision.load_balancer
            && roles.contains(&Role::Api)
        {
            around.push(self.balancer(balancer)?);
        }
        Ok(around)
    }

    /// Hetzner's firewall sees the public interface only: what comes over the private network needs no rule here.
    fn rules(&self, api: bool, node: bool) -> BTreeSet<FirewallRule> {
        let anywhere: BTreeSet<IpNet> = ["0.0.0.0/0", "::/0"]
            .into_iter()
            .filter_map(|range| range.parse().ok())
            .collect();
        let known: BTreeSet<IpNet> = self.provision.ssh_from.iter().copied().collect();
        let tcp = |port: &str, sources: &BTreeSet<IpNet>| FirewallRule {
            protocol: Protocol::Tcp,
            port: Some(port.to_owned()),
            sources: sources.clone(),
        };
        let mut rules = BTreeSet::from([
            tcp("22", &known),
            FirewallRule {
                protocol: Protocol::Icmp,
                port: None,
                sources: anywhere.clone(),
            },
        ]);
        if api {
            // Behind a load balancer only the controller asks a host itself.
            let from = match self.provision.load_balancer {
                Some(_) => &known,
                None => &anywhere,
            };
            rules.extend([tcp("80", from), tcp("443", from)]);
        }
        let clients: BTreeSet<IpNet> = clients_from_outside(self.topology)
            .iter()
            .copied()
            .collect();
        if node && !clients.is_empty() {
            rules.insert(tcp(&POSTGRES_PORT.to_string(), &clients));
        }
        if has_mesh(self.topology) {
            // From anywhere: a server of another region may be ordered later, and WireGuard answers nobody without a key of its.
            rules.insert(FirewallRule {
                protocol: Protocol::Udp,
                port: Some(MESH_PORT.to_string()),
                sources: anywhere.clone(),
            });
        }
        rules
    }

    fn balancer(&self, balancer: &BalancerServers) -> Result<Wanted, Undecided> {
        let region = self.region;
        if region.url.scheme() == "https" && balancer.certificate.is_none() {
            return Err(Undecided::Certificate {
                region: region.name.clone(),
            });
        }
        let zone = self.zone(&region.name, &region.location)?;
        let mut locations = vec![region.location.clone()];
        locations.extend(region.fallback_locations.iter().cloned());
        Ok(Wanted {
            name: self.regional(),
            labels: of_region(self.product(), &region.name),
            spec: Spec::Balancer(BalancerSpec {
                types: balancer.types.clone(),
                locations,
                network: self.network_name(zone),
                selector: api_selector(self.product(), &region.name),
                certificate: balancer
                    .certificate
                    .clone()
                    .filter(|_| region.url.scheme() == "https"),
                health_path: self.topology.health.basic_path.clone(),
            }),
        })
    }

    fn zone(&self, what: &str, location: &str) -> Result<&str, Undecided> {
        self.catalogue.zone(location).ok_or_else(|| {
            let known: Vec<&str> = self.catalogue.zones.keys().map(String::as_str).collect();
            Undecided::Location {
                what: what.to_owned(),
                location: location.to_owned(),
                known: known.join(", "),
            }
        })
    }

    fn product(&self) -> &str {
        &self.topology.product.name
    }

    fn regional(&self) -> String {
        format!("{}-{}", self.product(), self.region.name)
    }

    fn group_name(&self, role: Role) -> String {
        format!("{}-{}", self.regional(), role.word())
    }

    /// Each key has a name of its own: the list in regions.toml changes.
    fn key_name(&self, key: &str) -> String {
        let digest = Sha256::digest(key);
        let short = data_encoding::HEXLOWER.encode(&digest[..4]);
        format!("{}-{short}", self.product())
    }

    fn network_name(&self, zone: &str) -> String {
        format!("{}-net-{zone}", self.product())
    }

    fn firewall_name(&self, role: Role) -> String {
        let of = match role {
            Role::Api => "api",
            Role::Database | Role::Redis => "data",
        };
        format!("{}-{of}", self.regional())
    }
}

fn redis_name(region: &Region) -> String {
    format!("{}-redis", region.name)
}

/// The first range that no network of ours has; each zone begins to look at another place.
fn free_range(zone: &str, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
    let first = match zone {
        "eu-central" => 64,
        "us-east" => 65,
        "us-west" => 66,
        "ap-southeast" => 67,
        _ => 68,
    };
    let candidates = (0..16).map(|turn| format!("10.{}.0.0/16", first + 5 * turn));
    candidates
        .filter_map(|range| range.parse::<IpNet>().ok())
        .find(|range| taken.iter().all(|other| !overlap(range, other)))
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{IpNet, free_range};

    #[test]
    fn a_new_network_gets_a_range_that_no_other_one_overlaps() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let free = |taken: &[&str]| {
            let taken: BTreeSet<IpNet> = taken.iter().map(|text| net(text)).collect();
            free_range("eu-central", &taken)
        };
        assert_eq!(free(&[]), Some(net("10.64.0.0/16")));
        assert_eq!(free(&["10.64.3.0/24"]), Some(net("10.69.0.0/16")));
        assert_eq!(
            free(&["10.64.0.0/16", "10.69.0.0/16"]),
            Some(net("10.74.0.0/16"))
        );
        assert_eq!(free(&["10.0.0.0/8"]), None);
    }
}
