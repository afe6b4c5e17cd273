//! Commits: seen at once, whole, in order, and positions without gaps.

use std::sync::Arc;

use bytes::Bytes;
use lakesync::name::Position;

use super::{
    Home, bytes, create, entries, entry, log_all, main_gateway, meta, put, rows, scan_all, shown,
};
use crate::store::{Group, LogEntry};

/// Once `commit` has returned, every read sees the group, durable or not.
pub async fn a_commit_is_seen_at_once(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    let group = Group { log: vec![entry(1)], rows: rows(&["k=v"]).rows, meta: meta(&["m=w"]).meta };
    let receipt = store.commit(main, group).await.expect("commit");
    assert_eq!(store.head(main).await.expect("head"), Position(1));
    assert_eq!(
        store.rows(main, &[bytes("k")], usize::MAX).await.expect("rows"),
        [Some(bytes("v"))]
    );
    assert_eq!(shown(&store.scan(main, b"", None, 99).await.expect("scan")), ["k=v"]);
    assert_eq!(store.meta(main, b"m").await.expect("meta"), Some(bytes("w")));
    assert_eq!(shown(&store.meta_scan(main, b"", 9).await.expect("meta scan")), ["m=w"]);
    assert_eq!(store.log(main, Position::START, 99).await.expect("log"), [entry(1)]);
    receipt.durable().await.expect("durable");
}

/// When a receipt has resolved, all earlier ones of its gateway have.
pub async fn receipts_resolve_in_order(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    let mut receipts = Vec::new();
    for position in 1..=50 {
        receipts.push(store.commit(main, entries([position])).await.expect("commit"));
    }
    let last = receipts.pop().expect("fifty receipts");
    last.durable().await.expect("durable");
    for receipt in receipts {
        // A receipt that is ready answers at the first poll.
        let ready = futures_util::FutureExt::now_or_never(receipt.durable());
        ready.expect("resolved before a later one").expect("durable");
    }
}

/// Readers see all of a group or nothing of it.
pub async fn a_group_is_whole(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    put(&*store, main, pair(0)).await;
    let writer = Arc::clone(&store);
    let writes = tokio::spawn(async move {
        for round in 1..=200 {
            put(&*writer, main, pair(round)).await;
        }
    });
    while !writes.is_finished() {
        let keys = [bytes("left"), bytes("right")];
        let both = store.rows(main, &keys, usize::MAX).await.expect("rows");
        assert_eq!(both[0], both[1], "half a group was seen");
        tokio::task::yield_now().await;
    }
    writes.await.expect("the writer");
}

fn pair(round: u32) -> Group {
    rows(&[&format!("left={round}"), &format!("right={round}")])
}

/// Where a group changes one key twice, the later change counts.
pub async fn the_last_change_of_a_key_counts(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    let mut group = rows(&["a=1", "b=1", "a=2", "b", "c", "c=3"]);
    group.meta = meta(&["m=1", "m", "n=1", "n=2"]).meta;
    put(&*store, main, group).await;
    assert_eq!(shown(&scan_all(&*store, main, b"", 999).await), ["a=2", "c=3"]);
    assert_eq!(shown(&store.meta_scan(main, b"", 9).await.expect("meta")), ["n=2"]);
    put(&*store, main, rows(&["a", "nothing"])).await;
    assert_eq!(shown(&scan_all(&*store, main, b"", 999).await), ["c=3"]);
}

/// A group of nothing changes nothing, and its receipt resolves in turn.
pub async fn an_empty_group_is_a_commit(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    put(&*store, main, Group::default()).await;
    assert_eq!(store.head(main).await.expect("head"), Position::START);
}

/// Entries that do not follow the head are a bug of the caller's, and change nothing.
pub async fn positions_follow_the_head(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    put(&*store, main, entries(1..=2)).await;
    for wrong in [vec![2], vec![4], vec![3, 5], vec![3, 3], vec![0]] {
        let (store, mut group) = (Arc::clone(&store), entries(wrong.clone()));
        group.rows = rows(&["k=v"]).rows;
        let outcome = tokio::spawn(async move { store.commit(main, group).await }).await;
        assert!(outcome.is_err_and(|error| error.is_panic()), "{wrong:?} was accepted");
    }
    assert_eq!(store.rows(main, &[bytes("k")], usize::MAX).await.expect("rows"), [None]);
    put(&*store, main, entries(3..=4)).await;
    let log = log_all(&*store, main, Position::START, 999).await;
    assert_eq!(log, [1, 2, 3, 4].map(entry));
}

/// Gateways commit side by side, and each log is its own.
pub async fn many_gateways_commit_at_once(home: &dyn Home) {
    let store = home.open().await;
    let mut writers = Vec::new();
    for number in 0..8_u32 {
        let store = Arc::clone(&store);
        writers.push(tokio::spawn(async move {
            let gateway = create(&*store, &format!("g{number}")).await.id;
            for position in 1..=20 {
                let mut group = entries([position]);
                group.rows = rows(&[&format!("k{position}={number}")]).rows;
                put(&*store, gateway, group).await;
            }
            gateway
        }));
    }
    for (number, writer) in writers.into_iter().enumerate() {
        let gateway = writer.await.expect("a writer");
        assert_eq!(store.head(gateway).await.expect("head"), Position(20));
        let found = scan_all(&*store, gateway, b"k", 64).await;
        assert_eq!(found.len(), 20);
        assert!(found.iter().all(|(_, value)| *value == number.to_string()));
    }
}

/// A commit of the greatest size there is comes back whole.
pub async fn large_values_survive(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    let large = Bytes::from(vec![0xa5; 4 << 20]);
    let group = Group {
        log: vec![LogEntry { position: Position(1), commit: large.clone() }],
        rows: vec![(bytes("row"), Some(large.slice(..2 << 20)))],
        meta: vec![(bytes("empty"), Some(Bytes::new()))],
    };
    put(&*store, main, group).await;
    assert_eq!(store.log(main, Position::START, 1).await.expect("log")[0].commit, large);
    let row = store.rows(main, &[bytes("row")], usize::MAX).await.expect("rows").remove(0);
    assert_eq!(row.map(|row| row.len()), Some(2 << 20));
    assert_eq!(store.meta(main, b"empty").await.expect("meta"), Some(Bytes::new()));
}
