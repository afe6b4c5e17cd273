//! Tables, changes and batches, and all that a backend holds.

use std::collections::BTreeMap;

use lakesync::adapter::{Adapter, Batch, Change, Commit};
use lakesync::delta::{Cell, Delta, Op};
use lakesync::hlc::Hlc;
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::{Column, ColumnType, Schema, TableSchema};
use lakesync::stamp::Stamp;
use lakesync::testing::id;
use lakesync::value::Value;

pub(crate) const LOG: LogId = LogId([1; 16]);

/// Tables of two text columns, `a` and `b`.
pub(crate) fn tables(names: &[&str]) -> Schema {
    Schema::from_stored(names.iter().map(|name| table(name, ColumnType::String)))
}

pub(crate) fn table(name: &str, kind: ColumnType) -> TableSchema {
    let column = |(name, field_id)| Column { name: id(name), kind, field_id };
    TableSchema {
        table: id(name),
        version: 1,
        key: id("id"),
        columns: [("a", 1), ("b", 2)].map(column).to_vec(),
        primary_key: Vec::new(),
    }
}

/// Reads `table/row@ms column=text …` or `table/row@ms delete`.
pub(crate) fn delta(text: &str) -> Delta {
    let mut words = text.split(' ');
    let (place, ms) = words.next().and_then(|word| word.split_once('@')).expect("place@ms");
    let (table, row_id) = place.split_once('/').expect("table/row");
    let cells = words.map(|word| {
        let (column, text) = word.split_once('=')?;
        Some(Cell { column: id(column), value: Value::String(text.to_owned()) })
    });
    let op = cells.collect::<Option<Vec<_>>>().map_or(Op::Delete, Op::Upsert);
    let stamp = Stamp { hlc: Hlc::from_ms(ms.parse().expect("a time")), client: id("ann") };
    Delta { table: id(table), row_id: id(row_id), stamp, op }
}

/// A batch of one commit.
pub(crate) fn batch(position: u64, deltas: &[&str]) -> Batch {
    let deltas = deltas.iter().map(|text| delta(text)).collect();
    let commits = vec![Commit { position: Position(position), deltas }];
    stretch(position, position, commits)
}

pub(crate) fn stretch(first: u64, last: u64, commits: Vec<Commit>) -> Batch {
    Batch::new(LOG, Position(first), Position(last), commits).expect("a legal batch")
}

/// All that a backend holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) rows: BTreeMap<TableName, Vec<(RowId, Row)>>,
    pub(crate) history: Vec<Change>,
    pub(crate) watermarks: BTreeMap<LogId, Position>,
}

pub(crate) async fn contents(adapter: &dyn Adapter) -> Contents {
    let mut all = Contents::default();
    for table in adapter.schema().await.expect("schema").tables() {
        let rows = rows(adapter, table.table.as_str()).await;
        all.rows.insert(table.table.clone(), rows);
    }
    loop {
        let after = all.history.last().map(|change| change.place);
        let page = adapter.history(after.as_ref(), 3).await.expect("history");
        if page.is_empty() {
            break;
        }
        all.history.extend(page);
    }
    for log in adapter.logs().await.expect("logs") {
        all.watermarks.insert(log, adapter.watermark(log).await.expect("watermark"));
    }
    all
}

/// All rows of a table, a few at a time.
pub(crate) async fn rows(adapter: &dyn Adapter, table: &str) -> Vec<(RowId, Row)> {
    let mut all: Vec<(RowId, Row)> = Vec::new();
    loop {
        let after = all.last().map(|(row_id, _)| row_id);
        let page = adapter.rows(&id(table), after, 3).await.expect("rows");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// The rows of a table for people: `row: column=text …` or `row: gone`.
pub(crate) async fn shown(adapter: &dyn Adapter, table: &str) -> Vec<String> {
    let rows = rows(adapter, table).await.into_iter();
    rows.map(|(id, row)| format!("{id}: {}", lakesync::testing::shown(&row))).collect()
}
