//! Writing: rows, watermark and history of a batch in one transaction.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use lakesync::adapter::{AdapterError, Batch, Change, Place};
use lakesync::delta::Delta;
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::TableSchema;

use super::backend::Backend;
use super::error::Failure;
use super::install::Installs;
use super::merge::{self, Changed};
use super::pool::Session;
use crate::fit;

/// How a database writes. What `is_new` is written the fastest way, where one that is there already
/// is an error; all else takes the place of what is there.
#[async_trait]
pub(crate) trait Writes: Installs {
    /// Puts live rows into their table.
    async fn put_rows(
        &self,
        connection: &mut Self::Connection,
        table: &TableSchema,
        rows: &[(&RowId, &Row)],
        is_new: bool,
    ) -> Result<(), Failure>;

    /// Takes rows out of their table, those that are there.
    async fn delete_rows(
        &self,
        connection: &mut Self::Connection,
        table: &TableSchema,
        row_ids: &[&RowId],
    ) -> Result<(), Failure>;

    /// Puts states into our own table.
    async fn put_states(
        &self,
        connection: &mut Self::Connection,
        table_id: i32,
        rows: &[&Changed<'_>],
        is_new: bool,
    ) -> Result<(), Failure>;

    /// Takes states out of our own table.
    async fn delete_states(
        &self,
        connection: &mut Self::Connection,
        table_id: i32,
        row_ids: &[&RowId],
    ) -> Result<(), Failure>;

    /// Adds changes to the history. Unless all are new, those that it holds stay as they are.
    async fn put_changes(
        &self,
        connection: &mut Self::Connection,
        changes: &[(Place, &Delta)],
        is_new: bool,
    ) -> Result<(), Failure>;

    /// Writes down how far a log has come.
    async fn put_watermark(
        &self,
        connection: &mut Self::Connection,
        log: LogId,
        position: Position,
    ) -> Result<(), Failure>;
}

/// How rows are written. Each way but the last fails, and leaves nothing, where a row that it takes
/// for new stands already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// All as new ones, without a look at what there is: for a backend that is being filled.
    Blind,
    /// Those that have no state as new ones.
    New,
    /// All as if they were there, such as where people put rows of their own.
    Upsert,
}

/// A batch of so many new rows, and no other, is a sign that the next will be such a one.
const BLIND_ROWS_MIN: usize = 500;

impl<E: Writes> Backend<E> {
    pub(super) async fn write_batch(&self, batch: &Batch) -> Result<(), Failure> {
        self.ensure_installed().await?;
        let is_filling = self.is_filling.swap(false, Ordering::Relaxed);
        let ways = [Way::Blind, Way::New, Way::Upsert];
        // All ways share the time of one call. So that the last comes to its end, a batch that has
        // met rows in its way begins with it when it is tried again.
        let ways = match (self.is_hindered.load(Ordering::Relaxed), is_filling) {
            (true, _) => &ways[2..],
            (false, true) => &ways[..],
            (false, false) => &ways[1..],
        };
        for way in ways {
            match self.write_by(batch, *way).await {
                // How filling ends.
                Err(failure) if failure.is_duplicate() && *way == Way::Blind => {}
                Err(failure) if failure.is_duplicate() && *way == Way::New => {
                    self.is_hindered.store(true, Ordering::Relaxed);
                }
                Err(failure) => return Err(failure),
                Ok(()) => {
                    self.is_hindered.store(false, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
        unreachable!("BUG: the last way returns, whatever comes of it")
    }

    async fn write_by(&self, batch: &Batch, way: Way) -> Result<(), Failure> {
        let mut session = self.begin().await?;
        let catalogue = self.lock(&mut session).await?;
        let watermark = self.engine.watermark(&mut session, batch.log()).await?;
        let watermark = watermark.unwrap_or(Position::START);
        if watermark.next() < batch.first() {
            return Err(AdapterError::Gap { watermark, first: batch.first() }.into());
        }
        if batch.last() <= watermark {
            return session.roll_back().await;
        }
        let new = || batch.after(watermark).iter().flat_map(|commit| &commit.deltas);
        new().try_for_each(|delta| fit::check(&catalogue.schema, delta))?;
        let (mut fresh, mut known) = (0, 0);
        for touched in merge::touched(new()) {
            let table = fit::table(&catalogue.schema, touched.table)?;
            let id = catalogue.id(touched.table)?;
            let row_ids = touched.row_ids();
            let mut done = 0;
            while done < row_ids.len() {
                let rest = &row_ids[done..];
                let (mut held, count) = match way {
                    Way::Blind => (HashMap::new(), rest.len()),
                    Way::New | Way::Upsert => {
                        self.engine.some_states(&mut session, id, rest).await?
                    }
                };
                fresh += count - held.len();
                known += held.len();
                let changed = touched.part(done..done + count).merged(&mut held);
                self.put(&mut session, table, id, &changed, way).await?;
                done += count;
            }
        }
        let changes: Vec<_> = batch.changes_after(watermark).collect();
        if self.keeps_history && !changes.is_empty() {
            self.engine.put_changes(&mut session, &changes, way != Way::Upsert).await?;
        }
        self.engine.put_watermark(&mut session, batch.log(), batch.last()).await?;
        session.commit().await?;
        let is_filling = way != Way::Upsert && known == 0 && BLIND_ROWS_MIN <= fresh;
        self.is_filling.store(is_filling, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn join_rows(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<(), Failure> {
        match self.join_by(table, rows, Way::New).await {
            Err(failure) if failure.is_duplicate() => self.join_by(table, rows, Way::Upsert).await,
            done => done,
        }
    }

    async fn join_by(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
        way: Way,
    ) -> Result<(), Failure> {
        let (mut session, schema, id) = self.begin_with(table).await?;
        fit::check_rows(&schema, rows)?;
        let row_ids: Vec<_> = rows.iter().map(|(row_id, _)| row_id).collect();
        let mut done = 0;
        while done < rows.len() {
            let rest = &row_ids[done..];
            let (mut held, count) = self.engine.some_states(&mut session, id, rest).await?;
            let changed = merge::joined(&rows[done..done + count], &mut held);
            self.put(&mut session, &schema, id, &changed, way).await?;
            done += count;
        }
        session.commit().await
    }

    pub(super) async fn forget_rows(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<(), Failure> {
        let (mut session, schema, id) = self.begin_with(table).await?;
        let row_ids: Vec<_> = rows.iter().map(|(row_id, _)| row_id).collect();
        let held = self.states(&mut session, id, &row_ids).await?;
        let as_given = rows.iter().filter(|(row_id, row)| held.get(row_id) == Some(row));
        let row_ids: Vec<_> = as_given.map(|(row_id, _)| row_id).collect();
        self.engine.delete_rows(&mut session, &schema, &row_ids).await?;
        self.engine.delete_states(&mut session, id, &row_ids).await?;
        session.commit().await
    }

    pub(super) async fn record_changes(&self, changes: &[Change]) -> Result<(), Failure> {
        if !self.keeps_history || changes.is_empty() {
            return Ok(());
        }
        self.ensure_installed().await?;
        let mut session = self.begin().await?;
        self.lock(&mut session).await?;
        let changes: Vec<_> = changes.iter().map(|change| (change.place, &change.delta)).collect();
        self.engine.put_changes(&mut session, &changes, false).await?;
        session.commit().await
    }

    /// A transaction that writes one table.
    async fn begin_with(
        &self,
        table: &TableName,
    ) -> Result<(Session<E::Connection>, TableSchema, i32), Failure> {
        self.ensure_installed().await?;
        let mut session = self.begin().await?;
        let catalogue = self.lock(&mut session).await?;
        let schema = fit::table(&catalogue.schema, table)?.clone();
        Ok((session, schema, catalogue.id(table)?))
    }

    /// Writes rows where people look, and their states.
    async fn put(
        &self,
        connection: &mut E::Connection,
        table: &TableSchema,
        table_id: i32,
        changed: &[Changed<'_>],
        way: Way,
    ) -> Result<(), Failure> {
        let engine = &self.engine;
        let (live, dead): (Vec<_>, Vec<_>) = changed.iter().partition(|row| row.row.is_live());
        let dead: Vec<_> = dead.into_iter().map(|row: &Changed<'_>| row.row_id).collect();
        engine.delete_rows(connection, table, &dead).await?;
        let is_new = |row: &&Changed<'_>| way != Way::Upsert && !row.known;
        let (fresh, known): (Vec<_>, Vec<_>) = live.into_iter().partition(is_new);
        engine.put_rows(connection, table, &pairs(&fresh), true).await?;
        engine.put_rows(connection, table, &pairs(&known), false).await?;
        let (fresh, known): (Vec<_>, Vec<_>) = changed.iter().partition(is_new);
        engine.put_states(connection, table_id, &fresh, true).await?;
        engine.put_states(connection, table_id, &known, false).await
    }
}

fn pairs<'c>(rows: &[&'c Changed<'_>]) -> Vec<(&'c RowId, &'c Row)> {
    rows.iter().map(|changed| (changed.row_id, &changed.row)).collect()
}
