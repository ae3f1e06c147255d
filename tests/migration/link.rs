//! The way from one call of the binary to one server: forwards, and can be cut or muted.
//!
//! It has a thread of its own, because a test that waits for something must not stop the network.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::AbortHandle;

static NETWORK: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("network")
        .enable_all()
        .build()
        .expect("a runtime")
});

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Answers vanish; requests arrive.
    Mute,
    /// No connection is taken; those of now stay.
    Full,
    /// No connection is taken, no connection stays.
    Down,
}

pub(crate) struct Link {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    /// Grows with each cut: connections of an older time end.
    epoch: watch::Sender<u64>,
    sent: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    listener: AbortHandle,
}

impl Link {
    pub(crate) fn to(port: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let own = listener.local_addr().expect("its number").port();
        let (mode, modes) = watch::channel(Mode::Forward);
        let (epoch, epochs) = watch::channel(0);
        let sent = Arc::new(AtomicU64::new(0));
        let refused = Arc::new(AtomicU64::new(0));
        let wire = Wire {
            to: SocketAddr::from(([127, 0, 0, 1], port)),
            modes,
            epochs,
            sent: Arc::clone(&sent),
            refused: Arc::clone(&refused),
        };
        let task = NETWORK.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(wire.clone().carry(client));
            }
        });
        Self {
            port: own,
            mode,
            epoch,
            sent,
            refused,
            listener: task.abort_handle(),
        }
    }

    /// Every connection of now ends; new ones are taken.
    pub(crate) fn cut(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Every connection ends, and none is taken until [`Self::up`].
    pub(crate) fn down(&self) {
        self.mode.send_replace(Mode::Down);
        self.cut();
    }

    /// Connections of now stay, and none is taken until [`Self::up`].
    pub(crate) fn full(&self) {
        self.mode.send_replace(Mode::Full);
    }

    pub(crate) fn mute(&self) {
        self.mode.send_replace(Mode::Mute);
    }

    pub(crate) fn up(&self) {
        self.mode.send_replace(Mode::Forward);
    }

    /// Bytes that went to the server so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Connections that were not taken so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

#[derive(Clone)]
struct Wire {
    to: SocketAddr,
    modes: watch::Receiver<Mode>,
    epochs: watch::Receiver<u64>,
    sent: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Wire {
    async fn carry(mut self, client: TcpStream) {
        let mode = *self.modes.borrow();
        if matches!(mode, Mode::Full | Mode::Down) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return;
        }
        self.epochs.borrow_and_update();
        let Ok(server) = TcpStream::connect(self.to).await else {
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let there = self.clone().pump(from_client, to_server, true);
        let back = self.clone().pump(from_server, to_client, false);
        tokio::select! {
            () = there => {}
            () = back => {}
            _ = self.epochs.changed() => {}
        }
    }

    async fn pump(
        self,
        mut from: tokio::net::tcp::OwnedReadHalf,
        mut to: tokio::net::tcp::OwnedWriteHalf,
        to_server: bool,
    ) {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            if !to_server && *self.modes.borrow() == Mode::Mute {
                continue;
            }
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
            if to_server {
                let length = u64::try_from(length).unwrap_or(0);
                self.sent.fetch_add(length, Ordering::SeqCst);
            }
        }
    }
}
