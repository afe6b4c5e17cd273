//! Rows in memory: the smallest adapter, for tests and for wrappers to be tested around.
//!
//! It keeps the contract as long as the process lives. Handles made by `clone` share one backend,
//! which stands for a database that outlives the processes that talk to it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use lakesync::adapter::{Adapter, AdapterError, Batch, Capacity, Change, Place};
use lakesync::delta::Delta;
use lakesync::name::{ColumnName, LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::{Schema, TableSchema};
use lakesync::value::Value;

use crate::fit;

/// A backend in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    // Held for plain computing only, never across an await.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    schema: Schema,
    rows: BTreeMap<TableName, BTreeMap<RowId, Row>>,
    watermarks: HashMap<LogId, Position>,
    history: BTreeMap<Place, Delta>,
}

#[async_trait]
impl Adapter for Memory {
    fn capacity(&self) -> Capacity {
        Capacity::ALL
    }

    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError> {
        self.lock().prepare(schema)
    }

    async fn schema(&self) -> Result<Schema, AdapterError> {
        Ok(self.lock().schema.clone())
    }

    async fn write(&self, batch: &Batch) -> Result<(), AdapterError> {
        self.lock().write(batch)
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        Ok(self.lock().watermark(log))
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        Ok(self.lock().watermarks.keys().copied().collect())
    }

    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        let mut state = self.lock();
        fit::check_rows(state.table(table)?, rows)?;
        let held = state.rows.entry(table.clone()).or_default();
        for (row_id, row) in rows {
            held.entry(row_id.clone()).or_default().join(row);
        }
        Ok(())
    }

    async fn overwrite(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), AdapterError> {
        let mut state = self.lock();
        let schema = state.table(table)?;
        let mut kept = rows.iter().filter_map(|(row_id, row)| Some((row_id, row.as_ref()?)));
        kept.try_for_each(|(row_id, row)| fit::check_row(schema, row_id, row))?;
        let held = state.rows.entry(table.clone()).or_default();
        for (row_id, row) in rows {
            match row {
                Some(row) => held.insert(row_id.clone(), row.clone()),
                None => held.remove(row_id),
            };
        }
        Ok(())
    }

    /// Each call has ended before another one begins.
    async fn fence(&self) -> Result<(), AdapterError> {
        Ok(())
    }

    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        let state = self.lock();
        state.table(table)?;
        let Some(rows) = state.rows.get(table) else { return Ok(Vec::new()) };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = rows.range::<RowId, _>((start, Bound::Unbounded)).take(limit);
        Ok(page.map(|(row_id, row)| (row_id.clone(), row.clone())).collect())
    }

    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        let state = self.lock();
        state.table(table)?;
        let Some(rows) = state.rows.get(table) else { return Ok(Vec::new()) };
        let found = row_ids.iter().filter_map(|row_id| rows.get_key_value(row_id));
        Ok(found.map(|(row_id, row)| (row_id.clone(), row.clone())).collect())
    }

    async fn shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError> {
        let state = self.lock();
        state.table(table)?;
        let Some(rows) = state.rows.get(table) else { return Ok(Vec::new()) };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = rows.range::<RowId, _>((start, Bound::Unbounded));
        let live = rows.filter(|(_, row)| row.is_live()).take(limit);
        Ok(live.map(|(row_id, _)| row_id.clone()).collect())
    }

    async fn misshown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError> {
        let state = self.lock();
        state.table(table)?;
        let held = state.rows.get(table);
        let is_shown = |row_id: &RowId, row: &Row| {
            let held = held.and_then(|rows| rows.get(row_id)).filter(|held| held.is_live());
            held.is_some_and(|held| values(held).eq(values(row)))
        };
        let live = rows.iter().filter(|(_, row)| row.is_live());
        let wrong = live.filter(|(row_id, row)| !is_shown(row_id, row));
        Ok(wrong.map(|(row_id, _)| row_id.clone()).collect())
    }

    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        let mut state = self.lock();
        state.table(table)?;
        let Some(held) = state.rows.get_mut(table) else { return Ok(()) };
        for (row_id, row) in rows {
            if held.get(row_id) == Some(row) {
                held.remove(row_id);
            }
        }
        Ok(())
    }

    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.lock();
        let page = state.history.range::<Place, _>((start, Bound::Unbounded)).take(limit);
        Ok(page.map(|(place, delta)| Change { place: *place, delta: delta.clone() }).collect())
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        let mut state = self.lock();
        for Change { place, delta } in changes {
            state.history.entry(*place).or_insert_with(|| delta.clone());
        }
        Ok(())
    }

    async fn health(&self) -> Result<(), AdapterError> {
        Ok(())
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl Memory {
    /// Empties it, as somebody would who drops the database.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("BUG: a call panicked halfway and left the rows half written")
    }
}

/// What a row shows, NULL or not written being the same.
fn values(row: &Row) -> impl Iterator<Item = (&ColumnName, &Value)> {
    let cells = row.cells().iter().map(|cell| (&cell.column, &cell.value));
    cells.filter(|(_, value)| **value != Value::Null)
}

impl State {
    fn prepare(&mut self, schema: &Schema) -> Result<(), AdapterError> {
        let newer = fit::newer(&self.schema, schema)?;
        self.schema = fit::grown(&self.schema, &newer);
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), AdapterError> {
        let watermark = self.watermark(batch.log());
        if watermark.next() < batch.first() {
            return Err(AdapterError::Gap { watermark, first: batch.first() });
        }
        let new = || batch.after(watermark).iter().flat_map(|commit| &commit.deltas);
        // All is checked before anything is changed: from here on nothing can fail.
        new().try_for_each(|delta| fit::check(&self.schema, delta))?;
        for (place, delta) in batch.changes_after(watermark) {
            self.history.insert(place, delta.clone());
            let rows = self.rows.entry(delta.table.clone()).or_default();
            rows.entry(delta.row_id.clone()).or_default().merge(delta);
        }
        self.watermarks.insert(batch.log(), watermark.max(batch.last()));
        Ok(())
    }

    fn table(&self, table: &TableName) -> Result<&TableSchema, AdapterError> {
        fit::table(&self.schema, table)
    }

    fn watermark(&self, log: LogId) -> Position {
        self.watermarks.get(&log).copied().unwrap_or_default()
    }
}
