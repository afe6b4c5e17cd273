//! Writing: rows, watermark and history of a batch in one transaction.

use std::collections::HashMap;
use std::sync::PoisonError;

use async_trait::async_trait;
use lakesync::adapter::{AdapterError, Batch, Change, Place};
use lakesync::delta::Delta;
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::TableSchema;

use super::backend::Backend;
use super::error::Failure;
use super::hidden::Cell;
use super::install::Installs;
use super::merge::{self, Changed};
use super::pool::Session;
use super::shown::Shown;
use crate::fit;

/// How a database writes. What `is_new` is written the fastest way, where one that is there already
/// is an error; all else takes the place of what is there.
#[async_trait]
pub(crate) trait Writes: Installs {
    /// Puts live rows into their table.
    async fn put_rows(
        &self,
        connection: &mut Self::Connection,
        table: &Shown<'_>,
        rows: &[(&RowId, &Row)],
        is_new: bool,
    ) -> Result<(), Failure>;

    /// Takes rows out of their table, those that are there.
    async fn delete_rows(
        &self,
        connection: &mut Self::Connection,
        table: &Shown<'_>,
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
pub(crate) enum Way {
    /// All as new ones, without a look at what there is: for a backend that is being filled.
    Blind,
    /// Those that have no state as new ones.
    New,
    /// All as if they were there, such as where people put rows of their own.
    Upsert,
    /// The same, and a cell that the database refuses is NULL where people look.
    Careful,
}

impl Way {
    /// Whether rows without a state are written as new ones.
    fn inserts(self) -> bool {
        matches!(self, Self::Blind | Self::New)
    }

    /// How to try again after a failure, if another way may do.
    fn after<E: Writes>(self, failure: &Failure) -> Option<Self> {
        match self {
            Self::Careful => None,
            _ if failure.database().is_some_and(E::is_misfit) => Some(Self::Careful),
            Self::Blind if failure.is_duplicate() => Some(Self::New),
            Self::New if failure.is_duplicate() => Some(Self::Upsert),
            _ => None,
        }
    }
}

/// A batch of so many new rows, and no other, is a sign that the next will be such a one.
const BLIND_ROWS_MIN: usize = 500;

impl<E: Writes> Backend<E> {
    pub(super) async fn write_batch(&self, batch: &Batch) -> Result<(), Failure> {
        self.ensure_installed().await?;
        let mut way = self.take_way();
        loop {
            let failure = match self.write_by(batch, way).await {
                Ok(next) => {
                    self.put_way(next);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            way = way.after::<E>(&failure).ok_or(failure)?;
            // All ways share the time of one call. So that the last comes to its end, a batch that has
            // met rows in its way, or a cell that is refused, begins with it when it is tried again.
            if !way.inserts() {
                self.put_way(way);
            }
        }
    }

    /// How this batch is written first. Who fills a backend is believed for one batch, and what was
    /// in the way is remembered until a batch is written.
    fn take_way(&self) -> Way {
        let mut next = self.next_way.lock().unwrap_or_else(PoisonError::into_inner);
        let way = *next;
        if way == Way::Blind {
            *next = Way::New;
        }
        way
    }

    fn put_way(&self, way: Way) {
        *self.next_way.lock().unwrap_or_else(PoisonError::into_inner) = way;
    }

    /// Writes it so, and says how to write the next.
    async fn write_by(&self, batch: &Batch, way: Way) -> Result<Way, Failure> {
        let mut session = self.begin().await?;
        let catalogue = self.lock(&mut session).await?;
        let watermark = self.engine.watermark(&mut session, batch.log()).await?;
        let watermark = watermark.unwrap_or(Position::START);
        if watermark.next() < batch.first() {
            return Err(AdapterError::Gap { watermark, first: batch.first() }.into());
        }
        if batch.last() <= watermark {
            session.roll_back().await?;
            return Ok(Way::New);
        }
        let new = || batch.after(watermark).iter().flat_map(|commit| &commit.deltas);
        new().try_for_each(|delta| fit::check(&catalogue.schema, delta))?;
        let (mut fresh, mut known, mut hidden) = (0, 0, Vec::new());
        for touched in merge::touched(new()) {
            let table = fit::table(&catalogue.schema, touched.table)?;
            let id = catalogue.id(touched.table)?;
            let row_ids = touched.row_ids();
            let mut done = 0;
            while done < row_ids.len() {
                let rest = &row_ids[done..];
                let (mut held, count) = match way {
                    Way::Blind => (HashMap::new(), rest.len()),
                    Way::New | Way::Upsert | Way::Careful => {
                        self.engine.some_states(&mut session, id, rest).await?
                    }
                };
                fresh += count - held.len();
                known += held.len();
                let changed = touched.part(done..done + count).merged(&mut held);
                self.put(&mut session, table, id, &changed, way, &mut hidden).await?;
                done += count;
            }
        }
        let changes: Vec<_> = batch.changes_after(watermark).collect();
        if self.keeps_history && !changes.is_empty() {
            self.engine.put_changes(&mut session, &changes, way.inserts()).await?;
        }
        self.engine.put_watermark(&mut session, batch.log(), batch.last()).await?;
        session.commit().await?;
        self.hide(hidden);
        let is_filling = way.inserts() && known == 0 && BLIND_ROWS_MIN <= fresh;
        Ok(if is_filling { Way::Blind } else { Way::New })
    }

    pub(super) async fn join_rows(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<(), Failure> {
        let mut way = Way::New;
        loop {
            match self.join_by(table, rows, way).await {
                Ok(()) => return Ok(()),
                Err(failure) => way = way.after::<E>(&failure).ok_or(failure)?,
            }
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
        let (mut done, mut hidden) = (0, Vec::new());
        while done < rows.len() {
            let rest = &row_ids[done..];
            let (mut held, count) = self.engine.some_states(&mut session, id, rest).await?;
            let changed = merge::joined(&rows[done..done + count], &mut held);
            self.put(&mut session, &schema, id, &changed, way, &mut hidden).await?;
            done += count;
        }
        session.commit().await?;
        self.hide(hidden);
        Ok(())
    }

    pub(super) async fn overwrite_rows(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
    ) -> Result<(), Failure> {
        let mut way = Way::Upsert;
        loop {
            match self.overwrite_by(table, rows, way).await {
                Ok(()) => return Ok(()),
                Err(failure) => way = way.after::<E>(&failure).ok_or(failure)?,
            }
        }
    }

    async fn overwrite_by(
        &self,
        table: &TableName,
        rows: &[(RowId, Option<Row>)],
        way: Way,
    ) -> Result<(), Failure> {
        let (mut session, schema, id) = self.begin_with(table).await?;
        let (mut kept, mut gone, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
        for (row_id, row) in rows {
            match row {
                Some(row) => {
                    fit::check_row(&schema, row_id, row)?;
                    kept.push(Changed { row_id, known: true, row: row.clone() });
                }
                None => gone.push(row_id),
            }
        }
        self.put(&mut session, &schema, id, &kept, way, &mut hidden).await?;
        let shown = Shown::of(&schema, &E::CAPACITY);
        let deleted = self.engine.delete_rows(&mut session, &shown, &gone).await;
        deleted.map_err(|failure| failure.of(table))?;
        self.engine.delete_states(&mut session, id, &gone).await?;
        session.commit().await?;
        self.hide(hidden);
        Ok(())
    }

    /// Each writer holds the lock until its transaction has ended.
    pub(super) async fn await_writers(&self) -> Result<(), Failure> {
        if !self.is_installed().await? {
            return Ok(());
        }
        let mut session = self.begin().await?;
        if E::present(self.lock(&mut session).await)?.is_none() {
            // Somebody dropped our tables: nobody can write to them.
            return Ok(());
        }
        session.roll_back().await
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
        let shown = Shown::of(&schema, &E::CAPACITY);
        let deleted = self.engine.delete_rows(&mut session, &shown, &row_ids).await;
        deleted.map_err(|failure| failure.of(table))?;
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
        hidden: &mut Vec<Cell>,
    ) -> Result<(), Failure> {
        let engine = &self.engine;
        let shown = self.put_shown(connection, table, changed, way, hidden).await;
        shown.map_err(|failure| failure.of(&table.table))?;
        let (fresh, known): (Vec<_>, Vec<_>) = changed.iter().partition(|row| is_new(row, way));
        engine.put_states(connection, table_id, &fresh, true).await?;
        engine.put_states(connection, table_id, &known, false).await
    }

    /// Writes rows where people look.
    async fn put_shown(
        &self,
        connection: &mut E::Connection,
        table: &TableSchema,
        changed: &[Changed<'_>],
        way: Way,
        hidden: &mut Vec<Cell>,
    ) -> Result<(), Failure> {
        let (engine, table) = (&self.engine, Shown::of(table, &E::CAPACITY));
        let (live, dead): (Vec<_>, Vec<_>) = changed.iter().partition(|row| row.row.is_live());
        let dead: Vec<_> = dead.into_iter().map(|row: &Changed<'_>| row.row_id).collect();
        engine.delete_rows(connection, &table, &dead).await?;
        if way == Way::Careful {
            return self.put_carefully(connection, &table, &pairs(&live), hidden).await;
        }
        let (fresh, known): (Vec<_>, Vec<_>) = live.into_iter().partition(|row| is_new(row, way));
        engine.put_rows(connection, &table, &pairs(&fresh), true).await?;
        engine.put_rows(connection, &table, &pairs(&known), false).await
    }
}

fn is_new(row: &Changed<'_>, way: Way) -> bool {
    way.inserts() && !row.known
}

fn pairs<'c>(rows: &[&'c Changed<'_>]) -> Vec<(&'c RowId, &'c Row)> {
    rows.iter().map(|changed| (changed.row_id, &changed.row)).collect()
}
