//! What is read from our own tables.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use lakesync::adapter::{Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::engine::PostgresEngine;
use super::statement::Statement;
use super::{history, shown};
use crate::sql::catalogue::{ColumnRecord, TableRecord};
use crate::sql::engine::Engine;
use crate::sql::error::{Failure, corrupt};
use crate::sql::names::{COLUMNS, META, ROWS, TABLES, WATERMARKS};
use crate::sql::read::{self, Reads};
use crate::sql::shown::Shown;

/// Row ids that are looked up at once.
const IDS_MAX: usize = 10_000;
/// States that are read at once, and one more.
const STATES_BYTES: i64 = 32 << 20;

#[async_trait]
impl Reads for PostgresEngine {
    const SNAPSHOT: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

    async fn format(&self, connection: &mut PgConnection) -> Result<Option<i32>, Failure> {
        self.check(connection).await?;
        let sql = format!("SELECT format FROM {}", self.names.own(META));
        let row = Statement::new(sql).row(connection).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn tables(&self, connection: &mut PgConnection) -> Result<Vec<TableRecord>, Failure> {
        let sql =
            format!("SELECT id, name, version, key, primary_key FROM {}", self.names.own(TABLES));
        let rows = Statement::new(sql).rows(connection).await?;
        let tables = rows.iter().map(|row| {
            Ok(TableRecord {
                id: row.try_get(0)?,
                name: row.try_get(1)?,
                version: row.try_get(2)?,
                key: row.try_get(3)?,
                primary_key: row.try_get(4)?,
            })
        });
        tables.collect()
    }

    async fn columns(&self, connection: &mut PgConnection) -> Result<Vec<ColumnRecord>, Failure> {
        let sql = format!(
            "SELECT table_id, ordinal, name, type, field_id FROM {}",
            self.names.own(COLUMNS)
        );
        let rows = Statement::new(sql).rows(connection).await?;
        let columns = rows.iter().map(|row| {
            Ok(ColumnRecord {
                table_id: row.try_get(0)?,
                ordinal: row.try_get(1)?,
                name: row.try_get(2)?,
                kind: row.try_get(3)?,
                field_id: row.try_get(4)?,
            })
        });
        columns.collect()
    }

    async fn table_id(
        &self,
        connection: &mut PgConnection,
        table: &TableName,
    ) -> Result<Option<i32>, Failure> {
        let sql = format!("SELECT id FROM {} WHERE name = $1", self.names.own(TABLES));
        let row = Statement::new(sql).bind(table.as_str()).row(connection).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn logs(&self, connection: &mut PgConnection) -> Result<Vec<LogId>, Failure> {
        let sql = format!("SELECT log FROM {}", self.names.own(WATERMARKS));
        let rows = Statement::new(sql).rows(connection).await?;
        rows.iter().map(|row| read::log_id(row.try_get(0)?)).collect()
    }

    async fn watermark(
        &self,
        connection: &mut PgConnection,
        log: LogId,
    ) -> Result<Option<Position>, Failure> {
        let sql = format!("SELECT position FROM {} WHERE log = $1", self.names.own(WATERMARKS));
        let row = Statement::new(sql).bind(&log.0[..]).row(connection).await?;
        row.map(|row| position(&row, 0)).transpose()
    }

    async fn page(
        &self,
        connection: &mut PgConnection,
        table_id: i32,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, Failure> {
        let sql = format!(
            "SELECT row_id, state FROM {} WHERE table_id = $1 AND row_id > $2 \
             ORDER BY row_id LIMIT $3",
            self.names.own(ROWS)
        );
        // No row id is empty, so that all come after the empty text.
        let after = after.map_or("", RowId::as_str);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows =
            Statement::new(sql).bind(table_id).bind(after).bind(limit).rows(connection).await?;
        rows.iter().map(state).collect()
    }

    async fn some_states(
        &self,
        connection: &mut PgConnection,
        table_id: i32,
        row_ids: &[&RowId],
    ) -> Result<(HashMap<RowId, Row>, usize), Failure> {
        // One look into the index per row id, whatever the planner thinks of their number: LIMIT
        // keeps it from turning this into a join, which may read the whole table.
        let sql = format!(
            "SELECT row_id, CASE WHEN before < $3 THEN state END, at FROM ( \
             SELECT u.row_id, u.at, r.state, sum(octet_length(r.state)) OVER (ORDER BY u.at) \
             - octet_length(r.state) AS before \
             FROM unnest($2::text[]) WITH ORDINALITY AS u (row_id, at) CROSS JOIN LATERAL \
             (SELECT state FROM {} WHERE table_id = $1 AND row_id = u.row_id LIMIT 1) AS r \
             ) AS s ORDER BY at",
            self.names.own(ROWS)
        );
        let count = row_ids.len().min(IDS_MAX);
        let ids: Vec<_> = row_ids[..count].iter().map(|row_id| row_id.as_str()).collect();
        let statement = Statement::new(sql).bind(table_id).bind(ids).bind(STATES_BYTES);
        let mut found = HashMap::new();
        for row in &statement.rows(connection).await? {
            if row.try_get::<Option<&[u8]>, _>(1)?.is_none() {
                // Ordinals count from 1, and those before this one were answered.
                let at: i64 = row.try_get(2)?;
                let done = usize::try_from(at - 1).map_err(corrupt)?;
                return Ok((found, done));
            }
            let (row_id, row) = state(row)?;
            found.insert(row_id, row);
        }
        Ok((found, count))
    }

    async fn shown(
        &self,
        connection: &mut PgConnection,
        table: &Shown<'_>,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, Failure> {
        shown::ids(connection, &self.names, table, after, limit).await
    }

    async fn well_shown(
        &self,
        connection: &mut PgConnection,
        table: &Shown<'_>,
        rows: &[(&RowId, &Row)],
    ) -> Result<HashSet<RowId>, Failure> {
        shown::as_given(connection, &self.names, table, rows).await
    }

    async fn changes(
        &self,
        connection: &mut PgConnection,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, Failure> {
        history::read(connection, &self.names, after, limit).await
    }
}

/// The position in column `at`.
pub(super) fn position(row: &PgRow, at: usize) -> Result<Position, Failure> {
    let position: i64 = row.try_get(at)?;
    Ok(Position(position.cast_unsigned()))
}

fn state(row: &PgRow) -> Result<(RowId, Row), Failure> {
    read::state(row.try_get(0)?, row.try_get(1)?)
}
