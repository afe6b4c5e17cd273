//! Tables, changes and batches for tests.

use lakesync::adapter::{Batch, Commit};
use lakesync::delta::{Cell, Delta, Op};
use lakesync::hlc::Hlc;
use lakesync::name::{LogId, Position};
use lakesync::schema::{Column, ColumnType, Schema, TableSchema};
use lakesync::stamp::Stamp;
use lakesync::testing::id;
use lakesync::value::Value;

/// The log of all batches.
pub(crate) const LOG: LogId = LogId([9; 16]);

/// A table whose key is `id`.
pub(crate) fn table(name: &str, version: u32, columns: &[(&str, ColumnType)]) -> TableSchema {
    let column = |(field_id, (name, kind)): (u32, &(&str, ColumnType))| Column {
        name: id(name),
        kind: *kind,
        field_id,
    };
    TableSchema {
        table: id(name),
        version,
        key: id("id"),
        columns: (1..).zip(columns).map(column).collect(),
        primary_key: Vec::new(),
    }
}

/// A schema of one table.
pub(crate) fn schema(name: &str, version: u32, columns: &[(&str, ColumnType)]) -> Schema {
    Schema::from_stored([table(name, version, columns)])
}

/// Ann's upsert.
pub(crate) fn upsert(table: &str, row_id: &str, hlc: u64, cells: &[(&str, Value)]) -> Delta {
    let cell = |(column, value): &(&str, Value)| Cell { column: id(column), value: value.clone() };
    change(table, row_id, hlc, Op::Upsert(cells.iter().map(cell).collect()))
}

/// Ann's delete.
pub(crate) fn delete(table: &str, row_id: &str, hlc: u64) -> Delta {
    change(table, row_id, hlc, Op::Delete)
}

fn change(table: &str, row_id: &str, hlc: u64, op: Op) -> Delta {
    let stamp = Stamp { hlc: Hlc(hlc), client: id("ann") };
    Delta { table: id(table), row_id: id(row_id), stamp, op }
}

/// A batch of one commit.
pub(crate) fn one_commit(position: u64, deltas: Vec<Delta>) -> Batch {
    let position = Position(position);
    Batch::new(LOG, position, position, vec![Commit { position, deltas }]).expect("a legal batch")
}
