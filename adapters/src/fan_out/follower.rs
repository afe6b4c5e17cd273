//! A follower as its wrapper sees it: a bounded queue of batches, and what its task says of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use lakesync::adapter::{Adapter, AdapterError, Batch};
use lakesync::name::{LogId, Position, RowId, TableName};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::task::Task;
use super::{Lag, Patience};
use crate::fit;

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
    /// How many calls will hand rows to its refill, which does not end before.
    pub(super) handing: usize,
    /// Whether a refill does its last steps: rows that come now must wait.
    pub(super) closing: bool,
    /// Whether a call has handed over nothing, so that the refill has to begin again.
    pub(super) missed: bool,
}

/// What a follower is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// What the primary has.
    Batch(Arc<Batch>),
    /// Rows that the primary was given or has let go of without a batch. It is told when it is done;
    /// nobody is told otherwise.
    Rows(TableName, Vec<RowId>, Option<oneshot::Sender<()>>),
}

impl Work {
    /// Tells who waits for it, if anybody does.
    pub(super) fn done(self) {
        if let Self::Rows(_, _, Some(done)) = self {
            // Who waited no longer has marked it.
            let _ = done.send(());
        }
    }
}

/// The promise of a call to hand over rows.
#[derive(Debug)]
pub(super) struct Handing<'f> {
    follower: &'f Follower,
    done: bool,
}

impl Drop for Handing<'_> {
    fn drop(&mut self) {
        self.follower.status.send_modify(|status| {
            status.handing -= 1;
            status.missed |= !self.done;
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
    primary: Arc<dyn Adapter>,
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
        if !self.queued(Work::Batch(batch)).await {
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

    /// If the follower is being refilled: the promise to [`hand`](Self::hand) it rows.
    pub(super) async fn handing(&self) -> Option<Handing<'_>> {
        let mut closed = self.status.subscribe();
        let closed = closed.wait_for(|status| !status.closing || status.error.is_some());
        let _ = timeout(self.patience.answer, closed).await.map(drop);
        let promised = self.status.send_if_modified(|status| {
            let promised = status.phase == Phase::Refilling && !status.closing;
            status.handing += usize::from(promised);
            promised
        });
        promised.then(|| Handing { follower: self, done: false })
    }

    /// Has a refill look at rows, once the primary has them or has let go of them.
    pub(super) async fn hand(&self, mut handing: Handing<'_>, table: &TableName, ids: Vec<RowId>) {
        handing.done = self.queued(Work::Rows(table.clone(), ids, None)).await;
    }

    /// Whether the follower, after all that is queued, holds of these rows what the primary does.
    pub(super) async fn settled(&self, table: &TableName, ids: Vec<RowId>) -> bool {
        let (done, told) = oneshot::channel();
        let settle = async {
            self.queued(Work::Rows(table.clone(), ids, Some(done))).await && told.await.is_ok()
        };
        self.status.borrow().error.is_none()
            && timeout(self.patience.answer, settle).await.unwrap_or_else(|_| {
                self.status.send_modify(|status| {
                    status.error.get_or_insert_with(|| self.patience.lost());
                });
                false
            })
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
        if done.as_ref().is_err_and(fit::is_outdated) {
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
