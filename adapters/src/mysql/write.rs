//! Writing: rows, watermark and history of a batch in one transaction.

use lakesync::adapter::{AdapterError, Batch};
use lakesync::name::{RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::TableSchema;
use sqlx::mysql::MySqlConnection;

use super::names::WATERMARKS;
use super::session::{Failure, Session};
use super::statement::Statement;
use super::{MySql, put};
use crate::fit;
use crate::sql::merge::{self, Changed};

impl MySql {
    pub(super) async fn write_batch(&self, batch: &Batch) -> Result<(), Failure> {
        self.ensure_installed().await?;
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
        for touched in merge::touched(new()) {
            let table = fit::table(&catalogue.schema, touched.table)?;
            let id = catalogue.id(touched.table)?;
            let row_ids = touched.row_ids();
            let mut done = 0;
            while done < row_ids.len() {
                let rest = &row_ids[done..];
                let (mut held, count) = self.some_states(&mut session, id, rest).await?;
                let changed = touched.part(done..done + count).merged(&mut held);
                self.put(&mut session, table, id, &changed).await?;
                done += count;
            }
        }
        if self.keeps_history {
            put::history(&mut session, &self.names, batch.changes_after(watermark), false).await?;
        }
        self.move_watermark(&mut session, batch).await?;
        session.commit().await
    }

    pub(super) async fn join_rows(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<(), Failure> {
        let (mut session, schema, id) = self.begin_with(table).await?;
        fit::check_rows(&schema, rows)?;
        let row_ids: Vec<_> = rows.iter().map(|(row_id, _)| row_id).collect();
        let mut done = 0;
        while done < rows.len() {
            let rest = &row_ids[done..];
            let (mut held, count) = self.some_states(&mut session, id, rest).await?;
            let changed = merge::joined(&rows[done..done + count], &mut held);
            self.put(&mut session, &schema, id, &changed).await?;
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
        put::delete(&mut session, &self.names, &schema, &row_ids).await?;
        put::delete_states(&mut session, &self.names, id, &row_ids).await?;
        session.commit().await
    }

    /// A transaction that writes one table.
    async fn begin_with(&self, table: &TableName) -> Result<(Session, TableSchema, i32), Failure> {
        self.ensure_installed().await?;
        let mut session = self.begin(self.server.options.call_timeout).await?;
        let catalogue = self.lock(&mut session).await?;
        let schema = fit::table(&catalogue.schema, table)?.clone();
        Ok((session, schema, catalogue.id(table)?))
    }

    /// Writes rows where people look, and their states.
    async fn put(
        &self,
        connection: &mut MySqlConnection,
        table: &TableSchema,
        table_id: i32,
        changed: &[Changed<'_>],
    ) -> Result<(), Failure> {
        let (live, dead): (Vec<_>, Vec<_>) = changed.iter().partition(|row| row.row.is_live());
        let dead: Vec<_> = dead.into_iter().map(|row: &Changed<'_>| row.row_id).collect();
        put::delete(connection, &self.names, table, &dead).await?;
        let live: Vec<_> = live.iter().map(|changed| (changed.row_id, &changed.row)).collect();
        put::rows(connection, &self.names, table, &live, false).await?;
        let changed: Vec<_> = changed.iter().collect();
        put::states(connection, &self.names, table_id, &changed, false).await
    }

    async fn move_watermark(
        &self,
        connection: &mut MySqlConnection,
        batch: &Batch,
    ) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO {} (log, position) VALUES (?, ?) \
             ON DUPLICATE KEY UPDATE position = VALUES(position)",
            self.names.own(WATERMARKS)
        );
        let statement = Statement::kept(sql).bind(&batch.log().0[..]).bind(batch.last().0);
        Ok(statement.run(connection).await?)
    }
}
