//! The supervisor: starts every part of a lab, shapes the links, answers the control socket, stops everything.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::control::{
    Answer, LinkChange, LinkStatus, ProcessAction, ProcessStatus, Request, STATUS_SCHEMA,
    StandbyAction, Status,
};
use crate::dependency::{self, Dependency};
use crate::directory::{Directory, write_private};
use crate::layout::{self, Block, CLUSTERS, NODES, Part, REGIONS, WORLD};
use crate::link::{self, Fault, Link, Shape};
use crate::processes::{become_subreaper, die_with_parent, kill_descendants};
use crate::programs::Programs;
use crate::regions_file::MigrationRole;
use crate::running::{Running, Served, StartError};
use crate::site::{Passwords, Progress, Site};
use crate::{bouncer, host, postgres, regions_file};

/// What services may take to stop before they are killed. Postgres stops at once, a proxy too.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What a supervisor has to know.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pub directory: Directory,
    pub block: Block,
    pub clusters: bool,
    pub guard: i32,
}

impl Supervisor {
    /// Runs until it is told to stop. Nothing below it is left then.
    pub fn run(self) -> io::Result<()> {
        die_with_parent(self.guard, Signal::TERM)?;
        become_subreaper()?;
        raise_descriptor_limit();
        // One thread: see `running`.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let outcome = LocalSet::new().block_on(&runtime, self.supervise());
        kill_descendants();
        outcome
    }

    async fn supervise(self) -> io::Result<()> {
        let (mut term, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let account = match crate::account::choose() {
            Ok(account) => account.name,
            Err(error) => {
                Progress::failed(&error, &"no account", error.hint(), true).tell();
                return Ok(());
            }
        };
        let programs = match Programs::find(self.clusters) {
            Ok(programs) => programs,
            Err(error) => {
                Progress::failed(
                    &error,
                    &"it is in no directory of the PATH",
                    Some(error.hint()),
                    true,
                )
                .tell();
                return Ok(());
            }
        };
        let site = Site {
            running: Running::new(self.directory.clone()),
            passwords: Passwords::draw().map_err(|error| io::Error::other(error.to_string()))?,
            directory: self.directory,
            block: self.block,
            account,
            programs,
            started: Instant::now(),
        };
        let lab = Rc::new(Parts::new(site, self.guard));
        reap_children(Rc::clone(&lab))?;
        let life = async {
            match lab.start().await {
                Ok(()) => lab.asked_to_stop.notified().await,
                Err(StartError { doing, cause, hint }) => {
                    let log = lab.site.directory.lab_log();
                    let hint =
                        hint.unwrap_or_else(|| format!("see {} and logs beside it", log.display()));
                    Progress::failed(&format!("cannot {doing}"), &cause, Some(hint), false).tell();
                }
            }
        };
        tokio::select! {
            () = life => {}
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        lab.site.running.stop_all(STOP_PATIENCE).await;
        Ok(())
    }
}

fn reap_children(lab: Rc<Parts>) -> io::Result<()> {
    let mut children = signal(SignalKind::child())?;
    tokio::task::spawn_local(async move {
        while children.recv().await.is_some() {
            lab.site.running.reap();
        }
    });
    Ok(())
}

/// Every connection through a link takes two descriptors, and an ordinary account starts with 1,024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused means fewer connections, which the proxies bear.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

struct Parts {
    site: Site,
    guard: i32,
    links: BTreeMap<(&'static str, &'static str), Arc<Link>>,
    dependencies: std::cell::OnceCell<Vec<Arc<Dependency>>>,
    ready_after_ms: std::cell::Cell<u64>,
    asked_to_stop: Notify,
}

/// Why a request was not carried out, and what is accepted.
struct Refusal {
    error: String,
    hint: Option<String>,
}

impl Refusal {
    fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            hint: None,
        }
    }

    /// A name that does not exist, with those that do.
    fn unknown(what: &str, name: &str, known: impl Iterator<Item = String>) -> Self {
        let known: Vec<String> = known.collect();
        Self {
            error: format!("cannot find {what} `{name}`"),
            hint: Some(format!("known: {}", known.join(", "))),
        }
    }
}

impl Parts {
    fn new(site: Site, guard: i32) -> Self {
        // Without delays until everything is up: streaming from the other side of the world takes ten round trips
        // to begin.
        let links = layout::pairs()
            .into_iter()
            .map(|pair| (pair, Arc::new(Link::new(Duration::ZERO))))
            .collect();
        Self {
            site,
            guard,
            links,
            dependencies: std::cell::OnceCell::new(),
            ready_after_ms: std::cell::Cell::new(0),
            asked_to_stop: Notify::new(),
        }
    }

    async fn start(self: &Rc<Self>) -> Result<(), StartError> {
        let site = &self.site;
        self.start_links()
            .await
            .map_err(|error| StartError::new("start the links", error))?;
        let dependencies = dependency::start(site.block).await;
        let dependencies =
            dependencies.map_err(|error| StartError::new("start the dependencies", error))?;
        let _ = self.dependencies.set(dependencies);
        let write = |path: std::path::PathBuf, text: String| {
            fs::write(&path, text)
                .map_err(|error| StartError::new(format!("write `{}`", path.display()), error))
        };
        write(
            site.directory.regions_toml(),
            regions_file::text(site.block, &site.account),
        )?;
        tokio::try_join!(self.start_hosts(), self.start_clusters())?;
        for (from, to) in self.links.keys() {
            self.links[&(*from, *to)].set(usual(from, to));
        }
        self.ready_after_ms.set(site.millis());
        let control = UnixListener::bind(site.directory.control_socket());
        let control =
            control.map_err(|error| StartError::new("listen on `control.sock`", error))?;
        self.write_status()
            .map_err(|error| StartError::new("write `status.json`", error))?;
        tokio::task::spawn_local(serve_control(control, Rc::clone(self)));
        Progress::Ready {
            millis: site.millis(),
        }
        .tell();
        Ok(())
    }

    async fn start_links(&self) -> io::Result<()> {
        for crossing in self
            .site
            .block
            .crossings(self.site.programs.databases.is_some())
        {
            let listener = TcpListener::bind(SocketAddr::V4(crossing.listen)).await?;
            let (ahead, back) = ((crossing.from, crossing.to), (crossing.to, crossing.from));
            let (ahead, back) = (
                Arc::clone(&self.links[&ahead]),
                Arc::clone(&self.links[&back]),
            );
            tokio::spawn(link::serve(listener, crossing.target, ahead, back));
        }
        Ok(())
    }

    async fn start_hosts(&self) -> Result<(), StartError> {
        let site = &self.site;
        host::make_deploy_key(site).await?;
        let hosts =
            try_join_all(layout::hosts().map(|(region, name)| host::start(site, region, name)));
        let edges = try_join_all(REGIONS.iter().map(|region| host::start_edge(site, region)));
        tokio::try_join!(hosts, edges)?;
        host::write_known_hosts(site)
    }

    async fn start_clusters(&self) -> Result<(), StartError> {
        let site = &self.site;
        let Some(databases) = &site.programs.databases else {
            return Ok(());
        };
        let clusters = try_join_all(
            CLUSTERS
                .iter()
                .map(|cluster| postgres::start_cluster(site, databases, cluster)),
        );
        let bouncers = try_join_all(
            REGIONS
                .iter()
                .map(|region| bouncer::start(site, databases, region)),
        );
        tokio::try_join!(clusters, bouncers).map(drop)
    }

    fn write_status(&self) -> io::Result<()> {
        write_private(
            &self.site.directory.status_json(),
            &serde_json::to_string_pretty(&self.status())?,
        )
    }

    fn status(&self) -> Status {
        let site = &self.site;
        Status {
            schema: STATUS_SCHEMA,
            dir: site.directory.path().to_owned(),
            block: site.block.network(),
            account: site.account.clone(),
            guard_pid: self.guard.unsigned_abs(),
            supervisor_pid: process::id(),
            ready_after_ms: self.ready_after_ms.get(),
            regions_toml: site.directory.regions_toml(),
            processes: site.running.served().iter().map(process_status).collect(),
            links: self
                .links
                .iter()
                .map(|(pair, link)| link_status(*pair, link))
                .collect(),
            dependencies: self
                .dependencies
                .get()
                .into_iter()
                .flatten()
                .map(|stub| stub.status())
                .collect(),
            addresses: self.addresses(),
            env: self.env(),
        }
    }

    fn addresses(&self) -> BTreeMap<String, SocketAddr> {
        let seen = |part| SocketAddr::V4(self.site.block.seen_from(WORLD, part));
        let mut addresses = BTreeMap::new();
        for region in &REGIONS {
            addresses.insert(region.name.to_owned(), seen(Part::Edge(region.name)));
        }
        for (_, host) in layout::hosts() {
            addresses.insert(format!("{host}/http"), seen(Part::HostHttp(host)));
            addresses.insert(format!("{host}/ssh"), seen(Part::HostSsh(host)));
        }
        if self.site.programs.databases.is_some() {
            addresses.extend(
                NODES
                    .iter()
                    .map(|node| (node.name.to_owned(), seen(Part::Node(node.name)))),
            );
        }
        addresses
    }

    /// DSNs stand here also in a lab without clusters: `regions.toml` names them, and nobody answers there.
    fn env(&self) -> BTreeMap<String, String> {
        let site = &self.site;
        let path = |path: std::path::PathBuf| path.display().to_string();
        let mut env = BTreeMap::from([
            (
                "REGIONWISE_CONFIG".to_owned(),
                path(site.directory.regions_toml()),
            ),
            (
                "REGIONWISE_LAB_DIR".to_owned(),
                path(site.directory.path().to_owned()),
            ),
        ]);
        for node in &NODES {
            env.insert(
                regions_file::dsn_variable(node.name),
                postgres::lag_dsn(site, node.name),
            );
            env.insert(
                regions_file::admin_dsn_variable(node.name),
                postgres::admin_dsn(site, node.name),
            );
        }
        for cluster in &CLUSTERS {
            for role in MigrationRole::ALL {
                env.insert(
                    role.variable(cluster.name),
                    postgres::migration_dsn(site, role, cluster.primary),
                );
            }
        }
        env
    }

    async fn carry_out(&self, request: Request) -> Result<Answer, Refusal> {
        match request {
            Request::Status => return Ok(Answer::Status(Box::new(self.status()))),
            Request::Link { from, to, change } => self.change_link(&from, &to, change)?,
            Request::Standby { name, action } => self.change_standby(&name, action).await?,
            Request::Dependency { name, up } => {
                let stubs = || self.dependencies.get().into_iter().flatten();
                let known = || stubs().map(|stub| stub.name.to_owned());
                let stub = stubs().find(|stub| stub.name == name);
                stub.ok_or_else(|| Refusal::unknown("dependency", &name, known()))?
                    .set(up);
            }
            Request::Process { name, action } => self.change_process(&name, action).await?,
            Request::Down => self.asked_to_stop.notify_one(),
        }
        Ok(Answer::Done)
    }

    fn change_link(&self, from: &str, to: &str, change: LinkChange) -> Result<(), Refusal> {
        let mut pairs = vec![(from, to)];
        if change.both {
            pairs.push((to, from));
        }
        for (from, to) in pairs {
            let found = self.links.iter().find(|(pair, _)| **pair == (from, to));
            let Some((_, link)) = found else {
                let known = self.links.keys().map(|(from, to)| format!("{from} {to}"));
                return Err(Refusal::unknown("link", &format!("{from} {to}"), known));
            };
            let before = if change.clear {
                usual(from, to)
            } else {
                link.shape()
            };
            link.set(Shape {
                latency: change
                    .latency_ms
                    .map_or(before.latency, Duration::from_millis),
                bandwidth: change.bandwidth.or(before.bandwidth),
                fault: change.fault.unwrap_or(before.fault),
            });
            if change.clear || change.corrupt.is_some() {
                link.corrupt(change.corrupt.as_deref());
            }
            if change.reset {
                link.reset();
            }
        }
        Ok(())
    }

    async fn change_standby(&self, name: &str, action: StandbyAction) -> Result<(), Refusal> {
        let standbys = || NODES.iter().filter(|node| !node.is_primary());
        let node = standbys().find(|node| node.name == name);
        let known = || standbys().map(|node| node.name.to_owned());
        let node = node.ok_or_else(|| Refusal::unknown("standby", name, known()))?;
        if self.site.programs.databases.is_none() {
            return Err(Refusal::new(format!(
                "cannot change `{name}`: this lab runs no clusters"
            )));
        }
        let statements = match action {
            StandbyAction::Hold => vec!["SELECT pg_wal_replay_pause()".to_owned()],
            StandbyAction::Release => vec!["SELECT pg_wal_replay_resume()".to_owned()],
            StandbyAction::ApplyDelay { millis } => vec![
                format!("ALTER SYSTEM SET recovery_min_apply_delay = '{millis}ms'"),
                "SELECT pg_reload_conf()".to_owned(),
            ],
        };
        let apply = async {
            let client = postgres::connect_inside(&self.site, node.name, "postgres").await?;
            for statement in statements {
                client
                    .batch_execute(&statement)
                    .await
                    .map_err(|error| postgres::describe(&error))?;
            }
            if action == StandbyAction::Hold {
                wait_until_paused(&client).await?;
            }
            Ok(())
        };
        apply
            .await
            .map_err(|cause: String| Refusal::new(format!("cannot change `{name}`: {cause}")))
    }

    async fn change_process(&self, name: &str, action: ProcessAction) -> Result<(), Refusal> {
        let running = &self.site.running;
        let known = || {
            running
                .served()
                .into_iter()
                .map(|served| served.program.name)
        };
        let served = running
            .get(name)
            .ok_or_else(|| Refusal::unknown("process", name, known()))?;
        let sent = match action {
            ProcessAction::Kill => kill_process(served.pid, Signal::KILL),
            ProcessAction::Freeze => kill_process(served.pid, Signal::STOP),
            ProcessAction::Thaw => kill_process(served.pid, Signal::CONT),
            ProcessAction::Start => return self.start_again(served).await,
        };
        if served.ended.is_some() {
            return Err(Refusal::new(format!(
                "cannot signal `{name}`: it has ended"
            )));
        }
        sent.map_err(|error| Refusal::new(format!("cannot signal `{name}`: {error}")))?;
        if action == ProcessAction::Kill {
            running.wait_for_end(name).await;
        }
        Ok(())
    }

    async fn start_again(&self, served: Served) -> Result<(), Refusal> {
        let name = &served.program.name;
        if served.ended.is_none() {
            return Err(Refusal::new(format!("cannot start `{name}`: it runs")));
        }
        let started = match NODES.iter().find(|node| node.name == name) {
            Some(node) => postgres::start_again(&self.site, node.name).await,
            None => {
                self.site
                    .start_listening(served.program, served.place)
                    .await
            }
        };
        started.map_err(|error| Refusal::new(format!("{error}: {}", error.cause)))
    }
}

/// A requested pause takes effect with the next record that is replayed.
async fn wait_until_paused(client: &tokio_postgres::Client) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let state = client
            .query_one("SELECT pg_get_wal_replay_pause_state()", &[])
            .await;
        let state: String = state.map_err(|error| postgres::describe(&error))?.get(0);
        if state == "paused" {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("replay is `{state}`, not `paused`"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The undisturbed shape of a link.
fn usual(from: &str, to: &str) -> Shape {
    Shape {
        latency: layout::delay(from, to),
        bandwidth: None,
        fault: Fault::None,
    }
}

fn process_status(served: &Served) -> ProcessStatus {
    ProcessStatus {
        name: served.program.name.clone(),
        role: served.place.role.to_owned(),
        region: served.place.region.to_owned(),
        address: SocketAddr::V4(served.place.address),
        pid: served
            .ended
            .is_none()
            .then(|| served.pid.as_raw_nonzero().get().unsigned_abs()),
        ended: served.ended.clone(),
    }
}

fn link_status((from, to): (&str, &str), link: &Link) -> LinkStatus {
    let shape = link.shape();
    LinkStatus {
        from: from.to_owned(),
        to: to.to_owned(),
        latency_ms: u64::try_from(shape.latency.as_millis()).unwrap_or(u64::MAX),
        bandwidth: shape.bandwidth,
        fault: shape.fault,
        connections: link.open_connections(),
        in_flight_bytes: link.in_flight(),
    }
}

async fn serve_control(listener: UnixListener, lab: Rc<Parts>) {
    loop {
        if let Ok((client, _)) = listener.accept().await {
            tokio::task::spawn_local(converse(client, Rc::clone(&lab)));
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Requests of one client, one after the other. What goes wrong is the client's to notice.
async fn converse(mut client: UnixStream, lab: Rc<Parts>) {
    let (reading, mut writing) = client.split();
    let mut lines = BufReader::new(reading).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match serde_json::from_str(&line) {
            Ok(request) => lab.carry_out(request).await,
            Err(error) => Err(Refusal::new(format!("cannot read the request: {error}"))),
        };
        let answer =
            answer.unwrap_or_else(|Refusal { error, hint }| Answer::Refused { error, hint });
        let Ok(mut text) = serde_json::to_string(&answer) else {
            return;
        };
        text.push('\n');
        if writing.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}
