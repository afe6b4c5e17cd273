//! A wrapper that keeps each table in a backend of its own choice.
//!
//! Every backend gets every stretch of the log, with the changes of its tables only, so that quiet
//! tables hold nothing back. What the whole has come to is the least of what each has come to:
//! where a crash left one ahead, writing again settles it.
//!
//! Guarantees: each backend for itself is atomic; readers of two may see a batch in one a moment
//! before it is in the other. A backend that is away stops the flush to all of them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use lakesync::adapter::{Adapter, AdapterError, Batch, Capacity, Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::{Schema, TableSchema};

use crate::fit;

/// Adapters, and which tables each of them keeps.
///
/// A table's rows stay where they were written: who routes a table elsewhere migrates it first.
pub struct Route {
    /// Each adapter once; the first is the one for tables that no route names.
    parts: Vec<Arc<dyn Adapter>>,
    /// By name in lower case, as names that only case tells apart are one table.
    routes: BTreeMap<String, usize>,
    /// What the parts were last seen to be prepared for. It may be outdated, and then allows too
    /// little, never too much: backends only grow.
    known: Mutex<Schema>,
}

/// Which commits of a log all parts have.
#[derive(Clone, Copy, Debug)]
enum Settled {
    /// The least and the greatest of the parts' watermarks. Commits through the least are in all
    /// parts. Changes beyond the greatest were recorded, not written, and so are complete too.
    Between(Position, Position),
    /// The log began while it was looked at: of none of its commits it is known.
    New,
}

impl Settled {
    fn tells(self, position: Position) -> bool {
        match self {
            Self::Between(least, most) => position <= least || most < position,
            Self::New => false,
        }
    }
}

impl Route {
    /// Keeps `tables` in the adapters they are mapped to, and all others in `default`. Names are
    /// compared ignoring case.
    pub fn new(default: Arc<dyn Adapter>, tables: BTreeMap<TableName, Arc<dyn Adapter>>) -> Self {
        let mut parts = vec![default];
        let mut routes = BTreeMap::new();
        for (table, adapter) in tables {
            // Two handles of one adapter are one part: it is written to once per batch.
            let known = parts.iter().position(|part| Arc::ptr_eq(part, &adapter));
            let part = known.unwrap_or_else(|| {
                parts.push(adapter);
                parts.len() - 1
            });
            routes.insert(lower(&table), part);
        }
        Self { parts, routes, known: Mutex::default() }
    }

    fn index(&self, table: &TableName) -> usize {
        self.routes.get(&lower(table)).copied().unwrap_or_default()
    }

    fn part(&self, table: &TableName) -> &dyn Adapter {
        &*self.parts[self.index(table)]
    }

    async fn watermarks(&self, log: LogId) -> Result<Vec<Position>, AdapterError> {
        try_join_all(self.parts.iter().map(|part| part.watermark(log))).await
    }

    /// Of each log, which of its commits may be told.
    async fn settled(&self) -> Result<HashMap<LogId, Settled>, AdapterError> {
        let mut settled = HashMap::new();
        for log in self.logs().await? {
            let all = self.watermarks(log).await?;
            let least = all.iter().min().copied().unwrap_or_default();
            let most = all.into_iter().max().unwrap_or_default();
            settled.insert(log, Settled::Between(least, most));
        }
        Ok(settled)
    }

    /// Refuses what a part would refuse, before another part has written its share.
    async fn check(&self, batch: &Batch, watermark: Position) -> Result<(), AdapterError> {
        let fits = |schema: &Schema| {
            let mut deltas = batch.after(watermark).iter().flat_map(|commit| &commit.deltas);
            deltas.try_for_each(|delta| fit::check(schema, delta))
        };
        if fits(&self.known()).is_ok() {
            return Ok(());
        }
        fits(&self.schema().await?)
    }

    fn known(&self) -> MutexGuard<'_, Schema> {
        self.known.lock().expect("BUG: a panic while a schema was put")
    }

    /// Up to `limit` changes, some of which another part may still be without.
    async fn merged(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        let pages = try_join_all(self.parts.iter().map(|part| part.history(after, limit))).await?;
        let mut changes = BTreeMap::new();
        for (part, page) in pages.into_iter().enumerate() {
            for change in page {
                // What was copied when a table moved is told by the part that has it now.
                let own = self.index(&change.delta.table) == part;
                if own || !changes.contains_key(&change.place) {
                    changes.insert(change.place, change);
                }
            }
        }
        Ok(changes.into_values().take(limit).collect())
    }
}

fn lower(table: &TableName) -> String {
    table.as_str().to_ascii_lowercase()
}

#[async_trait]
impl Adapter for Route {
    fn capacity(&self) -> Capacity {
        self.parts.iter().fold(Capacity::ALL, |all, part| all.meet(part.capacity()))
    }

    /// A part that refuses what its own [`schema`](Adapter::schema) would allow, as for a foreign
    /// table in its way, leaves the others with room for tables that nobody can write to yet.
    async fn prepare(&self, schema: &Schema) -> Result<(), AdapterError> {
        let tables_of = |index| {
            let own = schema.tables().filter(move |table| self.index(&table.table) == index);
            Schema::from_stored(own.map(|table| TableSchema::clone(table)))
        };
        let shares: Vec<_> = (0..self.parts.len()).map(tables_of).collect();
        let held = try_join_all(self.parts.iter().map(|part| part.schema())).await?;
        for (held, share) in held.iter().zip(&shares) {
            fit::newer(held, share)?;
        }
        // A part without tables of its own is prepared too: it keeps watermarks.
        for (part, share) in self.parts.iter().zip(&shares) {
            part.prepare(share).await?;
        }
        Ok(())
    }

    async fn schema(&self) -> Result<Schema, AdapterError> {
        let held = try_join_all(self.parts.iter().map(|part| part.schema())).await?;
        let mut all = Vec::new();
        for (index, held) in held.iter().enumerate() {
            // A table that was here before its route changed is the other part's now.
            let own = held.tables().filter(|table| self.index(&table.table) == index);
            all.extend(own.map(|table| TableSchema::clone(table)));
        }
        let schema = Schema::from_stored(all);
        self.known().clone_from(&schema);
        Ok(schema)
    }

    async fn write(&self, batch: &Batch) -> Result<(), AdapterError> {
        let watermark = self.watermark(batch.log()).await?;
        if watermark.next() < batch.first() {
            return Err(AdapterError::Gap { watermark, first: batch.first() });
        }
        self.check(batch, watermark).await?;
        let shares = (0..self.parts.len())
            .map(|index| batch.only(|delta| self.index(&delta.table) == index))
            .collect::<Vec<_>>();
        let writes = self.parts.iter().zip(&shares).map(|(part, share)| part.write(share));
        // All are awaited: one that fails does not take the others' work back.
        join_all(writes).await.into_iter().collect()
    }

    async fn watermark(&self, log: LogId) -> Result<Position, AdapterError> {
        let all = self.watermarks(log).await?;
        Ok(all.into_iter().min().expect("BUG: a route without a default"))
    }

    async fn logs(&self) -> Result<Vec<LogId>, AdapterError> {
        let logs = try_join_all(self.parts.iter().map(|part| part.logs())).await?;
        Ok(logs.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn join(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.part(table).join(table, rows).await
    }

    async fn overwrite(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), AdapterError> {
        self.part(table).overwrite(table, rows).await
    }

    async fn fence(&self) -> Result<(), AdapterError> {
        join_all(self.parts.iter().map(|part| part.fence())).await.into_iter().collect()
    }

    async fn rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.part(table).rows(table, after, limit).await
    }

    async fn find(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, AdapterError> {
        self.part(table).find(table, row_ids).await
    }

    async fn shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, AdapterError> {
        self.part(table).shown(table, after, limit).await
    }

    async fn misshown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, AdapterError> {
        self.part(table).misshown(table, rows).await
    }

    async fn forget(&self, table: &TableName, rows: &[(RowId, Row)]) -> Result<(), AdapterError> {
        self.part(table).forget(table, rows).await
    }

    /// Of a commit that only some of the parts have yet, nothing is told: a reader that went on
    /// after it would never see the rest.
    async fn history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, AdapterError> {
        // Read before the page: what the page holds of a settled commit is all of it.
        let mut settled = self.settled().await?;
        let mut after = after.copied();
        loop {
            let mut page = self.merged(after.as_ref(), limit).await?;
            let Some(last) = page.last() else { return Ok(page) };
            after = Some(last.place);
            for log in page.iter().map(|change| change.place.log) {
                if let Entry::Vacant(entry) = settled.entry(log) {
                    let begun = self.watermarks(log).await?.iter().any(|at| *at != Position::START);
                    entry.insert(match begun {
                        // A log that began just now waits for the next call.
                        true => Settled::New,
                        false => Settled::Between(Position::START, Position::START),
                    });
                }
            }
            page.retain(|Change { place, .. }| settled[&place.log].tells(place.position));
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }

    async fn record(&self, changes: &[Change]) -> Result<(), AdapterError> {
        for (index, part) in self.parts.iter().enumerate() {
            let own = changes.iter().filter(|change| self.index(&change.delta.table) == index);
            let own: Vec<_> = own.cloned().collect();
            if !own.is_empty() {
                part.record(&own).await?;
            }
        }
        Ok(())
    }

    async fn health(&self) -> Result<(), AdapterError> {
        join_all(self.parts.iter().map(|part| part.health())).await.into_iter().collect()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {}", self.parts[0])?;
        for (table, index) in &self.routes {
            write!(f, ", {table} to {}", self.parts[*index])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("parts", &self.parts).field("routes", &self.routes).finish()
    }
}
