//! A socket that knows when it last moved bytes. Liveness is judged by that: a client on a slow line
//! may take minutes for one message, and answers a PING only when what was sent before has arrived.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long a client may take until it has said what every HTTP/2 client says first.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The preface of HTTP/2, and the head of the SETTINGS frame that follows it.
const HANDSHAKE_BYTES: u64 = 24 + 9;
/// Bytes that the system takes from us before they are sent. With more, bytes would seem to move while
/// they wait, and a reader that takes nothing would cost megabytes of the system's memory.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// When a connection counts as dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    /// After how long without a byte from the client a PING is sent.
    pub(crate) ping_interval: Duration,
    /// How long after that a byte must have moved, in either direction.
    pub(crate) ping_timeout: Duration,
}

/// When bytes moved, in milliseconds since the connection began.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    read_bytes: AtomicU64,
    read_ms: AtomicU64,
    written_ms: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        let zero = AtomicU64::default;
        Self { began: Instant::now(), read_bytes: zero(), read_ms: zero(), written_ms: zero() }
    }

    /// When the connection is to be closed if no byte moves until then.
    pub(super) fn deadline(&self, liveness: Liveness) -> Instant {
        if self.read_bytes.load(Ordering::Relaxed) < HANDSHAKE_BYTES {
            return self.began + HANDSHAKE_MAX;
        }
        let at = |ms: &AtomicU64| self.began + Duration::from_millis(ms.load(Ordering::Relaxed));
        let read = at(&self.read_ms) + liveness.ping_interval + liveness.ping_timeout;
        // Bytes that the client takes are a sign of life as well: its answer waits behind them.
        read.max(at(&self.written_ms) + liveness.ping_timeout)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&self, bytes: usize) {
        if bytes != 0 {
            self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            self.read_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    fn written(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.written_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }
}

/// A client's socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, liveness: Liveness) -> (Self, Arc<Activity>) {
        if let Err(error) = tune(&stream, liveness) {
            // A client that is gone already has no socket to tune.
            tracing::debug!(%error, "a socket's options can't be set");
        }
        let activity = Arc::new(Activity::new());
        (Self { stream, activity: Arc::clone(&activity) }, activity)
    }
}

/// Answers leave at once; what is sent and never confirmed ends the connection.
fn tune(stream: &TcpStream, liveness: Liveness) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        // Heartbeats go on for ever into a line that was cut, unless the system sees that none arrives.
        socket.set_tcp_user_timeout(Some(liveness.ping_interval + liveness.ping_timeout))?;
    }
    Ok(())
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.activity.read(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.activity.written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.activity.written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVENESS: Liveness =
        Liveness { ping_interval: Duration::from_secs(60), ping_timeout: Duration::from_secs(20) };

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_has_ten_seconds_and_who_moves_bytes_lives() {
        let activity = Activity::new();
        let left = || activity.deadline(LIVENESS) - activity.began;
        let seconds = Duration::from_secs;
        assert_eq!(left(), seconds(10));
        tokio::time::advance(seconds(9)).await;
        activity.read(24);
        assert_eq!(left(), seconds(10), "half of what is said first");
        activity.read(9);
        assert_eq!(left(), seconds(9 + 80));
        // A PING at 69 s waits behind a page of which a little is taken every ten seconds.
        for at in [69, 79, 89, 99] {
            tokio::time::advance(activity.began + seconds(at) - Instant::now()).await;
            activity.written(&Poll::Ready(Ok(100)));
            activity.written(&Poll::Pending);
            assert_eq!(left(), seconds((at + 20).max(89)));
        }
    }
}
