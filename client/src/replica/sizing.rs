//! Whether a line is slow, and how large pushes and pages are: as large as the line carries in about
//! two seconds, so that a break costs little on a slow line and a fast one is not asked too often.
//! Starts anew with the process.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::db::PUSH_BYTES_MAX;

/// What takes longer than this is not made larger.
const GOOD: Duration = Duration::from_secs(2);
/// A line over which the first answer takes so long is slow until it has shown otherwise.
const SLOW_GREETING: Duration = Duration::from_millis(500);
const PUSH_BYTES_START: usize = 256 << 10;
const PUSH_BYTES_MIN: usize = 16 << 10;
const PAGE_BYTES_MAX: usize = 256 << 10;
const PAGE_BYTES_MIN: usize = 64 << 10;

/// The sizes in use.
#[derive(Debug)]
pub(super) struct Sizing(Mutex<Sizes>);

#[derive(Clone, Copy, Debug)]
struct Sizes {
    push: usize,
    page: usize,
    is_slow: bool,
}

impl Default for Sizing {
    fn default() -> Self {
        Self(Mutex::new(Sizes { push: PUSH_BYTES_START, page: PAGE_BYTES_MAX, is_slow: false }))
    }
}

impl Sizing {
    /// About how large the next push is to be.
    pub(super) fn push_bytes(&self) -> usize {
        self.sizes().push
    }

    /// Where the server is to close pages and chunks.
    pub(super) fn page_bytes(&self) -> usize {
        self.sizes().page
    }

    /// Whether bytes cost more than the work of compressing them.
    pub(super) fn is_slow(&self) -> bool {
        self.sizes().is_slow
    }

    /// The server has answered for the first time.
    pub(super) fn greeted(&self, took: Duration) {
        if SLOW_GREETING <= took {
            self.sizes().is_slow = true;
        }
    }

    /// A push was answered.
    pub(super) fn pushed(&self, bytes: usize, took: Duration) {
        let mut sizes = self.sizes();
        // One that was much smaller than it might have been says nothing of larger ones.
        if GOOD <= took {
            sizes.is_slow = true;
        } else if sizes.push / 2 < bytes {
            sizes.push = (sizes.push * 2).min(PUSH_BYTES_MAX);
            sizes.is_slow = false;
        }
    }

    /// The line broke under a push, or fell silent.
    pub(super) fn push_failed(&self) {
        let mut sizes = self.sizes();
        sizes.push = (sizes.push / 2).max(PUSH_BYTES_MIN);
    }

    /// A page or chunk has arrived, or a commit of several pages, `waited` after the one before it
    /// had been dealt with.
    pub(super) fn received(&self, bytes: u64, waited: Duration) {
        let mut sizes = self.sizes();
        let pages = u32::try_from(bytes / sizes.page as u64).unwrap_or(u32::MAX).max(1);
        if GOOD.saturating_mul(pages) <= waited {
            sizes.page = (sizes.page / 2).max(PAGE_BYTES_MIN);
            sizes.is_slow = true;
        } else if sizes.page as u64 / 2 < bytes {
            sizes.page = (sizes.page * 2).min(PAGE_BYTES_MAX);
            sizes.is_slow = false;
        }
    }

    /// The line broke under a stream, or fell silent.
    pub(super) fn stream_failed(&self) {
        let mut sizes = self.sizes();
        sizes.page = (sizes.page / 2).max(PAGE_BYTES_MIN);
    }

    fn sizes(&self) -> std::sync::MutexGuard<'_, Sizes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1_999);

    #[test]
    fn pushes_grow_while_they_are_quick_and_halve_when_the_line_fails() {
        let sizing = Sizing::default();
        assert_eq!(sizing.push_bytes(), 256 << 10);
        sizing.pushed(1 << 10, QUICK);
        assert_eq!(sizing.push_bytes(), 256 << 10, "a small one says nothing");
        sizing.pushed(256 << 10, GOOD);
        assert_eq!(sizing.push_bytes(), 256 << 10, "a slow one neither");
        let grown: Vec<_> = (0..5)
            .map(|_| {
                sizing.pushed(sizing.push_bytes(), QUICK);
                sizing.push_bytes() >> 10
            })
            .collect();
        assert_eq!(grown, [512, 1_024, 2_048, 3_584, 3_584], "up to what a message holds");
        sizing.push_failed();
        assert_eq!(sizing.push_bytes(), 1_792 << 10);
        (0..20).for_each(|_| sizing.push_failed());
        assert_eq!(sizing.push_bytes(), PUSH_BYTES_MIN);
    }

    #[test]
    fn a_line_is_slow_from_its_first_late_answer_to_its_first_quick_one_of_some_size() {
        let sizing = Sizing::default();
        sizing.greeted(Duration::from_millis(499));
        assert!(!sizing.is_slow());
        sizing.greeted(SLOW_GREETING);
        sizing.received(300, QUICK);
        sizing.pushed(300, QUICK);
        assert!(sizing.is_slow(), "small messages say nothing");
        sizing.received(256 << 10, QUICK);
        assert!(!sizing.is_slow());
        sizing.pushed(300, GOOD);
        assert!(sizing.is_slow());
    }

    #[test]
    fn a_large_commit_is_given_the_time_of_its_pages() {
        let sizing = Sizing::default();
        sizing.received(4 << 20, Duration::from_secs(20));
        assert_eq!((sizing.is_slow(), sizing.page_bytes()), (false, 256 << 10), "16 pages");
        sizing.received(4 << 20, Duration::from_secs(32));
        assert_eq!((sizing.is_slow(), sizing.page_bytes()), (true, 128 << 10));
    }

    #[test]
    fn pages_stay_between_their_bounds() {
        let sizing = Sizing::default();
        assert_eq!(sizing.page_bytes(), 256 << 10);
        sizing.received(256 << 10, GOOD);
        sizing.stream_failed();
        sizing.stream_failed();
        assert_eq!(sizing.page_bytes(), 64 << 10);
        sizing.received(300, QUICK);
        assert_eq!(sizing.page_bytes(), 64 << 10, "a small page says nothing");
        (0..3).for_each(|_| sizing.received(64 << 11, QUICK));
        assert_eq!(sizing.page_bytes(), 256 << 10);
    }
}
