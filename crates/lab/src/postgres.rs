//! The Postgres clusters of the lab: one initdb per primary, physical standbys from a cold copy of it.
//!
//! `fsync` is off: a lab survives no power cut, it is thrown away. Copying before the first start is faster than
//! `pg_basebackup` and gives the same thing: standbys with the primary's system_identifier. Two clusters never
//! share one, because each has an initdb of its own.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::path::Path;

use rustix::process::Signal;
use tokio_postgres::{Client, NoTls};

use crate::directory::write_private;
use crate::layout::{CLUSTERS, ClusterPlan, NODES, NodePlan, Part, WORLD};
use crate::programs::Databases;
use crate::regions_file::MigrationRole;
use crate::running::{Program, StartError};
use crate::site::Site;

/// Lets one role measure lag and the product write its own heartbeat.
const HEARTBEAT: &str = "
    CREATE SCHEMA regionwise;
    CREATE TABLE regionwise.heartbeat (
        cluster text NOT NULL,
        writer uuid NOT NULL,
        seq bigint NOT NULL,
        ts timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (cluster, writer)
    ) WITH (fillfactor = 50);
    GRANT USAGE ON SCHEMA regionwise TO regionwise_lag, shop;
    GRANT SELECT, INSERT, UPDATE, DELETE ON regionwise.heartbeat TO regionwise_lag, shop;";

/// The accounts of `migrate-eu-users`. `install` makes triggers on the product's tables, so it acts as their owner, and it makes
/// its own tables beside the heartbeat; the groups get their further rights from it. A plan counts rows before anything is
/// installed, so both may read the product's tables from the beginning. Only a superuser can grant the parameter.
const MIGRATION: &str = "
    ALTER SCHEMA regionwise OWNER TO regionwise_install;
    ALTER DEFAULT PRIVILEGES FOR ROLE shop IN SCHEMA public GRANT SELECT ON TABLES
        TO regionwise_move, regionwise_verify;
    GRANT SET ON PARAMETER session_replication_role TO regionwise_move;";

/// Starts one cluster: its primary, its standbys, roles, the heartbeat table, synchronous standbys.
pub(crate) async fn start_cluster(
    site: &Site,
    databases: &Databases,
    cluster: &'static ClusterPlan,
) -> Result<(), StartError> {
    let Some(primary) = NODES.iter().find(|node| node.name == cluster.primary) else {
        return Err(StartError::new(
            format!("start cluster `{}`", cluster.name),
            "it has no primary",
        ));
    };
    make_data(site, databases, cluster, primary).await?;
    let standbys = async {
        let mut starting = Vec::new();
        for node in cluster.standbys() {
            starting.push(start_node(site, databases, node));
        }
        futures_util::future::try_join_all(starting).await.map(drop)
    };
    let leader = async {
        start_node(site, databases, primary).await?;
        set_up(site, cluster, primary).await
    };
    tokio::try_join!(standbys, leader)?;
    replicate(site, cluster, primary).await?;
    site.tell_up(format!(
        "cluster {} replicates to all its standbys",
        cluster.name
    ));
    migrate(site, cluster, primary).await?;
    catch_up(site, cluster, primary).await
}

/// The data directories of all nodes of a cluster.
async fn make_data(
    site: &Site,
    databases: &Databases,
    cluster: &ClusterPlan,
    primary: &NodePlan,
) -> Result<(), StartError> {
    let data = site.directory.node(primary.name);
    let password_file = site
        .directory
        .path()
        .join(format!("{}.password", primary.name));
    let doing = || format!("prepare cluster `{}`", cluster.name);
    write_private(&password_file, &site.passwords.lab)
        .map_err(|error| StartError::new(doing(), error))?;
    let initdb = Program::new(primary.name, &databases.initdb)
        .args([
            "--username=lab",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ])
        .args(["--no-sync", "--no-instructions", "--pwfile"])
        .arg(&password_file)
        .arg("-D")
        .arg(&data);
    site.running.run(initdb).await?;
    let prepare = || {
        fs::remove_file(&password_file)?;
        append(&data.join("postgresql.conf"), "include 'lab.conf'\n")?;
        fs::write(data.join("pg_hba.conf"), HBA)
    };
    prepare().map_err(|error| StartError::new(doing(), error))?;
    for standby in cluster.standbys() {
        let copy = Program::new(standby.name, "/bin/cp")
            .arg("-a")
            .arg(&data)
            .arg(site.directory.node(standby.name));
        site.running.run(copy).await?;
    }
    let configure = || {
        for node in NODES.iter().filter(|node| node.cluster == cluster.name) {
            let data = site.directory.node(node.name);
            write_private(&data.join("lab.conf"), &config(site, node))?;
            if !node.is_primary() {
                fs::write(data.join("standby.signal"), "")?;
            }
        }
        Ok(())
    };
    configure().map_err(|error: io::Error| StartError::new(doing(), error))
}

/// Every node listens on loopback only, and everybody there has to know a password.
const HBA: &str = "\
host replication replication 127.0.0.0/8 scram-sha-256
host all all 127.0.0.0/8 scram-sha-256
";

fn config(site: &Site, node: &NodePlan) -> String {
    let name = node.name;
    let address = site.block.inside(Part::Node(name));
    // max_connections as initdb had it: a standby from a cold copy refuses to start with less.
    let mut config = format!(
        "cluster_name = '{name}'\n\
         listen_addresses = '{}'\n\
         port = {}\n\
         unix_socket_directories = ''\n\
         wal_level = logical\n\
         max_wal_senders = 10\n\
         max_replication_slots = 10\n\
         max_connections = 100\n\
         shared_buffers = 16MB\n\
         fsync = off\n\
         full_page_writes = off\n\
         max_wal_size = 256MB\n\
         hot_standby_feedback = on\n\
         wal_receiver_status_interval = 1s\n\
         wal_retrieve_retry_interval = 100ms\n\
         log_min_messages = warning\n\
         log_line_prefix = '%m [%p] '\n",
        address.ip(),
        address.port(),
    );
    if !node.is_primary() {
        let primary = site
            .block
            .seen_from(node.region, Part::Node(node.primary().name));
        let _ = write!(
            config,
            "primary_conninfo = 'host={} port={} user=replication password={} application_name={name} \
             sslmode=disable gssencmode=disable'\n\
             primary_slot_name = '{}'\n",
            primary.ip(),
            primary.port(),
            site.passwords.replication,
            slot(name),
        );
    }
    config
}

fn slot(node: &str) -> String {
    node.replace('-', "_")
}

/// The postmaster of a node.
fn program(site: &Site, databases: &Databases, node: &NodePlan) -> Program {
    Program {
        // Immediate shutdown, in which the postmaster ends its children too. A clean one would wait for standbys
        // behind a cut link, and no lab is started twice from the same data.
        death_signal: Signal::QUIT,
        stop_signal: Signal::QUIT,
        ..Program::new(node.name, &databases.postgres)
            .arg("-D")
            .arg(site.directory.node(node.name))
    }
}

async fn start_node(site: &Site, databases: &Databases, node: &NodePlan) -> Result<(), StartError> {
    let role = if node.is_primary() {
        "postgres primary"
    } else {
        "postgres standby"
    };
    let place = site.place(role, Part::Node(node.name));
    site.start(program(site, databases, node), place, || async {
        let client = connect_inside(site, node.name, "postgres").await?;
        client
            .simple_query("SELECT 1")
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await?;
    site.tell_up(format!("{role} {}", node.name));
    Ok(())
}

/// Starts a node whose postmaster was killed. For a while the dead one's memory may still be in use, and Postgres
/// refuses to start.
pub(crate) async fn start_again(site: &Site, node: &'static str) -> Result<(), StartError> {
    let Some((databases, node)) = site
        .programs
        .databases
        .as_ref()
        .zip(NODES.iter().find(|plan| plan.name == node))
    else {
        return Err(StartError::new(
            format!("start `{node}`"),
            "this lab has no clusters",
        ));
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match start_node(site, databases, node).await {
            Err(_) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            done => return done,
        }
    }
}

/// Roles, database, slots and the heartbeat table.
async fn set_up(site: &Site, cluster: &ClusterPlan, primary: &NodePlan) -> Result<(), StartError> {
    let passwords = &site.passwords;
    let mut roles = format!(
        "CREATE ROLE replication LOGIN REPLICATION PASSWORD '{}';
         CREATE ROLE regionwise_lag LOGIN PASSWORD '{}';
         GRANT pg_monitor TO regionwise_lag;
         CREATE ROLE shop LOGIN PASSWORD '{}';
         CREATE ROLE regionwise_move NOLOGIN;
         CREATE ROLE regionwise_verify NOLOGIN;
         CREATE ROLE regionwise_install LOGIN PASSWORD '{migration}' IN ROLE shop;
         CREATE ROLE regionwise_mover LOGIN PASSWORD '{migration}' IN ROLE regionwise_move;
         CREATE ROLE regionwise_verifier LOGIN PASSWORD '{migration}' IN ROLE regionwise_verify;\n",
        passwords.replication,
        passwords.lag,
        passwords.shop,
        migration = passwords.migration,
    );
    for standby in cluster.standbys() {
        // Reserved at once: the standby needs everything since the cold copy.
        let slot = slot(standby.name);
        let _ = writeln!(
            roles,
            "SELECT pg_create_physical_replication_slot('{slot}', true);"
        );
    }
    let execute = async |database: &str, sql: &str| -> Result<(), String> {
        let client = connect_inside(site, primary.name, database).await?;
        client
            .batch_execute(sql)
            .await
            .map_err(|error| describe(&error))
    };
    let all = async {
        execute("postgres", &roles).await?;
        // Not inside a transaction, so on its own.
        execute("postgres", "CREATE DATABASE shop OWNER shop").await?;
        execute("shop", HEARTBEAT).await?;
        execute("shop", MIGRATION).await
    };
    all.await
        .map_err(|cause| StartError::new(format!("set `{}` up", primary.name), cause))
}

/// Waits until every standby streams, and then asks for synchronous ones where the cluster wants them.
async fn replicate(
    site: &Site,
    cluster: &ClusterPlan,
    primary: &NodePlan,
) -> Result<(), StartError> {
    let names: Vec<&str> = cluster.standbys().map(|standby| standby.name).collect();
    let doing = format!("stream from `{}` to {}", primary.name, names.join(" and "));
    let client = site
        .until(&doing, None, || connect_inside(site, primary.name, "shop"))
        .await?;
    let client = &client;
    let wait_for = async |column: &'static str, word: &'static str| {
        site.until(&doing, None, || async {
            let sql =
                format!("SELECT count(*)::int4 FROM pg_stat_replication WHERE {column} = '{word}'");
            let row = client
                .query_one(&sql, &[])
                .await
                .map_err(|error| describe(&error))?;
            let ready: i32 = row.get(0);
            let wanted = i32::try_from(names.len()).unwrap_or(i32::MAX);
            if ready == wanted {
                Ok(())
            } else {
                Err(format!("{ready} of {wanted} have {column} {word}"))
            }
        })
        .await
    };
    wait_for("state", "streaming").await?;
    if cluster.sync == 0 {
        return Ok(());
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let wanted = format!("ANY {} ({})", cluster.sync, quoted.join(","));
    let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{wanted}'");
    let set = async {
        client.batch_execute(&sql).await?;
        client.batch_execute("SELECT pg_reload_conf()").await
    };
    set.await
        .map_err(|error| StartError::new(&doing, describe(&error)))?;
    wait_for("sync_state", "quorum").await
}

/// The product's own tables, made by the product.
async fn migrate(site: &Site, cluster: &ClusterPlan, primary: &NodePlan) -> Result<(), StartError> {
    let address = site.block.inside(Part::Node(primary.name));
    let name = format!("migrate-{}", cluster.name);
    let migrate = Program::new(name, site.directory.program("reference-api"))
        .args(["migrate", "--database-url"])
        // In a lab the argument list is no secret: all of it is one account's, and thrown away.
        .arg(dsn("shop", &site.passwords.shop, address))
        .args([
            "--id-offset",
            &cluster.id_offset.to_string(),
            "--id-step",
            &CLUSTERS.len().to_string(),
        ]);
    site.running.run(migrate).await?;
    site.tell_up(format!("tables of the product in {}", cluster.name));
    Ok(())
}

/// Waits until every standby has replayed all of it. One that streams may still be at its beginning, without the
/// product's database.
async fn catch_up(
    site: &Site,
    cluster: &ClusterPlan,
    primary: &NodePlan,
) -> Result<(), StartError> {
    let doing = format!("replay what `{}` has written", primary.name);
    let written = site
        .until(&doing, None, || async {
            let client = connect_inside(site, primary.name, "shop").await?;
            one_text(&client, "SELECT pg_current_wal_flush_lsn()::text").await
        })
        .await?;
    for standby in cluster.standbys() {
        let doing = format!("{doing} on `{}`", standby.name);
        // Asked there: what the primary knows of it can be a second old.
        let replayed = format!("SELECT (pg_last_wal_replay_lsn() >= '{written}')::text");
        site.until(&doing, Some(standby.name), || async {
            let client = connect_inside(site, standby.name, "shop").await?;
            match one_text(&client, &replayed).await?.as_str() {
                "true" => Ok(()),
                _ => Err(format!("it is not at {written} yet")),
            }
        })
        .await?;
    }
    Ok(())
}

async fn one_text(client: &Client, sql: &str) -> Result<String, String> {
    let row = client.query_one(sql, &[]).await;
    let row = row.map_err(|error| describe(&error))?;
    let text: Option<String> = row.get(0);
    text.ok_or_else(|| format!("no answer to `{sql}`"))
}

fn dsn(role: &str, password: &str, address: SocketAddrV4) -> String {
    format!("postgres://{role}:{password}@{address}/shop")
}

/// How the gate's role reaches a node from outside.
pub(crate) fn lag_dsn(site: &Site, node: &'static str) -> String {
    dsn(
        "regionwise_lag",
        &site.passwords.lag,
        site.block.seen_from(WORLD, Part::Node(node)),
    )
}

/// How one of the accounts of `migrate-eu-users` reaches a primary from outside.
pub(crate) fn migration_dsn(site: &Site, role: MigrationRole, node: &'static str) -> String {
    dsn(
        role.account(),
        &site.passwords.migration,
        site.block.seen_from(WORLD, Part::Node(node)),
    )
}

/// How the superuser reaches a node from outside.
pub(crate) fn admin_dsn(site: &Site, node: &'static str) -> String {
    dsn(
        "lab",
        &site.passwords.lab,
        site.block.seen_from(WORLD, Part::Node(node)),
    )
}

/// Connects as superuser without crossing any link, so that a cut does not lock the lab out.
pub(crate) async fn connect_inside(
    site: &Site,
    node: &'static str,
    database: &str,
) -> Result<Client, String> {
    let address = site.block.inside(Part::Node(node));
    let mut config = tokio_postgres::Config::new();
    config
        .host(address.ip().to_string())
        .port(address.port())
        .user("lab")
        .password(&site.passwords.lab)
        .dbname(database)
        .application_name("lab");
    let (client, connection) = config
        .connect(NoTls)
        .await
        .map_err(|error| describe(&error))?;
    // Its error reaches the statement that was waiting.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// tokio-postgres says only "db error"; what the server said is the source.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .open(path)?
        .write_all(text.as_bytes())
}
