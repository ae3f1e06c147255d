//! Hetzner's cloud API as far as a region needs it: what there is, what can be ordered, and the orders.
//!
//! Requests are the models of the `hcloud` crate, which follow the API description. Transport and answers are ours: the
//! crate's own answers fail on a key that the API dropped, and a create whose answer cannot be read leaves a server that
//! costs money and that nobody knows. What only reads is asked again after trouble that may pass; what writes is sent once
//! (`transport.rs`), and the caller looks before it sends it again.

mod catalogue;
mod error;
mod requests;
mod resources;
mod transport;
mod wire;

use std::time::Duration;

use regionwise_provision::{
    Catalogue, Detail, Inventory, Kind as Of, Labels, Remedy, Resource, Wanted,
};
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

pub use error::{Error, Kind};
pub use requests::Choice;

use resources::{list, one, read};
use transport::Transport;
use wire::{Action, Meta};

/// Where it is, unless somebody says otherwise.
pub const ENDPOINT: &str = "https://api.hetzner.cloud/v1";
/// As many as Hetzner gives at once.
const PER_PAGE: u32 = 50;
/// A list that does not end is a fault somewhere else: 5,000 resources of a kind are more than a project may have.
const PAGES: u32 = 100;
/// As hcloud-go asks for: longer URLs are cut by proxies.
const ACTIONS_AT_ONCE: usize = 25;

/// One project.
pub struct Hetzner<'a> {
    transport: Transport<'a>,
    product: &'a str,
    tick: Duration,
    actions_within: Duration,
}

/// Where the API is and how long it may take.
pub struct Settings<'a> {
    pub endpoint: &'a str,
    pub token: &'a str,
    /// Whose resources are ours.
    pub product: &'a str,
    /// All waits for limits, locks and trouble together.
    pub patience: Duration,
    /// Between two looks at actions that run.
    pub tick: Duration,
    /// An action that takes longer does not end.
    pub actions_within: Duration,
}

/// What a create made, and the actions that are still at it.
pub struct Made {
    pub resource: Resource,
    pub actions: Vec<i64>,
}

impl<'a> Hetzner<'a> {
    /// Contacts nobody. `say` gets a line for every wait, and `stop` ends one: it is asked several times in a second.
    ///
    /// # Errors
    /// When the endpoint is no URL, or would carry the token in the clear to somewhere else.
    pub fn new(
        settings: &Settings<'a>,
        say: &'a dyn Fn(&str),
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let endpoint = settings.endpoint;
        let unusable = |text: String| Error::new(Kind::Unreachable, text);
        let url = Url::parse(endpoint)
            .map_err(|error| unusable(format!("`{endpoint}` is no URL: {error}")))?;
        let loopback = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(unusable(format!(
                "`{endpoint}` would carry the token in the clear"
            )));
        }
        Ok(Self {
            transport: Transport::new(url, settings.token, settings.patience, say, stop)?,
            product: settings.product,
            tick: settings.tick,
            actions_within: settings.actions_within,
        })
    }

    /// Requests sent so far.
    pub fn requests(&self) -> u32 {
        self.transport.sent()
    }

    /// All that is in the project, whoever's it is: a name that is taken is part of the truth.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn inventory(&self) -> Result<Inventory, Error> {
        let mut inventory = Inventory {
            product: self.product.to_owned(),
            ..Inventory::default()
        };
        for kind in Of::ALL {
            for item in self.all(list(kind), "").await? {
                inventory.resources.push(read(kind, item)?);
            }
        }
        Ok(inventory)
    }

    /// All of that kind and name: networks may have one name twice.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn named(&self, kind: Of, name: &str) -> Result<Vec<Resource>, Error> {
        // Our names are `a-z`, `0-9` and `-`: nothing to escape.
        let found = self.all(list(kind), &format!("&name={name}")).await?;
        found.into_iter().map(|item| read(kind, item)).collect()
    }

    /// Our servers, once none of them is on its way any more: until then they are locked.
    ///
    /// # Errors
    /// [`Kind::Action`] with one that does not arrive, [`Kind::Stopped`].
    pub async fn servers(&self, stop: &dyn Fn() -> bool) -> Result<Vec<Resource>, Error> {
        let ours = regionwise_provision::selector(self.product).replace('=', "%3D");
        let query = format!("&label_selector={ours}");
        let begun = tokio::time::Instant::now();
        loop {
            let found = self.all(list(Of::Server), &query).await?;
            let servers: Vec<Resource> = found
                .into_iter()
                .map(|item| read(Of::Server, item))
                .collect::<Result<_, _>>()?;
            let Some((name, status)) = servers.iter().find_map(on_its_way) else {
                return Ok(servers);
            };
            let text = format!("server `{name}` is {status}");
            if stop() {
                return Err(Error::new(Kind::Stopped, text));
            }
            if begun.elapsed() > self.actions_within {
                let seconds = self.actions_within.as_secs();
                return Err(Error::new(
                    Kind::Action,
                    format!("{text} after {seconds} s"),
                ));
            }
            self.transport.say(&format!("{text}; looks again."));
            tokio::time::sleep(self.tick).await;
        }
    }

    /// What can be ordered where, and for how much. `now` decides which types are no longer sold.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn catalogue(&self, now: std::time::SystemTime) -> Result<Catalogue, Error> {
        let locations = self.all("locations", "").await?;
        let servers = self.all("server_types", "").await?;
        let balancers = self.all("load_balancer_types", "").await?;
        let pricing: Value = self.transport.get("/pricing").await?;
        catalogue::catalogue(locations, servers, balancers, pricing, now)
    }

    /// The id of the certificate of that name.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn certificate(&self, name: &str) -> Result<Option<i64>, Error> {
        let found = self.all("certificates", &format!("&name={name}")).await?;
        Ok(found.first().and_then(|item| item["id"].as_i64()))
    }

    /// Orders a resource. Everything that it refers to must be in `inventory`.
    ///
    /// # Errors
    /// [`Error`]; after [`Error::may_be_done`] look for it by its name.
    pub async fn create(
        &self,
        wanted: &Wanted,
        inventory: &Inventory,
        choice: &Choice<'_>,
    ) -> Result<Made, Error> {
        let body = requests::create(wanted, inventory, choice)?;
        let path = format!("/{}", list(wanted.kind()));
        let mut answer: Value = self.transport.write(&Method::POST, &path, &body).await?;
        let actions = actions(&answer);
        let resource = read(wanted.kind(), part(&mut answer, one(wanted.kind())))?;
        Ok(Made { resource, actions })
    }

    /// Mends one difference; returns the actions that are at it.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn mend(
        &self,
        wanted: &Wanted,
        id: i64,
        remedy: Remedy,
        inventory: &Inventory,
        choice: &Choice<'_>,
    ) -> Result<Vec<i64>, Error> {
        let (method, path, body) = requests::mend(wanted, id, remedy, inventory, choice)?;
        let answer: Value = self.transport.write(&method, &path, &body).await?;
        Ok(actions(&answer))
    }

    /// Gives a server these labels in place of all that it has.
    ///
    /// # Errors
    /// [`Error`]; to send it once more does no harm.
    pub async fn label(&self, server: i64, labels: &Labels) -> Result<(), Error> {
        let path = format!("/servers/{server}");
        let body = json!({ "labels": labels });
        let _: Value = self.transport.write(&Method::PUT, &path, &body).await?;
        Ok(())
    }

    /// Installs a server anew from an image, with this user data; returns the actions that are at it.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn rebuild(
        &self,
        server: i64,
        image: &str,
        user_data: &str,
    ) -> Result<Vec<i64>, Error> {
        let path = format!("/servers/{server}/actions/rebuild");
        let body = json!({ "image": image, "user_data": user_data });
        let answer: Value = self.transport.write(&Method::POST, &path, &body).await?;
        Ok(actions(&answer))
    }

    /// Takes a server, volume or load balancer out of what holds it, or deletes it; returns the actions that are at it.
    /// What is gone already is no error.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn delete(&self, kind: Of, id: i64) -> Result<Vec<i64>, Error> {
        let path = format!("/{}/{id}", list(kind));
        let gone: Result<Value, Error> = self.transport.delete(&path).await;
        match gone {
            Ok(answer) => Ok(actions(&answer)),
            Err(error) if error.is(regionwise_provision::Reaction::Absent) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Takes a volume off its server; returns the actions that are at it.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn detach(&self, volume: i64) -> Result<Vec<i64>, Error> {
        let path = format!("/volumes/{volume}/actions/detach");
        let answer: Value = self
            .transport
            .write(&Method::POST, &path, &json!({}))
            .await?;
        Ok(actions(&answer))
    }

    /// Waits until all of them have ended, with one request for up to 25 of them at each tick, or until `stop` says so.
    ///
    /// # Errors
    /// [`Kind::Action`] with what failed, or what does not end; [`Kind::Stopped`].
    pub async fn settle(
        &self,
        mut running: Vec<i64>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let begun = tokio::time::Instant::now();
        while !running.is_empty() {
            let mut still = Vec::new();
            for ids in running.chunks(ACTIONS_AT_ONCE) {
                let query: Vec<String> = ids.iter().map(|id| format!("id={id}")).collect();
                let path = format!("/actions?{}", query.join("&"));
                let mut page: Value = self.transport.get(&path).await?;
                let found: Vec<Action> = serde_json::from_value(part(&mut page, "actions"))
                    .map_err(|error| {
                        Error::new(Kind::Unreadable, format!("GET /actions: {error}"))
                    })?;
                // One that the answer leaves out has not ended as far as anybody knows.
                let answered: Vec<i64> = found.iter().map(|action| action.id).collect();
                still.extend(ids.iter().filter(|id| !answered.contains(id)));
                for action in found {
                    match (action.status.as_str(), action.error) {
                        ("success", _) => {}
                        ("error", error) => {
                            let error = error.unwrap_or_default();
                            let text = format!(
                                "{} failed: {}: {}",
                                action.command, error.code, error.message
                            );
                            return Err(Error::new(Kind::Action, text));
                        }
                        _ => still.push(action.id),
                    }
                }
            }
            if still.is_empty() {
                return Ok(());
            }
            if stop() {
                return Err(Error::new(
                    Kind::Stopped,
                    "stopped while the provider is at it",
                ));
            }
            if begun.elapsed() > self.actions_within {
                let seconds = self.actions_within.as_secs();
                let text = format!("{} actions do not end within {seconds} s", still.len());
                return Err(Error::new(Kind::Action, text));
            }
            tokio::time::sleep(self.tick).await;
            running = still;
        }
        Ok(())
    }

    /// All items of a list.
    async fn all(&self, name: &str, query: &str) -> Result<Vec<Value>, Error> {
        let mut items = Vec::new();
        let mut page = 1;
        loop {
            let path = format!("/{name}?page={page}&per_page={PER_PAGE}{query}");
            let mut answer: Value = self.transport.get(&path).await?;
            let unreadable =
                |text: &str| Error::new(Kind::Unreadable, format!("GET {path}: {text}"));
            let Value::Array(mut more) = part(&mut answer, name) else {
                return Err(unreadable("has no such list"));
            };
            items.append(&mut more);
            let meta: Meta = serde_json::from_value(part(&mut answer, "meta")).unwrap_or_default();
            match meta.pagination.next_page {
                None => return Ok(items),
                Some(next) if next > page && next <= PAGES => page = next,
                Some(_) => return Err(unreadable("the pages do not end")),
            }
        }
    }
}

/// Name and status of a server that will be in another one by itself.
fn on_its_way(server: &Resource) -> Option<(&str, &str)> {
    let Detail::Server(of) = &server.detail else {
        return None;
    };
    let passing = [
        "initializing",
        "starting",
        "stopping",
        "deleting",
        "migrating",
        "rebuilding",
    ];
    passing
        .contains(&of.status.as_str())
        .then_some((&server.name, &of.status))
}

/// Everything that an answer says is still going on.
fn actions(answer: &Value) -> Vec<i64> {
    let single = std::iter::once(&answer["action"]);
    let lists = ["actions", "next_actions"]
        .into_iter()
        .filter_map(|name| answer[name].as_array())
        .flatten();
    single
        .chain(lists)
        .filter(|action| action["status"] != "success")
        .filter_map(|action| action["id"].as_i64())
        .collect()
}

/// A part of an answer; null where there is none, also where the answer is no object at all.
pub(crate) fn part(answer: &mut Value, key: &str) -> Value {
    answer.get_mut(key).map(Value::take).unwrap_or_default()
}
