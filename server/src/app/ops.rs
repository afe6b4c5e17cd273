//! Pages for operators and orchestrators, on an address of their own: `/healthz` while the process
//! lives, `/readyz` while calls can succeed, `/metrics` in Prometheus' text format.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use lakesync::name::Gateway;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep};

use super::listener::Places;
use crate::gateway::{Gateways, Lag};
use crate::service::{REFUSALS, Requests};

/// How many connections the pages may have: operators and orchestrators ask seldom.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long to wait after the system could not give us a connection.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Whose figures the pages show.
#[derive(Clone)]
pub(super) struct Figures {
    pub(super) gateways: Arc<Gateways>,
    pub(super) places: Arc<Places>,
    pub(super) requests: Arc<Requests>,
}

/// Serves the pages until the task is aborted.
pub(super) async fn serve(
    listener: TcpListener,
    figures: Figures,
    stopping: watch::Receiver<bool>,
) {
    let ready = move || {
        let stopping = *stopping.borrow();
        async move {
            if stopping {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
            } else {
                (StatusCode::OK, "ready\n")
            }
        }
    };
    let metrics = move || {
        let text = metrics(&figures);
        async move { text }
    };
    let pages = Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    let listener = Bounded { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    if let Err(error) = axum::serve(listener, pages).await {
        tracing::error!(%error, "the operators' pages stopped");
    }
}

/// Accepts a bounded number of connections, and ends those that say nothing.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("BUG: the places were closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let silence = Box::pin(sleep(SILENCE_MAX));
                    return (Connection { stream, silence, _place: place }, peer);
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to the operators' pages was not accepted");
                    sleep(BACK_OFF).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection to the pages.
struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            return read;
        }
        self.silence.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn metrics(figures: &Figures) -> String {
    let Figures { gateways, places, requests } = figures;
    let (connections, refused) = places.count();
    let usage = gateways.usage();
    let gauge = |name: &str, help: &str, value: usize| {
        format!(
            "# HELP lakesync_{name} {help}\n# TYPE lakesync_{name} gauge\nlakesync_{name} {value}\n"
        )
    };
    [
        gauge("gateways_open", "Gateways in memory.", usage.open),
        gauge("followers", "Readers that follow a gateway.", usage.followers),
        gauge("queued_bytes", "Bytes of pushes that wait.", usage.queued_bytes),
        gauge("requests_bytes", "Bytes of requests that are not answered.", requests.bytes()),
        gauge("connections", "Connections of clients.", connections),
        format!(
            "# HELP lakesync_connections_refused_total Connections beyond the bounds.\n\
             # TYPE lakesync_connections_refused_total counter\n\
             lakesync_connections_refused_total {refused}\n"
        ),
        REFUSALS.metrics(),
        flushing(&gateways.lags()),
    ]
    .concat()
}

/// One figure of how far a backend is behind: its name, what it is, and its value.
type Figure = (&'static str, &'static str, fn(&Lag) -> f64);

const FLUSHING: [Figure; 5] = [
    ("flush_lag_commits", "Commits that a backend does not have.", |lag| lag.commits as f64),
    ("flush_lag_rows", "Changes that a backend does not have.", |lag| lag.changes as f64),
    ("flush_lag_seconds", "For how long a backend has been behind.", |lag| lag.age.as_secs_f64()),
    ("flush_failing", "1 if the last attempt to flush failed.", |lag| {
        f64::from(u8::from(lag.error.is_some()))
    }),
    ("flush_troubles", "Parts of a backend that lag or fail.", |lag| lag.troubles.len() as f64),
];

/// The figures of each backend of each open gateway. Names of either need no escapes.
fn flushing(lags: &[(Gateway, Lag)]) -> String {
    let mut text = String::new();
    for (name, help, value) in FLUSHING.iter().filter(|_| !lags.is_empty()) {
        text += &format!("# HELP lakesync_{name} {help}\n# TYPE lakesync_{name} gauge\n");
        for (gateway, lag) in lags {
            let (backend, value) = (&lag.backend, value(lag));
            text += &format!(
                "lakesync_{name}{{gateway=\"{gateway}\",backend=\"{backend}\"}} {value}\n"
            );
        }
    }
    text
}
