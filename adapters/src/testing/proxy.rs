//! A TCP proxy that breaks on demand: the network between an adapter and its database.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const CHUNK_BYTES: usize = 16 << 10;

/// What goes wrong. What a text or a count brings about happens once, to the connection that meets it
/// first; the others last until [`Proxy::heal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// New connections are closed at once. Those there are stay.
    Refuse,
    /// Connections are cut before the server sees this text of the client's.
    CutBefore(String),
    /// The server sees this text of the client's and answers it, but the answer is lost with the
    /// connection.
    CutAnswer(String),
    /// Connections are cut after so many more bytes of the client's, over all connections.
    CutAfterBytes(usize),
    /// Everything takes so much longer, each way.
    Slow(Duration),
    /// Half open: everything sent, either way, is swallowed. Connections that lost something stay so
    /// after healing, since what follows would make no sense.
    Swallow,
    /// The server sees this text of the client's, and nothing passes on that connection any more, not
    /// even its end.
    SwallowFrom(String),
}

/// A proxy in front of a server. Dropping it cuts every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    // Held for a look or a change, never across an await.
    fault: Mutex<Option<Fault>>,
    fired: AtomicUsize,
    cuts: watch::Sender<()>,
}

/// What becomes of a chunk.
enum Fate {
    Pass,
    /// It passes, and the answer cuts.
    PassUnanswered,
    /// It passes, and nothing after it.
    PassLast,
    Lose,
    Cut,
}

impl Proxy {
    /// A proxy to `server`, on a port of its own.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = State {
            fault: Mutex::new(None),
            fired: AtomicUsize::new(0),
            cuts: watch::Sender::new(()),
        };
        let state = Arc::new(state);
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&state)));
        Self { address, state, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, `fault` happens, and none that was set before.
    pub fn set(&self, fault: Fault) {
        *self.state.fault() = Some(fault);
    }

    /// From now on, nothing goes wrong.
    pub fn heal(&self) {
        *self.state.fault() = None;
    }

    /// Cuts the connections there are.
    pub fn cut(&self) {
        self.state.cuts.send_replace(());
    }

    /// How often a fault has struck: a test whose fault never did proves nothing.
    pub fn fired(&self) -> usize {
        self.state.fired.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if *state.fault() == Some(Fault::Refuse) {
            state.fire();
            continue;
        }
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let mut cuts = state.cuts.subscribe();
            tokio::select! {
                _ = relay(client, server, &state) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn relay(mut client: TcpStream, server: SocketAddr, state: &State) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    let connection =
        Connection { state, has_lost: AtomicBool::new(false), answer_cuts: AtomicBool::new(false) };
    tokio::select! {
        end = connection.up(client_reads, server_writes) => end,
        end = connection.down(server_reads, client_writes) => end,
    }
}

struct Connection<'a> {
    state: &'a State,
    has_lost: AtomicBool,
    answer_cuts: AtomicBool,
}

impl Connection<'_> {
    /// From the client to the server. Returning cuts.
    async fn up(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        // The last bytes of what went before: a text may come in pieces.
        let mut seen = Vec::new();
        loop {
            let count = from.read(&mut chunk).await?;
            if count == 0 {
                return Ok(());
            }
            self.state.delay().await;
            let kept = seen.len().min(CHUNK_BYTES);
            seen.drain(..seen.len() - kept);
            seen.extend(&chunk[..count]);
            match self.fate_up(&seen, count) {
                Fate::Cut => return Ok(()),
                Fate::Lose => continue,
                Fate::PassUnanswered => {
                    self.answer_cuts.store(true, Ordering::Relaxed);
                    seen.clear();
                }
                Fate::PassLast => self.has_lost.store(true, Ordering::Relaxed),
                Fate::Pass => {}
            }
            to.write_all(&chunk[..count]).await?;
        }
    }

    /// From the server to the client.
    async fn down(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut chunk).await;
            if self.has_lost.load(Ordering::Relaxed) && matches!(read, Ok(0) | Err(_)) {
                std::future::pending::<()>().await;
            }
            let count = read?;
            if count == 0 || self.answer_cuts.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.state.delay().await;
            if !self.loses() {
                to.write_all(&chunk[..count]).await?;
            }
        }
    }

    /// What becomes of the last `count` bytes of `seen`.
    fn fate_up(&self, seen: &[u8], count: usize) -> Fate {
        if self.loses() {
            return Fate::Lose;
        }
        let has = |text: &str| {
            let start = seen.len().saturating_sub(count + text.len() - 1);
            seen[start..].windows(text.len()).any(|window| window == text.as_bytes())
        };
        let mut fault = self.state.fault();
        let fate = match &mut *fault {
            Some(Fault::CutBefore(text)) if has(text) => Fate::Cut,
            Some(Fault::CutAnswer(text)) if has(text) => Fate::PassUnanswered,
            Some(Fault::SwallowFrom(text)) if has(text) => Fate::PassLast,
            Some(Fault::CutAfterBytes(left)) if *left <= count => Fate::Cut,
            Some(Fault::CutAfterBytes(left)) => {
                *left -= count;
                return Fate::Pass;
            }
            _ => return Fate::Pass,
        };
        *fault = None;
        self.state.fire();
        fate
    }

    fn loses(&self) -> bool {
        if *self.state.fault() == Some(Fault::Swallow) {
            self.state.fire();
            self.has_lost.store(true, Ordering::Relaxed);
        }
        self.has_lost.load(Ordering::Relaxed)
    }
}

impl State {
    fn fault(&self) -> std::sync::MutexGuard<'_, Option<Fault>> {
        self.fault.lock().expect("BUG: nothing panics while it looks at the fault")
    }

    fn fire(&self) {
        self.fired.fetch_add(1, Ordering::Relaxed);
    }

    async fn delay(&self) {
        let delay = match &*self.fault() {
            Some(Fault::Slow(delay)) => *delay,
            _ => return,
        };
        tokio::time::sleep(delay).await;
    }
}
