//! Flushing: what a gateway made durable goes on to its backends, in order and exactly once.
//!
//! Each backend of each gateway has a task and a watermark of its own, so a dead one holds up nobody
//! else. Nothing is drained: the log is read from the watermark, which the backend itself keeps in
//! the transaction of the rows, and what failed is done again for ever.

pub mod backends;
mod error;
mod failpoint;
mod fill;
mod flusher;
mod policy;
mod reconcile;
mod session;
mod sweep;
mod tend;
pub mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use lakesync::adapter::{Adapter, Capacity};
use lakesync::clock::WallClock;
use lakesync::name::{self, LogId, Position};
use lakesync::schema::{Schema, TableSchema};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::{FlushError, NoPlace};
pub use policy::Policy;

use crate::gateway::{Gateway, Gateways, Progress};
use crate::store::StoreError;
use error::Failure;
use flusher::Flusher;

/// How long a server that starts waits for its backends to say whether they will do.
const GREET_MAX: Duration = Duration::from_secs(2);
/// What is said of one that will not, or not yet.
const UNUSABLE: &str = "a backend can't be used now; pushes are taken, and flushed once it can";

/// How many gateways write to one backend at the same time. Each holds a batch in memory.
const WRITERS_MAX: usize = 4;

/// Makes the adapter of a gateway, or says why there can be none; and adds its members of note.
type Open = dyn Fn(&name::Gateway, &mut Vec<Arc<dyn Member>>) -> Result<Arc<dyn Adapter>, String>
    + Send
    + Sync;

/// A member of a backend that may lag or fail unheard, or has something to do by itself: a
/// combination, of those that the backend is made of.
#[async_trait]
trait Member: Send + Sync {
    /// What is wrong with it, if anything is.
    fn trouble(&self) -> Option<String>;

    /// Does a little of what it does by itself, and says after how long to go on; none if that is
    /// nothing. It may be dropped at any time.
    async fn tend(&self) -> Option<Duration> {
        None
    }
}

/// A backend that gateways flush to.
#[derive(Clone)]
pub struct Backend {
    name: Arc<str>,
    policy: Policy,
    open: Arc<Open>,
    writers: Arc<Semaphore>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("name", &self.name).field("policy", &self.policy).finish()
    }
}

impl Backend {
    /// The backend `name`, where `open` makes the adapter of each gateway. It connects to nobody.
    pub fn new(
        name: &str,
        policy: Policy,
        open: impl Fn(&name::Gateway) -> Result<Arc<dyn Adapter>, String> + Send + Sync + 'static,
    ) -> Self {
        Self::of_members(name, policy, move |gateway, _| open(gateway))
    }

    /// A turn to write there, of few for all gateways. Who asks first has it first.
    async fn turn(&self) -> SemaphorePermit<'_> {
        self.writers.acquire().await.expect("BUG: nobody closes it")
    }

    /// A turn, unless somebody waits for one.
    fn free_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.writers.try_acquire().ok()
    }

    fn of_members(
        name: &str,
        policy: Policy,
        open: impl Fn(&name::Gateway, &mut Vec<Arc<dyn Member>>) -> Result<Arc<dyn Adapter>, String>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let writers = Arc::new(Semaphore::new(WRITERS_MAX));
        Self { name: name.into(), policy, open: Arc::new(open), writers }
    }

    /// Its name, as in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Asks whether it answers, takes us and will do, and tells the log if not. What is wrong with a
    /// URL is known so before the first row waits for it.
    async fn greet(&self) {
        let any = name::Gateway::parse("a").expect("BUG: an illegal name");
        // What no gateway of this name may have, another may.
        let Ok(adapter) = (self.open)(&any, &mut Vec::new()) else { return };
        let backend = &self.name;
        match timeout(GREET_MAX, adapter.health()).await {
            Ok(Ok(())) => tracing::debug!(%backend, "it answers"),
            Ok(Err(error)) => tracing::warn!(%backend, %error, "{UNUSABLE}"),
            Err(_) => tracing::warn!(%backend, error = "no answer yet", "{UNUSABLE}"),
        }
    }

    /// What it can hold.
    pub fn capacity(&self) -> Capacity {
        let any = name::Gateway::parse("a").expect("BUG: an illegal name");
        (self.open)(&any, &mut Vec::new()).map_or(Capacity::ALL, |adapter| adapter.capacity())
    }
}

/// Where one gateway's rows are in one backend.
#[derive(Debug)]
struct Place {
    /// What writes there, or why there is nothing.
    adapter: Result<Arc<dyn Adapter>, String>,
    /// Held while rows are written there, and by who repairs them from reading them on: what was read
    /// is then what is still there.
    turn: tokio::sync::Mutex<()>,
}

/// The places of the gateways that are open, by their log and the backend's name.
type Places = Arc<Mutex<BTreeMap<(LogId, Arc<str>), Weak<Place>>>>;

/// All flushing of a process.
#[derive(Debug)]
pub struct Flush {
    backends: Vec<Backend>,
    clock: Arc<dyn WallClock>,
    stop: CancellationToken,
    tasks: TaskTracker,
    places: Places,
}

/// What a flush that was asked for has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Every backend has the log through here.
    pub position: Position,
    /// Changes that were written meanwhile, to one backend or another.
    pub changes: u64,
    /// Bytes of commits likewise.
    pub bytes: u64,
}

impl Flush {
    /// Flushing to `backends`; nothing is done before [`attach`](Flush::attach).
    pub fn new(backends: Vec<Backend>, clock: Arc<dyn WallClock>) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { backends, clock, stop, tasks, places: Places::default() }
    }

    /// The backends' names, in their order.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.backends.iter().map(|backend| Arc::clone(&backend.name)).collect()
    }

    /// What all of the backends can hold.
    pub fn capacity(&self) -> Capacity {
        let each = self.backends.iter().map(Backend::capacity);
        each.fold(Capacity::ALL, Capacity::meet)
    }

    /// Whether a gateway of this name could be flushed to each backend.
    pub fn check_name(&self, gateway: &name::Gateway) -> Result<(), NoPlace> {
        self.backends.iter().try_for_each(|backend| {
            let opened = (backend.open)(gateway, &mut Vec::new()).map(drop);
            let (gateway, name) = (gateway.clone(), Arc::clone(&backend.name));
            opened.map_err(|what| NoPlace { gateway, name, what })
        })
    }

    /// Tells the log of backends that can't be used now. Returns soon, whether they answer or not.
    pub async fn greet(&self) {
        join_all(self.backends.iter().map(Backend::greet)).await;
    }

    /// From now on every gateway that opens is flushed.
    pub fn attach(self: &Arc<Self>, gateways: &Gateways) {
        let flush = Arc::clone(self);
        gateways.on_open(move |gateway| flush.follow(gateway));
    }

    /// Opens the gateways that were behind when the process ended: nobody else may come to them.
    pub fn resume(&self, gateways: &Arc<Gateways>) {
        if self.backends.is_empty() {
            return;
        }
        let sweep = sweep::open_behind(Arc::clone(gateways), self.names());
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(sweep).await });
    }

    /// Flushes a gateway for as long as it is open.
    fn follow(&self, gateway: &Gateway) {
        for backend in &self.backends {
            let clock = Arc::clone(&self.clock);
            let tasks = self.tasks.clone();
            let Some(flusher) = Flusher::new(gateway, backend, clock, tasks) else { continue };
            let stop = self.stop.clone();
            let (places, place) = (Arc::clone(&self.places), Arc::downgrade(&flusher.place));
            let key = (gateway.record().log_id, Arc::clone(&backend.name));
            lock(&places).insert(key.clone(), Weak::clone(&place));
            self.tasks.spawn(async move {
                // A write that is cut off is settled by the watermark when flushing begins again.
                stop.run_until_cancelled(flusher.run()).await;
                // The gateway may have been opened again meanwhile, and have another.
                let mut places = lock(&places);
                if places.get(&key).is_some_and(|known| Weak::ptr_eq(known, &place)) {
                    places.remove(&key);
                }
            });
        }
    }

    /// A gateway's place at a backend; none if it closes or the server stops.
    fn place(&self, gateway: &Gateway, backend: &Arc<str>) -> Option<Arc<Place>> {
        let key = (gateway.record().log_id, Arc::clone(backend));
        lock(&self.places).get(&key).and_then(Weak::upgrade)
    }

    /// Flushes what is durable by now, and waits for it: until each backend, asked after this call,
    /// says that it has all of it. A backend that fails meanwhile ends the wait; flushing goes on.
    pub async fn flush(
        &self,
        gateway: &Gateway,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Flushed, FlushError> {
        self.flush_to(gateway, gateway.backends(), shutdown).await
    }

    /// The same, of some of the gateway's backends.
    async fn flush_to(
        &self,
        gateway: &Gateway,
        backends: Vec<(Arc<str>, watch::Receiver<Progress>)>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Flushed, FlushError> {
        let (target, schema) = (gateway.head()?, gateway.schema());
        if backends.is_empty() {
            return Err(FlushError::NoBackend);
        }
        let mut flushed = Flushed { position: target, ..Flushed::default() };
        let before: Vec<Progress> =
            backends.iter().map(|(_, progress)| progress.borrow().clone()).collect();
        gateway.ask_to_flush();
        for ((name, mut progress), before) in backends.into_iter().zip(before) {
            let log = gateway.record().log_id;
            let asked = progress.borrow().asked;
            let has_all = |now: &Progress| {
                let mark = now.mark.filter(|mark| mark.log == log);
                let prepared = now.prepared.as_ref();
                // What is remembered of the backend is not enough: it was asked since.
                asked <= now.looked
                    && mark.is_some_and(|mark| target <= mark.position)
                    && prepared.is_some_and(|prepared| covers(prepared, &schema))
            };
            let failed = |now: &Progress| before.attempts < now.attempts && now.error.is_some();
            let mut growth = gateway.growth();
            let now = tokio::select! {
                now = progress.wait_for(|now| has_all(now) || failed(now)) => now,
                // Whoever is gone has stopped.
                _ = shutdown.wait_for(|stopping| *stopping) => return Err(FlushError::ShuttingDown),
                () = growth.ended() => return Err(gateway.head().err().unwrap_or(StoreError::Closed).into()),
            };
            let now = now.map_err(|_| StoreError::Closed)?;
            if let Some(error) = now.error.clone().filter(|_| !has_all(&now)) {
                return Err(FlushError::Backend { name, error });
            }
            flushed.changes += now.flushed.0 - before.flushed.0;
            flushed.bytes += now.flushed.1 - before.flushed.1;
        }
        Ok(flushed)
    }

    /// Stops flushing; returns once nothing is written any more.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("BUG: nothing panics under this lock")
}

/// Whether there is room for all of `wanted`: tables only grow.
fn covers(prepared: &Schema, wanted: &Schema) -> bool {
    let has = |table: &TableSchema| prepared.table(&table.table).map_or(0, |table| table.version);
    wanted.tables().all(|table| table.version <= has(table))
}
