//! One turn: what was done in it, how long it took, and what it cost the server.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// No turn takes longer: it ends then, with what it has done.
pub(super) const TURN_MAX: Duration = Duration::from_secs(60);
/// The slowest step that can be told from slower ones.
const LATENCY_US_MAX: u64 = 120_000_000;

/// What one server did in its turn.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    /// Changes or rows.
    pub(super) items: u64,
    pub(super) elapsed: Duration,
    /// What the server computed meanwhile and until it came to rest, where the system tells.
    pub(super) cpu: Option<Duration>,
    pub(super) latencies: Latencies,
}

/// How long the steps took: pushes, or pages.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Turn {
    /// Changes or rows in a second.
    pub(super) fn rate(&self) -> f64 {
        self.items as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Microseconds that the server computed for each change or row.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        Some(self.cpu?.as_secs_f64() * 1e6 / self.items as f64)
    }
}

impl Latencies {
    pub(super) fn new() -> Self {
        let empty = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Self(empty.expect("BUG: illegal bounds of a histogram"))
    }

    pub(super) fn record(&mut self, since: Instant) {
        self.took(since.elapsed());
    }

    pub(super) fn took(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.0.saturating_record(us);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("BUG: histograms of different bounds");
    }

    /// Milliseconds that `percent` of the steps did not exceed.
    pub(super) fn ms(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1e3
    }
}
