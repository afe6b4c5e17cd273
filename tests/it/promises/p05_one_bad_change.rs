//! P-5: one bad change never blocks the rest; each is refused for itself, with its reason.

use bytes::Bytes;
use lakesync::delta::Delta;
use lakesync::proto::v1::outcome::Kind;
use lakesync::proto::v1::{RowChange, TableChanges};
use lakesync::value::Value;
use lakesync::wire;
use tonic::Code;

use crate::harness::changes::{at, at_ms, upsert, write};
use crate::harness::state::State;
use crate::harness::{Replica, Setup, assert_refused};

/// A change as it travels.
fn travelling(delta: Delta) -> TableChanges {
    wire::encode_push([delta]).pop().expect("one table")
}

/// A change of `todos/bad` that something was done to on its way.
fn mangled(with: impl FnOnce(&mut TableChanges)) -> TableChanges {
    let mut changes = travelling(upsert("ann", at(1), "todos/bad", &[("title", "x")]));
    with(&mut changes);
    changes
}

fn mangled_row(with: impl FnOnce(&mut RowChange)) -> TableChanges {
    mangled(|changes| with(&mut changes.rows[0]))
}

/// Bad changes, the reason each is refused with, and the column concerned.
fn bad_changes() -> Vec<(&'static str, TableChanges, &'static str, &'static str)> {
    let of = |delta| travelling(delta);
    let bad = |hlc, cell| of(write("ann", hlc, "todos/bad", [cell]));
    let text = |text: &str| Value::String(text.to_owned());
    vec![
        ("unknown table", of(upsert("ann", at(1), "nope/bad", &[])), "SCHEMA_MISMATCH", ""),
        ("unknown column", bad(at(1), ("nope", Value::Null)), "SCHEMA_MISMATCH", "nope"),
        ("wrong type", bad(at(1), ("rank", text("1"))), "SCHEMA_MISMATCH", "rank"),
        ("wrong type", bad(at(1), ("done", Value::Int64(1))), "SCHEMA_MISMATCH", "done"),
        ("ahead of time", bad(at_ms(5_001), ("title", text("x"))), "CLOCK_DRIFT", ""),
        ("too large", bad(at(1), ("title", text(&"x".repeat(2 << 20)))), "TOO_LARGE", ""),
        ("NUL in text", bad(at(1), ("title", text("a\0b"))), "INVALID_REQUEST", "title"),
        ("no row id", mangled_row(|row| row.row_id.clear()), "INVALID_REQUEST", ""),
        ("long row id", mangled_row(|row| row.row_id = "é".repeat(129)), "INVALID_REQUEST", ""),
        ("NUL in row id", mangled_row(|row| row.row_id = "a\0".into()), "INVALID_REQUEST", ""),
        ("no stamp", mangled_row(|row| row.stamp = None), "INVALID_REQUEST", ""),
        (
            "another's stamp",
            mangled_row(|row| row.stamp.as_mut().expect("a stamp").client = 1),
            "INVALID_REQUEST",
            "",
        ),
        ("no kind", mangled_row(|row| row.kind = 0), "INVALID_REQUEST", ""),
        ("unknown kind", mangled_row(|row| row.kind = 99), "INVALID_REQUEST", ""),
        ("an exit", mangled_row(|row| row.kind = 3), "INVALID_REQUEST", ""),
        ("a delete with cells", mangled_row(|row| row.kind = 2), "INVALID_REQUEST", ""),
        ("no value", mangled_row(|row| row.cells[0].value = None), "INVALID_REQUEST", "title"),
        (
            "no kind of value",
            mangled_row(|row| row.cells[0].value.as_mut().expect("a value").kind = None),
            "INVALID_REQUEST",
            "title",
        ),
        (
            "a cell's own stamp",
            mangled_row(|row| row.cells[0].stamp = row.stamp),
            "INVALID_REQUEST",
            "title",
        ),
        ("column index", mangled_row(|row| row.cells[0].column = u32::MAX), "INVALID_REQUEST", ""),
        (
            "a column twice",
            mangled_row(|row| row.cells.push(row.cells[0].clone())),
            "INVALID_REQUEST",
            "title",
        ),
        (
            "another's delta id",
            mangled_row(|row| row.delta_id = Bytes::from_static(&[7; 32])),
            "CORRUPTION",
            "",
        ),
        ("a reserved table", mangled(|c| c.table = "_lakesync_x".into()), "INVALID_REQUEST", ""),
        ("a path as table", mangled(|c| c.table = "../../etc".into()), "INVALID_REQUEST", ""),
        (
            "SQL as column",
            mangled(|c| c.columns[0] = "a\"; DROP TABLE t; --".into()),
            "INVALID_REQUEST",
            "a\"; DROP TABLE t; --",
        ),
    ]
}

fn good(nth: u64) -> Delta {
    upsert("ann", at(nth), &format!("todos/good-{nth}"), &[("title", "x")])
}

#[tokio::test]
async fn p05_each_bad_change_is_refused_for_itself_and_the_others_commit() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    let bad = bad_changes();
    let mut tables = Vec::new();
    for (nth, (_, changes, ..)) in (0..).zip(&bad) {
        tables.extend([changes.clone(), travelling(good(nth))]);
    }
    let answer = ann.send(ann.request(tables)).await.expect("answered");
    assert_eq!(answer.position, 1);
    assert_eq!(answer.outcomes.len(), bad.len(), "{:?}", answer.outcomes);
    for (nth, (what, _, reason, column)) in (0..).zip(&bad) {
        let outcome = &answer.outcomes[nth];
        let place = (outcome.table as usize, outcome.row, outcome.kind());
        assert_eq!(place, (2 * nth, 0, Kind::Rejected), "{what}");
        assert_eq!(outcome.reason, *reason, "{what}: {outcome:?}");
        assert_eq!(outcome.columns.concat(), *column, "{what}: {outcome:?}");
        assert!(!outcome.message.is_empty(), "{what}");
    }
    let all_good: Vec<_> = (0..bad.len() as u64).map(good).collect();
    let read = Replica::by_checkpoint(&ann).await.expect("read");
    assert_eq!(read.live(), Replica::of(&all_good).live());
}

#[tokio::test]
async fn p05_a_push_of_bad_changes_only_leaves_no_trace() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([good(0)]).await.expect("answered");
    let before = State::of(&ann).await;
    for (what, changes, reason, _) in bad_changes() {
        let answer = ann.send(ann.request(vec![changes])).await.expect(what);
        assert_eq!(answer.position, 0, "{what}");
        assert_eq!(answer.outcomes[0].reason, reason, "{what}");
    }
    assert_eq!(State::of(&ann).await, before);
}

#[tokio::test]
async fn p05_atomic_is_all_or_nothing() {
    let server = Setup::new().start_with_tables().await;
    let ann = server.client("ann").await;
    ann.push([good(0)]).await.expect("answered");
    let before = State::of(&ann).await;
    for (what, changes, reason, _) in bad_changes() {
        let code = match reason {
            "CLOCK_DRIFT" => Code::FailedPrecondition,
            "TOO_LARGE" => Code::ResourceExhausted,
            "CORRUPTION" => Code::DataLoss,
            _ => Code::InvalidArgument,
        };
        // Last, so that all before it would have been applied by then.
        let mut request = ann.push_request([good(0), good(1), good(2)]);
        request.tables.push(changes);
        request.atomic = true;
        let status = assert_refused(ann.send(request).await, code, reason);
        assert!(status.message().contains("tables[1].rows[0]"), "{what}: {status:?}");
    }
    assert_eq!(State::of(&ann).await, before);
    let answer = ann.push_atomic([good(1), good(2)]).await.expect("nothing is wrong with these");
    assert_eq!((answer.position, answer.outcomes.len()), (2, 0));
}

#[tokio::test]
async fn p05_what_an_atomic_push_undid_does_not_count_for_others() {
    let server = Setup::new().start_with_tables().await;
    let (ann, bob) = (server.client("ann").await, server.client("bob").await);
    let refused = ann
        .push_atomic([
            upsert("ann", at(9), "todos/a", &[("title", "never")]),
            upsert("ann", at(9), "todos/a", &[("nope", "bad")]),
        ])
        .await;
    assert_refused(refused, Code::InvalidArgument, "SCHEMA_MISMATCH");
    // An older stamp than the one that was undone: nothing is there that it could lose to.
    let answer = bob.push([upsert("bob", at(1), "todos/a", &[("title", "bob's")])]).await.unwrap();
    assert_eq!((answer.position, answer.outcomes), (1, vec![]));
    let read = Replica::by_pull(&bob).await.expect("pulled");
    assert_eq!(read.text("todos/a", "title").as_deref(), Some("bob's"));
}

#[tokio::test]
async fn p05_superseded_cells_are_named_and_the_others_take_effect() {
    let server = Setup::new().start_with_tables().await;
    let (ann, bob) = (server.client("ann").await, server.client("bob").await);
    ann.push([upsert("ann", at(5), "todos/a", &[("title", "ann's")])]).await.expect("answered");
    let older = upsert("bob", at(3), "todos/a", &[("title", "bob's"), ("extra", "bob's")]);
    let answer = bob.push([older]).await.expect("answered");
    assert_eq!(answer.position, 2);
    assert_eq!(answer.outcomes.len(), 1);
    assert_eq!(answer.outcomes[0].kind(), Kind::PartlySuperseded);
    assert_eq!(answer.outcomes[0].columns, ["title"]);
    let lost = bob.push([upsert("bob", at(4), "todos/a", &[("title", "again")])]).await.unwrap();
    assert_eq!(lost.outcomes[0].kind(), Kind::Superseded);
    assert_eq!((lost.position, lost.outcomes[0].reason.as_str()), (0, ""));
}
