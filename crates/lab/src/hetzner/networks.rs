//! Private networks, their subnets and the addresses in them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::CREATED;
use super::places::LOCATIONS;
use super::project::{Project, not_built};
use super::refusal::{Answer, Answered, Refusal, invalid, refuse};
use super::resource::{Kind, Resource};

/// The gateway of every server: nobody can have it.
const TAKEN: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);

#[derive(Clone, Debug)]
pub struct Network {
    pub range: Ipv4Net,
    pub subnets: Vec<Subnet>,
    /// Destination and gateway.
    pub routes: Vec<(String, String)>,
    pub expose_routes_to_vswitch: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub kind: String,
    pub range: Ipv4Net,
    pub zone: String,
}

impl Kind for Network {
    const ONE: &'static str = "network";
    const MANY: &'static str = "networks";
    /// The description does not say that they are unique, so a client must not lean on it.
    const UNIQUE: bool = false;

    fn all(project: &Project) -> &Vec<Resource<Self>> {
        &project.networks
    }

    fn all_mut(project: &mut Project) -> &mut Vec<Resource<Self>> {
        &mut project.networks
    }

    fn shown(project: &Project, it: &Resource<Self>) -> Value {
        let gateway = gateway(it.range);
        let subnets = it.subnets.iter().map(|subnet| {
            json!({
                "type": subnet.kind, "ip_range": subnet.range.to_string(),
                "network_zone": subnet.zone, "gateway": gateway.to_string(), "vswitch_id": null,
            })
        });
        let routes = it.routes.iter();
        let routes = routes.map(|(to, by)| json!({ "destination": to, "gateway": by }));
        json!({
            "id": it.id, "name": it.name, "labels": it.labels, "created": CREATED,
            "ip_range": it.range.to_string(), "subnets": subnets.collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(), "protection": { "delete": it.protected },
            "servers": project.servers_in(it.id), "load_balancers": project.load_balancers_in(it.id),
            "expose_routes_to_vswitch": it.expose_routes_to_vswitch,
        })
    }

    fn changed(&mut self, body: &Value) {
        if let Some(expose) = body["expose_routes_to_vswitch"].as_bool() {
            self.expose_routes_to_vswitch = expose;
        }
    }

    fn create(project: &mut Project, body: &Value) -> Answered {
        let mut network = Self {
            range: private_range(&body["ip_range"])?,
            subnets: Vec::new(),
            routes: Vec::new(),
            expose_routes_to_vswitch: body["expose_routes_to_vswitch"].as_bool().unwrap_or(false),
        };
        for given in body["subnets"].as_array().into_iter().flatten() {
            let subnet = network.subnet(given)?;
            network.subnets.push(subnet);
        }
        for given in body["routes"].as_array().into_iter().flatten() {
            network.routes.push(route(given));
        }
        let id = project.add(body, network);
        Ok(Answer::created(
            json!({ "network": project.shown::<Self>(id)? }),
        ))
    }

    /// Whatever is in it is detached.
    fn delete(project: &mut Project, id: u64) -> Answered {
        for server in &mut project.servers {
            server.private_nets.retain(|net| net.network != id);
        }
        for balancer in &mut project.load_balancers {
            balancer.networks.retain(|(network, _)| *network != id);
        }
        project.remove::<Self>(id);
        Ok(Answer::gone())
    }

    fn act(project: &mut Project, id: u64, action: &str, body: &Value) -> Answered {
        match action {
            "add_subnet" => {
                let subnet = project.find::<Self>(id)?.subnet(body)?;
                project.acted("add_subnet", "network", id, move |project| {
                    project.find_mut::<Self>(id)?.subnets.push(subnet);
                    Ok(())
                })
            }
            "delete_subnet" => {
                let range = body["ip_range"].as_str().unwrap_or_default().to_owned();
                let network = project.find::<Self>(id)?;
                let subnet = network
                    .subnets
                    .iter()
                    .find(|subnet| subnet.range.to_string() == range);
                let Some(subnet) = subnet.cloned() else {
                    return Err(refuse(
                        404,
                        "not_found",
                        format!("subnet '{range}' not found"),
                    ));
                };
                if project.used(id).iter().any(|ip| subnet.range.contains(ip)) {
                    return Err(refuse(422, "resource_in_use", "subnet still has resources"));
                }
                project.acted("delete_subnet", "network", id, move |project| {
                    project
                        .find_mut::<Self>(id)?
                        .subnets
                        .retain(|known| *known != subnet);
                    Ok(())
                })
            }
            "add_route" => {
                let route = route(body);
                project.acted("add_route", "network", id, move |project| {
                    project.find_mut::<Self>(id)?.routes.push(route);
                    Ok(())
                })
            }
            "delete_route" => {
                let route = route(body);
                project.acted("delete_route", "network", id, move |project| {
                    project
                        .find_mut::<Self>(id)?
                        .routes
                        .retain(|known| *known != route);
                    Ok(())
                })
            }
            "change_ip_range" => {
                let range = private_range(&body["ip_range"])?;
                if !range.contains(&project.find::<Self>(id)?.range) {
                    return Err(invalid("ip_range", "can only grow"));
                }
                project.acted("change_ip_range", "network", id, move |project| {
                    project.find_mut::<Self>(id)?.range = range;
                    Ok(())
                })
            }
            _ => Err(not_built(&["networks", action])),
        }
    }
}

impl Network {
    fn subnet(&self, given: &Value) -> Result<Subnet, Refusal> {
        let zone = given["network_zone"].as_str().unwrap_or_default();
        if !LOCATIONS.iter().any(|(_, _, _, known, _)| *known == zone) {
            return Err(invalid("network_zone", &format!("`{zone}` is no zone")));
        }
        let overlaps = |range: &Ipv4Net| {
            let mut known = self.subnets.iter().map(|subnet| subnet.range);
            known.any(|known| known.contains(range) || range.contains(&known))
        };
        let range = if given["ip_range"].is_null() {
            let mut free = self
                .range
                .subnets(24.max(self.range.prefix_len()))
                .into_iter()
                .flatten();
            free.find(|range| !overlaps(range))
        } else {
            let text = given["ip_range"].as_str().unwrap_or_default();
            let range = text.parse::<Ipv4Net>().ok();
            range.filter(|range| {
                range.trunc() == *range && self.range.contains(range) && !overlaps(range)
            })
        };
        let why = "must be a free network within that of the network";
        Ok(Subnet {
            kind: given["type"].as_str().unwrap_or_default().to_owned(),
            range: range.ok_or_else(|| invalid("ip_range", why))?,
            zone: zone.to_owned(),
        })
    }
}

fn gateway(range: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(range.network().to_bits() + 1)
}

fn route(given: &Value) -> (String, String) {
    let text = |field: &str| given[field].as_str().unwrap_or_default().to_owned();
    (text("destination"), text("gateway"))
}

fn private_range(given: &Value) -> Result<Ipv4Net, Refusal> {
    let range = given.as_str().and_then(|text| text.parse::<Ipv4Net>().ok());
    let range = range.filter(|range| {
        let private = range.network().is_private() && range.broadcast().is_private();
        range.trunc() == *range && private && range.prefix_len() <= 24
    });
    range.ok_or_else(|| {
        invalid(
            "ip_range",
            "must be a private IPv4 network of at least 256 addresses",
        )
    })
}

impl Project {
    fn servers_in(&self, network: u64) -> Vec<u64> {
        let servers = self.servers.iter();
        let servers =
            servers.filter(|server| server.private_nets.iter().any(|net| net.network == network));
        servers.map(|server| server.id).collect()
    }

    fn load_balancers_in(&self, network: u64) -> Vec<u64> {
        let balancers = self.load_balancers.iter();
        let balancers = balancers.filter(|one| one.networks.iter().any(|(of, _)| *of == network));
        balancers.map(|one| one.id).collect()
    }

    fn used(&self, network: u64) -> Vec<Ipv4Addr> {
        let nets = self.servers.iter().flat_map(|server| &server.private_nets);
        let nets = nets.filter(|net| net.network == network);
        let servers = nets.flat_map(|net| net.alias_ips.iter().chain([&net.ip]).copied());
        let balancers = self.load_balancers.iter().flat_map(|one| &one.networks);
        let balancers = balancers
            .filter(|(of, _)| *of == network)
            .map(|(_, ip)| *ip);
        servers.chain(balancers).collect()
    }

    /// An address for something in that zone: the one that the body wants, or the next one.
    ///
    /// # Errors
    /// When there is none, or it is taken.
    pub(super) fn free_ip(
        &self,
        network: u64,
        zone: &str,
        body: &Value,
    ) -> Result<Ipv4Addr, Refusal> {
        let found = self.find::<Network>(network)?;
        let range = body["ip_range"].as_str();
        let subnets = found.subnets.iter().filter(|subnet| {
            subnet.zone == zone && range.is_none_or(|range| subnet.range.to_string() == range)
        });
        let used = self.used(network);
        let first = gateway(found.range);
        let mut free = subnets
            .flat_map(|subnet| subnet.range.hosts())
            .filter(|ip| *ip != first && *ip != TAKEN && !used.contains(ip))
            .peekable();
        let no_subnet = || {
            refuse(
                422,
                "no_subnet_available",
                format!("no subnet or IP is available in zone {zone}"),
            )
        };
        let next = *free.peek().ok_or_else(no_subnet)?;
        let Some(wanted) = body["ip"].as_str() else {
            return Ok(next);
        };
        let wanted = wanted.parse::<Ipv4Addr>().ok();
        let wanted = wanted.filter(|wanted| free.any(|ip| ip == *wanted));
        wanted.ok_or_else(|| refuse(422, "ip_not_available", "the network IP is not available"))
    }
}
