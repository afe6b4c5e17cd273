//! The store in memory against the shared suite, and the faults it can be told to have.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;

use super::*;
use crate::store::conformance::Home;

struct MemoryHome(Mutex<MemoryStore>);

fn home() -> MemoryHome {
    MemoryHome(Mutex::new(MemoryStore::new()))
}

#[async_trait]
impl Home for MemoryHome {
    async fn open(&self) -> Arc<dyn Store> {
        let mut store = self.0.lock().expect("no test panics here");
        *store = store.crash();
        Arc::new(store.clone())
    }

    fn copy_path(&self) -> PathBuf {
        PathBuf::from("copy")
    }

    async fn open_copy(&self, copy: &Path) -> Arc<dyn Store> {
        let store = self.0.lock().expect("no test panics here");
        Arc::new(store.open_copy(copy).expect("a copy"))
    }
}

crate::store_conformance!(home);

async fn gateway(store: &MemoryStore) -> GatewayId {
    let name = "main".parse().expect("a name");
    store.create_gateway(&name, 1).await.expect("create").id
}

fn row(value: &'static str) -> Group {
    let change = (Bytes::from_static(b"k"), Some(Bytes::from_static(value.as_bytes())));
    Group { rows: vec![change], ..Group::default() }
}

async fn found(store: &MemoryStore, gateway: GatewayId) -> Option<Bytes> {
    store.rows(gateway, &[Bytes::from_static(b"k")], usize::MAX).await.expect("rows").remove(0)
}

#[tokio::test]
async fn a_power_cut_keeps_what_was_confirmed_and_no_more() {
    let store = MemoryStore::new();
    let main = gateway(&store).await;
    store.commit(main, row("kept")).await.expect("commit").durable().await.expect("durable");
    store.hold();
    let receipt = store.commit(main, row("lost")).await.expect("commit");
    assert_eq!(found(&store, main).await.as_deref(), Some(&b"lost"[..]));
    let after = store.crash();
    assert_eq!(found(&after, main).await.as_deref(), Some(&b"kept"[..]));
    assert!(matches!(receipt.durable().await, Err(StoreError::Closed)));
    assert!(matches!(store.head(main).await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_held_receipt_waits_until_it_is_released() {
    let store = MemoryStore::new();
    let main = gateway(&store).await;
    store.hold();
    let first = store.commit(main, row("1")).await.expect("commit");
    let second = store.commit(main, row("2")).await.expect("commit");
    assert_eq!(store.pending(), 2);
    store.release_some(1);
    first.durable().now_or_never().expect("released").expect("durable");
    let mut second = std::pin::pin!(second.durable());
    assert!(second.as_mut().now_or_never().is_none(), "resolved while held");
    assert_eq!(found(&store.crash(), main).await.as_deref(), Some(&b"1"[..]));
    assert!(matches!(second.await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn one_failure_is_the_end() {
    let store = MemoryStore::new();
    let main = gateway(&store).await;
    store.hold();
    let receipt = store.commit(main, row("1")).await.expect("commit");
    assert!(store.failed().now_or_never().is_none());
    store.fail(StoreError::Failed("unplugged".to_owned()));
    store.release();
    assert!(matches!(receipt.durable().await, Err(StoreError::Failed(_))));
    assert!(matches!(store.failed().await, StoreError::Failed(_)));
    assert!(matches!(store.rows(main, &[], usize::MAX).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.commit(main, row("2")).await, Err(StoreError::Failed(_))));
    assert!(matches!(store.close().await, Err(StoreError::Failed(_))));
    assert_eq!(found(&store.crash(), main).await, None);
}

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_nothing() {
    let store = MemoryStore::new();
    let main = gateway(&store).await;
    store.set_full(true);
    assert!(matches!(store.commit(main, row("1")).await, Err(StoreError::Full(_))));
    assert_eq!(found(&store, main).await, None);
    store.trim(main, Position::START).await.expect("trimming frees space");
    store.set_full(false);
    store.commit(main, row("1")).await.expect("commit").durable().await.expect("durable");
}

#[tokio::test]
async fn commits_wait_while_too_many_are_held() {
    let store = MemoryStore::new();
    let main = gateway(&store).await;
    store.hold();
    for _ in 0..PENDING_MAX {
        store.commit(main, Group::default()).await.expect("commit");
    }
    let mut next = std::pin::pin!(store.commit(main, row("1")));
    assert!(next.as_mut().now_or_never().is_none(), "accepted beyond the bound");
    assert_eq!(found(&store, main).await, None);
    store.release();
    next.await.expect("commit").durable().await.expect("durable");
}
