//! Rows, states and history, by COPY where they are new.

use async_trait::async_trait;
use lakesync::adapter::Place;
use lakesync::delta::Delta;
use lakesync::name::{LogId, Position, RowId};
use lakesync::row::Row;
use sqlx::postgres::PgConnection;

use super::engine::PostgresEngine;
use super::history::record;
use super::statement::Statement;
use super::{copy, upsert};
use crate::sql::error::Failure;
use crate::sql::merge::Changed;
use crate::sql::names::WATERMARKS;
use crate::sql::shown::Shown;
use crate::sql::write::Writes;

#[async_trait]
impl Writes for PostgresEngine {
    async fn put_rows(
        &self,
        connection: &mut PgConnection,
        table: &Shown<'_>,
        rows: &[(&RowId, &Row)],
        is_new: bool,
    ) -> Result<(), Failure> {
        match is_new {
            true => copy::rows(connection, &self.names, table, rows).await,
            false => upsert::rows(connection, &self.names, table, rows).await,
        }
    }

    async fn delete_rows(
        &self,
        connection: &mut PgConnection,
        table: &Shown<'_>,
        row_ids: &[&RowId],
    ) -> Result<(), Failure> {
        upsert::delete(connection, &self.names, table, row_ids).await
    }

    async fn put_states(
        &self,
        connection: &mut PgConnection,
        table_id: i32,
        rows: &[&Changed<'_>],
        is_new: bool,
    ) -> Result<(), Failure> {
        match is_new {
            true => copy::states(connection, &self.names, table_id, rows).await,
            false => upsert::states(connection, &self.names, table_id, rows).await,
        }
    }

    async fn delete_states(
        &self,
        connection: &mut PgConnection,
        table_id: i32,
        row_ids: &[&RowId],
    ) -> Result<(), Failure> {
        upsert::delete_states(connection, &self.names, table_id, row_ids).await
    }

    async fn put_changes(
        &self,
        connection: &mut PgConnection,
        changes: &[(Place, &Delta)],
        is_new: bool,
    ) -> Result<(), Failure> {
        let records = changes.iter().map(|(place, delta)| record(*place, delta));
        match is_new {
            true => copy::history(connection, &self.names, records).await,
            false => {
                let records: Vec<_> = records.collect();
                upsert::history(connection, &self.names, &records).await
            }
        }
    }

    async fn put_watermark(
        &self,
        connection: &mut PgConnection,
        log: LogId,
        position: Position,
    ) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO {} (log, position) VALUES ($1, $2) \
             ON CONFLICT (log) DO UPDATE SET position = EXCLUDED.position",
            self.names.own(WATERMARKS)
        );
        // No log comes near 2^63.
        let position = position.0.cast_signed();
        Statement::new(sql).bind(&log.0[..]).bind(position).run(connection).await?;
        Ok(())
    }
}
