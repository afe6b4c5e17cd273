//! A slow line: a proxy that lets through so many bytes a second each way, each of them late.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// What is on its way at most, in pieces: a piece is what passes in a fiftieth of a second.
const ON_ITS_WAY_MAX: usize = 256;

/// How slow a line is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    pub(crate) bytes_per_s: usize,
    /// How long a byte takes, one way.
    pub(crate) delay: Duration,
}

/// A slow line to a server. All connections share it. Dropping it cuts them.
pub(crate) struct SlowLine {
    pub(crate) address: SocketAddr,
    up: Arc<Direction>,
    down: Arc<Direction>,
    accepting: JoinHandle<()>,
}

/// One direction of a line.
struct Direction {
    speed: Speed,
    /// When the bytes before have passed.
    free: Mutex<Instant>,
    carried: AtomicU64,
}

impl SlowLine {
    pub(crate) async fn to(server: SocketAddr, speed: Speed) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (up, down) = (Direction::new(speed), Direction::new(speed));
        let accepting = accept(listener, server, Arc::clone(&up), Arc::clone(&down));
        Self { address, up, down, accepting: tokio::spawn(accepting) }
    }

    /// The bytes that it has carried to the server, and from it.
    pub(crate) fn carried(&self) -> (u64, u64) {
        let of = |direction: &Direction| direction.carried.load(Ordering::Relaxed);
        (of(&self.up), of(&self.down))
    }
}

impl Drop for SlowLine {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    up: Arc<Direction>,
    down: Arc<Direction>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        while connections.try_join_next().is_some() {}
        let (up, down) = (Arc::clone(&up), Arc::clone(&down));
        connections.spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::join!(up.carry(from_client, to_server), down.carry(from_server, to_client));
        });
    }
}

impl Direction {
    fn new(speed: Speed) -> Arc<Self> {
        let free = Mutex::new(Instant::now());
        Arc::new(Self { speed, free, carried: AtomicU64::new(0) })
    }

    /// Carries what comes, until the end of either side.
    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (sender, mut late) = mpsc::channel::<(Instant, Bytes)>(ON_ITS_WAY_MAX);
        let arriving = async move {
            while let Some((due, piece)) = late.recv().await {
                sleep_until(due).await;
                if to.write_all(&piece).await.is_err() {
                    return;
                }
            }
            // The other side may have closed already.
            let _ = to.shutdown().await;
        };
        let leaving = async move {
            let mut piece = vec![0; (self.speed.bytes_per_s / 50).clamp(64, 64 << 10)];
            while let Ok(count @ 1..) = from.read(&mut piece).await {
                let passed = self.pass(count).await;
                let late = (passed + self.speed.delay, Bytes::copy_from_slice(&piece[..count]));
                if sender.send(late).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(arriving, leaving);
    }

    /// Waits until so many bytes have passed.
    async fn pass(&self, count: usize) -> Instant {
        let took = Duration::from_secs_f64(count as f64 / self.speed.bytes_per_s as f64);
        let passed = {
            let mut free = self.free.lock().await;
            *free = (*free).max(Instant::now()) + took;
            *free
        };
        sleep_until(passed).await;
        self.carried.fetch_add(count as u64, Ordering::Relaxed);
        passed
    }
}
