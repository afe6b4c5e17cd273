//! A backend in memory that can be away, and that can lose the answer to a write.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::{
    Adapter, AdapterError, Batch, Capacity, Change, JsonCapacity, Place, Reserved,
};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;
use lakesync_adapters::memory::Memory;
use tokio::time::sleep;

/// How the backend fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fares {
    /// It does what it is asked.
    Well,
    /// It does nothing, and says so.
    Away,
    /// It takes everything in and never answers.
    Silent,
    /// Every other write lands, and is answered with an error.
    Doubtful,
}

/// A backend in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backend {
    pub(crate) memory: Memory,
    fares: Arc<AtomicU8>,
    writes: Arc<AtomicUsize>,
    narrow: bool,
    /// The stretches that were written.
    pub(crate) stretches: Arc<Mutex<Vec<(Position, Position, usize)>>>,
    /// What is joined: a backend that is filled gets its first rows so.
    pub(crate) joins: Arc<Joins>,
    /// Rows that are not shown as they are, whatever is written.
    pub(crate) hidden: Arc<Mutex<BTreeSet<RowId>>>,
    /// Rows that are shown though nobody wrote them, and that can't be removed.
    pub(crate) stuck: Arc<Mutex<BTreeSet<RowId>>>,
}

/// What was joined, and how many at once.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    pub(crate) rows: AtomicUsize,
    now: AtomicUsize,
    pub(crate) at_once_max: AtomicUsize,
    /// How many milliseconds a join takes.
    pub(crate) takes_ms: AtomicU64,
    /// Every so manieth join fails, if this is not 0.
    pub(crate) fails_every: AtomicUsize,
    /// The join that fails and finds the table emptied, if this is not 0.
    pub(crate) empties_at: AtomicUsize,
    calls: AtomicUsize,
}

impl Backend {
    /// One that can hold less than others.
    pub(crate) fn narrow() -> Self {
        Self { narrow: true, ..Self::default() }
    }

    /// One whose joins are counted with those of others.
    pub(crate) fn counted(joins: &Arc<Joins>) -> Self {
        Self { joins: Arc::clone(joins), ..Self::default() }
    }

    pub(crate) fn fare(&self, fares: Fares) {
        self.fares.store(fares as u8, Ordering::SeqCst);
    }

    /// All rows of a table, tombstones included.
    pub(crate) async fn all(&self, table: &str) -> Vec<(RowId, Row)> {
        let table = table.parse().expect("a legal name");
        match self.memory.rows(&table, None, usize::MAX).await {
            Ok(rows) => rows,
            Err(AdapterError::UnknownTable(_)) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// All changes that were written, in order.
    pub(crate) async fn history(&self) -> Vec<Change> {
        self.memory.history(None, usize::MAX).await.expect("a history")
    }

    async fn reach(&self) -> Result<(), AdapterError> {
        let fares = self.fares.load(Ordering::SeqCst);
        if fares == Fares::Silent as u8 {
            std::future::pending::<()>().await;
        }
        match fares == Fares::Away as u8 {
            true => Err(AdapterError::Unavailable("it is away".to_owned())),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backend of the tests")
    }
}

#[async_trait]
impl Adapter for Backend {
    fn capacity(&self) -> Capacity {
        match self.narrow {
            false => Capacity::ALL,
            true => Capacity {
                nul: false,
                nan: false,
                json: Some(JsonCapacity { nul: false, depth_max: 3 }),
                columns_max: 5,
                reserved: Reserved::NONE,
                ..Capacity::ALL
            },
        }
    }

    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError> {
        self.reach().await?;
        self.memory.prepare(schema).await
    }

    async fn schema(&self) -> Result<Schema, AdapterError> {
        self.reach().await?;
        self.memory.schema().await
    }

    async fn write(&self, batch: &Batch) -> Result<(), AdapterError> {
        self.reach().await?;
        self.memory.write(batch).await?;
        let count = batch.commits().len();
        self.stretches.lock().expect("no panic").push((batch.first(), batch.last(), count));
        let doubtful = self.fares.load(Ordering::SeqCst) == Fares::Doubtful as u8;
        match doubtful && self.writes.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            true => Err(AdapterError::Unavailable("the answer is lost".to_owned())),
            false => Ok(()),
        }
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        self.reach().await?;
        self.memory.watermark(log).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        self.reach().await?;
        self.memory.logs().await
    }

    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.reach().await?;
        let joins = &self.joins;
        let (nth, every) = (
            joins.calls.fetch_add(1, Ordering::SeqCst) + 1,
            joins.fails_every.load(Ordering::SeqCst),
        );
        if nth == joins.empties_at.load(Ordering::SeqCst) {
            let rows = self.memory.rows(table, None, usize::MAX).await?;
            self.memory.forget(table, &rows).await?;
        }
        if every != 0 && nth.is_multiple_of(every) {
            return Err(AdapterError::Unavailable("it is away for a moment".to_owned()));
        }
        joins.rows.fetch_add(rows.len(), Ordering::SeqCst);
        let now = joins.now.fetch_add(1, Ordering::SeqCst) + 1;
        joins.at_once_max.fetch_max(now, Ordering::SeqCst);
        sleep(Duration::from_millis(joins.takes_ms.load(Ordering::SeqCst))).await;
        let joined = self.memory.join(table, rows).await;
        joins.now.fetch_sub(1, Ordering::SeqCst);
        joined
    }

    async fn overwrite(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), AdapterError> {
        self.reach().await?;
        self.memory.overwrite(table, rows).await
    }

    async fn fence(&self) -> Result<(), AdapterError> {
        self.reach().await?;
        self.memory.fence().await
    }

    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.reach().await?;
        self.memory.rows(table, after, limit).await
    }

    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.reach().await?;
        self.memory.find(table, row_ids).await
    }

    async fn shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError> {
        self.reach().await?;
        let shown = self.memory.shown(table, after, limit).await?;
        let stuck = self.stuck.lock().expect("unpoisoned");
        let stuck = stuck.iter().filter(|row_id| after < Some(*row_id)).cloned();
        let all: BTreeSet<RowId> = shown.into_iter().chain(stuck).collect();
        Ok(all.into_iter().take(limit).collect())
    }

    async fn misshown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError> {
        self.reach().await?;
        let wrong = self.memory.misshown(table, rows).await?;
        let hidden = self.hidden.lock().expect("unpoisoned");
        let live = rows.iter().filter(|(row_id, row)| row.is_live() && hidden.contains(row_id));
        let all: BTreeSet<RowId> = live.map(|(row_id, _)| row_id.clone()).chain(wrong).collect();
        Ok(all.into_iter().collect())
    }

    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.reach().await?;
        self.memory.forget(table, rows).await
    }

    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        self.reach().await?;
        self.memory.history(after, limit).await
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        self.reach().await?;
        self.memory.record(changes).await
    }

    async fn health(&self) -> Result<(), AdapterError> {
        self.reach().await
    }
}
