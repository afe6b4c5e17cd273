//! The store in a local directory: a journal that is synced before anything is confirmed, overlays
//! in memory, and sorted tables on disk.
//!
//! ```text
//! commit ──► overlay ──────────── complete at some 64 MB ──► tables
//!    └─────► journal file, synced by group ──────────────► removed once the tables have it
//! ```
//!
//! A commit writes its group once to the journal, whole: log entries and changes of rows and meta in
//! one record. Opening reads back the journal that the tables do not have yet, a few overlays at
//! most, so it takes as long after a thousand million commits as after a million. Reads look through
//! the overlays and then into the tables, of one moment.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use lakesync::name::{Gateway, Position};
use tokio::sync::OwnedSemaphorePermit;

use self::engine::{Engine, Plan};
use self::gateways::Life;
use self::open::Opened;
use self::record::Operation;
use self::tables::{Space, Tables};
use super::identity;
use super::{Copying, GatewayId, GatewayRecord, Group, LogEntry, Receipt, Store, StoreError};

mod backup;
mod directory;
mod disk;
mod engine;
mod gateways;
mod journal;
mod merge;
mod open;
mod overlay;
mod reads;
mod record;
mod shortage;
mod tables;
mod threads;

/// How a store uses memory and disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// When an overlay is complete. There are up to three, so three times this is held in memory and
    /// in the journal.
    pub overlay_bytes: usize,
    /// Blocks of tables kept in memory.
    pub cache_bytes: u64,
    /// Files of tables that are kept open between two reads.
    pub table_files: usize,
    /// What stays free on the disk: writes that would use it are refused as
    /// [`Full`](StoreError::Full).
    pub disk_reserve_bytes: u64,
    /// Names of files of others that may lie in the directory before it becomes a store. One that
    /// ends with `*` stands for all that begin so.
    pub companions: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            overlay_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            table_files: 128,
            disk_reserve_bytes: 64 << 20,
            companions: Vec::new(),
        }
    }
}

/// Why a directory could not be opened. One that is in use, foreign or of another format is left as
/// it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process; stop that one, or choose another directory", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// It holds something, and no store.
    #[error("{} is no lakesync data directory: it holds {found}; choose an empty or a new directory", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// A version of another format wrote it.
    #[error("{} has format {found}, and this version knows format {known}; use the version that wrote it", dir.display())]
    Format {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The format that this version reads.
        known: u32,
    },
    /// What is in it was damaged.
    #[error("{} is damaged: {what}; keep it as it is, and restore a backup elsewhere", dir.display())]
    Corrupt {
        /// The directory.
        dir: PathBuf,
        /// What does not match.
        what: String,
    },
    /// It is not what the last process left in it: something is gone.
    #[error(
        "{} is not as its server left it: {what}; restore a backup elsewhere, or, to go on with what \
         is left as another log, to which replicas give back what they hold, create the file {} and \
         start again", dir.display(), dir.join("RESTORED").display()
    )]
    Altered {
        /// The directory.
        dir: PathBuf,
        /// What is gone.
        what: String,
    },
    /// The disk said no.
    #[error("can't {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The tables could not be opened.
    #[error("{} can't be opened: {what}", dir.display())]
    Failed {
        /// The directory.
        dir: PathBuf,
        /// What went wrong.
        what: String,
    },
}

/// What a test may put in place of the disk.
#[derive(Clone)]
struct Seams {
    sync: journal::Sync,
    free_bytes: disk::Probe,
}

impl Default for Seams {
    fn default() -> Self {
        Self { sync: Arc::new(File::sync_data), free_bytes: Arc::new(disk::free_bytes) }
    }
}

/// A store in a local directory.
pub struct EmbeddedStore {
    engine: Arc<Engine>,
    /// Let go when the store is closed.
    held: Mutex<Option<Held>>,
}

struct Held {
    threads: Vec<std::thread::JoinHandle<()>>,
    _directory: directory::Directory,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, or makes one if `dir` is empty or does not exist. Blocks.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with(dir, &options, &Seams::default())
    }

    fn open_with(dir: &Path, options: &Options, seams: &Seams) -> Result<Self, OpenError> {
        let Opened { engine, threads, directory } = open::open(dir, options, seams)?;
        let held = Held { threads, _directory: directory };
        Ok(Self { engine, held: Mutex::new(Some(held)) })
    }

    /// Makes a data directory of the pieces of a [copy](Store::copy), in `to`, which must not exist.
    /// A store opened on it gives every log a new id. Blocks.
    pub fn write_copy(
        to: &Path,
        pieces: impl Iterator<Item = Result<Bytes, StoreError>> + Send,
    ) -> Result<(), StoreError> {
        backup::write_copy(to, pieces)
    }

    fn take_held(&self) -> Option<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn record(&self, life: &Life) -> GatewayRecord {
        identity::record(&self.engine.incarnation, life.id, life.name.clone(), life.created_ms)
    }

    fn life<T>(&self, gateway: GatewayId, of: impl FnOnce(&Life) -> T) -> Result<T, StoreError> {
        self.engine.open_state()?.gateways.get(gateway).map(of).ok_or(StoreError::NotFound)
    }
}

impl Held {
    /// Waits for the threads, and only then lets go of the tables and the directory.
    fn let_go(self, tables: Option<Tables>) {
        for thread in self.threads {
            // A thread that panicked has failed the store already.
            let _ = thread.join();
        }
        drop(tables);
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn create_gateway(
        &self,
        name: &Gateway,
        now_ms: u64,
    ) -> Result<GatewayRecord, StoreError> {
        let plan = |gateways: &gateways::Gateways| {
            if gateways.named(name).is_some() {
                return Err(StoreError::Exists(name.clone()));
            }
            let id = GatewayId(gateways.next());
            let record = record::create(id, name, now_ms);
            let operation = Operation::Create { id, name: name.clone(), created_ms: now_ms };
            Ok(Plan { record, operation, answer: id })
        };
        let (receipt, id) = self.engine.submit(0, plan).await?;
        receipt.durable().await?;
        Ok(identity::record(&self.engine.incarnation, id, name.clone(), now_ms))
    }

    async fn gateway(&self, name: &Gateway) -> Result<Option<GatewayRecord>, StoreError> {
        let state = self.engine.open_state()?;
        Ok(state.gateways.named(name).map(|life| self.record(life)))
    }

    async fn gateways(
        &self,
        after: Option<&Gateway>,
        limit: usize,
    ) -> Result<Vec<GatewayRecord>, StoreError> {
        let page = self.engine.open_state()?.gateways.page(after, limit);
        Ok(page.iter().map(|life| self.record(life)).collect())
    }

    async fn drop_gateway(&self, name: &Gateway) -> Result<(), StoreError> {
        let plan = |gateways: &gateways::Gateways| {
            let id = gateways.named(name).ok_or(StoreError::NotFound)?.id;
            Ok(Plan { record: record::drop(id), operation: Operation::Drop(id), answer: () })
        };
        self.engine.submit(0, plan).await?.0.durable().await
    }

    async fn head(&self, gateway: GatewayId) -> Result<Position, StoreError> {
        self.life(gateway, |life| life.head)
    }

    async fn trimmed(&self, gateway: GatewayId) -> Result<Position, StoreError> {
        self.life(gateway, |life| life.trimmed)
    }

    async fn rows(
        &self,
        gateway: GatewayId,
        keys: &[Bytes],
        bytes_max: usize,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let keys = keys.iter().map(|key| &key[..]);
        self.engine.look_up(gateway, Space::Rows, keys, bytes_max).await
    }

    async fn scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.engine.scan(gateway, prefix, after, bytes_max).await
    }

    async fn meta(&self, gateway: GatewayId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.engine.look_up(gateway, Space::Meta, std::iter::once(key), 0).await?;
        Ok(found.into_iter().next().flatten())
    }

    async fn meta_scan(
        &self,
        gateway: GatewayId,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.engine.meta_scan(gateway, prefix, limit).await
    }

    async fn commit(&self, gateway: GatewayId, group: Group) -> Result<Receipt, StoreError> {
        let head = self.head(gateway).await?;
        let mut next = head;
        for entry in &group.log {
            next = next.next();
            assert_eq!(entry.position, next, "BUG: a log entry does not follow the head");
        }
        // Written and read back before the lock is taken: readers never wait for that.
        let record = record::commit(gateway, head, &group);
        let operation = Operation::decode(record.clone());
        let operation = operation.expect("BUG: a record that was just written can't be read");
        let plan = |gateways: &gateways::Gateways| {
            let life = gateways.get(gateway).ok_or(StoreError::NotFound)?;
            assert_eq!(life.head, head, "BUG: two callers commit to one gateway");
            Ok(Plan { record: record.clone(), operation, answer: () })
        };
        Ok(self.engine.submit(record.len(), plan).await?.0)
    }

    async fn log(
        &self,
        gateway: GatewayId,
        after: Position,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.engine.log(gateway, after, bytes_max).await
    }

    async fn trim(&self, gateway: GatewayId, through: Position) -> Result<(), StoreError> {
        let plan = |gateways: &gateways::Gateways| {
            let head = gateways.get(gateway).ok_or(StoreError::NotFound)?.head;
            assert!(through <= head, "BUG: trimming through {through}, past the head {head}");
            let operation = Operation::Trim(gateway, through);
            Ok(Plan { record: record::trim(gateway, through), operation, answer: () })
        };
        self.engine.submit(0, plan).await?.0.durable().await
    }

    async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        backup::backup(&self.engine, to).await
    }

    async fn copy(&self, turn: OwnedSemaphorePermit) -> Result<Copying, StoreError> {
        backup::copy(&self.engine, turn).await
    }

    async fn failed(&self) -> StoreError {
        self.engine.failed().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        let outcome = self.engine.close();
        let Some(held) = self.take_held() else { return outcome };
        // Readers under way finish; then nobody has the tables but the threads.
        let tables = self.engine.tables.write().await.take();
        let let_go = tokio::task::spawn_blocking(move || held.let_go(tables));
        let_go.await.map_err(|_| StoreError::Failed("closing panicked".to_owned()))?;
        outcome.and(self.engine.failure().map_or(Ok(()), Err))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        if let Some(held) = self.take_held() {
            // It was not closed. What was committed is still made durable before the lock goes.
            let _ = self.engine.close();
            let tables = self.engine.tables.try_write().ok().and_then(|mut tables| tables.take());
            held.let_go(tables);
        }
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
