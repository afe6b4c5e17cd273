//! P-2: repeating a push changes nothing, for ever and without memory of requests.

use lakesync::delta::Delta;
use lakesync::proto::v1::PushResponse;
use lakesync::proto::v1::outcome::Kind;

use crate::harness::changes::{at, delete, upsert};
use crate::harness::state::State;
use crate::harness::{Client, Setup};

/// Pushes `deltas` again, and everything stays as it is.
async fn repeat(client: &Client, deltas: &[Delta]) -> PushResponse {
    let before = State::of(client).await;
    let answer = client.push(deltas.to_vec()).await.expect("answered");
    assert_eq!(answer.position, 0, "the repetition made a commit: {answer:?}");
    assert_eq!(State::of(client).await, before);
    answer
}

fn changes() -> Vec<Delta> {
    vec![
        upsert("ann", at(1), "todos/a", &[("title", "x"), ("extra", "y")]),
        upsert("ann", at(2), "todos/b", &[("title", "z")]),
        delete("ann", at(3), "todos/b"),
        upsert("ann", at(4), "notes/a", &[]),
        delete("ann", at(5), "notes/never-there"),
    ]
}

#[tokio::test]
async fn p02_a_repeated_push_changes_nothing_and_is_called_replayed() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let first = ann.push(changes()).await.expect("answered");
    assert_eq!((first.position, first.outcomes), (1, vec![]));
    let again = repeat(&ann, &changes()).await;
    let told: Vec<_> =
        again.outcomes.iter().map(|o| (o.row, o.kind(), o.reason.as_str())).collect();
    // The first write of `b` is hidden by the delete that followed it.
    let replayed = |row| (row, Kind::Superseded, "REPLAYED");
    assert_eq!(
        told,
        [replayed(0), (1, Kind::Superseded, ""), replayed(2), replayed(0), replayed(1)]
    );
}

#[tokio::test]
async fn p02_for_ever_over_restarts_and_newer_changes() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push(changes()).await.expect("answered");
    server.stop().await.expect("drained");

    let server = setup.start().await;
    let (ann, bob) = (server.client("ann").await, server.client("bob").await);
    repeat(&ann, &changes()).await;
    bob.push([upsert("bob", at(9), "todos/a", &[("title", "newer")])]).await.expect("answered");
    bob.push([delete("bob", at(9), "notes/a")]).await.expect("answered");
    repeat(&ann, &changes()).await;
    // A month later, when no table of recent requests would still know it.
    setup.clock.advance(30 * 24 * 60 * 60 * 1_000);
    let ann = server.client("ann").await;
    repeat(&ann, &changes()).await;
}

#[tokio::test]
async fn p02_the_parts_of_a_push_may_be_repeated_in_other_pushes() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push(changes()).await.expect("answered");
    for delta in changes() {
        repeat(&ann, &[delta]).await;
    }
    let mut reversed = changes();
    reversed.reverse();
    repeat(&ann, &reversed).await;
    let twice: Vec<_> = changes().into_iter().chain(changes()).collect();
    repeat(&ann, &twice).await;
}

#[tokio::test]
async fn p02_what_is_repeated_beside_something_new_is_not_sent_again() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await.expect("answered");
    let answer = ann
        .push([
            upsert("ann", at(1), "todos/a", &[("title", "x")]),
            upsert("ann", at(2), "todos/b", &[("title", "y")]),
        ])
        .await
        .expect("answered");
    assert_eq!(answer.position, 2);
    let pages = ann.pull("").await.expect("pulled").pages;
    let sent = pages.iter().flat_map(|page| &page.tables).flat_map(|table| &table.rows);
    let sent: Vec<_> = sent.map(|row| row.row_id.as_str()).collect();
    assert_eq!(sent, ["a", "b"]);
}
