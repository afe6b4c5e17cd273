//! Gateways: they are created, listed and dropped, and none ever sees what another holds.

use std::collections::BTreeSet;

use lakesync::name::Position;

use super::{Home, bytes, create, entries, log_all, meta, name, put, rows, scan_all};
use crate::store::{GatewayId, Group, Store, StoreError};

/// What creation answers is what a look-up finds.
pub async fn a_created_gateway_is_found(home: &dyn Home) {
    let store = home.open().await;
    assert_eq!(store.gateway(&name("main")).await.expect("look up"), None);
    let created = store.create_gateway(&name("main"), 42).await.expect("create");
    assert_eq!((created.name.as_str(), created.created_ms), ("main", 42));
    assert_eq!(store.gateway(&name("main")).await.expect("look up"), Some(created.clone()));
    assert_eq!(store.head(created.id).await.expect("head"), Position::START);
    assert_eq!(store.trimmed(created.id).await.expect("trimmed"), Position::START);
}

/// A second gateway of one name is refused, and the first stays as it was.
pub async fn names_are_unique(home: &dyn Home) {
    let store = home.open().await;
    let first = create(&*store, "main").await;
    let refused = store.create_gateway(&name("main"), 7).await;
    assert!(matches!(&refused, Err(StoreError::Exists(n)) if n == &first.name), "{refused:?}");
    assert_eq!(store.gateway(&name("main")).await.expect("look up"), Some(first));
}

/// Pages come in the order of names and together hold every gateway once.
pub async fn pages_list_every_gateway_once(home: &dyn Home) {
    let store = home.open().await;
    let names = ["ab", "a", "b", "a-b", "abc", "z9", "z"];
    for name in names {
        create(&*store, name).await;
    }
    let expected: Vec<&str> = BTreeSet::from(names).into_iter().collect();
    for limit in [1, 2, 3, 100] {
        let mut listed = Vec::new();
        loop {
            let after = listed.last().cloned();
            let page = store.gateways(after.as_ref(), limit).await.expect("a page");
            assert!(page.len() <= limit, "{} gateways in a page of {limit}", page.len());
            if page.is_empty() {
                break;
            }
            listed.extend(page.into_iter().map(|record| record.name));
        }
        let listed: Vec<&str> = listed.iter().map(|name| name.as_str()).collect();
        assert_eq!(listed, expected, "in pages of {limit}");
    }
    assert_eq!(store.gateways(None, 0).await.expect("no page"), []);
    let between = store.gateways(Some(&name("aa")), 1).await.expect("a page");
    assert_eq!(between[0].name, name("ab"), "after a name that is not there");
}

/// After a drop neither the name nor the number leads anywhere.
pub async fn a_dropped_gateway_is_gone(home: &dyn Home) {
    let store = home.open().await;
    let kept = create(&*store, "kept").await;
    let gone = create(&*store, "gone").await;
    put(&*store, gone.id, full_group()).await;
    store.drop_gateway(&gone.name).await.expect("drop");
    assert_eq!(store.gateway(&gone.name).await.expect("look up"), None);
    assert_eq!(store.gateways(None, 9).await.expect("list"), [kept]);
    expect_not_found(&*store, gone.id).await;
    let again = store.drop_gateway(&gone.name).await;
    assert!(matches!(again, Err(StoreError::NotFound)), "{again:?}");
}

/// A name that was dropped and created anew is another gateway with another log, and empty.
pub async fn a_name_used_again_starts_empty(home: &dyn Home) {
    let store = home.open().await;
    let mut lives = Vec::new();
    for _ in 0..3 {
        let record = create(&*store, "main").await;
        expect_empty(&*store, record.id).await;
        put(&*store, record.id, full_group()).await;
        store.trim(record.id, Position(1)).await.expect("trim");
        store.drop_gateway(&record.name).await.expect("drop");
        lives.push(record);
    }
    let numbers: BTreeSet<GatewayId> = lives.iter().map(|record| record.id).collect();
    assert_eq!(numbers.len(), lives.len(), "a number was given again");
    assert!(lives[0].log_id != lives[1].log_id && lives[1].log_id != lives[2].log_id);
}

/// Gateways with adjacent numbers hold the same keys without ever seeing each other's.
pub async fn neighbours_never_meet(home: &dyn Home) {
    let store = home.open().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(create(&*store, name).await.id);
    }
    for (gateway, text) in ids.iter().zip(["ann", "bob", "cat"]) {
        let mut group = full_group();
        // The least and the greatest keys lie next to the neighbours' keys.
        for key in [&b""[..], b"\0", b"\xff\xff\xff\xff\xff"] {
            group.rows.push((key.to_vec().into(), Some(bytes(text))));
            group.meta.push((key.to_vec().into(), Some(bytes(text))));
        }
        put(&*store, *gateway, group).await;
    }
    for (gateway, text) in ids.iter().zip(["ann", "bob", "cat"]) {
        let found = scan_all(&*store, *gateway, b"", 1 << 20).await;
        assert_eq!(found.len(), 5);
        let own = |key: &[u8]| key.is_empty() || key[0] == 0 || key[0] == 0xff;
        assert!(found.iter().filter(|(key, _)| own(key)).all(|(_, value)| value == text));
        let metas = store.meta_scan(*gateway, b"", 100).await.expect("meta scan");
        assert_eq!(metas.len(), 4);
        assert_eq!(log_all(&*store, *gateway, Position::START, 1 << 20).await.len(), 3);
    }
    store.drop_gateway(&name("b")).await.expect("drop");
    for gateway in [ids[0], ids[2]] {
        assert_eq!(scan_all(&*store, gateway, b"", 1 << 20).await.len(), 5);
    }
}

/// A number that was never given is not found, whatever is asked of it.
pub async fn unknown_gateways_are_not_found(home: &dyn Home) {
    let store = home.open().await;
    let known = create(&*store, "main").await.id;
    expect_not_found(&*store, GatewayId(known.0 + 1)).await;
}

fn full_group() -> Group {
    let (log, row, meta) = (entries(1..=3), rows(&["k=v", "l=w"]), meta(&["k=m"]));
    Group { log: log.log, rows: row.rows, meta: meta.meta }
}

async fn expect_empty(store: &dyn Store, gateway: GatewayId) {
    assert_eq!(store.head(gateway).await.expect("head"), Position::START);
    assert_eq!(store.trimmed(gateway).await.expect("trimmed"), Position::START);
    assert_eq!(store.rows(gateway, &[bytes("k")], usize::MAX).await.expect("rows"), [None]);
    assert_eq!(store.scan(gateway, b"", None, 1 << 20).await.expect("scan"), []);
    assert_eq!(store.meta(gateway, b"k").await.expect("meta"), None);
    assert_eq!(store.meta_scan(gateway, b"", 9).await.expect("meta scan"), []);
    assert_eq!(store.log(gateway, Position::START, 1 << 20).await.expect("log"), []);
}

async fn expect_not_found(store: &dyn Store, gateway: GatewayId) {
    let errors = [
        store.head(gateway).await.err(),
        store.trimmed(gateway).await.err(),
        store.rows(gateway, &[bytes("k")], usize::MAX).await.err(),
        store.scan(gateway, b"", None, 1 << 20).await.err(),
        store.meta(gateway, b"k").await.err(),
        store.meta_scan(gateway, b"", 9).await.err(),
        store.log(gateway, Position::START, 1 << 20).await.err(),
        store.commit(gateway, Group::default()).await.err(),
        store.trim(gateway, Position::START).await.err(),
    ];
    for (call, error) in errors.iter().enumerate() {
        assert!(matches!(error, Some(StoreError::NotFound)), "call {call}: {error:?}");
    }
}
