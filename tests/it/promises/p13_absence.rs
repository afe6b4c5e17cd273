//! P-13: deletes are kept for as long as a replica may be away; what comes later than that can't
//! bring a row back.

use lakesync::clock::WallClock;
use lakesync::hlc::Hlc;
use lakesync::proto::v1::GetServerInfoRequest;
use lakesync::proto::v1::outcome::Kind;
use lakesync_server::store::Store;
use lakesync_server::store::memory::MemoryStore;
use tonic::Code;

use crate::harness::changes::{at, at_ms, delete, upsert};
use crate::harness::{Client, MAIN, NOW_MS, Replica, Setup, assert_refused, within};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What the store keeps: rows, deleted or not, and the entries of the index of tombstones.
async fn kept(store: &MemoryStore) -> (usize, usize) {
    let name = MAIN.parse().expect("a name");
    let record = store.gateway(&name).await.expect("open").expect("there");
    let rows = store.scan(record.id, b"", None, usize::MAX).await.expect("rows");
    let tombstones = store.meta_scan(record.id, b"tombstone/", usize::MAX).await.expect("meta");
    (rows.len(), tombstones.len())
}

/// Any push gives the gateway the occasion to forget what is due.
async fn some_push(setup: &Setup, client: &Client, nth: u64) {
    let now = Hlc(Hlc::from_ms(setup.clock.now_ms()).0 + nth);
    let delta = upsert(&client.id, now, "notes/n", &[("body", &nth.to_string())]);
    assert_eq!(client.push([delta]).await.expect("answered").outcomes, []);
}

#[tokio::test]
async fn p13_a_delete_is_kept_for_ninety_days_and_forgotten_after_that() {
    let store = MemoryStore::new();
    let setup = Setup::new().on(store.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    some_push(&setup, &ann, 0).await;
    ann.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await.expect("answered");
    ann.push([delete("ann", at(2), "todos/a")]).await.expect("answered");
    assert_eq!(kept(&store).await, (2, 1));

    setup.clock.set(NOW_MS + 90 * DAY_MS);
    let ann = server.client("ann").await;
    some_push(&setup, &ann, 1).await;
    some_push(&setup, &ann, 2).await;
    assert_eq!(kept(&store).await, (2, 1), "forgotten too early");
    // The delete still does its work: what was written before it stays hidden.
    let late = server.client("late").await;
    let hidden = late.push([upsert("late", at(1), "todos/a", &[("title", "late")])]).await.unwrap();
    assert_eq!(hidden.outcomes[0].kind(), Kind::Superseded);

    setup.clock.set(NOW_MS + 90 * DAY_MS + 120_000);
    some_push(&setup, &ann, 3).await;
    some_push(&setup, &ann, 4).await;
    assert_eq!(kept(&store).await, (1, 0), "never forgotten");
    let rows = ann.stats().await.expect("figures").rows;
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn p13_what_is_older_than_deletes_are_kept_brings_no_row_back() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([upsert("ann", at(1), "todos/gone", &[("title", "x")])]).await.expect("answered");
    ann.push([upsert("ann", at(1), "todos/kept", &[("title", "x")])]).await.expect("answered");
    ann.push([delete("ann", at(3), "todos/gone")]).await.expect("answered");

    setup.clock.set(NOW_MS + 91 * DAY_MS);
    let (ann, late) = (server.client("ann").await, server.client("late").await);
    some_push(&setup, &ann, 5).await;
    some_push(&setup, &ann, 6).await;
    let old = [
        upsert("late", at(2), "todos/gone", &[("title", "back from the dead")]),
        upsert("late", at(2), "todos/never-there", &[("title", "who knows")]),
        delete("late", at(2), "todos/never-there-either"),
        upsert("late", at(2), "todos/kept", &[("extra", "still good")]),
        upsert("late", at_ms(2 * 24 * 3_600_000), "todos/young", &[("title", "young enough")]),
    ];
    let answer = late.push(old.clone()).await.expect("answered");
    let told: Vec<_> = answer.outcomes.iter().map(|o| (o.row, o.reason.as_str())).collect();
    assert_eq!(told, [(0, "TOO_OLD"), (1, "TOO_OLD"), (2, "TOO_OLD")]);
    assert!(answer.outcomes.iter().all(|outcome| outcome.kind() == Kind::Rejected));
    let atomic = late.push_atomic([old[0].clone()]).await;
    assert_refused(atomic, Code::FailedPrecondition, "TOO_OLD");

    for read in [Replica::by_checkpoint(&ann).await, Replica::by_pull(&ann).await] {
        let read = read.expect("read");
        assert_eq!(read.text("todos/gone", "title"), None, "a deleted row is back");
        assert_eq!(read.text("todos/never-there", "title"), None);
        assert_eq!(read.text("todos/kept", "extra").as_deref(), Some("still good"));
        assert_eq!(read.text("todos/young", "title").as_deref(), Some("young enough"));
    }
}

#[tokio::test]
async fn p13_a_row_that_came_back_keeps_what_its_delete_hides() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await.expect("answered");
    ann.push([delete("ann", at(5), "todos/a")]).await.expect("answered");
    ann.push([upsert("ann", at(6), "todos/a", &[("title", "back")])]).await.expect("answered");
    setup.clock.set(NOW_MS + 91 * DAY_MS);
    let (ann, late) = (server.client("ann").await, server.client("late").await);
    some_push(&setup, &ann, 7).await;
    some_push(&setup, &ann, 8).await;
    let answer = late.push([upsert("late", at(4), "todos/a", &[("extra", "old")])]).await.unwrap();
    assert_eq!(answer.position, 0, "the sweep took the delete of a row that is there: {answer:?}");
    let read = Replica::by_checkpoint(&ann).await.expect("read");
    assert_eq!(read.text("todos/a", "extra"), None);
    assert_eq!(read.text("todos/a", "title").as_deref(), Some("back"));
}

#[tokio::test]
async fn p13_a_row_made_anew_gets_nothing_that_a_forgotten_delete_hid() {
    let setup = Setup::new();
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let first = upsert("ann", at(1), "todos/a", &[("title", "x"), ("extra", "x")]);
    ann.push([first]).await.expect("answered");
    ann.push([delete("ann", at(5), "todos/a")]).await.expect("answered");
    setup.clock.set(NOW_MS + 91 * DAY_MS);
    let (ann, late) = (server.client("ann").await, server.client("late").await);
    some_push(&setup, &ann, 1).await;
    some_push(&setup, &ann, 2).await;
    let now = Hlc::from_ms(setup.clock.now_ms());
    ann.push([upsert("ann", now, "todos/a", &[("title", "anew")])]).await.expect("answered");

    let answer = late
        .push([
            upsert("late", at(4), "todos/a", &[("extra", "back from the dead")]),
            upsert("late", at(4), "todos/a", &[("title", "too late")]),
        ])
        .await
        .expect("answered");
    let told: Vec<_> = answer.outcomes.iter().map(|o| (o.kind(), o.reason.as_str())).collect();
    assert_eq!(told, [(Kind::Rejected, "TOO_OLD"), (Kind::Superseded, "")]);
    assert_eq!(answer.position, 0);
    let read = Replica::by_checkpoint(&ann).await.expect("read");
    assert_eq!(read.text("todos/a", "extra"), None, "a deleted cell is back");
    assert_eq!(read.text("todos/a", "title").as_deref(), Some("anew"));
}

#[tokio::test]
async fn p13_many_tombstones_are_swept_piece_by_piece() {
    let store = MemoryStore::new();
    let setup = Setup::new().on(store.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let deletes = (0..1_000).map(|nth| delete("ann", at(nth), &format!("todos/{nth}")));
    ann.push(deletes).await.expect("answered");
    assert_eq!(kept(&store).await, (1_000, 1_000));
    setup.clock.set(NOW_MS + 91 * DAY_MS);
    let ann = server.client("ann").await;
    for nth in 0..8 {
        let before = kept(&store).await.1;
        some_push(&setup, &ann, nth).await;
        let (_, after) = kept(&store).await;
        assert!(before - after <= 512, "{} at once", before - after);
    }
    assert_eq!(kept(&store).await, (1, 0));
}

#[tokio::test]
async fn p13_the_horizon_is_the_settings() {
    let setup = Setup::new().set("offline_max", "1h");
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let info = within(ann.sync.clone().get_server_info(GetServerInfoRequest::default())).await;
    let limits = info.expect("answered").into_inner().limits.expect("limits");
    assert_eq!(limits.max_offline.expect("a limit").seconds, 3_600);
    for (age_ms, refused) in [(3_600_000, 0), (3_600_001, 1)] {
        let delta = upsert("ann", at_ms(-age_ms), &format!("todos/{age_ms}"), &[]);
        assert_eq!(ann.push([delta]).await.unwrap().outcomes.len(), refused, "{age_ms}");
    }
}
