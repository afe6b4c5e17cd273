//! A follower as its wrapper sees it: a bounded queue of work, and what its task says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lakesync::adapter::{Adapter, AdapterError, Batch};
use lakesync::name::{LogId, Position};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::moved::Moved;
use super::task::Task;
use super::{Lag, Patience};

/// What waits for a follower. One that is away for longer is refilled.
const QUEUE_WORKS_MAX: usize = 16;

/// What is known of a follower.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub(super) phase: Phase,
    pub(super) watermarks: BTreeMap<LogId, Position>,
    pub(super) error: Option<AdapterError>,
    /// Whether something was kept from it, or may have been.
    pub(super) doubted: bool,
    /// The marks before those that are on their way to it: it will come by them, or be doubted.
    pub(super) promised: BTreeSet<Position>,
}

impl Status {
    /// How far a follower that has come to the mark `reached` will come by what is on its way.
    pub(super) fn will_reach(&self, mut reached: Position) -> Position {
        while self.promised.contains(&reached) {
            reached = reached.next();
        }
        reached
    }
}

/// What a follower is to do, once the primary has done it.
#[derive(Debug)]
pub(super) enum Work {
    /// To write a batch.
    Batch(Arc<Batch>),
    /// To look at what came or went without one, and to take its mark.
    Moved(Arc<Moved>, Promise),
}

impl Work {
    pub(super) fn done(self) {
        if let Self::Moved(_, promise) = self {
            promise.keep();
        }
    }
}

/// That a follower will be given the mark after `before`. If it is dropped, the follower has missed it.
#[derive(Debug)]
pub(super) struct Promise {
    pub(super) before: Position,
    status: Arc<watch::Sender<Status>>,
    kept: bool,
}

impl Promise {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.status.send_modify(|status| {
            status.promised.remove(&self.before);
            status.doubted |= !self.kept;
        });
    }
}

/// What a follower's task is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Finding out whether it has all that the primary has.
    #[default]
    Comparing,
    /// It has, and is given what comes.
    Following,
    /// It has not, and is given all there is.
    Refilling,
}

#[derive(Debug)]
pub(super) struct Follower {
    name: String,
    pub(super) adapter: Arc<dyn Adapter>,
    patience: Patience,
    queue: mpsc::Sender<Work>,
    status: Arc<watch::Sender<Status>>,
}

impl Follower {
    /// A follower, and the task that it needs.
    pub(super) fn new(
        name: String,
        adapter: Arc<dyn Adapter>,
        primary: Arc<dyn Adapter>,
        patience: Patience,
    ) -> (Self, Task) {
        let (queue, inbox) = mpsc::channel(QUEUE_WORKS_MAX);
        let status = Arc::new(watch::Sender::new(Status::default()));
        let backends = (primary, Arc::clone(&adapter));
        let task = Task::new(backends, inbox, Arc::clone(&status), patience);
        (Self { name, adapter, patience, queue, status }, task)
    }

    pub(super) fn lag(&self) -> Lag {
        let Status { watermarks, phase, error, .. } = self.status.borrow().clone();
        Lag { name: self.name.clone(), watermarks, refilling: phase == Phase::Refilling, error }
    }

    /// Has the task look whether the follower has all that the primary has.
    pub(super) fn doubt(&self) {
        self.status.send_modify(|status| status.doubted = true);
    }

    /// Tells the follower's task that the mark after `before` will come, before the primary has it.
    pub(super) fn promise(&self, before: Position) -> Promise {
        self.status.send_modify(|status| {
            status.promised.insert(before);
        });
        Promise { before, status: Arc::clone(&self.status), kept: false }
    }

    /// Queues what the primary has. If the follower is slow, this waits for room; what finds none
    /// comes with the refill.
    pub(super) async fn offer(&self, work: Work) {
        if !self.queued(work).await {
            self.status.send_modify(|status| {
                // The next writes do not wait until its task has come a step further.
                status.error.get_or_insert_with(|| self.patience.lost());
                status.doubted = true;
            });
        }
    }

    async fn queued(&self, work: Work) -> bool {
        let work = match self.queue.try_send(work) {
            Ok(()) => return true,
            Err(TrySendError::Full(work) | TrySendError::Closed(work)) => work,
        };
        let fails = self.status.borrow().error.is_some();
        !fails && matches!(timeout(self.patience.answer, self.queue.send(work)).await, Ok(Ok(())))
    }

    /// Waits until the follower has come as far as `wanted`.
    pub(super) async fn reached(&self, wanted: &BTreeMap<LogId, Position>) {
        let has = |status: &Status, (log, position): (&LogId, &Position)| {
            *position <= status.watermarks.get(log).copied().unwrap_or_default()
        };
        let mut status = self.status.subscribe();
        let reached = status.wait_for(|status| {
            let follows = status.phase == Phase::Following && !status.doubted;
            follows && wanted.iter().all(|each| has(status, each))
        });
        reached.await.expect("BUG: this keeps the sender");
    }
}
