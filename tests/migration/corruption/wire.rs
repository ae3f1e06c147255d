//! A way to a server on which one COPY says something else: real bytes of a real server, of rows that are not those.
//!
//! A twin session on the source has changed the rows in an open transaction, and what it sees takes the place of what
//! should have come over the wire. Everything else is passed on as it is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::TryStreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::session::Session;

/// Whose words are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    FromSource,
    ToTarget,
}

/// What is said instead, once: the rows of `table` as `twin` sees them, without the last `cut` bytes.
pub(super) struct Forgery {
    pub(super) wire: Wire,
    pub(super) table: &'static str,
    pub(super) twin: Session,
    pub(super) cut: usize,
}

pub(super) struct Forged {
    pub(super) port: u16,
    done: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Forged {
    pub(super) async fn on_the_way_to(port: u16, forgery: Forgery) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let done = Arc::new(AtomicBool::new(false));
        let shared = Arc::new((forgery, Arc::clone(&done)));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&shared)));
            }
        });
        Self {
            port: own,
            done,
            task,
        }
    }

    /// Whether the COPY came by.
    pub(super) fn was_heard(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
}

impl Drop for Forged {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = Arc<(Forgery, Arc<AtomicBool>)>;

/// What one connection is about.
#[derive(Default)]
struct Talk {
    prepared: HashMap<String, String>,
    /// The COPY that is under way.
    copy: Option<String>,
}

async fn carry(client: TcpStream, server: TcpStream, shared: Shared) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let talk = Arc::new(Mutex::new(Talk::default()));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = requests(
        from_client,
        to_server,
        Arc::clone(&shared),
        Arc::clone(&talk),
    );
    let back = answers(from_server, to_client, shared, talk);
    tokio::select! {
        _ = there => {}
        _ = back => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Shared,
    talk: Arc<Mutex<Talk>>,
) -> std::io::Result<()> {
    // The first message has no kind.
    let mut head = [0; 4];
    from.read_exact(&mut head).await?;
    let mut body = vec![0; length(&head)];
    from.read_exact(&mut body).await?;
    to.write_all(&[&head[..], &body].concat()).await?;
    loop {
        let (kind, body) = message(&mut from).await?;
        let mut texts = body.split(|byte| *byte == 0);
        let mut text = || String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
        match kind {
            b'P' => {
                let (name, sql) = (text(), text());
                talk.lock().unwrap().prepared.insert(name, sql);
            }
            b'B' => {
                let (_, name) = (text(), text());
                let mut talk = talk.lock().unwrap();
                let sql = talk.prepared.get(&name).cloned();
                if let Some(sql) = sql.filter(|sql| sql.starts_with("COPY")) {
                    talk.copy = Some(sql);
                }
            }
            b'd' | b'c' if shared.0.wire == Wire::ToTarget => {
                let copy = talk.lock().unwrap().copy.clone();
                if replaced(&mut to, kind, copy, &shared).await? {
                    continue;
                }
            }
            _ => {}
        }
        pass_on(&mut to, kind, &body).await?;
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Shared,
    talk: Arc<Mutex<Talk>>,
) -> std::io::Result<()> {
    loop {
        let (kind, body) = message(&mut from).await?;
        if matches!(kind, b'd' | b'c') && shared.0.wire == Wire::FromSource {
            let copy = talk.lock().unwrap().copy.clone();
            if replaced(&mut to, kind, copy, &shared).await? {
                continue;
            }
        }
        pass_on(&mut to, kind, &body).await?;
    }
}

/// Keeps the rows of the COPY back, and says the twin's at its end.
async fn replaced(
    to: &mut OwnedWriteHalf,
    kind: u8,
    copy: Option<String>,
    (forgery, done): &(Forgery, Arc<AtomicBool>),
) -> std::io::Result<bool> {
    let Some(sql) = copy.and_then(|copy| forgery.instead_of(&copy)) else {
        return Ok(false);
    };
    if done.load(Ordering::SeqCst) {
        return Ok(false);
    }
    if kind == b'c' {
        done.store(true, Ordering::SeqCst);
        let rows = forgery.twin.client.copy_out(&sql).await.unwrap();
        let mut rows = std::pin::pin!(rows);
        let mut all = Vec::new();
        while let Some(piece) = rows.try_next().await.unwrap() {
            all.extend_from_slice(&piece);
        }
        all.truncate(all.len() - forgery.cut);
        pass_on(to, b'd', &all).await?;
        pass_on(to, b'c', &[]).await?;
    }
    Ok(true)
}

impl Forgery {
    /// The statement for the twin, when this is the COPY that is meant.
    fn instead_of(&self, copy: &str) -> Option<String> {
        let copy = &copy.replace('"', "");
        match self.wire {
            Wire::FromSource => {
                // What is sent is always called `t`; the way to it may lead over other tables.
                let table = format!("{} t ", self.qualified());
                let meant = copy.starts_with("COPY (") && copy.contains(&table);

                meant.then(|| copy.to_owned())
            }
            Wire::ToTarget => {
                let (into, columns) = copy.strip_prefix("COPY ")?.split_once(" (")?;
                let (columns, _) = columns.split_once(')')?;
                // Rows that travel as text go into a temporary table; `tags` alone is such a one.
                let textual = into.starts_with("pg_temp.");
                let meant = into == self.qualified() || textual && self.table == "tags";
                let columns = match textual {
                    true => columns.replace("moods", "moods::text"),
                    false => columns.to_owned(),
                };
                let table = self.table;
                meant.then(|| {
                    format!("COPY (SELECT {columns} FROM {table}) TO STDOUT (FORMAT binary)")
                })
            }
        }
    }

    fn qualified(&self) -> String {
        format!("public.{}", self.table)
    }
}

async fn message(from: &mut OwnedReadHalf) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await?;
    let mut body = vec![0; length(&[head[1], head[2], head[3], head[4]])];
    from.read_exact(&mut body).await?;
    Ok((head[0], body))
}

fn length(head: &[u8; 4]) -> usize {
    usize::try_from(u32::from_be_bytes(*head)).unwrap() - 4
}

async fn pass_on(to: &mut OwnedWriteHalf, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let mut all = vec![kind];
    all.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    all.extend_from_slice(body);
    to.write_all(&all).await
}
