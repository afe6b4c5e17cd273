//! The tests every store must pass. Enabled by the `testing` feature.
//!
//! Each check starts from an empty [`Home`] and states one clause of the [`Store`] contract. What
//! needs faults (a failing disk, a power cut) is tested beside the engine that can have them.
//! [`store_conformance!`](crate::store_conformance) declares one test per check.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lakesync::name::{Gateway, Position};

use super::{GatewayId, GatewayRecord, Group, LogEntry, Store};

pub mod commits;
pub mod gateways;
pub mod lives;
pub mod model;
pub mod reads;

/// A place where a state lives, so that a check can close it and open it again.
#[async_trait]
pub trait Home: Send + Sync {
    /// Opens the state kept here. Whoever had it open before has closed it.
    async fn open(&self) -> Arc<dyn Store>;

    /// Where a copy may go: nothing is there yet.
    fn copy_path(&self) -> PathBuf;

    /// Opens the copy that a backup wrote to `copy`.
    async fn open_copy(&self, copy: &Path) -> Arc<dyn Store>;
}

/// Declares one test per check. `$home` is a function that returns an empty [`Home`].
#[macro_export]
macro_rules! store_conformance {
    ($home:path) => {
        $crate::store_conformance! { $home, gateways:
            a_created_gateway_is_found,
            names_are_unique,
            pages_list_every_gateway_once,
            a_dropped_gateway_is_gone,
            a_name_used_again_starts_empty,
            neighbours_never_meet,
            unknown_gateways_are_not_found,
        }
        $crate::store_conformance! { $home, commits:
            a_commit_is_seen_at_once,
            receipts_resolve_in_order,
            a_group_is_whole,
            the_last_change_of_a_key_counts,
            an_empty_group_is_a_commit,
            positions_follow_the_head,
            many_gateways_commit_at_once,
            large_values_survive,
        }
        $crate::store_conformance! { $home, reads:
            rows_answer_in_the_order_asked,
            rows_page_by_bytes,
            scans_stay_within_their_prefix,
            scans_page_by_bytes,
            scans_miss_nothing_while_rows_change,
            meta_scans_stop_at_their_limit,
            rows_and_meta_are_apart,
            logs_page_by_bytes,
            trimmed_entries_are_left_out,
            trims_never_go_back,
        }
        $crate::store_conformance! { $home, lives:
            everything_durable_survives_reopening,
            numbers_are_never_given_again,
            a_log_keeps_its_id,
            a_closed_store_answers_nothing,
            a_backup_is_whole_and_another_log,
            a_backup_is_one_moment,
        }

        #[test]
        fn agrees_with_a_plain_map() {
            $crate::store::conformance::model::agrees(&|| Box::new($home()));
        }
    };
    ($home:path, $room:ident: $($check:ident,)+) => {$(
        #[tokio::test]
        async fn $check() {
            let home = $home();
            $crate::store::conformance::$room::$check(&home).await;
        }
    )+};
}

fn name(text: &str) -> Gateway {
    text.parse().expect("a legal gateway name")
}

async fn create(store: &dyn Store, text: &str) -> GatewayRecord {
    store.create_gateway(&name(text), 1_700_000_000_000).await.expect("create a gateway")
}

/// Creates the gateway `main`, for checks that need but one.
async fn main_gateway(store: &dyn Store) -> GatewayId {
    create(store, "main").await.id
}

async fn put(store: &dyn Store, gateway: GatewayId, group: Group) {
    let receipt = store.commit(gateway, group).await.expect("commit");
    receipt.durable().await.expect("durable");
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A group of log entries at `positions`, each saying where it is.
fn entries(positions: impl IntoIterator<Item = u64>) -> Group {
    Group { log: positions.into_iter().map(entry).collect(), ..Group::default() }
}

fn entry(position: u64) -> LogEntry {
    LogEntry { position: Position(position), commit: bytes(&format!("commit {position}")) }
}

/// Reads `key=value` as a change, and `key` as a removal.
fn changes(texts: &[&str]) -> Vec<(Bytes, Option<Bytes>)> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) => (bytes(key), Some(bytes(value))),
            None => (bytes(text), None),
        })
        .collect()
}

fn rows(texts: &[&str]) -> Group {
    Group { rows: changes(texts), ..Group::default() }
}

fn meta(texts: &[&str]) -> Group {
    Group { meta: changes(texts), ..Group::default() }
}

/// Shows items as `key=value`.
fn shown(items: &[(Bytes, Bytes)]) -> Vec<String> {
    items.iter().map(|(key, value)| format!("{}={}", text(key), text(value))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The states of all of `keys`, page by page.
async fn rows_all(
    store: &dyn Store,
    gateway: GatewayId,
    keys: &[Bytes],
    bytes_max: usize,
) -> Vec<Option<Bytes>> {
    let mut all = Vec::new();
    while all.len() < keys.len() {
        let page = store.rows(gateway, &keys[all.len()..], bytes_max).await.expect("rows");
        assert!(!page.is_empty(), "no row of {} that are left", keys.len() - all.len());
        let page_bytes: usize = page.iter().flatten().map(Bytes::len).sum();
        assert!(page.len() == 1 || page_bytes <= bytes_max, "{page_bytes} bytes in a page");
        all.extend(page);
    }
    all
}

/// Every row under `prefix`, page by page.
async fn scan_all(
    store: &dyn Store,
    gateway: GatewayId,
    prefix: &[u8],
    bytes_max: usize,
) -> Vec<(Bytes, Bytes)> {
    let mut all: Vec<(Bytes, Bytes)> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone());
        let page = store.scan(gateway, prefix, after.as_deref(), bytes_max).await.expect("scan");
        if page.is_empty() {
            return all;
        }
        let page_bytes: usize = page.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(page.len() == 1 || page_bytes <= bytes_max, "{page_bytes} bytes in a page");
        all.extend(page);
    }
}

/// Every position of the log after `after`, page by page.
async fn log_all(
    store: &dyn Store,
    gateway: GatewayId,
    mut after: Position,
    bytes_max: usize,
) -> Vec<LogEntry> {
    let mut all = Vec::new();
    loop {
        let page = store.log(gateway, after, bytes_max).await.expect("log");
        let Some(last) = page.last() else { return all };
        after = last.position;
        let page_bytes: usize = page.iter().map(|entry| entry.commit.len()).sum();
        assert!(page.len() == 1 || page_bytes <= bytes_max, "{page_bytes} bytes in a page");
        all.extend(page);
    }
}
