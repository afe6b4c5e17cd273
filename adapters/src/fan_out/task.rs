//! What is done for a follower, one thing at a time, until its wrapper is gone.

use std::sync::Arc;

use lakesync::adapter::{Adapter, AdapterError, Batch};
use lakesync::name::{LogId, Position};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::follower::{Phase, Status};
use super::refill::{Filled, Refill};
use super::{MARKS, Patience};

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

/// Batches that the primary has.
struct Inbox {
    queue: mpsc::Receiver<Arc<Batch>>,
    /// What was taken from the queue and could not be written yet.
    held: Option<Arc<Batch>>,
}

impl Inbox {
    fn next(&mut self) -> Option<Arc<Batch>> {
        self.held.take().or_else(|| self.queue.try_recv().ok())
    }

    async fn wait(&mut self) -> Arc<Batch> {
        match self.held.take() {
            Some(batch) => batch,
            None => match self.queue.recv().await {
                Some(batch) => batch,
                // The wrapper is gone, and ends this task with it.
                None => std::future::pending().await,
            },
        }
    }
}

impl Task {
    pub(super) fn new(
        (primary, follower): (Arc<dyn Adapter>, Arc<dyn Adapter>),
        queue: mpsc::Receiver<Arc<Batch>>,
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
            if let AdapterError::UnknownTable(_) | AdapterError::UnknownColumn { .. } = error {
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
            && let Some(batch) = self.inbox.next()
            && self.deliver(batch).await?
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
        let batch = tokio::select! {
            biased;
            () = doubt => return Ok(Spoke::No),
            batch = self.inbox.wait() => batch,
        };
        if !self.deliver(batch).await? {
            self.enter(Phase::Refilling);
        }
        Ok(Spoke::Well)
    }

    /// Whether `batch` connects to what the follower has. If it can't be told, it is held.
    async fn deliver(&mut self, batch: Arc<Batch>) -> Result<bool, AdapterError> {
        match self.patience.wait(self.follower.write(&batch)).await {
            Ok(()) => {
                self.reached(batch.log(), batch.last());
                Ok(true)
            }
            Err(AdapterError::Gap { .. }) => Ok(false),
            Err(error) => {
                self.inbox.held = Some(batch);
                Err(error)
            }
        }
    }

    async fn fill(&mut self) -> Result<Spoke, AdapterError> {
        let (primary, follower) = (&*self.primary, &*self.follower);
        let Some(refill) = &mut self.refill else {
            self.refill = Some(Refill::begin(primary, self.patience).await?);
            // From here on, what the primary is given without a batch may be missed.
            self.status.send_modify(|status| status.refills += 1);
            return Ok(Spoke::No);
        };
        // All that has come so far: then the queue has room, however long the refill takes.
        for _ in 0..=self.inbox.queue.max_capacity() {
            let Some(batch) = self.inbox.next() else { break };
            match refill.absorb(&batch, follower, self.patience).await {
                Ok(true) => {}
                Ok(false) => {
                    // Something before it found no room: the primary has it by now.
                    self.enter(Phase::Refilling);
                    return Ok(Spoke::No);
                }
                Err(error) => {
                    self.inbox.held = Some(batch);
                    return Err(error);
                }
            }
        }
        if refill.step(primary, follower, self.patience).await? == Filled::All {
            self.enter(Phase::Comparing);
        }
        Ok(Spoke::Well)
    }

    async fn prepare(&self) -> Result<(), AdapterError> {
        let schema = self.patience.wait(self.primary.schema()).await?;
        self.patience.wait(self.follower.prepare(&schema)).await
    }

    fn enter(&mut self, phase: Phase) {
        self.refill = None;
        self.status.send_modify(|status| status.phase = phase);
    }

    fn reached(&self, log: LogId, position: Position) {
        self.status.send_modify(|status| {
            let known = status.watermarks.entry(log).or_default();
            *known = position.max(*known);
        });
    }
}
