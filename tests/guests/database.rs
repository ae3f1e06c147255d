//! Two servers in two places become the primary and the standby of a cluster, over the mesh and 45 ms of line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::Instant;

use regionwise_lab::guests::{Guest, Guests, Machine};
use regionwise_provision::host::{
    Account, AccountKind, Backup, Bouncer, Database, Mesh, Migration, Opening, Part, Peer, Redis,
    Replica, Server, Source, System, Transport, Upstream, keys, logins, mesh, renewal, steps,
};
use regionwise_provision::said::{End, Line, State};
use regionwise_provision::script::{GUARD_DIRECTORY, render};
use regionwise_provision::step::Step;

use crate::certificate_tool::AGED;
use crate::store::Store;
use crate::world;

const PRODUCT: &str = "shop";
const VOLUME: u32 = 4711;
/// What the mesh between both places takes for a way.
const DELAY: &str = "45ms";

/// What the backups of the lab are encrypted with.
pub(crate) const PASSPHRASE: &str = "passphrase-of-backup";

/// One run of a script.
pub(crate) struct Ran {
    pub(crate) changed: Vec<String>,
    pub(crate) notes: Vec<String>,
    facts: BTreeMap<String, String>,
    /// Step and what it said.
    pub(crate) failed: Option<(String, String)>,
}

/// Uploads, runs, and confirms by another login, as provision-region does.
pub(crate) fn run(guest: &Guest, steps: &[Step]) -> Ran {
    let script = render(steps);
    let secrets = Backup::secrets("key-of-backup", "secret-of-backup", PASSPHRASE);
    let secrets = secrets.trim_end();
    guest
        .ssh(&format!(
            "umask 077; mkdir -p /run/sent && cd /run/sent && echo password-of-monitor > password-regionwise_lag \
             && echo password-of-shop > password-shop \
             && echo password-of-mover > password-mover \
             && echo password-of-redis > redis-password && echo '{secrets}' > backup-secrets && cat > script << 'SENT'\n{script}\nSENT"
        ))
        .unwrap();
    let said = guest
        .ssh("sh /run/sent/script apply /run/sent || true; rm -rf /run/sent")
        .unwrap();
    let mut ran = Ran {
        changed: Vec::new(),
        notes: Vec::new(),
        facts: BTreeMap::new(),
        failed: None,
    };
    let mut end = None;
    for line in said.lines().filter_map(Line::parse) {
        match line {
            Line::Step { state, name, text } => match state {
                State::Changed => ran.changed.push(name),
                State::Failed => ran.failed = Some((name, text)),
                State::Ok | State::Would => {}
            },
            Line::Note { step, text } if step == "bouncer-notes" => {
                assert!(
                    text.starts_with("PgBouncer 1.18 forgets prepared statements"),
                    "{text}"
                );
            }
            Line::Note { text, .. } => ran.notes.push(text),
            Line::Fact { name, value } => drop(ran.facts.insert(name, value)),
            Line::End(said) => end = Some(said),
        }
    }
    match end {
        Some(End::Armed) => drop(guest.ssh(&format!("sh {GUARD_DIRECTORY}/confirm")).unwrap()),
        Some(End::Done) => assert!(ran.failed.is_none(), "{said}"),
        Some(End::Failed) => assert!(ran.failed.is_some(), "{said}"),
        other => panic!("{}: {other:?}\n{said}", guest.name),
    }
    ran
}

/// As [`run`], of a script that must not fail.
#[track_caller]
pub(crate) fn set_up(guest: &Guest, server: &Server) -> Ran {
    let ran = run(guest, &steps(server));
    assert_eq!(ran.failed, None, "{}", guest.name);
    ran
}

/// Both servers, and what they have said of themselves.
struct Pair<'a> {
    guests: &'a Guests,
    facts: [BTreeMap<String, String>; 2],
    /// `None`: the cluster has none yet.
    backup: Option<Backup>,
}

impl Pair<'_> {
    fn guest(&self, which: usize) -> &Guest {
        &self.guests.all()[which]
    }

    fn replica(&self, which: usize) -> Replica {
        let server = &self.guest(which).name;
        Replica {
            node: format!("{server}-node"),
            server: server.clone(),
            address: mesh::address(PRODUCT, server),
            certificate: self.facts[which].get("certificate").cloned(),
        }
    }

    /// `last`: it is set up for the last time in a run.
    fn server(&self, which: usize, last: bool) -> Server {
        let other = self.guest(1 - which);
        let key = self.facts[1 - which].get("wireguard");
        let peers = key.map(|key| Peer {
            name: other.name.clone(),
            public_key: key.clone(),
            endpoint: Some(other.address.into()),
        });
        let part = match which {
            0 => Part::Primary {
                first: true,
                standbys: vec![self.replica(1)],
                known: vec![self.replica(1).node],
                sync: 1,
                complete: true,
                last,
            },
            _ => Part::Standby {
                primary: self.replica(0),
            },
        };
        let opening = |transport, port, from| Opening {
            transport,
            port,
            from,
        };
        let outside = Source::Ranges(vec!["10.77.0.0/24".parse().unwrap()]);
        let account = |name: &str, kind| Account {
            name: name.to_owned(),
            kind,
        };
        Server {
            mesh: Some(Mesh {
                product: PRODUCT.to_owned(),
                name: self.guest(which).name.clone(),
                port: 51820,
                peers: peers.into_iter().collect(),
            }),
            database: Some(Database {
                cluster: "eu".to_owned(),
                node: self.replica(which).node,
                part,
                volume: (which == 0).then_some(VOLUME.into()),
                database: "shop".to_owned(),
                accounts: vec![
                    account("regionwise_lag", AccountKind::Monitor),
                    account("shop", AccountKind::App),
                    account("mover", AccountKind::Mover),
                ],
                migration: Some(Migration {
                    movers: vec!["mover".to_owned()],
                    verifiers: vec!["mover".to_owned()],
                }),
                clients: vec![
                    "10.77.0.1/32".parse().unwrap(),
                    IpAddr::from(self.replica(1).address).into(),
                ],
                listen: vec![self.guest(which).address.into()],
                backup: self.backup.clone(),
            }),
            // The second server is a host, too, as far as its way to the database goes.
            bouncer: (which == 1 && self.facts[0].contains_key("certificate")).then(|| {
                let upstream = |which: usize, address: IpAddr| Upstream {
                    node: self.replica(which).node,
                    address,
                    port: 5432,
                    certificate: self.facts[which]["certificate"].clone(),
                };
                Bouncer {
                    cluster: "eu".to_owned(),
                    database: "shop".to_owned(),
                    account: "shop".to_owned(),
                    write: upstream(0, self.replica(0).address.into()),
                    read: upstream(1, [127, 0, 0, 1].into()),
                }
            }),
            redis: (which == 0).then(|| Redis {
                listen: vec![self.replica(0).address.into()],
                account: "shop".to_owned(),
            }),
            ..Server::bare(System {
                ssh_port: 22,
                open: vec![
                    opening(Transport::Udp, 51820, Source::Anywhere),
                    opening(Transport::Tcp, 5432, Source::Mesh),
                    opening(Transport::Tcp, 6379, Source::Mesh),
                    opening(Transport::Tcp, 5432, outside),
                ],
            })
        }
    }

    /// A login from outside both servers.
    fn login(&self, settings: &str, password: &str) -> Result<String, String> {
        let address = IpAddr::from(self.guest(0).address);
        let mut psql = self.guests.command("psql");
        psql.env("PGPASSWORD", password)
            .args(["-X", "-A", "-t", "-c", "SELECT current_user"])
            .arg(format!("host={address} connect_timeout=10 {settings}"));
        let output = psql.output().unwrap();
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Waits for a truth of the database, and says how long it took.
pub(crate) fn wait_for(guest: &Guest, query: &str) -> f64 {
    let started = Instant::now();
    let script = format!(
        "cd /; for _ in $(seq 120); do [ \"$({})\" = t ] && exit 0; sleep 0.5; done; exit 1",
        psql(query)
    );
    guest.ssh(&script).unwrap();
    started.elapsed().as_secs_f64()
}

fn psql(query: &str) -> String {
    format!("runuser -u postgres -- psql -X -A -t -d shop -c \"{query}\" 2>&1")
}

pub(crate) fn sql(guest: &Guest, query: &str) -> String {
    let said = guest.ssh(&format!("cd /; {}", psql(query)));
    said.unwrap().trim().to_owned()
}

/// Both at once.
fn together<T: Send>(work: impl Fn(usize) -> T + Sync) -> [T; 2] {
    let work = &work;
    thread::scope(|scope| {
        let second = scope.spawn(move || work(1));
        let first = work(0);
        [first, second.join().unwrap()]
    })
}

const STREAMS: &str = "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name = 'db-b-node'";

#[test]
#[ignore = "guests: scripts/test runs them as root"]
fn two_servers_become_a_primary_and_a_standby_over_the_mesh_that_can_take_over() {
    let machines = [
        Machine {
            volume: Some(VOLUME),
            ..Machine::bare("db-a")
        },
        Machine::bare("db-b"),
    ];
    let booting = Instant::now();
    let Some(guests) = world::boot_installed("database", &machines) else {
        return;
    };
    println!("booted in {:.0} s", booting.elapsed().as_secs_f64());
    let mut pair = Pair {
        guests: &guests,
        facts: [BTreeMap::new(), BTreeMap::new()],
        backup: None,
    };
    let [primary, standby] = guests.all() else {
        panic!("two guests");
    };

    let started = Instant::now();
    pair.facts = together(|which| run(pair.guest(which), &keys(&pair.server(which, false))).facts);
    a_volume_that_is_not_blank_is_left_as_it_is(standby);
    let made = set_up(primary, &pair.server(0, false));
    println!(
        "keys and primary in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    let silent = |note: &String| note.starts_with("no handshake with db-b");
    assert!(made.notes.iter().any(silent), "{:?}", made.notes);
    primary
        .ssh(&format!(
            "tc qdisc add dev {} root netem delay {DELAY}",
            mesh::INTERFACE
        ))
        .unwrap();
    let started = Instant::now();
    let made = set_up(standby, &pair.server(1, false));
    println!(
        "standby streams after {:.0} s",
        started.elapsed().as_secs_f64()
    );
    assert!(made.notes.is_empty(), "{:?}", made.notes);
    // What is there is not touched again, and only now all names can be waited for.
    let again = together(|which| set_up(pair.guest(which), &pair.server(which, which == 0)));
    assert_eq!(again[0].changed, ["database-sync"]);
    assert!(again[1].changed.is_empty(), "{:?}", again[1].changed);
    for ran in again {
        assert!(ran.notes.is_empty(), "{:?}", ran.notes);
    }

    it_is_what_was_planned(&pair);
    only_who_is_listed_gets_in(&pair);
    pooled(&pair);
    assert_eq!(run(standby, &logins(&pair.server(1, false))).failed, None);
    a_node_with_another_certificate_is_not_spoken_to(&pair);
    redis_keeps_what_its_account_writes(&pair);
    both_come_back_after_a_reboot(&pair);
    who_is_gone_from_the_list_is_gone_from_the_mesh_and_comes_back_with_a_new_key(&mut pair);
    the_next_certificate_takes_over_and_nobody_is_kept_out(&mut pair);
    let store = Store::start(&guests);
    pair.backup = Some(store.backup());
    the_primary_alone_makes_backups(&pair);
    the_standby_takes_over(&pair);
    the_backups_go_on_and_the_old_primary_adds_nothing(&pair);
}

/// As the volume of another system would be: the program with another file of settings.
fn a_volume_that_is_not_blank_is_left_as_it_is(guest: &Guest) {
    let tool = include_str!("../../crates/provision/src/host/postgres/node.sh")
        .replace("settings=/etc/regionwise/postgres", "settings=/run/other");
    let script = format!(
        "mkdir /run/other && cat > /run/other/tool << 'SENT'\n{tool}\nSENT\n\
         truncate -s 64M /root/disk && mkswap -q /root/disk && disk=$(losetup --show -f /root/disk)\n\
         echo volume=$disk > /run/other/node && sha256sum $disk > /run/other/sum\n\
         sh /run/other/tool make_volume && exit 1\n\
         sha256sum --quiet -c /run/other/sum && losetup -d $disk && rm -r /root/disk /run/other"
    );
    let said = guest.ssh(&script).unwrap();
    assert!(said.contains("is not blank and not ext4 (swap)"), "{said}");
}

fn it_is_what_was_planned(pair: &Pair<'_>) {
    let (primary, standby) = (pair.guest(0), pair.guest(1));
    let link = sql(
        primary,
        "SELECT application_name, sync_state, ssl, version, split_part(client_dn, '/', 2), client_addr, slot_name, wal_status
         FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) JOIN pg_replication_slots ON active_pid = pid",
    );
    let address = mesh::address(PRODUCT, "db-b");
    let wanted =
        format!("db-b-node|quorum|t|TLSv1.3|CN=db-b-node|{address}|replica_db_b_node|reserved");
    assert_eq!(link, wanted);
    for (query, value) in [
        ("SHOW data_checksums", "on"),
        ("SHOW lc_collate", "C.UTF-8"),
        ("SHOW password_encryption", "scram-sha-256"),
        (
            "SELECT setting::int > 100 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'",
            "t",
        ),
        (
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'",
            "shop",
        ),
        (
            "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolsuper",
            "postgres",
        ),
        (
            "SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolreplication AND NOT rolsuper",
            "replica_db_b_node",
        ),
    ] {
        assert_eq!(sql(primary, query), value, "{query}");
    }
    // The row is on the standby before the commit returns, so it takes the delay.
    let timed = primary
        .ssh(&format!(
            "cd /; a=$(date +%s%N); {} > /dev/null; b=$(date +%s%N); {} > /dev/null; c=$(date +%s%N); echo $(((b - a) / 1000000)) $(((c - b) / 1000000))",
            psql("CREATE TABLE kept AS SELECT 1 AS id"),
            psql("SELECT 1"),
        ))
        .unwrap();
    println!(
        "a synchronous commit and a query, with psql's start: {} ms",
        timed.trim()
    );
    wait_for(standby, "SELECT count(*) = 1 FROM kept");
    let mount = primary
        .ssh("findmnt -n -o SOURCE,FSTYPE /var/lib/postgresql/regionwise")
        .unwrap();
    assert!(
        mount.starts_with("/dev/sd") && mount.trim().ends_with("ext4"),
        "{mount}"
    );
    let mtu = primary
        .ssh("cat /sys/class/net/regionwise0/mtu; stat -c '%a %U' /etc/wireguard/key")
        .unwrap();
    assert_eq!(mtu, "1420\n600 root\n");
    // Besides those: nothing, on no address.
    let listens = primary
        .ssh("ss -Hltn 'sport = :5432' | awk '{ print $4 }' | sort")
        .unwrap();
    let mesh = mesh::address(PRODUCT, "db-a");
    let mut wanted = [
        "127.0.0.1:5432".to_owned(),
        "[::1]:5432".to_owned(),
        format!("{}:5432", primary.address),
        format!("[{mesh}]:5432"),
    ];
    wanted.sort();
    let mut found: Vec<&str> = listens.lines().collect();
    found.sort_unstable();
    assert_eq!(found, wanted);
}

fn only_who_is_listed_gets_in(pair: &Pair<'_>) {
    let standby = pair.guest(1);
    let shop = "dbname=shop user=shop sslmode=require";
    assert_eq!(pair.login(shop, "password-of-shop").unwrap(), "shop");
    let monitor = "dbname=shop user=regionwise_lag sslmode=require";
    assert_eq!(
        pair.login(monitor, "password-of-monitor").unwrap(),
        "regionwise_lag"
    );
    // What the mover may before the fence is installed is to log in, and what a superuser gave its group.
    let mover = "dbname=shop user=mover sslmode=require";
    assert_eq!(pair.login(mover, "password-of-mover").unwrap(), "mover");
    let rights = pair
        .guest(0)
        .ssh("runuser -u postgres -- psql -X -A -t -d shop -c \"SELECT pg_has_role('mover', 'regionwise_verify', 'MEMBER'), has_parameter_privilege('regionwise_move', 'session_replication_role', 'SET')\"")
        .unwrap();
    assert_eq!(rights.trim(), "t|t");
    for (settings, password, reason) in [
        (
            shop,
            "password-of-monitor",
            "password authentication failed",
        ),
        (
            "dbname=shop user=shop sslmode=disable",
            "password-of-shop",
            "no encryption",
        ),
        (
            "dbname=postgres user=shop sslmode=require",
            "password-of-shop",
            "pg_hba.conf rejects",
        ),
        (
            "dbname=shop user=postgres sslmode=require",
            "password-of-shop",
            "pg_hba.conf rejects",
        ),
        (
            "dbname=shop user=replica_db_b_node replication=true sslmode=require",
            "password-of-shop",
            "pg_hba.conf rejects replication",
        ),
    ] {
        let refused = pair.login(settings, password).unwrap_err();
        assert!(refused.contains(reason), "{settings}: {refused}");
    }
    // The standby itself, as it streams; then with another certificate of its name, then by another way.
    let receive = |host: &str, certificate: &str| {
        let own = format!("sslcert={certificate}.crt sslkey={certificate}.key");
        let psql = format!(
            "psql -X -A -t 'host={host} user=replica_db_b_node replication=true sslmode=require connect_timeout=10 {own}' -c IDENTIFY_SYSTEM 2>&1 || true"
        );
        standby.ssh(&psql).unwrap()
    };
    standby
        .ssh("cd /root && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=db-b-node -keyout other.key -out other.crt 2>&1")
        .unwrap();
    let own = "/etc/regionwise/postgres/server";
    let mesh = mesh::address(PRODUCT, "db-a").to_string();
    let streams = receive(&mesh, own);
    assert!(streams.contains("|1|0/"), "{streams}");
    let foreign = receive(&mesh, "/root/other");
    assert!(foreign.contains("unknown ca"), "{foreign}");
    let elsewhere = receive(&pair.guest(0).address.to_string(), own);
    assert!(
        elsewhere.contains("pg_hba.conf rejects replication"),
        "{elsewhere}"
    );
}

/// What the product on a host says, in every region: no certificate, and no address but loopback.
fn ask(pair: &Pair<'_>, password: &str, database: &str) -> String {
    let query = "SELECT concat(current_user, ' ', pg_is_in_recovery())";
    let there = format!(
        "host=127.0.0.1 port=6432 user=shop dbname={database} sslmode=disable connect_timeout=5"
    );
    let psql = format!("PGPASSWORD={password} psql -X -A -t '{there}' -c \"{query}\" 2>&1 || true");
    pair.guest(1).ssh(&psql).unwrap()
}

fn pooled(pair: &Pair<'_>) {
    let ask = |password, database| ask(pair, password, database);
    assert_eq!(ask("password-of-shop", "shop"), "shop f\n");
    assert_eq!(ask("password-of-shop", "shop_read"), "shop t\n");
    let refused = ask("password-of-other", "shop");
    assert!(
        refused.contains("password authentication failed") || refused.contains("SASL"),
        "{refused}"
    );
    let encrypted = sql(
        pair.guest(0),
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'shop'",
    );
    assert_eq!(encrypted, "t");
}

fn a_node_with_another_certificate_is_not_spoken_to(pair: &Pair<'_>) {
    let bundle = "/etc/regionwise/pgbouncer/nodes.crt";
    let own = "/etc/regionwise/postgres/server.crt";
    let host = pair.guest(1);
    // What a set-up would say.
    let login = || {
        let ask = "mkdir -p /run/sent && echo password-of-shop > /run/sent/password-shop
            /usr/local/lib/regionwise/bouncer log_in /run/sent || true; rm -r /run/sent";
        host.ssh(ask).unwrap()
    };
    assert_eq!(login(), "");
    let swap = format!("cp -p {bundle} /root/nodes && cp {own} {bundle}");
    host.ssh(&swap).unwrap();
    // It answers over a connection that it has, and no new one would be made.
    assert_eq!(ask(pair, "password-of-shop", "shop"), "shop f\n");
    let said = login();
    let refused = "shop does not get through to shop: ";
    assert!(
        said.starts_with(refused) && said.contains("certificate verify failed"),
        "{said}"
    );
    host.ssh("systemctl restart pgbouncer").unwrap();
    let asked = ask(pair, "password-of-shop", "shop");
    assert!(!asked.contains("shop f"), "{asked}");
    let log = host.ssh("journalctl -q -n 20 -o cat -u pgbouncer").unwrap();
    assert!(log.contains("certificate verify failed"), "{log}");
    assert!(login().starts_with(refused));
    host.ssh(&format!(
        "mv /root/nodes {bundle} && systemctl restart pgbouncer"
    ))
    .unwrap();
}

/// Asks Redis on the first server from the second.
fn redis(pair: &Pair<'_>, user: &str, words: &str) -> String {
    let address = pair.replica(0).address;
    let script = format!(
        "REDISCLI_AUTH=password-of-redis redis-cli --no-auth-warning {user} -h {address} {words} 2>&1"
    );
    pair.guest(1).ssh(&script).unwrap()
}

fn redis_keeps_what_its_account_writes(pair: &Pair<'_>) {
    assert_eq!(redis(pair, "--user shop", "SET kept yes"), "OK\n");
    for (user, words, refused) in [
        ("", "GET kept", "NOAUTH"),
        ("--user other", "GET kept", "NOAUTH"),
        ("--user shop", "CONFIG GET dir", "NOPERM"),
        ("--user shop", "FLUSHALL", "NOPERM"),
    ] {
        let said = redis(pair, user, words);
        assert!(said.contains(refused), "{user} {words}: {said}");
    }
    // What somebody changed in the one that runs is in no file.
    let admin = "REDISCLI_AUTH=$(cat /etc/regionwise/redis/admin) redis-cli --no-auth-warning --user regionwise";
    let primary = pair.guest(0);
    primary
        .ssh(&format!("{admin} ACL SETUSER other on nopass '~*' +@all"))
        .unwrap();
    assert_eq!(redis(pair, "--user other", "GET kept"), "yes\n");
    assert_eq!(
        set_up(primary, &pair.server(0, false)).changed,
        ["redis-logins"]
    );
    assert!(redis(pair, "--user other", "GET kept").contains("NOAUTH"));
    let outside = pair
        .guests
        .command("redis-cli")
        .args(["-h", &pair.guest(0).address.to_string(), "-t", "2", "PING"])
        .output();
    assert!(!String::from_utf8_lossy(&outside.unwrap().stdout).contains("PONG"));
}

fn both_come_back_after_a_reboot(pair: &Pair<'_>) {
    let started = Instant::now();
    together(|which| pair.guest(which).reboot().unwrap());
    println!("both rebooted in {:.0} s", started.elapsed().as_secs_f64());
    let streams = wait_for(pair.guest(0), STREAMS);
    println!("and streamed {streams:.0} s later");
    sql(pair.guest(0), "INSERT INTO kept VALUES (2)");
    assert_eq!(sql(pair.guest(1), "SELECT count(*) FROM kept"), "2");
    assert_eq!(redis(pair, "--user shop", "GET kept"), "yes\n");
    pooled(pair);
}

fn who_is_gone_from_the_list_is_gone_from_the_mesh_and_comes_back_with_a_new_key(
    pair: &mut Pair<'_>,
) {
    let mesh_of = |pair: &Pair<'_>, which| Server {
        database: None,
        bouncer: None,
        redis: None,
        ..pair.server(which, false)
    };
    let mut alone = mesh_of(pair, 0);
    alone.mesh.as_mut().unwrap().peers.clear();
    let ran = set_up(pair.guest(0), &alone);
    let changed = ["mesh-peers", "mesh-allowed", "mesh-names", "mesh"];
    assert_eq!(ran.changed, changed);
    let peers = pair.guest(0).ssh("wg show regionwise0 peers").unwrap();
    assert_eq!(peers, "");
    pair.guest(1).ssh("rm /etc/wireguard/key").unwrap();
    let facts = run(pair.guest(1), &keys(&pair.server(1, false))).facts;
    assert_ne!(facts["wireguard"], pair.facts[1]["wireguard"]);
    assert_eq!(facts["certificate"], pair.facts[1]["certificate"]);
    pair.facts[1] = facts;
    let ran = together(|which| set_up(pair.guest(which), &mesh_of(pair, which)));
    assert_eq!(ran[0].changed, changed);
    assert_eq!(ran[1].changed, ["mesh"]);
    let streams = wait_for(pair.guest(0), STREAMS);
    println!("with a new key it streamed {streams:.0} s later");
}

/// Both certificates end in 80 days: as they would be after ten years, with everything that a run does.
fn the_next_certificate_takes_over_and_nobody_is_kept_out(pair: &mut Pair<'_>) {
    let aged = |which: usize, name: &str, from: i32, until: i32| {
        let sign = format!(
            "{AGED}\nsettings=/etc/regionwise/postgres\ncd $settings && aged {name}.key {name}.crt {from} {until}"
        );
        pair.guest(which).ssh(&sign).unwrap();
    };
    let told = |pair: &Pair<'_>| {
        let said = |which| run(pair.guest(which), &keys(&pair.server(which, false))).facts;
        together(said)
    };
    // As it was trusted for all those years, and with a next one that was made a month ago.
    for which in 0..2 {
        aged(which, "server", -3570, 80);
    }
    let facts = told(pair);
    let words = |facts: &[BTreeMap<String, String>; 2]| {
        [0, 1].map(|which: usize| facts[which]["certificate"].split(' ').count())
    };
    assert_eq!(words(&facts), [2, 2]);
    for which in 0..2 {
        aged(which, "next", -31, 3619);
    }
    pair.facts = told(pair);
    assert_eq!(
        pair.facts.each_ref().map(|facts| &facts["renewal"]),
        ["due", "due"]
    );
    let before = pair
        .facts
        .each_ref()
        .map(|facts| facts["certificate"].clone());
    for which in 0..2 {
        set_up(pair.guest(which), &pair.server(which, false));
    }
    let ran = together(|which| run(pair.guest(which), &renewal(&pair.server(which, false))));
    for ran in ran {
        assert_eq!(ran.failed, None);
        assert_eq!(ran.changed, ["database-renewed", "database-reload"]);
    }
    // A new connection in each direction, and by everybody: nobody has been told anything since.
    let again = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
    assert_eq!(sql(pair.guest(0), again), "t");
    let streams = wait_for(pair.guest(0), STREAMS);
    println!("with new certificates it streamed {streams:.0} s later");
    pair.guest(1).ssh("systemctl restart pgbouncer").unwrap();
    pooled(pair);
    pair.facts = told(pair);
    for (now, before) in pair.facts.iter().zip(&before) {
        assert_eq!(now["renewal"], "none");
        assert_eq!(Some(now["certificate"].as_str()), before.split(' ').nth(1));
    }
}

fn the_standby_takes_over(pair: &Pair<'_>) {
    let (primary, standby) = (pair.guest(0), pair.guest(1));
    // The service without a name ends before its instance does.
    primary.ssh("systemctl stop 'postgresql@*'").unwrap();
    let started = Instant::now();
    assert_eq!(sql(standby, "SELECT pg_promote()"), "t");
    assert_eq!(
        sql(standby, "INSERT INTO kept VALUES (3) RETURNING id")
            .lines()
            .next(),
        Some("3")
    );
    println!(
        "promoted and written after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    assert_eq!(sql(standby, "SELECT count(*) FROM kept"), "3");
    // It has writes of its own now. The old plan must not make it a standby.
    let (step, why) = run(standby, &steps(&pair.server(1, false))).failed.unwrap();
    assert_eq!(step, "database-part");
    assert!(why.contains("was promoted or never was a standby"), "{why}");
    assert_eq!(sql(standby, "SELECT count(*) FROM kept"), "3");
}

const BACKUP: &str = "/usr/local/lib/regionwise/backup";

fn the_primary_alone_makes_backups(pair: &Pair<'_>) {
    let started = Instant::now();
    let of_the_standby = set_up(pair.guest(1), &pair.server(1, false)).changed;
    let of_the_primary = set_up(pair.guest(0), &pair.server(0, true)).changed;
    println!("backed up in {:.0} s", started.elapsed().as_secs_f64());
    for step in ["backup-begun", "backup-proven"] {
        assert!(
            of_the_primary.iter().any(|changed| changed == step),
            "{step}"
        );
        assert!(
            !of_the_standby.iter().any(|changed| changed == step),
            "{step}"
        );
    }
    let said = pair.guest(1).ssh(&format!("{BACKUP} run")).unwrap();
    assert!(
        said.contains("is a standby, and its primary makes the backups"),
        "{said}"
    );
}

/// regions.toml names the new primary, and nobody has fenced the old one.
fn the_backups_go_on_and_the_old_primary_adds_nothing(pair: &Pair<'_>) {
    let mut server = pair.server(1, false);
    server.bouncer = None;
    server.database.as_mut().unwrap().part = Part::Primary {
        first: false,
        standbys: Vec::new(),
        known: Vec::new(),
        sync: 0,
        complete: true,
        last: true,
    };
    let started = Instant::now();
    let made = set_up(pair.guest(1), &server);
    println!(
        "and again by the new primary in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    for step in ["backup-begun", "backup-proven"] {
        assert!(made.changed.iter().any(|changed| changed == step), "{step}");
    }
    assert!(made.notes.is_empty(), "{:?}", made.notes);
    let old = pair.guest(0);
    old.ssh("systemctl start postgresql@15-regionwise").unwrap();
    let said = old.ssh(&format!("{BACKUP} run || true")).unwrap();
    let refused = "has timeline 2 of eu, and db-a-node is on 1: another node was promoted";
    assert!(said.contains(refused), "{said}");
}
