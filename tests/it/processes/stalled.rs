//! What a process holds in memory for readers that take nothing. What they took is free again once they
//! have gone; the system's allocator keeps it for whoever comes next.
//!
//! `LAKESYNC_TEST_READERS` says how many there are.

use std::time::Duration;

use lakesync::clock::{SystemClock, WallClock};
use lakesync_server::auth::Secret;

use super::set_up;
use crate::harness::changes::upsert;
use crate::harness::process::Served;
use crate::harness::{Client, grant, within};

const READERS: usize = 200;
/// As many as a connection may have.
const STREAMS: usize = 100;
const READERS_MIB_MAX: u64 = 32;
/// What a stream takes beside its page, and what else grows meanwhile.
const STREAM_KIB: u64 = 64;
const SLACK_MIB: u64 = 64;

/// How much memory a process has, in KiB.
fn resident_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

/// Its size once it neither grows nor shrinks any more.
async fn settled_kib(id: u32) -> u64 {
    let (mut last, mut calm) = (resident_kib(id), 0);
    while calm < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = resident_kib(id);
        calm = if now.abs_diff(last) < 256 { calm + 1 } else { 0 };
        last = now;
    }
    last
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the figures, for whoever measures")]
async fn readers_that_take_nothing_hold_little() {
    let count = std::env::var("LAKESYNC_TEST_READERS");
    let readers = count.map_or(READERS, |text| text.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let file = dir.path().join("lakesync.toml");
    let settings = format!("readers_size_max = '{READERS_MIB_MAX}MiB'\nstall_max = '1d'\n");
    std::fs::write(&file, settings).expect("written");
    let served = Served::start(&data, &["--config", file.to_str().expect("text")]).await;
    let operator = served.client("operator").await;
    set_up(&operator).await;
    let text = "x".repeat(1_000);
    for commit in 0..24_u64 {
        let hlc = super::hlc_now();
        let row = |nth: u64| format!("todos/{commit}-{nth}");
        let all = (0..1_000).map(|nth| upsert("operator", hlc, &row(nth), &[("title", &text)]));
        operator.push(all).await.expect("answered");
    }
    let before = settled_kib(served.id()).await;

    let secret = Secret::load_or_create(&data).expect("a secret");
    let token = grant("slow", "sync").sign(&secret, SystemClock.now_ms()).expect("a token");
    let (mut clients, mut streams) = (Vec::new(), Vec::new());
    while streams.len() < readers {
        let client = Client::connect_narrow(served.address, "slow", &token).await;
        for _ in 0..STREAMS.min(readers - streams.len()) {
            streams.push(client.follow("").await.expect("begun"));
        }
        clients.push(client);
    }
    let stalled = settled_kib(served.id()).await;
    drop((streams, clients));
    within(async {
        while 0 < operator.stats().await.expect("figures").followers {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let after = settled_kib(served.id()).await;
    eprintln!("{readers} readers: {before} KiB before, {stalled} KiB stalled, {after} KiB after");

    let readers = u64::try_from(readers).expect("a number");
    let allowed = (READERS_MIB_MAX + SLACK_MIB) * 1024 + readers * STREAM_KIB;
    assert!(stalled < before + allowed, "{} KiB more", stalled - before);
    assert!(after < before + allowed, "{} KiB more", after - before);
    served.kill().await;
}
