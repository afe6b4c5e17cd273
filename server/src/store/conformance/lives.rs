//! Lives: what closing and opening keep, and what only another life changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
        store.rows(main.id, &[bytes("k")], usize::MAX).await.err(),
        store.commit(main.id, entries([1])).await.err(),
        store.log(main.id, Position::START, 9).await.err(),
        store.create_gateway(&name("other"), 1).await.err(),
        store.close().await.err(),
    ];
    for (call, error) in errors.iter().enumerate() {
        assert!(matches!(error, Some(StoreError::Closed)), "call {call}: {error:?}");
    }
}

/// A copy holds everything, its logs have other ids, and both go on by themselves.
pub async fn a_backup_is_whole_and_another_log(home: &dyn Home) {
    let store = home.open().await;
    let (main, empty) = (create(&*store, "main").await, create(&*store, "empty").await);
    put(&*store, main.id, Group { rows: rows(&["a=1", "b=1"]).rows, ..entries(1..=5) }).await;
    put(&*store, main.id, Group { meta: meta(&["m=1"]).meta, ..rows(&["a"]) }).await;
    store.trim(main.id, Position(2)).await.expect("trim");
    let to = home.copy_path();
    store.backup(&to).await.expect("backup");
    let over = store.backup(&to).await;
    assert!(matches!(over, Err(StoreError::NoCopy(_))), "over another copy: {over:?}");
    put(&*store, main.id, Group { rows: rows(&["b=2"]).rows, ..entries([6]) }).await;
    let copy = home.open_copy(&to).await;
    let listed = copy.gateways(None, 9).await.expect("list");
    let names: Vec<_> = listed.iter().map(|record| (&record.name, record.created_ms)).collect();
    assert_eq!(names, [&empty, &main].map(|record| (&record.name, record.created_ms)));
    assert!(listed[0].log_id != empty.log_id && listed[1].log_id != main.log_id);
    let id = listed[1].id;
    assert_eq!(copy.head(id).await.expect("head"), Position(5));
    assert_eq!(copy.trimmed(id).await.expect("trimmed"), Position(2));
    let log = log_all(&*copy, id, Position::START, 999).await;
    assert_eq!(log, [3, 4, 5].map(entry));
    assert_eq!(shown(&scan_all(&*copy, id, b"", 999).await), ["b=1"]);
    assert_eq!(copy.meta(id, b"m").await.expect("meta"), Some(bytes("1")));
    put(&*copy, id, Group { rows: rows(&["b=3"]).rows, ..entries([6]) }).await;
    assert_eq!(shown(&scan_all(&*store, main.id, b"", 999).await), ["b=2"]);
    copy.close().await.expect("close the copy");
}

/// A copy that was made while writes went on holds the first of them and no part of the others.
pub async fn a_backup_is_one_moment(home: &dyn Home) {
    let store = home.open().await;
    let main = create(&*store, "main").await.id;
    let (writer, stop) = (Arc::clone(&store), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let writes = tokio::spawn(async move {
        let mut position = 0;
        while !stopped.load(Ordering::Relaxed) {
            position += 1;
            let (row, other) = (format!("left={position}"), format!("right={position}"));
            let meta = meta(&[&format!("at={position}")]).meta;
            let group = Group { rows: rows(&[&row, &other]).rows, meta, ..entries([position]) };
            put(&*writer, main, group).await;
        }
    });
    while store.head(main).await.expect("head") < Position(20) {
        tokio::task::yield_now().await;
    }
    let to = home.copy_path();
    store.backup(&to).await.expect("backup");
    stop.store(true, Ordering::Relaxed);
    writes.await.expect("the writer");
    let copy = home.open_copy(&to).await;
    let head = copy.head(main).await.expect("head");
    assert!(Position(20) <= head);
    let log = log_all(&*copy, main, Position::START, 999).await;
    assert_eq!(log, (1..=head.0).map(entry).collect::<Vec<_>>());
    let both = scan_all(&*copy, main, b"", 999).await;
    assert_eq!(shown(&both), [format!("left={head}"), format!("right={head}")]);
    assert_eq!(copy.meta(main, b"at").await.expect("meta"), Some(bytes(&head.to_string())));
    copy.close().await.expect("close the copy");
}
