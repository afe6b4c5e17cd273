//! Pages for operators and orchestrators, on an address of their own: `/healthz` while the process
//! lives, `/readyz` while calls can succeed, `/metrics` in Prometheus' text format.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use lakesync::name::Gateway;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::gateway::{Gateways, Lag};

/// Serves the pages until the task is aborted.
pub(super) async fn serve(
    listener: TcpListener,
    gateways: Arc<Gateways>,
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
        let text = metrics(&gateways);
        async move { text }
    };
    let pages = Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    if let Err(error) = axum::serve(listener, pages).await {
        tracing::error!(%error, "the operators' pages stopped");
    }
}

fn metrics(gateways: &Gateways) -> String {
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
