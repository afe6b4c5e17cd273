//! Health tells the truth: SERVING only while calls can succeed. Whoever watches is told at once.

use lakesync_server::store::StoreError;
use lakesync_server::store::memory::MemoryStore;
use tonic::Streaming;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::harness::changes::{at, upsert};
use crate::harness::{Client, Setup, until, within};

/// The server as a whole, and each of its services.
const SERVICES: [&str; 3] = ["", "lakesync.v1.SyncService", "lakesync.admin.v1.AdminService"];

type Watches = Vec<Streaming<HealthCheckResponse>>;

/// Watches of everything, which say that it serves.
async fn watches(client: &Client) -> Watches {
    let mut watches = Vec::new();
    for service in SERVICES {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = within(HealthClient::new(client.channel.clone()).watch(request)).await;
        watches.push(answer.expect("watched").into_inner());
    }
    assert_all(&mut watches, ServingStatus::Serving).await;
    watches
}

/// What each watch says next.
async fn assert_all(watches: &mut Watches, wanted: ServingStatus) {
    for (service, watch) in SERVICES.iter().zip(watches) {
        let said = within(watch.message()).await.expect("open").expect("an answer");
        assert_eq!(said.status(), wanted, "{service:?}");
    }
}

#[tokio::test]
async fn a_server_that_drains_does_not_serve() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    let mut watches = watches(&ann).await;
    store.hold();
    let pusher = ann.clone();
    let push = tokio::spawn(async move {
        pusher.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await
    });
    until(|| 0 < store.pending()).await;
    let stopping = tokio::spawn(server.stop());
    // While a call is still under way, which then ends well.
    assert_all(&mut watches, ServingStatus::NotServing).await;
    assert!(!push.is_finished() && !stopping.is_finished(), "it did not drain");
    store.release();
    assert_eq!(within(push).await.expect("no panic").expect("answered").position, 1);
    drop((watches, ann));
    within(stopping).await.expect("no panic").expect("drained");
}

#[tokio::test]
async fn a_server_whose_store_failed_does_not_serve() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    let mut watches = watches(&ann).await;
    store.fail(StoreError::Failed("unplugged".to_owned()));
    assert_all(&mut watches, ServingStatus::NotServing).await;
    drop((watches, ann));
    server.stopped().await.expect_err("it stopped by itself");
}
