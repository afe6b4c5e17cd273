//! A row: the join of every delta ever merged into it.

use crate::name::ColumnName;
use crate::stamp::Stamp;
use crate::value::Value;

mod codec;

/// A stamped cell per column, the newest write and the newest delete.
///
/// Invariants: cells are sorted by column, one per column, and each is newer than `deleted`. Only
/// `merge` changes a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub(crate) cells: Vec<StampedCell>,
    pub(crate) written: Option<Stamp>,
    pub(crate) deleted: Option<Stamp>,
}

/// A value and who wrote it when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampedCell {
    /// The column.
    pub column: ColumnName,
    /// Who wrote it when.
    pub stamp: Stamp,
    /// What it holds.
    pub value: Value,
}

impl Row {
    /// Whether the row exists: it was written since it was last deleted. A tie is a delete.
    pub fn is_live(&self) -> bool {
        self.deleted < self.written
    }

    /// The cells, sorted by column. Columns never written since the last delete are absent.
    pub fn cells(&self) -> &[StampedCell] {
        &self.cells
    }

    /// The cell of a column.
    pub fn cell(&self, column: &ColumnName) -> Option<&StampedCell> {
        self.find(column).ok().map(|at| &self.cells[at])
    }

    /// The newest upsert.
    pub fn written(&self) -> Option<&Stamp> {
        self.written.as_ref()
    }

    /// The newest delete.
    pub fn deleted(&self) -> Option<&Stamp> {
        self.deleted.as_ref()
    }

    pub(crate) fn find(&self, column: &ColumnName) -> Result<usize, usize> {
        self.cells.binary_search_by(|cell| cell.column.cmp(column))
    }
}
