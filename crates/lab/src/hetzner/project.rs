//! One project of an account: all that is in it, and the way from a request to what answers it.

use std::mem;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::CREATED;
use super::account::{Account, Shape, load_balancer_types};
use super::actions::{Action, Fate};
use super::catalogue::Catalogue;
use super::firewalls::Firewall;
use super::load_balancers::LoadBalancer;
use super::networks::Network;
use super::places::{LOCATIONS, shown_datacenter, shown_location};
use super::primary_ips::PrimaryIp;
use super::query::Query;
use super::refusal::{Answer, Answered, Refusal, invalid, not_found, refuse};
use super::resource::{Kind, Resource};
use super::servers::Server;
use super::small::{PlacementGroup, SshKey};
use super::volumes::Volume;

/// What there is, for a test to look at and to change as other people would.
pub struct Project {
    /// How many looks at an action, or at what it is about, show it running. 0: it has ended when it is answered.
    pub latency: usize,
    pub account: Account,
    pub catalogue: Catalogue,
    /// Public addresses that are still free, the next one last. Networks for documentation unless the test says otherwise.
    pub addresses: Vec<Ipv4Addr>,
    pub servers: Vec<Resource<Server>>,
    pub networks: Vec<Resource<Network>>,
    pub firewalls: Vec<Resource<Firewall>>,
    pub volumes: Vec<Resource<Volume>>,
    pub load_balancers: Vec<Resource<LoadBalancer>>,
    pub primary_ips: Vec<Resource<PrimaryIp>>,
    pub placement_groups: Vec<Resource<PlacementGroup>>,
    pub ssh_keys: Vec<Resource<SshKey>>,
    /// Names of certificates that somebody made in the console; they are only listed.
    pub certificates: Vec<String>,
    pub(super) actions: Vec<Action>,
    pub(super) fate: Option<Fate>,
    next: u64,
}

impl Project {
    /// The `number`th of the account, from 0. Ids and addresses are nobody else's.
    pub(super) fn new(number: usize) -> Self {
        // TEST-NET-3, and what RFC 2544 keeps for benchmarks.
        let network = match u8::try_from(number).unwrap_or(u8::MAX) {
            0 => [203, 0, 113],
            other => [198, 18, other],
        };
        let [a, b, c] = network;
        Self {
            latency: 0,
            account: Account {
                currency: "EUR",
                vat: 19,
                shape: Shape::NEW,
            },
            catalogue: Catalogue::new(),
            addresses: (1..255)
                .rev()
                .map(|last| Ipv4Addr::new(a, b, c, last))
                .collect(),
            servers: Vec::new(),
            networks: Vec::new(),
            firewalls: Vec::new(),
            volumes: Vec::new(),
            load_balancers: Vec::new(),
            primary_ips: Vec::new(),
            placement_groups: Vec::new(),
            ssh_keys: Vec::new(),
            certificates: Vec::new(),
            actions: Vec::new(),
            fate: None,
            next: 1001 + 1_000_000 * number as u64,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Does what somebody else's request would do, at once, and nowhere recorded. Returns the answer's body.
    ///
    /// # Panics
    /// When it is refused: the test set up something that cannot be.
    pub fn elsewhere(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let latency = mem::take(&mut self.latency);
        let fate = self.fate.take();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let answer = self.answer(method, &parts, &Query::of(""), body);
        self.latency = latency;
        self.fate = fate;
        match answer {
            Ok(answer) => answer.body,
            Err(refusal) => panic!("{method} {path} {body}: {refusal:?}"),
        }
    }

    pub(super) fn answer(
        &mut self,
        method: &str,
        parts: &[&str],
        query: &Query,
        body: &Value,
    ) -> Answered {
        match (method, parts) {
            (_, ["datacenters", ..]) if !self.account.shape.datacenter => Err(refuse(
                410,
                "deprecated_api_endpoint",
                "datacenters are gone since 2026-10-01: use locations",
            )),
            ("GET", ["actions"]) if query.get("id").is_none() => {
                Err(invalid("id", "Missing data for required field."))
            }
            ("GET", ["actions"]) => self.list_actions(query, None, None),
            ("GET", ["actions", id]) => self.show_action(id),
            ("GET", ["locations", rest @ ..]) => {
                let places = LOCATIONS.iter().map(|(name, ..)| shown_location(name));
                fixed("location", places.collect(), rest, query)
            }
            ("GET", ["datacenters", rest @ ..]) => {
                let places = LOCATIONS.iter().map(|(name, ..)| shown_datacenter(name));
                fixed("datacenter", places.collect(), rest, query)
            }
            ("GET", ["server_types", rest @ ..]) => {
                let kinds = self.catalogue.server_types.iter();
                let kinds = kinds.map(|kind| kind.shown(&self.account));
                fixed("server_type", kinds.collect(), rest, query)
            }
            ("GET", ["load_balancer_types", rest @ ..]) => fixed(
                "load_balancer_type",
                load_balancer_types(&self.account),
                rest,
                query,
            ),
            ("GET", ["images", rest @ ..]) => {
                let images = self.catalogue.images.iter();
                let wanted = images.filter(|image| {
                    image.current
                        || !rest.is_empty()
                        || query.get("include_deprecated") == Some("true")
                });
                let images = wanted.map(|image| image.shown(self.account.shape));
                fixed("image", images.collect(), rest, query)
            }
            ("GET", ["certificates", rest @ ..]) => {
                let shown = self.certificates.iter().zip(301_u64..).map(|(name, id)| {
                    json!({ "id": id, "name": name, "type": "managed", "labels": {}, "created": CREATED })
                });
                fixed("certificate", shown.collect(), rest, query)
            }
            ("GET", ["pricing"]) => Ok(Answer::ok(
                json!({ "pricing": self.account.pricing(&self.catalogue) }),
            )),
            (_, ["servers", rest @ ..]) => self.resource::<Server>(method, rest, query, body),
            (_, ["networks", rest @ ..]) => self.resource::<Network>(method, rest, query, body),
            (_, ["firewalls", rest @ ..]) => self.resource::<Firewall>(method, rest, query, body),
            (_, ["volumes", rest @ ..]) => self.resource::<Volume>(method, rest, query, body),
            (_, ["load_balancers", rest @ ..]) => {
                self.resource::<LoadBalancer>(method, rest, query, body)
            }
            (_, ["primary_ips", rest @ ..]) => {
                self.resource::<PrimaryIp>(method, rest, query, body)
            }
            (_, ["placement_groups", rest @ ..]) => {
                self.resource::<PlacementGroup>(method, rest, query, body)
            }
            (_, ["ssh_keys", rest @ ..]) => self.resource::<SshKey>(method, rest, query, body),
            _ => Err(not_built(parts)),
        }
    }

    fn resource<T: Kind>(
        &mut self,
        method: &str,
        rest: &[&str],
        query: &Query,
        body: &Value,
    ) -> Answered {
        match (method, rest) {
            ("GET", []) => self.list::<T>(query),
            ("POST", []) => {
                self.check_named::<T>(body, None)?;
                T::create(self, body)
            }
            ("GET", ["actions"]) => self.list_actions(query, Some(T::ONE), None),
            ("GET", ["actions", id]) => self.show_action(id),
            ("GET", [id]) => self.show::<T>(self.id_of::<T>(id)?),
            ("PUT", [id]) => {
                let id = self.id_of::<T>(id)?;
                self.change::<T>(id, body)
            }
            ("DELETE", [id]) => {
                let id = self.id_of::<T>(id)?;
                self.unprotected::<T>(id)?;
                self.free_to_act::<T>(id)?;
                T::delete(self, id)
            }
            ("GET", [id, "actions"]) => {
                let id = self.id_of::<T>(id)?;
                self.list_actions(query, Some(T::ONE), Some(id))
            }
            ("GET", [_, "actions", id]) => self.show_action(id),
            ("POST", [id, "actions", action]) => {
                let id = self.id_of::<T>(id)?;
                self.free_to_act::<T>(id)?;
                match *action {
                    "change_protection" => self.protect::<T>(id, body),
                    action => T::act(self, id, action, body),
                }
            }
            _ => Err(not_built(rest)),
        }
    }

    fn free_to_act<T: Kind>(&self, id: u64) -> Result<(), Refusal> {
        if T::LOCKS {
            self.unlocked(T::ONE, id)?;
        }
        Ok(())
    }
}

/// A list that nobody can change, or one of it.
fn fixed(one: &str, all: Vec<Value>, rest: &[&str], query: &Query) -> Answered {
    match rest {
        [] => {
            let found = all.into_iter().filter(|known| {
                ["name", "architecture", "type", "status"]
                    .iter()
                    .all(|field| query.wants(field, known[field].as_str().unwrap_or_default()))
            });
            Ok(Answer::ok(query.page(&format!("{one}s"), found.collect())?))
        }
        [id] => {
            let found = all
                .into_iter()
                .find(|known| known["id"].as_u64() == id.parse().ok());
            let found = found.ok_or_else(|| not_found(one, id))?;
            Ok(Answer::ok(json!({ one: found })))
        }
        _ => Err(not_built(rest)),
    }
}

/// What the description has, and the lab does not.
pub(super) fn not_built(parts: &[&str]) -> Refusal {
    refuse(
        501,
        "unsupported_error",
        format!("the lab's Hetzner has no `{}`", parts.join("/")),
    )
}
