//! Reading: states, watermarks and what was prepared. A backend that holds nothing yet says so.

use std::collections::HashMap;

use lakesync::adapter::AdapterError;
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::Postgres;
use super::names::{ROWS, TABLES, WATERMARKS};
use super::session::Failure;
use super::statement::{Statement, script};
use crate::sql::error::corrupt;

/// Row ids that are looked up at once.
const IDS_MAX: usize = 10_000;
/// States that are read at once, and one more.
const STATES_BYTES: i64 = 32 << 20;

impl Postgres {
    pub(super) async fn read_schema(&self) -> Result<Schema, Failure> {
        let mut session = self.session().await?;
        // Tables and columns as of one moment: somebody may prepare in between.
        script(&mut session, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        match self.read_catalogue(&mut session).await {
            Ok(catalogue) => {
                session.roll_back().await?;
                Ok(catalogue.schema)
            }
            Err(failure) if failure.is_absence() => Ok(Schema::default()),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn read_watermark(&self, log: LogId) -> Result<Position, Failure> {
        let mut session = self.session().await?;
        match self.watermark_of(&mut session, log).await {
            Ok(position) => {
                session.end();
                Ok(position)
            }
            Err(failure) if failure.is_absence() => Ok(Position::START),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn read_logs(&self) -> Result<Vec<LogId>, Failure> {
        let mut session = self.session().await?;
        let sql = format!("SELECT log FROM {}", self.names.own(WATERMARKS));
        let rows = match Statement::new(sql).rows(&mut session).await.map_err(Failure::from) {
            Ok(rows) => rows,
            Err(failure) if failure.is_absence() => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
        session.end();
        rows.iter().map(|row| log_id(row, 0)).collect()
    }

    pub(super) async fn read_rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, Failure> {
        let mut session = self.session().await?;
        let id = self.table_id(&mut session, table).await?;
        let page = self.page(&mut session, id, after, limit).await?;
        session.end();
        Ok(page)
    }

    pub(super) async fn find_rows(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, Failure> {
        let mut session = self.begin(self.server.options.call_timeout).await?;
        let id = self.table_id(&mut session, table).await?;
        let row_ids: Vec<_> = row_ids.iter().collect();
        let found = self.states(&mut session, id, &row_ids).await?;
        session.roll_back().await?;
        Ok(found.into_iter().collect())
    }

    /// How far a log has come.
    pub(super) async fn watermark_of(
        &self,
        connection: &mut PgConnection,
        log: LogId,
    ) -> Result<Position, Failure> {
        let sql = format!("SELECT position FROM {} WHERE log = $1", self.names.own(WATERMARKS));
        let row = Statement::new(sql).bind(&log.0[..]).row(connection).await?;
        row.map_or(Ok(Position::START), |row| position(&row, 0))
    }

    /// A page of a table's states, in the order of row ids.
    pub(super) async fn page(
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

    /// The states of those of `row_ids` that there are. In a transaction only: see
    /// [`begin`](Self::begin).
    pub(super) async fn states(
        &self,
        connection: &mut PgConnection,
        table_id: i32,
        row_ids: &[&RowId],
    ) -> Result<HashMap<RowId, Row>, Failure> {
        let (mut all, mut rest) = (HashMap::new(), row_ids);
        while !rest.is_empty() {
            let (found, done) = self.some_states(connection, table_id, rest).await?;
            all.extend(found);
            rest = &rest[done..];
        }
        Ok(all)
    }

    /// As [`states`](Self::states), but of so many of the first row ids as fit into memory well;
    /// says of how many.
    pub(super) async fn some_states(
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

    async fn table_id(
        &self,
        connection: &mut PgConnection,
        table: &TableName,
    ) -> Result<i32, Failure> {
        let sql = format!("SELECT id FROM {} WHERE name = $1", self.names.own(TABLES));
        let row = Statement::new(sql).bind(table.as_str()).row(connection).await;
        match row.map_err(Failure::from) {
            Ok(Some(row)) => Ok(row.try_get(0)?),
            Ok(None) => Err(AdapterError::UnknownTable(table.clone()).into()),
            Err(failure) if failure.is_absence() => {
                Err(AdapterError::UnknownTable(table.clone()).into())
            }
            Err(failure) => Err(failure),
        }
    }
}

/// The position in column `at`.
pub(super) fn position(row: &PgRow, at: usize) -> Result<Position, Failure> {
    let position: i64 = row.try_get(at)?;
    Ok(Position(position.cast_unsigned()))
}

/// The log in column `at`.
pub(super) fn log_id(row: &PgRow, at: usize) -> Result<LogId, Failure> {
    let bytes: &[u8] = row.try_get(at)?;
    Ok(LogId(bytes.try_into().map_err(|_| corrupt("a log id has 16 bytes"))?))
}

fn state(row: &PgRow) -> Result<(RowId, Row), Failure> {
    let (row_id, state): (&str, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
    let state = Row::decode(state).map_err(|error| corrupt(format!("row {row_id}: {error}")))?;
    Ok((row_id.parse().map_err(corrupt)?, state))
}
