//! SQL text and SQLite's own values: quoting, binding and reading. The one place that hands
//! generated SQL to the driver; names in it are always quoted, and values always bound.

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    Arguments, AssertSqlSafe, Encode, Row, Sqlite, SqliteConnection, Type, TypeInfo, ValueRef,
};

/// The most parameters of one statement; SQLite's own limit is 32,766.
const PARAMETERS_MAX: usize = 8_000;
/// The most rows of one statement: more are no faster.
const CHUNK_ROWS_MAX: usize = 256;

/// A value in one of SQLite's storage classes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stored {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A double; never NaN, which SQLite turns into NULL.
    Real(f64),
    /// Text.
    Text(String),
    /// Text that is not UTF-8, which SQLite lets pass. It can be kept but not sent.
    Garbled(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
}

/// A statement and its parameters.
#[derive(Debug)]
pub(super) struct Statement {
    sql: String,
    arguments: SqliteArguments,
    cached: bool,
}

impl Statement {
    /// A statement without parameters yet.
    pub(super) fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), arguments: SqliteArguments::default(), cached: true }
    }

    /// Marks SQL that will hardly be run again, so that it pushes nothing out of the cache.
    pub(super) fn once(self) -> Self {
        Self { cached: false, ..self }
    }

    /// Binds the next parameter.
    pub(super) fn bind<'t>(mut self, value: impl Encode<'t, Sqlite> + Type<Sqlite>) -> Self {
        self.add(value);
        self
    }

    /// Binds the next parameter.
    pub(super) fn add<'t>(&mut self, value: impl Encode<'t, Sqlite> + Type<Sqlite>) {
        self.arguments.add(value).expect("BUG: SQLite's encodings can't fail");
    }

    /// Binds the next parameter.
    pub(super) fn push(&mut self, value: &Stored) {
        match value {
            Stored::Null => self.add(None::<i64>),
            Stored::Integer(value) => self.add(*value),
            Stored::Real(value) => self.add(*value),
            Stored::Text(text) => self.add(text.as_str()),
            Stored::Garbled(bytes) | Stored::Blob(bytes) => self.add(bytes.as_slice()),
        }
    }

    /// Runs it and says how many rows it changed.
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        Ok(query.persistent(self.cached).execute(connection).await?.rows_affected())
    }

    /// Runs it and collects its rows.
    pub(super) async fn rows(
        self,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        query.persistent(self.cached).fetch_all(connection).await
    }

    /// Runs it and takes its first row, if it has one.
    pub(super) async fn row(
        self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<SqliteRow>, sqlx::Error> {
        Ok(self.rows(connection).await?.into_iter().next())
    }
}

/// Runs SQL without parameters, which may be several statements.
pub(super) async fn script(
    connection: &mut SqliteConnection,
    sql: impl Into<String>,
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(connection).await?;
    Ok(())
}

/// A random UUID of version 4 as SQL: the id of a row that has no key of its own.
pub(super) const RANDOM_UUID: &str = "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' \
    || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (random() & 3), 1) \
    || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))";

/// A name as SQL, whatever characters it has.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `(?,?),(?,?)`: so many rows of so many parameters.
pub(super) fn placeholders(rows: usize, width: usize) -> String {
    let row = format!("({})", vec!["?"; width].join(","));
    vec![row.as_str(); rows].join(",")
}

/// How many rows of `width` parameters go into one statement.
pub(super) fn chunk_rows(width: usize) -> usize {
    (PARAMETERS_MAX / width.max(1)).clamp(1, CHUNK_ROWS_MAX)
}

/// Inserts `rows` by as few statements as possible; `head` is all before VALUES. Says how many rows
/// were changed.
pub(super) async fn insert_rows(
    connection: &mut SqliteConnection,
    head: &str,
    rows: &[Vec<Stored>],
) -> Result<u64, sqlx::Error> {
    let Some(width) = rows.first().map(Vec::len) else { return Ok(0) };
    let mut changed = 0;
    let full = chunk_rows(width);
    for chunk in rows.chunks(full) {
        let sql = format!("{head} VALUES {}", placeholders(chunk.len(), width));
        let mut statement = Statement::new(sql);
        statement.cached = chunk.len() == full || chunk.len() == 1;
        chunk.iter().flatten().for_each(|value| statement.push(value));
        changed += statement.run(connection).await?;
    }
    Ok(changed)
}

/// The value in column `at`.
pub(super) fn stored(row: &SqliteRow, at: usize) -> Result<Stored, sqlx::Error> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Stored::Null);
    }
    Ok(match raw.type_info().name() {
        "INTEGER" => Stored::Integer(row.try_get_unchecked(at)?),
        "REAL" => Stored::Real(row.try_get_unchecked(at)?),
        "TEXT" => match String::from_utf8(row.try_get_unchecked(at)?) {
            Ok(text) => Stored::Text(text),
            Err(error) => Stored::Garbled(error.into_bytes()),
        },
        _ => Stored::Blob(row.try_get_unchecked(at)?),
    })
}

/// The integer in column `at`; zero where it is NULL.
pub(super) fn integer(row: &SqliteRow, at: usize) -> Result<i64, sqlx::Error> {
    Ok(row.try_get_unchecked::<Option<i64>, _>(at)?.unwrap_or(0))
}

/// The integer in column `at`, if there is one.
pub(super) fn maybe_integer(row: &SqliteRow, at: usize) -> Result<Option<i64>, sqlx::Error> {
    row.try_get_unchecked(at)
}

/// The text in column `at`; what is not UTF-8 of it is replaced.
pub(super) fn text(row: &SqliteRow, at: usize) -> Result<String, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get_unchecked(at)?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}
