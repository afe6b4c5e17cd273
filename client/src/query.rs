//! Live queries: the rows of a query now, and again whenever they change, whoever changes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::stream::{BoxStream, unfold};
use sqlx::sqlite::{SqliteArguments, SqliteRow, SqliteValueRef};
use sqlx::{
    Arguments, AssertSqlSafe, Column, Decode, Row, Sqlite, SqliteConnection, TypeInfo, ValueRef,
};
use tokio::sync::watch;

use crate::pulse::{Pulse, read_connection};

/// Rows one result may have. A view shows fewer; an export does not watch.
const ROWS_MAX: usize = 100_000;

/// A value as SQLite has it: a parameter, or a cell of a result.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

/// What a query found.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The names of the columns. None if there are no rows.
    pub columns: Arc<[String]>,
    /// The rows, a value per column.
    pub rows: Vec<Vec<SqlValue>>,
}

/// Why a query failed. It is tried again at the next change.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// SQLite's own word: a mistake in the query, a table that does not exist yet.
    #[error("{0}")]
    Sqlite(#[from] sqlx::Error),
    /// Text that is not UTF-8, which SQLite does not prevent.
    #[error("column {column} holds text that is not UTF-8")]
    Malformed {
        /// Which.
        column: String,
    },
    /// More rows than a live query may have.
    #[error("the query finds more than {ROWS_MAX} rows; add a LIMIT")]
    TooManyRows,
}

/// The results of `sql` from now on: the first at once, then one after every change that makes a
/// difference. Changes that follow each other closely may make one result.
pub(crate) fn watch(
    path: &Path,
    pulse: &Pulse,
    sql: String,
    params: Vec<SqlValue>,
) -> BoxStream<'static, Result<Rows, QueryError>> {
    let changes = pulse.subscribe();
    let path = path.to_owned();
    let live = Live { path, sql: sql.into(), params, changes, connection: None, shown: None };
    Box::pin(unfold(live, |mut live| async { live.next().await.map(|result| (result, live)) }))
}

struct Live {
    path: PathBuf,
    sql: Arc<str>,
    params: Vec<SqlValue>,
    changes: watch::Receiver<u64>,
    connection: Option<SqliteConnection>,
    /// The last result, or the words of the last error; `None` before the first.
    shown: Option<Result<Rows, String>>,
}

impl Live {
    async fn next(&mut self) -> Option<Result<Rows, QueryError>> {
        loop {
            if self.shown.is_some() {
                self.changes.changed().await.ok()?;
            }
            let result = self.run().await;
            let shown = result.as_ref().map(Rows::clone).map_err(QueryError::to_string);
            if self.shown.as_ref() != Some(&shown) {
                self.shown = Some(shown);
                return Some(result);
            }
        }
    }

    /// A connection that failed is not used again.
    async fn run(&mut self) -> Result<Rows, QueryError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => read_connection(&self.path).await?,
        };
        let rows = select(&mut connection, Arc::clone(&self.sql), &self.params).await?;
        self.connection = Some(connection);
        Ok(rows)
    }
}

async fn select(
    connection: &mut SqliteConnection,
    sql: Arc<str>,
    params: &[SqlValue],
) -> Result<Rows, QueryError> {
    // The application's own query: what it may hold is between it and its database.
    let query = sqlx::query_with(AssertSqlSafe(sql), arguments(params)?);
    let mut found = query.fetch(connection);
    let mut columns = Arc::from([]);
    let mut rows = Vec::new();
    while let Some(row) = found.try_next().await? {
        if rows.len() == ROWS_MAX {
            return Err(QueryError::TooManyRows);
        }
        if rows.is_empty() {
            columns = row.columns().iter().map(|column| column.name().to_owned()).collect();
        }
        rows.push(values(&row)?);
    }
    Ok(Rows { columns, rows })
}

fn arguments(params: &[SqlValue]) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for param in params {
        match param {
            SqlValue::Null => arguments.add(None::<i64>),
            SqlValue::Integer(value) => arguments.add(*value),
            SqlValue::Real(value) => arguments.add(*value),
            SqlValue::Text(value) => arguments.add(value.clone()),
            SqlValue::Blob(value) => arguments.add(value.clone()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn values(row: &SqliteRow) -> Result<Vec<SqlValue>, QueryError> {
    let value = |at: usize| {
        value(row.try_get_raw(at)?)
            .map_err(|_| QueryError::Malformed { column: row.column(at).name().to_owned() })
    };
    (0..row.len()).map(value).collect()
}

fn value(raw: SqliteValueRef<'_>) -> Result<SqlValue, sqlx::error::BoxDynError> {
    if raw.is_null() {
        return Ok(SqlValue::Null);
    }
    let class = raw.type_info();
    Ok(match class.name() {
        "INTEGER" => SqlValue::Integer(<i64 as Decode<Sqlite>>::decode(raw)?),
        "REAL" => SqlValue::Real(<f64 as Decode<Sqlite>>::decode(raw)?),
        "TEXT" => SqlValue::Text(<String as Decode<Sqlite>>::decode(raw)?),
        _ => SqlValue::Blob(<Vec<u8> as Decode<Sqlite>>::decode(raw)?),
    })
}

macro_rules! from {
    ($($from:ty => $into:ident,)+) => {$(
        impl From<$from> for SqlValue {
            fn from(value: $from) -> Self {
                Self::$into(value.into())
            }
        }
    )+};
}

from! {
    i64 => Integer,
    i32 => Integer,
    bool => Integer,
    f64 => Real,
    String => Text,
    &str => Text,
    Vec<u8> => Blob,
    &[u8] => Blob,
}

#[cfg(test)]
mod tests;
