//! One link for `scripts/bench migrate`: a port of this machine that leads to another one over a delay, and counts bytes.
//!
//!     delay TARGET ONE_WAY_MS
//!
//! The first line of stdout is the port; every line of stdin is answered with the bytes that crossed since the last
//! one, both ways together. The end of stdin ends it.
#![expect(
    clippy::print_stdout,
    reason = "its output is what the benchmark reads"
)]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use regionwise_lab::link::{Link, serve};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, stdin};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let target: SocketAddrV4 = words.next().ok_or("no target")?.parse()?;
    let one_way = Duration::from_millis(words.next().ok_or("no delay")?.parse()?);
    let link = || Arc::new(Link::new(one_way));

    let delayed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let inner = delayed.local_addr()?;
    tokio::spawn(serve(delayed, target, link(), link()));
    let counted = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", counted.local_addr()?.port());
    let bytes = Arc::new(AtomicU64::new(0));
    tokio::spawn(count(counted, inner, Arc::clone(&bytes)));

    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {
        println!("{}", bytes.swap(0, Ordering::Relaxed));
    }
    Ok(())
}

async fn count(listener: TcpListener, inner: SocketAddr, bytes: Arc<AtomicU64>) {
    while let Ok((near, _)) = listener.accept().await {
        let bytes = Arc::clone(&bytes);
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(inner).await else {
                return;
            };
            if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
                return;
            }
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            tokio::spawn(pass(near_in, far_out, Arc::clone(&bytes)));
            pass(far_in, near_out, bytes).await;
        });
    }
}

/// Until either side has enough; dropping the halves tells the other.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        bytes.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
