//! Reads: in order, within their prefix, bounded, and complete while writes go on.

use bytes::Bytes;
use lakesync::name::Position;

use super::{
    Home, bytes, entries, entry, log_all, main_gateway, meta, put, rows, rows_all, scan_all, shown,
};
use crate::store::{Group, LogEntry};

/// Look-ups of many rows answer in the order of their keys, repeated and missing ones included.
pub async fn rows_answer_in_the_order_asked(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    put(&*store, main, rows(&["b=2", "a=1", "c=3"])).await;
    let keys = ["c", "x", "a", "c", ""].map(bytes);
    let found = store.rows(main, &keys, usize::MAX).await.expect("rows");
    assert_eq!(found, [Some(bytes("3")), None, Some(bytes("1")), Some(bytes("3")), None]);
    assert_eq!(store.rows(main, &[], usize::MAX).await.expect("no rows"), []);
}

/// A look-up stops before the row that would exceed its bytes, answers for one row at least, and goes
/// on as far as the bytes reach: absent rows take none.
pub async fn rows_page_by_bytes(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    let value = |n: usize| Bytes::from(vec![b'v'; n * 10]);
    let one = |n: usize| (bytes(&format!("k{n:02}")), Some(value(n)));
    // Apart, so that an engine in layers has them in several.
    for some in (0..40).collect::<Vec<_>>().chunks(7) {
        let rows = some.iter().map(|n| one(*n)).collect();
        put(&*store, main, Group { rows, ..Group::default() }).await;
    }
    let known = (0..40).rev().flat_map(|n| [Some(one(n)), None]);
    let (keys, all): (Vec<Bytes>, Vec<Option<Bytes>>) =
        known.map(|row| row.unwrap_or_else(|| (bytes("absent"), None))).unzip();
    for bytes_max in [0, 1, 390, 1_000, usize::MAX] {
        let found = rows_all(&*store, main, &keys, bytes_max).await;
        assert_eq!(found, all, "in pages of {bytes_max} bytes");
    }
    for (bytes_max, count) in [(0, 1), (389, 1), (390, 2), (769, 2), (770, 4), (usize::MAX, 80)] {
        let page = store.rows(main, &keys, bytes_max).await.expect("rows");
        assert_eq!(page, all[..count], "390 and 380 bytes, each before an absent row: {bytes_max}");
    }
}

/// A scan holds the keys that begin with its prefix and no others, also where one prefix begins
/// another and where a prefix ends with the greatest byte.
pub async fn scans_stay_within_their_prefix(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    let keys: [&[u8]; 9] =
        [b"a", b"a\0", b"ab", b"ab\xff", b"ab\xff\xff", b"ac", b"b", b"\xff", b"\xff\xff"];
    let one = |key: &[u8]| (Bytes::copy_from_slice(key), Some(bytes("v")));
    put(&*store, main, Group { rows: keys.map(one).to_vec(), ..Group::default() }).await;
    for prefix in [&b""[..], b"a", b"ab", b"ab\xff", b"b", b"\xff", b"\xff\xff", b"\xff\xff\xff"] {
        for after in [None, Some(&b""[..]), Some(b"a"), Some(b"ab"), Some(b"az"), Some(b"\xff")] {
            let found = store.scan(main, prefix, after, 1 << 20).await.expect("scan");
            let found: Vec<&[u8]> = found.iter().map(|(key, _)| &key[..]).collect();
            let inside = |key: &&[u8]| key.starts_with(prefix) && after.is_none_or(|a| a < *key);
            let expected: Vec<&[u8]> = keys.into_iter().filter(inside).collect();
            assert_eq!(found, expected, "prefix {prefix:?} after {after:?}");
        }
    }
}

/// A page stops at its bytes, holds one row at least, and the pages together hold every row.
pub async fn scans_page_by_bytes(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    let all: Vec<String> =
        (0..40_u32).map(|n| format!("k{n:02}={}", "v".repeat(n as usize))).collect();
    let texts: Vec<&str> = all.iter().map(String::as_str).collect();
    put(&*store, main, rows(&texts)).await;
    for bytes_max in [0, 1, 30, 100, 1 << 20] {
        let found = scan_all(&*store, main, b"k", bytes_max).await;
        assert_eq!(shown(&found), all, "in pages of {bytes_max} bytes");
    }
    let page = store.scan(main, b"", None, 10).await.expect("scan");
    assert_eq!(shown(&page), ["k00=", "k01=v"], "three and four bytes fit, five more do not");
}

/// A row that is there all along is in the pages exactly once, whatever happens between them to
/// the rows around it; a row that changes is seen in one of its states.
pub async fn scans_miss_nothing_while_rows_change(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    let stable: Vec<String> = (0..60).map(|n| format!("k{n:02}=stable")).collect();
    put(&*store, main, rows(&stable.iter().map(String::as_str).collect::<Vec<_>>())).await;
    let mut found: Vec<(Bytes, Bytes)> = Vec::new();
    for round in 0.. {
        let after = found.last().map(|(key, _)| key.clone());
        let page = store.scan(main, b"k", after.as_deref(), 60).await.expect("scan");
        if page.is_empty() {
            break;
        }
        found.extend(page);
        let here = format!("k{:02}", round * 7 % 60);
        let (come, go) = (format!("{here}-new=new"), format!("k{:02}-new", round * 5 % 60));
        put(&*store, main, rows(&[&come, &go, "a=outside", "l=outside"])).await;
    }
    assert!(found.is_sorted_by(|a, b| a.0 < b.0), "out of order");
    let kept: Vec<String> =
        shown(&found).into_iter().filter(|text| text.ends_with("=stable")).collect();
    assert_eq!(kept, stable);
    assert!(found.iter().all(|(_, value)| value == "stable" || value == "new"));
}

/// Meta entries come in order, under their prefix, up to the limit.
pub async fn meta_scans_stop_at_their_limit(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    put(&*store, main, meta(&["c/2=b", "c/1=a", "c=x", "d=y", "c/3=c"])).await;
    for (prefix, limit, expected) in [
        ("c/", 9, &["c/1=a", "c/2=b", "c/3=c"][..]),
        ("c/", 2, &["c/1=a", "c/2=b"]),
        ("c", 2, &["c=x", "c/1=a"]),
        ("d", 9, &["d=y"]),
        ("e", 9, &[]),
        ("", 0, &[]),
    ] {
        let found = store.meta_scan(main, prefix.as_bytes(), limit).await.expect("meta scan");
        assert_eq!(shown(&found), expected, "{limit} under {prefix:?}");
    }
}

/// A row and a meta entry may have the same key.
pub async fn rows_and_meta_are_apart(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    put(&*store, main, rows(&["k=row"])).await;
    assert_eq!(store.meta(main, b"k").await.expect("meta"), None);
    put(&*store, main, meta(&["k=meta", "only=meta"])).await;
    assert_eq!(shown(&scan_all(&*store, main, b"", 999).await), ["k=row"]);
    put(&*store, main, rows(&["k"])).await;
    assert_eq!(store.meta(main, b"k").await.expect("meta"), Some(bytes("meta")));
}

/// A page of the log stops at its bytes, holds one entry at least, and ends at the head.
pub async fn logs_page_by_bytes(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    let commit = |n: u64| Bytes::from(vec![b'c'; n as usize * 10]);
    let log = |n| LogEntry { position: Position(n), commit: commit(n) };
    let all: Vec<LogEntry> = (1..=20).map(log).collect();
    put(&*store, main, Group { log: all.clone(), ..Group::default() }).await;
    for bytes_max in [0, 1, 35, 200, 1 << 20] {
        for after in [0, 1, 10, 19, 20] {
            let found = log_all(&*store, main, Position(after), bytes_max).await;
            assert_eq!(found, all[after as usize..], "{bytes_max} bytes after {after}");
        }
    }
    let page = store.log(main, Position::START, 30).await.expect("log");
    assert_eq!(page, all[..2], "10 and 20 bytes fit, 30 more do not");
}

/// A trimmed entry is gone, the head stays, and the mark says what happened.
pub async fn trimmed_entries_are_left_out(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    put(&*store, main, entries(1..=9)).await;
    for through in [3, 4, 9] {
        store.trim(main, Position(through)).await.expect("trim");
        assert_eq!(store.trimmed(main).await.expect("trimmed"), Position(through));
        assert_eq!(store.head(main).await.expect("head"), Position(9));
        let left = log_all(&*store, main, Position::START, 999).await;
        assert_eq!(left, (through + 1..=9).map(entry).collect::<Vec<_>>());
    }
    put(&*store, main, entries([10])).await;
    assert_eq!(log_all(&*store, main, Position::START, 999).await, [entry(10)]);
}

/// Trimming less than was trimmed changes nothing.
pub async fn trims_never_go_back(home: &dyn Home) {
    let store = home.open().await;
    let main = main_gateway(&*store).await;
    put(&*store, main, entries(1..=5)).await;
    for through in [4, 2, 0, 4] {
        store.trim(main, Position(through)).await.expect("trim");
        assert_eq!(store.trimmed(main).await.expect("trimmed"), Position(4));
    }
    assert_eq!(log_all(&*store, main, Position::START, 999).await, [entry(5)]);
}
