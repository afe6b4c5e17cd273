//! Where readers stand whose next commits must not be trimmed away under them.
//!
//! A hold is a courtesy and no promise: a log that outgrows its limit by far is trimmed all the same,
//! and the reader is told that its cursor has expired.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use lakesync::name::Position;

/// The positions of all readers of a gateway.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Vec<Weak<AtomicU64>>>);

/// One reader's position. Dropping it lets go.
#[derive(Debug)]
pub(super) struct Hold(Arc<AtomicU64>);

impl Holds {
    /// Holds what comes after `at`.
    pub(super) fn take(&self, at: Position) -> Hold {
        let hold = Arc::new(AtomicU64::new(at.0));
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Doubled before it is cleared, so that clearing costs nothing in the end.
        if holds.len() == holds.capacity() {
            holds.retain(|held| 0 < held.strong_count());
        }
        holds.push(Arc::downgrade(&hold));
        Hold(hold)
    }

    /// The least position that somebody holds.
    pub(super) fn least(&self) -> Option<Position> {
        let holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = holds.iter().filter_map(Weak::upgrade);
        held.map(|at| Position(at.load(Ordering::Acquire))).min()
    }
}

impl Hold {
    /// The reader has come on to `at`.
    pub(super) fn move_to(&self, at: Position) {
        self.0.store(at.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_position_counts_until_it_is_let_go() {
        let holds = Holds::default();
        assert_eq!(holds.least(), None);
        let slow = holds.take(Position(3));
        let fast = holds.take(Position(5));
        assert_eq!(holds.least(), Some(Position(3)));
        slow.move_to(Position(9));
        assert_eq!(holds.least(), Some(Position(5)));
        drop(fast);
        assert_eq!(holds.least(), Some(Position(9)));
        for _ in 0..100 {
            drop(holds.take(Position(1)));
        }
        assert!(holds.0.lock().expect("no panic").capacity() < 100, "what was let go is cleared");
        assert_eq!(holds.least(), Some(Position(9)));
    }
}
