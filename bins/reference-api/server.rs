//! Accepts connections, and ends without a lost request.
//!
//! On SIGTERM: nothing new is accepted, every answer still says `Connection: close`, so that clients and proxies leave by
//! themselves; a second later idle connections are closed; requests in flight are finished. A connection ends with a FIN
//! and is read until the other side has closed too: closing with unread bytes would send a reset, which can destroy
//! an answer on its way.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::app::{App, routes};
use crate::faults::Faults;
use crate::log;

/// Longer than the idle time-out of every proxy in front (HAProxy: 60 s): the side that closes first must not be this one,
/// or a request could meet the closing.
const IDLE: Duration = Duration::from_secs(75);

/// Time for clients to learn from `Connection: close` that they must leave.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// The end of patience with requests in flight; region-host stops a slot after the same time.
const DRAIN: Duration = Duration::from_secs(30);

/// How long a closed connection is read for the other side's FIN.
const LINGER: Duration = Duration::from_secs(1);

/// How far the end of the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// Answers say `Connection: close`.
    Announcing,
    /// Idle connections are closed.
    Closing,
}

/// Becomes true on SIGTERM or SIGINT.
pub(crate) fn termination(faults: &Faults) -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let ignore_sigterm = faults.ignore_sigterm;
    let (send, receive) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => if !ignore_sigterm { break },
                _ = interrupt.recv() => break,
            }
        }
        // Nobody waits any more only when the process is ending anyway.
        let _ = send.send(true);
        std::future::pending::<()>().await;
    });
    Ok(receive)
}

pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

/// Serves until the signal, then drains.
pub(crate) async fn run(
    listener: TcpListener,
    app: Arc<App>,
    mut termination: watch::Receiver<bool>,
) {
    let router = routes(Arc::clone(&app));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => serve(&mut connections, stream, &router, &app),
                Err(error) => {
                    log::error("cannot accept a connection", &error.into());
                    // Out of file descriptors: trying again at once would only burn the processor.
                    sleep(Duration::from_millis(50)).await;
                }
            },
            _ = termination.wait_for(|asked| *asked) => break,
            Some(_) = connections.join_next() => {}
        }
    }
    app.phase.send_replace(Phase::Announcing);
    accept_the_waiting(&listener, &mut connections, &router, &app);
    drop(listener);
    drain(connections, &app).await;
}

/// Connections that the kernel has accepted already would be reset with the listener.
fn accept_the_waiting(
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
    router: &Router,
    app: &Arc<App>,
) {
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        serve(connections, stream, router, app);
    }
}

async fn drain(mut connections: JoinSet<()>, app: &App) {
    let all_ended = async {
        if timeout(ANNOUNCE, async {
            while connections.join_next().await.is_some() {}
        })
        .await
        .is_err()
        {
            app.phase.send_replace(Phase::Closing);
            while connections.join_next().await.is_some() {}
        }
    };
    if timeout(DRAIN, all_ended).await.is_err() {
        log::event(
            "error",
            &format!(
                "cut {} connections after a drain of {} s",
                connections.len(),
                DRAIN.as_secs()
            ),
        );
    }
}

fn serve(connections: &mut JoinSet<()>, stream: TcpStream, router: &Router, app: &Arc<App>) {
    // Without it a small answer waits for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let phase = app.phase.subscribe();
    connections.spawn(serve_connection(stream, router.clone(), phase));
}

async fn serve_connection(stream: TcpStream, router: Router, mut phase: watch::Receiver<Phase>) {
    let started = AtomicBool::new(false);
    let app = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        started.store(true, Ordering::Relaxed);
        Box::pin(app.call(request.map(Body::new)))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);

    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => ended,
        () = closing(&mut phase) => {
            // Hyper waits for the first request of a new connection; nobody is going to send it.
            if !started.load(Ordering::Relaxed) {
                return;
            }
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    // An error is the client's: gone in the middle, or not HTTP. There is nobody to tell.
    if ended.is_ok() {
        linger(connection.into_parts().io.into_inner()).await;
    }
}

/// Also when nobody can announce it any more.
async fn closing(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
}

async fn linger(mut stream: TcpStream) {
    let _ = timeout(LINGER, async {
        stream.shutdown().await?;
        let mut unread = [0_u8; 4096];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}
