//! A gateway made anew from a backend that holds its rows, where its data directory is gone.
//!
//! The rows come whole: stamps, deletes, ids of columns. The log does not: the new one begins with
//! an empty commit that is trimmed already, so that whoever has no cursor of it takes a checkpoint.
//!
//! Invariant: nobody opens the gateway before all of it is there, sync rules included. Until then it
//! carries a mark, and a restore that finds the mark begins again.

use std::sync::Arc;

use bytes::Bytes;
use lakesync::adapter::{Adapter, AdapterError, Batch};
use lakesync::hlc::Hlc;
use lakesync::name::{self, ClientId, LogId, Position, TableName};
use lakesync::row::Row;
use lakesync::rules::{Draft, RulesError};
use lakesync::schema::Schema;
use lakesync_adapters::pace::Pace;

use super::access::Grave;
use super::commit::{self, Chain};
use super::flushed::Mark;
use super::index::Index;
use super::recover::{Counters, encode_schema};
use super::ruling::Ruling;
use super::{keys, stored};
use crate::store::{GatewayRecord, Group, LogEntry, Store, StoreError};

/// Where the new log ends.
const HEAD: Position = Position(1);
/// Who made the commit there. It holds no changes, and nobody reads it.
const AUTHOR: &str = "restore";

/// What is to be restored.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The gateway.
    pub name: name::Gateway,
    /// The name of the backend, as servers will have it in their settings.
    pub backend: String,
    /// The sync rules to put into force; without, every token sees every row.
    pub rules: Option<Draft>,
    /// When that is.
    pub now_ms: u64,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The new log.
    pub log: LogId,
    /// Of each table, how many rows there are, and how many deletes are remembered.
    pub tables: Vec<(TableName, u64, u64)>,
}

/// Why nothing was restored. Whatever was begun is not opened, and the next restore begins again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backend failed.
    #[error("the backend failed: {0}")]
    Backend(#[source] AdapterError),
    /// The data directory failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The gateway is there.
    #[error(
        "gateway {0} exists, and is not overwritten: restore to another directory or under another \
         name, or delete it first"
    )]
    Exists(name::Gateway),
    /// The backend holds no gateway.
    #[error("the backend holds no rows of a gateway there: check its URL and the schema")]
    Empty,
    /// The rules do not fit the tables.
    #[error("the rules do not fit the tables of the backend: {0}")]
    Rules(#[from] RulesError),
    /// Somebody writes to the backend.
    #[error(
        "the backend was written to meanwhile: stop the server that does, and repeat the restore"
    )]
    Moved,
}

/// A gateway on its way.
struct Restoring<'a> {
    store: &'a dyn Store,
    record: GatewayRecord,
    /// The rules and their index, if there are to be any.
    index: Option<Arc<Index>>,
    counters: Counters,
}

impl Restore {
    /// Reads all rows from `source` into a new gateway of `store`, page by page. `copied` hears how
    /// many of a table are there.
    pub async fn run(
        &self,
        store: &dyn Store,
        source: &dyn Adapter,
        copied: &mut (dyn FnMut(&TableName, u64) + Send),
    ) -> Result<Restored, RestoreError> {
        let before = watermarks(source).await?;
        let schema = source.schema().await.map_err(RestoreError::Backend)?;
        if before.is_empty() || schema.tables().next().is_none() {
            return Err(RestoreError::Empty);
        }
        let building = self.rules.as_ref().map(|draft| Ruling::default().begin(draft, &schema));
        let ruling = building.transpose()?.map(|building| building.enforce(&schema));
        self.make_room(store).await?;
        let record = store.create_gateway(&self.name, self.now_ms).await?;
        let index = ruling.as_ref().and_then(|ruling| ruling.in_force.index.clone());
        let counters = Counters::default();
        let mut restoring = Restoring { store, record, index, counters };
        restoring.begin(&schema).await?;
        let mut tables = Vec::new();
        for table in schema.tables().map(|table| &table.table) {
            let (live, deleted) = restoring.copy(source, table, copied).await?;
            tables.push((table.clone(), live, deleted));
        }
        if watermarks(source).await? != before {
            return Err(RestoreError::Moved);
        }
        let log = restoring.record.log_id;
        // Before the gateway can be opened: a backend that knows nothing of the log is a stranger's.
        let all = Batch::new(log, HEAD, HEAD, Vec::new()).expect("BUG: one position ascends");
        source.write(&all).await.map_err(RestoreError::Backend)?;
        restoring.finish(&self.backend, ruling.as_ref()).await?;
        Ok(Restored { log, tables })
    }

    /// Removes what an earlier restore has left. A gateway that was made and never used goes too; any
    /// other stays, and is in the way.
    async fn make_room(&self, store: &dyn Store) -> Result<(), RestoreError> {
        let Some(GatewayRecord { id, .. }) = store.gateway(&self.name).await? else {
            return Ok(());
        };
        let unfinished = store.meta(id, keys::RESTORING).await?.is_some();
        let unused = store.head(id).await? == Position::START
            && store.meta_scan(id, b"", 1).await?.is_empty();
        if !unfinished && !unused {
            return Err(RestoreError::Exists(self.name.clone()));
        }
        Ok(store.drop_gateway(&self.name).await?)
    }
}

/// How far the backend has come in each log, in the order of their ids.
async fn watermarks(source: &dyn Adapter) -> Result<Vec<(LogId, Position)>, RestoreError> {
    let mut all = Vec::new();
    for log in source.logs().await.map_err(RestoreError::Backend)? {
        all.push((log, source.watermark(log).await.map_err(RestoreError::Backend)?));
    }
    all.sort_unstable();
    Ok(all)
}

impl Restoring<'_> {
    /// Marks the gateway as one that is not all there. Before that it has no tables, so that nobody
    /// can have put a row into it.
    async fn begin(&self, schema: &Schema) -> Result<(), StoreError> {
        let mark = (keys::RESTORING.into(), Some(Bytes::new()));
        let schema = (keys::SCHEMA.into(), Some(encode_schema(schema)));
        let group = Group { meta: vec![mark, schema], ..Group::default() };
        self.store.commit(self.record.id, group).await?.durable().await
    }

    /// Copies a table. How many rows there are, and how many that were deleted.
    async fn copy(
        &mut self,
        source: &dyn Adapter,
        table: &TableName,
        copied: &mut (dyn FnMut(&TableName, u64) + Send),
    ) -> Result<(u64, u64), RestoreError> {
        let (mut after, mut live, mut all) = (None, 0, 0);
        let mut pace = Pace::default();
        loop {
            let page = source.rows(table, after.as_ref(), pace.count()).await;
            let page = page.map_err(RestoreError::Backend)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let mut group = Group::default();
            for (row_id, row) in &page {
                live += u64::from(row.is_live());
                self.put(&mut group, table, row_id, row);
            }
            // The last group's receipt stands for all before it.
            self.store.commit(self.record.id, group).await?;
            all += page.len() as u64;
            copied(table, all);
            let size = |(id, row): &(name::RowId, Row)| id.as_str().len() + row.size();
            pace.took(page.len(), page.iter().map(size).sum());
        }
        self.counters.rows += live;
        Ok((live, all - live))
    }

    fn put(&mut self, group: &mut Group, table: &TableName, row_id: &name::RowId, row: &Row) {
        let key = keys::row(table, row_id);
        self.counters.hlc = self.counters.hlc.max(newest(row).0);
        self.counters.newest = self.counters.hlc;
        if let Some(deleted) = row.deleted().filter(|_| !row.is_live()) {
            group.meta.push((keys::tombstone(deleted.hlc, &key), Some(Bytes::new())));
        }
        if let Some(index) = &self.index {
            group.rows.extend(index.entries(&key, table, row_id, row));
        }
        // Where a deleted row was, the backend does not know.
        let bytes = stored::encode(HEAD, &Grave::default(), row);
        group.rows.push((key, Some(bytes)));
    }

    /// From here on, the gateway is one like any other.
    async fn finish(self, backend: &str, ruling: Option<&Ruling>) -> Result<(), StoreError> {
        let Self { store, record, mut counters, .. } = self;
        let author = ClientId::parse(AUTHOR).expect("BUG: an illegal client id");
        let bytes = commit::encode(&author, Hlc(counters.hlc), Chain::default(), &[], (0, &[]));
        counters.chain = Chain::at(&bytes);
        counters.appended_bytes = bytes.len() as u64;
        counters.trimmed_bytes = counters.appended_bytes;
        counters.trim_through = HEAD.0;
        let (log, position) = (record.log_id, HEAD);
        let mark = Mark { log, position, changes: 0, is_ahead: false };
        let mut meta = vec![
            (keys::COUNTERS.into(), Some(counters.encode())),
            (keys::flushed(backend), Some(mark.encode())),
            (keys::RESTORING.into(), None),
        ];
        meta.extend(ruling.map(|ruling| (keys::RULES.into(), Some(ruling.encode()))));
        let log = vec![LogEntry { position: HEAD, commit: bytes }];
        store.commit(record.id, Group { log, meta, ..Group::default() }).await?.durable().await
    }
}

/// The newest reading of a clock in a row.
fn newest(row: &Row) -> Hlc {
    let cells = row.cells().iter().map(|cell| cell.stamp.hlc);
    let own = [row.written(), row.deleted()].into_iter().flatten().map(|stamp| stamp.hlc);
    cells.chain(own).max().unwrap_or_default()
}
