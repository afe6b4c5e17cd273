//! One row that a push touches: whether it has room for a change, and whether a change from before
//! the horizon can be judged on it.

use lakesync::delta::{Cell, Delta, Op};
use lakesync::error::Reason;
use lakesync::hlc::{Clock, Hlc};
use lakesync::limits::{CLIENT_ID_BYTES_MAX, COLUMNS_MAX, ROW_BYTES_MAX};
use lakesync::name::Position;
use lakesync::row::{Row, cell_size};
use lakesync::stamp::Stamp;
use lakesync::wire::Refusal;

use super::super::access::Grave;

/// More than any change's stamp takes.
const STAMP_BYTES: usize = 32 + CLIENT_ID_BYTES_MAX;
/// How far above the newest stamp of its row a change may be that is ahead of the server's clock, as
/// that stamp is: a part of a millisecond in ticks. A client that edits a row with a stamp from the
/// future stamps by ticks above it, and some of its edits may be covered by later ones. All pushes of
/// a group are judged by the stamp from before the group: however many groups follow each other, the
/// wall clock is faster, and no stamp runs away from it.
const TICKS_MAX: u64 = 1 << 10;
/// From here on rows are measured. A row's measure counts a stamp for every cell, and so may exceed
/// its stored form by this many: whether a change fits must not depend on which sum was taken.
const MEASURED_FROM_BYTES: usize = ROW_BYTES_MAX - (COLUMNS_MAX + 4) * STAMP_BYTES;

#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    /// The newest commit that changed the row.
    pub(super) position: Position,
    /// Where the row was last, if it was deleted.
    pub(super) grave: Grave,
    pub(super) row: Row,
    /// An upper bound of the size of the row's stored form.
    pub(super) bytes: usize,
    pub(super) dirty: bool,
    /// The newest stamp that the row had before this group of pushes.
    newest: Hlc,
}

impl Touched {
    /// A row as it was stored.
    pub(super) fn loaded(position: Position, grave: Grave, row: Row, bytes: usize) -> Self {
        let stamps = [row.written(), row.deleted()].into_iter().flatten();
        let newest = stamps.map(|stamp| stamp.hlc).max().unwrap_or_default();
        Self { position, grave, row, bytes, dirty: false, newest }
    }

    /// Whether a stamp that is too far ahead of the server's clock follows one of the row that is so
    /// too: then it takes nothing from anybody that the older one has not taken.
    pub(super) fn is_followed_by(&self, stamp: Hlc, clock: &Clock, wall_ms: u64) -> bool {
        clock.check(self.newest, wall_ms).is_err()
            && stamp.0 <= self.newest.0.saturating_add(TICKS_MAX)
    }

    /// Refuses a change that would make the row too large. Rows far from the limit are not looked
    /// at, others cell by cell: no change costs more for the bytes that its row holds.
    pub(super) fn make_room(&mut self, delta: &Delta) -> Result<(), Refusal> {
        let more = size(delta);
        if self.bytes + more <= MEASURED_FROM_BYTES {
            self.bytes += more;
            return Ok(());
        }
        let Op::Upsert(cells) = &delta.op else { return Ok(()) };
        let before = self.row.size();
        let bytes = self.size_with(cells, &delta.stamp, before);
        if ROW_BYTES_MAX < bytes && before < bytes {
            let message = format!("the row would have {bytes} bytes; the limit is {ROW_BYTES_MAX}");
            return Err(Refusal::new(Reason::TooLarge, message));
        }
        self.bytes = bytes;
        Ok(())
    }

    /// The row's measure, which is `bytes` now, once it holds those of `cells` that win.
    fn size_with(&self, cells: &[Cell], stamp: &Stamp, mut bytes: usize) -> usize {
        if Some(stamp) <= self.row.deleted() {
            return bytes;
        }
        for cell in cells {
            let more = cell_size(&cell.column, stamp, &cell.value);
            match self.row.cell(&cell.column) {
                None => bytes += more,
                Some(held) if (&held.stamp, &held.value) < (stamp, &cell.value) => {
                    bytes = bytes + more - held.size();
                }
                Some(_) => {}
            }
        }
        bytes
    }

    /// Refuses a change that a forgotten delete may have hidden: it would come back for those who
    /// know of the delete no longer.
    ///
    /// Deletes from before the horizon are forgotten together with their rows; a row of that id that
    /// is there now was made anew, of younger changes only. So whatever it holds is younger than
    /// any forgotten delete, and what is younger than the oldest of its cells is so too. Of the
    /// rest, cells that the row has a newer one of lose in any case, and so does what a remembered
    /// delete hides. A delete can be judged on any row that is there: it hides what it would have.
    pub(super) fn remember(&self, delta: &Delta, horizon: Hlc) -> Result<(), Refusal> {
        if horizon <= delta.stamp.hlc {
            return Ok(());
        }
        let too_old = |what: &str| {
            let message = format!("the change is older than deletes are remembered, and {what}");
            Refusal::new(Reason::TooOld, message)
        };
        if !self.row.is_live() {
            return Err(too_old("its row does not exist"));
        }
        let Op::Upsert(cells) = &delta.op else { return Ok(()) };
        let oldest = self.row.cells().iter().map(|cell| &cell.stamp).min().or(self.row.written());
        if Some(&delta.stamp) <= self.row.deleted() || oldest <= Some(&delta.stamp) {
            return Ok(());
        }
        match cells.iter().find(|cell| self.row.cell(&cell.column).is_none()) {
            None => Ok(()),
            Some(cell) => Err(Refusal {
                columns: vec![cell.column.to_string()],
                ..too_old("its row was made after it and lacks one of its columns")
            }),
        }
    }
}

/// An upper bound of what a change adds to its row's stored form.
fn size(delta: &Delta) -> usize {
    let cells = match &delta.op {
        Op::Delete => 0,
        Op::Upsert(cells) => {
            cells.iter().map(|cell| 8 + cell.column.as_str().len() + cell.value.size()).sum()
        }
    };
    STAMP_BYTES + cells
}

#[cfg(test)]
mod tests;
