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

/// More than a cell's lengths, indexes and clock take in the stored form of its row.
const CELL_OVERHEAD_BYTES: usize = 20;

/// An upper bound of the bytes that a cell takes in the stored form of its row, as if it shared its
/// stamp with no other.
pub fn cell_size(column: &ColumnName, stamp: &Stamp, value: &Value) -> usize {
    CELL_OVERHEAD_BYTES + column.as_str().len() + stamp.client.as_str().len() + value.size()
}

impl StampedCell {
    /// An upper bound of the bytes that this cell takes in the stored form of its row.
    pub fn size(&self) -> usize {
        cell_size(&self.column, &self.stamp, &self.value)
    }
}

impl Row {
    /// The row these parts make: cells that `deleted` hides are left out, and of two cells of one
    /// column the winner stays. For stores that keep the parts in columns of their own.
    pub fn assemble(
        mut cells: Vec<StampedCell>,
        written: Option<Stamp>,
        deleted: Option<Stamp>,
    ) -> Self {
        cells.retain(|cell| deleted.as_ref() < Some(&cell.stamp));
        let key = |cell: &StampedCell| (cell.stamp.clone(), cell.value.clone());
        cells.sort_by(|a, b| a.column.cmp(&b.column).then_with(|| key(b).cmp(&key(a))));
        cells.dedup_by(|next, first| next.column == first.column);
        let newest = cells.iter().map(|cell| cell.stamp.clone()).max();
        Self { written: written.max(newest), deleted, cells }
    }

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

    /// An upper bound of the bytes of the stored form, for limits. It is a sum over the cells, so
    /// that what a change adds to it is known beforehand.
    pub fn size(&self) -> usize {
        let stamps = [&self.written, &self.deleted].into_iter().flatten();
        let stamps = stamps.map(|stamp| CELL_OVERHEAD_BYTES + stamp.client.as_str().len());
        CELL_OVERHEAD_BYTES + stamps.chain(self.cells.iter().map(StampedCell::size)).sum::<usize>()
    }

    pub(crate) fn find(&self, column: &ColumnName) -> Result<usize, usize> {
        self.cells.binary_search_by(|cell| cell.column.cmp(column))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    proptest! {
        #[test]
        fn no_row_is_larger_than_its_size(deltas in testing::deltas()) {
            let row = testing::fold(&deltas);
            prop_assert!(row.encode().len() <= row.size());
        }

        #[test]
        fn a_row_is_the_sum_of_its_parts(deltas in testing::deltas(), more in testing::deltas()) {
            let row = testing::fold(&deltas);
            let (written, deleted) = (row.written.clone(), row.deleted.clone());
            let mut cells = row.cells.clone();
            cells.reverse();
            prop_assert_eq!(&Row::assemble(cells, written, deleted.clone()), &row);

            // Parts of two rows make what joining them makes, as long as both know the delete.
            let mut joined = row.clone();
            joined.join(&testing::fold(&more));
            let other = testing::fold(&more);
            let cells = row.cells.into_iter().chain(other.cells).collect();
            let parts = Row::assemble(cells, row.written.max(other.written), deleted.max(other.deleted));
            prop_assert_eq!(parts, joined);
        }
    }
}
