//! Stubs of what the product calls besides its own servers: each answers 200, or 503 while it is down.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::control::DependencyStatus;
use crate::layout::{Block, DEPENDENCIES};

/// A request head is a few hundred bytes; whoever sends more is not served.
const LONGEST_HEAD: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: &'static str,
    url: String,
    up: AtomicBool,
    requests: AtomicU64,
}

impl Dependency {
    pub(crate) fn set(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> DependencyStatus {
        DependencyStatus {
            name: self.name.to_owned(),
            url: self.url.clone(),
            up: self.up.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    fn answer(&self) -> String {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (status, word) = if self.up.load(Ordering::Relaxed) {
            ("200 OK", "ok")
        } else {
            ("503 Service Unavailable", "down")
        };
        let body = format!(r#"{{"dependency":"{}","status":"{word}"}}"#, self.name);
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Starts all stubs.
pub(crate) async fn start(block: Block) -> io::Result<Vec<Arc<Dependency>>> {
    let mut started = Vec::new();
    for name in DEPENDENCIES {
        let Some(address) = block.dependency(name) else {
            continue;
        };
        let listener = TcpListener::bind(std::net::SocketAddr::V4(address)).await?;
        let dependency = Arc::new(Dependency {
            name,
            url: format!("http://{address}"),
            up: AtomicBool::new(true),
            requests: AtomicU64::new(0),
        });
        tokio::spawn(serve(listener, Arc::clone(&dependency)));
        started.push(dependency);
    }
    Ok(started)
}

/// `payments=http://..;mail=http://..`, as the product reads it.
pub(crate) fn list(block: Block) -> String {
    let entry = |name| {
        block
            .dependency(name)
            .map(|address| format!("{name}=http://{address}"))
    };
    DEPENDENCIES
        .into_iter()
        .filter_map(entry)
        .collect::<Vec<_>>()
        .join(";")
}

async fn serve(listener: TcpListener, dependency: Arc<Dependency>) {
    loop {
        if let Ok((client, _)) = listener.accept().await {
            tokio::spawn(converse(client, Arc::clone(&dependency)));
        } else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// Answers GET after GET until the client closes. What goes wrong is the client's to notice.
async fn converse(mut client: TcpStream, dependency: Arc<Dependency>) {
    let (reading, mut writing) = client.split();
    let mut lines = BufReader::new(reading);
    let (mut line, mut head) = (Vec::new(), 0);
    while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
        head += line.len();
        let ends_head = line == b"\r\n" || line == b"\n";
        line.clear();
        if ends_head {
            head = 0;
            if writing
                .write_all(dependency.answer().as_bytes())
                .await
                .is_err()
            {
                return;
            }
        } else if head > LONGEST_HEAD {
            return;
        }
    }
}
