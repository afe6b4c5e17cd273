//! The real server is killed at random moments under load, again and again. Nothing acknowledged is
//! ever lost, no position ever holds something else than was shown of it, and cursors go on.

mod ledger;
mod pusher;

use std::path::Path;
use std::time::Duration;

use lakesync::clock::{SystemClock, WallClock};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::set_up;
use crate::harness::process::{Served, lakesync};
use crate::harness::{is_required, within};
use ledger::Ledger;
use pusher::{Acknowledged, Pusher};

const PUSHERS: usize = 4;
/// Acknowledgements that may wait to be written down.
const WAITING_MAX: usize = 1_024;
/// After how many acknowledgements a server is killed at the latest.
const ACKNOWLEDGED_MAX: u64 = 90;
/// What a heavy push writes, and how much the server keeps before it writes tables.
const HEAVY_BYTES: usize = 1_800_000;
const OVERLAY_BYTES: u64 = 64 << 20;
/// How long a server that is killed before it is ready may take to get there.
const START_MAX: Duration = Duration::from_millis(60);

/// How many servers are killed.
fn kills() -> u64 {
    let default = if is_required() { 50 } else { 5 };
    let wished = std::env::var("LAKESYNC_KILLS").ok();
    wished.map_or(default, |text| text.parse().expect("LAKESYNC_KILLS is a number"))
}

/// Numbers that look random, from a seed that is printed.
struct Chance(u64);

impl Chance {
    #[expect(clippy::print_stderr, reason = "a run that failed can be had again")]
    fn new() -> Self {
        let given = std::env::var("LAKESYNC_TEST_SEED").ok();
        let seed = given.map_or_else(|| SystemClock.now_ms(), |text| text.parse().expect("a seed"));
        eprintln!("LAKESYNC_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `end` (splitmix64).
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_it_acknowledged_and_reuses_no_position() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let mut chance = Chance::new();
    let mut ledger = Ledger::default();
    let mut pushers: Vec<_> = (0..PUSHERS).map(Pusher::new).collect();
    for life in 0..kills() {
        if life % 5 == 4 {
            kill_while_it_starts(&data, &mut chance).await;
        }
        let served = Served::start(&data, &[]).await;
        let reader = served.client("reader").await;
        set_up(&reader).await;
        ledger.check(&reader).await;
        let acknowledged = chance.below(ACKNOWLEDGED_MAX);
        pushers = kill_under_load(served, pushers, &mut ledger, acknowledged).await;
    }
    check_all(&data, pushers, ledger).await;
}

/// Overlays are complete, journals end and begin, and tables are written while the server is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_between_journals_loses_nothing_either() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("data");
    let mut chance = Chance::new();
    let mut ledger = Ledger::default();
    let mut pushers: Vec<_> = (0..PUSHERS).map(|nth| Pusher::heavy(nth, HEAVY_BYTES)).collect();
    for _ in 0..2 + kills() / 10 {
        let served = Served::start(&data, &[]).await;
        let reader = served.client("reader").await;
        set_up(&reader).await;
        ledger.check(&reader).await;
        // From just before an overlay is complete until it is in the tables, or nearly.
        let acknowledged = (OVERLAY_BYTES / HEAVY_BYTES as u64) - 3 + chance.below(30);
        pushers = kill_under_load(served, pushers, &mut ledger, acknowledged).await;
    }
    let newest = newest_journal(&data);
    assert!(2 <= newest, "no overlay was complete: journal {newest}");
    check_all(&data, pushers, ledger).await;
}

/// The number of the newest journal file.
fn newest_journal(data: &Path) -> u64 {
    let files = std::fs::read_dir(data.join("store/journal")).expect("a directory");
    let number = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.expect("an entry").path();
        path.file_stem()?.to_str()?.parse().ok()
    };
    files.filter_map(number).max().expect("a journal")
}

/// Nobody pushes any more: what was not answered is pushed again, and then all of it is there.
async fn check_all(data: &Path, mut pushers: Vec<Pusher>, mut ledger: Ledger) {
    let served = Served::start(data, &[]).await;
    let reader = served.client("reader").await;
    ledger.check(&reader).await;
    for pusher in &mut pushers {
        let client = served.client(&pusher.id).await;
        ledger.acknowledge(pusher.push_pending(&client).await.expect("answered"));
    }
    ledger.check(&reader).await;
    ledger.check_rows(&reader, &pushers).await;
}

/// Lets everybody push and follow until this many pushes are acknowledged, then kills.
async fn kill_under_load(
    served: Served,
    pushers: Vec<Pusher>,
    ledger: &mut Ledger,
    acknowledgements: u64,
) -> Vec<Pusher> {
    let (said, mut saying) = mpsc::channel::<Acknowledged>(WAITING_MAX);
    let mut pushing = JoinSet::new();
    for pusher in pushers {
        let client = served.client(&pusher.id).await;
        pushing.spawn(pusher.push_until_it_fails(client, said.clone()));
    }
    drop(said);
    let follower = served.client("follower").await;
    let following = tokio::spawn(ledger::follow(follower, ledger.cursor.clone()));
    for _ in 0..acknowledgements {
        let acknowledged = within(saying.recv()).await.expect("the server ended by itself");
        ledger.acknowledge(acknowledged);
    }
    served.kill().await;
    // What was answered before the kill counts, also if we hear of it only now.
    while let Some(acknowledged) = within(saying.recv()).await {
        ledger.acknowledge(acknowledged);
    }
    ledger.show(within(following).await.expect("no panic"));
    within(pushing.join_all()).await
}

/// A server that is killed while it opens its directory must not harm what is in it.
async fn kill_while_it_starts(data: &Path, chance: &mut Chance) {
    let data = data.to_str().expect("text");
    let mut command = lakesync(["serve", "--data", data, "--listen", "127.0.0.1:0"]);
    let mut child = command.spawn().expect("a program that starts");
    let moment = START_MAX * u32::try_from(chance.below(100)).expect("small") / 100;
    // It does not end by itself: this is only to let it come a random part of its way.
    let _ = timeout(moment, child.wait()).await;
    within(child.kill()).await.expect("killed");
}
