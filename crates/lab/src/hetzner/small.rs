//! SSH keys and placement groups.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use super::CREATED;
use super::project::{Project, not_built};
use super::refusal::{Answer, Answered, Refusal, invalid, refuse};
use super::resource::{Kind, Resource};

/// So many servers fit into a group that spreads them.
pub(super) const SERVERS_PER_GROUP: usize = 10;

#[derive(Clone, Debug)]
pub struct SshKey {
    pub public_key: String,
    /// MD5 in the old notation of OpenSSH.
    pub fingerprint: String,
}

/// Its servers name it.
#[derive(Clone, Debug)]
pub struct PlacementGroup;

impl Kind for SshKey {
    const ONE: &'static str = "ssh_key";
    const MANY: &'static str = "ssh_keys";

    fn all(project: &Project) -> &Vec<Resource<Self>> {
        &project.ssh_keys
    }

    fn all_mut(project: &mut Project) -> &mut Vec<Resource<Self>> {
        &mut project.ssh_keys
    }

    fn shown(_project: &Project, it: &Resource<Self>) -> Value {
        json!({
            "id": it.id, "name": it.name, "labels": it.labels, "created": CREATED,
            "public_key": it.public_key, "fingerprint": it.fingerprint,
        })
    }

    fn create(project: &mut Project, body: &Value) -> Answered {
        let public_key = body["public_key"]
            .as_str()
            .unwrap_or_default()
            .trim()
            .to_owned();
        let fingerprint =
            fingerprint(&public_key).ok_or_else(|| invalid("public_key", "is no public key"))?;
        if project
            .ssh_keys
            .iter()
            .any(|known| known.fingerprint == fingerprint)
        {
            return Err(refuse(
                409,
                "uniqueness_error",
                "SSH key with the same fingerprint already exists",
            ));
        }
        let key = Self {
            public_key,
            fingerprint,
        };
        let id = project.add(body, key);
        Ok(Answer::created(
            json!({ "ssh_key": project.shown::<Self>(id)? }),
        ))
    }

    fn delete(project: &mut Project, id: u64) -> Answered {
        project.remove::<Self>(id);
        Ok(Answer::gone())
    }

    fn act(_project: &mut Project, _id: u64, action: &str, _body: &Value) -> Answered {
        Err(not_built(&["ssh_keys", action]))
    }
}

/// `None` when it is no `TYPE BASE64 [COMMENT]`.
fn fingerprint(public_key: &str) -> Option<String> {
    let mut words = public_key.split_whitespace();
    let (kind, blob) = (words.next()?, STANDARD.decode(words.next()?).ok()?);
    // A key says its own type again, behind its length.
    let said = blob.get(4..4 + kind.len())?;
    let bytes = Md5::digest(&blob);
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (said == kind.as_bytes()).then(|| digits.join(":"))
}

impl Kind for PlacementGroup {
    const ONE: &'static str = "placement_group";
    const MANY: &'static str = "placement_groups";

    fn all(project: &Project) -> &Vec<Resource<Self>> {
        &project.placement_groups
    }

    fn all_mut(project: &mut Project) -> &mut Vec<Resource<Self>> {
        &mut project.placement_groups
    }

    fn shown(project: &Project, it: &Resource<Self>) -> Value {
        json!({
            "id": it.id, "name": it.name, "labels": it.labels, "created": CREATED,
            "type": "spread", "servers": project.servers_in_group(it.id),
        })
    }

    fn create(project: &mut Project, body: &Value) -> Answered {
        let id = project.add(body, Self);
        let shown = project.shown::<Self>(id)?;
        Ok(Answer::created(
            json!({ "placement_group": shown, "action": null }),
        ))
    }

    fn delete(project: &mut Project, id: u64) -> Answered {
        if !project.servers_in_group(id).is_empty() {
            return Err(refuse(
                422,
                "resource_in_use",
                "placement group still has servers",
            ));
        }
        project.remove::<Self>(id);
        Ok(Answer::gone())
    }

    fn act(_project: &mut Project, _id: u64, action: &str, _body: &Value) -> Answered {
        Err(not_built(&["placement_groups", action]))
    }
}

impl Project {
    fn servers_in_group(&self, id: u64) -> Vec<u64> {
        let servers = self.servers.iter();
        let servers = servers.filter(|server| server.placement_group == Some(id));
        servers.map(|server| server.id).collect()
    }

    /// # Errors
    /// When there is no such group, or it is full.
    pub(super) fn group_has_room(&self, id: u64) -> Result<(), Refusal> {
        self.find::<PlacementGroup>(id)?;
        if self.servers_in_group(id).len() >= SERVERS_PER_GROUP {
            return Err(refuse(422, "placement_error", "placement group is full"));
        }
        Ok(())
    }
}
