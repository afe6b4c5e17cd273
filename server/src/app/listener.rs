//! The gRPC listener: it accepts connections within bounds, ends those that are dead, and lets go of
//! all when the server stops. The HTTP/2 library's own defaults are no bounds at all.

mod calls;
mod connection;
mod edge;
mod places;
mod socket;

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tower::Service;

pub(super) use places::{Bounds, Places};
pub(super) use socket::Liveness;

use places::Crowded;

/// How long to wait after the system could not give us a connection.
const BACK_OFF: Duration = Duration::from_millis(200);
/// The real server's defaults.
const BARE_PING_INTERVAL: Duration = Duration::from_secs(60);
/// See [`BARE_PING_INTERVAL`].
const BARE_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How often one kind of trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Accepts connections and serves them until the server stops and all have ended. Dropping it ends
/// them at once.
pub(super) async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    places: Arc<Places>,
    liveness: Liveness,
    mut stopping: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = bytes::Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    let (mut shortages, mut refusals) = (Seldom::default(), Seldom::default());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_shortage(&error) => {
                if let Some(times) = shortages.due() {
                    tracing::error!(
                        %error, times,
                        "no connection can be accepted: file descriptors or memory ran out; raise the \
                         limit (ulimit -n, LimitNOFILE) or lower connections_max"
                    );
                }
                sleep(BACK_OFF).await;
                continue;
            }
            Err(error) => {
                // The client went away between its SYN and our accept.
                tracing::debug!(%error, "a connection was not accepted");
                continue;
            }
        };
        match places.take(peer.ip()) {
            Ok(place) => {
                let (service, stopping) = (service.clone(), stopping.clone());
                connections.spawn(async move {
                    connection::serve(stream, service, liveness, stopping).await;
                    drop(place);
                });
            }
            Err(crowded) => {
                if let Some(times) = refusals.due() {
                    tracing::warn!(address = %peer.ip(), times, "connections refused: {crowded}");
                }
                turn_away(stream, crowded);
            }
        }
    }
    // Whoever connects from now on is refused by the system, and goes elsewhere.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves `service` for ever, on a listener that is set up as the real server's and accepts any number
/// of connections: what a yardstick of the same work needs.
pub async fn serve_bare<S>(listener: TcpListener, service: S)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let places = Places::new(Bounds { all: usize::MAX, each_address: usize::MAX });
    // It is never told to stop, and says so as long as it is held.
    let going_on = watch::Sender::new(false);
    let liveness = Liveness { ping_interval: BARE_PING_INTERVAL, ping_timeout: BARE_PING_TIMEOUT };
    serve(listener, service, Arc::new(places), liveness, going_on.subscribe()).await;
}

/// Resolves when the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A server that is gone has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Whether the system lacks what a connection needs. Trying again at once would only keep a
/// processor busy.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Tells a client why it is refused, in the terms of HTTP/2: gRPC clients show the text, and try again
/// later.
fn turn_away(stream: TcpStream, why: Crowded) {
    let said = stream.into_std().and_then(|mut stream| stream.write_all(&farewell(why)));
    if let Err(error) = said {
        tracing::debug!(%error, "a refused client was not told why");
    }
}

/// An empty SETTINGS frame, which a server says first, and GOAWAY with ENHANCE_YOUR_CALM.
fn farewell(why: Crowded) -> Vec<u8> {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    let text = why.to_string();
    let head = |length: usize, kind: u8| {
        let length = u32::try_from(length).expect("BUG: a long text").to_be_bytes();
        let ([_, length @ ..], flags, stream) = (length, 0, [0; 4]);
        [&length[..], &[kind, flags], &stream].concat()
    };
    let last_stream = 0_u32;
    let goaway =
        [&last_stream.to_be_bytes()[..], &ENHANCE_YOUR_CALM.to_be_bytes(), text.as_bytes()];
    let goaway = goaway.concat();
    [head(0, SETTINGS), head(goaway.len(), GOAWAY), goaway].concat()
}

/// Counts what happens often, and says when it is time for a line of log.
#[derive(Debug, Default)]
struct Seldom {
    logged: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// How often it happened since the last line, if another is due.
    fn due(&mut self) -> Option<u64> {
        self.times += 1;
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_EVERY) {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_said_once_a_minute() {
        let mut seldom = Seldom::default();
        assert_eq!(seldom.due(), Some(1));
        for _ in 0..100 {
            assert_eq!(seldom.due(), None);
        }
        tokio::time::advance(LOG_EVERY).await;
        assert_eq!(seldom.due(), Some(101));
    }

    #[test]
    fn a_refusal_is_two_frames() {
        let bytes = farewell(Crowded::All);
        let text = Crowded::All.to_string();
        assert_eq!(bytes[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(usize::from(bytes[11]), 8 + text.len());
        assert_eq!(bytes[12..26], [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb]);
        assert_eq!(&bytes[26..], text.as_bytes());
    }

    #[test]
    fn running_out_of_descriptors_is_a_shortage_and_a_client_that_left_is_not() {
        use rustix::io::Errno;
        assert!(is_shortage(&Errno::MFILE.into()) && is_shortage(&Errno::NFILE.into()));
        assert!(!is_shortage(&Errno::CONNABORTED.into()));
        assert!(!is_shortage(&io::Error::other("no number")));
    }
}
