//! How many rows to ask for, when a row may be twenty bytes or two MiB.

use lakesync::delta::{Delta, Op};
use lakesync::limits::COPY_BYTES_TARGET;

/// So few that a page of the largest rows there are takes some tens of MiB.
const COUNT_FIRST: usize = 16;
/// A bound of what a page may take whose rows are larger than all before.
const COUNT_MAX: usize = 256;

/// The size of the next page, from what the last one took.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    count: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { count: COUNT_FIRST }
    }
}

impl Pace {
    /// How many to ask for.
    pub fn count(self) -> usize {
        self.count
    }

    /// Learns what a page took. Pages grow slowly and shrink at once.
    pub fn took(&mut self, count: usize, bytes: usize) {
        let aimed = count.saturating_mul(COPY_BYTES_TARGET) / bytes.max(1);
        self.count = aimed.clamp(1, COUNT_MAX.min(self.count * 2));
    }
}

/// About what a change takes in memory.
pub(crate) fn size(delta: &Delta) -> usize {
    let cells = match &delta.op {
        Op::Upsert(cells) => cells.as_slice(),
        Op::Delete => &[],
    };
    let cell = |cell: &lakesync::delta::Cell| cell.column.as_str().len() + cell.value.size();
    64 + delta.row_id.as_str().len() + cells.iter().map(cell).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_slowly_and_shrink_at_once() {
        let mut pace = Pace::default();
        for (bytes_each, count) in
            [(100, 32), (100, 64), (100, 128), (100, 256), (100, 256), (2 << 20, 1), (2 << 20, 1)]
        {
            pace.took(pace.count(), pace.count() * bytes_each);
            assert_eq!(pace.count(), count, "{bytes_each} bytes each");
        }
        pace.took(0, 0);
        assert_eq!(pace.count(), 1);
    }
}
