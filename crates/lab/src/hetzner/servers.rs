//! Servers: what they are, and what has to be right before there is one. Their actions are in `server_actions`.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::CREATED;
use super::firewalls::{AppliedTo, Firewall};
use super::networks::Network;
use super::places::{included_traffic, location, shown_datacenter, shown_location, zone};
use super::primary_ips::PrimaryIp;
use super::project::Project;
use super::refusal::{Answer, Answered, Refusal, invalid, refuse, unfit};
use super::resource::{Kind, Resource, named, numbers};
use super::small::{PlacementGroup, SshKey};
use super::volumes::Volume;

/// 32 KiB.
const MOST_USER_DATA: usize = 32_768;

#[derive(Clone, Debug)]
pub struct Server {
    /// `initializing`, `starting`, `running`, `off`, `deleting`, ..
    pub status: &'static str,
    pub server_type: String,
    pub location: &'static str,
    /// The image's id.
    pub image: u64,
    /// As it was received.
    pub user_data: Option<String>,
    /// Ids of the keys that were given at its creation.
    pub ssh_keys: Vec<u64>,
    pub private_nets: Vec<PrivateNet>,
    pub placement_group: Option<u64>,
    pub rebuild_protected: bool,
    pub backups: bool,
    /// In GB.
    pub disk: u64,
}

#[derive(Clone, Debug)]
pub struct PrivateNet {
    pub network: u64,
    pub ip: Ipv4Addr,
    pub alias_ips: Vec<Ipv4Addr>,
}

impl Kind for Server {
    const ONE: &'static str = "server";
    const MANY: &'static str = "servers";

    fn all(project: &Project) -> &Vec<Resource<Self>> {
        &project.servers
    }

    fn all_mut(project: &mut Project) -> &mut Vec<Resource<Self>> {
        &mut project.servers
    }

    /// RFC 1123.
    fn name_fits(name: &str) -> Result<(), &'static str> {
        let label = |label: &str| {
            let inner = label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            (1..=63).contains(&label.len())
                && inner
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() <= 253 && name.split('.').all(label) {
            return Ok(());
        }
        Err("must be a valid hostname as per RFC 1123")
    }

    fn shown(project: &Project, it: &Resource<Self>) -> Value {
        let kind = project.catalogue.server_type(&it.server_type);
        let image = project
            .catalogue
            .images
            .iter()
            .find(|image| image.id == it.image);
        let volumes = project
            .volumes
            .iter()
            .filter(|volume| volume.server == Some(it.id));
        let nets = it.private_nets.iter().map(|net| {
            let [_, b, c, d] = net.ip.octets();
            json!({
                "network": net.network, "ip": net.ip.to_string(),
                "alias_ips": net.alias_ips.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>(),
                "mac_address": format!("86:00:ff:{b:02x}:{c:02x}:{d:02x}"),
            })
        });
        let group = it
            .placement_group
            .and_then(|id| project.shown::<PlacementGroup>(id).ok());
        let mut shown = json!({
            "id": it.id, "name": it.name, "labels": it.labels, "created": CREATED,
            "status": it.status,
            "public_net": project.public_net(it),
            "private_net": nets.collect::<Vec<_>>(),
            "server_type": kind.map(|kind| kind.shown(&project.account)),
            "location": shown_location(it.location),
            "image": image.map(|image| image.shown(project.account.shape)),
            "iso": null,
            "rescue_enabled": false,
            "locked": project.is_locked("server", it.id),
            "backup_window": it.backups.then_some("22-02"),
            "outgoing_traffic": 0,
            "ingoing_traffic": 0,
            "included_traffic": included_traffic(it.location),
            "protection": { "delete": it.protected, "rebuild": it.rebuild_protected },
            "volumes": volumes.map(|volume| volume.id).collect::<Vec<_>>(),
            "load_balancers": project.load_balancers_of(it.id),
            "primary_disk_size": it.disk,
            "placement_group": group,
        });
        if project.account.shape.datacenter {
            shown["datacenter"] = shown_datacenter(it.location);
        }
        shown
    }

    fn create(project: &mut Project, body: &Value) -> Answered {
        let wanted = project.wanted(body)?;
        let id = project.build(body, &wanted)?;
        let password = wanted.ssh_keys.is_empty().then(|| format!("hunter2-{id}"));
        let create = project.start("create_server", &[("server", id)], None, move |project| {
            project.find_mut::<Self>(id)?.status = if wanted.starts { "starting" } else { "off" };
            Ok(())
        });
        let mut next = Vec::new();
        if wanted.starts {
            next.push(project.start(
                "start_server",
                &[("server", id)],
                Some(create),
                move |project| {
                    project.find_mut::<Self>(id)?.status = "running";
                    Ok(())
                },
            ));
        }
        for volume in wanted.volumes {
            next.push(project.start_attaching(volume, id, Some(create)));
        }
        let next: Vec<Value> = next
            .into_iter()
            .map(|id| project.shown_action(id))
            .collect();
        Ok(Answer::created(json!({
            "server": project.shown::<Self>(id)?,
            "action": project.shown_action(create),
            "next_actions": next,
            "root_password": password,
        })))
    }

    fn delete(project: &mut Project, id: u64) -> Answered {
        project.find_mut::<Self>(id)?.status = "deleting";
        let action = project.start("delete_server", &[("server", id)], None, move |project| {
            project.forget(id);
            Ok(())
        });
        Ok(Answer::ok(
            json!({ "action": project.shown_action(action) }),
        ))
    }

    fn protected(project: &mut Project, id: u64, body: &Value) -> Result<(), Refusal> {
        project.protect_server(id, body)
    }

    fn act(project: &mut Project, id: u64, action: &str, body: &Value) -> Answered {
        project.act_on_server(id, action, body)
    }
}

/// What a request for a server wants, all of it there.
struct Wanted {
    server_type: String,
    disk: u64,
    location: &'static str,
    image: u64,
    ssh_keys: Vec<u64>,
    volumes: Vec<u64>,
    networks: Vec<u64>,
    firewalls: Vec<u64>,
    placement_group: Option<u64>,
    /// Ids of primary IPs of which there are some already.
    given_ips: Vec<u64>,
    /// Versions for which there must be new ones.
    new_ips: Vec<&'static str>,
    starts: bool,
}

impl Project {
    /// Checks everything, and changes nothing.
    fn wanted(&self, body: &Value) -> Result<Wanted, Refusal> {
        let (server_type, place) = self.orderable(body)?;
        let kind = self.catalogue.server_type(&server_type);
        let (architecture, disk) = kind.map_or(("x86", 0), |kind| (kind.architecture(), kind.disk));
        let user_data = body["user_data"].as_str().unwrap_or_default();
        if user_data.len() > MOST_USER_DATA {
            return Err(invalid("user_data", "is longer than 32768 bytes"));
        }
        let wanted = Wanted {
            image: self.usable_image(&body["image"], architecture)?,
            server_type,
            disk,
            location: place,
            ssh_keys: self.keys(&body["ssh_keys"])?,
            volumes: numbers(&body["volumes"]),
            networks: numbers(&body["networks"]),
            firewalls: firewalls(body),
            placement_group: body["placement_group"].as_u64(),
            given_ips: self.given_ips(&body["public_net"], place)?,
            new_ips: new_ips(&body["public_net"]),
            starts: body["start_after_create"].as_bool().unwrap_or(true),
        };
        for volume in &wanted.volumes {
            self.unlocked("volume", *volume)?;
            self.can_be_attached(*volume, place)?;
        }
        for network in &wanted.networks {
            self.find::<Network>(*network)?;
            self.free_ip(*network, zone(place), &Value::Null)?;
        }
        for firewall in &wanted.firewalls {
            self.find::<Firewall>(*firewall)?;
        }
        if let Some(group) = wanted.placement_group {
            self.group_has_room(group)?;
        }
        if wanted.given_ips.is_empty() && wanted.new_ips.is_empty() && wanted.networks.is_empty() {
            return Err(invalid("public_net", "must be there where no network is"));
        }
        Ok(wanted)
    }

    /// The type and the place of a body, if one can be had in the other.
    fn orderable(&self, body: &Value) -> Result<(String, &'static str), Refusal> {
        let name = named(&body["server_type"]).unwrap_or_default();
        let kind = self.catalogue.server_type(&name);
        let kind = kind.ok_or_else(|| unfit(format!("server type '{name}' not found")))?;
        let place = match named(&body["location"]) {
            Some(name) => {
                location(&name).ok_or_else(|| unfit(format!("location '{name}' not found")))?
            }
            None if body["datacenter"].is_null() => {
                kind.offers.first().map_or("fsn1", |offer| offer.location)
            }
            None => self.place_of_datacenter(body)?,
        };
        let offer = kind.offers.iter().find(|offer| offer.location == place);
        let offer = offer.ok_or_else(|| unfit("unsupported location for server type"))?;
        let now = super::now();
        if offer
            .deprecation
            .as_ref()
            .is_some_and(|(_, until)| super::seconds(until) <= now)
        {
            return Err(unfit(format!("server type {} is deprecated", kind.id)));
        }
        if offer.stock == Some(0) {
            return Err(refuse(
                412,
                "resource_unavailable",
                "error during placement",
            ));
        }
        Ok((kind.name.clone(), place))
    }

    pub(super) fn usable_image(&self, given: &Value, architecture: &str) -> Result<u64, Refusal> {
        let name = named(given).unwrap_or_default();
        let image = self.catalogue.image(&name, architecture);
        let image = image.ok_or_else(|| unfit(format!("image '{name}' not found")))?;
        if image.architecture != architecture {
            return Err(unfit("image and server type have different architectures"));
        }
        if !image.current {
            return Err(unfit(format!("image '{name}' is unavailable")));
        }
        Ok(image.id)
    }

    fn keys(&self, given: &Value) -> Result<Vec<u64>, Refusal> {
        let given = given.as_array().into_iter().flatten().filter_map(named);
        given
            .map(|name| {
                let mut known = self.ssh_keys.iter();
                let found = known
                    .find(|key: &&Resource<SshKey>| key.name == name || key.id.to_string() == name);
                found
                    .map(|key| key.id)
                    .ok_or_else(|| unfit(format!("SSH key '{name}' not found")))
            })
            .collect()
    }

    fn given_ips(&self, public_net: &Value, place: &str) -> Result<Vec<u64>, Refusal> {
        let mut given = Vec::new();
        for version in ["ipv4", "ipv6"] {
            let Some(id) = public_net[version].as_u64() else {
                continue;
            };
            let ip = self.find::<PrimaryIp>(id)?;
            if ip.assignee.is_some() {
                return Err(refuse(
                    422,
                    "primary_ip_already_assigned",
                    "primary IP is assigned",
                ));
            }
            if ip.version != version {
                return Err(refuse(
                    412,
                    "primary_ip_version_mismatch",
                    format!("primary IP is not {version}"),
                ));
            }
            if ip.location != place {
                return Err(unfit("primary IP and server are in different locations"));
            }
            given.push(id);
        }
        Ok(given)
    }

    /// Puts a server there that was checked.
    fn build(&mut self, body: &Value, wanted: &Wanted) -> Result<u64, Refusal> {
        let mut addresses = Vec::new();
        for version in &wanted.new_ips {
            addresses.push((*version, self.address(version)?));
        }
        if let Some(offer) = self
            .catalogue
            .offer_mut(&wanted.server_type, wanted.location)
        {
            offer.stock = offer.stock.map(|left| left.saturating_sub(1));
        }
        let mut private_nets = Vec::new();
        for network in &wanted.networks {
            private_nets.push(PrivateNet {
                network: *network,
                ip: self.free_ip(*network, zone(wanted.location), &Value::Null)?,
                alias_ips: Vec::new(),
            });
        }
        let server = Server {
            status: "initializing",
            server_type: wanted.server_type.clone(),
            location: wanted.location,
            image: wanted.image,
            user_data: body["user_data"].as_str().map(str::to_owned),
            ssh_keys: wanted.ssh_keys.clone(),
            private_nets,
            placement_group: wanted.placement_group,
            rebuild_protected: false,
            backups: false,
            disk: wanted.disk,
        };
        let id = self.add(body, server);
        for (version, ip) in addresses {
            let ip = PrimaryIp {
                version: version.to_owned(),
                ip,
                location: wanted.location,
                auto_delete: true,
                assignee: Some(id),
            };
            let name = format!("primary_ip-{}", self.number());
            self.add(&json!({ "name": name }), ip);
        }
        for ip in &wanted.given_ips {
            self.find_mut::<PrimaryIp>(*ip)?.assignee = Some(id);
        }
        for firewall in &wanted.firewalls {
            let firewall = self.find_mut::<Firewall>(*firewall)?;
            firewall.applied_to.push(AppliedTo::Server(id));
        }
        Ok(id)
    }

    /// A server is gone, and nothing else names it any more.
    fn forget(&mut self, id: u64) {
        self.remove::<Server>(id);
        let (place, it) = (AppliedTo::Server(id), Some(id));
        for firewall in &mut self.firewalls {
            firewall.applied_to.retain(|known| *known != place);
        }
        let attached = self
            .volumes
            .iter_mut()
            .filter(|volume: &&mut Resource<Volume>| volume.server == it);
        attached.for_each(|volume| volume.server = None);
        self.primary_ips
            .retain(|ip| ip.assignee != it || !ip.auto_delete);
        let assigned = self.primary_ips.iter_mut().filter(|ip| ip.assignee == it);
        assigned.for_each(|ip| ip.assignee = None);
        self.forget_target(id);
    }

    fn public_net(&self, server: &Resource<Server>) -> Value {
        let firewalls = self.firewalls_of(server).into_iter();
        let firewalls = firewalls.map(|id| json!({ "id": id, "status": "applied" }));
        let ipv4 = self.address_of(server.id, "ipv4").map(|ip| {
            let name = format!("static.{}.clients.example", ip.ip);
            json!({ "id": ip.id, "ip": ip.ip, "blocked": false, "dns_ptr": name })
        });
        let ipv6 = self.address_of(server.id, "ipv6");
        let ipv6 =
            ipv6.map(|ip| json!({ "id": ip.id, "ip": ip.ip, "blocked": false, "dns_ptr": [] }));
        json!({
            "ipv4": ipv4, "ipv6": ipv6, "floating_ips": [],
            "firewalls": firewalls.collect::<Vec<_>>(),
        })
    }
}

fn firewalls(body: &Value) -> Vec<u64> {
    let given = body["firewalls"].as_array().into_iter().flatten();
    given.filter_map(|one| one["firewall"].as_u64()).collect()
}

/// A server has an address of both versions unless it is told otherwise.
fn new_ips(public_net: &Value) -> Vec<&'static str> {
    let wanted = |version: &&str| {
        let enabled = public_net[format!("enable_{version}").as_str()]
            .as_bool()
            .unwrap_or(true);
        enabled && public_net[*version].is_null()
    };
    ["ipv4", "ipv6"].into_iter().filter(wanted).collect()
}
