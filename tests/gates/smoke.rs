//! `smoke-test` against products that answer in every way there is. The products are real servers on loopback.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::gate::{Gate, Outcome};

const BASIC: &str = r#"{"status":"ok"}"#;
const DB: &str = r#"{"status":"ok","replication":null}"#;
const FULL: &str = r#"{"status":"ok","dependencies":[]}"#;

/// What a product says to the request for a path: bytes, and whether it then closes.
type Talk = dyn Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// A product: a thread per connection, until the test process ends.
fn product(
    talk: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let talk: Arc<Talk> = Arc::new(talk);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, talk) = (stream.unwrap(), Arc::clone(&talk));
            thread::spawn(move || {
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap_or(0);
                let line = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = line
                    .split_ascii_whitespace()
                    .nth(1)
                    .unwrap_or("")
                    .to_owned();
                // Whoever hangs up early has seen enough.
                let _ = talk(&path, &mut stream);
            });
        }
    });
    address
}

fn say(stream: &mut TcpStream, status: u16, release: &str, body: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} x\r\nX-Release: {release}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

fn healthy(path: &str, stream: &mut TcpStream) -> std::io::Result<()> {
    match path {
        "/health/basic" => say(stream, 200, "v2", BASIC),
        "/health/db" => say(stream, 200, "v2", DB),
        "/health/full" => say(stream, 200, "v2", FULL),
        _ => say(stream, 400, "v2", "{}"),
    }
}

/// A product that is well but for one path.
fn product_with(
    bad: &'static str,
    talk: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> SocketAddr {
    product(move |path, stream| {
        if path == bad {
            talk(stream)
        } else {
            healthy(path, stream)
        }
    })
}

fn product_saying(bad: &'static str, status: u16, body: impl Into<String>) -> SocketAddr {
    let body = body.into();
    product_with(bad, move |stream| say(stream, status, "v2", &body))
}

/// Everything of a `regions.toml` but its regions: no standbys, and gates that decide quickly.
const RULES: &str = r#"
[product]
name = "shop"
[ssh]
user = "regionwise"
known_hosts = "known_hosts"
identity = "file:key"
[clusters.main]
primary = { name = "main-primary", location = "fsn1", dsn = "env:DSN" }
standbys = []
[gates.lag]
threshold = "500ms"
sustained = "1s"
interval = "100ms"
clear_for = "500ms"
timeout = "1s"
[gates.health]
interval = "50ms"
timeout = "300ms"
failures = 3
successes = 3
max_failing_dependencies = 2
"#;

fn region(name: &str, url: &str, hosts: &[SocketAddr]) -> String {
    let hosts: String = hosts
        .iter()
        .enumerate()
        .map(|(number, host)| {
            // No ssh here, but two hosts must not share its address.
            let (ip, http, ssh) = (host.ip(), host.port(), 20_000 + number);
            format!(
                "[regions.{name}.hosts.{name}-{number}]\naddress = \"{ip}\"\nssh_port = {}\nhttp_port = {http}\n",
                ssh + name.len() * 100
            )
        })
        .collect();
    format!(
        "[regions.{name}]\nlocation = \"fsn1\"\ntraffic = 0.5\ncluster = \"main\"\nurl = \"{url}\"\n{hosts}"
    )
}

/// A `regions.toml` with region `here` on these addresses, and region `there` on the others.
struct World {
    dir: TempDir,
}

impl World {
    fn new(here: &[SocketAddr]) -> Self {
        Self::beside(here, &[])
    }

    fn beside(here: &[SocketAddr], there: &[SocketAddr]) -> Self {
        Self::with_url(&format!("http://{}", here[0]), here, there)
    }

    fn with_url(url: &str, here: &[SocketAddr], there: &[SocketAddr]) -> Self {
        let regions = [("here", url, here), ("there", "http://127.0.0.1:9", there)];
        let regions: String = regions
            .iter()
            .filter(|(_, _, hosts)| !hosts.is_empty())
            .map(|(name, url, hosts)| region(name, url, hosts))
            .collect();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("regions.toml"), format!("{RULES}{regions}")).unwrap();
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn gate(&self, args: &[&str]) -> Gate {
        Gate::smoke_test(&self.file("regions.toml"))
            .args(["--region", "here", "--expect-release", "v2"])
            .args(args.iter().copied())
    }

    fn run(&self, args: &[&str]) -> Outcome {
        self.gate(args).run()
    }
}

#[track_caller]
fn roll_back_of(product: SocketAddr, why: &str) {
    let ended = World::new(&[product]).run(&[]);
    ended.is(11, "roll-back basic-failing");
    assert!(ended.summary().contains(why), "{}", ended.summary());
    assert!(ended.took < Duration::from_secs(4), "{:?}", ended.took);
}

#[test]
fn a_healthy_region_proceeds_as_soon_as_that_is_certain() {
    let world = World::new(&[product(healthy), product(healthy)]);
    let ended = world.run(&[]);
    ended.is(0, "proceed healthy");
    assert_eq!(ended.json["region"], "here");
    let targets = ended.json["result"]["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 3, "two hosts and the region's URL");
    for target in targets {
        for endpoint in target["endpoints"].as_array().unwrap() {
            assert_eq!(
                (&endpoint["is"], &endpoint["release"]),
                (&"good".into(), &"v2".into()),
                "{endpoint}"
            );
        }
    }
    assert!(ended.took < Duration::from_secs(2), "{:?}", ended.took);
}

#[test]
fn an_observation_can_be_made_longer() {
    let ended = World::new(&[product(healthy)]).run(&["--for", "1500ms"]);
    ended.is(0, "proceed healthy");
    assert!(ended.took >= Duration::from_millis(1500));
}

#[test]
fn one_bad_host_condemns_the_release() {
    let world = World::new(&[
        product(healthy),
        product_saying("/health/basic", 500, BASIC),
    ]);
    let ended = world.run(&[]);
    ended.is(11, "roll-back basic-failing");
    assert_eq!(ended.summary(), "`here-1`: /health/basic: status 500");
    assert_eq!(ended.json["hints"][0], "rollback-region --region here");
}

#[test]
fn another_release_than_the_expected_one_is_not_this_one() {
    let old = product(|_, stream| say(stream, 200, "v1", BASIC));
    let ended = World::new(&[old]).run(&[]);
    ended.is(11, "roll-back wrong-release");
    assert!(
        ended
            .summary()
            .ends_with("release `v1` answers instead of `v2`"),
        "{}",
        ended.summary()
    );
}

#[test]
fn answers_that_are_no_health_answer_condemn() {
    roll_back_of(
        product_saying("/health/basic", 200, r#"{"status":"fail"}"#),
        "says status `fail`",
    );
    roll_back_of(
        product_saying("/health/basic", 200, "\u{1b}[31m"),
        "not JSON",
    );
    let html = product_with("/health/basic", |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nX-Release: v2\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
    });
    roll_back_of(html, "content type `text/html`");
    let binary = product_with("/health/basic", |stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nX-Release: v2\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        )
    });
    roll_back_of(binary, "not JSON");
    let moved = product_with("/health/basic", |stream| {
        stream.write_all(b"HTTP/1.1 302 Found\r\nX-Release: v2\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")
    });
    roll_back_of(moved, "status 302");
}

#[test]
fn a_body_without_end_is_not_read_to_its_end() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let endless = product_with("/health/basic", move |stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nX-Release: v2\r\nContent-Type: application/json\r\n\r\n",
        )?;
        loop {
            stream.write_all(&[b' '; 64 * 1024])?;
            counted.fetch_add(64 * 1024, Ordering::Relaxed);
        }
    });
    roll_back_of(endless, "longer than 64 KiB");
    // A few answers, each with what fits into the sockets' buffers.
    assert!(
        sent.load(Ordering::Relaxed) < 100 * 1024 * 1024,
        "{sent:?} bytes"
    );
}

#[test]
fn an_answer_that_hangs_or_drips_condemns() {
    let hangs = product_with("/health/basic", |stream| {
        let _ = stream.read(&mut [0; 16]);
        Ok(())
    });
    roll_back_of(hangs, "no answer within 300 ms");
    let drips = product_with("/health/basic", |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nX-Release: v2\r\nContent-Length: 5000\r\n\r\n")?;
        loop {
            stream.write_all(b" ")?;
            thread::sleep(Duration::from_millis(50));
        }
    });
    roll_back_of(drips, "does not end within 300 ms");
}

#[test]
fn what_could_not_be_asked_pauses_and_blames_nobody() {
    let pauses = |world: World, why: &str| {
        let ended = world.run(&[]);
        ended.is(10, "pause not-measured");
        assert!(ended.findings().contains(why), "{}", ended.findings());
        assert!(ended.took < Duration::from_secs(8), "{:?}", ended.took);
    };
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    pauses(World::new(&[gone]), "connection refused");
    let well = product(healthy);
    pauses(
        World::with_url("http://nothing.invalid", &[well], &[]),
        "no address for `nothing.invalid`",
    );
    pauses(
        World::with_url(&format!("https://{well}"), &[well], &[]),
        "no trusted TLS connection",
    );
    let swallows = product(|_, stream| {
        let _ = stream.read_to_end(&mut Vec::new());
        Ok(())
    });
    pauses(World::new(&[swallows]), "not one byte within 300 ms");
}

#[test]
fn a_failure_is_not_hidden_by_what_could_not_be_asked() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let world = World::new(&[product_saying("/health/basic", 500, BASIC), gone]);
    world.run(&[]).is(11, "roll-back basic-failing");
}

#[test]
fn a_flapping_release_is_bad_whatever_its_last_answer_was() {
    let start = Instant::now();
    let flaps = product_with("/health/basic", move |stream| {
        let status = if start.elapsed().as_millis() % 400 < 200 {
            200
        } else {
            500
        };
        say(stream, status, "v2", BASIC)
    });
    let ended = World::new(&[flaps]).run(&["--for", "5s"]);
    ended.is(11, "roll-back basic-failing");
}

#[test]
fn databases_pause_and_never_roll_back() {
    let broken = r#"{"status":"fail","writer":{"status":"fail","reason":"refused"},"reader":{"status":"ok"}}"#;
    let ended = World::new(&[product_saying("/health/db", 503, broken)]).run(&[]);
    ended.is(10, "pause db-failing");
    assert!(
        ended.summary().contains("writer does not answer: refused"),
        "{}",
        ended.summary()
    );
}

fn with_lag(lag: &str) -> Outcome {
    let body = format!(
        r#"{{"status":"ok","replication":{{"replica":"r","lag_ms":{lag},"reason":"cut"}}}}"#
    );
    World::new(&[product_saying("/health/db", 200, body)]).run(&[])
}

#[test]
fn lag_that_nobody_knows_pauses() {
    for nonsense in ["null", "NaN", r#""NaN""#, "-1"] {
        with_lag(nonsense).is(10, "pause not-measured");
    }
    let missing = World::new(&[product_saying("/health/db", 200, r#"{"status":"ok"}"#)]).run(&[]);
    missing.is(10, "pause not-measured");
}

#[test]
fn old_reads_pause_only_after_the_allowed_time() {
    with_lag("120.5").is(0, "proceed healthy");
    let old = with_lag("600");
    old.is(10, "pause lagging");
    assert!(
        old.summary().contains("reads are 600 ms old, over 500 ms"),
        "{}",
        old.summary()
    );
    assert!(old.took > Duration::from_secs(1), "{:?}", old.took);
    let start = Instant::now();
    let spike = product_with("/health/db", move |stream| {
        let lag = if start.elapsed() < Duration::from_millis(700) {
            5000
        } else {
            5
        };
        say(
            stream,
            200,
            "v2",
            &format!(r#"{{"status":"ok","replication":{{"lag_ms":{lag}}}}}"#),
        )
    });
    World::new(&[spike]).run(&[]).is(0, "proceed healthy");
}

fn failing(names: &[&str]) -> SocketAddr {
    let list: Vec<String> = names
        .iter()
        .map(|name| format!(r#"{{"name":"{name}","status":"fail"}}"#))
        .collect();
    product_saying(
        "/health/full",
        503,
        format!(r#"{{"status":"fail","dependencies":[{}]}}"#, list.join(",")),
    )
}

#[test]
fn two_failing_dependencies_warn_and_three_condemn() {
    let two = World::new(&[failing(&["mail", "tax"])]);
    let ended = two.run(&[]);
    ended.is(0, "proceed degraded");
    assert!(
        ended.findings().contains("/health/full: fails: mail, tax"),
        "{}",
        ended.findings()
    );
    two.run(&["--strict"]).is(10, "pause degraded");
    let ended = World::new(&[failing(&["mail", "search", "tax"])]).run(&[]);
    ended.is(11, "roll-back dependencies-failing");
    assert_eq!(
        ended.json["result"]["failing_dependencies"],
        serde_json::json!(["mail", "search", "tax"])
    );
}

#[test]
fn dependencies_that_fail_elsewhere_too_are_not_the_releases_fault() {
    let three = ["mail", "search", "tax"];
    let world = World::beside(&[failing(&three)], &[failing(&three)]);
    world.run(&[]).is(11, "roll-back dependencies-failing");
    let ended = world.run(&["--compare-with", "there"]);
    ended.is(10, "pause external");
    assert!(
        ended
            .summary()
            .contains("fail without this release too: mail, search, tax"),
        "{}",
        ended.summary()
    );
    let fine_there = World::beside(&[failing(&three)], &[product(healthy)]);
    fine_there
        .run(&["--compare-with", "there"])
        .is(11, "roll-back dependencies-failing");
}

#[test]
fn dependencies_that_failed_before_the_deploy_are_not_the_releases_fault() {
    let world = World::new(&[failing(&["mail", "search", "tax"])]);
    let before = world.file("before.json");
    let earlier = World::new(&[failing(&["mail"])]).run(&[]);
    earlier.is(0, "proceed degraded");
    fs::write(&before, earlier.json.to_string()).unwrap();
    world
        .run(&["--baseline", before.to_str().unwrap()])
        .is(10, "pause external");
    fs::write(
        &before,
        r#"{"schema":1,"binary":"preflight","result":{"failing_dependencies":[]}}"#,
    )
    .unwrap();
    world
        .run(&["--baseline", before.to_str().unwrap()])
        .is(2, "invalid -");
    fs::write(&before, "{").unwrap();
    world
        .run(&["--baseline", before.to_str().unwrap()])
        .is(2, "invalid -");
}

#[test]
fn a_product_without_databases_says_so_by_flag() {
    let without = product_saying("/health/db", 404, "{}");
    World::new(&[without]).run(&[]).is(10, "pause db-failing");
    World::new(&[without])
        .run(&["--endpoints", "basic,full"])
        .is(0, "proceed healthy");
}

#[test]
fn without_an_expected_release_all_must_answer_as_the_same() {
    let other = product(|_, stream| {
        say(
            stream,
            200,
            "v1",
            r#"{"status":"ok","replication":null,"dependencies":[]}"#,
        )
    });
    let world = World::new(&[product(healthy), other]);
    let config = world.file("regions.toml");
    Gate::smoke_test(&config)
        .args(["--region", "here"])
        .run()
        .is(10, "pause releases-differ");
}

#[test]
fn a_signal_ends_it_with_a_report() {
    let (asked, wait) = std::sync::mpsc::channel();
    let well = product(move |path, stream| {
        let _ = asked.send(());
        healthy(path, stream)
    });
    let world = World::new(&[well]);
    let running = world.gate(&["--for", "60s"]).start();
    wait.recv_timeout(Duration::from_secs(20)).expect("it asks");
    running.signal("TERM");
    let ended = running.finish();
    ended.is(143, "cancelled signal");
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
}

#[test]
fn a_region_that_is_not_there_is_invalid() {
    let world = World::new(&[product(healthy)]);
    let config = world.file("regions.toml");
    let ended = Gate::smoke_test(&config).args(["--region", "asia"]).run();
    ended.is(2, "invalid -");
    assert_eq!(ended.json["hints"][0], "regions: here");
    world.run(&["--compare-with", "here"]).is(2, "invalid -");
}

/// The reference product with a fault of its own, as a process.
struct Product {
    child: Child,
    address: SocketAddr,
}

impl Product {
    fn start(faults: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_reference-api"))
            .env_clear()
            .envs([
                ("LISTEN_ADDRESS", "127.0.0.1:0"),
                ("RELEASE", "v2"),
                ("SLOT", "blue"),
                ("REGION", "here"),
            ])
            .env("HOST", "here-0")
            .envs(faults.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let first: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self {
            child,
            address: first["listen"].as_str().unwrap().parse().unwrap(),
        }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_reference_product_is_condemned_for_every_fault_it_can_have() {
    let basic_only = |faults: &[(&str, &str)]| {
        let product = Product::start(faults);
        World::new(&[product.address]).run(&["--endpoints", "basic"])
    };
    basic_only(&[]).is(0, "proceed healthy");
    for (fault, why) in [
        ("500", "status 500"),
        ("hang", "no answer within 300 ms"),
        ("huge", "longer than 64 KiB"),
        ("redirect", "status 302"),
        ("slow", "does not end within 300 ms"),
    ] {
        let ended = basic_only(&[("FAULT_BASIC", fault)]);
        ended.is(11, "roll-back basic-failing");
        assert!(
            ended.summary().contains(why),
            "{fault}: {}",
            ended.summary()
        );
    }
    let ended = basic_only(&[("FAULT_WRONG_RELEASE", "1")]);
    ended.is(11, "roll-back wrong-release");
    assert!(
        ended.summary().contains("instead of `v2`"),
        "{}",
        ended.summary()
    );
}
