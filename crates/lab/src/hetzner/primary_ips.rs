//! Primary IPs: public addresses that can outlive a server.

use serde_json::{Value, json};

use super::CREATED;
use super::places::{location, shown_datacenter, shown_location};
use super::project::{Project, not_built};
use super::refusal::{Answer, Answered, Refusal, invalid, refuse, unfit};
use super::resource::{Kind, Resource, named};
use super::servers::Server;

#[derive(Clone, Debug)]
pub struct PrimaryIp {
    /// `ipv4` or `ipv6`.
    pub version: String,
    /// An address, or an IPv6 network.
    pub ip: String,
    pub location: &'static str,
    /// Goes with its server.
    pub auto_delete: bool,
    /// The id of its server.
    pub assignee: Option<u64>,
}

impl Kind for PrimaryIp {
    const ONE: &'static str = "primary_ip";
    const MANY: &'static str = "primary_ips";

    fn all(project: &Project) -> &Vec<Resource<Self>> {
        &project.primary_ips
    }

    fn all_mut(project: &mut Project) -> &mut Vec<Resource<Self>> {
        &mut project.primary_ips
    }

    fn shown(project: &Project, it: &Resource<Self>) -> Value {
        let shape = project.account.shape;
        let assignee = if it.assignee.is_some() || shape.assignee_type_server {
            "server"
        } else {
            "unassigned"
        };
        let mut shown = json!({
            "id": it.id, "name": it.name, "labels": it.labels, "created": CREATED,
            "type": it.version, "ip": it.ip, "blocked": false, "dns_ptr": [],
            "auto_delete": it.auto_delete, "assignee_type": assignee, "assignee_id": it.assignee,
            "protection": { "delete": it.protected }, "location": shown_location(it.location),
        });
        if shape.datacenter {
            shown["datacenter"] = shown_datacenter(it.location);
        }
        shown
    }

    fn changed(&mut self, body: &Value) {
        if let Some(auto_delete) = body["auto_delete"].as_bool() {
            self.auto_delete = auto_delete;
        }
    }

    fn create(project: &mut Project, body: &Value) -> Answered {
        let server = body["assignee_id"].as_u64();
        if server.is_some() && body["assignee_type"].is_null() {
            return Err(invalid("assignee_type", "Missing data for required field."));
        }
        let place = match (server, named(&body["location"])) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "location",
                    "must not be given together with assignee_id",
                ));
            }
            (Some(server), None) => project.find::<Server>(server)?.location,
            (None, Some(name)) => {
                location(&name).ok_or_else(|| unfit(format!("location '{name}' not found")))?
            }
            (None, None) => project.place_of_datacenter(body)?,
        };
        let version = body["type"].as_str().unwrap_or_default();
        if let Some(server) = server {
            project.can_be_given(server, version)?;
        }
        let ip = project.address(version)?;
        let id = project.add(
            body,
            Self {
                version: version.to_owned(),
                ip,
                location: place,
                auto_delete: body["auto_delete"].as_bool().unwrap_or(false),
                assignee: server,
            },
        );
        let action = server.map(|server| {
            let about = [("primary_ip", id), ("server", server)];
            project.start("create_primary_ip", &about, None, |_| Ok(()))
        });
        let mut answer = json!({ "primary_ip": project.shown::<Self>(id)? });
        if let Some(action) = action {
            answer["action"] = project.shown_action(action);
        }
        Ok(Answer::created(answer))
    }

    fn delete(project: &mut Project, id: u64) -> Answered {
        if project.find::<Self>(id)?.assignee.is_some() {
            return Err(refuse(
                422,
                "must_be_unassigned",
                "primary IP must be unassigned",
            ));
        }
        project.remove::<Self>(id);
        Ok(Answer::gone())
    }

    fn act(project: &mut Project, id: u64, action: &str, body: &Value) -> Answered {
        match action {
            "assign" => {
                let server = body["assignee_id"].as_u64().unwrap_or(0);
                let it = project.find::<Self>(id)?;
                if it.assignee.is_some() {
                    return Err(refuse(
                        422,
                        "primary_ip_already_assigned",
                        "primary IP is assigned",
                    ));
                }
                let (place, version) = (it.location, it.version.clone());
                if project.find::<Server>(server)?.location != place {
                    return Err(unfit("primary IP and server are in different locations"));
                }
                project.can_be_given(server, &version)?;
                project.acted("assign_primary_ip", "primary_ip", id, move |project| {
                    project.find_mut::<Self>(id)?.assignee = Some(server);
                    Ok(())
                })
            }
            "unassign" => {
                let server = project.find::<Self>(id)?.assignee;
                let server = server.ok_or_else(|| {
                    refuse(422, "primary_ip_not_assigned", "primary IP is not assigned")
                })?;
                project.stopped(server)?;
                project.acted("unassign_primary_ip", "primary_ip", id, move |project| {
                    project.find_mut::<Self>(id)?.assignee = None;
                    Ok(())
                })
            }
            _ => Err(not_built(&["primary_ips", action])),
        }
    }
}

impl Project {
    /// The address that a server has of a version.
    pub(super) fn address_of(&self, server: u64, version: &str) -> Option<&Resource<PrimaryIp>> {
        let addresses = self.primary_ips.iter();
        addresses
            .into_iter()
            .find(|ip| ip.assignee == Some(server) && ip.version == version)
    }

    fn can_be_given(&self, server: u64, version: &str) -> Result<(), Refusal> {
        self.stopped(server)?;
        if self.address_of(server, version).is_some() {
            let code = format!("server_has_{version}");
            return Err(refuse(
                422,
                &code,
                format!("the server already has an {version} address"),
            ));
        }
        Ok(())
    }

    /// The next free one.
    pub(super) fn address(&mut self, version: &str) -> Result<String, Refusal> {
        if version == "ipv6" {
            let number = self.number();
            return Ok(format!("2001:db8:{number:x}::/64"));
        }
        let next = self.addresses.pop();
        let none = || refuse(412, "resource_unavailable", "no public address is left");
        next.map(|address| address.to_string()).ok_or_else(none)
    }

    /// The location of a body's `datacenter`, while the API takes those.
    pub(super) fn place_of_datacenter(&self, body: &Value) -> Result<&'static str, Refusal> {
        let Some(name) = named(&body["datacenter"]) else {
            return Err(invalid("location", "Missing data for required field."));
        };
        if !self.account.shape.datacenter {
            return Err(invalid("datacenter", "is no longer taken: use location"));
        }
        let place = name.split('-').next().unwrap_or_default();
        location(place).ok_or_else(|| unfit(format!("datacenter '{name}' not found")))
    }
}
