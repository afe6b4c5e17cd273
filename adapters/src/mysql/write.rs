//! Rows, states and history, by plain inserts where they are new.

use async_trait::async_trait;
use lakesync::adapter::Place;
use lakesync::delta::Delta;
use lakesync::name::{LogId, Position, RowId};
use lakesync::row::Row;
use sqlx::mysql::MySqlConnection;

use super::engine::MySqlEngine;
use super::put;
use super::statement::Statement;
use crate::sql::error::Failure;
use crate::sql::merge::Changed;
use crate::sql::names::WATERMARKS;
use crate::sql::shown::Shown;
use crate::sql::write::Writes;

#[async_trait]
impl Writes for MySqlEngine {
    async fn put_rows(
        &self,
        connection: &mut MySqlConnection,
        table: &Shown<'_>,
        rows: &[(&RowId, &Row)],
        is_new: bool,
    ) -> Result<(), Failure> {
        put::rows(connection, &self.names, table, rows, is_new).await
    }

    async fn delete_rows(
        &self,
        connection: &mut MySqlConnection,
        table: &Shown<'_>,
        row_ids: &[&RowId],
    ) -> Result<(), Failure> {
        put::delete(connection, &self.names, table, row_ids).await
    }

    async fn put_states(
        &self,
        connection: &mut MySqlConnection,
        table_id: i32,
        rows: &[&Changed<'_>],
        is_new: bool,
    ) -> Result<(), Failure> {
        put::states(connection, &self.names, table_id, rows, is_new).await
    }

    async fn delete_states(
        &self,
        connection: &mut MySqlConnection,
        table_id: i32,
        row_ids: &[&RowId],
    ) -> Result<(), Failure> {
        put::delete_states(connection, &self.names, table_id, row_ids).await
    }

    async fn put_changes(
        &self,
        connection: &mut MySqlConnection,
        changes: &[(Place, &Delta)],
        is_new: bool,
    ) -> Result<(), Failure> {
        put::history(connection, &self.names, changes.iter().copied(), is_new).await
    }

    async fn put_watermark(
        &self,
        connection: &mut MySqlConnection,
        log: LogId,
        position: Position,
    ) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO {} (log, position) VALUES (?, ?) \
             ON DUPLICATE KEY UPDATE position = VALUES(position)",
            self.names.own(WATERMARKS)
        );
        let statement = Statement::kept(sql).bind(&log.0[..]).bind(position.0);
        Ok(statement.run(connection).await?)
    }
}
