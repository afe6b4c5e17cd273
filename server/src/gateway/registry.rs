//! All gateways of a process: opened on demand, one at a time each, and closed when idle.
//!
//! Invariant: a gateway has one writer at most. Whoever opens or closes one holds its slot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lakesync::clock::WallClock;
use lakesync::hlc::{Clock, Hlc};
use lakesync::name;
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::followers::Tail;
use super::writer::{IN_FLIGHT_MAX, Writer, publish_all};
use super::{Gateway, Gauges, Inner, QUEUE_UNIT_BYTES, Settings, recover};
use crate::store::{GatewayRecord, Store, StoreError};

/// How many messages may wait for one gateway's writer.
const MAILBOX_MAX: usize = 1_024;

/// All gateways of a process.
#[derive(Debug)]
pub struct Gateways {
    store: Arc<dyn Store>,
    clock: Arc<dyn WallClock>,
    settings: Arc<Settings>,
    queue: Arc<Semaphore>,
    slots: Mutex<HashMap<name::Gateway, Arc<Slot>>>,
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
        let settings = Arc::new(settings);
        Self { store, clock, settings, queue, slots: Mutex::default() }
    }

    /// The gateway of this name, opened if need be.
    pub async fn get(&self, name: &name::Gateway) -> Result<Gateway, StoreError> {
        let mut slot = self.hold(name).await;
        if let Some(open) = slot.as_ref() {
            return Ok(open.gateway.clone());
        }
        let opened = match self.store.gateway(name).await? {
            Some(record) => self.open(record).await?,
            None => {
                // Names that nobody has must not fill the map.
                self.forget(name);
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

    /// Deletes a gateway and its log. Its readers end, and so do pushes under way.
    pub async fn delete(&self, name: &name::Gateway) -> Result<(), StoreError> {
        let mut slot = self.hold(name).await;
        if let Some(mut open) = slot.take() {
            open.gateway.0.tail.fail(StoreError::NotFound);
            open.tasks.shutdown().await;
        }
        let dropped = self.store.drop_gateway(name).await;
        self.forget(name);
        dropped
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
        let slots: Vec<_> =
            self.slots().iter().map(|(name, slot)| (name.clone(), Arc::clone(slot))).collect();
        for (name, slot) in slots {
            // A slot that is held is in use.
            let Ok(mut slot) = slot.try_lock() else { continue };
            if slot.as_ref().is_some_and(|open| 1 < Arc::strong_count(&open.gateway.0)) {
                continue;
            }
            if let Some(open) = slot.take() {
                open.close().await;
            }
            self.forget(&name);
        }
    }

    /// Closes every gateway, after what has queued is durable and answered.
    pub async fn close(&self) {
        let slots = std::mem::take(&mut *self.slots());
        for slot in slots.into_values() {
            if let Some(open) = slot.lock().await.take() {
                open.close().await;
            }
        }
    }

    /// Holds the slot of a gateway. A slot that left the map while we waited for it is nobody's any
    /// more: whoever opened a gateway there would give it a second writer.
    async fn hold(&self, name: &name::Gateway) -> OwnedMutexGuard<Option<Open>> {
        loop {
            let slot = Arc::clone(self.slots().entry(name.clone()).or_default());
            let held = Arc::clone(&slot).lock_owned().await;
            if self.slots().get(name).is_some_and(|current| Arc::ptr_eq(current, &slot)) {
                return held;
            }
        }
    }

    /// Takes a slot out of the map. The caller holds it.
    fn forget(&self, name: &name::Gateway) {
        self.slots().remove(name);
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<name::Gateway, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, record: GatewayRecord) -> Result<Open, StoreError> {
        let store = self.store.as_ref();
        let counters = recover::counters(store, record.id).await?;
        let schema = Arc::new(recover::schema(store, record.id).await?);
        let head = store.head(record.id).await?;
        let tail = Arc::new(Tail::new(head));
        let gauges = Arc::new(Gauges::default());
        let (mailbox, inbox) = mpsc::channel(MAILBOX_MAX);
        let (publisher, groups) = mpsc::channel(IN_FLIGHT_MAX);
        let (installed, schema_seen) = watch::channel(Arc::clone(&schema));
        let writer = Writer {
            id: record.id,
            store: Arc::clone(&self.store),
            wall: Arc::clone(&self.clock),
            settings: Arc::clone(&self.settings),
            gauges: Arc::clone(&gauges),
            schema,
            clock: Clock::resume(Hlc(counters.hlc), self.settings.clock_drift_max),
            counters,
            head,
            subjects: HashMap::new(),
            swept_ms: 0,
            publisher,
        };
        writer.show_gauges();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(inbox, Arc::clone(&tail)));
        tasks.spawn(publish_all(groups, Arc::clone(&tail), installed));
        let gateway = Gateway(Arc::new(Inner {
            record,
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            settings: Arc::clone(&self.settings),
            mailbox,
            queue: Arc::clone(&self.queue),
            tail,
            gauges,
            schema: schema_seen,
        }));
        Ok(Open { gateway, tasks })
    }
}

impl Open {
    /// Lets go of the handle, and waits until what has queued is durable and answered.
    async fn close(self) {
        let Self { gateway, tasks } = self;
        drop(gateway);
        tasks.join_all().await;
    }
}
