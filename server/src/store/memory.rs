//! A store in memory, for tests and simulations. It keeps its promises against the faults it can be
//! told to have: a slow disk, a full one, a failing one, and a power cut.
//!
//! It holds two states: what readers see, and what a power cut would leave. A change goes to the
//! first at once, queues, and goes to the second in its turn, when its receipt resolves.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use lakesync::name::{Gateway, Position};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use self::contents::{Change, Contents};
use super::identity::Incarnation;
use super::{Copying, GatewayId, GatewayRecord, Group, LogEntry, Receipt, Store, StoreError};

mod contents;

/// Changes that may wait for the disk; after that, `commit` waits.
const PENDING_MAX: usize = 1_024;

/// A store in memory. Clones are handles to the same state, so that a test can keep one to play the
/// disk while the code under test holds another.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    failure: watch::Sender<Option<StoreError>>,
    room: Arc<Semaphore>,
}

struct State {
    visible: Contents,
    durable: Contents,
    pending: VecDeque<Pending>,
    copies: HashMap<PathBuf, Contents>,
    held: bool,
    full: bool,
    keeping: bool,
    stopped: Option<StoreError>,
}

struct Pending {
    change: Change,
    done: oneshot::Sender<Result<(), StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::holding(Contents::new(fresh_incarnation()))
    }

    fn holding(durable: Contents) -> Self {
        let state = State {
            visible: durable.clone(),
            durable,
            pending: VecDeque::new(),
            copies: HashMap::new(),
            held: false,
            full: false,
            keeping: false,
            stopped: None,
        };
        let shared = Shared {
            state: Mutex::new(state),
            failure: watch::Sender::new(None),
            room: Arc::new(Semaphore::new(PENDING_MAX)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// From now on nothing becomes durable: changes are visible, and their receipts wait.
    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// Opens the copy that [`backup`](Store::backup) made under the name `copy`; it is in memory too.
    pub fn open_copy(&self, copy: &Path) -> Option<Self> {
        let copy = self.lock().copies.get(copy).cloned();
        Some(Self::holding(copy?.restored(fresh_incarnation())))
    }

    /// The state of the copy that [`backup`](Store::backup) made under the name `copy`, as if its volume
    /// had been rolled back to it: nothing tells that from the original.
    pub fn rolled_back(&self, copy: &Path) -> Option<Self> {
        self.lock().copies.get(copy).cloned().map(Self::holding)
    }

    /// Makes everything that waited durable, in order, and goes on as usual.
    pub fn release(&self) {
        let mut state = self.lock();
        state.held = false;
        state.settle();
    }

    /// Makes the oldest `count` changes that wait durable, and holds the others.
    pub fn release_some(&self, count: usize) {
        self.lock().settle_some(count);
    }

    /// How many changes are visible and not durable.
    pub fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// Whether the disk is full: writes are refused then, and nothing of them is kept.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Whether the disk is full whenever something is only to be removed.
    pub fn set_keeping(&self, keeping: bool) {
        self.lock().keeping = keeping;
    }

    /// Fails now and for good: everything that waits, and every later call.
    pub fn fail(&self, error: StoreError) {
        let mut state = self.lock();
        if state.stop(error.clone()) {
            self.shared.room.close();
            self.shared.failure.send_replace(Some(error));
        }
    }

    /// A power cut: this store is closed, and the new one holds what was durable.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.lock();
        state.stop(StoreError::Closed);
        self.shared.room.close();
        Self::holding(state.durable.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of one caller changes nothing by halves, so the others may go on.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(
        &self,
        look: impl FnOnce(&Contents) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let state = self.lock();
        state.check_open()?;
        look(&state.visible)
    }

    /// Applies what `plan` decides, and queues it. Nothing is awaited once it is applied, so a
    /// caller that gives up leaves a whole change or none.
    async fn write<T>(
        &self,
        plan: impl FnOnce(&Contents) -> Result<(Change, T), StoreError> + Send,
    ) -> Result<(Receipt, T), StoreError> {
        let room = Arc::clone(&self.shared.room).acquire_owned().await;
        let mut state = self.lock();
        state.check_open()?;
        let room = room.map_err(|_| StoreError::Closed)?;
        let (change, answer) = plan(&state.visible)?;
        if (state.full && change.takes_space()) || (state.keeping && change.only_removes()) {
            return Err(StoreError::Full("0 bytes are free".to_owned()));
        }
        state.visible.apply(&change);
        let (done, receipt) = Receipt::channel();
        state.pending.push_back(Pending { change, done, _room: room });
        if !state.held {
            state.settle();
        }
        Ok((receipt, answer))
    }

    async fn write_durably<T>(
        &self,
        plan: impl FnOnce(&Contents) -> Result<(Change, T), StoreError> + Send,
    ) -> Result<T, StoreError> {
        let (receipt, answer) = self.write(plan).await?;
        receipt.durable().await?;
        Ok(answer)
    }
}

impl State {
    fn check_open(&self) -> Result<(), StoreError> {
        self.stopped.clone().map_or(Ok(()), Err)
    }

    fn settle(&mut self) {
        self.settle_some(self.pending.len());
    }

    fn settle_some(&mut self, count: usize) {
        let count = count.min(self.pending.len());
        for Pending { change, done, .. } in self.pending.drain(..count) {
            self.durable.apply(&change);
            // A caller that hung up learns nothing; its change is durable all the same.
            let _ = done.send(Ok(()));
        }
    }

    /// Whether this was the first reason to stop.
    fn stop(&mut self, error: StoreError) -> bool {
        for Pending { done, .. } in self.pending.drain(..) {
            let _ = done.send(Err(error.clone()));
        }
        let first = self.stopped.is_none();
        self.stopped.get_or_insert(error);
        first
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create_gateway(
        &self,
        name: &Gateway,
        now_ms: u64,
    ) -> Result<GatewayRecord, StoreError> {
        self.write_durably(|contents| {
            let record = contents.plan_gateway(name, now_ms)?;
            Ok((Change::Create(record.clone()), record))
        })
        .await
    }

    async fn gateway(&self, name: &Gateway) -> Result<Option<GatewayRecord>, StoreError> {
        self.read(|contents| Ok(contents.gateway(name)))
    }

    async fn gateways(
        &self,
        after: Option<&Gateway>,
        limit: usize,
    ) -> Result<Vec<GatewayRecord>, StoreError> {
        self.read(|contents| Ok(contents.gateways(after, limit)))
    }

    async fn drop_gateway(&self, name: &Gateway) -> Result<(), StoreError> {
        self.write_durably(|contents| {
            let record = contents.gateway(name).ok_or(StoreError::NotFound)?;
            Ok((Change::Drop(record), ()))
        })
        .await
    }

    async fn head(&self, gateway: GatewayId) -> Result<Position, StoreError> {
        self.read(|contents| Ok(contents.space(gateway)?.head))
    }

    async fn trimmed(&self, gateway: GatewayId) -> Result<Position, StoreError> {
        self.read(|contents| Ok(contents.space(gateway)?.trimmed))
    }

    async fn rows(
        &self,
        gateway: GatewayId,
        keys: &[Bytes],
        bytes_max: usize,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.read(|contents| Ok(contents.space(gateway)?.rows(keys, bytes_max)))
    }

    async fn scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.read(|contents| Ok(contents.space(gateway)?.scan(prefix, after, bytes_max)))
    }

    async fn meta(&self, gateway: GatewayId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(|contents| Ok(contents.space(gateway)?.meta.get(key).cloned()))
    }

    async fn meta_scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.read(|contents| Ok(contents.space(gateway)?.meta_scan(prefix, limit)))
    }

    async fn commit(&self, gateway: GatewayId, group: Group) -> Result<Receipt, StoreError> {
        let plan = |contents: &Contents| {
            let mut head = contents.space(gateway)?.head;
            for entry in &group.log {
                head = head.next();
                assert_eq!(entry.position, head, "BUG: a log entry does not follow the head");
            }
            Ok((Change::Commit(gateway, group), ()))
        };
        Ok(self.write(plan).await?.0)
    }

    async fn log(
        &self,
        gateway: GatewayId,
        after: Position,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.read(|contents| Ok(contents.space(gateway)?.log(after, bytes_max)))
    }

    async fn trim(&self, gateway: GatewayId, through: Position) -> Result<(), StoreError> {
        self.write_durably(|contents| {
            let head = contents.space(gateway)?.head;
            assert!(through <= head, "BUG: trimming through {through}, past the head {head}");
            Ok((Change::Trim(gateway, through), ()))
        })
        .await
    }

    async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.check_open()?;
        if state.copies.contains_key(to) {
            return Err(StoreError::NoCopy(format!("{} exists", to.display())));
        }
        let copy = state.durable.clone();
        state.copies.insert(to.to_owned(), copy);
        Ok(())
    }

    async fn copy(&self, _: OwnedSemaphorePermit) -> Result<Copying, StoreError> {
        Err(StoreError::NoCopy("the store is in memory, and has no directory to copy".to_owned()))
    }

    async fn failed(&self) -> StoreError {
        let mut failure = self.shared.failure.subscribe();
        let seen = failure.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match seen {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.write_durably(|_| Ok((Change::Nothing, ()))).await?;
        self.lock().stop(StoreError::Closed);
        self.shared.room.close();
        Ok(())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryStore")
            .field("pending", &state.pending.len())
            .field("held", &state.held)
            .field("stopped", &state.stopped)
            .finish_non_exhaustive()
    }
}

fn fresh_incarnation() -> Incarnation {
    let mut fresh = Incarnation::default();
    getrandom::fill(&mut fresh).expect("BUG: the system has no randomness");
    fresh
}

#[cfg(test)]
mod tests;
