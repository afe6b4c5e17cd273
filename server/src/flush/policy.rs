//! When a backend is given what has gathered, and how long to wait after a failure. Pure: time and
//! randomness are arguments.

use std::time::Duration;

/// What makes a batch, whichever comes first; and how often a backend is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// As many changes.
    pub changes: u64,
    /// As many bytes of commits.
    pub bytes: u64,
    /// The oldest commit has waited for so long.
    pub age: Duration,
    /// A backend that has everything is asked that often how far it has come: somebody may have
    /// emptied it, or put it back to an older state.
    pub check_every: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let (age, check_every) = (Duration::from_secs(1), Duration::from_secs(60));
        Self { changes: 10_000, bytes: 8 << 20, age, check_every }
    }
}

impl Policy {
    /// Whether so many changes and bytes are enough.
    pub(super) fn is_enough(&self, changes: u64, bytes: u64) -> bool {
        self.changes <= changes || self.bytes <= bytes
    }
}

/// The bound of the first wait after a failure.
const FIRST: Duration = Duration::from_millis(100);
/// The bound of every wait, in the end.
const LONGEST: Duration = Duration::from_secs(30);

/// The waits after failures in a row: any time between half a bound and all of it, where the bound
/// doubles with every failure. Gateways that lost one backend together do not come back together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something worked: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after another failure; `random` is any number.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let bound = FIRST.saturating_mul(1_u32 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let half = bound / 2;
        let half_us = u64::try_from(half.as_micros()).expect("BUG: waits are short");
        half + Duration::from_micros(random % (half_us + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_begin_anew() {
        for random in [0, 7, u64::MAX] {
            let mut backoff = Backoff::default();
            for bound_ms in
                [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]
            {
                let (wait, bound) = (backoff.next(random), Duration::from_millis(bound_ms));
                assert!(bound / 2 <= wait && wait <= bound, "{wait:?} of {bound:?}");
            }
            backoff.reset();
            assert!(backoff.next(random) <= FIRST);
        }
    }

    #[test]
    fn enough_is_enough_of_either() {
        let policy = Policy { changes: 10, bytes: 100, ..Policy::default() };
        for (changes, bytes, enough) in [(9, 99, false), (10, 0, true), (0, 100, true)] {
            assert_eq!(
                policy.is_enough(changes, bytes),
                enough,
                "{changes} changes, {bytes} bytes"
            );
        }
    }
}
