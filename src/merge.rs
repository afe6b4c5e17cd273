//! Conflict resolution: folding deltas into rows, column by column, last writer wins.
//!
//! Merge is commutative, associative and idempotent. Deltas may therefore arrive late, twice or
//! out of order, and every replica still converges. Nothing else in LakeSync resolves a conflict.

use crate::delta::{Cell, Delta, Op};
use crate::name::ColumnName;
use crate::row::{Row, StampedCell};
use crate::stamp::Stamp;

/// What merging a delta did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Whether the row's state changed at all.
    pub changed: bool,
    /// Whether anybody could ever tell: false for a change that changed nothing, and for an upsert
    /// older than the row's delete.
    pub effective: bool,
    /// Whether the row had been deleted since: nothing of an upsert can be seen.
    pub hidden: bool,
    /// Whether the row is there after its delete: a newer write won.
    pub outlived: bool,
    /// The columns that had lost to a newer write or delete, in the order of the change's cells.
    pub lost: Vec<ColumnName>,
    /// The columns that the row held already with this very stamp and value, in the same order.
    pub tied: Vec<ColumnName>,
}

impl Row {
    /// Folds `delta` into this row.
    pub fn merge(&mut self, delta: &Delta) -> Effect {
        match &delta.op {
            Op::Upsert(cells) => self.upsert(cells, &delta.stamp),
            Op::Delete => self.delete(&delta.stamp),
        }
    }

    /// Folds a whole row, or any part of one, into this row: a checkpoint's rows arrive so.
    pub fn join(&mut self, other: &Row) -> bool {
        let before = self.clone();
        if let Some(deleted) = &other.deleted {
            self.delete(deleted);
        }
        for cell in &other.cells {
            let own = Cell { column: cell.column.clone(), value: cell.value.clone() };
            self.upsert(std::slice::from_ref(&own), &cell.stamp);
        }
        if let Some(written) = &other.written {
            self.upsert(&[], written);
        }
        before != *self
    }

    fn upsert(&mut self, cells: &[Cell], stamp: &Stamp) -> Effect {
        let mut effect =
            Effect { changed: self.written.as_ref() < Some(stamp), ..Effect::default() };
        if effect.changed {
            self.written = Some(stamp.clone());
        }
        // A delete hides what was written before it, and only that.
        if Some(stamp) <= self.deleted.as_ref() {
            effect.hidden = true;
            effect.lost = cells.iter().map(|cell| cell.column.clone()).collect();
            return effect;
        }
        if self.cells.is_empty() {
            self.cells.reserve_exact(cells.len());
        }
        for cell in cells {
            match self.put(cell, stamp) {
                Put::Won => effect.changed = true,
                Put::Tied => effect.tied.push(cell.column.clone()),
                Put::Lost => effect.lost.push(cell.column.clone()),
            }
        }
        effect.effective = effect.changed;
        effect
    }

    fn put(&mut self, cell: &Cell, stamp: &Stamp) -> Put {
        match self.find(&cell.column) {
            Err(at) => {
                let Cell { column, value } = cell.clone();
                self.cells.insert(at, StampedCell { column, stamp: stamp.clone(), value });
                Put::Won
            }
            Ok(at) => {
                let held = &mut self.cells[at];
                let order = stamp.cmp(&held.stamp).then_with(|| cell.value.cmp(&held.value));
                if order.is_gt() {
                    held.stamp = stamp.clone();
                    held.value = cell.value.clone();
                }
                match order {
                    std::cmp::Ordering::Greater => Put::Won,
                    std::cmp::Ordering::Equal => Put::Tied,
                    std::cmp::Ordering::Less => Put::Lost,
                }
            }
        }
    }

    fn delete(&mut self, stamp: &Stamp) -> Effect {
        let changed = self.deleted.as_ref() < Some(stamp);
        if changed {
            // Cells older than the delete can never be seen again.
            self.cells.retain(|cell| *stamp < cell.stamp);
            self.deleted = Some(stamp.clone());
        }
        Effect { changed, effective: changed, outlived: self.is_live(), ..Effect::default() }
    }
}

/// What became of one cell.
enum Put {
    Won,
    Tied,
    Lost,
}

#[cfg(test)]
mod tests;
