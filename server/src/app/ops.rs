//! Pages for operators and orchestrators, on an address of their own: `/healthz` while the process
//! lives, `/readyz` while calls can succeed, `/metrics` in Prometheus' text format.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::gateway::Gateways;

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
    ]
    .concat()
}
