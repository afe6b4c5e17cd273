//! All gateways of a process: opened on demand, one at a time each, and closed when idle.
//!
//! Invariant: a gateway has one writer at most. Whoever opens or closes one holds its slot.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lakesync::clock::WallClock;
use lakesync::hlc::{Clock, Hlc};
use lakesync::name::{self, Position};
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::allowance::Allowances;
use super::flight::Flight;
use super::flushed::Flushed;
use super::followers::Tail;
use super::holds::Holds;
use super::publisher::publish_all;
use super::retain::forget_commits;
use super::revoked::Revocations;
use super::writer::{IN_FLIGHT_MAX, Writer};
use super::{Gateway, Gauges, Inner, QUEUE_UNIT_BYTES, Settings, future, keys, recover, ruling};
use crate::store::{GatewayRecord, Store, StoreError};

/// How many messages may wait for one gateway's writer.
const MAILBOX_MAX: usize = 1_024;

/// All gateways of a process.
#[derive(Debug)]
pub struct Gateways {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn WallClock>,
    pub(super) settings: Arc<Settings>,
    queue: Arc<Semaphore>,
    flight: Arc<Flight>,
    slots: Mutex<HashMap<name::Gateway, Arc<Slot>>>,
    /// Bytes that all tails keep for their followers.
    tails_bytes: Arc<AtomicUsize>,
    /// The turn to make a copy.
    pub(super) copying: Arc<Semaphore>,
    /// Who is told of each gateway that opens.
    opened: OnceLock<Opened>,
    /// Once true, nothing is opened any more.
    closed: AtomicBool,
}

/// Who is told of a gateway that opens.
struct Opened(Box<dyn Fn(&Gateway) + Send + Sync>);

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened(..)")
    }
}

/// What all gateways of a process use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Gateways in memory.
    pub open: usize,
    /// Readers that follow.
    pub followers: usize,
    /// Bytes of pushes that wait.
    pub queued_bytes: usize,
}

/// The place of one gateway: held while it opens or closes.
type Slot = tokio::sync::Mutex<Option<Open>>;
/// A slot that nobody else can open or close.
type Held = OwnedMutexGuard<Option<Open>>;

/// An open gateway and the tasks behind it.
#[derive(Debug)]
struct Open {
    gateway: Gateway,
    tasks: JoinSet<()>,
}

impl Gateways {
    /// The gateways that `store` holds, none of them open yet.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn WallClock>, settings: Settings) -> Self {
        let queue = Arc::new(Semaphore::new(settings.queue_bytes_max / QUEUE_UNIT_BYTES));
        let flight = Arc::new(Flight::new(settings.readers_bytes_max));
        let settings = Arc::new(settings);
        Self {
            store,
            clock,
            settings,
            queue,
            flight,
            slots: Mutex::default(),
            tails_bytes: Arc::default(),
            copying: Arc::new(Semaphore::new(1)),
            opened: OnceLock::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// From now on `opened` is told of each gateway that opens, before anybody uses it. The first
    /// who asks is told.
    pub fn on_open(&self, opened: impl Fn(&Gateway) + Send + Sync + 'static) {
        // A second one would flush every commit twice.
        let _ = self.opened.set(Opened(Box::new(opened)));
    }

    /// The gateway of this name, opened if need be.
    pub async fn get(&self, name: &name::Gateway) -> Result<Gateway, StoreError> {
        let mut slot = self.hold(name).await;
        if let Some(open) = slot.as_ref().filter(|open| open.gateway.ended().is_none()) {
            return Ok(open.gateway.clone());
        }
        if let Some(failed) = slot.take() {
            slot = failed.close_holding(slot).await;
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let opened = match self.store.gateway(name).await? {
            Some(record) => self.open(record).await?,
            None => {
                // Names that nobody has must not fill the map.
                self.forget(name, &slot);
                return Err(StoreError::NotFound);
            }
        };
        Ok(slot.insert(opened).gateway.clone())
    }

    /// Creates a gateway.
    pub async fn create(&self, name: &name::Gateway) -> Result<GatewayRecord, StoreError> {
        self.store.create_gateway(name, self.clock.now_ms()).await
    }

    /// Up to `limit` gateways in the order of their names, after `after`.
    pub async fn list(
        &self,
        after: Option<&name::Gateway>,
        limit: usize,
    ) -> Result<Vec<GatewayRecord>, StoreError> {
        self.store.gateways(after, limit).await
    }

    /// Deletes a gateway and its log. Its readers end, and so do pushes under way. Once begun it is
    /// finished, whether or not the caller waits: half of it would leave a writer behind.
    pub async fn delete(self: &Arc<Self>, name: &name::Gateway) -> Result<(), StoreError> {
        let (gateways, name) = (Arc::clone(self), name.clone());
        let deleted = tokio::spawn(async move {
            let mut slot = gateways.hold(&name).await;
            if let Some(mut open) = slot.take() {
                open.gateway.0.tail.fail(StoreError::NotFound);
                open.tasks.shutdown().await;
            }
            let dropped = gateways.store.drop_gateway(&name).await;
            gateways.forget(&name, &slot);
            dropped
        });
        deleted.await.unwrap_or(Err(StoreError::Closed))
    }

    /// What is in use right now. Gateways that are opening or closing are left out.
    pub fn usage(&self) -> Usage {
        let slots: Vec<_> = self.slots().values().map(Arc::clone).collect();
        let mut usage = Usage::default();
        for slot in slots {
            if let Ok(slot) = slot.try_lock()
                && let Some(open) = slot.as_ref()
            {
                usage.open += 1;
                usage.followers += open.gateway.0.tail.followers();
            }
        }
        let all = self.settings.queue_bytes_max / QUEUE_UNIT_BYTES;
        let free = self.queue.available_permits();
        usage.queued_bytes = all.saturating_sub(free) * QUEUE_UNIT_BYTES;
        usage
    }

    /// Closes gateways that nobody uses.
    pub async fn close_idle(&self) {
        for (name, slot) in self.snapshot() {
            // A slot that is held is in use; one that left the map is nobody's.
            let Ok(mut held) = Arc::clone(&slot).try_lock_owned() else { continue };
            let in_use = |Open { gateway, .. }: &Open| {
                1 < Arc::strong_count(&gateway.0)
                    || 1 < Arc::strong_count(&gateway.0.unread)
                    // Nobody would flush the rest before the next one comes.
                    || gateway.is_behind()
            };
            if held.as_ref().is_some_and(in_use) || !self.is_current(&name, &slot) {
                continue;
            }
            if let Some(open) = held.take() {
                held = open.close_holding(held).await;
            }
            self.forget(&name, &held);
        }
    }

    /// Closes every gateway, after what has queued is durable and answered. Nothing opens any more.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for (_, slot) in self.snapshot() {
            let mut held = slot.lock_owned().await;
            if let Some(open) = held.take() {
                open.close_holding(held).await;
            }
        }
    }

    /// The gateways that are open.
    pub(super) fn opened(&self) -> Vec<Gateway> {
        let slots: Vec<_> = self.slots().values().map(Arc::clone).collect();
        let open = |slot: &Arc<Slot>| Some(slot.try_lock().ok()?.as_ref()?.gateway.clone());
        slots.iter().filter_map(open).collect()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn snapshot(&self) -> Vec<(name::Gateway, Arc<Slot>)> {
        self.slots().iter().map(|(name, slot)| (name.clone(), Arc::clone(slot))).collect()
    }

    fn is_current(&self, name: &name::Gateway, slot: &Arc<Slot>) -> bool {
        self.slots().get(name).is_some_and(|current| Arc::ptr_eq(current, slot))
    }

    /// Holds the slot of a gateway. A slot that left the map while we waited for it is nobody's any
    /// more: whoever opened a gateway there would give it a second writer.
    async fn hold(&self, name: &name::Gateway) -> Held {
        loop {
            let slot = Arc::clone(self.slots().entry(name.clone()).or_default());
            let held = Arc::clone(&slot).lock_owned().await;
            if self.is_current(name, &slot) {
                return held;
            }
        }
    }

    /// Takes a slot out of the map, unless another took its place. The caller holds it.
    fn forget(&self, name: &name::Gateway, held: &Held) {
        if self.is_current(name, OwnedMutexGuard::mutex(held)) {
            self.slots().remove(name);
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<name::Gateway, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One gateway's share of the queue, in its units.
    fn share(&self) -> usize {
        self.settings.share_bytes() / QUEUE_UNIT_BYTES
    }

    async fn open(&self, record: GatewayRecord) -> Result<Open, StoreError> {
        let store = self.store.as_ref();
        if store.meta(record.id, keys::RESTORING).await?.is_some() {
            return Err(StoreError::Unfinished(record.name));
        }
        let counters = recover::counters(store, record.id).await?;
        if let Some(ahead) = future::ahead(&counters, &self.settings, self.clock.now_ms()) {
            future::warn(&record, ahead);
        }
        let gauges = Arc::new(Gauges::default());
        gauges.trim(store.trimmed(record.id).await?.max(Position(counters.trim_through)));
        gauges.swept.store(counters.swept, Ordering::Release);
        forget_commits(store, record.id, Position(counters.trim_through)).await?;
        let schema = Arc::new(recover::schema(store, record.id).await?);
        let ruling = ruling::load(store, record.id, &schema).await?;
        let revoked = Arc::new(Revocations::load(store, record.id).await?);
        let (trimmed, backends) = (gauges.trimmed(), &self.settings.backends);
        let flushed = Arc::new(Flushed::load(store, record.id, trimmed, backends).await?);
        let holds = Arc::new(Holds::default());
        let head = recover::check_log(store, record.id, &counters).await?;
        let tail = Arc::new(Tail::new((head, counters.chain), Arc::clone(&self.tails_bytes)));
        let (mailbox, inbox) = mpsc::channel(MAILBOX_MAX);
        let (publisher, groups) = mpsc::channel(IN_FLIGHT_MAX);
        let (installed, schema_seen) = watch::channel(Arc::clone(&schema));
        let (enforced, in_force) = watch::channel(Arc::new(ruling.in_force.clone()));
        let shown = in_force.clone();
        let writer = Writer {
            id: record.id,
            store: Arc::clone(&self.store),
            wall: Arc::clone(&self.clock),
            settings: Arc::clone(&self.settings),
            tail: Arc::clone(&tail),
            schema,
            clock: Clock::resume(Hlc(counters.hlc), self.settings.clock_drift_max),
            counters,
            head,
            subjects: HashMap::new(),
            swept_ms: 0,
            ruling,
            shown,
            awaiting: Vec::new(),
            stalled: false,
            held_back: false,
            revoked: Arc::clone(&revoked),
            flushed: Arc::clone(&flushed),
            holds: Arc::clone(&holds),
            gauges: Arc::clone(&gauges),
            publisher,
        };
        gauges.show(&counters);
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(inbox));
        tasks.spawn(publish_all(
            groups,
            Arc::clone(&tail),
            Arc::clone(&gauges),
            installed,
            enforced,
        ));
        let Settings { each_subject, each_gateway, .. } = *self.settings;
        let allowances = Arc::new(Allowances::new(each_subject, each_gateway));
        let gateway = Gateway(Arc::new(Inner {
            record,
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            settings: Arc::clone(&self.settings),
            mailbox,
            queue: Arc::clone(&self.queue),
            flight: Arc::clone(&self.flight),
            share: Arc::new(Semaphore::new(self.share())),
            allowances,
            tail,
            gauges,
            schema: schema_seen,
            in_force,
            unread: Arc::default(),
            revoked,
            flushed,
            holds,
        }));
        if let Some(opened) = self.opened.get() {
            opened.0(&gateway);
        }
        Ok(Open { gateway, tasks })
    }
}

impl Open {
    /// Lets go of the handle, and waits until what has queued is durable and answered. The slot
    /// stays held until then, even if the caller stops waiting.
    async fn close_holding(self, held: Held) -> Held {
        let closing = tokio::spawn(async move {
            let Self { gateway, mut tasks } = self;
            drop(gateway);
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a gateway's task ended badly");
                }
            }
            held
        });
        closing.await.expect("BUG: closing a gateway panicked")
    }
}
