//! Messages that say little on the wire and would take much in memory: the process stays small.

use bytes::Bytes;
use futures_util::future::join_all;
use lakesync::clock::{SystemClock, WallClock};
use lakesync_server::auth::Secret;
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::process::Served;
use crate::harness::{assert_refused, grant, raw, within};

/// How much more memory than before all of the messages may take: they themselves, twice.
const GROWTH_KIB_MAX: u64 = CALLS as u64 * 2 * (4 << 10);
/// How many of them come at once.
const CALLS: usize = 10;

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
    let token = grant("ann", "sync admin").sign(&secret, SystemClock.now_ms()).expect("a token");
    let authorization = format!("Bearer {token}");
    // Two million changes, and two million cells of one change.
    let rows = push(&[0x2a, 0x00].repeat(2_000_000));
    let cells = push(&nested(5, &[0x22, 0x00].repeat(2_000_000)));
    // Two million tables, two million columns of one table, and as many buckets.
    let tables = Bytes::from([0x12, 0x00].repeat(2_000_000));
    let columns = Bytes::from(nested(2, &[0x22, 0x00].repeat(2_000_000)));
    let buckets = Bytes::from(nested(2, &[0x12, 0x00].repeat(2_000_000)));
    let (push, admin) = ("/lakesync.v1.SyncService/Push", "/lakesync.admin.v1.AdminService");
    let schema = format!("{admin}/PutSchema");
    let all = [
        (push.to_owned(), rows),
        (push.to_owned(), cells),
        (schema.clone(), tables),
        (schema, columns),
        (format!("{admin}/PutSyncRules"), buckets),
    ];
    let before = peak_kib(served.id());
    let calls = all.into_iter().cycle().take(CALLS).map(|(path, message)| {
        let (served, authorization) = (&served, &authorization);
        async move {
            let channel = served.client("ann").await.channel;
            raw::call(&channel, &path, Some(authorization), message).await
        }
    });
    for answer in join_all(calls).await {
        assert_refused(answer, Code::ResourceExhausted, "TOO_LARGE");
    }
    let grown = peak_kib(served.id()) - before;
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more");
}

#[tokio::test]
async fn unfinished_calls_that_need_no_token_take_next_to_nothing() {
    const PATH: &str = "/lakesync.v1.SyncService/GetServerInfo";
    let place = tempfile::tempdir().expect("a directory");
    let served = Served::start(place.path(), &[]).await;
    let operator = served.client("operator").await;
    super::set_up(&operator).await;
    let before = peak_kib(served.id());
    let mut calls = JoinSet::new();
    let mut held = Vec::new();
    for _ in 0..4 {
        let channel = served.client("eve").await.channel;
        // As large as any message, and as large as this method takes; neither is ever finished.
        for nth in 0..100 {
            let bytes = if nth % 2 == 0 { 4 << 20 } else { 4 << 10 };
            let start = raw::part_of_a_message(bytes, 1);
            let (channel, call) = (channel.clone(), raw::half_a_call(PATH, "", start));
            let call = async move { raw::http(&channel, call).await.expect("answered") };
            if nth % 2 == 0 {
                calls.spawn(call);
            } else {
                held.push(tokio::spawn(call));
            }
        }
    }
    while let Some(answer) = within(calls.join_next()).await {
        let answer = answer.expect("no panic");
        let status = tonic::Status::from_header_map(answer.headers()).expect("a status");
        assert_refused::<()>(Err(status), Code::ResourceExhausted, "TOO_LARGE");
    }
    // Somebody with a token is served meanwhile, and so is a whole call without one.
    operator.stats().await.expect("figures");
    let channel = served.client("ann").await.channel;
    raw::call(&channel, PATH, None, Bytes::new()).await.expect("answered");
    let grown = peak_kib(served.id()) - before;
    assert!(grown < 64 << 10, "{grown} KiB more");
    held.iter().for_each(tokio::task::JoinHandle::abort);
}
