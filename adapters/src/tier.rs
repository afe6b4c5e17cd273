//! A wrapper that keeps new rows in one backend and old ones in another.
//!
//! All is written to the hot backend, which also keeps the watermarks and the history. A row that
//! nobody has written for a while moves to the cold one: joined there first, then forgotten here.
//!
//! Invariant: what the hot backend holds of a row is all of it. So before a row is written that the
//! cold backend has, it is brought back; and a row in both is what the hot one says. A crash between
//! two steps leaves a row in both, which reads as one and moves again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join;
use lakesync::adapter::{Adapter, AdapterError, Batch, Capacity, Change, Place};
use lakesync::clock::WallClock;
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;

use crate::fit;
use crate::pace::Pace;

mod seen;

/// Two adapters, and when a row moves from the one to the other.
#[derive(Debug)]
pub struct Tier {
    hot: Arc<dyn Adapter>,
    cold: Arc<dyn Adapter>,
    after: Duration,
    clock: Arc<dyn WallClock>,
    // Both are held across awaits, and taken in this order. Readers need neither.
    //
    // Held while rows move and while rows are forgotten by both: one that was forgotten while it
    // moved would be back where it moved to.
    walk: tokio::sync::Mutex<Walk>,
    // The turn to change what is in the hot backend: a row that is found there stays until it is
    // written. It has the tables of which nothing is being forgotten any more.
    turn: tokio::sync::Mutex<BTreeSet<TableName>>,
    failed: Mutex<Option<AdapterError>>,
}

/// How far the search for old rows has come. A new process starts over.
#[derive(Debug, Default)]
struct Walk {
    table: Option<TableName>,
    after: Option<RowId>,
    pace: Pace,
}

/// What was done of the search for old rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether those were the last there are.
    pub is_last: bool,
    /// How long the backends worked on it.
    pub worked: Duration,
}

impl Tier {
    /// Writes to `hot`, and moves rows to `cold` whose newest write or delete is `after` ago, by
    /// its stamp.
    pub fn new(
        hot: Arc<dyn Adapter>,
        cold: Arc<dyn Adapter>,
        after: Duration,
        clock: Arc<dyn WallClock>,
    ) -> Self {
        let (walk, turn, failed) = Default::default();
        Self { hot, cold, after, clock, walk, turn, failed }
    }

    /// Looks at the next few rows and moves those that are old. Nothing moves by itself.
    pub async fn advance(&self) -> Result<Step, AdapterError> {
        let mut walk = self.walk.lock().await;
        let moved = self.step(&mut walk).await;
        *self.failed.lock().expect("BUG: a panic while an error was put") = moved.clone().err();
        moved
    }

    /// How long after its newest write or delete a row is old.
    pub fn after(&self) -> Duration {
        self.after
    }

    /// Why rows could not be moved, the last time that it was tried.
    pub fn failed(&self) -> Option<AdapterError> {
        self.failed.lock().expect("BUG: a panic while an error was put").clone()
    }

    async fn step(&self, walk: &mut Walk) -> Result<Step, AdapterError> {
        let began = Instant::now();
        let schema = self.hot.schema().await?;
        let from = walk.table.clone();
        let names = schema.tables().map(|table| &table.table);
        let mut left = names.filter(|name| from.as_ref() <= Some(name));
        let Some(table) = left.next().cloned() else {
            (walk.table, walk.after) = (None, None);
            return Ok(Step { is_last: true, worked: began.elapsed() });
        };
        if walk.table.as_ref() != Some(&table) {
            walk.after = None;
        }
        let page = self.hot.rows(&table, walk.after.as_ref(), walk.pace.count()).await?;
        walk.table = Some(table.clone());
        let Some((last, _)) = page.last() else {
            // On to the next table, or back to the first one.
            (walk.table, walk.after) = (left.next().cloned(), None);
            return Ok(Step { is_last: walk.table.is_none(), worked: began.elapsed() });
        };
        let last = last.clone();
        walk.pace.took(page.len(), size(&page));
        let old: Vec<_> = page.into_iter().filter(|(_, row)| self.is_old(row)).collect();
        let mut waited = Duration::ZERO;
        if !old.is_empty() {
            self.cold.join(&table, &old).await?;
            let waits = Instant::now();
            let mut settled = self.turn.lock().await;
            waited = waits.elapsed();
            settled.remove(&table);
            // Those only that nobody has written meanwhile. Else what is cold is an older state of
            // what is here, which harms nothing.
            self.hot.forget(&table, &old).await?;
            settled.insert(table);
        }
        walk.after = Some(last);
        Ok(Step { is_last: false, worked: began.elapsed().saturating_sub(waited) })
    }

    /// Waits until nothing of `table` is being forgotten. A step may have been broken off, by us or by
    /// the end of a process, while the hot backend is still working on its last call: then a row that
    /// is found there now might be gone when it is written.
    async fn settle(
        &self,
        settled: &mut BTreeSet<TableName>,
        table: &TableName,
    ) -> Result<(), AdapterError> {
        if !settled.contains(table) {
            self.hot.fence().await?;
            settled.insert(table.clone());
        }
        Ok(())
    }

    fn is_old(&self, row: &Row) -> bool {
        let newest = row.written().max(row.deleted()).map_or(0, |stamp| stamp.hlc.ms());
        let age = Duration::from_millis(self.clock.now_ms().saturating_sub(newest));
        self.after <= age
    }

    async fn prepare_cold(&self, schema: &Schema) -> Result<(), AdapterError> {
        fit::newer(&self.cold.schema().await?, schema)?;
        self.cold.prepare(schema).await
    }

    /// Brings those rows back that the cold backend has and the hot one has not. Returns the ids of
    /// those that were in neither.
    async fn warm(
        &self,
        table: &TableName,
        row_ids: &[&RowId],
    ) -> Result<HashSet<RowId>, AdapterError> {
        let mut pace = Pace::default();
        let mut rest = row_ids;
        let mut absent = HashSet::new();
        while !rest.is_empty() {
            let (ids, later) = rest.split_at(pace.count().min(rest.len()));
            rest = later;
            let ids: Vec<RowId> = ids.iter().copied().cloned().collect();
            let held = self.hot.find(table, &ids).await?;
            let mut away: HashSet<RowId> = ids.iter().cloned().collect();
            held.iter().for_each(|(row_id, _)| {
                away.remove(row_id);
            });
            let mut bytes = size(&held);
            if !away.is_empty() {
                let ids: Vec<_> = ids.into_iter().filter(|row_id| away.contains(row_id)).collect();
                let cold = self.cold.find(table, &ids).await?;
                if !cold.is_empty() {
                    self.hot.join(table, &cold).await?;
                }
                bytes += size(&cold);
                cold.iter().for_each(|(row_id, _)| {
                    away.remove(row_id);
                });
            }
            pace.took(held.len().max(1), bytes);
            absent.extend(away);
        }
        Ok(absent)
    }
}

fn size(rows: &[(RowId, Row)]) -> usize {
    rows.iter().map(|(row_id, row)| row_id.as_str().len() + row.size()).sum()
}

/// Rows of both backends by id. A row in both is joined.
fn merged(hot: Vec<(RowId, Row)>, cold: Vec<(RowId, Row)>) -> BTreeMap<RowId, Row> {
    let mut rows: BTreeMap<RowId, Row> = hot.into_iter().collect();
    for (row_id, row) in cold {
        rows.entry(row_id).or_default().join(&row);
    }
    rows
}

#[async_trait]
impl Adapter for Tier {
    fn capacity(&self) -> Capacity {
        self.hot.capacity().meet(self.cold.capacity())
    }

    /// The hot backend is prepared last: what it has room for, the other has too. So where it has
    /// room for all, nobody waits for a cold one that is away.
    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError> {
        let is_new = !fit::newer(&self.hot.schema().await?, schema)?.is_empty();
        match self.prepare_cold(schema).await {
            Err(AdapterError::Unavailable(_) | AdapterError::Busy(_)) if !is_new => {}
            prepared => prepared?,
        }
        self.hot.prepare(schema).await
    }

    async fn schema(&self) -> Result<Schema, AdapterError> {
        self.hot.schema().await
    }

    async fn write(&self, batch: &Batch) -> Result<(), AdapterError> {
        let mut settled = self.turn.lock().await;
        let watermark = self.hot.watermark(batch.log()).await?;
        if watermark.next() < batch.first() {
            return Err(AdapterError::Gap { watermark, first: batch.first() });
        }
        let mut written: BTreeMap<&TableName, HashSet<&RowId>> = BTreeMap::new();
        for (_, delta) in batch.changes_after(watermark) {
            written.entry(&delta.table).or_default().insert(&delta.row_id);
        }
        for (table, row_ids) in written {
            self.settle(&mut settled, table).await?;
            self.warm(table, &row_ids.into_iter().collect::<Vec<_>>()).await?;
        }
        self.hot.write(batch).await
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        self.hot.watermark(log).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        self.hot.logs().await
    }

    /// Old rows that are not in the hot backend are joined where they belong.
    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        let mut settled = self.turn.lock().await;
        self.settle(&mut settled, table).await?;
        let row_ids: Vec<_> = rows.iter().map(|(row_id, _)| row_id).collect();
        let absent = self.warm(table, &row_ids).await?;
        let is_cold = |(row_id, row): &&(RowId, Row)| absent.contains(row_id) && self.is_old(row);
        let (cold, hot): (Vec<_>, Vec<_>) = rows.iter().partition(is_cold);
        let owned = |rows: Vec<&(RowId, Row)>| rows.into_iter().cloned().collect::<Vec<_>>();
        if !cold.is_empty() {
            self.cold.join(table, &owned(cold)).await?;
        }
        self.hot.join(table, &owned(hot)).await
    }

    /// All of it ends up in the hot backend, from where old rows move again.
    async fn overwrite(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), AdapterError> {
        let (_walk, mut settled) = (self.walk.lock().await, self.turn.lock().await);
        settled.remove(table);
        for tier in [&self.cold, &self.hot] {
            tier.fence().await?;
        }
        let row_ids: Vec<_> = rows.iter().map(|(row_id, _)| row_id.clone()).collect();
        let cold = self.cold.find(table, &row_ids).await?;
        let cold: HashSet<_> = cold.into_iter().map(|(row_id, _)| row_id).collect();
        let of_cold = |stays: bool| -> Vec<(RowId, Option<Row>)> {
            let some = rows.iter().filter(|(id, row)| row.is_some() == stays && cold.contains(id));
            some.map(|(row_id, _)| (row_id.clone(), None)).collect()
        };
        // Deleted rows leave the cold backend first. Rows that move are written to the hot backend before
        // they leave the cold one. So a break at any point loses no row and brings none back.
        let (gone, moved) = (of_cold(false), of_cold(true));
        if !gone.is_empty() {
            self.cold.overwrite(table, &gone).await?;
        }
        self.hot.overwrite(table, rows).await?;
        if !moved.is_empty() {
            self.cold.overwrite(table, &moved).await?;
        }
        Ok(())
    }

    async fn fence(&self) -> Result<(), AdapterError> {
        let _turn = self.turn.lock().await;
        let (hot, cold) = join(self.hot.fence(), self.cold.fence()).await;
        hot.and(cold)
    }

    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        // In this order: a row that moves meanwhile was seen here, or is there already.
        let hot = self.hot.rows(table, after, limit).await?;
        let cold = self.cold.rows(table, after, limit).await?;
        // Beyond the end of either page, that backend may have rows that were not asked for yet.
        let ends = [hot.last(), cold.last()].into_iter().flatten();
        let Some(end) = ends.map(|(row_id, _)| row_id).min().cloned() else {
            return Ok(Vec::new());
        };
        let rows = merged(hot, cold).into_iter();
        Ok(rows.take_while(|(row_id, _)| *row_id <= end).take(limit).collect())
    }

    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        let hot = self.hot.find(table, row_ids).await?;
        let cold = self.cold.find(table, row_ids).await?;
        Ok(merged(hot, cold).into_iter().collect())
    }

    async fn shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError> {
        self.seen(table, after, limit).await
    }

    async fn misshown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError> {
        self.badly_seen(table, rows).await
    }

    /// The cold backend forgets first: were a crash to leave it an older state alone, a row that was
    /// deleted would be back.
    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        let (_walk, mut settled) = (self.walk.lock().await, self.turn.lock().await);
        settled.remove(table);
        // A step or a write that was broken off may still be joining rows there.
        for tier in [&self.cold, &self.hot] {
            tier.fence().await?;
        }
        let row_ids: Vec<_> = rows.iter().map(|(row_id, _)| row_id.clone()).collect();
        let hot = self.hot.find(table, &row_ids).await?;
        let cold = self.cold.find(table, &row_ids).await?;
        let now = merged(hot.clone(), cold.clone());
        let same = rows.iter().filter(|(row_id, row)| now.get(row_id) == Some(row));
        let same: HashSet<_> = same.map(|(row_id, _)| row_id).collect();
        for (tier, held) in [(&self.cold, cold), (&self.hot, hot)] {
            let held: Vec<_> = held.into_iter().filter(|(id, _)| same.contains(id)).collect();
            if !held.is_empty() {
                tier.forget(table, &held).await?;
            }
        }
        Ok(())
    }

    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        self.hot.history(after, limit).await
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        self.hot.record(changes).await
    }

    async fn health(&self) -> Result<(), AdapterError> {
        let (hot, cold) = join(self.hot.health(), self.cold.health()).await;
        hot.and(cold)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.after.as_secs_f64() / (24.0 * 60.0 * 60.0);
        write!(f, "{}, and after {days} days {}", self.hot, self.cold)
    }
}
