use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Process;

/// A keep-alive connection without any cleverness.
struct Wire(TcpStream);

struct Answer {
    status: u16,
    closes: bool,
}

impl Wire {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self(stream)
    }

    fn send(&mut self, method: &str, path: &str, body: &str) {
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(text.as_bytes()).unwrap();
    }

    fn receive(&mut self) -> Answer {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
        };
        let mut body = vec![0; field("content-length:").unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            closes: field("connection:").as_deref() == Some("close"),
        }
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, "");
        self.receive()
    }

    /// Waits for the other side's end: `Ok` for a FIN, an error for a reset.
    fn end(&mut self) -> std::io::Result<usize> {
        self.0.read(&mut [0])
    }
}

/// The listener goes with the first thing a drain does.
fn wait_until_nothing_is_accepted(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "still accepts");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_request_in_flight_is_finished_and_its_connection_closed() {
    let mut api = Process::start(&[]);
    let mut wire = Wire::to(api.address);
    assert_eq!(wire.get("/").status, 200);
    wire.send("GET", "/slow?ms=2500", "");
    // Answered after the slow one was taken, so the slow one is in flight now.
    assert_eq!(Wire::to(api.address).get("/").status, 200);
    thread::sleep(Duration::from_millis(100));
    api.signal("-TERM");
    let answer = wire.receive();
    assert_eq!((answer.status, answer.closes), (200, true));
    assert_eq!(wire.end().unwrap(), 0);
    assert!(api.ended_within(Duration::from_secs(5)).success());
}

#[test]
fn nothing_new_is_accepted() {
    let mut api = Process::start(&[]);
    let mut wire = Wire::to(api.address);
    wire.send("GET", "/slow?ms=1500", "");
    assert_eq!(Wire::to(api.address).get("/").status, 200);
    api.signal("-TERM");
    wait_until_nothing_is_accepted(api.address);
    let refused = TcpStream::connect(api.address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(wire.receive().status, 200);
    assert!(api.ended_within(Duration::from_secs(5)).success());
}

#[test]
fn an_idle_connection_is_told_with_its_next_answer_and_else_ends_without_a_reset() {
    let mut api = Process::start(&[]);
    let (mut asks, mut waits, mut new) = (
        Wire::to(api.address),
        Wire::to(api.address),
        Wire::to(api.address),
    );
    assert!(!asks.get("/").closes);
    assert!(!waits.get("/").closes);
    api.signal("-TERM");
    wait_until_nothing_is_accepted(api.address);
    let answer = asks.get("/");
    assert_eq!((answer.status, answer.closes), (200, true));
    assert_eq!(asks.end().unwrap(), 0);
    assert_eq!(waits.end().unwrap(), 0);
    assert_eq!(new.end().unwrap(), 0);
    drop((asks, waits, new));
    assert!(api.ended_within(Duration::from_secs(5)).success());
}

/// Clients that keep their connections busy until they are told to leave lose no request, POSTs included.
#[test]
fn busy_connections_lose_no_request() {
    let mut api = Process::start(&[]);
    let address = api.address;
    let (send, served) = mpsc::channel();
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let served = send.clone();
            thread::spawn(move || {
                let mut wire = Wire::to(address);
                for number in 0.. {
                    let method = if (client + number) % 2 == 0 {
                        "GET"
                    } else {
                        "POST"
                    };
                    let (path, body) = if method == "GET" {
                        ("/", "")
                    } else {
                        ("/echo", "{\"n\":1}")
                    };
                    wire.send(method, path, body);
                    let answer = wire.receive();
                    assert_eq!(answer.status, 200);
                    served.send(()).unwrap();
                    if answer.closes {
                        assert_eq!(wire.end().unwrap(), 0, "reset after the last answer");
                        return;
                    }
                }
            })
        })
        .collect();
    drop(send);
    assert_eq!(served.iter().take(500).count(), 500);
    api.signal("-TERM");
    assert!(served.iter().count() > 0);
    for client in clients {
        client.join().unwrap();
    }
    assert!(api.ended_within(Duration::from_secs(5)).success());
}

#[test]
fn an_idle_process_ends_at_once() {
    let mut api = Process::start(&[]);
    api.signal("-TERM");
    assert!(api.ended_within(Duration::from_secs(1)).success());
}

/// A closed socket with unread bytes sends a reset, which can overtake the answer.
#[test]
fn an_answer_given_before_the_whole_request_is_read_arrives_without_a_reset() {
    let api = Process::start(&[]);
    for _ in 0..20 {
        let mut wire = Wire::to(api.address);
        wire.send("POST", "/echo", &"x".repeat(1_000_000));
        let answer = wire.receive();
        assert_eq!(answer.status, 413);
        assert_eq!(wire.end().unwrap(), 0);
    }
}
