//! From an empty account to a served request in three regions: orders, first boots, first sessions, mesh, databases, a release,
//! the gates, and a reboot. Each of the three servers carries the host and the Postgres of its region.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use regionwise_lab::guests::{Guest, Guests, Machine};
use regionwise_lab::hetzner::Hetzner;
use regionwise_provision::host::mesh;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::setting_up::{DEPLOY, PROVISION, SMOKE};
use crate::{ports, world};

const CHECK_LAG: &str = env!("CARGO_BIN_EXE_check-replication-lag");
const TOKEN: &str = "hunter2hunter2hunter2hunter2";
const APP_PASSWORD: &str = "not-in-any-report";
const LAG_PASSWORD: &str = "nor-in-any-other";
/// Region, host, its cluster's node, and the server's address: the guests' network gives them in this order.
const PLACES: [(&str, &str, &str, u8); 3] = [
    ("us-east", "us-1", "us-primary", 11),
    ("ap-singapore", "sin-1", "us-sin", 12),
    ("eu-central", "eu-1", "eu-primary", 13),
];
/// Three at once, beside whatever else the machine does.
const BOOT: Duration = Duration::from_secs(400);
const MINUTE: Duration = Duration::from_secs(60);
/// One way, for what leaves Singapore.
const OCEAN: Duration = Duration::from_millis(45);

/// Somebody with an empty account, a regions.toml and two keys.
struct Founder {
    directory: PathBuf,
    hetzner: Arc<Hetzner>,
    started: Instant,
}

fn in_the_mesh(host: &str) -> Ipv6Addr {
    mesh::address("shop", &format!("shop-{host}"))
}

impl Founder {
    fn new(runtime: &Runtime) -> Self {
        let directory = world::directory("three-regions-desk");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let hetzner = runtime.block_on(Hetzner::start(TOKEN)).unwrap();
        let addresses = PLACES.map(|(_, _, _, last)| Ipv4Addr::new(10, 77, 0, last));
        // The next one is the last one.
        hetzner.project(|project| project.addresses = addresses.into_iter().rev().collect());
        let founder = Self {
            directory,
            hetzner: Arc::new(hetzner),
            started: Instant::now(),
        };
        founder.write("regions.toml", include_str!("three_regions.toml"));
        for (region, host, node, _) in PLACES {
            let replica = match node {
                "us-sin" => "READ_REPLICA=us-sin\n",
                _ => "",
            };
            founder.write(
                &format!("{region}.env"),
                &format!(
                    "REGION={region}\nHOST={host}\nWRITE_DATABASE_URL=postgres://shop:{APP_PASSWORD}@127.0.0.1:6432/shop\n\
                     READ_DATABASE_URL=postgres://shop:{APP_PASSWORD}@127.0.0.1:6432/shop_read\n{replica}"
                ),
            );
        }
        for key in ["root", "deploy"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
                .arg(founder.path(key))
                .status();
            assert!(made.unwrap().success());
        }
        // Emulated, a debug build takes long to travel and to be hashed.
        for (name, built) in [
            ("region-host", env!("CARGO_BIN_EXE_region-host")),
            ("shop-api", env!("CARGO_BIN_EXE_reference-api")),
        ] {
            let stripped = Command::new("strip")
                .arg("-o")
                .arg(founder.path(name))
                .arg(built)
                .status();
            assert!(stripped.unwrap().success());
        }
        founder.write("v1.toml", "name = \"v1\"\nartifact = \"shop-api\"\n");
        founder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn passed(&self, what: &str) {
        println!("{what} after {:.0} s", self.started.elapsed().as_secs_f64());
    }

    /// A binary with what somebody has in the environment; `command` says where it runs.
    fn given(&self, mut command: Command, words: &[&str]) -> Command {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("REGIONWISE_")) {
            if name != "REGIONWISE_LAB" {
                command.env_remove(name);
            }
        }
        let app = format!("postgres://shop:{APP_PASSWORD}@127.0.0.1:5432/shop");
        command
            .args(words)
            .args(["--format", "json", "--ci", "none"])
            .env("HCLOUD_TOKEN", TOKEN)
            .env("REGIONWISE_HCLOUD_ENDPOINT", self.hetzner.url())
            .env("REGIONWISE_TICK", "20ms")
            .env("APP_DSN", app)
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        for (name, value) in dsns() {
            command.env(name, value);
        }
        command
    }

    #[track_caller]
    fn ends_well(&self, command: Command, words: &[&str]) -> Value {
        let output = self.given(command, words).output().unwrap();
        said_well(&output, words)
    }

    fn order(&self, region: &str) {
        let words = ["--region", region, "--servers-only"];
        self.ends_well(Command::new(PROVISION), &words);
    }

    /// `provision-region` with what a set-up needs, from where the servers are reached.
    #[track_caller]
    fn with_servers(&self, guests: &Guests, words: &[&str], region: &str) -> Value {
        let env = format!("{region}.env");
        let more = [
            "--region",
            region,
            "--env-file",
            &env,
            "--region-host",
            "region-host",
            "--root-key",
            "root",
        ];
        self.ends_well(guests.command(PROVISION), &[words, &more].concat())
    }

    #[track_caller]
    fn set_up(&self, guests: &Guests, region: &str) -> Value {
        self.with_servers(guests, &[], region)
    }

    #[track_caller]
    fn makes(&self, guests: &Guests, region: &str) {
        let made = self.set_up(guests, region);
        assert_eq!(made["result"]["changed"], true, "{made:#}");
        self.passed(&format!("{region} is set up"));
    }

    /// `drift --servers`, which must find nothing.
    #[track_caller]
    fn compares(&self, guests: &Guests, region: &str) {
        let seen = self.with_servers(guests, &["drift", "--servers"], region);
        let summary = seen["summary"].as_str().unwrap();
        assert!(
            summary.contains("Its servers are as a set-up would make them."),
            "{seen:#}"
        );
    }

    /// What another runner has: the same commit, and the same account.
    fn another_checkout(&self) -> Self {
        let directory = world::directory("three-regions-desk-2");
        let _ = fs::remove_dir_all(&directory);
        let copied = Command::new("cp")
            .args(["-r"])
            .args([&self.directory, &directory])
            .status();
        assert!(copied.unwrap().success());
        Self {
            directory,
            hetzner: Arc::clone(&self.hetzner),
            started: self.started,
        }
    }

    /// Takes over what the other run has learnt, as a merge of its branch does.
    fn merges(&self, other: &Self) {
        let read = |founder: &Self, name: &str| fs::read_to_string(founder.path(name)).unwrap();
        let both = read(self, "known_hosts") + &read(other, "known_hosts");
        self.write("known_hosts", &both);
        for file in fs::read_dir(other.path("certificates")).unwrap() {
            let file = file.unwrap();
            let to = self.path("certificates").join(file.file_name());
            fs::copy(file.path(), to).unwrap();
        }
    }

    /// From now on they show keys of their own.
    fn pins(&self, guests: &Guests) {
        for guest in guests.all() {
            fs::copy(self.path("known_hosts"), &guest.known_hosts).unwrap();
        }
    }

    /// What the cloud does with the ssh keys of an order: root's account is opened by them. The guest shows the key it was born with.
    fn let_root_in(&self, guest: &Guest, user_data: &str) {
        let born = user_data
            .lines()
            .find_map(|line| line.strip_prefix("  ed25519_public: "))
            .unwrap();
        fs::write(&guest.known_hosts, format!("{} {born}\n", guest.address)).unwrap();
        let public = fs::read_to_string(self.path("root.pub")).unwrap();
        let add = format!("echo '{}' >> /root/.ssh/authorized_keys", public.trim());
        until("it answers ssh", BOOT, || guest.ssh(&add).is_ok());
    }
}

#[track_caller]
fn said_well(output: &Output, words: &[&str]) -> Value {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    for secret in [TOKEN, APP_PASSWORD, LAG_PASSWORD, "PRIVATE KEY"] {
        assert!(
            !stdout.contains(secret) && !stderr.contains(secret),
            "a secret"
        );
    }
    assert!(output.status.success(), "{words:?}\n{stdout}\n{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// What a node's monitor logs in with, from the machine that regions.toml lets in.
fn dsns() -> Vec<(String, String)> {
    PLACES
        .iter()
        .map(|(_, _, node, last)| {
            let name = format!("{}_DSN", node.to_uppercase().replace('-', "_"));
            let dsn = format!(
                "host={node} hostaddr=10.77.0.{last} dbname=shop user=lag password={LAG_PASSWORD} \
                 sslmode=verify-full sslrootcert=certificates/{node}.pem"
            );
            (name, dsn)
        })
        .collect()
}

fn sql(guest: &Guest, query: &str) -> String {
    let run = format!("runuser -u postgres -- psql -qAtX -d shop -c \"{query}\"");
    guest.ssh(&run).unwrap().trim().to_owned()
}

#[test]
#[ignore = "guests: scripts/test runs them as root"]
fn an_empty_account_becomes_three_regions_that_serve() {
    let runtime = Runtime::new().unwrap();
    let founder = Founder::new(&runtime);
    for (region, ..) in PLACES {
        founder.order(region);
    }
    let machines: Vec<Machine> = PLACES
        .iter()
        .map(|(_, host, ..)| {
            let servers = founder.hetzner.servers();
            let server = servers
                .iter()
                .find(|server| server.name == format!("shop-{host}"));
            let user_data = server.unwrap().user_data.clone().unwrap();
            assert!(!user_data.contains(APP_PASSWORD) && !user_data.contains(LAG_PASSWORD));
            Machine::born(host, &user_data)
        })
        .collect();
    let Some(guests) = world::start_installed("three-regions", &machines) else {
        return;
    };
    for (guest, machine) in guests.all().iter().zip(&machines) {
        founder.let_root_in(guest, &machine.user_data);
    }
    founder.passed("three servers have booted");
    let url = founder.hetzner.url();
    let port = url.trim_end_matches("/v1").rsplit(':').next().unwrap();
    let inside = guests.listener(([127, 0, 0, 1], port.parse().unwrap()).into());
    runtime
        .block_on(founder.hetzner.also_on(inside.unwrap()))
        .unwrap();
    // The EU's runner has a checkout of its own, and both begin at once; Singapore comes when both are there.
    let europe = founder.another_checkout();
    thread::scope(|scope| {
        for (founder, region) in [(&founder, "us-east"), (&europe, "eu-central")] {
            let guests = &guests;
            scope.spawn(move || founder.makes(guests, region));
        }
    });
    founder.merges(&europe);
    let [us, sin, eu] = guests.all() else {
        unreachable!("three were booted")
    };
    // From before its first session: its standby is copied over that way, too.
    let delay = OCEAN.as_millis();
    sin.ssh(&format!("tc qdisc add dev eth0 root netem delay {delay}ms"))
        .unwrap();
    founder.makes(&guests, "ap-singapore");
    founder.pins(&guests);

    the_databases_are_one_cluster_each(us, sin, eu);
    a_release_serves_everywhere(&founder, &guests);
    the_standby_keeps_up_with_the_ocean_in_between(&founder, &guests);
    founder.passed("serving");
    nobody_outside_of_the_eu_receives(us, sin);
    only_the_documented_ports_answer(&guests);
    founder.passed("scanned");

    let writes = founder.hetzner.writes();
    // Of all servers: it is about those of the other regions, too.
    let again = founder.set_up(&guests, "us-east");
    assert_eq!(again["result"]["changed"], false, "{again:#}");
    assert_eq!(
        founder.hetzner.writes(),
        writes,
        "a second run orders nothing"
    );
    let summary = again["summary"].as_str().unwrap();
    assert!(summary.contains("its parts are healthy"), "{again:#}");
    for region in ["us-east", "ap-singapore"] {
        founder.compares(&guests, region);
    }
    founder.passed("looked at again");

    us.reboot().unwrap();
    serves(&founder, &guests, "us-east");
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    until("the standby streams again", MINUTE, || {
        sql(us, streaming) == "1"
    });
    founder.passed("again after a reboot of a primary");
    assert!(founder.hetzner.invalid().is_empty());
}

fn the_databases_are_one_cluster_each(us: &Guest, sin: &Guest, eu: &Guest) {
    let receivers = "SELECT application_name || ' ' || state FROM pg_stat_replication";
    assert_eq!(sql(us, receivers), "us-sin streaming");
    assert_eq!(sql(eu, receivers), "", "the EU's cluster has no standby");
    let tls = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
    assert_eq!(sql(us, tls), "t");
    assert_eq!(sql(sin, "SELECT pg_is_in_recovery()"), "t");
    let system = "SELECT system_identifier FROM pg_control_system()";
    assert_eq!(sql(us, system), sql(sin, system));
    assert_ne!(sql(us, system), sql(eu, system));
    // It compares code points: there is no version that could differ.
    let collation = "SELECT datcollate || ' ' || coalesce(datcollversion, 'without a version') FROM pg_database WHERE datname = 'shop'";
    for guest in [us, sin, eu] {
        assert_eq!(
            sql(guest, collation),
            "C.UTF-8 without a version",
            "{}",
            guest.name
        );
    }
    // Every server has shaken hands with both others.
    for guest in [us, sin, eu] {
        let hands = guest
            .ssh("wg show all latest-handshakes | awk '$NF > 0' | wc -l")
            .unwrap();
        assert_eq!(hands.trim(), "2", "{}", guest.name);
    }
}

fn a_release_serves_everywhere(founder: &Founder, guests: &Guests) {
    for (region, ..) in PLACES {
        let operation = format!("first-{region}");
        let words = [
            "--region",
            region,
            "--release",
            "v1.toml",
            "--operation",
            &operation,
        ];
        founder.ends_well(guests.command(DEPLOY), &words);
    }
    // The schema comes from the release itself, on the primaries.
    let [us, _, eu] = guests.all() else {
        unreachable!("three were booted")
    };
    for guest in [us, eu] {
        guest
            .ssh(&format!(
                "WRITE_DATABASE_URL=postgres://shop:{APP_PASSWORD}@127.0.0.1:5432/shop /var/lib/regionwise/shop/blobs/* migrate"
            ))
            .unwrap();
    }
    for (region, ..) in PLACES {
        serves(founder, guests, region);
    }
    // Who signs up in the US is read in Singapore, from its standby.
    let ask = |script: &str| {
        let output = guests.command("sh").args(["-c", script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let created = ask(
        "curl -s -m 20 -H 'content-type: application/json' -d '{\"email\":\"a@shop.example\",\"name\":\"A\",\"billing_country\":\"US\"}' http://10.77.0.11/users",
    );
    let created: Value =
        serde_json::from_str(&created).unwrap_or_else(|error| panic!("{error}: {created}"));
    let id = created["id"].as_i64().unwrap();
    until("the row is in Singapore", MINUTE, || {
        ask(&format!("curl -s -m 20 http://10.77.0.12/users/{id}")).contains("a@shop.example")
    });
}

#[track_caller]
fn serves(founder: &Founder, guests: &Guests, region: &str) {
    let words = [
        "--region",
        region,
        "--expect-release",
        "v1",
        "--endpoints",
        "basic,db",
    ];
    founder.ends_well(guests.command(SMOKE), &words);
}

fn the_standby_keeps_up_with_the_ocean_in_between(founder: &Founder, guests: &Guests) {
    let words = ["--cluster", "us", "--observe", "12s"];
    let said = founder.ends_well(guests.command(CHECK_LAG), &words);
    println!("lag over the ocean: {}", said["result"]["standbys"][0]);
}

/// A server of the US is in the mesh, and no cluster of the EU lets it receive; one of its own does.
fn nobody_outside_of_the_eu_receives(us: &Guest, sin: &Guest) {
    let receive = |from: &Guest, host: &str, user: &str| {
        let host = in_the_mesh(host);
        let receive = format!(
            "PGPASSWORD={APP_PASSWORD} runuser -u postgres -- psql 'host={host} user={user} replication=true sslmode=require \
             sslcert=/etc/regionwise/postgres/server.crt sslkey=/etc/regionwise/postgres/server.key' -c IDENTIFY_SYSTEM 2>&1; true"
        );
        from.ssh(&receive).unwrap()
    };
    for user in ["replica_us_sin", "postgres", "shop", "lag"] {
        for from in [us, sin] {
            let said = receive(from, "eu-1", user);
            assert!(
                said.contains("FATAL") || said.contains("alert"),
                "{user} from {}: {said}",
                from.name
            );
        }
    }
    let said = receive(sin, "us-1", "replica_us_sin");
    assert!(said.contains("systemid"), "the same where it may: {said}");
}

fn only_the_documented_ports_answer(guests: &Guests) {
    let [us, sin, _] = guests.all() else {
        unreachable!("three were booted")
    };
    // Somebody forgot a program that listens everywhere.
    us.ssh(
        "systemd-run --quiet --unit=forgotten python3 -m http.server 8000 \
         && timeout 60 sh -c 'until curl -sf -o /dev/null http://127.0.0.1:8000/; do sleep 0.5; done'",
    )
    .unwrap();
    let asked = ports::worth_asking(us);
    assert!(asked.contains(&8000), "{asked:?}");
    let scan = |to: &str| format!("python3 -c '{}'", ports::scan(to, &asked));
    let mut outside = guests.command("sh");
    let outside = outside
        .args(["-c", &scan(&us.address.to_string())])
        .output();
    let carries = ["every server", "host", "node"];
    // The bridge's address is the one that may ask the database.
    let may = ["anywhere", "provision.database.clients"];
    assert_eq!(
        ports::answered(&outside.unwrap().stdout),
        ports::documented(&carries, &may)
    );
    // What it offers to anybody on its public address it does not offer in the mesh.
    let found = sin.ssh(&scan(&in_the_mesh("us-1").to_string())).unwrap();
    assert_eq!(
        ports::answered(found.as_bytes()),
        ports::documented(&carries, &["the mesh"])
    );
}

/// Emulated machines take seconds for what others do at once.
#[track_caller]
fn until(what: &str, limit: Duration, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(500));
    }
}
