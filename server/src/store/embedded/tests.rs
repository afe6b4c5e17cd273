//! The embedded store: the shared suite, and what only a disk can do to it.
//!
//! Most tests write one sequence of groups, of which each says everything about those before it: the
//! log has one entry per group, and rows and meta hold the numbers of the last ones. So any state
//! can be checked against nothing but its own head.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::*;
use crate::store::conformance::Home;

mod altered;
mod crash;
mod faults;
mod suite;

/// Rows that the sequence writes in turn.
const ROWS: u64 = 7;

fn options(overlay_bytes: usize) -> Options {
    Options { overlay_bytes, disk_reserve_bytes: 0, ..Options::default() }
}

fn open(dir: &Path, overlay_bytes: usize) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(dir, options(overlay_bytes))
}

async fn main_gateway(store: &EmbeddedStore) -> GatewayId {
    let name: Gateway = "main".parse().expect("a name");
    match store.gateway(&name).await.expect("look up") {
        Some(record) => record.id,
        None => store.create_gateway(&name, 1).await.expect("create").id,
    }
}

/// Group `number` of the sequence.
fn group(number: u64) -> Group {
    let value = Bytes::from(format!("value {number}"));
    let row = Bytes::from(format!("row {}", number % ROWS));
    let log = vec![LogEntry { position: Position(number), commit: value.clone() }];
    let meta = vec![(Bytes::from_static(b"last"), Some(value.clone()))];
    Group { log, rows: vec![(row, Some(value))], meta }
}

async fn commit(store: &EmbeddedStore, gateway: GatewayId, number: u64) -> Receipt {
    store.commit(gateway, group(number)).await.expect("commit")
}

async fn put(store: &EmbeddedStore, gateway: GatewayId, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        commit(store, gateway, number).await.durable().await.expect("durable");
    }
}

/// The head, if the state is exactly what the groups up to it leave.
async fn checked_head(store: &EmbeddedStore, gateway: GatewayId) -> Result<u64, StoreError> {
    let head = store.head(gateway).await?.0;
    let mut position = store.trimmed(gateway).await?;
    while position.0 < head {
        let page = store.log(gateway, position, 100).await?;
        assert!(!page.is_empty(), "the log ends after {position}, before its head {head}");
        for entry in page {
            position = position.next();
            assert_eq!(entry, group(position.0).log[0]);
        }
    }
    let newest = (head.saturating_sub(ROWS - 1)..=head).filter(|number| 0 < *number);
    let mut expected: Vec<_> = newest.flat_map(|number| group(number).rows).collect();
    expected.sort();
    let found = store.scan(gateway, b"", None, 1 << 20).await?;
    assert_eq!(found.into_iter().map(|(k, v)| (k, Some(v))).collect::<Vec<_>>(), expected);
    let keys: Vec<Bytes> = expected.iter().map(|(key, _)| key.clone()).collect();
    let values: Vec<_> = expected.into_iter().map(|(_, value)| value).collect();
    assert_eq!(store.rows(gateway, &keys, usize::MAX).await?, values);
    let last = (0 < head).then(|| Bytes::from(format!("value {head}")));
    assert_eq!(store.meta(gateway, b"last").await?, last);
    Ok(head)
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create");
    let entries = std::fs::read_dir(from).expect("read").map(|entry| entry.expect("an entry"));
    let mut entries: Vec<_> = entries.collect();
    // As of one moment, as far as it matters: what is noted of the journal before the journal.
    entries.sort_by_key(|entry| entry.path().is_dir());
    for entry in entries {
        let target = to.join(entry.file_name());
        let metadata = entry.metadata().expect("metadata");
        if metadata.is_dir() {
            copy_tree(&entry.path(), &target);
        } else if metadata.blocks() == 0 {
            // The tables' own journal: long, and nothing in it.
            File::create(target).and_then(|file| file.set_len(metadata.len())).expect("copy");
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
