//! The state that callers and threads share, and the way of a commit through it.
//!
//! A commit is applied to the newest overlay and queued for the journal in one step, under one lock:
//! the journal's order is the order that readers see. Callers wait before that step, never in it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, RwLock, Semaphore, oneshot, watch};

use super::disk::Disk;
use super::gateways::Gateways;
use super::overlay::Overlay;
use super::record::Operation;
use super::tables::{Tables, Touched};
use crate::store::identity::Incarnation;
use crate::store::{Receipt, StoreError};

/// Overlays that may wait for the tables; then commits wait.
pub(super) const SEALED_MAX: usize = 2;
/// Bytes that may wait for one sync, in units of [`ROOM_UNIT_BYTES`].
const ROOM_UNITS: u32 = 16 << 10;
const ROOM_UNIT_BYTES: usize = 1 << 10;

pub(super) struct Engine {
    pub(super) incarnation: Incarnation,
    pub(super) disk: Disk,
    /// Taken when the store is closed. Whoever reads holds it meanwhile.
    pub(super) tables: Arc<RwLock<Option<Tables>>>,
    overlay_bytes_max: usize,
    state: Mutex<State>,
    /// Rung when there is something for the committer.
    work: Condvar,
    /// Rung when an overlay was taken over by the tables, and when the store stops.
    settled: Notify,
    room: Arc<Semaphore>,
    failure: watch::Sender<Option<StoreError>>,
}

pub(super) struct State {
    pub(super) gateways: Gateways,
    /// Newest last; that one takes commits.
    overlays: Vec<Arc<Overlay>>,
    queue: Vec<Step>,
    stopped: Option<StoreError>,
}

/// What the committer does next.
pub(super) enum Step {
    Write(Write),
    /// Begin a new journal file: the overlay is complete.
    Seal(Sealed),
}

/// A record on its way to the journal. An empty one only waits for those before it.
pub(super) struct Write {
    pub(super) record: Bytes,
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
    _room: Option<OwnedSemaphorePermit>,
}

/// A complete overlay, and the gateways as it leaves them.
pub(super) struct Sealed {
    pub(super) overlay: Arc<Overlay>,
    pub(super) touched: Touched,
}

/// What a caller wants done, decided under the lock.
pub(super) struct Plan<T> {
    pub(super) record: Bytes,
    pub(super) operation: Operation,
    pub(super) answer: T,
}

impl Engine {
    pub(super) fn new(
        incarnation: Incarnation,
        disk: Disk,
        tables: Tables,
        overlay_bytes_max: usize,
        gateways: Gateways,
        overlays: Vec<Arc<Overlay>>,
    ) -> Self {
        let state = State { gateways, overlays, queue: Vec::new(), stopped: None };
        Self {
            incarnation,
            disk,
            tables: Arc::new(RwLock::new(Some(tables))),
            overlay_bytes_max,
            state: Mutex::new(state),
            work: Condvar::new(),
            settled: Notify::new(),
            room: Arc::new(Semaphore::new(ROOM_UNITS as usize)),
            failure: watch::Sender::new(None),
        }
    }

    /// Does what `plan` decides once there is room. Nothing is awaited after the change was applied,
    /// so a caller that gives up leaves all of it or none.
    pub(super) async fn submit<T>(
        &self,
        bytes: usize,
        plan: impl FnOnce(&Gateways) -> Result<Plan<T>, StoreError> + Send,
    ) -> Result<(Receipt, T), StoreError> {
        let room = self.room(bytes).await?;
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            {
                let mut state = self.open_state()?;
                if !state.is_behind(self.overlay_bytes_max) {
                    return self.accept(&mut state, room, plan);
                }
            }
            settled.await;
        }
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let units = u32::try_from(bytes / ROOM_UNIT_BYTES + 1).unwrap_or(ROOM_UNITS);
        let room = Arc::clone(&self.room).acquire_many_owned(units.min(ROOM_UNITS)).await;
        room.map_err(|_| self.open_state().err().unwrap_or(StoreError::Closed))
    }

    fn accept<T>(
        &self,
        state: &mut State,
        room: OwnedSemaphorePermit,
        plan: impl FnOnce(&Gateways) -> Result<Plan<T>, StoreError>,
    ) -> Result<(Receipt, T), StoreError> {
        let Plan { record, operation, answer } = plan(&state.gateways)?;
        let full = self.disk.check(state.pending_bytes());
        if matches!(operation, Operation::Create { .. } | Operation::Commit(..)) {
            full.clone()?;
        }
        if state.is_full(self.overlay_bytes_max) {
            state.seal();
        }
        state.gateways.apply(&operation).expect("BUG: two callers changed one gateway at once");
        let frees = matches!(operation, Operation::Drop(_) | Operation::Trim(..));
        apply(state.active(), operation, record.len());
        let (done, receipt) = Receipt::channel();
        state.queue.push(Step::Write(Write { record, done, _room: Some(room) }));
        // Space comes back when the tables learn what may go.
        if frees && full.is_err() && state.overlays.len() <= SEALED_MAX {
            state.seal();
        }
        self.work.notify_one();
        Ok((receipt, answer))
    }

    fn push_barrier(&self, state: &mut State) -> Receipt {
        let (done, receipt) = Receipt::channel();
        state.queue.push(Step::Write(Write { record: Bytes::new(), done, _room: None }));
        self.work.notify_one();
        receipt
    }

    /// Waits until the newest overlay can be sealed, seals it, and shows the state to `look` before
    /// anything else is committed. The receipt is for everything in it.
    pub(super) async fn freeze<T>(
        &self,
        look: impl FnOnce(&State) -> T,
    ) -> Result<(Receipt, T), StoreError> {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            {
                let mut state = self.open_state()?;
                if state.overlays.len() <= SEALED_MAX {
                    let seen = look(&state);
                    state.seal();
                    return Ok((self.push_barrier(&mut state), seen));
                }
            }
            settled.await;
        }
    }

    /// The state, if the store is open.
    pub(super) fn open_state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.lock();
        match &state.stopped {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plans panic at a caller's bug, before anything is changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work. `None` when the store was closed and everything queued was taken.
    pub(super) fn take_work(&self) -> Option<Vec<Step>> {
        let mut state = self.lock();
        while state.queue.is_empty() {
            if state.stopped.is_some() {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut state.queue))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().queue.is_empty()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped.is_some()
    }

    /// The tables have taken over the overlay of journal `number`.
    pub(super) fn settle(&self, number: u64) {
        self.lock().overlays.retain(|overlay| overlay.number != number);
        self.settled.notify_waiters();
    }

    /// Waits until the tables have all overlays but the one that takes commits.
    #[cfg(test)]
    pub(super) async fn all_settled(&self) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.lock().overlays.len() == 1 {
                return;
            }
            settled.await;
        }
    }

    /// Takes no more calls. What is queued is still written.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        let before = state.stopped.replace(StoreError::Closed);
        drop(state);
        self.ring_all();
        before.map_or(Ok(()), Err)
    }

    /// Fails for good: what is queued, and every later call.
    pub(super) fn fail(&self, error: &StoreError) {
        let mut state = self.lock();
        state.stopped.get_or_insert_with(|| error.clone());
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        for step in queue {
            if let Step::Write(write) = step {
                // A caller that hung up does not mind.
                let _ = write.done.send(Err(error.clone()));
            }
        }
        self.ring_all();
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| error.clone());
            first
        });
    }

    /// The first failure, if there was one.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.borrow().clone()
    }

    fn ring_all(&self) {
        self.room.close();
        self.work.notify_all();
        self.settled.notify_waiters();
    }

    /// Resolves when the store has failed.
    pub(super) async fn failed(&self) -> StoreError {
        let mut failure = self.failure.subscribe();
        let seen = failure.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match seen {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

/// Puts an operation that the gateways have followed into an overlay.
pub(super) fn apply(overlay: &Overlay, operation: Operation, record_bytes: usize) {
    let (Operation::Create { id, .. }
    | Operation::Drop(id)
    | Operation::Trim(id, _)
    | Operation::Commit(id, _)) = operation;
    overlay.touch(id, record_bytes);
    if let Operation::Commit(id, changes) = operation {
        overlay.apply(id, changes);
    }
}

impl State {
    fn active(&self) -> &Arc<Overlay> {
        self.overlays.last().expect("BUG: no overlay takes commits")
    }

    /// The overlays, newest first.
    pub(super) fn layers(&self) -> Vec<Arc<Overlay>> {
        self.overlays.iter().rev().cloned().collect()
    }

    fn is_full(&self, bytes_max: usize) -> bool {
        bytes_max <= self.active().bytes()
    }

    fn is_behind(&self, bytes_max: usize) -> bool {
        SEALED_MAX < self.overlays.len() && self.is_full(bytes_max)
    }

    fn pending_bytes(&self) -> usize {
        self.overlays.iter().map(|overlay| overlay.bytes()).sum()
    }

    fn seal(&mut self) {
        let overlay = Arc::clone(self.active());
        let touched = self.gateways.touched(&overlay);
        self.overlays.push(Arc::new(overlay.next()));
        self.queue.push(Step::Seal(Sealed { overlay, touched }));
    }
}
