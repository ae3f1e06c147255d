//! What a link does to the bytes that cross it, seen from both ends of a connection.
#![expect(
    clippy::expect_used,
    reason = "helpers of tests fail and tell as tests do"
)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use regionwise_lab::link::{Fault, IN_FLIGHT, Link, Shape, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Long enough for a loaded machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Crossing {
    near: TcpStream,
    far: TcpStream,
    address: SocketAddr,
    server: TcpListener,
    forward: Arc<Link>,
    backward: Arc<Link>,
}

/// One open connection over two links of that latency.
async fn cross(latency: Duration) -> Crossing {
    let (forward, backward) = (Arc::new(Link::new(latency)), Arc::new(Link::new(latency)));
    let server = listen().await;
    let proxy = listen().await;
    let address = proxy.local_addr().expect("an address");
    let target = v4(server.local_addr().expect("an address"));
    tokio::spawn(serve(
        proxy,
        target,
        Arc::clone(&forward),
        Arc::clone(&backward),
    ));
    let near = TcpStream::connect(address).await.expect("the proxy");
    let (far, _) = within(server.accept()).await.expect("a connection");
    near.set_nodelay(true).expect("a socket");
    far.set_nodelay(true).expect("a socket");
    let mut crossing = Crossing {
        near,
        far,
        address,
        server,
        forward,
        backward,
    };
    // From here on the proxy is done with connecting.
    round_trip(&mut crossing).await;
    crossing
}

async fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port")
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address}"),
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("no answer in time")
}

async fn expect(socket: &mut TcpStream, text: &[u8]) {
    let mut read = vec![0; text.len()];
    within(socket.read_exact(&mut read)).await.expect("bytes");
    assert_eq!(read, text);
}

fn with_fault(link: &Link, fault: Fault) {
    link.set(Shape {
        fault,
        ..link.shape()
    });
}

/// A byte there and a byte back.
async fn round_trip(crossing: &mut Crossing) -> Duration {
    let start = Instant::now();
    crossing.near.write_all(b"?").await.expect("a write");
    expect(&mut crossing.far, b"?").await;
    crossing.far.write_all(b"!").await.expect("a write");
    expect(&mut crossing.near, b"!").await;
    start.elapsed()
}

/// The quickest of several: what is not the link's doing is noise on top.
async fn quickest_round_trip(crossing: &mut Crossing) -> Duration {
    let mut quickest = Duration::MAX;
    for _ in 0..8 {
        quickest = quickest.min(round_trip(crossing).await);
    }
    quickest
}

#[tokio::test]
async fn latency_is_paid_once_each_way_and_changes_under_an_open_connection() {
    let mut crossing = cross(Duration::from_millis(45)).await;
    let slow = quickest_round_trip(&mut crossing).await;
    assert!((90..=115).contains(&slow.as_millis()), "{slow:?}");
    for link in [&crossing.forward, &crossing.backward] {
        link.set(Shape {
            latency: Duration::ZERO,
            ..link.shape()
        });
    }
    let quick = quickest_round_trip(&mut crossing).await;
    // One sleep alone would take a tick of 1 ms each way.
    assert!(quick < Duration::from_millis(2), "{quick:?}");
}

#[tokio::test]
async fn a_cut_holds_bytes_of_its_own_direction_only_and_loses_none() {
    let mut crossing = cross(Duration::ZERO).await;
    with_fault(&crossing.forward, Fault::Cut);
    crossing.near.write_all(b"held").await.expect("a write");
    crossing.far.write_all(b"passes").await.expect("a write");
    expect(&mut crossing.near, b"passes").await;
    let mut byte = [0];
    let nothing = timeout(Duration::from_millis(200), crossing.far.read(&mut byte)).await;
    assert!(nothing.is_err(), "a byte crossed a cut link");
    with_fault(&crossing.forward, Fault::None);
    expect(&mut crossing.far, b"held").await;
}

#[tokio::test]
async fn over_a_cut_link_even_a_close_and_a_new_connection_arrive_only_after_healing() {
    let mut crossing = cross(Duration::ZERO).await;
    with_fault(&crossing.forward, Fault::Cut);
    crossing
        .near
        .write_all(b"last words")
        .await
        .expect("a write");
    drop(crossing.near);
    let mut later = TcpStream::connect(crossing.address)
        .await
        .expect("the proxy accepts");
    later.write_all(b"hello").await.expect("a write");
    let nobody = timeout(Duration::from_millis(200), crossing.server.accept()).await;
    assert!(nobody.is_err(), "a connection crossed a cut link");
    with_fault(&crossing.forward, Fault::None);
    expect(&mut crossing.far, b"last words").await;
    assert_eq!(
        within(crossing.far.read(&mut [0])).await.expect("an end"),
        0
    );
    let (mut far, _) = within(crossing.server.accept())
        .await
        .expect("a connection");
    expect(&mut far, b"hello").await;
}

#[tokio::test]
async fn half_open_closes_the_far_side_and_leaves_the_near_one_open_and_silent() {
    let mut crossing = cross(Duration::ZERO).await;
    with_fault(&crossing.forward, Fault::HalfOpen);
    assert_eq!(
        within(crossing.far.read(&mut [0])).await.expect("a close"),
        0
    );
    crossing
        .near
        .write_all(b"anybody?")
        .await
        .expect("the near side takes it");
    let silence = timeout(Duration::from_millis(200), crossing.near.read(&mut [0])).await;
    assert!(silence.is_err(), "the near side noticed");
    with_fault(&crossing.forward, Fault::None);
    let error = within(crossing.near.read(&mut [0]))
        .await
        .expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn half_open_in_the_other_direction_closes_the_clients_end() {
    let mut crossing = cross(Duration::ZERO).await;
    with_fault(&crossing.backward, Fault::HalfOpen);
    assert_eq!(
        within(crossing.near.read(&mut [0])).await.expect("a close"),
        0
    );
    let silence = timeout(Duration::from_millis(200), crossing.far.read(&mut [0])).await;
    assert!(silence.is_err(), "the server's end noticed");
}

#[tokio::test]
async fn reset_reaches_both_ends_at_once_and_spares_later_connections() {
    let mut crossing = cross(Duration::ZERO).await;
    // A reset does not travel: it comes at once over the slowest link.
    let slow = Shape {
        latency: Duration::from_secs(60),
        ..crossing.forward.shape()
    };
    crossing.forward.set(slow);
    crossing.backward.reset();
    for socket in [&mut crossing.near, &mut crossing.far] {
        let error = within(socket.read(&mut [0])).await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    crossing.forward.set(Shape {
        latency: Duration::ZERO,
        ..slow
    });
    crossing.near = TcpStream::connect(crossing.address)
        .await
        .expect("the proxy");
    crossing.far = within(crossing.server.accept())
        .await
        .expect("a connection")
        .0;
    round_trip(&mut crossing).await;
}

#[tokio::test]
async fn bandwidth_is_shared_by_all_connections_of_a_link() {
    const BYTES: usize = 500_000;
    let mut first = cross(Duration::ZERO).await;
    let mut near = TcpStream::connect(first.address).await.expect("the proxy");
    let (mut far, _) = within(first.server.accept()).await.expect("a connection");
    let limit = NonZeroU64::new(1_000_000);
    first.forward.set(Shape {
        bandwidth: limit,
        ..first.forward.shape()
    });
    let payload = vec![7; BYTES];
    let (mut into_first, mut into_second) = (vec![0; BYTES], vec![0; BYTES]);
    let start = Instant::now();
    let all = async {
        tokio::try_join!(
            first.near.write_all(&payload),
            near.write_all(&payload),
            first.far.read_exact(&mut into_first),
            far.read_exact(&mut into_second),
        )
    };
    within(all).await.expect("both payloads");
    let took = start.elapsed();
    assert!(
        (0.95..2.0).contains(&took.as_secs_f64()),
        "1 MB at 1 MB/s took {took:?}"
    );
    assert!(into_first == payload && into_second == payload);
}

#[tokio::test]
async fn delay_does_not_limit_throughput() {
    const BYTES: usize = 20_000_000;
    let mut crossing = cross(Duration::from_millis(45)).await;
    let payload: Vec<u8> = (0..=250).cycle().take(BYTES).collect();
    let mut received = vec![0; BYTES];
    let start = Instant::now();
    let both = async {
        tokio::try_join!(
            crossing.near.write_all(&payload),
            crossing.far.read_exact(&mut received)
        )
    };
    within(both).await.expect("the payload");
    // Stop-and-wait with 64 KiB per 45 ms would take 14 s.
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    assert!(received == payload, "bytes changed on the way");
}

#[tokio::test]
async fn a_cut_link_holds_a_bounded_number_of_bytes_and_delivers_each_of_them() {
    let mut crossing = cross(Duration::ZERO).await;
    with_fault(&crossing.forward, Fault::Cut);
    let chunk = vec![1; 64 * 1024];
    let mut accepted = 0;
    // Until nothing has been taken for a while: the line and both socket buffers are full.
    while let Ok(written) = timeout(Duration::from_millis(300), crossing.near.write(&chunk)).await {
        accepted += written.expect("a write");
        assert!(accepted < 64 * 1024 * 1024, "{accepted} bytes and no end");
    }
    let held = crossing.forward.in_flight();
    assert!(held <= IN_FLIGHT, "{held} bytes");
    assert!(
        held > IN_FLIGHT - 128 * 1024,
        "{held} bytes: the line was not filled"
    );
    with_fault(&crossing.forward, Fault::None);
    let mut received = vec![0; accepted];
    within(crossing.far.read_exact(&mut received))
        .await
        .expect("every byte");
    drop((crossing.near, crossing.far));
    let emptied = async {
        while crossing.forward.open_connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(emptied).await;
    assert_eq!(crossing.forward.in_flight(), 0);
}

#[tokio::test]
async fn small_chunks_are_bounded_too() {
    let mut crossing = cross(Duration::ZERO).await;
    with_fault(&crossing.forward, Fault::Cut);
    for _ in 0..2_000 {
        crossing.near.write_all(b"x").await.expect("a write");
        tokio::task::yield_now().await;
    }
    let counted = async {
        while crossing.forward.in_flight() < 128 {
            tokio::task::yield_now().await;
        }
    };
    within(counted).await;
    // A parcel of one byte weighs more than one byte.
    assert!(
        crossing.forward.in_flight() > 128,
        "{}",
        crossing.forward.in_flight()
    );
}

#[tokio::test]
async fn a_target_that_refuses_resets_the_client() {
    let crossing = cross(Duration::ZERO).await;
    let address = crossing.address;
    drop(crossing.server);
    let mut refused = TcpStream::connect(address)
        .await
        .expect("the proxy accepts");
    let error = within(refused.read(&mut [0])).await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_server_that_dies_with_a_reset_resets_the_client() {
    let mut crossing = cross(Duration::ZERO).await;
    crossing.far.set_zero_linger().expect("a socket");
    drop(crossing.far);
    let error = within(crossing.near.read(&mut [0]))
        .await
        .expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn one_direction_can_be_closed_while_the_other_goes_on() {
    let mut crossing = cross(Duration::from_millis(5)).await;
    crossing.near.write_all(b"question").await.expect("a write");
    crossing.near.shutdown().await.expect("a shutdown");
    let mut question = Vec::new();
    within(crossing.far.read_to_end(&mut question))
        .await
        .expect("an end");
    assert_eq!(question, b"question");
    crossing.far.write_all(b"answer").await.expect("a write");
    drop(crossing.far);
    let mut answer = Vec::new();
    within(crossing.near.read_to_end(&mut answer))
        .await
        .expect("an end");
    assert_eq!(answer, b"answer");
}

#[tokio::test]
async fn a_corrupting_link_changes_one_byte_of_that_text_in_its_own_direction_only() {
    let mut crossing = cross(Duration::ZERO).await;
    crossing.forward.corrupt(Some("marker"));
    for (sent, arrives) in [("a marker here", "a markes here"), ("nothing", "nothing")] {
        crossing
            .near
            .write_all(sent.as_bytes())
            .await
            .expect("the link");
        expect(&mut crossing.far, arrives.as_bytes()).await;
    }
    crossing.far.write_all(b"marker").await.expect("the link");
    expect(&mut crossing.near, b"marker").await;
    crossing.forward.corrupt(None);
    crossing.near.write_all(b"marker").await.expect("the link");
    expect(&mut crossing.far, b"marker").await;
}
