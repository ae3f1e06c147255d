//! What a host says of itself when somebody asks it over HTTP: the shell of it, against a server that answers.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use regionwise_provision::host::{self, Api, Server, System};
use regionwise_provision::step::{Action, Fact, Step};
use tempfile::TempDir;

use crate::script::run;

/// A host whose proxy is at that port, and its files.
fn host(http_port: u16, active: &str) -> (Vec<Step>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("shop/traffic")).unwrap();
    let map = directory.path().join("shop/traffic/active.map");
    fs::write(map, format!("active {active}\n")).unwrap();
    let api = Api {
        app: "shop".to_owned(),
        account: "regionwise".to_owned(),
        address: [127, 0, 0, 1].into(),
        http_port,
        health_path: "/health/it's basic".to_owned(),
        region_host_sha256: "0".repeat(64),
    };
    let server = Server {
        api: Some(api),
        ..Server::bare(System {
            ssh_port: 22,
            open: Vec::new(),
        })
    };
    let mut steps = host::answers(&server);
    for step in &mut steps {
        if let Action::Fact(Fact { shell, .. }) = &mut step.action {
            *shell = shell.replace(
                "/var/lib/regionwise",
                &directory.path().display().to_string(),
            );
        }
    }
    (steps, directory)
}

/// A proxy that answers one request so, and returns its first line.
fn proxy(status: &'static str) -> (u16, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        let mut reader = BufReader::new(&stream);
        reader.read_line(&mut asked).unwrap();
        let mut rest = String::new();
        while rest != "\r\n" {
            rest.clear();
            reader.read_line(&mut rest).unwrap();
        }
        let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
        (&stream).write_all(answer.as_bytes()).unwrap();
        asked
    });
    (port, answering)
}

fn said(port: u16, active: &str) -> Vec<String> {
    let (steps, directory) = host(port, active);
    run(&steps, directory.path(), &["apply"]).1
}

#[test]
fn a_release_that_answers_serves_whatever_the_code_of_its_success() {
    for status in ["200 OK", "204 No Content"] {
        let (port, asked) = proxy(status);
        let said = said(port, "bk_blue");
        assert_eq!(
            said,
            ["step ok answers", "fact answers release", "end done"]
        );
        assert_eq!(asked.join().unwrap(), "GET /health/it's basic HTTP/1.0\r\n");
    }
}

#[test]
fn a_proxy_without_a_release_is_no_fault_and_one_whose_release_does_not_answer_is() {
    let (port, _) = proxy("503 Service Unavailable");
    let without = said(port, "bk_unset");
    assert_eq!(without[1], "fact answers no-release");
    for status in [
        "503 Service Unavailable",
        "500 Internal Server Error",
        "404 Not Found",
    ] {
        let (port, _) = proxy(status);
        let failed = said(port, "bk_green");
        let wrong = format!("fact answers no HTTP/1.1 {status}");
        assert_eq!(failed[1], wrong, "{failed:?}");
    }
}

#[test]
fn a_proxy_that_is_down_is_a_fault_also_before_the_first_release() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let failed = said(port, "bk_unset");
    assert!(failed[1].starts_with("fact answers no "), "{failed:?}");
    assert!(failed[1].contains("Connection refused"), "{failed:?}");
}
