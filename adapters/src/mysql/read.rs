//! What is read from our own tables.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use lakesync::adapter::{Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use sqlx::Row as _;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::engine::MySqlEngine;
use super::statement::{Parameter, Statement, over};
use super::version::flavour;
use super::{history, shown};
use crate::sql::catalogue::{ColumnRecord, TableRecord};
use crate::sql::error::Failure;
use crate::sql::names::{COLUMNS, META, ROWS, TABLES, WATERMARKS};
use crate::sql::read::{self, Reads};
use crate::sql::shown::Shown;

/// Row ids that are looked up at once, and in one statement: the fewer where states are long, as the
/// server reads them to tell how long they are.
const IDS_MAX: usize = 10_000;
const PIECE: usize = 512;
const PIECE_OF_LONG: usize = 64;
/// States that are read at once, and one more.
const STATES_BYTES: u64 = 32 << 20;
/// States up to this length come with the answer how long they are.
const SHORT_BYTES: u64 = 16 << 10;

/// Looks each row id up, however many there are.
const BY_ROW: &str = "FORCE INDEX (by_row) WHERE table_id = ? AND row_id IN (";

#[async_trait]
impl Reads for MySqlEngine {
    const SNAPSHOT: &'static str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
         START TRANSACTION WITH CONSISTENT SNAPSHOT";

    async fn format(&self, connection: &mut MySqlConnection) -> Result<Option<i32>, Failure> {
        flavour(connection).await?;
        let sql = format!("SELECT format FROM {}", self.names.own(META));
        let row = Statement::new(sql).row(connection).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn tables(&self, connection: &mut MySqlConnection) -> Result<Vec<TableRecord>, Failure> {
        let tables = self.names.own(TABLES);
        let sql = format!("SELECT id, name, version, `key`, primary_key FROM {tables}");
        let rows = Statement::new(sql).rows(connection).await?;
        let tables = rows.iter().map(|row| {
            Ok(TableRecord {
                id: row.try_get(0)?,
                name: text(row, 1)?.to_owned(),
                version: row.try_get(2)?,
                key: text(row, 3)?.to_owned(),
                primary_key: text(row, 4)?.to_owned(),
            })
        });
        tables.collect()
    }

    async fn columns(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<Vec<ColumnRecord>, Failure> {
        let columns = self.names.own(COLUMNS);
        let sql = format!("SELECT table_id, ordinal, name, type, field_id FROM {columns}");
        let rows = Statement::new(sql).rows(connection).await?;
        let columns = rows.iter().map(|row| {
            Ok(ColumnRecord {
                table_id: row.try_get(0)?,
                ordinal: row.try_get(1)?,
                name: text(row, 2)?.to_owned(),
                kind: text(row, 3)?.to_owned(),
                field_id: row.try_get(4)?,
            })
        });
        columns.collect()
    }

    async fn table_id(
        &self,
        connection: &mut MySqlConnection,
        table: &TableName,
    ) -> Result<Option<i32>, Failure> {
        let sql = format!("SELECT id FROM {} WHERE name = ?", self.names.own(TABLES));
        let row = Statement::kept(sql).bind(table.as_str()).row(connection).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn logs(&self, connection: &mut MySqlConnection) -> Result<Vec<LogId>, Failure> {
        let sql = format!("SELECT log FROM {}", self.names.own(WATERMARKS));
        let rows = Statement::new(sql).rows(connection).await?;
        rows.iter().map(|row| read::log_id(row.try_get_unchecked(0)?)).collect()
    }

    async fn watermark(
        &self,
        connection: &mut MySqlConnection,
        log: LogId,
    ) -> Result<Option<Position>, Failure> {
        let sql = format!("SELECT position FROM {} WHERE log = ?", self.names.own(WATERMARKS));
        let row = Statement::kept(sql).bind(&log.0[..]).row(connection).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.map(Position))
    }

    async fn page(
        &self,
        connection: &mut MySqlConnection,
        table_id: i32,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, Failure> {
        let sql = format!(
            "SELECT row_id, state FROM {} FORCE INDEX (by_row) WHERE table_id = ? AND row_id > ? \
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

    async fn some_states(
        &self,
        connection: &mut MySqlConnection,
        table_id: i32,
        row_ids: &[&RowId],
    ) -> Result<(HashMap<RowId, Row>, usize), Failure> {
        let (mut looked, mut done) = (Looked::default(), 0);
        let mut piece = PIECE_OF_LONG;
        while !looked.is_enough && done < row_ids.len().min(IDS_MAX) {
            let some = &row_ids[done..row_ids.len().min(done + piece)];
            let before = looked.bytes;
            done += self.look(connection, table_id, some, &mut looked).await?;
            let is_long = SHORT_BYTES * (PIECE_OF_LONG as u64) < looked.bytes - before;
            piece = if is_long { PIECE_OF_LONG } else { PIECE };
        }
        let Looked { mut found, long, .. } = looked;
        let head = format!("SELECT row_id, state FROM {} {BY_ROW}", self.names.own(ROWS));
        for statement in over(&head, &[number(table_id)], &ids(&long)) {
            for row in &statement.rows(connection).await? {
                found.extend([state(row)?]);
            }
        }
        Ok((found, done))
    }

    async fn shown(
        &self,
        connection: &mut MySqlConnection,
        table: &Shown<'_>,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, Failure> {
        shown::ids(connection, &self.names, table, after, limit).await
    }

    async fn well_shown(
        &self,
        connection: &mut MySqlConnection,
        table: &Shown<'_>,
        rows: &[(&RowId, &Row)],
    ) -> Result<HashSet<RowId>, Failure> {
        shown::as_given(connection, &self.names, table, rows).await
    }

    async fn changes(
        &self,
        connection: &mut MySqlConnection,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, Failure> {
        history::read(connection, &self.names, after, limit).await
    }
}

/// What was found of some row ids, so far.
#[derive(Default)]
struct Looked<'r> {
    found: HashMap<RowId, Row>,
    /// Rows whose states are still to be read.
    long: Vec<&'r RowId>,
    /// How long all of them are together, and whether that is as much as may be read at once.
    bytes: u64,
    is_enough: bool,
}

impl MySqlEngine {
    /// Looks up some row ids. Returns of how many, from the first on, all is told.
    async fn look<'r>(
        &self,
        connection: &mut MySqlConnection,
        table_id: i32,
        row_ids: &[&'r RowId],
        looked: &mut Looked<'r>,
    ) -> Result<usize, Failure> {
        let head = format!(
            "SELECT row_id, CAST(OCTET_LENGTH(state) AS UNSIGNED), \
             IF(OCTET_LENGTH(state) <= {SHORT_BYTES}, state, NULL) FROM {} {BY_ROW}",
            self.names.own(ROWS)
        );
        let mut rows = HashMap::new();
        for statement in over(&head, &[number(table_id)], &ids(row_ids)) {
            for row in statement.rows(connection).await? {
                rows.insert(text(&row, 0)?.to_owned(), row);
            }
        }
        for (at, row_id) in row_ids.iter().enumerate() {
            let Some(row) = rows.get(row_id.as_str()) else { continue };
            if STATES_BYTES <= looked.bytes {
                looked.is_enough = true;
                return Ok(at);
            }
            looked.bytes += row.try_get_unchecked::<u64, _>(1)?;
            match row.try_get_unchecked::<Option<&[u8]>, _>(2)? {
                Some(bytes) => looked.found.extend([read::state(row_id.as_str(), bytes)?]),
                None => looked.long.push(row_id),
            }
        }
        Ok(row_ids.len())
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

fn state(row: &MySqlRow) -> Result<(RowId, Row), Failure> {
    read::state(text(row, 0)?, row.try_get_unchecked(1)?)
}
