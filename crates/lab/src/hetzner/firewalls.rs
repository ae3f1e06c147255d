//! Firewalls: rules, and what they are applied to.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::CREATED;
use super::project::{Project, not_built};
use super::query::Selector;
use super::refusal::{Answer, Answered, Refusal, invalid, refuse};
use super::resource::{Kind, Resource, at_most};
use super::servers::Server;

const MOST_RULES: usize = 50;

#[derive(Clone, Debug)]
pub struct Firewall {
    /// As they were given, with every key there. No `in` rule lets nothing in, no `out` rule lets everything out.
    pub rules: Vec<Value>,
    pub applied_to: Vec<AppliedTo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppliedTo {
    Server(u64),
    Selector(String),
}

impl Kind for Firewall {
    const ONE: &'static str = "firewall";
    const MANY: &'static str = "firewalls";
    /// `hcloud` adds a rule without waiting for the end of the creation.
    const LOCKS: bool = false;

    fn all(project: &Project) -> &Vec<Resource<Self>> {
        &project.firewalls
    }

    fn all_mut(project: &mut Project) -> &mut Vec<Resource<Self>> {
        &mut project.firewalls
    }

    fn name_fits(name: &str) -> Result<(), &'static str> {
        at_most(name, 128)
    }

    fn shown(project: &Project, it: &Resource<Self>) -> Value {
        let applied = it.applied_to.iter().map(|to| match to {
            AppliedTo::Server(id) => json!({ "type": "server", "server": { "id": id } }),
            AppliedTo::Selector(selector) => {
                let servers = project.selected(selector).into_iter();
                let servers = servers.map(|id| json!({ "type": "server", "server": { "id": id } }));
                json!({
                    "type": "label_selector", "label_selector": { "selector": selector },
                    "applied_to_resources": servers.collect::<Vec<_>>(),
                })
            }
        });
        json!({
            "id": it.id, "name": it.name, "labels": it.labels, "created": CREATED,
            "rules": it.rules, "applied_to": applied.collect::<Vec<_>>(),
        })
    }

    fn create(project: &mut Project, body: &Value) -> Answered {
        let rules = rules(&body["rules"])?;
        let applied_to = project.places(&body["apply_to"], "apply_to")?;
        let count = applied_to.len();
        let id = project.add(
            body,
            Self {
                rules,
                applied_to: Vec::new(),
            },
        );
        let mut actions =
            vec![project.start("set_firewall_rules", &[("firewall", id)], None, |_| Ok(()))];
        if count > 0 {
            actions.push(project.start_applying(id, applied_to));
        }
        let actions: Vec<Value> = actions
            .into_iter()
            .map(|id| project.shown_action(id))
            .collect();
        Ok(Answer::created(
            json!({ "firewall": project.shown::<Self>(id)?, "actions": actions }),
        ))
    }

    fn delete(project: &mut Project, id: u64) -> Answered {
        if !project.find::<Self>(id)?.applied_to.is_empty() {
            return Err(refuse(422, "resource_in_use", "firewall is still in use"));
        }
        project.remove::<Self>(id);
        Ok(Answer::gone())
    }

    fn act(project: &mut Project, id: u64, action: &str, body: &Value) -> Answered {
        let action = match action {
            "set_rules" => {
                let rules = rules(&body["rules"])?;
                project.start(
                    "set_firewall_rules",
                    &[("firewall", id)],
                    None,
                    move |project| {
                        project.find_mut::<Self>(id)?.rules = rules;
                        Ok(())
                    },
                )
            }
            "apply_to_resources" => {
                let places = project.places(&body["apply_to"], "apply_to")?;
                let there = &project.find::<Self>(id)?.applied_to;
                if places.iter().any(|place| there.contains(place)) {
                    return Err(refuse(
                        422,
                        "firewall_already_applied",
                        "firewall is already applied",
                    ));
                }
                project.start_applying(id, places)
            }
            "remove_from_resources" => {
                let places = project.places(&body["remove_from"], "remove_from")?;
                let there = &project.find::<Self>(id)?.applied_to;
                if !places.iter().all(|place| there.contains(place)) {
                    return Err(refuse(
                        422,
                        "firewall_resource_not_found",
                        "firewall is not applied there",
                    ));
                }
                project.start(
                    "remove_firewall",
                    &[("firewall", id)],
                    None,
                    move |project| {
                        let firewall = project.find_mut::<Self>(id)?;
                        firewall.applied_to.retain(|place| !places.contains(place));
                        Ok(())
                    },
                )
            }
            _ => return Err(not_built(&["firewalls", action])),
        };
        Ok(Answer::created(
            json!({ "actions": [project.shown_action(action)] }),
        ))
    }
}

impl Project {
    fn start_applying(&mut self, id: u64, places: Vec<AppliedTo>) -> u64 {
        let mut about = vec![("firewall", id)];
        about.extend(places.iter().filter_map(|place| match place {
            AppliedTo::Server(server) => Some(("server", *server)),
            AppliedTo::Selector(_) => None,
        }));
        self.start("apply_firewall", &about, None, move |project| {
            project.find_mut::<Firewall>(id)?.applied_to.extend(places);
            Ok(())
        })
    }

    fn places(&self, body: &Value, field: &str) -> Result<Vec<AppliedTo>, Refusal> {
        let given = body.as_array().into_iter().flatten();
        given
            .map(|place| {
                if let Some(id) = place["server"]["id"].as_u64() {
                    let found = self.servers.iter().any(|known| known.id == id);
                    return if found {
                        Ok(AppliedTo::Server(id))
                    } else {
                        Err(refuse(
                            422,
                            "firewall_resource_not_found",
                            format!("server '{id}' not found"),
                        ))
                    };
                }
                let selector = place["label_selector"]["selector"]
                    .as_str()
                    .unwrap_or_default();
                match Selector::parse(selector) {
                    Some(_) if !selector.is_empty() => Ok(AppliedTo::Selector(selector.to_owned())),
                    _ => Err(invalid(field, "needs a server or a label selector")),
                }
            })
            .collect()
    }

    /// Ids of the servers that a label selector means now.
    pub(super) fn selected(&self, selector: &str) -> Vec<u64> {
        let Some(selector) = Selector::parse(selector) else {
            return Vec::new();
        };
        let servers = self.servers.iter();
        let servers = servers.filter(|server| selector.fits(&server.labels));
        servers.map(|server| server.id).collect()
    }

    /// Ids of the firewalls in front of a server.
    pub fn firewalls_of(&self, server: &Resource<Server>) -> Vec<u64> {
        let applies = |to: &AppliedTo| match to {
            AppliedTo::Server(id) => *id == server.id,
            AppliedTo::Selector(text) => self.selected(text).contains(&server.id),
        };
        let firewalls = self.firewalls.iter();
        let firewalls = firewalls.filter(|firewall| firewall.applied_to.iter().any(applies));
        firewalls.map(|firewall| firewall.id).collect()
    }
}

fn rules(given: &Value) -> Result<Vec<Value>, Refusal> {
    let given: Vec<&Value> = given.as_array().into_iter().flatten().collect();
    if given.len() > MOST_RULES {
        return Err(invalid("rules", "are more than 50"));
    }
    given.into_iter().map(rule).collect()
}

fn rule(given: &Value) -> Result<Value, Refusal> {
    let networks = |field: &str| -> Result<Vec<String>, Refusal> {
        let all = given[field].as_array().into_iter().flatten();
        all.map(|one| {
            let text = one.as_str().unwrap_or_default();
            match text.parse::<IpNet>() {
                // As the original, which takes no network with bits of a host.
                Ok(network) if network.trunc() == network => Ok(text.to_owned()),
                _ => Err(invalid(
                    &format!("rules.{field}"),
                    &format!("`{text}` is no network"),
                )),
            }
        })
        .collect()
    };
    let (sources, destinations) = (networks("source_ips")?, networks("destination_ips")?);
    let inwards = given["direction"] == "in";
    let (wanted, name) = if inwards {
        (&sources, "source_ips")
    } else {
        (&destinations, "destination_ips")
    };
    if wanted.is_empty() {
        return Err(invalid(&format!("rules.{name}"), "must not be empty"));
    }
    let with_port = given["protocol"] == "tcp" || given["protocol"] == "udp";
    if with_port != given["port"].is_string() {
        return Err(invalid("rules.port", "is for tcp and udp, which need it"));
    }
    if with_port && !is_port(given["port"].as_str().unwrap_or_default()) {
        return Err(invalid(
            "rules.port",
            "is neither a port, a range nor `any`",
        ));
    }
    Ok(json!({
        "description": given["description"], "direction": given["direction"], "protocol": given["protocol"],
        "port": given["port"], "source_ips": sources, "destination_ips": destinations,
    }))
}

fn is_port(text: &str) -> bool {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        _ if text == "any" => true,
        None => port(text).is_some(),
        Some((from, to)) => port(from).is_some() && port(from) <= port(to),
    }
}
