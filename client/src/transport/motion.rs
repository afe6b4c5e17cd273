//! Progress, counted in bytes: whoever waits for a server goes on waiting while its connection
//! moves, however slow it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

/// What must move within a limit of silence, either way, for a connection to count as moving. PINGs
/// and heartbeats need less: they show that the server is there, not that it works on a call.
const MOVING_BYTES_MIN: u64 = 4 << 10;

/// The bytes that the connections of a channel have moved.
#[derive(Debug, Default)]
pub(super) struct Meter(AtomicU64);

impl Meter {
    pub(super) fn count(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Nothing came, and nothing moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silent;

/// Awaits `work`. Gives it up once `silence_max` has passed in which `bytes_moved` hardly grew.
pub(crate) async fn unless_silent<F: Future>(
    silence_max: Duration,
    bytes_moved: impl Fn() -> u64,
    work: F,
) -> Result<F::Output, Silent> {
    tokio::pin!(work);
    let mut before = bytes_moved();
    loop {
        if let Ok(output) = timeout(silence_max, work.as_mut()).await {
            return Ok(output);
        }
        let now = bytes_moved();
        if now.saturating_sub(before) < MOVING_BYTES_MIN {
            return Err(Silent);
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{Instant, sleep};

    use super::*;

    const SILENCE_MAX: Duration = Duration::from_secs(45);

    /// How long a call of an hour is waited for, on a line that moves `bytes` each `every`.
    async fn waited(bytes: usize, every: Duration) -> (Result<(), Silent>, u64) {
        let meter = Arc::new(Meter::default());
        let moving = Arc::clone(&meter);
        let moves = tokio::spawn(async move {
            loop {
                sleep(every).await;
                moving.count(bytes);
            }
        });
        let began = Instant::now();
        let call = sleep(Duration::from_secs(3_600));
        let outcome = unless_silent(SILENCE_MAX, || meter.bytes(), call).await;
        moves.abort();
        (outcome, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_lasts_for_as_long_as_bytes_move() {
        assert_eq!(waited(1 << 10, Duration::from_secs(8)).await, (Ok(()), 3_600));
        assert_eq!(waited(32 << 10, Duration::from_secs(40)).await, (Ok(()), 3_600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_when_only_signs_of_life_move() {
        assert_eq!(waited(400, Duration::from_secs(15)).await, (Err(Silent), 45));
        assert_eq!(waited(0, Duration::from_secs(15)).await, (Err(Silent), 45));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_stops_moving_is_noticed() {
        let meter = Meter::default();
        let call = async {
            meter.count(1 << 20);
            sleep(Duration::from_secs(3_600)).await;
        };
        let began = Instant::now();
        assert_eq!(unless_silent(SILENCE_MAX, || meter.bytes(), call).await, Err(Silent));
        assert_eq!(began.elapsed().as_secs(), 90);
    }
}
