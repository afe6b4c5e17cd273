//! P-16: after any fault heals, queues drain and replicas converge without a person.

use lakesync::delta::Delta;
use lakesync::proto::v1::pull_response::Event;
use lakesync::status::from_status;
use lakesync_server::store::StoreError;
use lakesync_server::store::memory::MemoryStore;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::changes::{at, upsert};
use crate::harness::state::State;
use crate::harness::{Replica, Server, Setup, assert_refused, refusal, until, within};

fn delta(nth: u64) -> Delta {
    upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &nth.to_string())])
}

async fn assert_converged(server: &Server, count: u64) {
    let reader = server.client("reader").await;
    let all: Vec<_> = (0..count).map(delta).collect();
    let wanted = Replica::of(&all).live();
    assert_eq!(Replica::by_checkpoint(&reader).await.expect("read").live(), wanted);
    assert_eq!(Replica::by_pull(&reader).await.expect("pulled").live(), wanted);
}

#[tokio::test]
async fn p16_a_disk_that_stood_still_goes_on_and_everything_that_waited_drains() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    let mut followed = ann.follow("").await.expect("followed");
    store.hold();
    let mut pushes = JoinSet::new();
    for nth in 0..80 {
        let client = ann.clone();
        pushes.spawn(async move { client.push([delta(nth)]).await });
    }
    until(|| 0 < store.pending()).await;
    // A slow disk: a group now and then.
    store.release_some(1);
    store.release_some(1);
    store.release();
    for answer in within(pushes.join_all()).await {
        answer.expect("answered");
    }
    let mut reached = 0;
    while reached < 80 {
        let answer = within(followed.message()).await.expect("open").expect("an answer");
        if let Some(Event::Page(page)) = answer.event {
            reached = page.position;
        }
    }
    assert_converged(&server, 80).await;
}

#[tokio::test]
async fn p16_a_full_disk_refuses_what_it_can_not_keep_and_heals_by_itself() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([delta(0)]).await.expect("answered");
    let before = State::of(&ann).await;
    store.set_full(true);
    for _ in 0..3 {
        let answer = ann.push([delta(1), delta(2)]).await;
        let status = assert_refused(answer, Code::ResourceExhausted, "DISK_FULL");
        let details = status.get_error_details();
        assert!(details.retry_info().is_some_and(|info| info.retry_delay.is_some()), "{status:?}");
    }
    // Readers read on.
    assert_eq!(State::of(&ann).await, before);
    store.set_full(false);
    assert_eq!(ann.push([delta(1), delta(2)]).await.expect("answered").position, 2);
    assert_converged(&server, 3).await;
}

#[tokio::test]
async fn p16_after_a_failed_disk_and_a_restart_a_repetition_of_everything_converges() {
    const CHANGES: u64 = 120;
    let mut store = MemoryStore::new();
    let mut setup = Setup::new().on(store.clone());
    drop(setup.start_with_tables().await.stop().await);
    let mut reader = Replica::default();
    // Each life of the server ends in another place: before, in and behind the disk's queue.
    for life in 0..4 {
        store = store.crash();
        setup = setup.on(store.clone());
        let server = setup.start().await;
        let ann = server.client("ann").await;
        let mut pushes = JoinSet::new();
        for nth in 0..CHANGES {
            let client = ann.clone();
            pushes.spawn(async move { client.push([delta(nth)]).await });
        }
        if life < 3 {
            store.hold();
            until(|| 0 < store.pending()).await;
            store.release_some(life);
            store.fail(StoreError::Failed("the disk said no".to_owned()));
        }
        for answer in within(pushes.join_all()).await {
            match answer {
                Ok(_) => {}
                // Unanswered, or not even asked: a client goes on trying.
                Err(status) if life < 3 && from_status(&status).kind.is_retryable() => {}
                Err(status) => panic!("life {life}: {status:?}"),
            }
        }
        if life < 3 {
            server.stopped().await.expect_err("it can't go on");
            continue;
        }
        reader.pull(&server.client("reader").await).await.expect("pulled");
        let all: Vec<_> = (0..CHANGES).map(delta).collect();
        assert_eq!(reader.live(), Replica::of(&all).live());
        assert_converged(&server, CHANGES).await;
    }
}

#[tokio::test]
async fn p16_a_follower_goes_on_after_a_restart() {
    let setup = Setup::new();
    let (mut replica, mut last) = (Replica::default(), String::new());
    drop(setup.start_with_tables().await.stop().await);
    for life in 0..3_u64 {
        let server = setup.start().await;
        let (ann, reader) = (server.client("ann").await, server.client("reader").await);
        let mut stream = reader.follow(&last).await.expect("the cursor is still good");
        for nth in life * 5..(life + 1) * 5 {
            ann.push([delta(nth)]).await.expect("answered");
        }
        while replica.live().len() as u64 != (life + 1) * 5 {
            let answer = within(stream.message()).await.expect("open").expect("an answer");
            if let Some(Event::Page(page)) = answer.event {
                replica.apply(page.tables);
                last = page.cursor;
            }
        }
        let stopping = tokio::spawn(server.stop());
        let status = loop {
            match within(stream.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a followed stream ended without a word"),
                Err(status) => break status,
            }
        };
        assert_eq!(refusal(&status), (Code::Unavailable, "SHUTTING_DOWN".to_owned()));
        drop((ann, reader, stream));
        within(stopping).await.expect("no panic").expect("drained");
    }
}

#[tokio::test]
async fn p16_a_server_whose_disk_hangs_stops_all_the_same() {
    let store = MemoryStore::new();
    let server = Setup::new().on(store.clone()).set("drain_max", "100ms").start_with_tables().await;
    let ann = server.client("ann").await;
    store.hold();
    let push = tokio::spawn(async move { ann.push([delta(0)]).await });
    until(|| 0 < store.pending()).await;
    let hung = server.stop().await.expect_err("not all of it is durable").to_string();
    assert!(hung.contains("not closed within 5 s"), "{hung}");
    // Her connection is gone; nothing was answered.
    let answer = within(push).await.expect("no panic");
    answer.expect_err("answered before it was durable");
}
