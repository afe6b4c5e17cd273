//! Messages that say little on the wire and would take much in memory: the process stays small.

use bytes::Bytes;
use futures_util::future::join_all;
use lakesync::clock::{SystemClock, WallClock};
use lakesync_server::auth::Secret;
use tonic::Code;

use crate::harness::process::Served;
use crate::harness::{assert_refused, grant, raw};

/// How much more memory than before all of the messages may take: they themselves, twice.
const GROWTH_KIB_MAX: u64 = 8 * 2 * (4 << 10);

/// The most memory that a process ever had, in KiB.
fn peak_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A field of a message: its tag, its length and its content.
fn nested(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![tag << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut field);
    [&field[..], content].concat()
}

/// A push of one group.
fn push(group: &[u8]) -> Bytes {
    [nested(1, b"main"), nested(2, b"ann"), nested(3, group)].concat().into()
}

#[tokio::test]
async fn messages_of_millions_of_things_take_no_more_than_they_are_long() {
    let place = tempfile::tempdir().expect("a directory");
    let served = Served::start(place.path(), &[]).await;
    super::set_up(&served.client("operator").await).await;
    let secret = Secret::load_or_create(place.path()).expect("a secret");
    let token = grant("ann", "sync").sign(&secret, SystemClock.now_ms()).expect("a token");
    let authorization = format!("Bearer {token}");
    // Two million changes, and two million cells of one change.
    let rows = push(&[0x2a, 0x00].repeat(2_000_000));
    let cells = push(&nested(5, &[0x22, 0x00].repeat(2_000_000)));
    let before = peak_kib(served.id());
    let calls = [rows, cells].into_iter().cycle().take(8).map(|message| {
        let (served, authorization) = (&served, &authorization);
        async move {
            let channel = served.client("ann").await.channel;
            let path = "/lakesync.v1.SyncService/Push";
            raw::call(&channel, path, Some(authorization), message).await
        }
    });
    for answer in join_all(calls).await {
        assert_refused(answer, Code::ResourceExhausted, "TOO_LARGE");
    }
    let grown = peak_kib(served.id()) - before;
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more");
}
