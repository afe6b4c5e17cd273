//! Schemas: room is made, never taken away, and nothing is guessed.

use super::{
    Backend, LOG, all, batch, opened, shown, stretch, table, todos, upsert, watermark, write,
};
use crate::adapter::AdapterError;
use crate::name::{Position, TableName};
use crate::schema::{ColumnType, Schema};
use crate::testing::delta;
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
    let stranger: TableName = "strangers".parse().expect("a legal name");
    let rows = adapter.rows(&stranger, None, 9).await;
    assert_eq!(rows, Err(AdapterError::UnknownTable(stranger.clone())));
    for (delta, told) in [
        (upsert("strangers", "r", 1, &[]), "table strangers was not prepared"),
        (
            upsert("todos", "r", 1, &[("colour", Value::Null)]),
            "table todos: column colour was not prepared",
        ),
        (
            upsert("todos", "r", 1, &[("title", Value::Int64(1))]),
            "table todos, row r: column title is string and can't hold int64",
        ),
    ] {
        let refused = adapter.write(&stretch(LOG, 1, 1, vec![(1, vec![delta])])).await;
        assert_eq!(refused.expect_err("nobody announced it").to_string(), told);
    }
    assert_eq!(watermark(&*adapter).await, Position::START);
    assert_eq!(all(&*adapter, "todos", 9).await, []);
}

/// A backend that does its work says that it does.
pub async fn a_working_backend_is_healthy(backend: &dyn Backend) {
    let adapter = backend.open().await;
    assert_eq!(adapter.health().await, Ok(()));
    assert!(!adapter.to_string().is_empty(), "operators know a backend by its name");
}
