//! HAProxy on this host: its admin socket, its config, and requests through it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use regionwise_protocol::Denial;
use regionwise_rollout::slot::Slot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::deny::{OrDeny, host};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::traffic;

/// A hung admin socket must not hang a verb.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);
/// `show stat` of three backends has a few KB; more is not HAProxy.
const ADMIN_LIMIT: u64 = 1024 * 1024;

/// One command on the admin socket.
async fn admin(layout: &Layout, command: &str) -> Result<String, Denial> {
    let path = layout.admin_socket();
    let talk = async {
        let mut stream = UnixStream::connect(&path).await?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ADMIN_LIMIT).read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(ADMIN_TIMEOUT, talk).await;
    let answer = answer.or_host(|| "cannot ask haproxy within 2 s".to_owned())?;
    answer.or_host(|| format!("cannot ask haproxy on `{}`", path.display()))
}

/// The slot that the running proxy uses.
pub(crate) async fn runtime(layout: &Layout) -> Result<Option<Slot>, Denial> {
    let path = layout.active_map();
    let answer = admin(layout, &format!("show map {}", path.display())).await?;
    let named = answer.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some("active"))
            .then(|| words.next())
            .flatten()
    });
    named.and_then(traffic::slot_of).ok_or_else(|| {
        host(format!(
            "haproxy has no usable entry in its map: {}",
            answer.trim()
        ))
        .with_hint("region-host reconcile")
    })
}

/// Tells the running proxy which slot to use, and reads it back.
pub(crate) async fn set_runtime(layout: &Layout, slot: Option<Slot>) -> Result<(), Denial> {
    let path = layout.active_map();
    let backend = traffic::backend(slot);
    let answer = admin(
        layout,
        &format!("set map {} active {backend}", path.display()),
    )
    .await?;
    if !answer.trim().is_empty() {
        // An emptied map has no key to set.
        admin(
            layout,
            &format!("add map {} active {backend}", path.display()),
        )
        .await?;
    }
    let found = runtime(layout).await?;
    if found == slot {
        Ok(())
    } else {
        Err(host(format!(
            "haproxy was told `{backend}` and uses `{}`",
            traffic::backend(found)
        )))
    }
}

/// Requests that the slot's backend is answering right now.
pub(crate) async fn in_flight(layout: &Layout, slot: Slot) -> Result<u64, Denial> {
    let answer = admin(layout, "show stat").await?;
    let backend = traffic::backend(Some(slot));
    answer
        .lines()
        .map(|line| line.split(',').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&backend) && fields.get(1) == Some(&"BACKEND"))
        // Column 5 is `scur`, sessions now (HAProxy management guide, section 9.1).
        .and_then(|fields| fields.get(4)?.parse().ok())
        .ok_or_else(|| host(format!("haproxy reports no counter for `{backend}`")))
}

/// A client for requests to this host itself: no proxy from the environment, no redirects.
pub(crate) fn client() -> Result<reqwest::Client, Denial> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // A kept connection would lead to the slot of before.
        .pool_max_idle_per_host(0)
        .build()
        .or_host(|| "cannot make an HTTP client".to_owned())
}

/// A health request; the release that answered with 2xx.
pub(crate) async fn release_at(
    client: &reqwest::Client,
    address: SocketAddr,
    path: &str,
    limit: Duration,
) -> Result<String, String> {
    let request = client.get(format!("http://{address}{path}")).timeout(limit);
    let answer = request.send().await.map_err(|error| describe(&error))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("status {}", status.as_u16()));
    }
    let release = answer
        .headers()
        .get("x-release")
        .and_then(|value| value.to_str().ok());
    release
        .map(ToOwned::to_owned)
        .ok_or_else(|| "no `X-Release` header".to_owned())
}

fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        "connection refused".to_owned()
    } else {
        "the connection broke".to_owned()
    }
}

/// A complete configuration for an HAProxy of its own. Every slot is one backend; the map chooses.
pub(crate) fn config(layout: &Layout, settings: &Settings) -> String {
    let show = |path: &Path| path.display().to_string();
    let server = |slot: Slot| {
        format!(
            "backend {backend}\n    retry-on conn-failure\n    server {slot} {address}\n\n",
            backend = traffic::backend(Some(slot)),
            address = settings.address(slot)
        )
    };
    format!(
        "# Written by region-host install. Only region-host writes the map files.\n\
         global\n\
         \x20   stats socket {socket} mode 600 level admin\n\
         \x20   stats timeout 2s\n\
         \x20   maxconn 2000\n\
         \n\
         defaults\n\
         \x20   mode http\n\
         \x20   retries 3\n\
         \x20   timeout connect 2s\n\
         \x20   timeout client 60s\n\
         \x20   timeout server 60s\n\
         \x20   timeout http-request 10s\n\
         \x20   timeout http-keep-alive 60s\n\
         \x20   timeout tunnel 1h\n\
         \n\
         frontend {app}\n\
         \x20   bind {listen}\n\
         \x20   # An empty map means the default: 503, never a guess.\n\
         \x20   use_backend %[str(active),map({map},bk_unset)]\n\
         \n\
         {blue}{green}\
         backend bk_unset\n\
         \x20   http-request return status 503 hdr Retry-After 5\n",
        socket = show(&layout.admin_socket()),
        app = settings.app,
        listen = settings.listen,
        map = show(&layout.active_map()),
        blue = server(Slot::Blue),
        green = server(Slot::Green),
    )
}
