//! What all gateways of a process share: their limits, and what their logs are flushed to.

use std::sync::Arc;
use std::time::Duration;

use lakesync::adapter::Capacity;
use lakesync::limits;

use super::{Allowance, Bug, Planted, QUEUE_SHARE, QUEUE_SHARE_BYTES_MIN};

/// What all gateways of a process share.
#[derive(Debug)]
pub struct Settings {
    /// How far ahead of the server's clock a stamp may be.
    pub clock_drift_max: Duration,
    /// How long deletes are remembered, and a replica may stay away.
    pub offline_max: Duration,
    /// How large a log may grow before its oldest commits are forgotten, in bytes. Rows stay. A log
    /// that waits for a backend is not forgotten: pushes are refused once it has grown to this.
    pub log_bytes_max: u64,
    /// The longest silence on a followed pull.
    pub heartbeat: Duration,
    /// How long a reader may take nothing before its stream is cut.
    pub stall_max: Duration,
    /// How much memory all queued pushes may take, in bytes.
    pub queue_bytes_max: usize,
    /// How much all readers may hold in memory together, in bytes.
    pub readers_bytes_max: usize,
    /// What each subject may take of a gateway.
    pub each_subject: Allowance,
    /// What all callers of a gateway may take of it together.
    pub each_gateway: Allowance,
    /// The backends that the log is flushed to, by name. Trimming waits for them.
    pub backends: Vec<Arc<str>>,
    /// What all of the backends can hold.
    pub capacity: Capacity,
    /// A bug to suffer from, so that tests can show that they find it.
    pub planted: Option<Arc<Planted>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            clock_drift_max: limits::CLOCK_DRIFT_MAX,
            offline_max: limits::OFFLINE_MAX,
            log_bytes_max: 4 << 30,
            heartbeat: limits::HEARTBEAT,
            stall_max: Duration::from_secs(60),
            queue_bytes_max: 256 << 20,
            readers_bytes_max: 256 << 20,
            each_subject: Allowance::default(),
            each_gateway: Allowance::default(),
            backends: Vec::new(),
            capacity: Capacity::ALL,
            planted: None,
        }
    }
}

impl Settings {
    /// How much memory the queued pushes of one gateway may take.
    pub(super) fn share_bytes(&self) -> usize {
        (self.queue_bytes_max / QUEUE_SHARE).max(QUEUE_SHARE_BYTES_MIN)
    }

    /// The planted bug, if it is this one.
    pub(super) fn suffers(&self, bug: Bug) -> Option<&Planted> {
        self.planted.as_deref().filter(|planted| planted.is(bug))
    }
}
