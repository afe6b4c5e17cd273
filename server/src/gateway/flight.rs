//! What the readers of a process may hold in memory together: pages on their way to them.
//!
//! Each open stream may always have one page under way. The more streams there are, the smaller that
//! page is, so that all of them together keep to half of the bound. What a reader holds beyond it, a
//! page that is read ahead or the rest of a large commit, comes out of the other half, as long as
//! there is some: without it the reader goes on, and reads again what it could not keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lakesync::limits::{PAGE_BYTES, PAGE_BYTES_MAX, PAGE_BYTES_MIN};
use lakesync::proto::v1::TableChanges;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one permit stands for.
const UNIT_BYTES: usize = 1 << 10;
/// About how many times its size on the wire a page takes while it is no message yet.
const DECODED_FACTOR: usize = 4;
/// What a change and a cell take in memory beside their bytes on the wire.
const CHANGE_BYTES: usize = 128;
const CELL_BYTES: usize = 80;
/// Readings of the store that go on at a time: the least and the most. Each may hold a whole commit.
const TURNS: (usize, usize) = (4, 256);
const TURN_BYTES: usize = 1 << 20;

/// The bound of all readers, and what they take of it.
#[derive(Debug)]
pub(super) struct Flight {
    bytes_max: usize,
    streams: AtomicUsize,
    kept: Arc<Semaphore>,
    turns: Semaphore,
}

/// One open stream. It counts until the transport lets go of its answers.
#[derive(Debug)]
pub(super) struct Seat(Arc<Flight>);

/// Room for bytes beyond a stream's one page.
#[derive(Debug)]
pub(super) struct Kept(
    #[expect(dead_code, reason = "it gives its bytes back when it is dropped")]
    OwnedSemaphorePermit,
);

impl Flight {
    pub(super) fn new(bytes_max: usize) -> Self {
        let half = bytes_max / 2;
        let (least, most) = TURNS;
        Self {
            bytes_max,
            streams: AtomicUsize::new(0),
            kept: Arc::new(Semaphore::new((half / UNIT_BYTES).min(Semaphore::MAX_PERMITS))),
            turns: Semaphore::new((half / 2 / TURN_BYTES).clamp(least, most)),
        }
    }

    pub(super) fn take_seat(self: &Arc<Self>) -> Seat {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(self))
    }

    /// Where to close a page for a reader that asked for pages of `asked` bytes; zero leaves it to us.
    pub(super) fn page_bytes(&self, asked: usize) -> usize {
        let wanted = match asked {
            0 => PAGE_BYTES,
            asked => asked.clamp(PAGE_BYTES_MIN, PAGE_BYTES_MAX),
        };
        let share = self.bytes_max / 2 / self.streams.load(Ordering::Relaxed).max(1);
        wanted.min(share.max(PAGE_BYTES_MIN))
    }

    /// Room to read a page before the last one has left.
    pub(super) fn page_ahead(&self, page_bytes: usize) -> Option<Kept> {
        self.keep(page_bytes * DECODED_FACTOR)
    }

    /// Room for `bytes`, unless others hold too much.
    pub(super) fn keep(&self, bytes: usize) -> Option<Kept> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        Arc::clone(&self.kept).try_acquire_many_owned(units).ok().map(Kept)
    }

    /// Does one piece of reading, when it is its turn. The piece must not wait for a reader.
    pub(super) async fn in_turn<F: Future>(&self, work: F) -> F::Output {
        let _turn = self.turns.acquire().await.expect("BUG: nobody closes the turns");
        work.await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// About how much memory these changes take.
pub(super) fn held_bytes(tables: &[TableChanges]) -> usize {
    let of_rows = |table: &TableChanges| {
        let cells = table.rows.iter().map(|change| change.cells.len()).sum::<usize>();
        table.encoded_len() + table.rows.len() * CHANGE_BYTES + cells * CELL_BYTES
    };
    tables.iter().map(of_rows).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn pages_are_as_asked_within_the_limits_and_smaller_where_many_read() {
        let flight = Arc::new(Flight::new(16 * MIB));
        let sizes = |asked: [usize; 4]| asked.map(|asked| flight.page_bytes(asked) >> 10);
        let asked = [0, 1, 64 << 10, 9 * MIB];
        assert_eq!(sizes(asked), [256, 4, 64, 1024]);
        let seats: Vec<_> = (0..64).map(|_| flight.take_seat()).collect();
        assert_eq!(sizes(asked), [128, 4, 64, 128], "64 pages of 128 KiB are half of 16 MiB");
        let more: Vec<_> = (0..10_000).map(|_| flight.take_seat()).collect();
        assert_eq!(sizes(asked), [4, 4, 4, 4], "no page is smaller than the least");
        drop((seats, more));
        assert_eq!(sizes(asked), [256, 4, 64, 1024], "a seat that is given up counts no longer");
    }

    #[test]
    fn what_is_kept_is_bounded_and_given_back() {
        let flight = Flight::new(2 * MIB);
        let first = flight.keep(MIB - 1).expect("all of the half");
        assert!(flight.keep(1).is_none());
        drop(first);
        let ahead = flight.page_ahead(128 << 10).expect("half of it");
        assert!(flight.page_ahead(256 << 10).is_none());
        assert!(flight.page_ahead(128 << 10).is_some());
        drop(ahead);
    }
}
