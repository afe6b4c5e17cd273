//! What is done for a follower, one thing at a time, until its wrapper is gone.

use std::sync::Arc;

use lakesync::adapter::{Adapter, AdapterError};
use lakesync::name::{LogId, Position};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::follower::{Phase, Status, Work};
use super::refill::{Filled, Refill};
use super::{MARKS, Patience, marks};
use crate::fit;

/// The only one that writes to a follower.
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
        // A mark is promised before the primary has it, so each that is not missed is known here.
        let on_its_way = log == MARKS && wanted <= self.status.borrow().will_reach(reached);
        Ok(reached < wanted && !on_its_way)
    }

    async fn follow(&mut self) -> Result<Spoke, AdapterError> {
        let mut status = self.status.subscribe();
        let doubt = async { drop(status.wait_for(|status| status.doubted).await) };
        let work = tokio::select! {
            biased;
            () = doubt => return Ok(Spoke::No),
            work = self.inbox.wait() => work,
            () = sleep(self.patience.check_every) => {
                self.enter(Phase::Comparing);
                return Ok(Spoke::No);
            }
        };
        if !self.deliver(work).await? {
            self.enter(Phase::Refilling);
        }
        Ok(Spoke::Well)
    }

    /// Whether what comes connects to what the follower has. If it can't be told, it is held.
    async fn deliver(&mut self, work: Work) -> Result<bool, AdapterError> {
        match self.give(&work).await {
            Ok(()) => {
                work.done();
                Ok(true)
            }
            Err(AdapterError::Gap { .. }) => Ok(false),
            Err(error) => {
                self.inbox.held = Some(work);
                Err(error)
            }
        }
    }

    async fn give(&self, work: &Work) -> Result<(), AdapterError> {
        let batch = match work {
            Work::Batch(batch) => Arc::clone(batch),
            Work::Moved(moved, promise) => {
                moved.reach(&*self.primary, &*self.follower, self.patience).await?;
                Arc::new(marks::after(promise.before))
            }
        };
        self.patience.wait(self.follower.write(&batch)).await?;
        self.reached(batch.log(), batch.last());
        Ok(())
    }

    async fn fill(&mut self) -> Result<Spoke, AdapterError> {
        if self.refill.is_none() {
            self.begin().await?;
            return Ok(Spoke::No);
        }
        if !self.absorb().await? {
            // Something before it found no room: the primary has it by now.
            self.enter(Phase::Refilling);
            return Ok(Spoke::No);
        }
        let Some(refill) = &mut self.refill else { return Ok(Spoke::No) };
        let filled = refill.step(&*self.primary, &*self.follower, self.patience).await?;
        if filled == Filled::All {
            self.enter(Phase::Comparing);
        }
        Ok(Spoke::Well)
    }

    async fn begin(&mut self) -> Result<(), AdapterError> {
        // The primary has what has come so far, and so the refill has it.
        for _ in 0..=self.inbox.queue.max_capacity() {
            let Some(work) = self.inbox.next() else { break };
            work.done();
        }
        let mut refill = Refill::begin(&*self.primary, self.patience).await?;
        // Asked after the primary: a mark that it had is promised before, and what is still promised
        // comes yet, or is missed.
        if let Some(before) = self.status.borrow().promised.first() {
            refill.leave_out_after(*before);
        }
        self.refill = Some(refill);
        Ok(())
    }

    /// Takes all that has come so far: then the queue has room, however long the refill takes.
    /// False if something does not connect.
    async fn absorb(&mut self) -> Result<bool, AdapterError> {
        let Self { primary, follower, inbox, refill: Some(refill), patience, .. } = self else {
            return Ok(true);
        };
        for _ in 0..=inbox.queue.max_capacity() {
            let Some(work) = inbox.next() else { break };
            let taken = match &work {
                Work::Batch(batch) => refill.absorb(batch, &**follower, *patience).await,
                Work::Moved(moved, promise) => moved
                    .reach(&**primary, &**follower, *patience)
                    .await
                    .map(|()| refill.take_mark(promise.before)),
            };
            match taken {
                Ok(true) => work.done(),
                Ok(false) => return Ok(false),
                Err(error) => {
                    inbox.held = Some(work);
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// Its backend bounds how long it takes: widening a type may write a large table anew, and what
    /// is broken off begins from the start.
    async fn prepare(&self) -> Result<(), AdapterError> {
        let schema = self.patience.wait(self.primary.schema()).await?;
        self.follower.prepare(&schema).await
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
