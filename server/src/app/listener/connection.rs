//! One connection, from its first byte to its end.
//!
//! It ends when the client closes it; when no byte has moved for too long; and when the server stops.
//! Then a connection without a call is closed at once. Calls that the server works on may finish. A
//! client that still sends its request, or does not take its answer, gets two seconds.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tower::Service;

use super::calls::Calls;
use super::edge::Edge;
use super::socket::{Activity, Liveness, Socket};
use super::stopped;

/// How long a connection without a call stays open when the server stops: for the client to hear of
/// it, and to be heard if a call was on its way.
const FAREWELL: Duration = Duration::from_millis(250);
/// How long a client has for the rest of its request, or of its answer, when the server stops.
const GRACE: Duration = Duration::from_secs(2);
/// How long an answer has to leave that was finished after that.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much of a request may be on its way. A push over a line with a long delay is no faster than this
/// for each round trip; and on a slow line a client hears nothing for as long as half of it takes.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
/// How long the HTTP/2 library waits for the answer to its PING. We judge by bytes, and sooner.
const PONG_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Serves `stream` until it ends.
pub(super) async fn serve<S, B>(
    stream: TcpStream,
    service: S,
    liveness: Liveness,
    mut stopping: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (socket, activity) = Socket::new(stream, liveness);
    let calls = Arc::new(Calls::default());
    let edge = Edge::new(service, Arc::clone(&calls));
    let mut connection = pin!(settings(liveness).serve_connection(TokioIo::new(socket), edge));
    let mut ending: Option<Ending> = None;
    let mut timer = pin!(sleep_until(activity.deadline(liveness)));
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            () = stopped(&mut stopping), if ending.is_none() => {
                connection.as_mut().graceful_shutdown();
                ending = Some(Ending::begin(Instant::now()));
            }
            () = calls.changed(), if ending.is_some() => {}
            () = &mut timer => {}
        }
        let now = Instant::now();
        let deadline = match &mut ending {
            Some(ending) => ending.deadline(&calls, now),
            None => Some(activity.deadline(liveness)),
        };
        match deadline {
            Some(deadline) if deadline <= now => return closed(&activity, ending.is_some()),
            // Without one, a change of the calls is what comes next.
            deadline => timer.as_mut().reset(deadline.unwrap_or(now + PONG_MAX)),
        }
    }
}

fn closed(activity: &Activity, stopping: bool) {
    if !stopping {
        tracing::debug!(?activity, "a connection was closed: no byte moved for too long");
    }
}

/// The bounds of a connection and its streams.
fn settings(liveness: Liveness) -> http2::Builder<TokioExecutor> {
    let mut settings = http2::Builder::new(TokioExecutor::new());
    settings
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(1 << 20)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(liveness.ping_interval)
        .keep_alive_timeout(PONG_MAX)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128);
    settings
}

/// The end of a connection of a server that stops.
#[derive(Clone, Copy, Debug)]
struct Ending {
    began: Instant,
    /// When it was last seen that a call is under way, and that the server works on one.
    call: Option<Instant>,
    work: Option<Instant>,
}

impl Ending {
    fn begin(now: Instant) -> Self {
        Self { began: now, call: None, work: None }
    }

    /// When the connection is to be closed; not yet, while the server works on a call.
    fn deadline(&mut self, calls: &Calls, now: Instant) -> Option<Instant> {
        if calls.any_work() {
            (self.call, self.work) = (Some(now), Some(now));
            return None;
        }
        if calls.any() {
            self.call = Some(now);
            let finished = self.work.map(|work| work + LAST_WORDS);
            return Some(finished.unwrap_or(self.began).max(self.began + GRACE));
        }
        Some(self.call.unwrap_or(self.began) + FAREWELL)
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::Call;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_work_and_hardly_for_clients() {
        let calls = Arc::new(Calls::default());
        let began = Instant::now();
        let mut ending = Ending::begin(began);
        assert_eq!(ending.deadline(&calls, began), Some(began + FAREWELL), "no call");
        let half = Call::begin(&calls);
        assert_eq!(ending.deadline(&calls, began), Some(began + GRACE), "half a request");
        let whole = Call::begin(&calls);
        whole.received();
        assert_eq!(ending.deadline(&calls, began), None, "the server works");
        let later = began + Duration::from_secs(9);
        assert_eq!(ending.deadline(&calls, later), None);
        whole.answered();
        assert_eq!(ending.deadline(&calls, later), Some(later + LAST_WORDS));
        drop((half, whole));
        assert_eq!(ending.deadline(&calls, later), Some(later + FAREWELL));
    }
}
