//! How long to wait before trying again. Pure: the caller supplies the randomness.
//!
//! Full jitter: any time between nothing and a bound that doubles with every failure, so that
//! replicas that lost one server together do not come back together.

use std::time::Duration;

use lakesync::error::{ErrorKind, Reason};
use lakesync::status::Problem;

/// How the waits grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The bound of the first wait.
    pub first: Duration,
    /// The bound of every wait, in the end.
    pub max: Duration,
    /// The wait where only a person can help, or much time: a refused token, a damaged server,
    /// stamps that stay ahead of the server's clock.
    pub slow: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            max: Duration::from_secs(5),
            slow: Duration::from_secs(60),
        }
    }
}

/// The waits after failures in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pace: Pace,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, failures: 0 }
    }

    /// Something worked: the next failure is the first again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after a failure. A server that asks for a pause is given it, and a little
    /// more, since it asks others for the same.
    pub(crate) fn after(&mut self, failure: &Failure, random: u64) -> Duration {
        let doubled = self.pace.first.saturating_mul(1_u32 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let jitter = share(doubled.min(self.pace.max), random);
        match failure {
            Failure::AskedToWait(pause) => *pause + jitter,
            Failure::NeedsPerson => self.pace.slow / 2 + share(self.pace.slow / 2, random),
            Failure::Passing => jitter,
        }
    }
}

/// A failure, as far as the next attempt is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server says when to come back.
    AskedToWait(Duration),
    /// It will fail again until a person has changed something.
    NeedsPerson,
    /// It may work any moment.
    Passing,
}

impl Failure {
    /// What `problem` means for the next attempt.
    pub(crate) fn of(problem: &Problem) -> Self {
        if let Some(pause) = problem.retry_after {
            return Self::AskedToWait(pause);
        }
        match problem.kind {
            ErrorKind::Invalid
            | ErrorKind::Unauthenticated
            | ErrorKind::Denied
            | ErrorKind::Unsupported
            | ErrorKind::Corrupt => Self::NeedsPerson,
            _ if problem.reason == Some(Reason::ProtocolUnsupported) => Self::NeedsPerson,
            _ => Self::Passing,
        }
    }
}

/// A share of `whole`, evenly distributed.
fn share(whole: Duration, random: u64) -> Duration {
    let nanos = whole.as_nanos().saturating_mul(u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u64 = 1 << 63;

    fn waits(failure: Failure, count: usize) -> Vec<u128> {
        let mut backoff = Backoff::new(Pace::default());
        (0..count).map(|_| backoff.after(&failure, HALF).as_millis()).collect()
    }

    #[test]
    fn waits_double_up_to_their_bound() {
        assert_eq!(waits(Failure::Passing, 8), [50, 100, 200, 400, 800, 1600, 2500, 2500]);
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::new(Pace::default());
        assert_eq!(backoff.after(&Failure::Passing, 0), Duration::ZERO);
        let longest = backoff.after(&Failure::Passing, u64::MAX);
        assert!(longest <= Duration::from_millis(200) && Duration::from_millis(199) < longest);
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(Pace::default());
        backoff.after(&Failure::Passing, HALF);
        backoff.reset();
        assert_eq!(backoff.after(&Failure::Passing, HALF), Duration::from_millis(50));
    }

    #[test]
    fn a_server_that_asks_for_a_pause_is_given_it() {
        let pause = Duration::from_secs(7);
        assert_eq!(waits(Failure::AskedToWait(pause), 2), [7050, 7100]);
    }

    #[test]
    fn what_needs_a_person_is_tried_slowly() {
        assert_eq!(waits(Failure::NeedsPerson, 2), [45_000, 45_000]);
    }

    #[test]
    fn endless_failures_do_not_overflow() {
        let mut backoff = Backoff { pace: Pace::default(), failures: u32::MAX };
        assert!(backoff.after(&Failure::Passing, u64::MAX) <= Pace::default().max);
    }
}
