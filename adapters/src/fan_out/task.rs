//! What is done for a follower, one thing at a time, until its wrapper is gone.

use std::collections::HashSet;
use std::sync::Arc;

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::name::{LogId, Position, RowId, TableName};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::follower::{Phase, Status, Work};
use super::refill::{Filled, Refill};
use super::{MARKS, Patience};
use crate::fit;

/// The only one that writes batches to a follower.
pub(super) struct Task {
    primary: Arc<dyn Adapter>,
    follower: Arc<dyn Adapter>,
    inbox: Inbox,
    refill: Option<Refill>,
    status: Arc<watch::Sender<Status>>,
    patience: Patience,
}

/// Whether the follower was heard of.
enum Spoke {
    No,
    Well,
}

/// What the primary has.
struct Inbox {
    queue: mpsc::Receiver<Work>,
    /// What was taken from the queue and could not be done yet.
    held: Option<Work>,
}

impl Inbox {
    fn next(&mut self) -> Option<Work> {
        self.held.take().or_else(|| self.queue.try_recv().ok())
    }

    async fn wait(&mut self) -> Work {
        match self.held.take() {
            Some(work) => work,
            None => match self.queue.recv().await {
                Some(work) => work,
                // The wrapper is gone, and ends this task with it.
                None => std::future::pending().await,
            },
        }
    }
}

impl Task {
    pub(super) fn new(
        (primary, follower): (Arc<dyn Adapter>, Arc<dyn Adapter>),
        queue: mpsc::Receiver<Work>,
        status: Arc<watch::Sender<Status>>,
        patience: Patience,
    ) -> Self {
        let inbox = Inbox { queue, held: None };
        Self { primary, follower, inbox, refill: None, status, patience }
    }

    /// Never ends: a follower that fails is tried again, after a pause.
    pub(super) async fn run(mut self) {
        let mut pause = self.patience.pause_min;
        loop {
            let phase = self.phase();
            let done = match phase {
                Phase::Comparing => self.compare().await,
                Phase::Following => self.follow().await,
                Phase::Refilling => self.fill().await,
            };
            let error = match done {
                Ok(Spoke::No) => continue,
                Ok(Spoke::Well) => {
                    pause = self.patience.pause_min;
                    self.status.send_if_modified(|status| status.error.take().is_some());
                    continue;
                }
                Err(error) => error,
            };
            if fit::is_outdated(&error) {
                // Its own error is the one to tell, if that is refused as well.
                let _ = self.prepare().await;
            }
            self.status.send_modify(|status| status.error = Some(error));
            sleep(pause).await;
            pause = (pause * 2).min(self.patience.pause_max);
        }
    }

    /// What to do next. A doubt ends the following, and no refill: that ends in comparing anyway.
    fn phase(&self) -> Phase {
        self.status.send_if_modified(|status| {
            let doubted = status.doubted && status.phase != Phase::Refilling;
            if doubted {
                (status.phase, status.doubted) = (Phase::Comparing, false);
            }
            doubted
        });
        self.status.borrow().phase
    }

    async fn compare(&mut self) -> Result<Spoke, AdapterError> {
        self.prepare().await?;
        let mut logs = self.patience.wait(self.primary.logs()).await?;
        logs.retain(|log| *log != MARKS);
        let marks_behind = self.is_behind(MARKS).await?;
        let mut behind = false;
        for log in logs {
            behind |= self.is_behind(log).await?;
        }
        if !marks_behind && !behind {
            self.enter(Phase::Following);
            return Ok(Spoke::Well);
        }
        // What it lacks may be on its way; but no batch has what a mark stands for.
        if !marks_behind
            && let Some(work) = self.inbox.next()
            && self.deliver(work).await?
        {
            return Ok(Spoke::Well);
        }
        self.enter(Phase::Refilling);
        Ok(Spoke::Well)
    }

    /// The primary is asked first: it may move on meanwhile, but what it had is a lot to be behind.
    async fn is_behind(&self, log: LogId) -> Result<bool, AdapterError> {
        let wanted = self.patience.wait(self.primary.watermark(log)).await?;
        let reached = self.patience.wait(self.follower.watermark(log)).await?;
        self.reached(log, reached);
        Ok(reached < wanted)
    }

    async fn follow(&mut self) -> Result<Spoke, AdapterError> {
        let mut status = self.status.subscribe();
        let doubt = async { drop(status.wait_for(|status| status.doubted).await) };
        let work = tokio::select! {
            biased;
            () = doubt => return Ok(Spoke::No),
            work = self.inbox.wait() => work,
        };
        if !self.deliver(work).await? {
            self.enter(Phase::Refilling);
        }
        Ok(Spoke::Well)
    }

    /// Whether a batch connects to what the follower has. If it can't be told, it is held.
    async fn deliver(&mut self, work: Work) -> Result<bool, AdapterError> {
        let batch = match work {
            Work::Batch(batch) => batch,
            // Who waits for it is told of an error by being told nothing.
            Work::Rows(table, row_ids, done) => {
                self.settle(&table, &row_ids).await?;
                Work::Rows(table, row_ids, done).done();
                return Ok(true);
            }
        };
        match self.patience.wait(self.follower.write(&batch)).await {
            Ok(()) => {
                self.reached(batch.log(), batch.last());
                Ok(true)
            }
            Err(AdapterError::Gap { .. }) => Ok(false),
            Err(error) => {
                self.inbox.held = Some(Work::Batch(batch));
                Err(error)
            }
        }
    }

    /// Has the follower hold of these rows what the primary holds of them.
    async fn settle(&self, table: &TableName, row_ids: &[RowId]) -> Result<(), AdapterError> {
        let held = self.patience.wait(self.primary.find(table, row_ids)).await?;
        let known: HashSet<_> = held.iter().map(|(row_id, _)| row_id).collect();
        let gone: Vec<_> = row_ids.iter().filter(|id| !known.contains(id)).cloned().collect();
        if !held.is_empty() {
            self.patience.wait(self.follower.join(table, &held)).await?;
        }
        if !gone.is_empty() {
            let gone = self.patience.wait(self.follower.find(table, &gone)).await?;
            self.patience.wait(self.follower.forget(table, &gone)).await?;
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<Spoke, AdapterError> {
        let (primary, follower) = (Arc::clone(&self.primary), Arc::clone(&self.follower));
        let (primary, follower) = (&*primary, &*follower);
        let is_last = self.refill.as_ref().is_some_and(Refill::is_last);
        let closed = is_last && self.close();
        if self.refill.is_none() {
            self.refill = Some(Refill::begin(primary, self.patience).await?);
            // From here on, what the primary is given without a batch may be missed.
            self.status.send_modify(|status| status.refills += 1);
            return Ok(Spoke::No);
        }
        // All that has come so far: then the queue has room, however long the refill takes.
        for _ in 0..=self.inbox.queue.max_capacity() {
            let Some(work) = self.inbox.next() else { break };
            let absorbed = match (&work, &mut self.refill) {
                (Work::Batch(batch), Some(refill)) => {
                    refill.absorb(batch, follower, self.patience).await
                }
                (Work::Batch(_), None) => Ok(false),
                (Work::Rows(table, row_ids, _), _) => {
                    self.settle(table, row_ids).await.map(|()| true)
                }
            };
            match absorbed {
                Ok(true) => work.done(),
                Ok(false) => {
                    // Something before it found no room: the primary has it by now.
                    self.enter(Phase::Refilling);
                    return Ok(Spoke::No);
                }
                Err(error) => {
                    self.inbox.held = Some(work);
                    return Err(error);
                }
            }
        }
        if is_last && !closed {
            self.wait_for_rows().await;
            return Ok(Spoke::No);
        }
        if closed && self.status.borrow().missed {
            self.enter(Phase::Refilling);
            return Ok(Spoke::No);
        }
        let Some(refill) = &mut self.refill else { return Ok(Spoke::No) };
        if refill.step(primary, follower, self.patience).await? == Filled::All {
            self.enter(Phase::Comparing);
        }
        Ok(Spoke::Well)
    }

    /// Lets no more rows be promised. Whether all that were have come, as far as the queue.
    fn close(&self) -> bool {
        self.status.send_if_modified(|status| !std::mem::replace(&mut status.closing, true));
        self.status.borrow().handing == 0
    }

    /// Waits until something has come, or nothing is promised any more.
    async fn wait_for_rows(&mut self) {
        let mut status = self.status.subscribe();
        let work = tokio::select! {
            work = self.inbox.wait() => Some(work),
            _ = status.wait_for(|status| status.handing == 0) => None,
        };
        self.inbox.held = work;
    }

    /// Its backend bounds how long it takes: widening a type may write a large table anew, and what
    /// is broken off begins from the start.
    async fn prepare(&self) -> Result<(), AdapterError> {
        let schema = self.patience.wait(self.primary.schema()).await?;
        self.follower.prepare(&schema).await
    }

    fn enter(&mut self, phase: Phase) {
        self.refill = None;
        self.status.send_modify(|status| {
            (status.phase, status.closing, status.missed) = (phase, false, false);
        });
    }

    fn reached(&self, log: LogId, position: Position) {
        self.status.send_modify(|status| {
            let known = status.watermarks.entry(log).or_default();
            *known = position.max(*known);
        });
    }
}
