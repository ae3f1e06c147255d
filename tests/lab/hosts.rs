//! Hosts, edges, dependencies and the links to them, in labs without clusters.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use regionwise_lab::control::{ControlError, ProcessAction};
use regionwise_lab::{Lab, LinkChange, Options};

use crate::support::{LAB, PATIENCE, get, lab, ssh};

fn hosts() -> Lab {
    Lab::start(&Options::hosts(LAB)).unwrap_or_else(|error| panic!("{error}"))
}

fn address(lab: &Lab, part: &str) -> SocketAddr {
    lab.address(part).unwrap_or_else(|| panic!("no {part}"))
}

#[test]
fn an_edge_and_a_host_without_a_release_say_503() {
    let lab = hosts();
    for part in [
        "us-east",
        "eu-central",
        "ap-singapore",
        "us-1/http",
        "sin-1/http",
    ] {
        assert_eq!(get(address(&lab, part), "/health/basic"), 503, "{part}");
    }
}

#[test]
fn a_dependency_answers_200_and_503_while_it_is_down() {
    let lab = hosts();
    let url = |lab: &Lab| {
        let status = lab.status().expect("a status");
        let stub = status
            .dependencies
            .iter()
            .find(|stub| stub.name == "payments")
            .expect("payments")
            .clone();
        stub.url
            .strip_prefix("http://")
            .expect("a url")
            .parse::<SocketAddr>()
            .expect("an address")
    };
    assert_eq!(get(url(&lab), "/"), 200);
    lab.dependency("payments", false).expect("a change");
    assert_eq!(get(url(&lab), "/"), 503);
    lab.dependency("payments", true).expect("a change");
    assert_eq!(get(url(&lab), "/"), 200);
    let error = lab.dependency("payment", true).expect_err("a wrong name");
    assert_eq!(error.to_string(), "cannot find dependency `payment`");
    assert!(error.hint().is_some_and(|hint| hint.contains("payments")));
}

#[test]
fn every_host_has_a_pinned_key_of_its_own_and_takes_the_deploy_key() {
    let lab = hosts();
    let known = std::fs::read_to_string(lab.directory().known_hosts()).expect("known_hosts");
    let keys: std::collections::BTreeSet<&str> = known
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(2))
        .collect();
    assert_eq!(keys.len(), 5, "{known}");
    for host in ["us-1", "us-2", "eu-1", "eu-2", "sin-1"] {
        let output = ssh(lab.initial(), host);
        // 255 is what ssh itself fails with; everything else comes from the forced command.
        assert_ne!(
            output.status.code(),
            Some(255),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn a_cut_between_world_and_a_region_hides_its_hosts_until_it_heals() {
    let lab = hosts();
    lab.link("world", "eu-central", LinkChange::cut())
        .expect("a change");
    let mut socket = TcpStream::connect(address(&lab, "eu-central")).expect("the proxy accepts");
    write!(socket, "GET / HTTP/1.1\r\nhost: lab\r\n\r\n").expect("a request");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a socket");
    let mut head = [0; 12];
    assert!(
        socket.read_exact(&mut head).is_err(),
        "an answer over a cut link"
    );
    assert_eq!(
        get(address(&lab, "us-east"), "/"),
        503,
        "another region is not cut off"
    );
    lab.link("world", "eu-central", LinkChange::clear())
        .expect("a change");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket
        .read_exact(&mut head)
        .expect("the answer to the same request");
    assert_eq!(&head, b"HTTP/1.1 503");
}

#[test]
fn the_command_line_changes_links_and_says_what_exists() {
    let lab_ = hosts();
    let dir = lab_.directory().path();
    let change = |args: &[&str]| lab("link", dir).args(args).output().expect("lab link");
    let output = change(&[
        "world",
        "us-east",
        "--latency",
        "40ms",
        "--bandwidth",
        "10MB/s",
        "--both",
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let start = Instant::now();
    get(address(&lab_, "us-east"), "/");
    // Two round trips: one to connect, one for the request.
    assert!(
        start.elapsed() >= Duration::from_millis(160),
        "{:?}",
        start.elapsed()
    );
    let status = lab_.status().expect("a status");
    let link = status
        .links
        .iter()
        .find(|link| link.from == "us-east" && link.to == "world")
        .expect("a link");
    assert_eq!(
        (link.latency_ms, link.bandwidth.map(u64::from)),
        (40, Some(10_000_000))
    );
    assert!(
        change(&["world", "us-east", "--clear", "--both"])
            .status
            .success()
    );
    let wrong = change(&["world", "mars", "--cut"]);
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.starts_with("cannot find link `world mars`"), "{said}");
    assert!(said.contains("hint: known: "), "{said}");
    assert_eq!(
        change(&["world", "us-east"]).status.code(),
        Some(2),
        "a change of nothing"
    );
}

#[test]
fn a_killed_proxy_is_gone_until_it_is_started_again() {
    let lab = hosts();
    let http = address(&lab, "us-1/http");
    lab.process("us-1/haproxy", ProcessAction::Kill)
        .expect("a kill");
    let status = lab.status().expect("a status");
    let proxy = status
        .processes
        .iter()
        .find(|process| process.name == "us-1/haproxy")
        .expect("a process");
    assert_eq!(
        (proxy.pid, proxy.ended.as_deref()),
        (None, Some("signal 9"))
    );
    let mut socket = TcpStream::connect(http).expect("the link's proxy accepts");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    assert!(
        socket.read(&mut [0]).is_err(),
        "somebody answers for a dead host"
    );
    lab.process("us-1/haproxy", ProcessAction::Start)
        .expect("a start");
    assert_eq!(get(http, "/"), 503);
    let error = lab
        .process("us-1/haproxy", ProcessAction::Start)
        .expect_err("it runs");
    assert!(matches!(error, ControlError::Refused { .. }), "{error}");
}

#[test]
fn memory_of_the_supervisor_is_bounded_while_a_link_is_cut() {
    let lab = hosts();
    let resident = || {
        let path = format!("/proc/{}/status", lab.initial().supervisor_pid);
        let text = std::fs::read_to_string(path).expect("a status");
        let line = text
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("a size")
            .to_owned();
        line.split_ascii_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number")
    };
    // Connected first, so that the proxy reads and the link's line fills.
    let mut sockets: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut socket = TcpStream::connect(address(&lab, "us-1/ssh")).expect("a connection");
            socket.read_exact(&mut [0; 4]).expect("sshd's greeting");
            socket
                .set_write_timeout(Some(Duration::from_millis(300)))
                .expect("a socket");
            socket
        })
        .collect();
    lab.link("world", "us-east", LinkChange::cut())
        .expect("a change");
    let before = resident();
    let chunk = vec![0; 1024 * 1024];
    for socket in &mut sockets {
        let mut sent = 0;
        while let Ok(written) = socket.write(&chunk) {
            sent += written;
            assert!(sent < 64 * 1024 * 1024, "{sent} bytes and no end");
        }
    }
    let status = lab.status().expect("a status");
    let link = status
        .links
        .iter()
        .find(|link| link.from == "world" && link.to == "us-east")
        .expect("a link");
    assert!(
        link.in_flight_bytes <= 4 * 4 * 1024 * 1024,
        "{} bytes",
        link.in_flight_bytes
    );
    assert!(
        link.in_flight_bytes > 12 * 1024 * 1024,
        "{} bytes: nothing was held",
        link.in_flight_bytes
    );
    let grown = resident().saturating_sub(before);
    // Four connections at 4 MiB each, and the allocator's slack.
    assert!(grown < 28 * 1024, "{grown} KiB");
}
