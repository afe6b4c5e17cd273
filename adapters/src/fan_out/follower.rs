//! A follower as its wrapper sees it: a bounded queue of batches, and what its task says of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use lakesync::adapter::{Adapter, AdapterError, Batch};
use lakesync::name::{LogId, Position};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::task::Task;
use super::{Lag, Patience};

/// Batches that wait for a follower. One that is away for longer is refilled.
const QUEUE_BATCHES_MAX: usize = 16;

/// What is known of a follower.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub(super) phase: Phase,
    pub(super) watermarks: BTreeMap<LogId, Position>,
    pub(super) error: Option<AdapterError>,
    /// How many refills have begun.
    pub(super) refills: u64,
    /// Whether something was kept from it, or may have been.
    pub(super) doubted: bool,
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
    primary: Arc<dyn Adapter>,
    patience: Patience,
    queue: mpsc::Sender<Arc<Batch>>,
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
        let (queue, inbox) = mpsc::channel(QUEUE_BATCHES_MAX);
        let status = Arc::new(watch::Sender::new(Status::default()));
        let backends = (Arc::clone(&primary), Arc::clone(&adapter));
        let task = Task::new(backends, inbox, Arc::clone(&status), patience);
        (Self { name, adapter, primary, patience, queue, status }, task)
    }

    pub(super) fn lag(&self) -> Lag {
        let Status { watermarks, phase, error, .. } = self.status.borrow().clone();
        Lag { name: self.name.clone(), watermarks, refilling: phase == Phase::Refilling, error }
    }

    pub(super) fn refills(&self) -> u64 {
        self.status.borrow().refills
    }

    /// Has the task look whether the follower has all that the primary has.
    pub(super) fn doubt(&self) {
        self.status.send_modify(|status| status.doubted = true);
    }

    /// Queues what the primary has. If the follower is slow, this waits for room; what finds none
    /// comes with the refill.
    pub(super) async fn offer(&self, batch: Arc<Batch>) {
        let batch = match self.queue.try_send(batch) {
            Ok(()) => return,
            Err(TrySendError::Full(batch) | TrySendError::Closed(batch)) => batch,
        };
        let fails = self.status.borrow().error.is_some();
        let send = timeout(self.patience.answer, self.queue.send(batch));
        if fails || !matches!(send.await, Ok(Ok(()))) {
            self.doubt();
        }
    }

    /// Whether the follower has done what the queue does not carry. One that fails is not asked.
    pub(super) async fn call<'a, F>(&'a self, call: impl Fn(&'a dyn Adapter) -> F) -> bool
    where
        F: Future<Output = Result<(), AdapterError>>,
    {
        {
            let status = self.status.borrow();
            if status.error.is_some() || status.phase == Phase::Refilling {
                return false;
            }
        }
        let mut done = self.patience.wait(call(&*self.adapter)).await;
        if let Err(AdapterError::UnknownTable(_) | AdapterError::UnknownColumn { .. }) = done {
            // It was to be prepared in its own time, and this came first.
            done = self.patience.wait(self.prepare()).await;
            if done.is_ok() {
                done = self.patience.wait(call(&*self.adapter)).await;
            }
        }
        let Err(error) = done else { return true };
        self.status.send_modify(|status| {
            status.error = Some(error);
            status.doubted = true;
        });
        false
    }

    async fn prepare(&self) -> Result<(), AdapterError> {
        self.adapter.prepare(&self.primary.schema().await?).await
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
