//! Schemas: room is made, never taken away, and nothing is guessed.

use super::{
    Backend, LOG, all, batch, opened, shown, stretch, table, todos, upsert, watermark, write,
};
use crate::adapter::AdapterError;
use crate::name::{Position, TableName};
use crate::schema::{ColumnType, Schema, TableSchema};
use crate::testing::{delta, fold};
use crate::value::Value;

/// A column or a table more leaves what there is as it was.
pub async fn columns_are_added_and_rows_stay(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    write(&*adapter, &batch(1, vec![delta("ann@1 title=milk")])).await;
    let rows = all(&*adapter, "todos", 9).await;

    let grown = todos(2, &["title", "done", "note"]);
    for schema in [&grown, &grown, &todos(1, &["title", "done"]), &Schema::default()] {
        adapter.prepare(schema).await.expect("prepare");
        assert_eq!(all(&*adapter, "todos", 9).await, rows);
        assert_eq!(watermark(&*adapter).await, Position(1));
    }
    write(&*adapter, &batch(2, vec![delta("ann@2 note=oats")])).await;
    assert_eq!(shown(&*adapter).await, ["note=oats title=milk"]);

    let wide = [("n", ColumnType::Int64)];
    adapter.prepare(&Schema::from_stored([table("more", 1, &wide)])).await.expect("prepare");
    let old = upsert("more", "a", 3, &[("n", Value::Int64(7))]);
    write(&*adapter, &batch(3, vec![old])).await;
    let wide = [("n", ColumnType::Any)];
    adapter.prepare(&Schema::from_stored([table("more", 2, &wide)])).await.expect("prepare");
    let new = upsert("more", "b", 4, &[("n", Value::String("eight".to_owned()))]);
    write(&*adapter, &batch(4, vec![new])).await;
    let found = all(&*adapter, "more", 9).await;
    let values: Vec<_> = found.iter().map(|(_, row)| row.cells()[0].value.clone()).collect();
    assert_eq!(values, [Value::Int64(7), Value::String("eight".to_owned())]);
    assert_eq!(shown(&*adapter).await, ["note=oats title=milk"]);
}

/// The log tells of values from before a type was widened, and a backend may hear of the type first.
pub async fn what_was_written_before_a_type_was_widened_fits(backend: &dyn Backend) {
    let adapter = backend.open().await;
    let cents = ColumnType::Decimal { precision: 30, scale: 2 };
    let all_kinds = [
        Value::Bool(true),
        Value::Int64(-7),
        Value::Double(0.5),
        Value::String("s".to_owned()),
        Value::Bytes(b"\0\xff"[..].into()),
        Value::Json("[1]".to_owned()),
        Value::Decimal("1.50".to_owned()),
        Value::Timestamp(-1),
        Value::Date(-1),
        Value::Uuid([7; 16]),
    ];
    let narrow = all_kinds.iter().flat_map(|value| {
        [ColumnType::String, ColumnType::Json, ColumnType::Any].map(|kind| (kind, value.clone()))
    });
    let narrow = narrow.chain([
        (ColumnType::Double, Value::Int64(i64::MAX)),
        (cents, Value::Int64(i64::MIN)),
        (cents, Value::Decimal("1.5".to_owned())),
        (ColumnType::Timestamp, Value::Date(-1)),
    ]);
    let narrow: Vec<_> = narrow.collect();
    let names: Vec<_> = (0..narrow.len()).map(|at| format!("c{at}")).collect();
    let kinds = narrow.iter().map(|(kind, _)| *kind);
    let columns: Vec<_> = names.iter().map(String::as_str).zip(kinds).collect();
    adapter.prepare(&Schema::from_stored([table("wide", 3, &columns)])).await.expect("prepare");
    let cells = names.iter().map(String::as_str).zip(narrow.iter().map(|(_, value)| value.clone()));
    let delta = upsert("wide", "r", 1, &cells.collect::<Vec<_>>());
    write(&*adapter, &batch(1, vec![delta.clone()])).await;
    let found = all(&*adapter, "wide", 9).await;
    assert_eq!(found, [(delta.row_id.clone(), crate::testing::fold(&[delta]))]);
}

/// A backend tells what it was prepared for: versions, ids, keys and all.
pub async fn the_schema_is_told(backend: &dyn Backend) {
    let adapter = backend.open().await;
    assert_eq!(adapter.schema().await, Ok(Schema::default()));
    let kinds = [
        ColumnType::Bool,
        ColumnType::Decimal { precision: 38, scale: 4 },
        ColumnType::Any,
        ColumnType::Json,
    ];
    let names = ["z", "a", "M", "_"];
    let columns: Vec<_> = names.into_iter().zip(kinds).collect();
    let keyed = TableSchema {
        primary_key: vec![names[0].parse().expect("legal")],
        ..table("keyed", 4, &columns)
    };
    let schema = Schema::from_stored([keyed, table("todos", 1, &[("title", ColumnType::String)])]);
    adapter.prepare(&schema).await.expect("prepare");
    assert_eq!(adapter.schema().await, Ok(schema.clone()));
    assert_eq!(backend.open().await.schema().await, Ok(schema));
}

/// What does not fit is told, and nothing is altered.
pub async fn a_schema_that_does_not_fit_is_refused(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    write(&*adapter, &batch(1, vec![delta("ann@1 title=milk")])).await;
    let narrowed = table("todos", 2, &[("title", ColumnType::Int64), ("done", ColumnType::String)]);
    let new = table("more", 1, &[("n", ColumnType::Int64)]);
    let refused = adapter.prepare(&Schema::from_stored([narrowed, new])).await;
    assert!(matches!(refused, Err(AdapterError::Mismatch(_))), "{refused:?}");
    write(&*adapter, &batch(2, vec![delta("ann@2 title=oats")])).await;
    assert_eq!(shown(&*adapter).await, ["title=oats"]);
    let more: TableName = "more".parse().expect("a legal name");
    let unknown = adapter.rows(&more, None, 9).await;
    assert_eq!(unknown, Err(AdapterError::UnknownTable(more)), "all of a schema or none of it");
}

/// Tables, columns and values that nobody announced are errors, not guesses.
pub async fn what_was_not_prepared_is_refused(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let numbers = table("numbers", 1, &[("n", ColumnType::Int64)]);
    adapter.prepare(&Schema::from_stored([numbers])).await.expect("prepare");
    let stranger: TableName = "strangers".parse().expect("a legal name");
    let rows = adapter.rows(&stranger, None, 9).await;
    assert_eq!(rows, Err(AdapterError::UnknownTable(stranger.clone())));
    let joined = adapter.join(&stranger, &[]).await;
    assert_eq!(joined, Err(AdapterError::UnknownTable(stranger)));
    for (delta, told) in [
        (upsert("strangers", "r", 1, &[]), "table strangers was not prepared"),
        (
            upsert("todos", "r", 1, &[("colour", Value::Null)]),
            "table todos: column colour was not prepared",
        ),
        (
            upsert("numbers", "r", 1, &[("n", Value::String("1".to_owned()))]),
            "table numbers: column n is int64 and can't hold string",
        ),
    ] {
        let refused = adapter.write(&stretch(LOG, 1, 1, vec![(1, vec![delta])])).await;
        assert_eq!(refused.expect_err("nobody announced it").to_string(), told);
    }
    assert_eq!(watermark(&*adapter).await, Position::START);
    assert_eq!(all(&*adapter, "todos", 9).await, []);
}

/// Rows are no exception: what was stored and not shown would stay so when the column comes.
pub async fn joined_rows_that_do_not_fit_are_refused(backend: &dyn Backend) {
    let adapter = opened(backend).await;
    let numbers = table("numbers", 1, &[("n", ColumnType::Int64)]);
    adapter.prepare(&Schema::from_stored([numbers])).await.expect("prepare");
    for (delta, told) in [
        (
            upsert("todos", "r", 1, &[("colour", Value::Null)]),
            "table todos: column colour was not prepared",
        ),
        (
            upsert("numbers", "r", 1, &[("n", Value::String("1".to_owned()))]),
            "table numbers: column n is int64 and can't hold string",
        ),
    ] {
        let table = delta.table.clone();
        let fits = upsert(table.as_str(), "a", 1, &[]);
        let rows = [fits, delta].map(|delta| (delta.row_id.clone(), fold(&[delta])));
        let refused = adapter.join(&table, &rows).await;
        assert_eq!(refused.expect_err("nobody announced it").to_string(), told);
        assert_eq!(all(&*adapter, table.as_str(), 9).await, [], "all of the rows or none");
    }
}

/// A backend that does its work says that it does.
pub async fn a_working_backend_is_healthy(backend: &dyn Backend) {
    let adapter = backend.open().await;
    assert_eq!(adapter.health().await, Ok(()));
    assert!(!adapter.to_string().is_empty(), "operators know a backend by its name");
}
