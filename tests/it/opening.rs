//! Opening takes as long after many changes as after few: what it reads back is bounded by what is
//! held in memory, not by what was ever written.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lakesync::clock::ManualClock;
use lakesync::name::Gateway as Name;
use lakesync::schema::{ColumnType, Proposal};
use lakesync::wire::Offer;
use lakesync_server::gateway::{Caller, Gateways, Settings};
use lakesync_server::store::Store;
use lakesync_server::store::embedded::{EmbeddedStore, Options};

use crate::harness::changes::{at, upsert};
use crate::harness::{MAIN, NOW_MS};

/// Changes of one push.
const PUSH: u64 = 1_000;
/// How often each directory is opened; the fastest counts, for neighbours only ever add.
const TURNS: u32 = 5;

/// How many changes the smaller directory holds; the larger has ten times as many.
fn changes() -> u64 {
    let wished = std::env::var("LAKESYNC_OPENING_CHANGES").ok();
    wished.map_or(10_000, |text| text.parse().expect("LAKESYNC_OPENING_CHANGES is a number"))
}

fn open(dir: &Path, overlay_bytes: usize) -> (Arc<EmbeddedStore>, Gateways) {
    let options = Options { overlay_bytes, disk_reserve_bytes: 0, ..Options::default() };
    let store = Arc::new(EmbeddedStore::open(dir, options).expect("a directory that opens"));
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let gateways = Gateways::new(Arc::clone(&store) as _, clock, Settings::default());
    (store, gateways)
}

fn main_gateway() -> Name {
    MAIN.parse().expect("a legal name")
}

/// A directory after `count` small changes, each of a row of its own.
async fn fill(dir: &Path, overlay_bytes: usize, count: u64) {
    let (store, gateways) = open(dir, overlay_bytes);
    gateways.create(&main_gateway()).await.expect("created");
    let gateway = gateways.get(&main_gateway()).await.expect("open");
    let proposal = Proposal {
        table: "todos".parse().expect("legal"),
        key: "id".parse().expect("legal"),
        columns: vec![("title".parse().expect("legal"), ColumnType::String)],
        primary_key: Vec::new(),
    };
    gateway.put_schema(vec![proposal], false).await.expect("installed");
    for first in (0..count).step_by(PUSH as usize) {
        let offer = |nth: u64| Offer {
            table: 0,
            row: 0,
            delta: Ok(upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", "small")])),
        };
        let offers = (first..count.min(first + PUSH)).map(offer).collect();
        let client = "ann".parse().expect("legal");
        gateway.push(&Caller::of("ann"), client, offers, false, 100_000).await.expect("answered");
    }
    drop(gateway);
    gateways.close().await;
    store.close().await.expect("closed");
}

/// How long it takes until the first question is answered.
async fn time(dir: &Path, overlay_bytes: usize, count: u64) -> Duration {
    let began = Instant::now();
    let (store, gateways) = open(dir, overlay_bytes);
    let gateway = gateways.get(&main_gateway()).await.expect("open");
    let rows = gateway.stats().expect("figures").rows;
    let took = began.elapsed();
    assert_eq!(rows, count);
    drop(gateway);
    gateways.close().await;
    store.close().await.expect("closed");
    took
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the figures for whoever asks for more changes")]
async fn opening_ten_times_as_much_takes_less_than_three_times_as_long() {
    let root = tempfile::tempdir().expect("a directory");
    let counts = [changes(), 10 * changes()];
    // Overlays hold a small part of the smaller directory, so that both have most of theirs in
    // tables, as any server has after its first minutes.
    let overlay_bytes = usize::try_from(counts[0]).expect("some thousands") * 8;
    let dirs = counts.map(|count| root.path().join(count.to_string()));
    for (dir, count) in dirs.iter().zip(counts) {
        fill(dir, overlay_bytes, count).await;
    }
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..TURNS {
        for nth in [0, 1] {
            let took = time(&dirs[nth], overlay_bytes, counts[nth]).await;
            fastest[nth] = took.min(fastest[nth]);
        }
    }
    let [few, many] = fastest;
    eprintln!("opening after {} changes: {few:.1?}; after {}: {many:.1?}", counts[0], counts[1]);
    assert!(many < 3 * few, "{many:?} after ten times the changes, and {few:?} before");
}
