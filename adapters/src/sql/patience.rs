//! How long a call may take: as long as is set, and twice as long after each call that took longer. So
//! the largest batch is written one day, however slow the database.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// No call is given more, unless more is set.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// A call that took less than this part of its time shows that less is enough.
const SLACK: u32 = 4;

/// How often the time was doubled.
#[derive(Debug, Default)]
pub(super) struct Patience(AtomicU32);

impl Patience {
    /// How long a call may take, of which `set` is the least.
    pub(super) fn limit(&self, set: Duration) -> Duration {
        let doubled = set.saturating_mul(1 << self.0.load(Ordering::Relaxed).min(16));
        doubled.min(LONGEST.max(set))
    }

    /// A call took longer than that.
    pub(super) fn was_short(&self, set: Duration) {
        if self.limit(set) < LONGEST {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call took so long, and ended well.
    pub(super) fn was_enough(&self, set: Duration, took: Duration) {
        if took * SLACK < self.limit(set) {
            // Another call may have done the same.
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_doubles_while_it_is_short_and_shrinks_again() {
        let (patience, set) = (Patience::default(), Duration::from_secs(60));
        let mut seen = Vec::new();
        for _ in 0..8 {
            seen.push(patience.limit(set).as_secs());
            patience.was_short(set);
        }
        assert_eq!(seen, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        patience.was_enough(set, Duration::from_secs(3_000));
        assert_eq!(patience.limit(set).as_secs(), 3_600, "that was needed");
        for _ in 0..9 {
            patience.was_enough(set, Duration::from_secs(1));
        }
        assert_eq!(patience.limit(set), set);
        let day = Duration::from_secs(86_400);
        patience.was_short(day);
        assert_eq!(patience.limit(day), day);
    }
}
