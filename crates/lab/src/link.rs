//! Links between regions: TCP proxies with one-way latency, bandwidth, cut, half-open, reset and corruption.
//!
//! A [`Link`] is one direction of one pair of regions and is shared by all connections that cross it. What a
//! client sends obeys the link from its region to the server's, what it receives obeys the opposite link.
//! Changes apply at once, also to open connections.
//!
//! Each direction of a connection is a delay line, not stop-and-wait: bytes are stamped when they are read and
//! written when their time has come, so throughput does not fall with the delay. What waits in the line is
//! bounded by [`IN_FLIGHT`]; a full line is not read, and TCP slows the sender down.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Bytes that one direction of one connection holds at most. 45 ms each way at 40 MB/s need 3.6 MB.
pub const IN_FLIGHT: usize = 4 * 1024 * 1024;
/// Taken from the room of the line before a read, so that a read never exceeds it.
const CHUNK: usize = 64 * 1024;
/// What a chunk costs besides its bytes: a line of one-byte chunks must be bounded too.
const CHUNK_OVERHEAD: usize = 128;
/// A slow link sends in slices of this length, so that a change of its bandwidth is felt at once.
const SLICES_PER_SECOND: u64 = 50;

/// How a link treats what crosses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// One way.
    pub latency: Duration,
    /// Bytes per second, shared by all connections of the link.
    pub bandwidth: Option<NonZeroU64>,
    pub fault: Fault,
}

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    None,
    /// Nothing arrives and nothing is lost: what was sent arrives when the link is healed.
    Cut,
    /// The far side's socket is closed; the near side keeps an open, silent one.
    HalfOpen,
}

#[derive(Clone, Copy, Debug)]
struct State {
    shape: Shape,
    /// Counts the resets: each one ends every connection that was open.
    resets: u64,
}

/// One direction between two regions.
#[derive(Debug)]
pub struct Link {
    state: watch::Sender<State>,
    /// When the last byte so far has left, on a link with a bandwidth.
    busy_until: Mutex<Option<Instant>>,
    /// Wherever these bytes cross the link, the last of them is changed: what no checksum of TCP noticed.
    corrupted: Mutex<Option<Vec<u8>>>,
    in_flight: AtomicUsize,
    /// Connections that were opened over this link and still exist.
    open: AtomicUsize,
}

impl Link {
    pub fn new(latency: Duration) -> Self {
        let shape = Shape {
            latency,
            bandwidth: None,
            fault: Fault::None,
        };
        Self {
            state: watch::Sender::new(State { shape, resets: 0 }),
            busy_until: Mutex::new(None),
            corrupted: Mutex::new(None),
            in_flight: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        }
    }

    pub fn shape(&self) -> Shape {
        self.state.borrow().shape
    }

    pub fn set(&self, shape: Shape) {
        self.state.send_modify(|state| state.shape = shape);
        if shape.bandwidth.is_none() {
            *self.busy_until() = None;
        }
    }

    /// Sends RST to both ends of every connection that crosses this link now, in whichever direction it was
    /// opened. Later connections work.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }

    /// From now on changes the last byte of `text` wherever it crosses the link in one piece; `None` ends it.
    pub fn corrupt(&self, text: Option<&str>) {
        let bytes = text.filter(|text| !text.is_empty());
        *self.corrupted() = bytes.map(|text| text.as_bytes().to_vec());
    }

    fn corrupted(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.corrupted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn spoil(&self, bytes: &mut [u8]) {
        let corrupted = self.corrupted();
        let Some(wanted) = corrupted.as_deref() else {
            return;
        };
        let last = wanted.len() - 1;
        let places: Vec<usize> = bytes
            .windows(wanted.len())
            .enumerate()
            .filter_map(|(place, window)| (window == wanted).then_some(place + last))
            .collect();
        for place in places {
            bytes[place] ^= 1;
        }
    }

    /// Bytes that were read from a sender and not yet written to the receiver.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Open connections whose client is at this link's near end.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn busy_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.busy_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what was sent at `sent` is at the far end.
    async fn arrival(&self, state: &mut watch::Receiver<State>, sent: Instant) {
        loop {
            let shape = state.borrow_and_update().shape;
            if shape.fault == Fault::None {
                let due = sent + shape.latency;
                // tokio timers tick at 1 ms: without this a link of no delay would cost 1 ms each way.
                if shape.latency.is_zero() || due <= Instant::now() {
                    return;
                }
                tokio::select! {
                    () = sleep_until(due) => {}
                    changed = state.changed() => if changed.is_err() { return },
                }
            } else if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the link has sent `bytes` more, which only takes time when it has a bandwidth.
    async fn transmit(&self, bytes: usize) {
        let Some(bandwidth) = self.shape().bandwidth else {
            return;
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bandwidth.get());
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let sent = {
            let mut busy_until = self.busy_until();
            let now = Instant::now();
            let start = busy_until.map_or(now, |busy_until| busy_until.max(now));
            *busy_until = Some(start + takes);
            start + takes
        };
        sleep_until(sent).await;
    }

    /// The most that is written at once.
    fn slice(&self) -> usize {
        let per_slice = self
            .shape()
            .bandwidth
            .map(|bandwidth| bandwidth.get() / SLICES_PER_SECOND);
        per_slice.map_or(CHUNK, |bytes| {
            usize::try_from(bytes).unwrap_or(CHUNK).clamp(1, CHUNK)
        })
    }
}

/// Takes connections from one region to one target in another until the task is dropped.
pub async fn serve(
    listener: TcpListener,
    target: SocketAddrV4,
    forward: Arc<Link>,
    backward: Arc<Link>,
) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(carry(
                    client,
                    target,
                    Arc::clone(&forward),
                    Arc::clone(&backward),
                ));
            }
            // Out of descriptors: those of ended connections come back, and the client waits in the backlog.
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// How a connection was ended from outside.
enum Interruption {
    Reset,
    /// The server's end was closed, the client's stays.
    ServerGone,
    /// The client's end was closed, the server's stays.
    ClientGone,
}

async fn carry(client: TcpStream, target: SocketAddrV4, forward: Arc<Link>, backward: Arc<Link>) {
    forward.open.fetch_add(1, Ordering::Relaxed);
    let mut server = None;
    let interruption = tokio::select! {
        biased;
        interruption = interrupted(&forward, &backward) => Some(interruption),
        outcome = connect_and_pump(&client, &mut server, target, &forward, &backward) => match outcome {
            Ok(()) => None,
            Err(Broken) => Some(Interruption::Reset),
        },
    };
    match interruption {
        None => {}
        Some(Interruption::Reset) => {
            reset(&client);
            if let Some(server) = &server {
                reset(server);
            }
        }
        Some(Interruption::ServerGone) => {
            drop(server.take());
            stay_silent(&client, &forward).await;
        }
        Some(Interruption::ClientGone) => {
            drop(client);
            if let Some(server) = &server {
                stay_silent(server, &backward).await;
            }
        }
    }
    forward.open.fetch_sub(1, Ordering::Relaxed);
}

async fn interrupted(forward: &Link, backward: &Link) -> Interruption {
    let (mut ahead, mut back) = (forward.state.subscribe(), backward.state.subscribe());
    let resets = ahead.borrow().resets + back.borrow().resets;
    loop {
        let (now_ahead, now_back) = (*ahead.borrow_and_update(), *back.borrow_and_update());
        if now_ahead.resets + now_back.resets != resets {
            return Interruption::Reset;
        }
        if now_ahead.shape.fault == Fault::HalfOpen {
            return Interruption::ServerGone;
        }
        if now_back.shape.fault == Fault::HalfOpen {
            return Interruption::ClientGone;
        }
        // The senders live as long as the links, which the caller holds.
        tokio::select! { _ = ahead.changed() => {}, _ = back.changed() => {} }
    }
}

/// The open end of a half-open connection: nothing comes and nothing is answered. Once the link is whole again
/// the far side, which knows no such connection, answers with RST.
async fn stay_silent(near: &TcpStream, link: &Link) {
    let mut state = link.state.subscribe();
    let healed = state.wait_for(|state| state.shape.fault != Fault::HalfOpen);
    let closed = async {
        // Read and thrown away only to notice that the near side gave up.
        let mut buffer = vec![0; CHUNK];
        while let Ok(1..) = read(near, &mut buffer).await {}
    };
    tokio::select! { _ = healed => reset(near), () = closed => {} }
}

/// One end is gone without a proper close.
struct Broken;

async fn connect_and_pump(
    client: &TcpStream,
    server: &mut Option<TcpStream>,
    target: SocketAddrV4,
    forward: &Link,
    backward: &Link,
) -> Result<(), Broken> {
    client.set_nodelay(true).map_err(|_| Broken)?;
    let (mut ahead, mut back) = (forward.state.subscribe(), backward.state.subscribe());
    // The kernel has completed the client's handshake already. What it would have taken over this link is made
    // up for here: nothing the client says is sent before a round trip.
    forward.arrival(&mut ahead, Instant::now()).await;
    let server = &*server.insert(connect(target).await.map_err(|_| Broken)?);
    backward.arrival(&mut back, Instant::now()).await;
    server.set_nodelay(true).map_err(|_| Broken)?;
    tokio::try_join!(
        pump(client, server, forward, backward),
        pump(server, client, backward, forward)
    )?;
    Ok(())
}

/// Connects so that a connection which is interrupted half-way ends with RST, not with a friendly FIN.
async fn connect(target: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_zero_linger()?;
    let connected = socket.connect(SocketAddr::V4(target)).await?;
    socket2::SockRef::from(&connected).set_linger(None)?;
    Ok(connected)
}

struct Parcel<'a> {
    sent: Instant,
    content: Content,
    /// Counted as in flight until it is dropped.
    weight: Weight<'a>,
}

enum Content {
    Bytes(Vec<u8>),
    /// The sender has closed its direction.
    End,
    /// The sender is gone.
    Reset,
}

/// Carries one direction over `link`. Ends `Ok` when the sender's close has arrived.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    link: &Link,
    opposite: &Link,
) -> Result<(), Broken> {
    let (line_in, mut line_out) = mpsc::unbounded_channel();
    let room = Semaphore::new(IN_FLIGHT);
    let reader = async {
        let mut buffer = vec![0; CHUNK - CHUNK_OVERHEAD];
        loop {
            // Closed never: `room` outlives this block.
            let Ok(claim) = room
                .acquire_many(u32::try_from(CHUNK).unwrap_or(u32::MAX))
                .await
            else {
                return;
            };
            let read = read(from, &mut buffer).await;
            claim.forget();
            let content = match read {
                Ok(0) => Content::End,
                Ok(length) => {
                    link.spoil(&mut buffer[..length]);
                    Content::Bytes(buffer[..length].to_vec())
                }
                Err(_) => Content::Reset,
            };
            let last = !matches!(content, Content::Bytes(_));
            let weight = Weight::new(link, &content);
            room.add_permits(CHUNK - weight.bytes);
            // Fails only after the writer has ended, and then the whole pump ends.
            if line_in
                .send(Parcel {
                    sent: Instant::now(),
                    content,
                    weight,
                })
                .is_err()
                || last
            {
                return;
            }
        }
    };
    let writer = async {
        let mut state = link.state.subscribe();
        while let Some(Parcel {
            sent,
            content,
            weight,
        }) = line_out.recv().await
        {
            link.arrival(&mut state, sent).await;
            match content {
                Content::Bytes(bytes) => {
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let (slice, later) = rest.split_at(link.slice().min(rest.len()));
                        link.transmit(slice.len()).await;
                        // A cut may have come while the slice waited for its turn.
                        link.arrival(&mut state, sent).await;
                        if write_all(to, slice).await.is_err() {
                            // The news that the receiver is gone travels back to the sender.
                            let mut state = opposite.state.subscribe();
                            opposite.arrival(&mut state, Instant::now()).await;
                            return Err(Broken);
                        }
                        rest = later;
                    }
                }
                Content::End => {
                    // Fails when the receiver is gone, and then there is nobody to tell.
                    let _ = socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write);
                    return Ok(());
                }
                Content::Reset => return Err(Broken),
            }
            room.add_permits(weight.bytes);
        }
        Ok(())
    };
    // The reader ends first on a proper close, but must not hold up a writer whose receiver is gone.
    let reader_then_nothing = async {
        reader.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = writer => outcome,
        () = reader_then_nothing => Ok(()),
    }
}

struct Weight<'a> {
    link: &'a Link,
    bytes: usize,
}

impl<'a> Weight<'a> {
    fn new(link: &'a Link, content: &Content) -> Self {
        let bytes = CHUNK_OVERHEAD
            + match content {
                Content::Bytes(bytes) => bytes.len(),
                Content::End | Content::Reset => 0,
            };
        link.in_flight.fetch_add(bytes, Ordering::Relaxed);
        Self { link, bytes }
    }
}

impl Drop for Weight<'_> {
    fn drop(&mut self) {
        self.link.in_flight.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

async fn read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The close that follows sends RST instead of FIN.
fn reset(socket: &TcpStream) {
    // Fails only on a socket that is closed already.
    let _ = socket.set_zero_linger();
}
