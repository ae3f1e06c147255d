//! Per region: PgBouncer in transaction mode before the region's databases, and a Redis.

use std::fs;

use crate::directory::write_private;
use crate::layout::{Part, RegionPlan, other_database};
use crate::programs::Databases;
use crate::running::{Program, StartError};
use crate::site::Site;

/// Starts PgBouncer and Redis of a region.
pub(crate) async fn start(
    site: &Site,
    databases: &Databases,
    region: &RegionPlan,
) -> Result<(), StartError> {
    let dir = site.directory.region(region.name);
    let (config, users) = (dir.join("pgbouncer.ini"), dir.join("userlist.txt"));
    fs::create_dir_all(&dir)
        .and_then(|()| write_private(&users, &format!("\"shop\" \"{}\"\n", site.passwords.shop)))
        .and_then(|()| {
            fs::write(
                &config,
                bouncer_config(site, region, &users.display().to_string()),
            )
        })
        .map_err(|error| {
            StartError::new(format!("prepare PgBouncer of `{}`", region.name), error)
        })?;
    let bouncer =
        Program::new(format!("{}/pgbouncer", region.name), &databases.pgbouncer).arg(config);
    let address = site.block.inside(Part::Redis(region.name));
    let redis = Program::new(format!("{}/redis", region.name), &databases.redis)
        .args([
            "--bind",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
        ])
        // A cache: nothing is kept. Protected mode would refuse every address but 127.0.0.1.
        .args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--protected-mode",
            "no",
            "--dir",
        ])
        .arg(dir);
    tokio::try_join!(
        site.start_listening(bouncer, site.place("pgbouncer", Part::Bouncer(region.name))),
        site.start_listening(redis, site.place("redis", Part::Redis(region.name))),
    )?;
    site.tell_up(format!("pgbouncer and redis of {}", region.name));
    Ok(())
}

/// `shop` goes to the writer of the region's cluster, `shop_read` to the nearest node of the same cluster, and one per other
/// cluster to its writer: a user may be at home there.
fn bouncer_config(site: &Site, region: &RegionPlan, users: &str) -> String {
    let database = |name: &str, node: &'static str| {
        let address = site.block.seen_from(region.name, Part::Node(node));
        format!(
            "{name} = host={} port={} dbname=shop",
            address.ip(),
            address.port()
        )
    };
    let own = [
        database("shop", region.primary()),
        database("shop_read", region.reads),
    ];
    let others = region
        .other_clusters()
        .map(|cluster| database(&other_database(cluster), cluster.primary));
    let databases: Vec<String> = own.into_iter().chain(others).collect();
    let databases = databases.join("\n");
    let listen = site.block.inside(Part::Bouncer(region.name));
    // By default one failed login to the server makes every login fail for 15 s.
    format!(
        "[databases]\n\
         {databases}\n\
         [pgbouncer]\n\
         listen_addr = {}\n\
         listen_port = {}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = {users}\n\
         pool_mode = transaction\n\
         max_client_conn = 400\n\
         default_pool_size = 10\n\
         server_login_retry = 0.2\n\
         server_connect_timeout = 5\n\
         query_wait_timeout = 10\n\
         ignore_startup_parameters = extra_float_digits\n",
        listen.ip(),
        listen.port(),
    )
}
