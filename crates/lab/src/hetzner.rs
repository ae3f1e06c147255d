//! The API of Hetzner Cloud as far as a region needs it: stateful, with its own wire types, on loopback.
//!
//! It refuses what the original refuses and every request that the original's description does not allow, lets actions
//! take their time, and has bad days on request. [`Hetzner::hold_after`] stops answering at a chosen request, so that a
//! test can kill the client there.
//!
//! Left out: making certificates, DNS zones, floating IPs, ISOs, snapshots, rescue systems, metrics (501).

mod account;
mod actions;
mod catalogue;
mod description;
mod fault;
mod firewalls;
mod load_balancers;
mod networks;
mod places;
mod primary_ips;
mod project;
mod query;
mod refusal;
mod resource;
mod server_actions;
mod servers;
mod small;
mod volumes;
mod world;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use account::{Account, Shape};
pub use catalogue::Catalogue;
pub use fault::{Fault, Kind};
pub use firewalls::{AppliedTo, Firewall};
pub use load_balancers::{LoadBalancer, Target, To};
pub use networks::{Network, Subnet};
pub use primary_ips::PrimaryIp;
pub use project::Project;
pub use query::Labels;
pub use resource::Resource;
pub use servers::{PrivateNet, Server};
pub use small::{PlacementGroup, SshKey};
pub use volumes::Volume;

use world::{Outcome, Spoken, World};

/// Path in front of every route.
const BASE: &str = "/v1";

/// When everything was made.
const CREATED: &str = "2026-11-30T07:00:00+00:00";

/// A Hetzner with one project, and further ones on request.
pub struct Hetzner {
    address: SocketAddr,
    token: String,
    shared: Shared,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

type Shared = Arc<Mutex<World>>;

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Below `/v1`.
    pub path: String,
    /// Path and query as they came.
    pub target: String,
    pub body: Value,
    /// What the API itself made of it, whatever the client got to see.
    pub status: u16,
}

impl Seen {
    /// Whether it wanted to change something.
    pub fn is_write(&self) -> bool {
        self.method != "GET"
    }
}

/// Which requests a hold counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Requests,
    Writes,
}

/// A request that is carried out and never answered. When this is dropped, the requests after it are answered again.
pub struct Held {
    reached: Receiver<Seen>,
    shared: Shared,
}

impl Held {
    /// Waits until the request has been carried out.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn reached(&self, within: Duration) -> Result<Seen, RecvTimeoutError> {
        self.reached.recv_timeout(within)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.shared).let_go();
    }
}

impl Hetzner {
    /// Starts to answer to this token, for an empty project.
    ///
    /// # Errors
    /// When loopback has no free port.
    pub async fn start(token: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(World::new(token)));
        let tasks = Mutex::new(vec![serve(listener, &shared)]);
        Ok(Self {
            address,
            token: token.to_owned(),
            shared,
            tasks,
        })
    }

    /// Answers on another socket, too: that of a network namespace, for example.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub async fn also_on(&self, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let task = serve(TcpListener::from_std(listener)?, &self.shared);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(task);
        Ok(())
    }

    /// The endpoint, with its `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}{BASE}", self.address)
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// Looks at the project, or changes it as other people would.
    pub fn project<T>(&self, look: impl FnOnce(&mut Project) -> T) -> T {
        look(lock(&self.shared).first())
    }

    /// As [`Self::project`], of the project that another token opens. Made, empty, by the first look.
    pub fn project_of<T>(&self, token: &str, look: impl FnOnce(&mut Project) -> T) -> T {
        look(lock(&self.shared).project_of(token))
    }

    pub fn servers(&self) -> Vec<Resource<Server>> {
        self.project(|project| project.servers.clone())
    }

    pub fn fail(&self, fault: Fault) {
        lock(&self.shared).faults.push(fault);
    }

    /// Nothing goes wrong any more.
    pub fn recover(&self) {
        lock(&self.shared).faults.clear();
    }

    /// The `n`th request from now (of those that count) is carried out and not answered; the later ones are neither, until
    /// what is returned is dropped.
    pub fn hold_after(&self, n: usize, counted: Counted) -> Held {
        Held {
            reached: lock(&self.shared).hold(n, counted),
            shared: Arc::clone(&self.shared),
        }
    }

    /// So many requests at once, and one more in every such time. Otherwise 3600, and one more in a second.
    pub fn limit(&self, requests: u32, one_more_in: Duration) {
        lock(&self.shared).limit(requests, one_more_in);
    }

    /// Every request so far, refused ones too, but not those that a hold left undone.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared).seen.clone()
    }

    /// How many requests of that method and end of path came in.
    pub fn count(&self, method: &str, path_ends: &str) -> usize {
        let seen = self.seen();
        let fits = |seen: &&Seen| seen.method == method && seen.path.ends_with(path_ends);
        seen.iter().filter(fits).count()
    }

    /// How many requests wanted to change something.
    pub fn writes(&self) -> usize {
        self.seen().iter().filter(|seen| seen.is_write()).count()
    }

    /// How many of a kind, such as `servers`, were created; whether or not the client heard of it.
    pub fn created(&self, kind: &str) -> usize {
        let (seen, path) = (self.seen(), format!("/{kind}"));
        let fits = |seen: &&Seen| seen.method == "POST" && seen.path == path && seen.status == 201;
        seen.iter().filter(fits).count()
    }

    /// Requests that the API's description does not allow or that hold keys which it does not have, and why.
    pub fn invalid(&self) -> Vec<(Seen, String)> {
        let world = lock(&self.shared);
        let invalid = world.invalid.iter();
        let invalid = invalid.map(|(at, why)| (world.seen[*at].clone(), why.clone()));
        invalid.collect()
    }
}

impl Drop for Hetzner {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(JoinHandle::abort);
    }
}

fn serve(listener: TcpListener, shared: &Shared) -> JoinHandle<()> {
    let app = axum::Router::new()
        .fallback(answer)
        .with_state(Arc::clone(shared));
    tokio::spawn(async move {
        // It ends with the task; before that, an error is the listener's.
        let _ = axum::serve(listener, app).await;
    })
}

/// A panic elsewhere leaves the state as it is: the test fails anyway.
fn lock(shared: &Shared) -> MutexGuard<'_, World> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let outcome = lock(&shared).answer(&method, &uri, &headers, &body);
    match outcome {
        Outcome::Says(spoken) => response(&spoken, Body::from(spoken.text.clone())),
        Outcome::BreaksOff(spoken) => {
            let half = Bytes::copy_from_slice(&spoken.text.as_bytes()[..spoken.text.len() / 2]);
            let parts = [Ok(half), Err(io::Error::other("cut"))];
            response(
                &spoken,
                Body::from_stream(futures_util::stream::iter(parts)),
            )
        }
        // Until the client goes.
        Outcome::SaysNothing => std::future::pending().await,
    }
}

fn response(spoken: &Spoken, body: Body) -> Response {
    let mut response = Response::new(body);
    let status = StatusCode::from_u16(spoken.status);
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &spoken.headers {
        if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(*name), value.parse()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// In seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Of an RFC 3339 text; 0, long past, when it is none.
fn seconds(text: &str) -> u64 {
    let text = text.replace("+00:00", "Z");
    let time = humantime::parse_rfc3339_weak(&text).ok();
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}
