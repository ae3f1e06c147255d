//! What can be done with a server that is there.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::networks::Network;
use super::places::zone;
use super::project::{Project, not_built};
use super::refusal::{Answer, Answered, Refusal, refuse, unfit};
use super::resource::{Kind as _, named};
use super::servers::{PrivateNet, Server};

impl Project {
    /// # Errors
    /// When the server is not off.
    pub(super) fn stopped(&self, id: u64) -> Result<(), Refusal> {
        if self.find::<Server>(id)?.status != "off" {
            return Err(refuse(
                422,
                "server_not_stopped",
                "server must be powered off",
            ));
        }
        Ok(())
    }

    pub(super) fn act_on_server(&mut self, id: u64, action: &str, body: &Value) -> Answered {
        match action {
            "poweron" => self.turn(id, "start_server", "running"),
            "poweroff" => self.turn(id, "stop_server", "off"),
            "shutdown" => self.turn(id, "shutdown_server", "off"),
            "reboot" => self.turn(id, "reboot_server", "running"),
            "reset" => self.turn(id, "reset_server", "running"),
            "rebuild" => self.rebuild(id, body),
            "change_type" => self.change_type(id, body),
            "attach_to_network" => self.attach_to_network(id, body),
            "detach_from_network" => {
                let network = self.attached(id, body)?;
                self.acted("detach_from_network", "server", id, move |project| {
                    let server = project.find_mut::<Server>(id)?;
                    server.private_nets.retain(|net| net.network != network);
                    Ok(())
                })
            }
            "change_alias_ips" => self.change_alias_ips(id, body),
            "add_to_placement_group" => {
                let group = body["placement_group"].as_u64().unwrap_or(0);
                self.stopped(id)?;
                if self.find::<Server>(id)?.placement_group.is_some() {
                    return Err(refuse(
                        422,
                        "already_in_placement_group",
                        "server is in a placement group",
                    ));
                }
                self.group_has_room(group)?;
                self.join(id, "add_to_placement_group", Some(group))
            }
            "remove_from_placement_group" => {
                if self.find::<Server>(id)?.placement_group.is_none() {
                    return Err(refuse(
                        422,
                        "not_in_placement_group",
                        "server is in no placement group",
                    ));
                }
                self.join(id, "remove_from_placement_group", None)
            }
            "enable_backup" => self.back_up(id, "enable_backup", true),
            "disable_backup" => self.back_up(id, "disable_backup", false),
            "reset_password" => {
                let action = self.start("reset_password", &[("server", id)], None, |_| Ok(()));
                Ok(Answer::created(
                    json!({ "action": self.shown_action(action), "root_password": format!("hunter2-{id}") }),
                ))
            }
            _ => Err(not_built(&[Server::MANY, action])),
        }
    }

    /// `change_protection` has a word more than for other kinds.
    pub(super) fn protect_server(&mut self, id: u64, body: &Value) -> Result<(), Refusal> {
        let server = self.find_mut::<Server>(id)?;
        let asked = |field: &str, now: bool| body[field].as_bool().unwrap_or(now);
        let (delete, rebuild) = (
            asked("delete", server.protected),
            asked("rebuild", server.rebuild_protected),
        );
        if delete != rebuild {
            return Err(unfit("delete and rebuild protection must be the same"));
        }
        server.rebuild_protected = rebuild;
        Ok(())
    }

    fn turn(&mut self, id: u64, command: &str, status: &'static str) -> Answered {
        self.acted(command, "server", id, move |project| {
            project.find_mut::<Server>(id)?.status = status;
            Ok(())
        })
    }

    fn join(&mut self, id: u64, command: &str, group: Option<u64>) -> Answered {
        self.acted(command, "server", id, move |project| {
            project.find_mut::<Server>(id)?.placement_group = group;
            Ok(())
        })
    }

    fn back_up(&mut self, id: u64, command: &str, on: bool) -> Answered {
        self.acted(command, "server", id, move |project| {
            project.find_mut::<Server>(id)?.backups = on;
            Ok(())
        })
    }

    fn rebuild(&mut self, id: u64, body: &Value) -> Answered {
        let server = self.find::<Server>(id)?;
        if server.rebuild_protected {
            return Err(refuse(423, "protected", "server rebuild is protected"));
        }
        let kind = self.catalogue.server_type(&server.server_type);
        let architecture = kind.map_or("x86", |kind| kind.architecture());
        let image = self.usable_image(&body["image"], architecture)?;
        let password = server.ssh_keys.is_empty().then(|| format!("hunter2-{id}"));
        let user_data = body["user_data"].as_str().map(str::to_owned);
        let action = self.start("rebuild_server", &[("server", id)], None, move |project| {
            let server = project.find_mut::<Server>(id)?;
            server.image = image;
            server.status = "running";
            if user_data.is_some() {
                server.user_data = user_data;
            }
            Ok(())
        });
        Ok(Answer::created(
            json!({ "action": self.shown_action(action), "root_password": password }),
        ))
    }

    fn change_type(&mut self, id: u64, body: &Value) -> Answered {
        self.stopped(id)?;
        let server = self.find::<Server>(id)?;
        let name = named(&body["server_type"]).unwrap_or_default();
        let (from, to) = (
            self.catalogue.server_type(&server.server_type),
            self.catalogue.server_type(&name),
        );
        let to = to.ok_or_else(|| unfit(format!("server type '{name}' not found")))?;
        if from.is_some_and(|from| from.architecture() != to.architecture())
            || to.disk < server.disk
        {
            return Err(refuse(
                422,
                "invalid_server_type",
                "the server type does not fit this server",
            ));
        }
        let offer = to
            .offers
            .iter()
            .find(|offer| offer.location == server.location);
        let offer = offer.ok_or_else(|| unfit("unsupported location for server type"))?;
        if offer.stock == Some(0) {
            return Err(refuse(
                412,
                "resource_unavailable",
                "error during placement",
            ));
        }
        let (name, larger) = (to.name.clone(), to.disk);
        let upgrade = body["upgrade_disk"].as_bool().unwrap_or(false);
        self.acted("change_server_type", "server", id, move |project| {
            let server = project.find_mut::<Server>(id)?;
            server.server_type = name;
            if upgrade {
                server.disk = larger;
            }
            Ok(())
        })
    }

    fn attach_to_network(&mut self, id: u64, body: &Value) -> Answered {
        let network = body["network"].as_u64().unwrap_or(0);
        self.find::<Network>(network)?;
        if self.attached(id, body).is_ok() {
            return Err(refuse(
                422,
                "server_already_attached",
                "server is already attached",
            ));
        }
        let zone = zone(self.find::<Server>(id)?.location);
        self.free_ip(network, zone, body)?;
        let wanted = body.clone();
        let about = [("server", id), ("network", network)];
        let action = self.start("attach_to_network", &about, None, move |project| {
            // Another server may have been quicker.
            let ip = project.free_ip(network, zone, &wanted)?;
            project
                .find_mut::<Server>(id)?
                .private_nets
                .push(PrivateNet {
                    network,
                    ip,
                    alias_ips: addresses(&wanted),
                });
            Ok(())
        });
        Ok(Answer::created(
            json!({ "action": self.shown_action(action) }),
        ))
    }

    fn change_alias_ips(&mut self, id: u64, body: &Value) -> Answered {
        let network = self.attached(id, body)?;
        let aliases = addresses(body);
        self.acted("change_alias_ips", "server", id, move |project| {
            let nets = &mut project.find_mut::<Server>(id)?.private_nets;
            if let Some(net) = nets.iter_mut().find(|net| net.network == network) {
                net.alias_ips = aliases;
            }
            Ok(())
        })
    }

    /// The network of a body that the server is in.
    fn attached(&self, id: u64, body: &Value) -> Result<u64, Refusal> {
        let network = body["network"].as_u64().unwrap_or(0);
        let mut nets = self.find::<Server>(id)?.private_nets.iter();
        if nets.any(|net| net.network == network) {
            return Ok(network);
        }
        Err(unfit("server is not attached to the network"))
    }
}

fn addresses(body: &Value) -> Vec<Ipv4Addr> {
    let given = body["alias_ips"].as_array().into_iter().flatten();
    given.filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}
