//! Tables, changes and their stamps, as tests write them down.

use lakesync::delta::{Cell, Delta, Op};
use lakesync::hlc::Hlc;
use lakesync::proto::v1::{Column, ColumnType, TableSchema};
use lakesync::stamp::Stamp;
use lakesync::value::Value;

use super::NOW_MS;

/// Two tables: `todos`, with a column of several types, and `notes`.
pub(crate) fn tables() -> Vec<TableSchema> {
    let todos = [
        ("title", ColumnType::String),
        ("done", ColumnType::Bool),
        ("rank", ColumnType::Int64),
        ("extra", ColumnType::Any),
    ];
    vec![table("todos", &todos), table("notes", &[("body", ColumnType::String)])]
}

/// A table as an operator declares it.
pub(crate) fn table(name: &str, columns: &[(&str, ColumnType)]) -> TableSchema {
    let column = |(name, kind): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        r#type: (*kind).into(),
        ..Column::default()
    };
    let columns = columns.iter().map(column).collect();
    TableSchema { table: name.to_owned(), columns, ..TableSchema::default() }
}

/// The `nth` reading of the clock after time stood still.
pub(crate) fn at(nth: u64) -> Hlc {
    Hlc(Hlc::from_ms(NOW_MS).0 + nth)
}

/// A reading of the clock `ms` milliseconds before or after that.
pub(crate) fn at_ms(ms: i64) -> Hlc {
    Hlc::from_ms(NOW_MS.checked_add_signed(ms).expect("a time"))
}

/// `client` wrote these texts into the row `table/id`.
pub(crate) fn upsert(client: &str, hlc: Hlc, row: &str, cells: &[(&str, &str)]) -> Delta {
    let cells = cells.iter().map(|(column, text)| (*column, Value::String((*text).to_owned())));
    write(client, hlc, row, cells)
}

/// `client` wrote these values into the row `table/id`.
pub(crate) fn write<'a>(
    client: &str,
    hlc: Hlc,
    row: &str,
    cells: impl IntoIterator<Item = (&'a str, Value)>,
) -> Delta {
    let cell = |(column, value): (&str, Value)| Cell {
        column: column.parse().expect("a legal column"),
        value,
    };
    change(client, hlc, row, Op::Upsert(cells.into_iter().map(cell).collect()))
}

/// `client` deleted the row `table/id`.
pub(crate) fn delete(client: &str, hlc: Hlc, row: &str) -> Delta {
    change(client, hlc, row, Op::Delete)
}

fn change(client: &str, hlc: Hlc, row: &str, op: Op) -> Delta {
    let (table, id) = row.split_once('/').expect("table/id");
    Delta {
        table: table.parse().expect("a legal table"),
        row_id: id.parse().expect("a legal row id"),
        stamp: Stamp { hlc, client: client.parse().expect("a legal client id") },
        op,
    }
}
