//! Reading: states, watermarks and what was prepared. A backend that holds nothing yet says so.

use std::collections::{HashMap, HashSet};

use lakesync::adapter::AdapterError;
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::Schema;
use sqlx::Row as _;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::MySql;
use super::names::{ROWS, TABLES, WATERMARKS};
use super::session::Failure;
use super::statement::{Parameter, Statement, over, script};
use crate::sql::error::corrupt;

/// Row ids that are looked up at once.
const IDS_MAX: usize = 512;
/// States up to this length are read as many as were asked for.
const SHORT_BYTES: usize = 64 << 10;
/// How many longer ones are read at once.
const LONG_MAX: usize = 16;

impl MySql {
    pub(super) async fn read_schema(&self) -> Result<Schema, Failure> {
        let mut session = self.session().await?;
        // Both tables are read as of one moment, and no writer is waited for.
        let sql = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
                   START TRANSACTION WITH CONSISTENT SNAPSHOT";
        script(&mut session, sql).await?;
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
        let mut session = self.session().await?;
        let id = self.table_id(&mut session, table).await?;
        let row_ids: Vec<_> = row_ids.iter().collect();
        let found = self.states(&mut session, id, &row_ids).await?;
        session.end();
        Ok(found.into_iter().collect())
    }

    /// How far a log has come.
    pub(super) async fn watermark_of(
        &self,
        connection: &mut MySqlConnection,
        log: LogId,
    ) -> Result<Position, Failure> {
        let sql = format!("SELECT position FROM {} WHERE log = ?", self.names.own(WATERMARKS));
        let row = Statement::kept(sql).bind(&log.0[..]).row(connection).await?;
        row.map_or(Ok(Position::START), |row| Ok(Position(row.try_get(0)?)))
    }

    /// A page of a table's states, in the order of row ids.
    pub(super) async fn page(
        &self,
        connection: &mut MySqlConnection,
        table_id: i32,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, Failure> {
        let sql = format!(
            "SELECT row_id, state FROM {} WHERE table_id = ? AND row_id > ? \
             ORDER BY row_id LIMIT ?",
            self.names.own(ROWS)
        );
        // No row id is empty, so that all come after the empty text.
        let after = after.map_or("", RowId::as_str);
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let statement = Statement::kept(sql).bind(table_id).bind(after).bind(limit);
        let rows = statement.rows(connection).await?;
        rows.iter().map(state).collect()
    }

    /// The states of those of `row_ids` that there are.
    pub(super) async fn states(
        &self,
        connection: &mut MySqlConnection,
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
    /// says of how many. Short states are read at once, and long ones some at a time.
    pub(super) async fn some_states(
        &self,
        connection: &mut MySqlConnection,
        table_id: i32,
        row_ids: &[&RowId],
    ) -> Result<(HashMap<RowId, Row>, usize), Failure> {
        let rows = self.names.own(ROWS);
        let condition = "FORCE INDEX (PRIMARY) WHERE table_id = ? AND row_id IN (";
        let head = format!(
            "SELECT row_id, IF(OCTET_LENGTH(state) <= {SHORT_BYTES}, state, NULL) \
             FROM {rows} {condition}"
        );
        let first = &row_ids[..row_ids.len().min(IDS_MAX)];
        let (table_id, mut found, mut long) = ([number(table_id)], HashMap::new(), HashSet::new());
        for statement in over(&head, &table_id, &ids(first)) {
            for row in &statement.rows(connection).await? {
                match row.try_get_unchecked::<Option<&[u8]>, _>(1)? {
                    Some(_) => found.extend([state(row)?]),
                    None => long.extend([text(row, 0)?.parse::<RowId>().map_err(corrupt)?]),
                }
            }
        }
        let mut long_at = (0..).zip(first).filter(|(_, row_id)| long.contains(**row_id));
        let mut now: Vec<&RowId> = Vec::new();
        let beyond = long_at.find(|(_, row_id)| {
            let has_room = now.len() < LONG_MAX;
            if has_room {
                now.push(row_id);
            }
            !has_room
        });
        let done = beyond.map_or(first.len(), |(at, _)| at);
        let head = format!("SELECT row_id, state FROM {rows} {condition}");
        for statement in over(&head, &table_id, &ids(&now)) {
            for row in &statement.rows(connection).await? {
                found.extend([state(row)?]);
            }
        }
        Ok((found, done))
    }

    async fn table_id(
        &self,
        connection: &mut MySqlConnection,
        table: &TableName,
    ) -> Result<i32, Failure> {
        let sql = format!("SELECT id FROM {} WHERE name = ?", self.names.own(TABLES));
        let row = Statement::kept(sql).bind(table.as_str()).row(connection).await;
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

/// A table's number as a parameter.
pub(super) fn number(table_id: i32) -> Parameter<'static> {
    Parameter::Number(u64::try_from(table_id).expect("BUG: tables are counted from 1"))
}

/// Row ids as parameters.
pub(super) fn ids<'r>(row_ids: &[&'r RowId]) -> Vec<Parameter<'r>> {
    row_ids.iter().map(|row_id| Parameter::Text(row_id.as_str().into())).collect()
}

/// The text in column `at`. Texts of binary collations are bytes to the driver.
pub(super) fn text(row: &MySqlRow, at: usize) -> Result<&str, sqlx::Error> {
    row.try_get_unchecked(at)
}

/// The log in column `at`.
pub(super) fn log_id(row: &MySqlRow, at: usize) -> Result<LogId, Failure> {
    let bytes: &[u8] = row.try_get_unchecked(at)?;
    Ok(LogId(bytes.try_into().map_err(|_| corrupt("a log id has 16 bytes"))?))
}

fn state(row: &MySqlRow) -> Result<(RowId, Row), Failure> {
    let (row_id, state): (&str, &[u8]) = (text(row, 0)?, row.try_get_unchecked(1)?);
    let state = Row::decode(state).map_err(|error| corrupt(format!("row {row_id}: {error}")))?;
    Ok((row_id.parse().map_err(corrupt)?, state))
}
