//! Rows: what was written is what is read, value for value and stamp for stamp.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::{Backend, LOG, all, batch, opened, shown, stretch, table, upsert, watermark, write};
use crate::delta::{Delta, Op};
use crate::limits::{NAME_BYTES_MAX, PUSH_ROWS_MAX, ROW_ID_BYTES_MAX};
use crate::name::{Position, RowId};
use crate::row::Row;
use crate::schema::{ColumnType, Schema};
use crate::testing::{any_delta, delta, fold};
use crate::value::Value;

/// Any history of a few rows, in batches of any length, with stamps that tie and come late.
pub async fn rows_are_the_merge_of_what_was_written(backend: &dyn Backend) {
    let adapter = backend.open().await;
    let columns = ["a", "b", "Z", "_d"].map(|name| (name, ColumnType::Any));
    let schema = Schema::from_stored([table("todos", 1, &columns)]);
    adapter.prepare(&schema).await.expect("prepare");

    let mut runner = TestRunner::deterministic();
    let change = (any_delta(), 0..5_u8);
    let mut expected = BTreeMap::<RowId, Row>::new();
    let mut next = 1;
    for length in (0..90_u64).map(|at| at % 4) {
        let mut commits = Vec::new();
        for position in next..next + length {
            let count = position % 5;
            let deltas = (0..count).map(|_| {
                let drawn = change.new_tree(&mut runner).expect("a change").current();
                let (mut delta, row) = drawn;
                delta.row_id = format!("r{row}").parse().expect("a legal id");
                expected.entry(delta.row_id.clone()).or_default().merge(&delta);
                delta
            });
            commits.push((position, deltas.collect()));
        }
        if length != 0 {
            write(&*adapter, &stretch(LOG, next, next + length - 1, commits)).await;
        }
        next += length;
        let expected: Vec<_> = expected.clone().into_iter().collect();
        assert_eq!(all(&*adapter, "todos", 2).await, expected);
    }
    assert_eq!(expected.len(), 5, "the history reached every row");
}

/// Whole rows join those there are, deletes and all, and no commit counts as written by that.
pub async fn joined_rows_merge_and_move_no_watermark(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    write(&*adapter, &batch(1, vec![delta("ann@5 title=milk")])).await;
    let parts: [(&str, &[&str]); 3] = [
        ("r", &["ann@4 title=late", "ann@6 done=yes"]),
        ("s", &["ann@1 title=gone", "bob@2 delete"]),
        ("t", &["bob@2 delete", "ann@3 title=back"]),
    ];
    let rows: Vec<(RowId, Row)> = parts
        .map(|(id, texts)| {
            let deltas: Vec<_> = texts.iter().map(|text| delta(text)).collect();
            (id.parse().expect("a legal id"), fold(&deltas))
        })
        .to_vec();
    let todos = "todos".parse().expect("a legal name");
    for _ in 0..2 {
        adapter.join(&todos, &rows).await.expect("join");
        assert_eq!(shown(&*adapter).await, ["done=yes title=milk", "gone", "title=back"]);
    }
    assert_eq!(all(&*adapter, "todos", 9).await[1..], rows[1..], "stamps and deletes included");
    assert_eq!(watermark(&*adapter).await, Position(1));
    assert_eq!(adapter.logs().await, Ok(vec![LOG]));
    write(&*adapter, &batch(2, vec![delta("ann@7 title=oats")])).await;
    assert_eq!(shown(&*adapter).await[0], "done=yes title=oats");
}

/// Rows are found by their ids, those that were deleted too; others are left out.
pub async fn rows_are_found_by_their_ids(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let count = 2_000_u64;
    let row = |at| {
        let title = Value::String(format!("title {at}"));
        upsert("todos", &format!("r{at}"), 1, &[("title", title)])
    };
    let deleted = Delta { op: Op::Delete, ..upsert("todos", "r7", 2, &[]) };
    write(&*adapter, &batch(1, (0..count).map(row).chain([deleted]).collect())).await;
    let written = all(&*adapter, "todos", 999).await;
    let todos = "todos".parse().expect("a legal name");
    for wanted in [&["r7", "none", "r1999", "R1"][..], &[]] {
        let ids: Vec<RowId> = wanted.iter().map(|id| id.parse().expect("a legal id")).collect();
        let mut found = adapter.find(&todos, &ids).await.expect("find");
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let held = written.iter().filter(|(row_id, _)| ids.contains(row_id));
        assert_eq!(found, held.cloned().collect::<Vec<_>>());
    }
    let ids: Vec<RowId> = written.iter().map(|(row_id, _)| row_id.clone()).collect();
    let mut found = adapter.find(&todos, &ids).await.expect("find");
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, written);
}

/// A row that changed since it was read stays; one that did not leaves no trace.
pub async fn rows_that_have_not_changed_are_forgotten(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let title = |id: &str, hlc, text: &str| {
        upsert("todos", id, hlc, &[("title", Value::String(text.to_owned()))])
    };
    let deleted = |id: &str, hlc| Delta { op: Op::Delete, ..upsert("todos", id, hlc, &[]) };
    let first = ["a", "b", "c", "d"].map(|id| title(id, 1, "milk"));
    let first = first.into_iter().chain([deleted("c", 2), deleted("d", 2)]).collect();
    write(&*adapter, &batch(1, first)).await;
    let rows = all(&*adapter, "todos", 9).await;
    write(&*adapter, &batch(2, vec![title("b", 3, "oats"), title("d", 3, "oats")])).await;
    let todos = "todos".parse().expect("a legal name");
    for _ in 0..2 {
        adapter.forget(&todos, &rows).await.expect("forget");
        let left = all(&*adapter, "todos", 9).await;
        let left: Vec<_> = left.iter().map(|(row_id, _)| row_id.as_str()).collect();
        assert_eq!(left, ["b", "d"]);
        assert_eq!(watermark(&*adapter).await, Position(2));
    }
    write(&*adapter, &batch(3, vec![title("a", 1, "milk")])).await;
    assert_eq!(all(&*adapter, "todos", 1).await[0], rows[0], "as if it had never been there");
}

/// A delete hides what was written before it, and only that.
pub async fn a_deleted_row_returns_with_what_was_written_since(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    for (position, (text, expected)) in (1..).zip([
        ("ann@1 title=milk done=no", "done=no title=milk"),
        ("ann@5 delete", "gone"),
        ("bob@4 title=late", "gone"),
        ("bob@6 done=yes", "done=yes"),
        ("ann@6 delete", "done=yes"),
        ("bob@7 title=oats", "done=yes title=oats"),
        ("zoë@7 delete", "gone"),
    ]) {
        write(&*adapter, &batch(position, vec![delta(text)])).await;
        assert_eq!(shown(&*adapter).await, [expected], "after {text}");
    }
}

/// Every type at its ends, alone and in a column of any type.
pub async fn values_come_back_as_they_were(backend: &dyn Backend) {
    let adapter = backend.open().await;
    let kinds = extremes();
    let names: Vec<_> = (0..kinds.len()).map(|at| format!("c{at}")).collect();
    let mut columns: Vec<_> =
        names.iter().map(String::as_str).zip(kinds.iter().map(|(kind, _)| *kind)).collect();
    columns.push(("whatever", ColumnType::Any));
    let schema = Schema::from_stored([table("extremes", 1, &columns)]);
    adapter.prepare(&schema).await.expect("prepare");

    let mut expected = BTreeMap::<RowId, Row>::new();
    let mut position = 0;
    for (name, (_, values)) in names.iter().zip(&kinds) {
        for value in values.iter().chain([&Value::Null]) {
            position += 1;
            let cells = [(name.as_str(), value.clone()), ("whatever", value.clone())];
            let delta = upsert("extremes", &format!("r{position:03}"), position, &cells);
            expected.entry(delta.row_id.clone()).or_default().merge(&delta);
            write(&*adapter, &batch(position, vec![delta])).await;
        }
    }
    let found = all(&*adapter, "extremes", 7).await;
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found.0, &found.1), expected);
    }
    let extremes = "extremes".parse().expect("a legal name");
    assert_eq!(adapter.misshown(&extremes, &found).await, Ok(Vec::new()), "as they are shown");
}

/// A type, and the values at its ends.
fn extremes() -> Vec<(ColumnType, Vec<Value>)> {
    let nines = "9".repeat(38);
    let texts = |texts: &[&str], kind: fn(String) -> Value| -> Vec<Value> {
        texts.iter().map(|text| kind((*text).to_owned())).collect()
    };
    let doubles =
        [0.0, -0.0, 5e-324, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let long = "é".repeat(512 << 10);
    let lines = "a\r\n\tb\\'\"`;--\u{feff}\u{7f}";
    let whole = ColumnType::Decimal { precision: 38, scale: 0 };
    let cents = ColumnType::Decimal { precision: 38, scale: 38 };
    vec![
        (ColumnType::Bool, vec![Value::Bool(true), Value::Bool(false)]),
        (ColumnType::Int64, [0, -1, i64::MIN, i64::MAX].map(Value::Int64).to_vec()),
        (ColumnType::Double, doubles.map(Value::Double).to_vec()),
        (ColumnType::String, texts(&["", " ", "a ", "🦀é日本", lines, &long], Value::String)),
        (
            ColumnType::Bytes,
            [&b""[..], b"\0\xff\0", b"text"].map(|raw| Value::Bytes(Bytes::from(raw))).to_vec(),
        ),
        (ColumnType::Json, texts(&["null", "[]", "{\"é\":[1,2.5,\"x\"]}"], Value::Json)),
        (whole, texts(&["0", &nines, &format!("-{nines}")], Value::Decimal)),
        (cents, texts(&["0", &format!("0.{nines}"), "-0.10"], Value::Decimal)),
        (
            ColumnType::Timestamp,
            [0, -1, 1_700_000_000_123_456, -62_135_596_800_000_000].map(Value::Timestamp).to_vec(),
        ),
        (ColumnType::Date, [0, -1, -719_162, 2_932_896].map(Value::Date).to_vec()),
        (ColumnType::Uuid, [[0; 16], [255; 16]].map(Value::Uuid).to_vec()),
    ]
}

/// What [`Capacity`](crate::adapter::Capacity) refuses comes back as it was, all the same.
pub async fn what_a_backend_cannot_hold_stops_nothing(backend: &dyn Backend) {
    let adapter = backend.open().await;
    let text = |text: &str| text.to_owned();
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let values = [
        (ColumnType::String, Value::String(text("a\0b"))),
        (ColumnType::Any, Value::String(text("\0"))),
        (ColumnType::Double, Value::Double(f64::NAN)),
        (ColumnType::Timestamp, Value::Timestamp(i64::MIN)),
        (ColumnType::Timestamp, Value::Timestamp(i64::MAX)),
        (ColumnType::Date, Value::Date(i32::MIN)),
        (ColumnType::Date, Value::Date(i32::MAX)),
        (ColumnType::Json, Value::Json(text(r#"["\u0000"]"#))),
        (ColumnType::Json, Value::Json(text(r#""\ud800""#))),
        (ColumnType::Json, Value::Json(text("1e400"))),
        (ColumnType::Json, Value::Json(deep)),
    ];
    let names: Vec<_> = (0..values.len()).map(|at| format!("c{at}")).collect();
    let kinds = values.iter().map(|(kind, _)| *kind);
    let columns: Vec<_> = names.iter().map(String::as_str).zip(kinds).collect();
    adapter.prepare(&Schema::from_stored([table("odd", 1, &columns)])).await.expect("prepare");
    let cells = names.iter().map(String::as_str).zip(values.iter().map(|(_, value)| value.clone()));
    let delta = upsert("odd", "r", 1, &cells.collect::<Vec<_>>());
    write(&*adapter, &batch(1, vec![delta.clone()])).await;
    let found = all(&*adapter, "odd", 9).await;
    assert_eq!(found, [(delta.row_id.clone(), fold(&[delta]))]);
    let odd = "odd".parse().expect("a legal name");
    assert_eq!(adapter.misshown(&odd, &found).await, Ok(Vec::new()));
}

/// Words of SQL, paths and patterns stand for themselves, and every byte of a row id counts.
pub async fn legal_names_are_only_names(backend: &dyn Backend) {
    let adapter = backend.open().await;
    let long = "x".repeat(NAME_BYTES_MAX);
    let names = ["select", "Table", "null", "_", "order", "rowid", "oid", "stamp", &long];
    // Names that databases keep for themselves: they are refused when they are declared, and older
    // than the backend here.
    let reserved = ["xmin", "cmax", "ctid", "tableoid", "DB_ROW_ID", "db_roll_ptr", "FTS_DOC_ID"];
    let columns = names.iter().chain(&reserved).map(|name| (*name, ColumnType::String));
    let columns: Vec<_> = columns.collect();
    let tables = names.iter().chain(&reserved).map(|name| table(name, 1, &columns));
    adapter.prepare(&Schema::from_stored(tables)).await.expect("prepare");

    let long_id = "é".repeat(ROW_ID_BYTES_MAX / 2);
    let row_ids = [
        "' OR 1=1; --",
        "\"",
        "../../etc/passwd",
        "%",
        "_",
        "*",
        "a",
        "A",
        "a ",
        " a",
        "á",
        "a\u{301}",
        "\\",
        "\n",
        "\u{1}",
        "🦀",
        "null",
        "0",
        "-0",
        "00",
        &long_id,
    ];
    let mut deltas = Vec::new();
    for name in names {
        for (hlc, row_id) in (1..).zip(row_ids) {
            let value = |column: &str| Value::String(format!("{name}.{column} of {row_id}"));
            let cells: Vec<_> = names.iter().map(|column| (*column, value(column))).collect();
            deltas.push(upsert(name, row_id, hlc, &cells));
        }
    }
    write(&*adapter, &batch(1, deltas.clone())).await;
    for name in names {
        let mut expected = BTreeMap::<RowId, Row>::new();
        for delta in deltas.iter().filter(|delta| delta.table.as_str() == name) {
            expected.entry(delta.row_id.clone()).or_default().merge(delta);
        }
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(all(&*adapter, name, 4).await, expected, "table {name}");
    }
}

/// The largest commit there is arrives whole, and is read back in pages.
pub async fn ten_thousand_rows_fit_one_commit(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let count = u64::try_from(PUSH_ROWS_MAX).expect("a small number");
    let row = |at: u64| {
        let title = Value::String(format!("title {at}"));
        upsert("todos", &format!("r{:05}", at * 7_919 % count), 1 + at, &[("title", title)])
    };
    write(&*adapter, &batch(1, (0..count).map(row).collect())).await;
    let rows = all(&*adapter, "todos", 999).await;
    assert_eq!(rows.len(), PUSH_ROWS_MAX);
    for (at, (row_id, row)) in rows.iter().enumerate() {
        assert_eq!(row_id.as_str(), format!("r{at:05}"), "in the order of row ids");
        assert!(row.is_live());
    }
}
