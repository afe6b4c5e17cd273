//! A store that counts what it is asked for, since what a call costs does not depend on the machine;
//! and whose disk may be slow, so that what happens before something is durable lasts.

use std::ops::Sub;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lakesync::name::{Gateway, Position};
use lakesync_server::store::memory::MemoryStore;
use lakesync_server::store::{
    Copying, GatewayId, GatewayRecord, Group, LogEntry, Receipt, Store, StoreError,
};
use tokio::sync::OwnedSemaphorePermit;

/// How often a store was asked, and how many bytes went through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    calls: usize,
    pub(crate) read_bytes: usize,
    written_bytes: usize,
}

impl Sub for Seen {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            read_bytes: self.read_bytes - before.read_bytes,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

/// A store in memory behind a counter. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counting {
    store: MemoryStore,
    seen: Arc<Mutex<Seen>>,
    sync_ms: Arc<AtomicU64>,
    largest_bytes: Arc<AtomicUsize>,
}

impl Counting {
    /// From here on a group is durable so much later.
    pub(crate) fn slow_down(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).expect("a time");
        self.sync_ms.store(ms, Ordering::Relaxed);
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock().expect("no panic")
    }

    /// A power cut, as the store behind has it. What was seen counts on.
    pub(crate) fn crash(&self) -> Self {
        Self { store: self.store.crash(), ..self.clone() }
    }

    /// How many bytes the largest answer had since this was last asked.
    pub(crate) fn take_largest_bytes(&self) -> usize {
        self.largest_bytes.swap(0, Ordering::Relaxed)
    }

    fn read<T>(
        &self,
        answer: Result<T, StoreError>,
        bytes: impl Fn(&T) -> usize,
    ) -> Result<T, StoreError> {
        let mut seen = self.seen.lock().expect("no panic");
        let bytes = answer.as_ref().map_or(0, bytes);
        seen.calls += 1;
        seen.read_bytes += bytes;
        self.largest_bytes.fetch_max(bytes, Ordering::Relaxed);
        answer
    }

    fn wrote(&self, bytes: usize) {
        let mut seen = self.seen.lock().expect("no panic");
        seen.calls += 1;
        seen.written_bytes += bytes;
    }
}

fn pairs(pairs: &[(Bytes, Bytes)]) -> usize {
    pairs.iter().map(|(key, value)| key.len() + value.len()).sum()
}

fn changes(changes: &[(Bytes, Option<Bytes>)]) -> usize {
    changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
}

#[async_trait]
impl Store for Counting {
    async fn create_gateway(
        &self,
        name: &Gateway,
        now_ms: u64,
    ) -> Result<GatewayRecord, StoreError> {
        self.store.create_gateway(name, now_ms).await
    }

    async fn gateway(&self, name: &Gateway) -> Result<Option<GatewayRecord>, StoreError> {
        self.read(self.store.gateway(name).await, |_| 0)
    }

    async fn gateways(
        &self,
        after: Option<&Gateway>,
        limit: usize,
    ) -> Result<Vec<GatewayRecord>, StoreError> {
        self.read(self.store.gateways(after, limit).await, Vec::len)
    }

    async fn drop_gateway(&self, name: &Gateway) -> Result<(), StoreError> {
        self.store.drop_gateway(name).await
    }

    async fn head(&self, gateway: GatewayId) -> Result<Position, StoreError> {
        self.read(self.store.head(gateway).await, |_| 0)
    }

    async fn trimmed(&self, gateway: GatewayId) -> Result<Position, StoreError> {
        self.read(self.store.trimmed(gateway).await, |_| 0)
    }

    async fn rows(
        &self,
        gateway: GatewayId,
        keys: &[Bytes],
        bytes_max: usize,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let bytes = |rows: &Vec<Option<Bytes>>| rows.iter().flatten().map(Bytes::len).sum();
        self.read(self.store.rows(gateway, keys, bytes_max).await, bytes)
    }

    async fn scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.read(self.store.scan(gateway, prefix, after, bytes_max).await, |rows| pairs(rows))
    }

    async fn meta(&self, gateway: GatewayId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(self.store.meta(gateway, key).await, |value| value.as_ref().map_or(0, Bytes::len))
    }

    async fn meta_scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.read(self.store.meta_scan(gateway, prefix, limit).await, |found| pairs(found))
    }

    async fn commit(&self, gateway: GatewayId, group: Group) -> Result<Receipt, StoreError> {
        let log: usize = group.log.iter().map(|entry| entry.commit.len()).sum();
        self.wrote(log + changes(&group.rows) + changes(&group.meta));
        let receipt = self.store.commit(gateway, group).await?;
        let ms = self.sync_ms.load(Ordering::Relaxed);
        if ms == 0 {
            return Ok(receipt);
        }
        let (done, slow) = Receipt::channel();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            // Whoever waited may have gone.
            let _ = done.send(receipt.durable().await);
        });
        Ok(slow)
    }

    async fn log(
        &self,
        gateway: GatewayId,
        after: Position,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let bytes = |log: &Vec<LogEntry>| log.iter().map(|entry| entry.commit.len()).sum();
        self.read(self.store.log(gateway, after, bytes_max).await, bytes)
    }

    async fn trim(&self, gateway: GatewayId, through: Position) -> Result<(), StoreError> {
        self.wrote(0);
        self.store.trim(gateway, through).await
    }

    async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        self.store.backup(to).await
    }

    async fn copy(&self, turn: OwnedSemaphorePermit) -> Result<Copying, StoreError> {
        self.store.copy(turn).await
    }

    async fn failed(&self) -> StoreError {
        self.store.failed().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}
