//! P-4: a reader that pulled to a position has every change up to it, whatever its clock said.

use lakesync::proto::v1::PullRequest;
use lakesync::proto::v1::pull_response::Event;

use crate::harness::changes::{at, at_ms, delete, upsert};
use crate::harness::{Replica, Setup, within};

const MONTH_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

#[tokio::test]
async fn p04_what_a_device_wrote_a_month_ago_reaches_everyone() {
    let server = Setup::new().start_with_tables().await;
    let (ann, late) = (server.client("ann").await, server.client("late").await);
    let recent = [
        upsert("ann", at(1), "todos/shared", &[("title", "new")]),
        upsert("ann", at(2), "todos/own", &[("title", "x")]),
    ];
    ann.push(recent.clone()).await.expect("answered");
    let mut puller = Replica::by_pull(&ann).await.expect("pulled");
    let mut followed = ann.follow(&puller.cursor).await.expect("followed");

    let old = [
        upsert("late", at_ms(-MONTH_MS), "todos/late", &[("title", "from the mountains")]),
        upsert("late", at_ms(-MONTH_MS), "todos/shared", &[("title", "old"), ("extra", "kept")]),
    ];
    late.push(old.clone()).await.expect("answered");

    let mut follower = puller.clone();
    while follower.text("todos/late", "title").is_none() {
        let answer = within(followed.message()).await.expect("open").expect("an answer");
        if let Some(Event::Page(page)) = answer.event {
            follower.apply(page.tables);
        }
    }
    puller.pull(&ann).await.expect("pulled");
    let everything = Replica::of(recent.iter().chain(&old)).live();
    assert_eq!(puller.live(), everything, "by a pull from where the reader stood");
    assert_eq!(follower.live(), everything, "by following");
    let fresh = Replica::by_checkpoint(&ann).await.expect("read");
    assert_eq!(fresh.live(), everything, "by a checkpoint");
    assert_eq!(puller.text("todos/shared", "title").as_deref(), Some("new"));
    assert_eq!(puller.text("todos/shared", "extra").as_deref(), Some("kept"));
}

#[tokio::test]
async fn p04_an_old_delete_and_an_old_write_reach_those_who_hold_the_row() {
    let server = Setup::new().start_with_tables().await;
    let (ann, late) = (server.client("ann").await, server.client("late").await);
    ann.push([upsert("ann", at_ms(-2 * MONTH_MS), "todos/a", &[("title", "x")])]).await.unwrap();
    ann.push([upsert("ann", at_ms(-2 * MONTH_MS), "todos/b", &[("title", "x")])]).await.unwrap();
    let mut reader = Replica::by_pull(&ann).await.expect("pulled");
    late.push([delete("late", at_ms(-MONTH_MS), "todos/a")]).await.expect("answered");
    late.push([upsert("late", at_ms(-MONTH_MS), "todos/b", &[("title", "y")])]).await.unwrap();
    reader.pull(&ann).await.expect("pulled");
    assert_eq!(reader.text("todos/a", "title"), None);
    assert_eq!(reader.text("todos/b", "title").as_deref(), Some("y"));
}

#[tokio::test]
async fn p04_any_walk_through_the_log_brings_all_of_it() {
    let server = Setup::new().start_with_tables().await;
    let mut deltas = Vec::new();
    for nth in 0..40_u64 {
        let id = format!("c{}", nth % 4);
        let client = server.client(&id).await;
        // Clocks that jump back and forth.
        let hlc = at_ms(-(i64::try_from(nth * 7_919 % 1_000).unwrap()));
        let delta = upsert(&id, hlc, &format!("todos/{}", nth % 5), &[("title", &nth.to_string())]);
        client.push([delta.clone()]).await.expect("answered");
        deltas.push(delta);
    }
    let reader = server.client("reader").await;
    for max_rows in [0, 1, 2, 3, 7, 39] {
        let (mut replica, mut cursor) = (Replica::default(), String::new());
        loop {
            let request = PullRequest { cursor: cursor.clone(), max_rows, ..Default::default() };
            let pulled = reader.pull_with(request).await.expect("pulled");
            replica.apply(pulled.tables());
            pulled.cursor(&cursor).to_owned().clone_into(&mut cursor);
            if pulled.caught_up.is_some() {
                break;
            }
        }
        assert_eq!(replica.live(), Replica::of(&deltas).live(), "{max_rows} rows at a time");
    }
}

#[tokio::test]
async fn p04_commits_that_hold_nothing_for_a_reader_cost_it_nothing_later() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    for nth in 0..5 {
        ann.push([upsert("ann", at(nth), "notes/n", &[("body", &nth.to_string())])]).await.unwrap();
    }
    let tables = vec!["todos".to_owned()];
    let request = PullRequest { tables: tables.clone(), ..Default::default() };
    let pulled = ann.pull_with(request).await.expect("pulled");
    assert!(pulled.pages.is_empty());
    let caught_up = pulled.caught_up.expect("the head");
    assert_eq!(caught_up.position, 5, "the cursor moves past what is not for us");
    ann.push([upsert("ann", at(9), "todos/t", &[("title", "x")])]).await.expect("answered");
    let request = PullRequest { tables, cursor: caught_up.cursor, ..Default::default() };
    let pulled = ann.pull_with(request).await.expect("pulled");
    assert_eq!(pulled.pages.len(), 1);
    assert_eq!(pulled.pages[0].position, 6);
}
