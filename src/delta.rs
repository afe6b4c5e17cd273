//! One client's change of one row.

use crate::name::{ColumnName, RowId, TableName};
use crate::stamp::Stamp;
use crate::value::Value;

mod diff;
mod id;

pub use diff::{Image, diff};
pub use id::DeltaId;

/// One client's change of one row: what happened, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The row's table.
    pub table: TableName,
    /// The row's id.
    pub row_id: RowId,
    /// When and by whom. All cells of a change carry the same stamp.
    pub stamp: Stamp,
    /// What happened.
    pub op: Op,
}

/// What a change does to its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The row exists and these cells were written; other columns keep their value. Each column
    /// stands here at most once.
    Upsert(Vec<Cell>),
    /// The row was deleted.
    Delete,
}

/// One column's new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The column.
    pub column: ColumnName,
    /// What it now holds.
    pub value: Value,
}
