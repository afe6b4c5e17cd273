//! P-15: everything has a limit. Over it callers get RESOURCE_EXHAUSTED, and lose nothing.

use std::time::Duration;

use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::{ColumnType, PullRequest};
use lakesync_server::store::memory::MemoryStore;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::backend::{Backend, Fares};
use crate::harness::changes::{at, table, upsert};
use crate::harness::counting::Counting;
use crate::harness::state::State;
use crate::harness::{Client, Replica, Setup, assert_refused, refusal, within};

fn retry_after(status: &Status) -> Option<Duration> {
    status.get_error_details().retry_info().and_then(|info| info.retry_delay)
}

#[tokio::test]
async fn p15_a_push_has_ten_thousand_changes_at_most() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let before = State::of(&ann).await;
    let changes =
        |count: u64| (0..count).map(|nth| upsert("ann", at(nth), &format!("todos/{nth}"), &[]));
    let status =
        assert_refused(ann.push(changes(10_001)).await, Code::ResourceExhausted, "TOO_LARGE");
    assert!(status.message().contains("10001") && status.message().contains("10000"), "{status:?}");
    assert_eq!(retry_after(&status), None, "waiting would not help");
    assert_eq!(State::of(&ann).await, before);
    assert_eq!(ann.push(changes(10_000)).await.expect("just fits").position, 1);
    assert_eq!(ann.stats().await.expect("figures").rows, 10_000);
}

#[tokio::test]
async fn p15_a_message_has_four_mebibytes_at_most() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let before = State::of(&ann).await;
    let of_bytes = |bytes: usize| {
        let text = "x".repeat(bytes / 4);
        (0..4).map(move |nth| upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)]))
    };
    for bytes in [5 << 20, 4 << 20, (4 << 20) - 600] {
        let answer = ann.push(of_bytes(bytes)).await;
        let status = assert_refused(answer, Code::ResourceExhausted, "TOO_LARGE");
        assert_eq!(retry_after(&status), None, "waiting would not help");
    }
    assert_eq!(State::of(&ann).await, before);
    // What is taken in can be sent out, to readers with gRPC's own limit.
    ann.push(of_bytes((4 << 20) - 2_000)).await.expect("just fits");
    assert_eq!(Replica::by_pull(&ann).await.expect("pulled").live().len(), 4);
}

#[tokio::test]
async fn p15_a_row_has_two_mebibytes_at_most_however_it_grew() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(900 << 10);
    let grow = |nth, column| upsert("ann", at(nth), "todos/a", &[(column, &text)]);
    assert_eq!(ann.push([grow(1, "title")]).await.unwrap().outcomes, []);
    assert_eq!(ann.push([grow(2, "extra")]).await.unwrap().outcomes, []);
    let third = table(
        "todos",
        &[
            ("title", ColumnType::String),
            ("done", ColumnType::Bool),
            ("rank", ColumnType::Int64),
            ("extra", ColumnType::Any),
            ("more", ColumnType::String),
        ],
    );
    ann.clone().put_schema(vec![third]).await.expect("a column more");
    let before = State::of(&ann).await;
    let refused = ann.push([grow(3, "more")]).await.expect("answered");
    assert_eq!((refused.position, refused.outcomes[0].reason.as_str()), (0, "TOO_LARGE"));
    assert_eq!(State::of(&ann).await, before);
    // Replacing what is there is no growth.
    assert_eq!(ann.push([grow(4, "title")]).await.unwrap().outcomes, []);
    assert_eq!(Replica::by_checkpoint(&ann).await.expect("read").live().len(), 1);
}

#[tokio::test]
async fn p15_a_full_queue_refuses_at_once_and_loses_nothing() {
    const PUSHES: u64 = 60;
    let store = MemoryStore::new();
    let setup = Setup::new().on(store.clone()).tune(|config| config.queue_bytes_max = 64 << 10);
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(50 << 10);
    let delta = |nth: u64| upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)]);
    store.hold();
    let mut pushes = JoinSet::new();
    for nth in 0..PUSHES {
        let (client, delta) = (ann.clone(), delta(nth));
        pushes.spawn(async move { (nth, client.push([delta]).await) });
    }
    // Refusals come at once, although the disk stands still.
    let mut refused = Vec::new();
    while refused.len() < 30 {
        let (nth, answer) = within(pushes.join_next()).await.expect("one").expect("no panic");
        let status = answer.expect_err("nothing can be durable");
        assert_eq!(refusal(&status), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
        let wait = retry_after(&status).expect("RetryInfo");
        assert!((Duration::from_millis(1)..Duration::from_secs(60)).contains(&wait), "{wait:?}");
        refused.push(nth);
    }
    assert!(store.pending() <= 10, "{} groups wait for the disk", store.pending());
    store.release();
    while let Some(ended) = within(pushes.join_next()).await {
        let (nth, answer) = ended.expect("no panic");
        match answer {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(refusal(&status).1, "OVERLOADED");
                refused.push(nth);
            }
        }
    }
    let answered: Vec<_> = (0..PUSHES).filter(|nth| !refused.contains(nth)).map(delta).collect();
    let read = Replica::by_pull(&ann).await.expect("pulled");
    assert_eq!(read.live(), Replica::of(&answered).live(), "refused and applied, or the reverse");
    for nth in refused {
        ann.push([delta(nth)]).await.expect("there is room again");
    }
    let all: Vec<_> = (0..PUSHES).map(delta).collect();
    let read = Replica::by_pull(&ann).await.expect("pulled");
    assert_eq!(read.live(), Replica::of(&all).live());
}

#[tokio::test]
async fn p15_a_reader_that_takes_nothing_is_cut_and_can_resume() {
    const COMMITS: u64 = 14;
    let setup = Setup::new().tune(|config| config.stall_max = Duration::from_millis(200));
    let server = setup.start_with_tables().await;
    let (ann, slow) = (server.client("ann").await, server.client("slow").await);
    let text = "x".repeat(1 << 20);
    for nth in 0..COMMITS {
        let row = format!("todos/{nth}");
        ann.push([upsert("ann", at(nth), &row, &[("title", &text)])]).await.expect("answered");
    }
    let mut stream = slow.follow("").await.expect("begun");
    gone(&ann).await;
    let (mut replica, mut cursor) = (Replica::default(), String::new());
    let status = loop {
        match within(stream.message()).await {
            Ok(answer) => {
                let answer = answer.expect("a stream that follows ends with a status");
                let Some(Event::Page(page)) = answer.event else { continue };
                replica.apply(page.tables);
                cursor = page.cursor;
            }
            Err(status) => break status,
        }
    };
    assert_eq!(refusal(&status), (Code::Unavailable, "SLOW_CONSUMER".to_owned()), "{status:?}");
    assert!((replica.live().len() as u64) < COMMITS, "it took everything");
    replica.cursor = cursor;
    replica.pull(&slow).await.expect("resumed");
    assert_eq!(replica.live().len() as u64, COMMITS);
}

/// Waits until nobody follows.
async fn gone(client: &Client) {
    within(async {
        while 0 < client.stats().await.expect("figures").followers {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn p15_a_reader_that_leaves_is_forgotten() {
    let server = Setup::new().start_with_tables().await;
    let (ann, reader) = (server.client("ann").await, server.client("reader").await);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = reader.follow("").await.expect("begun");
        within(stream.message()).await.expect("open").expect("an answer");
        streams.push(stream);
    }
    assert_eq!(ann.stats().await.expect("figures").followers, 20);
    drop(streams);
    gone(&ann).await;
}

#[tokio::test]
async fn p15_what_a_reader_may_ask_for_is_bounded() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let tables = |count: usize| (0..count).map(|nth| format!("t{nth}")).collect();
    let skip = |count: u64| (0..count).collect();
    for (request, good) in [
        (PullRequest { tables: tables(1_000), ..Default::default() }, true),
        (PullRequest { tables: tables(1_001), ..Default::default() }, false),
        (PullRequest { skip_positions: skip(10_000), ..Default::default() }, true),
        (PullRequest { skip_positions: skip(10_001), ..Default::default() }, false),
    ] {
        let answer = ann.pull_with(request).await;
        if good {
            answer.expect("within the limits");
        } else {
            assert_refused(answer, Code::InvalidArgument, "INVALID_REQUEST");
        }
    }
}

#[tokio::test]
async fn p15_a_schema_is_bounded() {
    let server = Setup::new().start_with_tables().await;
    let mut ann = server.client("ann").await;
    let before = State::of(&ann).await;
    let names: Vec<_> = (0..1_001).map(|nth| format!("c{nth}")).collect();
    let columns: Vec<_> = names.iter().map(|name| (name.as_str(), ColumnType::Any)).collect();
    let wide = ann.put_schema(vec![table("wide", &columns)]).await.expect_err("too wide");
    let many = names.iter().map(|name| table(name, &[])).collect();
    let many = ann.put_schema(many).await.expect_err("too many");
    for status in [wide, many] {
        let (code, _) = refusal(&status);
        assert!(matches!(code, Code::InvalidArgument | Code::ResourceExhausted), "{status:?}");
        assert!(status.message().contains("1000"), "the limit is not said: {status:?}");
    }
    assert_eq!(State::of(&ann).await, before);
    ann.put_schema(vec![table("wide", &columns[..1_000])]).await.expect("just fits");
}

#[tokio::test]
async fn p15_a_subject_that_takes_too_much_waits_and_others_do_not() {
    let limits = [("subject_rows_max", "10"), ("subject_streams_max", "1")];
    let setup =
        limits.into_iter().fold(Setup::new(), |setup, (name, value)| setup.set(name, value));
    let server = setup.start_with_tables().await;
    let (ann, bob) = (server.client("ann").await, server.client("bob").await);
    let change = |client: &Client, nth| upsert(&client.id, at(nth), &format!("todos/{nth}"), &[]);
    ann.push((0..10).map(|nth| change(&ann, nth))).await.expect("a second's worth");
    let before = ann.stats().await.expect("figures").head;
    let refused = ann.push([change(&ann, 10)]).await;
    let status = assert_refused(refused, Code::ResourceExhausted, "QUOTA");
    let wait = retry_after(&status).expect("RetryInfo");
    assert_eq!(bob.push([change(&bob, 11)]).await.expect("his own").position, before + 1);
    setup.clock.advance(u64::try_from(wait.as_millis()).expect("short"));
    ann.push([change(&ann, 10)]).await.expect("as it was told");

    let followed = ann.follow("").await.expect("the first stream");
    assert_refused(ann.pull("").await, Code::ResourceExhausted, "QUOTA");
    bob.pull("").await.expect("his own");
    drop(followed);
    // The server notices in its own time that a reader has gone.
    within(async {
        while ann.pull("").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn p15_catching_up_reads_the_log_in_pieces_and_none_in_vain() {
    let (store, backend) = (Counting::default(), Backend::default());
    backend.fare(Fares::Away);
    let setup = Setup::new().on(store.clone()).flush_to("backend", backend.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(100);
    // Two batches and a half, each of them much less than the bytes that would make one.
    for push in 0..100_u64 {
        let row = |nth: u64| format!("todos/{:06}", push * 250 + nth);
        let change = |nth| upsert("ann", at(push * 250 + nth), &row(nth), &[("title", &text)]);
        ann.push((0..250).map(change)).await.expect("answered");
    }
    let log_bytes = ann.stats().await.expect("figures").log_bytes as usize;
    let before = store.seen();
    store.take_largest_bytes();
    backend.fare(Fares::Well);
    assert_eq!(ann.flush().await.expect("flushed").position, 100);
    assert_eq!(backend.all("todos").await.len(), 25_000);
    let read_bytes = (store.seen() - before).read_bytes;
    assert!(read_bytes < log_bytes + log_bytes / 4, "{read_bytes} bytes of {log_bytes} were read");
    let largest = store.take_largest_bytes();
    assert!(largest < 1 << 20, "{largest} bytes at once");
}
