//! Load balancers: services, targets, networks, and the health of what they reach.

use std::collections::BTreeMap;
use std::mem;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::CREATED;
use super::account::load_balancer_types;
use super::networks::Network;
use super::places::{LOCATIONS, included_traffic, location, shown_location, zone};
use super::project::{Project, not_built};
use super::query::Selector;
use super::refusal::{Answer, Answered, Refusal, invalid, refuse, unfit};
use super::resource::{Kind, Resource, at_most, named};
use super::servers::Server;

#[derive(Clone, Debug)]
pub struct LoadBalancer {
    pub kind: String,
    pub location: &'static str,
    pub algorithm: String,
    /// As they were given, with what Hetzner adds.
    pub services: Vec<Value>,
    pub targets: Vec<Target>,
    pub networks: Vec<(u64, Ipv4Addr)>,
    pub public: bool,
    pub ipv4: String,
    /// What the health checks say of a server by its id, in place of `healthy` when it runs, and `unhealthy` when not.
    pub health: BTreeMap<u64, &'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub to: To,
    pub private: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    Server(u64),
    Selector(String),
}

impl Kind for LoadBalancer {
    const ONE: &'static str = "load_balancer";
    const MANY: &'static str = "load_balancers";

    fn all(project: &Project) -> &Vec<Resource<Self>> {
        &project.load_balancers
    }

    fn all_mut(project: &mut Project) -> &mut Vec<Resource<Self>> {
        &mut project.load_balancers
    }

    fn name_fits(name: &str) -> Result<(), &'static str> {
        at_most(name, 128)
    }

    fn shown(project: &Project, it: &Resource<Self>) -> Value {
        let kinds = load_balancer_types(&project.account);
        let kind = kinds.iter().find(|kind| kind["name"] == it.kind.as_str());
        let nets = it.networks.iter();
        let nets = nets.map(|(network, ip)| json!({ "network": network, "ip": ip.to_string() }));
        let targets = it
            .targets
            .iter()
            .map(|target| project.shown_target(it, target));
        json!({
            "id": it.id, "name": it.name, "labels": it.labels, "created": CREATED,
            "public_net": {
                "enabled": it.public,
                "ipv4": { "ip": it.ipv4, "dns_ptr": format!("lb.{}.clients.example", it.ipv4) },
                "ipv6": { "ip": format!("2001:db8:{:x}::1", it.id), "dns_ptr": null },
            },
            "private_net": nets.collect::<Vec<_>>(),
            "location": shown_location(it.location),
            "load_balancer_type": kind,
            "protection": { "delete": it.protected },
            "services": it.services,
            "targets": targets.collect::<Vec<_>>(),
            "algorithm": { "type": it.algorithm },
            "outgoing_traffic": 0, "ingoing_traffic": 0,
            "included_traffic": included_traffic(it.location),
        })
    }

    fn create(project: &mut Project, body: &Value) -> Answered {
        let kind = project.balancer_type(&body["load_balancer_type"])?;
        let place = place(body)?;
        let network = body["network"].as_u64();
        let ip = match network {
            Some(network) => Some((
                network,
                project.free_ip(network, zone(place), &Value::Null)?,
            )),
            None => None,
        };
        let mut balancer = Self {
            kind,
            location: place,
            algorithm: body["algorithm"]["type"]
                .as_str()
                .unwrap_or("round_robin")
                .to_owned(),
            services: Vec::new(),
            targets: Vec::new(),
            networks: ip.into_iter().collect(),
            public: body["public_interface"].as_bool().unwrap_or(true),
            ipv4: String::new(),
            health: BTreeMap::new(),
        };
        for given in body["services"].as_array().into_iter().flatten() {
            let service = balancer.new_service(given)?;
            balancer.services.push(service);
        }
        for given in body["targets"].as_array().into_iter().flatten() {
            let target = project.target(&balancer, given)?;
            balancer.targets.push(target);
        }
        balancer.ipv4 = project.address("ipv4")?;
        let id = project.add(body, balancer);
        let action = project.start(
            "create_load_balancer",
            &[("load_balancer", id)],
            None,
            |_| Ok(()),
        );
        Ok(Answer::created(json!({
            "load_balancer": project.shown::<Self>(id)?,
            "action": project.shown_action(action),
        })))
    }

    fn delete(project: &mut Project, id: u64) -> Answered {
        let about = [("load_balancer", id)];
        let action = project.start("delete_load_balancer", &about, None, move |project| {
            project.remove::<Self>(id);
            Ok(())
        });
        if project.account.shape.silent_deletion {
            return Ok(Answer::gone());
        }
        Ok(Answer::ok(
            json!({ "action": project.shown_action(action) }),
        ))
    }

    fn act(project: &mut Project, id: u64, action: &str, body: &Value) -> Answered {
        let it = project.find::<Self>(id)?;
        let mut next = it.own.clone();
        match action {
            "add_service" => {
                let service = next.new_service(body)?;
                next.services.push(service);
            }
            "update_service" => next.update_service(body)?,
            "delete_service" => {
                next.service(body)?;
                next.services
                    .retain(|known| known["listen_port"] != body["listen_port"]);
            }
            "add_target" => {
                let target = project.target(&it.own, body)?;
                next.targets.push(target);
            }
            "remove_target" => {
                let to = to(body)?;
                let before = next.targets.len();
                next.targets.retain(|known| known.to != to);
                if next.targets.len() == before {
                    return Err(unfit("load balancer target not found"));
                }
            }
            "attach_to_network" => {
                let network = body["network"].as_u64().unwrap_or(0);
                project.find::<Network>(network)?;
                if !next.networks.is_empty() {
                    return Err(refuse(
                        422,
                        "load_balancer_already_attached",
                        "load balancer is attached to a network",
                    ));
                }
                let ip = project.free_ip(network, zone(next.location), body)?;
                next.networks.push((network, ip));
            }
            "detach_from_network" => {
                if next.targets.iter().any(|target| target.private) {
                    return Err(refuse(
                        422,
                        "targets_with_use_private_ip",
                        "targets use the network",
                    ));
                }
                let network = body["network"].as_u64().unwrap_or(0);
                next.networks.retain(|(known, _)| *known != network);
            }
            "change_algorithm" => {
                body["type"]
                    .as_str()
                    .unwrap_or_default()
                    .clone_into(&mut next.algorithm);
            }
            "change_type" => next.kind = project.balancer_type(&body["load_balancer_type"])?,
            "enable_public_interface" => next.public = true,
            "disable_public_interface" => next.public = false,
            _ => return Err(not_built(&["load_balancers", action])),
        }
        // Nobody else can change it until then: it is locked. Its health and the life of servers go on.
        project.acted(action, "load_balancer", id, move |project| {
            let dead = |project: &Project, target: &Target| match &target.to {
                To::Server(id) => project.find::<Server>(*id).is_err(),
                To::Selector(_) => false,
            };
            next.targets.retain(|target| !dead(project, target));
            let it = project.find_mut::<Self>(id)?;
            next.health = mem::take(&mut it.health);
            it.own = next;
            Ok(())
        })
    }
}

fn place(body: &Value) -> Result<&'static str, Refusal> {
    let named_place = named(&body["location"]);
    match (named_place, body["network_zone"].as_str()) {
        (Some(name), None) => {
            location(&name).ok_or_else(|| unfit(format!("location '{name}' not found")))
        }
        (None, Some(wanted)) => {
            let mut known = LOCATIONS.iter().map(|(name, ..)| *name);
            let found = known.find(|name| zone(name) == wanted);
            found.ok_or_else(|| unfit(format!("network zone '{wanted}' not found")))
        }
        _ => Err(invalid(
            "location",
            "either location or network_zone must be given",
        )),
    }
}

fn to(body: &Value) -> Result<To, Refusal> {
    match body["type"].as_str() {
        Some("server") => {
            let id = body["server"]["id"].as_u64();
            id.map(To::Server)
                .ok_or_else(|| invalid("server", "Missing data for required field."))
        }
        Some("label_selector") => {
            let text = body["label_selector"]["selector"]
                .as_str()
                .unwrap_or_default();
            let selector = Selector::parse(text).filter(|_| !text.is_empty());
            let selector =
                selector.ok_or_else(|| invalid("label_selector", "is no label selector"));
            selector.map(|_| To::Selector(text.to_owned()))
        }
        // Only addresses of dedicated servers and vSwitches are taken, and this account has none.
        _ => Err(refuse(
            422,
            "ip_not_owned",
            "the IP is not owned by the owner of the project",
        )),
    }
}

impl LoadBalancer {
    fn service(&self, body: &Value) -> Result<usize, Refusal> {
        let wanted = &body["listen_port"];
        let found = self
            .services
            .iter()
            .position(|known| known["listen_port"] == *wanted);
        found.ok_or_else(|| unfit(format!("no service listens on port {wanted}")))
    }

    fn new_service(&self, given: &Value) -> Result<Value, Refusal> {
        if self.service(given).is_ok() {
            return Err(refuse(
                409,
                "source_port_already_used",
                "the listen port is in use",
            ));
        }
        let mut service = given.clone();
        if service["health_check"].is_null() {
            service["health_check"] = json!({
                "protocol": "tcp", "port": given["destination_port"],
                "interval": 15, "timeout": 10, "retries": 3,
            });
        }
        if given["health_check"]["protocol"] == "http" {
            let http = &mut service["health_check"]["http"];
            for (key, default) in [
                ("status_codes", json!(["2??", "3??"])),
                ("response", json!("")),
                ("tls", json!(false)),
            ] {
                if http[key].is_null() {
                    http[key] = default;
                }
            }
        }
        timely(&service)?;
        Ok(service)
    }

    fn update_service(&mut self, body: &Value) -> Result<(), Refusal> {
        let at = self.service(body)?;
        merge(&mut self.services[at], body);
        timely(&self.services[at])
    }
}

/// A check must have ended before the next one begins.
fn timely(service: &Value) -> Result<(), Refusal> {
    let check = &service["health_check"];
    if check["timeout"].as_u64() > check["interval"].as_u64() {
        return Err(invalid(
            "health_check.timeout",
            "must not be greater than the interval",
        ));
    }
    Ok(())
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => into.clone_from(from),
    }
}

impl Project {
    fn balancer_type(&self, given: &Value) -> Result<String, Refusal> {
        let name = named(given).unwrap_or_default();
        let kinds = load_balancer_types(&self.account);
        let found = kinds
            .iter()
            .find(|kind| kind["name"] == name.as_str() || kind["id"].as_u64() == name.parse().ok());
        let found = found
            .and_then(|kind| kind["name"].as_str())
            .map(str::to_owned);
        found.ok_or_else(|| unfit(format!("load balancer type '{name}' not found")))
    }

    fn target(&self, balancer: &LoadBalancer, given: &Value) -> Result<Target, Refusal> {
        let target = Target {
            to: to(given)?,
            private: given["use_private_ip"].as_bool().unwrap_or(false),
        };
        if balancer.targets.iter().any(|known| known.to == target.to) {
            return Err(refuse(
                422,
                "target_already_defined",
                "the target is already defined",
            ));
        }
        if target.private && balancer.networks.is_empty() {
            return Err(refuse(
                422,
                "load_balancer_not_attached_to_network",
                "load balancer is not attached to a network",
            ));
        }
        if let To::Server(id) = target.to {
            let server = self.find::<Server>(id)?;
            if target.private && !shares_network(balancer, server) {
                return Err(refuse(
                    422,
                    "server_not_attached_to_network",
                    "server and load balancer are in no common network",
                ));
            }
        }
        Ok(target)
    }

    fn shown_target(&self, balancer: &Resource<LoadBalancer>, target: &Target) -> Value {
        match &target.to {
            To::Server(id) => self.shown_server_target(balancer, *id, target.private),
            To::Selector(selector) => {
                let servers = self.selected(selector).into_iter();
                let servers = servers.filter(|id| {
                    !target.private
                        || self
                            .find::<Server>(*id)
                            .is_ok_and(|server| shares_network(balancer, server))
                });
                let servers =
                    servers.map(|id| self.shown_server_target(balancer, id, target.private));
                json!({
                    "type": "label_selector", "label_selector": { "selector": selector },
                    "use_private_ip": target.private, "targets": servers.collect::<Vec<_>>(),
                })
            }
        }
    }

    fn shown_server_target(&self, balancer: &LoadBalancer, id: u64, private: bool) -> Value {
        let runs = self
            .find::<Server>(id)
            .is_ok_and(|server| server.status == "running");
        let natural = if runs { "healthy" } else { "unhealthy" };
        let status = balancer.health.get(&id).copied().unwrap_or(natural);
        let health = balancer.services.iter();
        let health = health
            .map(|service| json!({ "listen_port": service["listen_port"], "status": status }));
        json!({
            "type": "server", "server": { "id": id }, "use_private_ip": private,
            "health_status": health.collect::<Vec<_>>(),
        })
    }

    pub(super) fn load_balancers_of(&self, server: u64) -> Vec<u64> {
        let reaches = |target: &Target| match &target.to {
            To::Server(id) => *id == server,
            To::Selector(selector) => self.selected(selector).contains(&server),
        };
        let balancers = self.load_balancers.iter();
        let balancers = balancers.filter(|one| one.targets.iter().any(reaches));
        balancers.map(|one| one.id).collect()
    }

    pub(super) fn forget_target(&mut self, server: u64) {
        for balancer in &mut self.load_balancers {
            balancer
                .targets
                .retain(|target| target.to != To::Server(server));
        }
    }
}

fn shares_network(balancer: &LoadBalancer, server: &Server) -> bool {
    let mut nets = server.private_nets.iter();
    nets.any(|net| {
        balancer
            .networks
            .iter()
            .any(|(network, _)| *network == net.network)
    })
}
