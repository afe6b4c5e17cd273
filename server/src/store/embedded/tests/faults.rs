//! The disk as it is on bad days: slow, failing, full; and what a second process is told.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use futures_util::FutureExt;

use super::*;

/// Syncs that say when they have begun, and end when they are told to.
struct SlowSyncs {
    begun: Receiver<()>,
    go_on: SyncSender<()>,
}

fn slow_syncs() -> (SlowSyncs, Seams) {
    let (begin, begun) = sync_channel(64);
    let (go_on, told) = sync_channel(64);
    let told = Mutex::new(told);
    let sync: journal::Sync = Arc::new(move |file: &File| {
        let _ = begin.send(());
        // Once the test is over, syncs end by themselves.
        let _ = told.lock().expect("no sync panics").recv();
        file.sync_data()
    });
    (SlowSyncs { begun, go_on }, Seams { sync, ..Seams::default() })
}

impl SlowSyncs {
    fn wait_until_begun(&self) {
        self.begun.recv().expect("the committer syncs");
    }

    fn end_one(&self) {
        self.go_on.send(()).expect("the committer waits");
    }
}

async fn with_main(root: &Path, overlay_bytes: usize) -> (PathBuf, GatewayId) {
    let dir = root.join("data");
    let store = open(&dir, overlay_bytes).expect("open");
    let main = main_gateway(&store).await;
    store.close().await.expect("close");
    (dir, main)
}

#[tokio::test]
async fn nothing_is_confirmed_before_it_is_synced() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, main) = with_main(root.path(), 1 << 20).await;
    let (syncs, seams) = slow_syncs();
    let store = EmbeddedStore::open_with(&dir, &options(1 << 20), &seams).expect("open");
    let syncs = syncs; // Let go before the store, whose threads wait for it.
    let mut receipt = std::pin::pin!(commit(&store, main, 1).await.durable());
    syncs.wait_until_begun();
    assert!(receipt.as_mut().now_or_never().is_none(), "confirmed during the sync");
    assert_eq!(checked_head(&store, main).await.expect("sound"), 1, "visible at once");
    syncs.end_one();
    receipt.await.expect("durable");
}

#[tokio::test]
async fn what_arrives_during_a_sync_shares_the_next() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, main) = with_main(root.path(), 1 << 20).await;
    let (syncs, seams) = slow_syncs();
    let store = EmbeddedStore::open_with(&dir, &options(1 << 20), &seams).expect("open");
    let syncs = syncs; // Let go before the store, whose threads wait for it.
    let first = commit(&store, main, 1).await;
    syncs.wait_until_begun();
    let mut others = Vec::new();
    for number in 2..=40 {
        others.push(commit(&store, main, number).await);
    }
    syncs.end_one();
    first.durable().await.expect("durable");
    syncs.wait_until_begun();
    syncs.end_one();
    for receipt in others {
        receipt.durable().await.expect("durable with one sync");
    }
    assert!(syncs.begun.try_recv().is_err(), "more syncs than needed");
}

#[tokio::test]
async fn commits_wait_while_the_disk_is_behind() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, main) = with_main(root.path(), 1 << 20).await;
    for (overlay_bytes, row_bytes) in [(1, 1), (1 << 30, 1 << 20)] {
        let (syncs, seams) = slow_syncs();
        let opened = EmbeddedStore::open_with(&dir, &options(overlay_bytes), &seams);
        let store = opened.expect("open");
        let syncs = syncs; // Let go before the store, whose threads wait for it.
        let mut group = Group::default();
        group.rows.push((Bytes::from_static(b"k"), Some(vec![0; row_bytes].into())));
        let mut accepted = 0;
        while store.commit(main, group.clone()).now_or_never().is_some() {
            accepted += 1;
            assert!(accepted < 100, "{overlay_bytes}: commits never wait");
        }
        assert!(2 <= accepted, "{overlay_bytes}: {accepted} commits");
        drop(syncs);
        let receipt = store.commit(main, group).await.expect("the disk has caught up");
        receipt.durable().await.expect("durable");
        store.close().await.expect("close");
    }
}

#[tokio::test]
async fn a_failed_sync_stops_the_store_and_reopening_recovers() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, main) = with_main(root.path(), 1 << 20).await;
    let broken = Arc::new(AtomicBool::new(false));
    let (breaks, syncs) = (Arc::clone(&broken), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&syncs);
    let sync: journal::Sync = Arc::new(move |file: &File| {
        counter.fetch_add(1, Ordering::SeqCst);
        match breaks.load(Ordering::SeqCst) {
            true => Err(io::Error::other("unplugged")),
            false => file.sync_data(),
        }
    });
    let seams = Seams { sync, ..Seams::default() };
    let store = EmbeddedStore::open_with(&dir, &options(1 << 20), &seams).expect("open");
    put(&store, main, 1..=3).await;
    broken.store(true, Ordering::SeqCst);
    let error = commit(&store, main, 4).await.durable().await.expect_err("the sync failed");
    assert!(matches!(&error, StoreError::Failed(why) if why.contains("unplugged")), "{error}");
    assert!(matches!(store.failed().await, StoreError::Failed(_)));
    let after = syncs.load(Ordering::SeqCst);
    broken.store(false, Ordering::SeqCst);
    for outcome in [
        store.head(main).await.err(),
        store.rows(main, &[], usize::MAX).await.err(),
        store.commit(main, group(5)).await.err(),
        store.trim(main, Position(1)).await.err(),
        store.close().await.err(),
    ] {
        assert!(matches!(outcome, Some(StoreError::Failed(_))), "{outcome:?}");
    }
    assert_eq!(syncs.load(Ordering::SeqCst), after, "a failed sync was tried again");
    let store = open(&dir, 1 << 20).expect("open");
    assert!(3 <= checked_head(&store, main).await.expect("sound"));
}

#[tokio::test]
async fn a_full_disk_refuses_before_anything_is_kept() {
    let root = tempfile::tempdir().expect("a directory");
    let (dir, main) = with_main(root.path(), 1 << 20).await;
    let free = Arc::new(AtomicU64::new(2_000));
    let probe = Arc::clone(&free);
    let free_bytes: disk::Probe = Arc::new(move |_| Ok(probe.load(Ordering::SeqCst)));
    let options = Options { disk_reserve_bytes: 1_000, ..options(1 << 20) };
    let seams = Seams { free_bytes, ..Seams::default() };
    let store = EmbeddedStore::open_with(&dir, &options, &seams).expect("open");
    free.store(999, Ordering::SeqCst);
    put(&store, main, 1..=1).await; // The last that fits: free space is learnt with each sync.
    let refused = store.commit(main, group(2)).await.expect_err("full");
    assert!(matches!(&refused, StoreError::Full(why) if why.contains("999 bytes")), "{refused}");
    let name: Gateway = "other".parse().expect("a name");
    assert!(matches!(store.create_gateway(&name, 1).await, Err(StoreError::Full(_))));
    assert_eq!(checked_head(&store, main).await.expect("reads go on"), 1);
    store.trim(main, Position(1)).await.expect("what frees space goes on");
    free.store(1 << 20, Ordering::SeqCst);
    put(&store, main, 2..=3).await;
    assert_eq!(checked_head(&store, main).await.expect("sound"), 3);
}

#[tokio::test]
async fn a_second_opener_is_told_and_changes_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("data");
    let store = open(&dir, 1 << 20).expect("open");
    let main = main_gateway(&store).await;
    let error = open(&dir, 1 << 20).expect_err("in use").to_string();
    assert!(error.contains("in use by another process") && !error.contains('\n'), "{error}");
    put(&store, main, 1..=3).await;
    store.close().await.expect("close");
    let store = open(&dir, 1 << 20).expect("free again");
    assert_eq!(checked_head(&store, main).await.expect("sound"), 3);
}

/// A store that is dropped without being closed lets go of its directory too.
#[tokio::test]
async fn a_dropped_store_can_be_opened_again() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("data");
    for life in 0..3 {
        let store = open(&dir, 1 << 20).expect("open");
        let main = main_gateway(&store).await;
        assert_eq!(checked_head(&store, main).await.expect("sound"), life * 2);
        commit(&store, main, life * 2 + 1).await;
        commit(&store, main, life * 2 + 2).await;
    }
}

/// What was trimmed or dropped takes no space once the tables have heard of it.
#[tokio::test]
async fn space_of_trimmed_entries_comes_back() {
    let root = tempfile::tempdir().expect("a directory");
    let store = open(&root.path().join("data"), 200_000).expect("open");
    let main = main_gateway(&store).await;
    let large = Bytes::from(vec![7; 50_000]);
    for position in 1..=40 {
        let log = vec![LogEntry { position: Position(position), commit: large.clone() }];
        let group = Group { log, ..Group::default() };
        store.commit(main, group).await.expect("commit").durable().await.expect("durable");
    }
    store.engine.all_settled().await;
    let log_bytes = async || {
        let tables = store.engine.tables.read().await;
        tables.as_ref().expect("open").log_bytes()
    };
    let before = log_bytes().await;
    store.trim(main, Position(40)).await.expect("trim");
    for position in 41..=48 {
        let log = vec![LogEntry { position: Position(position), commit: large.clone() }];
        let group = Group { log, ..Group::default() };
        store.commit(main, group).await.expect("commit").durable().await.expect("durable");
    }
    store.engine.all_settled().await;
    let after = log_bytes().await;
    assert!(after < before / 2, "{before} bytes before the trim, {after} after it");
    assert_eq!(store.log(main, Position(40), 1 << 30).await.expect("log").len(), 8);
}
