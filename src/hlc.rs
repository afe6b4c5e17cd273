//! The hybrid logical clock: wall time that never runs backwards and never repeats.
//!
//! After Kulkarni et al., "Logical Physical Clocks" (2014), with the counter in the low bits, so
//! that a full counter carries into the milliseconds instead of overflowing.

use std::fmt;
use std::time::Duration;

/// 48 bits of milliseconds since the Unix epoch, then 16 bits of counter.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(pub u64);

const COUNTER_BITS: u32 = 16;

impl Hlc {
    /// The first reading of a millisecond.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms << COUNTER_BITS)
    }

    /// Milliseconds since the Unix epoch.
    pub fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("BUG: the clock reached the end of 48-bit time"))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hlc({}+{})", self.ms(), self.0 & 0xffff)
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A remote clock is too far ahead to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stamp is {ahead_ms} ms ahead of the server's clock; the limit is {limit_ms} ms")]
pub struct Drift {
    /// How far ahead, in milliseconds.
    pub ahead_ms: u64,
    /// How far is allowed, in milliseconds.
    pub limit_ms: u64,
}

/// One process's clock. Readings are strictly increasing, except after [`Clock::settle`].
#[derive(Clone, Debug)]
pub struct Clock {
    last: Hlc,
    drift_max_ms: u64,
}

impl Clock {
    /// A clock that has read nothing yet and follows others at most `drift_max` ahead.
    pub fn new(drift_max: Duration) -> Self {
        let drift_max_ms = u64::try_from(drift_max.as_millis()).unwrap_or(u64::MAX);
        Self { last: Hlc::default(), drift_max_ms }
    }

    /// A clock that goes on after `last`, which was read before a restart.
    pub fn resume(last: Hlc, drift_max: Duration) -> Self {
        Self { last, ..Self::new(drift_max) }
    }

    /// The next reading at wall time `wall_ms`.
    pub fn now(&mut self, wall_ms: u64) -> Hlc {
        self.last = self.last.next().max(Hlc::from_ms(wall_ms));
        self.last
    }

    /// Whether a remote reading may be followed. Moves nothing.
    pub fn check(&self, remote: Hlc, wall_ms: u64) -> Result<(), Drift> {
        let ahead_ms = remote.ms().saturating_sub(wall_ms);
        if ahead_ms > self.drift_max_ms {
            return Err(Drift { ahead_ms, limit_ms: self.drift_max_ms });
        }
        Ok(())
    }

    /// Forgets its last reading if that is further ahead of the wall clock than may be followed: the
    /// wall clock was ahead once and was set back. Readings then begin anew at the wall. Returns how
    /// far ahead the forgotten reading was.
    pub fn settle(&mut self, wall_ms: u64) -> Option<Drift> {
        let drift = self.check(self.last, wall_ms).err()?;
        self.last = Hlc::default();
        Some(drift)
    }

    /// Moves past a remote reading, or stands still if it is too far ahead.
    pub fn observe(&mut self, remote: Hlc, wall_ms: u64) -> Result<Hlc, Drift> {
        self.check(remote, wall_ms)?;
        self.last = self.last.next().max(remote.next()).max(Hlc::from_ms(wall_ms));
        Ok(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn a_wall_clock_that_was_set_back_is_followed_beyond_the_limit_only() {
        for (back_ms, settles) in [(0, false), (5_000, false), (5_001, true), (86_400_000, true)] {
            let wall_ms = 1_000_000_000;
            let mut clock = Clock::new(LIMIT);
            let last = clock.now(wall_ms + back_ms);
            let settled = clock.settle(wall_ms);
            let drift = Drift { ahead_ms: back_ms, limit_ms: 5_000 };
            assert_eq!(settled, settles.then_some(drift), "{back_ms}");
            let next = clock.now(wall_ms);
            assert_eq!(next <= last, settles, "{back_ms}");
            assert_eq!(next == Hlc::from_ms(wall_ms), settles, "{back_ms}");
        }
    }

    #[test]
    fn a_reading_that_is_too_far_ahead_moves_nothing() {
        let mut clock = Clock::new(LIMIT);
        let before = clock.now(1_000);
        assert!(clock.observe(Hlc::from_ms(6_001), 1_000).is_err());
        assert_eq!(clock.now(1_000).0, before.0 + 1);
        assert!(clock.observe(Hlc::from_ms(6_000), 1_000).is_ok_and(|next| 6_000 <= next.ms()));
    }
}
