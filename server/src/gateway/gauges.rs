//! The figures of a gateway: shown by whoever makes them durable, read by everybody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lakesync::name::Position;

use super::recover::Counters;

/// Figures of what is durable, for everybody to read.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) rows: AtomicU64,
    pub(super) log_bytes: AtomicU64,
    /// Changes, and bytes of commits, ever appended.
    pub(super) changes: AtomicU64,
    pub(super) appended_bytes: AtomicU64,
    /// Whether the log has reached its limit and waits for backends.
    pub(super) is_full: AtomicBool,
    /// Whether a reader came that has seen another past of the log. It is said once.
    pub(super) is_rolled_back: AtomicBool,
    /// The newest reading of the gateway's clock.
    pub(super) hlc: AtomicU64,
    /// Through which position commits are kept no longer. It is shown before they go.
    pub(super) trimmed: AtomicU64,
    /// Deletes before this reading of the clock may have been forgotten. It is shown before they go.
    pub(super) swept: AtomicU64,
}

impl Gauges {
    /// Shows the figures of what is durable.
    pub(super) fn show(&self, counters: &Counters) {
        // Changes first: whoever reads a number of rows finds the changes that led to it.
        self.changes.store(counters.changes, Ordering::Release);
        self.rows.store(counters.rows, Ordering::Release);
        self.log_bytes.store(counters.log_bytes(), Ordering::Release);
        self.appended_bytes.store(counters.appended_bytes, Ordering::Release);
        self.hlc.store(counters.hlc, Ordering::Release);
    }

    /// How many changes and bytes the log was ever given.
    pub(super) fn total(&self) -> (u64, u64) {
        (self.changes.load(Ordering::Acquire), self.appended_bytes.load(Ordering::Acquire))
    }

    /// Shows that commits through `through` are kept no longer, or not for long.
    pub(super) fn trim(&self, through: Position) {
        self.trimmed.fetch_max(through.0, Ordering::AcqRel);
    }

    /// Through which position commits are kept no longer.
    pub(super) fn trimmed(&self) -> Position {
        Position(self.trimmed.load(Ordering::Acquire))
    }
}
