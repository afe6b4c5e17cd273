//! P-11: a checkpoint and the pull from its end's cursor are everything, however many writes went
//! on meanwhile, and however often it was resumed.

use lakesync::delta::Delta;
use lakesync::proto::v1::PullRequest;
use tonic::Status;

use crate::harness::changes::{at, delete, upsert};
use crate::harness::client::Checkpointed;
use crate::harness::{Client, Replica, Setup, within};

const ROWS: u64 = 36;
/// Rows are large, so that a few of them fill a chunk.
const ROW_BYTES: usize = 128 << 10;

fn big(nth: u64) -> Delta {
    let text = format!("{nth}{}", "x".repeat(ROW_BYTES));
    upsert("ann", at(nth), &format!("todos/{nth:03}"), &[("title", &text), ("extra", "old")])
}

/// What goes on during the `round`th piece of a checkpoint: rows before, at and behind the scan are
/// changed, deleted, brought back and made.
fn edits(round: u64) -> Vec<Delta> {
    let row = |nth: u64| format!("todos/{:03}", nth % ROWS);
    let text = round.to_string();
    let clock = |step| at(1_000 + round * 10 + step);
    vec![
        upsert("bob", clock(0), &row(round), &[("extra", &text)]),
        upsert("bob", clock(1), &row(ROWS - 1 - round % ROWS), &[("extra", &text)]),
        delete("bob", clock(2), &row(round * 3 + 1)),
        delete("bob", clock(3), &row(round * 5 + 2)),
        upsert("bob", clock(4), &row(round * 5 + 2), &[("extra", "back")]),
        upsert("bob", clock(5), &format!("todos/!{round}"), &[("extra", "before all")]),
        upsert("bob", clock(6), &format!("todos/~{round}"), &[("extra", "behind all")]),
        upsert("bob", clock(7), &format!("notes/{round}"), &[("body", "in another table")]),
    ]
}

async fn fill(ann: &Client) -> Vec<Delta> {
    let deltas: Vec<_> = (0..ROWS).map(big).collect();
    for some in deltas.chunks(12) {
        ann.push(some.to_vec()).await.expect("answered");
    }
    deltas
}

async fn edit(bob: &Client, round: u64, history: &mut Vec<Delta>) {
    bob.push(edits(round)).await.expect("answered");
    history.extend(edits(round));
}

#[tokio::test]
async fn p11_writes_go_on_at_every_step_of_a_checkpoint() {
    for first in 0..3 {
        let server = Setup::new().start_with_tables().await;
        let (ann, bob) = (server.client("ann").await, server.client("bob").await);
        let mut history = fill(&ann).await;
        let mut stream = ann.open_checkpoint("").await.expect("begun");
        let (mut checkpoint, mut round) = (Checkpointed::default(), first * 20);
        while let Some(answer) = within(stream.message()).await.expect("open") {
            checkpoint.take(answer);
            edit(&bob, round, &mut history).await;
            round += 1;
        }
        assert!(3 < checkpoint.chunks.len(), "{} chunks only", checkpoint.chunks.len());
        let end = checkpoint.end.clone().expect("an end");
        assert!(end.complete);
        let mut replica = Replica::default();
        replica.apply(checkpoint.tables());
        replica.cursor = end.cursor;
        replica.pull(&ann).await.expect("pulled");
        assert_eq!(replica.live(), Replica::of(&history).live(), "edits from {}", first * 20);
    }
}

/// Takes chunks until `count` are there, then lets go of the stream. True if the end was reached.
async fn take(ann: &Client, so_far: &mut Checkpointed, count: usize) -> Result<bool, Status> {
    let resume = so_far.chunks.last().map(|chunk| chunk.resume.clone()).unwrap_or_default();
    let mut stream = ann.open_checkpoint(&resume).await?;
    while so_far.chunks.len() < count {
        match within(stream.message()).await? {
            Some(answer) => so_far.take(answer),
            None => return Ok(true),
        }
    }
    Ok(so_far.end.is_some())
}

#[tokio::test]
async fn p11_a_checkpoint_resumed_after_every_chunk_and_a_restart_is_whole() {
    let setup = Setup::new();
    let mut server = setup.start_with_tables().await;
    let mut history = fill(&server.client("ann").await).await;
    let began = server.client("ann").await.stats().await.expect("figures").head;
    let (mut checkpoint, mut round) = (Checkpointed::default(), 0);
    loop {
        let (ann, bob) = (server.client("ann").await, server.client("bob").await);
        let wanted = checkpoint.chunks.len() + 1;
        if take(&ann, &mut checkpoint, wanted).await.expect("taken") {
            break;
        }
        edit(&bob, round, &mut history).await;
        round += 1;
        server.stop().await.expect("drained");
        server = setup.start().await;
    }
    assert!(4 < round, "it was resumed {round} times only");
    let (ann, end) = (server.client("ann").await, checkpoint.end.clone().expect("an end"));
    let done: Vec<_> = checkpoint.chunks.iter().map(|chunk| chunk.rows_done).collect();
    assert!(done.is_sorted() && done.last() == Some(&end.rows), "{done:?}, then {}", end.rows);
    let mut replica = Replica::default();
    replica.apply(checkpoint.tables());
    replica.cursor.clone_from(&end.cursor);
    replica.pull(&ann).await.expect("pulled");
    let first = PullRequest { cursor: end.cursor, max_rows: 1, ..PullRequest::default() };
    let first = ann.pull_with(first).await.expect("pulled");
    assert_eq!(first.pages[0].position, began + 1, "a resumed checkpoint began anew");
    assert_eq!(replica.live(), Replica::of(&history).live());
}

#[tokio::test]
async fn p11_from_every_position_on_the_rest_is_the_same() {
    let server = Setup::new().start_with_tables().await;
    let (ann, bob) = (server.client("ann").await, server.client("bob").await);
    let (mut history, mut replicas) = (Vec::new(), Vec::new());
    for round in 0..12 {
        replicas.push(Replica::by_checkpoint(&ann).await.expect("read"));
        edit(&bob, round, &mut history).await;
    }
    for (position, mut replica) in replicas.into_iter().enumerate() {
        replica.pull(&ann).await.expect("pulled");
        assert_eq!(replica.live(), Replica::of(&history).live(), "a checkpoint at {position}");
    }
}

#[tokio::test]
async fn p11_deleted_rows_are_left_out_and_rows_that_came_back_carry_their_delete() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let history = [
        upsert("ann", at(1), "todos/gone", &[("title", "x")]),
        delete("ann", at(2), "todos/gone"),
        upsert("ann", at(3), "todos/back", &[("title", "x"), ("extra", "hidden")]),
        delete("ann", at(4), "todos/back"),
        upsert("ann", at(5), "todos/back", &[("title", "y")]),
    ];
    ann.push(history.clone()).await.expect("answered");
    let checkpoint = ann.checkpoint().await.expect("read");
    let sent = checkpoint.tables();
    let ids = sent.iter().flat_map(|table| &table.rows).map(|row| row.row_id.as_str());
    assert!(ids.clone().all(|id| id == "back"), "{:?}", ids.collect::<Vec<_>>());
    let mut replica = Replica::default();
    replica.apply(sent);
    assert_eq!(replica.live(), Replica::of(&history).live());
    // A late write from before the delete stays hidden, also for those who came by checkpoint.
    let late = upsert("late", at(3), "todos/back", &[("extra", "late")]);
    replica.apply(lakesync::wire::encode_commit(&late.stamp.client.clone(), [late.clone()]));
    assert_eq!(replica.live(), Replica::of(history.iter().chain([&late])).live());
}
