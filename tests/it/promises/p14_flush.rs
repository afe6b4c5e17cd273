//! P-14: every commit reaches every backend exactly once and in order, and nothing is drained for it.

use std::collections::BTreeMap;

use lakesync::adapter::{Adapter, Batch};
use lakesync::name::{LogId, Position};
use lakesync::proto::v1::ColumnType;
use lakesync::value::Value;
use tonic::Code;

use crate::harness::backend::{Backend, Fares};
use crate::harness::changes::{at, delete, table, tables, upsert, write};
use crate::harness::{Client, Replica, Setup, assert_refused, open, until, within};

/// A backend's rows are the gateway's: those that exist, cell by cell and stamp by stamp.
pub(super) async fn assert_equal(backend: &Backend, client: &Client) {
    let mut held = Replica::default();
    for table in ["todos", "notes"] {
        held = held.with_rows(table, backend.all(table).await);
    }
    assert_eq!(held.live(), Replica::by_checkpoint(client).await.expect("rows").live());
}

/// Pushes some changes of every sort, `round` after `round`.
pub(super) async fn push(client: &Client, round: u64) {
    let id = client.id.clone();
    let row = |nth: u64| format!("todos/{}", (round * 7 + nth) % 20);
    let hlc = |nth: u64| at(round * 100 + nth);
    let mut deltas: Vec<_> = (0..5)
        .map(|nth| upsert(&id, hlc(nth), &row(nth), &[("title", &format!("{round}"))]))
        .collect();
    deltas.push(delete(&id, hlc(10), &row(2)));
    deltas.push(upsert(&id, hlc(11), &format!("notes/{round}"), &[("body", "x")]));
    client.push(deltas).await.expect("pushed");
}

#[tokio::test]
async fn p14_what_is_pushed_is_in_every_backend() {
    let (one, two) = (Backend::default(), Backend::default());
    let setup = Setup::new().flush_to("one", one.clone()).flush_to("two", two.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    for round in 0..30 {
        push(&ann, round).await;
    }
    let flushed = ann.flush().await.expect("flushed");
    assert_eq!(flushed.position, 30);
    for backend in [&one, &two] {
        assert_equal(backend, &ann).await;
        let history = backend.history().await;
        let places: Vec<_> = history.iter().map(|change| change.place).collect();
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "in order");
        assert!((1..=30).all(|at| places.iter().any(|place| place.position == Position(at))));
        assert_eq!(backend.memory.logs().await.expect("logs").len(), 1);
    }
    let stats = ann.stats().await.expect("figures");
    assert_eq!(stats.flushed, [("one".to_owned(), 30), ("two".to_owned(), 30)].into());
    assert!(stats.last_flush.is_some() && stats.flush_errors.is_empty());
    assert_eq!(stats.backends["one"].lag_commits, 0);
    assert_in_order(&one);
    assert_in_order(&two);
    // Nothing was drained: a reader from the start finds every commit.
    assert_eq!(Replica::by_pull(&ann).await.expect("pulled").live().len(), stats.rows as usize);
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_a_lost_answer_is_settled_by_reading() {
    let backend = Backend::default();
    backend.fare(Fares::Doubtful);
    let setup = Setup::new().flush_to("doubtful", backend.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    for round in 0..20 {
        push(&ann, round).await;
        // One write at a time, so that many answers are lost.
        let _ = ann.flush().await;
    }
    backend.fare(Fares::Well);
    ann.flush().await.expect("flushed");
    assert_equal(&backend, &ann).await;
    let places: Vec<_> = backend.history().await.iter().map(|change| change.place).collect();
    let commits: usize =
        backend.stretches.lock().expect("no panic").iter().map(|(_, _, n)| n).sum();
    assert_eq!(commits, 20, "no commit was written a second time");
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_a_dead_backend_holds_up_neither_pushes_nor_others() {
    for fares in [Fares::Away, Fares::Silent] {
        let (dead, well) = (Backend::default(), Backend::default());
        dead.fare(fares);
        let setup = Setup::new().flush_to("dead", dead.clone()).flush_to("well", well.clone());
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        for round in 0..10 {
            push(&ann, round).await;
        }
        until(|| {
            well.stretches
                .lock()
                .expect("no panic")
                .last()
                .is_some_and(|last| last.1 == Position(10))
        })
        .await;
        assert_equal(&well, &ann).await;
        if fares == Fares::Away {
            let status =
                assert_refused(ann.flush().await, Code::Unavailable, "BACKEND_UNAVAILABLE");
            assert!(status.message().contains("dead: the backend is unavailable"), "{status:?}");
            let stats = ann.stats().await.expect("figures");
            assert!(stats.flush_errors["dead"].contains("it is away"), "{stats:?}");
            assert_eq!(
                (stats.backends["dead"].lag_commits, stats.backends["dead"].lag_rows),
                (10, 70)
            );
        }
        // A server that is told to stop waits for no backend, and nothing is lost.
        server.stop().await.expect("stopped");
        dead.fare(Fares::Well);
        let server = setup.start().await;
        let ann = server.client("ann").await;
        ann.flush().await.expect("flushed");
        assert_equal(&dead, &ann).await;
        server.stop().await.expect("stopped");
    }
}

#[tokio::test]
async fn p14_who_was_behind_is_flushed_without_anybody_coming() {
    let backend = Backend::default();
    backend.fare(Fares::Away);
    let setup = Setup::new().flush_to("late", backend.clone());
    let server = setup.start_with_tables().await;
    push(&server.client("ann").await, 1).await;
    server.stop().await.expect("stopped");
    backend.fare(Fares::Well);
    let server = setup.start().await;
    until(|| !backend.stretches.lock().expect("no panic").is_empty()).await;
    assert_equal(&backend, &server.client("ann").await).await;
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_another_gateways_backend_is_left_alone() {
    let backend = Backend::default();
    let schema = lakesync::schema::Schema::default();
    backend.memory.prepare(&schema).await.expect("prepared");
    let batch = Batch::new(LogId([9; 16]), Position(1), Position(4), Vec::new()).expect("a batch");
    backend.memory.write(&batch).await.expect("written");
    let setup = Setup::new().flush_to("taken", backend.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    push(&ann, 1).await;
    let status = assert_refused(ann.flush().await, Code::Unavailable, "BACKEND_UNAVAILABLE");
    assert!(status.message().contains("another gateway"), "{status:?}");
    assert_eq!(
        backend.memory.schema().await.expect("a schema").tables().len(),
        0,
        "not even prepared"
    );
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_a_gateway_restored_from_a_copy_goes_on_where_it_was() {
    let backend = Backend::default();
    let setup = Setup::new().flush_to("kept", backend.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    for round in 0..5 {
        push(&ann, round).await;
    }
    ann.flush().await.expect("flushed");
    server.stop().await.expect("stopped");
    let copy = Setup::new().flush_to("kept", backend.clone());
    let store = open(&setup.data(), 0).await;
    store.backup(&copy.data()).await.expect("copied");
    store.close().await.expect("closed");
    let server = setup.start().await;
    push(&server.client("ann").await, 5).await;
    server.client("ann").await.flush().await.expect("flushed");
    server.stop().await.expect("stopped");

    let server = copy.start().await;
    let bob = server.client("bob").await;
    push(&bob, 6).await;
    bob.flush().await.expect("flushed");
    let logs: std::collections::BTreeMap<LogId, Vec<u64>> =
        backend.history().await.into_iter().fold(BTreeMap::new(), |mut logs, change| {
            let positions: &mut Vec<u64> = logs.entry(change.place.log).or_default();
            positions.push(change.place.position.0);
            positions.dedup();
            logs
        });
    let mut logs: Vec<_> = logs.into_values().collect();
    logs.sort();
    assert_eq!(logs, [vec![1, 2, 3, 4, 5, 6], vec![6]], "no commit is told twice");
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_what_a_backend_cannot_hold_is_refused_at_push() {
    let backend = Backend::narrow();
    let setup = Setup::new().flush_to("narrow", backend.clone());
    let server = setup.start().await;
    let mut ann = server.client("ann").await;
    ann.create_gateway("main").await.expect("created");
    let columns =
        [("title", ColumnType::String), ("share", ColumnType::Double), ("more", ColumnType::Json)];
    ann.put_schema(vec![table("todos", &columns)]).await.expect("installed");
    let text = |text: &str| Value::String(text.to_owned());
    for (nth, (column, value, says)) in (1..).zip([
        ("title", text("a\0b"), "U+0000"),
        ("share", Value::Double(f64::NAN), "NaN"),
        ("more", Value::Json("[[[[]]]]".to_owned()), "3 levels"),
    ]) {
        let deltas = [
            write("ann", at(nth), "todos/bad", [(column, value)]),
            upsert("ann", at(100 + nth), "todos/good", &[("title", "fine")]),
        ];
        let answer = ann.push(deltas).await.expect("answered");
        let [outcome] = answer.outcomes.as_slice() else { panic!("{answer:?}") };
        assert!(outcome.message.contains(says), "{outcome:?}");
        // No backend could hold the first.
        let reason = if nth == 1 { "INVALID_REQUEST" } else { "SCHEMA_MISMATCH" };
        assert_eq!(outcome.reason, reason);
        assert_eq!(outcome.columns, [column]);
    }
    let many: Vec<String> = (0..6).map(|nth| format!("c{nth}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), ColumnType::Bool)).collect();
    let status = assert_refused(
        ann.put_schema(vec![table("wide", &many)]).await,
        Code::InvalidArgument,
        "INVALID_REQUEST",
    );
    assert!(status.message().contains("more than 5 columns"), "{status:?}");
    ann.flush().await.expect("flushed");
    assert_eq!(backend.all("todos").await.len(), 1);
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_tables_may_grow_while_a_backend_is_away() {
    let backend = Backend::default();
    let setup = Setup::new().flush_to("away", backend.clone());
    let server = setup.start_with_tables().await;
    let mut ann = server.client("ann").await;
    push(&ann, 1).await;
    ann.flush().await.expect("flushed");
    backend.fare(Fares::Away);
    ann.push([write("ann", at(200), "todos/w", [("rank", Value::Int64(7))])])
        .await
        .expect("pushed");
    let mut grown = tables();
    grown[0].columns[2].r#type = ColumnType::Double.into();
    grown[0].columns.push(table("x", &[("more", ColumnType::String)]).columns[0].clone());
    ann.put_schema(grown).await.expect("widened");
    ann.push([upsert("ann", at(201), "todos/w", &[("more", "yes")])]).await.expect("pushed");
    backend.fare(Fares::Well);
    ann.flush().await.expect("flushed");
    assert_equal(&backend, &ann).await;
    server.stop().await.expect("stopped");
}

/// What was written moved the watermark on without a gap, and no commit came twice.
pub(super) fn assert_in_order(backend: &Backend) {
    let stretches = backend.stretches.lock().expect("no panic");
    let follows = |pair: &[(Position, Position, usize)]| pair[0].1.next() == pair[1].0;
    assert!(stretches.windows(2).all(follows), "{stretches:?}");
}

#[tokio::test]
async fn p14_flush_ends_though_tables_are_declared_again_meanwhile() {
    let backend = Backend::default();
    let setup = Setup::new().flush_to("slow", backend.clone());
    let server = setup.start_with_tables().await;
    let mut ann = server.client("ann").await;
    ann.flush().await.expect("flushed");
    backend.fare(Fares::Silent);
    push(&ann, 1).await;
    let flushing = {
        let ann = ann.clone();
        tokio::spawn(async move { ann.flush().await })
    };
    for _ in 0..3 {
        ann.put_schema(tables()).await.expect("installed");
    }
    // The call that never answers is given up with the server; a flush under way does not hold it up.
    server.stop().await.expect("stopped");
    let status = assert_refused(
        within(flushing).await.expect("no panic"),
        Code::Unavailable,
        "SHUTTING_DOWN",
    );
    assert!(status.message().contains("starts again"), "{status:?}");

    backend.fare(Fares::Well);
    let server = setup.start().await;
    let mut ann = server.client("ann").await;
    let flushing = {
        let ann = ann.clone();
        tokio::spawn(async move { ann.flush().await })
    };
    ann.put_schema(tables()).await.expect("installed");
    within(flushing).await.expect("no panic").expect("flushed");
    assert_equal(&backend, &ann).await;
    assert_in_order(&backend);
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_a_backend_that_was_once_ahead_is_never_taken_for_equal() {
    let backend = Backend::default();
    let setup = Setup::new().flush_to("ahead", backend.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    push(&ann, 1).await;
    ann.flush().await.expect("flushed");
    let log = backend.memory.logs().await.expect("logs")[0];
    let other = Batch::new(log, Position(2), Position(4), Vec::new()).expect("a batch");
    backend.memory.write(&other).await.expect("another server's");
    server.stop().await.expect("stopped");
    let server = setup.start().await;
    let ann = server.client("ann").await;
    for round in 2..8 {
        let status = assert_refused(ann.flush().await, Code::Unavailable, "BACKEND_UNAVAILABLE");
        assert!(status.message().contains("another server"), "{status:?}");
        // Past the position where it was: it is another log all the same.
        push(&ann, round).await;
    }
    server.stop().await.expect("stopped");
    let server = setup.start().await;
    let ann = server.client("ann").await;
    assert_refused(ann.flush().await, Code::Unavailable, "BACKEND_UNAVAILABLE");
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_without_a_backend_flush_says_how_to_get_one() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let status = assert_refused(ann.flush().await, Code::FailedPrecondition, "NO_BACKEND");
    assert!(status.message().contains("backend_url"), "{status:?}");
}

#[tokio::test]
async fn p14_many_gateways_are_flushed_side_by_side() {
    // Each gateway has a place of its own in a backend.
    let backends: Vec<Backend> = (0..6).map(|_| Backend::default()).collect();
    let chosen = backends.clone();
    let setup = Setup::new().flush_each_to("own", move |gateway| {
        let nth = gateway.as_str().strip_prefix("g-").and_then(|nth| nth.parse().ok());
        chosen[nth.unwrap_or(0)].clone()
    });
    let server = setup.start().await;
    for (nth, backend) in backends.iter().enumerate() {
        let name = format!("g-{nth}");
        let mut ann = server.client("ann").await.at(&name);
        ann.create_gateway(&name).await.expect("created");
        ann.put_schema(tables()).await.expect("installed");
        for round in 0..=nth as u64 {
            push(&ann, round).await;
        }
        ann.flush().await.expect("flushed");
        assert_equal(backend, &ann).await;
        assert_eq!(ann.stats().await.expect("figures").flushed["own"], nth as u64 + 1);
    }
    let log = backends[0].memory.logs().await.expect("logs");
    assert_ne!(log, backends[1].memory.logs().await.expect("logs"));
    server.stop().await.expect("stopped");
}
