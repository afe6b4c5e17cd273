//! Writing: rows, watermark and history of a batch in one transaction.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use lakesync::adapter::{AdapterError, Batch};
use lakesync::name::{Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::TableSchema;
use sqlx::postgres::PgConnection;

use super::history::record;
use super::names::WATERMARKS;
use super::session::{Failure, Session};
use super::statement::Statement;
use super::{Postgres, copy, upsert};
use crate::fit;
use crate::sql::merge::{self, Changed};

/// How rows are written. Each way but the last fails, and leaves nothing, where a row that it takes
/// for new stands already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// All by COPY, without a look at what there is: for a backend that is being filled.
    Blind,
    /// Those that have no state by COPY.
    Copy,
    /// All as if they were there, such as where people put rows of their own.
    Upsert,
}

/// A batch of so many new rows, and no other, is a sign that the next will be such a one.
const BLIND_ROWS_MIN: usize = 500;

impl Postgres {
    pub(super) async fn write_batch(&self, batch: &Batch) -> Result<(), Failure> {
        self.ensure_installed().await?;
        let is_filling = self.is_filling.swap(false, Ordering::Relaxed);
        let ways = [Way::Blind, Way::Copy, Way::Upsert];
        let ways = if is_filling { &ways[..] } else { &ways[1..] };
        for way in ways {
            match self.write_by(batch, *way).await {
                Err(failure) if failure.is_duplicate() && *way != Way::Upsert => {}
                done => return done,
            }
        }
        unreachable!("BUG: the last way returns, whatever comes of it")
    }

    async fn write_by(&self, batch: &Batch, way: Way) -> Result<(), Failure> {
        let mut session = self.begin(self.server.options.call_timeout).await?;
        let catalogue = self.lock(&mut session).await?;
        let watermark = self.watermark_of(&mut session, batch.log()).await?;
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
                    Way::Copy | Way::Upsert => self.some_states(&mut session, id, rest).await?,
                };
                fresh += count - held.len();
                known += held.len();
                let changed = touched.part(done..done + count).merged(&mut held);
                self.put(&mut session, table, id, &changed, way).await?;
                done += count;
            }
        }
        if self.keeps_history {
            self.tell(&mut session, batch, watermark, way).await?;
        }
        self.move_watermark(&mut session, batch).await?;
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
        self.ensure_installed().await?;
        match self.join_by(table, rows, Way::Copy).await {
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
            let (mut held, count) = self.some_states(&mut session, id, rest).await?;
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
        self.ensure_installed().await?;
        let (mut session, schema, id) = self.begin_with(table).await?;
        let row_ids: Vec<_> = rows.iter().map(|(row_id, _)| row_id).collect();
        let held = self.states(&mut session, id, &row_ids).await?;
        let as_given = rows.iter().filter(|(row_id, row)| held.get(row_id) == Some(row));
        let row_ids: Vec<_> = as_given.map(|(row_id, _)| row_id).collect();
        upsert::delete(&mut session, &self.names, &schema, &row_ids).await?;
        upsert::delete_states(&mut session, &self.names, id, &row_ids).await?;
        session.commit().await
    }

    /// A transaction that writes one table.
    async fn begin_with(&self, table: &TableName) -> Result<(Session, TableSchema, i32), Failure> {
        let mut session = self.begin(self.server.options.call_timeout).await?;
        let catalogue = self.lock(&mut session).await?;
        let schema = fit::table(&catalogue.schema, table)?.clone();
        Ok((session, schema, catalogue.id(table)?))
    }

    /// Writes rows where people look, and their states.
    async fn put(
        &self,
        connection: &mut PgConnection,
        table: &TableSchema,
        table_id: i32,
        changed: &[Changed<'_>],
        way: Way,
    ) -> Result<(), Failure> {
        let names = &self.names;
        let (live, dead): (Vec<_>, Vec<_>) = changed.iter().partition(|row| row.row.is_live());
        let dead: Vec<_> = dead.into_iter().map(|row: &Changed<'_>| row.row_id).collect();
        upsert::delete(connection, names, table, &dead).await?;
        let new = |row: &&Changed<'_>| way != Way::Upsert && !row.known;
        let (fresh, known): (Vec<_>, Vec<_>) = live.into_iter().partition(new);
        copy::rows(connection, names, table, &pairs(&fresh)).await?;
        upsert::rows(connection, names, table, &pairs(&known)).await?;
        let (fresh, known): (Vec<_>, Vec<_>) = changed.iter().partition(new);
        copy::states(connection, names, table_id, &fresh).await?;
        upsert::states(connection, names, table_id, &known).await
    }

    /// Adds the batch's new changes to the history.
    async fn tell(
        &self,
        connection: &mut PgConnection,
        batch: &Batch,
        watermark: Position,
        way: Way,
    ) -> Result<(), Failure> {
        let mut changes = batch.changes_after(watermark).peekable();
        if changes.peek().is_none() {
            return Ok(());
        }
        let records = changes.map(|(place, delta)| record(place, delta));
        match way {
            Way::Blind | Way::Copy => copy::history(connection, &self.names, records).await,
            Way::Upsert => {
                let records: Vec<_> = records.collect();
                upsert::history(connection, &self.names, &records).await
            }
        }
    }

    async fn move_watermark(
        &self,
        connection: &mut PgConnection,
        batch: &Batch,
    ) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO {} (log, position) VALUES ($1, $2) \
             ON CONFLICT (log) DO UPDATE SET position = EXCLUDED.position",
            self.names.own(WATERMARKS)
        );
        // No log comes near 2^63.
        let position = batch.last().0.cast_signed();
        Statement::new(sql).bind(&batch.log().0[..]).bind(position).run(connection).await?;
        Ok(())
    }
}

fn pairs<'c>(rows: &[&'c Changed<'_>]) -> Vec<(&'c RowId, &'c Row)> {
    rows.iter().map(|changed| (changed.row_id, &changed.row)).collect()
}
