//! Volumes.

use serde_json::{Value, json};

use super::CREATED;
use super::places::{location, shown_location};
use super::project::{Project, not_built};
use super::refusal::{Answer, Answered, Refusal, invalid, refuse, unfit};
use super::resource::{Kind, Resource, at_most, named};
use super::servers::Server;

/// In GB.
const SIZES: std::ops::RangeInclusive<u64> = 10..=10_240;

#[derive(Clone, Debug)]
pub struct Volume {
    /// In GB.
    pub size: u64,
    pub location: &'static str,
    /// The id of the server that has it.
    pub server: Option<u64>,
    pub format: Option<String>,
    /// `creating` or `available`.
    pub status: &'static str,
}

impl Kind for Volume {
    const ONE: &'static str = "volume";
    const MANY: &'static str = "volumes";

    fn all(project: &Project) -> &Vec<Resource<Self>> {
        &project.volumes
    }

    fn all_mut(project: &mut Project) -> &mut Vec<Resource<Self>> {
        &mut project.volumes
    }

    fn name_fits(name: &str) -> Result<(), &'static str> {
        at_most(name, 64)
    }

    fn shown(_project: &Project, it: &Resource<Self>) -> Value {
        json!({
            "id": it.id, "name": it.name, "labels": it.labels, "created": CREATED,
            "size": it.size, "server": it.server, "location": shown_location(it.location),
            "linux_device": format!("/dev/disk/by-id/scsi-0HC_Volume_{}", it.id),
            "protection": { "delete": it.protected }, "status": it.status, "format": it.format,
        })
    }

    fn create(project: &mut Project, body: &Value) -> Answered {
        let size = body["size"].as_u64().filter(|size| SIZES.contains(size));
        let size = size.ok_or_else(|| invalid("size", "must be between 10 and 10240"))?;
        let server = body["server"].as_u64();
        let place = match (server, named(&body["location"])) {
            (Some(server), _) => project.find::<Server>(server)?.location,
            (None, Some(name)) => {
                location(&name).ok_or_else(|| unfit(format!("location '{name}' not found")))?
            }
            (None, None) => return Err(invalid("location", "Missing data for required field.")),
        };
        if let Some(server) = server {
            project.unlocked("server", server)?;
        }
        let volume = Self {
            size,
            location: place,
            server: None,
            format: body["format"].as_str().map(str::to_owned),
            status: "creating",
        };
        let id = project.add(body, volume);
        let action = project.start("create_volume", &[("volume", id)], None, move |project| {
            project.find_mut::<Self>(id)?.status = "available";
            Ok(())
        });
        let next: Vec<u64> = server
            .map(|server| project.start_attaching(id, server, Some(action)))
            .into_iter()
            .collect();
        let next: Vec<Value> = next
            .into_iter()
            .map(|id| project.shown_action(id))
            .collect();
        Ok(Answer::created(json!({
            "volume": project.shown::<Self>(id)?,
            "action": project.shown_action(action),
            "next_actions": next,
        })))
    }

    fn delete(project: &mut Project, id: u64) -> Answered {
        if project.find::<Self>(id)?.server.is_some() {
            return Err(refuse(
                422,
                "resource_in_use",
                "volume is still attached to a server",
            ));
        }
        project.remove::<Self>(id);
        Ok(Answer::gone())
    }

    fn act(project: &mut Project, id: u64, action: &str, body: &Value) -> Answered {
        match action {
            "attach" => {
                let server = body["server"].as_u64().unwrap_or(0);
                let place = project.find::<Server>(server)?.location;
                project.can_be_attached(id, place)?;
                project.unlocked("server", server)?;
                let action = project.start_attaching(id, server, None);
                Ok(Answer::created(
                    json!({ "action": project.shown_action(action) }),
                ))
            }
            "detach" => {
                if project.find::<Self>(id)?.server.is_none() {
                    return Err(unfit("volume is not attached"));
                }
                project.acted("detach_volume", "volume", id, move |project| {
                    project.find_mut::<Self>(id)?.server = None;
                    Ok(())
                })
            }
            "resize" => {
                let size = body["size"].as_u64().filter(|size| SIZES.contains(size));
                let size = size.ok_or_else(|| invalid("size", "must be between 10 and 10240"))?;
                if size <= project.find::<Self>(id)?.size {
                    return Err(invalid("size", "must be larger than it is"));
                }
                project.acted("resize_volume", "volume", id, move |project| {
                    project.find_mut::<Self>(id)?.size = size;
                    Ok(())
                })
            }
            _ => Err(not_built(&["volumes", action])),
        }
    }
}

impl Project {
    /// # Errors
    /// When a server there cannot have it.
    pub(super) fn can_be_attached(&self, volume: u64, place: &str) -> Result<(), Refusal> {
        let it = self.find::<Volume>(volume)?;
        if it.server.is_some() {
            return Err(refuse(
                422,
                "volume_already_attached",
                "volume is already attached",
            ));
        }
        if it.location != place {
            return Err(unfit("server and volume are in different locations"));
        }
        Ok(())
    }

    pub(super) fn start_attaching(&mut self, volume: u64, server: u64, after: Option<u64>) -> u64 {
        let about = [("volume", volume), ("server", server)];
        self.start("attach_volume", &about, after, move |project| {
            project.find_mut::<Volume>(volume)?.server = Some(server);
            Ok(())
        })
    }
}
