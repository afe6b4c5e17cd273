//! P-14: the log waits for its backends, within its limit, and for readers a little.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lakesync::adapter::{Adapter, Batch};
use lakesync::clock::WallClock;
use lakesync::hlc::Hlc;
use lakesync::name::Position;
use tonic::Code;
use tonic_types::StatusExt;

use super::p14_flush::{assert_equal, assert_in_order, push};
use crate::harness::backend::{Backend, Fares, Joins};
use crate::harness::changes::{at, delete, tables, upsert};
use crate::harness::client::Checkpointed;
use crate::harness::{NOW_MS, Replica, Setup, assert_refused, within};

#[tokio::test]
async fn p14_a_full_log_refuses_pushes_until_its_backends_have_caught_up() {
    let backend = Backend::default();
    backend.fare(Fares::Away);
    let setup = Setup::new().flush_to("dead", backend.clone()).set("log_size_max", "1MiB");
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(100 << 10);
    let mut nth = 0;
    let refused = loop {
        nth += 1;
        let delta = upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)]);
        match ann.push([delta]).await {
            Ok(_) => assert!(nth < 20, "the log has a limit"),
            refused => break refused,
        }
    };
    assert!(10 <= nth, "no push is refused below the limit: {nth}");
    let status = assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    assert!(status.message().contains("backends"), "{status:?}");
    // What was taken is there, and readers go on.
    let rows = ann.stats().await.expect("figures").rows;
    assert_eq!(Replica::by_pull(&ann).await.expect("pulled").live().len(), rows as usize);

    backend.fare(Fares::Well);
    ann.flush().await.expect("flushed");
    for more in 1..=30 {
        let delta =
            upsert("ann", at(nth + more), &format!("todos/{}", nth + more), &[("title", &text)]);
        within(async {
            while ann.push([delta.clone()]).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    ann.flush().await.expect("flushed");
    assert_equal(&backend, &ann).await;
    let stats = ann.stats().await.expect("figures");
    assert!(0 < stats.tail && stats.log_bytes < 2 << 20, "trimmed again: {stats:?}");
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_a_backend_that_comes_late_is_filled_with_rows() {
    let setup = Setup::new().set("log_size_max", "1MiB");
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(200 << 10);
    for nth in 0..12 {
        ann.push([upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)])])
            .await
            .expect("pushed");
    }
    ann.push([delete("ann", at(20), "todos/3")]).await.expect("pushed");
    assert_ne!(ann.stats().await.expect("figures").tail, 0, "the log begins late");
    server.stop().await.expect("stopped");

    let backend = Backend::default();
    backend.fare(Fares::Away);
    let setup = setup.flush_to("late", backend.clone());
    let server = setup.start().await;
    let ann = server.client("ann").await;
    // It will be given rows, so the log need not wait for it.
    for nth in 100..112 {
        ann.push([upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)])])
            .await
            .expect("pushed");
    }
    backend.fare(Fares::Well);
    ann.flush().await.expect("flushed");
    assert_equal(&backend, &ann).await;
    let deleted: Vec<_> =
        backend.all("todos").await.into_iter().filter(|(_, row)| !row.is_live()).collect();
    assert_eq!(deleted.len(), 1, "deletes are told as well");
    push(&ann, 5).await;
    ann.flush().await.expect("flushed");
    assert_equal(&backend, &ann).await;
    server.stop().await.expect("stopped");

    // Put back to an older state, which the log no longer reaches: the same.
    let older = Backend::default();
    let log = backend.memory.logs().await.expect("logs")[0];
    let early = Batch::new(log, Position(1), Position(2), Vec::new()).expect("a batch");
    older.memory.write(&early).await.expect("written");
    let setup = Setup::again(&setup).flush_to("late", older.clone());
    let server = setup.start().await;
    let ann = server.client("ann").await;
    push(&ann, 6).await;
    ann.flush().await.expect("flushed");
    assert_equal(&older, &ann).await;
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_backends_that_come_late_are_filled_a_few_at_a_time() {
    const GATEWAYS: u64 = 7;
    let setup = Setup::new().set("log_size_max", "1MiB");
    let server = setup.start().await;
    let name = |nth: u64| format!("g-{nth}");
    for nth in 0..GATEWAYS {
        let mut ann = server.client("ann").await.at(&name(nth));
        ann.create_gateway(&name(nth)).await.expect("created");
        ann.put_schema(tables()).await.expect("installed");
        let text = "x".repeat(200 << 10);
        for row in 0..9 {
            let row_id = format!("todos/{row}");
            ann.push([upsert("ann", at(row), &row_id, &[("title", &text)])]).await.expect("pushed");
        }
        assert_ne!(ann.stats().await.expect("figures").tail, 0, "the log begins late");
    }
    server.stop().await.expect("stopped");

    let joins = Arc::new(Joins::default());
    joins.takes_ms.store(50, Ordering::SeqCst);
    let opened = Arc::clone(&joins);
    let setup = setup.flush_each_to("late", move |_| Backend::counted(&opened));
    let server = setup.start().await;
    let flushed = (0..GATEWAYS).map(async |nth| {
        let ann = server.client("ann").await.at(&name(nth));
        ann.flush().await.expect("flushed");
        assert_eq!(ann.stats().await.expect("figures").flushed["late"], 9);
    });
    futures_util::future::join_all(flushed).await;
    assert_eq!(joins.rows.load(Ordering::SeqCst), 9 * GATEWAYS as usize);
    let at_once = joins.at_once_max.load(Ordering::SeqCst);
    assert!((2..=4).contains(&at_once), "{at_once} at once");
    server.stop().await.expect("stopped");
}

/// A backend that comes late and breaks off every so often is given each row once, whether it was
/// empty or held some before. If somebody empties it meanwhile it is given all of them again.
#[tokio::test]
async fn p14_filling_goes_on_where_it_broke_off() {
    const ROWS: u64 = 60;
    for (is_emptied, holds_old) in [(false, false), (true, false), (false, true)] {
        let late = Backend::default();
        let setup = Setup::new().set("log_size_max", "1MiB");
        let first = match holds_old {
            false => Setup::again(&setup),
            true => Setup::again(&setup).flush_to("late", late.clone()),
        };
        let server = first.start_with_tables().await;
        let ann = server.client("ann").await;
        ann.push([upsert("ann", at(0), "todos/00", &[("title", "old")])]).await.expect("pushed");
        if holds_old {
            ann.flush().await.expect("flushed");
        }
        drop(ann);
        server.stop().await.expect("stopped");

        let server = setup.start().await;
        let ann = server.client("ann").await;
        let text = "x".repeat(200 << 10);
        for nth in 0..ROWS {
            let row_id = format!("todos/{nth:02}");
            ann.push([upsert("ann", at(nth), &row_id, &[("title", &text)])]).await.expect("pushed");
        }
        assert_ne!(ann.stats().await.expect("figures").tail, 0, "the log begins late");
        drop(ann);
        server.stop().await.expect("stopped");

        late.joins.fails_every.store(3, Ordering::SeqCst);
        late.joins.empties_at.store(if is_emptied { 6 } else { 0 }, Ordering::SeqCst);
        let server = setup.flush_to("late", late.clone()).start().await;
        let ann = server.client("ann").await;
        let mut failed = 0;
        while ann.flush().await.is_err() {
            failed += 1;
            assert!(failed < 20, "no attempt comes further than the one before");
        }
        assert!(2 <= failed, "it failed {failed} times only");
        let rows = late.joins.rows.load(Ordering::SeqCst) as u64;
        assert_eq!(rows == ROWS, !is_emptied, "{rows} rows were given");
        assert_equal(&late, &ann).await;
        server.stop().await.expect("stopped");
    }
}

/// A backend was away while rows were deleted, for so long that the deletes are forgotten and the log
/// is trimmed. It lets go of those rows, and of what a row had before it was deleted and made anew.
#[tokio::test]
async fn p14_a_backend_that_missed_forgotten_deletes_comes_to_hold_the_same_rows() {
    let late = Backend::default();
    let alone = Setup::new().set("log_size_max", "1MiB");
    let with_late = Setup::again(&alone).flush_to("late", late.clone());
    let server = with_late.start_with_tables().await;
    let ann = server.client("ann").await;
    let rows = (0..600).map(|nth| format!("todos/{nth:03}"));
    let whole = [("title", "old"), ("extra", "old")];
    ann.push(rows.map(|row| upsert("ann", at(1), &row, &whole))).await.expect("pushed");
    ann.flush().await.expect("flushed");
    drop(ann);
    server.stop().await.expect("stopped");

    let server = alone.start().await;
    let ann = server.client("ann").await;
    // Deleted are the first and the last ones, and some in between.
    let is_gone = |nth: u64| nth < 300 && nth.is_multiple_of(7) || 550 <= nth;
    let gone = (0..600).filter(|nth| is_gone(*nth)).map(|nth| format!("todos/{nth:03}"));
    ann.push(gone.map(|row| delete("ann", at(2), &row))).await.expect("pushed");
    alone.clock.set(NOW_MS + 91 * 24 * 60 * 60 * 1_000);
    let ann = server.client("ann").await;
    let now = |nth| Hlc(Hlc::from_ms(alone.clock.now_ms()).0 + nth);
    let text = "x".repeat(200 << 10);
    for nth in 0..12 {
        let row = format!("notes/{nth}");
        ann.push([upsert("ann", now(nth), &row, &[("body", &text)])]).await.expect("pushed");
    }
    ann.push([upsert("ann", now(20), "todos/007", &[("title", "anew")])]).await.expect("pushed");
    ann.push([delete("ann", now(21), "todos/001")]).await.expect("pushed");
    assert_ne!(ann.stats().await.expect("figures").tail, 0, "the log begins late");
    drop(ann);
    server.stop().await.expect("stopped");

    let server = with_late.start().await;
    let ann = server.client("ann").await;
    ann.flush().await.expect("flushed");
    assert_equal(&late, &ann).await;
    let held = late.all("todos").await;
    let ids: Vec<_> = held.iter().map(|(row_id, _)| row_id.as_str()).collect();
    assert!(!ids.contains(&"000") && !ids.contains(&"599"), "the deleted rows are gone");
    assert_eq!(late.memory.logs().await.expect("logs").len(), 1);
    // And it goes on as ever.
    ann.push([upsert("ann", now(30), "todos/000", &[("title", "back")])]).await.expect("pushed");
    ann.flush().await.expect("flushed");
    assert_equal(&late, &ann).await;
    server.stop().await.expect("stopped");
}

/// A backend holds what the gateway never had, as after the gateway was restored from an older copy.
#[tokio::test]
async fn p14_a_fill_keeps_what_only_the_backend_has() {
    let late = Backend::default();
    let alone = Setup::new().set("log_size_max", "1MiB");
    let with_late = Setup::again(&alone).flush_to("late", late.clone());
    let server = with_late.start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([upsert("ann", at(1), "todos/a", &[("title", "x")])]).await.expect("pushed");
    ann.flush().await.expect("flushed");
    drop(ann);
    server.stop().await.expect("stopped");
    let (_, row) = late.all("todos").await.remove(0);
    let only = [("only-there".parse().expect("legal"), row)];
    late.memory.join(&"todos".parse().expect("legal"), &only).await.expect("joined");

    let server = alone.start().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(200 << 10);
    for nth in 0..12 {
        let row = format!("notes/{nth}");
        ann.push([upsert("ann", at(nth), &row, &[("body", &text)])]).await.expect("pushed");
    }
    drop(ann);
    server.stop().await.expect("stopped");
    let server = with_late.start().await;
    let ann = server.client("ann").await;
    ann.flush().await.expect("flushed");
    assert_eq!(late.all("notes").await.len(), 12, "it was filled");
    assert_eq!(late.all("todos").await.len(), 2, "nobody deleted the other row");
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_a_reader_that_stalls_makes_no_log_full() {
    let backend = Backend::default();
    let setup = Setup::new().set("log_size_max", "1MiB").flush_to("well", backend.clone());
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(50 << 10);
    for nth in 0..100 {
        ann.push([upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)])])
            .await
            .expect("pushed");
    }
    let _slow = ann.open_checkpoint("").await.expect("begun");
    for nth in 100..140 {
        let delta = upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)]);
        let pushed = ann.push([delta]).await;
        pushed.unwrap_or_else(|status| panic!("{nth}: {status:?}"));
        ann.flush().await.expect("flushed");
    }
    assert_in_order(&backend);
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn p14_trimming_leaves_readers_under_way_what_they_are_coming_to() {
    let setup = Setup::new().set("log_size_max", "1MiB");
    let server = setup.start_with_tables().await;
    let ann = server.client("ann").await;
    let text = "x".repeat(50 << 10);
    let push = async |nth: u64| {
        let delta = upsert("ann", at(nth), &format!("todos/{nth}"), &[("title", &text)]);
        ann.push([delta]).await.expect("pushed");
    };
    for nth in 0..200 {
        push(nth).await;
    }
    // A checkpoint that is not read yet, and more commits after it than the log may hold.
    let mut slow = ann.open_checkpoint("").await.expect("begun");
    for nth in 200..222 {
        push(nth).await;
    }
    let mut checkpointed = Checkpointed::default();
    while let Some(answer) = within(slow.message()).await.expect("goes on") {
        checkpointed.take(answer);
    }
    let cursor = checkpointed.end.expect("an end").cursor;
    assert_eq!(ann.pull(&cursor).await.expect("still there").tables().len(), 22);
    // Nobody holds it any more.
    drop(slow);
    for nth in 222..225 {
        push(nth).await;
    }
    assert_refused(ann.pull(&cursor).await.map(drop), Code::OutOfRange, "CURSOR_EXPIRED");
    server.stop().await.expect("stopped");
}
