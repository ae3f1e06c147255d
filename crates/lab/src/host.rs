//! The hosts of the lab: per host an HAProxy, an sshd with a key of its own and what `region-host install` writes.
//! And per region an edge: the load balancer before its hosts.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::dependency;
use crate::directory::write_private;
use crate::layout::{NODES, Part, RegionPlan, SLOT_PORTS, WORLD, hosts, other_database};
use crate::processes::MARK;
use crate::regions_file::ROUTE_CACHE_TTL;
use crate::running::{Program, StartError};
use crate::site::Site;

/// The key with which controllers log in to every host.
pub(crate) async fn make_deploy_key(site: &Site) -> Result<(), StartError> {
    make_key(site, "deploy key", &site.directory.deploy_key()).await
}

async fn make_key(site: &Site, name: &str, path: &Path) -> Result<(), StartError> {
    let program = Program::new(name, &site.programs.ssh_keygen)
        // A comment, or the name of this machine would be in it.
        .args([
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "regionwise-lab",
            "-f",
        ])
        .arg(path);
    site.running.run(program).await
}

/// Makes a host and waits until its HAProxy and its sshd answer. Needs the deploy key.
pub(crate) async fn start(
    site: &Site,
    region: &RegionPlan,
    host: &'static str,
) -> Result<(), StartError> {
    let root = site.directory.host(host);
    let (sshd_dir, env_file) = (root.join("sshd"), root.join("lab.env"));
    let doing = || format!("prepare host `{host}`");
    let prepare = || {
        fs::create_dir_all(&sshd_dir)?;
        write_private(&env_file, &environment(site, region, host))?;
        fs::write(sshd_dir.join("sshd_config"), sshd_config(site, host, &root))
    };
    prepare().map_err(|error: io::Error| StartError::new(doing(), error))?;
    let host_key = sshd_dir.join("host_key");
    let key = make_key(site, host, &host_key);
    tokio::try_join!(key, install(site, host, &root, &env_file))?;

    let haproxy = Program::new(format!("{host}/haproxy"), &site.programs.haproxy)
        .args(["-db", "-f"])
        .arg(root.join("haproxy.cfg"));
    let sshd = Program::new(format!("{host}/sshd"), &site.programs.sshd)
        .args(["-D", "-e", "-f"])
        .arg(sshd_dir.join("sshd_config"));
    tokio::try_join!(
        site.start_listening(haproxy, site.place("haproxy", Part::HostHttp(host))),
        site.start_listening(sshd, site.place("sshd", Part::HostSsh(host))),
    )?;
    site.tell_up(format!("host {host}"));
    Ok(())
}

async fn install(
    site: &Site,
    host: &'static str,
    root: &Path,
    env_file: &Path,
) -> Result<(), StartError> {
    let mut program = Program::new(host, site.directory.program("region-host"))
        .args(["install", "--app", "shop", "--root"])
        .arg(root)
        .arg("--listen")
        .arg(site.block.inside(Part::HostHttp(host)).to_string());
    for port in SLOT_PORTS {
        program = program.arg("--slot-port").arg(port.to_string());
    }
    let public_key = site.directory.deploy_key().with_extension("pub");
    site.running
        .run(
            program
                .arg("--authorized-key")
                .arg(public_key)
                .arg("--env-file")
                .arg(env_file),
        )
        .await
}

/// What every release on the host finds in its environment.
fn environment(site: &Site, region: &RegionPlan, host: &str) -> String {
    let mut env = format!("REGION={}\nHOST={host}\n", region.name);
    let dependencies = dependency::list(site.block);
    let _ = writeln!(
        env,
        "DEPENDENCIES={dependencies}\n{MARK}={}",
        site.directory.path().display()
    );
    if site.programs.databases.is_some() {
        let bouncer = site.block.inside(Part::Bouncer(region.name));
        let redis = site.block.inside(Part::Redis(region.name));
        let shop = format!("postgres://shop:{}@{bouncer}", site.passwords.shop);
        let _ = writeln!(
            env,
            "WRITE_DATABASE_URL={shop}/shop\nREAD_DATABASE_URL={shop}/shop_read"
        );
        let others: Vec<String> = region
            .other_clusters()
            .map(|other| format!("{}={shop}/{}", other.name, other_database(other)))
            .collect();
        let _ = writeln!(
            env,
            "OTHER_CLUSTERS={}\nROUTE_CACHE_TTL={}s",
            others.join(";"),
            ROUTE_CACHE_TTL.as_secs()
        );
        let _ = writeln!(env, "REDIS_URL=redis://{redis}/");
        // A host that reads from the primary has no lag to watch.
        if NODES
            .iter()
            .any(|node| node.name == region.reads && !node.is_primary())
        {
            let _ = writeln!(env, "READ_REPLICA={}", region.reads);
        }
    }
    env
}

fn sshd_config(site: &Site, host: &'static str, root: &Path) -> String {
    let address = site.block.inside(Part::HostSsh(host));
    let (root, dir) = (root.display(), site.directory.path().display());
    // An ordinary account cannot use PAM, and the files of a lab lie below directories that others may write to. The
    // default key exchange costs ten times the processor time, and a test makes hundreds of connections.
    format!(
        "ListenAddress {address}\n\
         HostKey {root}/sshd/host_key\n\
         PidFile none\n\
         AuthorizedKeysFile {root}/authorized_keys\n\
         UsePAM no\n\
         KexAlgorithms curve25519-sha256\n\
         StrictModes no\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitUserEnvironment no\n\
         PrintMotd no\n\
         UseDNS no\n\
         MaxStartups 100\n\
         SetEnv {MARK}={dir}\n"
    )
}

/// Starts the load balancer of a region.
pub(crate) async fn start_edge(site: &Site, region: &RegionPlan) -> Result<(), StartError> {
    let (dir, part) = (site.directory.region(region.name), Part::Edge(region.name));
    let config = dir.join("edge.cfg");
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(&config, edge_config(site, region)))
        .map_err(|error| {
            StartError::new(format!("prepare the edge of `{}`", region.name), error)
        })?;
    let name = format!("{}/edge", region.name);
    let program = Program::new(name, &site.programs.haproxy)
        .args(["-db", "-f"])
        .arg(config);
    site.start_listening(program, site.place("edge", part))
        .await?;
    site.tell_up(format!("edge of {}", region.name));
    Ok(())
}

/// - A connection of its own per request: a kept one could be closed by the host just when a request is sent.
/// - A request that never reached its host goes to another one. One whose answer was lost does too, but only
///   where doing it twice changes nothing.
/// - A host is out after two failed checks, so that one slow answer moves nobody, and back after one good one.
fn edge_config(site: &Site, region: &RegionPlan) -> String {
    let listen = site.block.inside(Part::Edge(region.name));
    let mut config = format!(
        "global\n\
         \x20 maxconn 2000\n\
         defaults\n\
         \x20 mode http\n\
         \x20 timeout connect 2s\n\
         \x20 timeout client 65s\n\
         \x20 timeout server 65s\n\
         \x20 timeout check 1s\n\
         \x20 option http-server-close\n\
         \x20 option redispatch 1\n\
         \x20 retries 2\n\
         \x20 retry-on conn-failure empty-response\n\
         frontend users\n\
         \x20 bind {listen}\n\
         \x20 http-request disable-l7-retry unless METH_GET\n\
         \x20 default_backend hosts\n\
         backend hosts\n\
         \x20 balance roundrobin\n\
         \x20 option httpchk GET /health/basic\n\
         \x20 default-server check inter 1s downinter 250ms fall 2 rise 1\n"
    );
    for host in region.hosts {
        let _ = writeln!(
            config,
            "  server {host} {}",
            site.block.inside(Part::HostHttp(host))
        );
    }
    config
}

/// The pinned keys of all hosts, as the controller reaches them.
pub(crate) fn write_known_hosts(site: &Site) -> Result<(), StartError> {
    let write = || -> io::Result<()> {
        let mut text = String::new();
        for (_, host) in hosts() {
            let key = fs::read_to_string(site.directory.host(host).join("sshd/host_key.pub"))?;
            let seen = site.block.seen_from(WORLD, Part::HostSsh(host));
            let _ = writeln!(text, "[{}]:{} {}", seen.ip(), seen.port(), key.trim_end());
        }
        fs::write(site.directory.known_hosts(), text)
    };
    write().map_err(|error| StartError::new("write `known_hosts`", error))
}
