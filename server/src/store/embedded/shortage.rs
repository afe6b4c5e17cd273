//! Running out of file descriptors says nothing about the disk: the store waits until there is one
//! again. Commits wait behind it, so that callers hear of an overload.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::engine::Engine;
use crate::store::StoreError;

/// How long to wait before another attempt.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is logged that the store waits.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What may fail for want of a descriptor.
pub(super) trait Lacking {
    fn is_shortage(&self) -> bool;
}

impl Lacking for io::Error {
    fn is_shortage(&self) -> bool {
        let errno = self.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE))
    }
}

impl Lacking for StoreError {
    fn is_shortage(&self) -> bool {
        matches!(self, Self::Shortage(_))
    }
}

/// Tries until it does not fail for want of a descriptor, or the store stops.
pub(super) fn patiently<T, E: Lacking>(
    engine: &Engine,
    attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    until(|| engine.is_stopped(), attempt)
}

fn until<T, E: Lacking>(
    stopped: impl Fn() -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut logged: Option<Instant> = None;
    loop {
        match attempt() {
            Err(error) if error.is_shortage() && !stopped() => {}
            outcome => return outcome,
        }
        if logged.is_none_or(|logged| LOG_EVERY <= logged.elapsed()) {
            logged = Some(Instant::now());
            tracing::error!(
                "the store waits for a file descriptor; raise the limit (ulimit -n, LimitNOFILE) or \
                 lower connections_max"
            );
        }
        std::thread::park_timeout(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(errno: Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn it_waits_for_a_descriptor_and_for_nothing_else() {
        for errno in [Errno::MFILE, Errno::NFILE] {
            let mut left = 3;
            let outcome = until(
                || false,
                || {
                    left -= 1;
                    if left == 0 { Ok(7) } else { Err(lacking(errno)) }
                },
            );
            assert_eq!(outcome.expect("in the end"), 7);
        }
        let mut times = 0;
        let failed: Result<(), _> = until(
            || false,
            || {
                times += 1;
                Err(lacking(Errno::IO))
            },
        );
        assert_eq!((failed.expect_err("a failure").raw_os_error(), times), (Some(5), 1));
        let stopped: Result<(), _> = until(|| true, || Err(lacking(Errno::MFILE)));
        stopped.expect_err("a store that stops does not wait");
    }
}
