//! P-1: durable, then visible, then acknowledged. The disk is a store whose syncs the test holds.

use futures_util::FutureExt;
use lakesync::proto::v1::GetServerInfoRequest;
use lakesync::proto::v1::pull_response::Event;
use lakesync_server::store::StoreError;
use lakesync_server::store::memory::MemoryStore;
use tonic::Code;

use crate::harness::changes::{at, upsert};
use crate::harness::{Client, MAIN, Replica, Setup, assert_refused, until, within};

/// Lets the server do whatever it would do: many calls come and go.
async fn let_it_run(client: &Client) {
    for _ in 0..50 {
        let request = GetServerInfoRequest::default();
        within(client.sync.clone().get_server_info(request)).await.expect("answered");
    }
}

#[tokio::test]
async fn p01_a_push_is_answered_after_its_sync() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    store.hold();
    let pusher = ann.clone();
    let push = tokio::spawn(async move {
        pusher.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await
    });
    until(|| 0 < store.pending()).await;
    let_it_run(&ann).await;
    assert!(!push.is_finished(), "answered before it was durable");
    store.release();
    assert_eq!(push.await.expect("no panic").expect("answered").position, 1);
}

#[tokio::test]
async fn p01_nobody_sees_what_is_not_durable() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let (ann, bob) = (server.client("ann").await, server.client("bob").await);
    let mut followed = bob.follow("").await.expect("followed");
    let first = within(followed.message()).await.expect("open").expect("an answer");
    assert!(matches!(first.event, Some(Event::CaughtUp(_))), "{first:?}");

    store.hold();
    let pusher = ann.clone();
    let push = tokio::spawn(async move {
        pusher.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await
    });
    until(|| 0 < store.pending()).await;
    let_it_run(&bob).await;
    let pulled = bob.pull("").await.expect("pulled");
    assert!(pulled.pages.is_empty(), "a pull shows it: {pulled:?}");
    assert_eq!(pulled.caught_up.expect("the head").position, 0);
    assert_eq!(bob.stats().await.expect("figures").head, 0, "the figures show it");
    assert!(followed.message().now_or_never().is_none(), "a follower was told");
    let mut scan = bob.open_checkpoint("").await.expect("begun");
    let_it_run(&bob).await;
    assert!(scan.message().now_or_never().is_none(), "a checkpoint shows it");

    store.release();
    push.await.expect("no panic").expect("answered");
    let told = within(followed.message()).await.expect("open").expect("an answer");
    assert!(matches!(told.event, Some(Event::Page(page)) if page.position == 1));
    assert_eq!(bob.pull("").await.expect("pulled").pages.len(), 1);
}

#[tokio::test]
async fn p01_a_power_cut_loses_nothing_answered_and_shows_nothing_that_was_not() {
    let store = MemoryStore::new();
    let setup = Setup::new().on(store.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let answered: Vec<_> = (1..=9)
        .map(|n| upsert("ann", at(n), &format!("todos/{n}"), &[("title", "kept")]))
        .collect();
    for delta in &answered {
        ann.push([delta.clone()]).await.expect("answered");
    }
    store.hold();
    let (pusher, bob) = (ann.clone(), server.client("bob").await);
    let unanswered = tokio::spawn(async move {
        pusher.push([upsert("ann", at(10), "todos/10", &[("title", "lost")])]).await
    });
    until(|| 0 < store.pending()).await;
    let seen = Replica::by_pull(&bob).await.expect("pulled");

    let durable = store.crash();
    let refused = unanswered.await.expect("no panic");
    assert_refused(refused, Code::Unavailable, "STORE_UNAVAILABLE");
    let server = setup.on(durable).start().await;
    let bob = server.client("bob").await;
    let after = Replica::by_checkpoint(&bob).await.expect("read");
    assert_eq!(after.live(), Replica::of(&answered).live());
    assert_eq!(after.live(), seen.live(), "something that was shown is gone");
    assert_eq!(bob.stats().await.expect("figures").head, 9);
}

#[tokio::test]
async fn p01_a_failed_sync_is_never_answered_as_done() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    store.hold();
    let pusher = ann.clone();
    let push = tokio::spawn(async move {
        pusher.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await
    });
    until(|| 0 < store.pending()).await;
    store.fail(StoreError::Failed("the disk said no".to_owned()));
    assert_refused(push.await.expect("no panic"), Code::Unavailable, "STORE_UNAVAILABLE");
    let stopped = server.stopped().await.expect_err("it can't go on").to_string();
    assert!(stopped.contains("the disk said no"), "{stopped}");
}

#[tokio::test]
async fn p01_a_push_that_changes_nothing_waits_for_the_one_it_repeats() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    let delta = upsert("ann", at(1), "todos/a", &[("title", "x")]);
    store.hold();
    let push = |client: Client, delta| tokio::spawn(async move { client.push([delta]).await });
    let first = push(ann.clone(), delta.clone());
    until(|| 0 < store.pending()).await;
    let again = push(server.client("ann").await, delta);
    let_it_run(&ann).await;
    assert!(!again.is_finished(), "the repetition was answered before what it repeats is durable");
    store.release();
    first.await.expect("no panic").expect("answered");
    again.await.expect("no panic").expect("answered");
}

#[tokio::test]
async fn p01_a_new_table_is_durable_before_it_can_be_used() {
    let store = MemoryStore::new();
    let setup = Setup::new().on(store.clone());
    let server = setup.start().await;
    let mut admin = server.client("operator").await;
    admin.create_gateway(MAIN).await.expect("created");
    store.hold();
    let mut second = admin.clone();
    let put =
        tokio::spawn(async move { second.put_schema(crate::harness::changes::tables()).await });
    until(|| 0 < store.pending()).await;
    let_it_run(&admin).await;
    assert!(!put.is_finished(), "answered before it was durable");
    drop(store.crash());
    assert!(put.await.expect("no panic").is_err(), "a table that a power cut took was confirmed");
}
