//! Lives: what closing and opening keep, and what only another life changes.

use lakesync::name::Position;

use super::{Home, bytes, create, entries, entry, log_all, meta, name, put, rows, scan_all, shown};
use crate::store::{Group, StoreError};

/// Log, rows, meta, marks and gateways are there again, and nothing else is.
pub async fn everything_durable_survives_reopening(home: &dyn Home) {
    let store = home.open().await;
    let (main, other) = (create(&*store, "main").await, create(&*store, "other").await);
    let gone = create(&*store, "gone").await;
    let rest = (rows(&["a=1", "b=1"]).rows, meta(&["m=1"]).meta);
    put(&*store, main.id, Group { log: entries(1..=5).log, rows: rest.0, meta: rest.1 }).await;
    put(&*store, main.id, rows(&["a", "b=2"])).await;
    store.trim(main.id, Position(2)).await.expect("trim");
    put(&*store, gone.id, rows(&["x=y"])).await;
    store.drop_gateway(&gone.name).await.expect("drop");
    store.close().await.expect("close");
    for life in 1..=3 {
        let store = home.open().await;
        let listed = store.gateways(None, 9).await.expect("list");
        assert_eq!(listed, [main.clone(), other.clone()], "life {life}");
        assert_eq!(store.head(main.id).await.expect("head"), Position(5));
        assert_eq!(store.trimmed(main.id).await.expect("trimmed"), Position(2));
        let log = log_all(&*store, main.id, Position::START, 999).await;
        assert_eq!(log, [3, 4, 5].map(entry));
        assert_eq!(shown(&scan_all(&*store, main.id, b"", 999).await), ["b=2"]);
        assert_eq!(store.meta(main.id, b"m").await.expect("meta"), Some(bytes("1")));
        assert_eq!(scan_all(&*store, other.id, b"", 999).await, []);
        store.close().await.expect("close");
    }
}

/// A number stays used after its gateway was dropped and the store reopened.
pub async fn numbers_are_never_given_again(home: &dyn Home) {
    let mut given = Vec::new();
    for _ in 0..3 {
        let store = home.open().await;
        let record = create(&*store, "main").await;
        assert!(!given.contains(&record.id), "{:?} was given again", record.id);
        given.push(record.id);
        store.drop_gateway(&record.name).await.expect("drop");
        store.close().await.expect("close");
    }
}

/// Opening again is the same life: the log's id stays.
pub async fn a_log_keeps_its_id(home: &dyn Home) {
    let store = home.open().await;
    let created = create(&*store, "main").await;
    store.close().await.expect("close");
    for _ in 0..2 {
        let store = home.open().await;
        let found = store.gateway(&name("main")).await.expect("look up").expect("main");
        assert_eq!(found.log_id, created.log_id);
        store.close().await.expect("close");
    }
}

/// After `close` every call says that the store is closed.
pub async fn a_closed_store_answers_nothing(home: &dyn Home) {
    let store = home.open().await;
    let main = create(&*store, "main").await;
    store.close().await.expect("close");
    let errors = [
        store.gateway(&main.name).await.err(),
        store.head(main.id).await.err(),
        store.rows(main.id, &[bytes("k")]).await.err(),
        store.commit(main.id, entries([1])).await.err(),
        store.log(main.id, Position::START, 9).await.err(),
        store.create_gateway(&name("other"), 1).await.err(),
        store.close().await.err(),
    ];
    for (call, error) in errors.iter().enumerate() {
        assert!(matches!(error, Some(StoreError::Closed)), "call {call}: {error:?}");
    }
}
