//! Reading MySQL and MariaDB: their catalogue, and rows in forms that are exact.

use std::collections::HashSet;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lakesync::limits::DECIMAL_PRECISION_MAX;
use lakesync::schema::ColumnType;
use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection, Row};

use super::column::{Form, Raw, Typed};
use super::postgres::configuration;
use super::source::{Described, Found, Table};

/// The snapshot stands from here on. The server waits a day for a gateway that takes nothing.
const BEGIN: [&str; 4] = [
    "SET SESSION net_write_timeout = 86400, time_zone = '+00:00', sql_mode = ''",
    "SET NAMES utf8mb4",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
];
/// Limits on how long a query may take, MariaDB's and MySQL's: neither knows the other's.
const UNLIMITED: [&str; 2] =
    ["SET SESSION max_statement_time = 0", "SET SESSION max_execution_time = 0"];

pub(super) async fn open(url: &str) -> Result<MySqlConnection, sqlx::Error> {
    let options: MySqlConnectOptions = url.parse().map_err(configuration)?;
    let options = options.pipes_as_concat(false).no_engine_substitution(false).timezone(None);
    let mut connection = options.disable_statement_logging().connect().await?;
    for sql in UNLIMITED {
        match sqlx::raw_sql(sql).execute(&mut connection).await {
            Ok(_) | Err(sqlx::Error::Database(_)) => {}
            Err(error) => return Err(error),
        }
    }
    for sql in BEGIN {
        sqlx::raw_sql(sql).execute(&mut connection).await?;
    }
    Ok(connection)
}

pub(super) async fn default_schema(
    connection: &mut MySqlConnection,
) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT DATABASE()").fetch_one(connection).await?;
    optional_text(&row, 0)
}

pub(super) async fn tables(
    connection: &mut MySqlConnection,
    schema: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let sql = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? ORDER BY 1";
    let rows = sqlx::query(sql).bind(schema).fetch_all(connection).await?;
    rows.iter().map(|row| text(row, 0)).collect()
}

pub(super) async fn describe(
    connection: &mut MySqlConnection,
    schema: &str,
    table: &str,
) -> Result<Found, sqlx::Error> {
    let documents = documents(connection, schema, table).await?;
    let sql = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, \
               CAST(COALESCE(NUMERIC_PRECISION, 0) AS CHAR), CAST(COALESCE(NUMERIC_SCALE, 0) AS CHAR) \
               FROM information_schema.COLUMNS \
               WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
    let query = sqlx::query(sql).bind(schema).bind(table);
    let mut columns = Vec::new();
    for row in query.fetch_all(&mut *connection).await? {
        let (name, kind, shown) = (text(&row, 0)?, text(&row, 1)?, text(&row, 2)?);
        let digits = |at| text(&row, at).map(|digits| digits.parse::<u32>().unwrap_or(u32::MAX));
        let kind = if documents.contains(&name) { "json".to_owned() } else { kind };
        let typed = typed(&quoted(&name), &kind.to_lowercase(), shown, digits(3)?, digits(4)?);
        columns.push(Described { name, typed });
    }
    let sql = "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ? \
               AND TABLE_NAME = ? AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX";
    let keys = sqlx::query(sql).bind(schema).bind(table).fetch_all(&mut *connection).await?;
    let key = keys.iter().map(|row| text(row, 0)).collect::<Result<_, _>>()?;
    let sql = "SELECT COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = ? \
               AND TABLE_NAME = ? AND REFERENCED_TABLE_NAME IS NOT NULL";
    let references = sqlx::query(sql).bind(schema).bind(table).fetch_all(&mut *connection).await?;
    let references = references.iter().map(|row| text(row, 0)).collect::<Result<_, _>>()?;
    let sql = "SELECT CAST(COALESCE(TABLE_ROWS, 0) AS CHAR), TABLE_TYPE FROM information_schema.TABLES \
               WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
    let row = sqlx::query(sql).bind(schema).bind(table).fetch_one(connection).await?;
    let (rows, is_view) = (text(&row, 0)?.parse().unwrap_or(0), text(&row, 1)?.ends_with("VIEW"));
    let sql = format!("{}.{}", quoted(schema), quoted(table));
    Ok(Found { sql, columns, key, references, is_view, rows })
}

/// Whether all values of a column are integers of 64 bits, and what selects it as such.
pub(super) async fn integers(
    connection: &mut MySqlConnection,
    table: &str,
    column: &str,
) -> Result<(bool, String), sqlx::Error> {
    let column = quoted(column);
    let sql = format!(
        "SELECT 1 FROM {table} WHERE CAST({column} AS DECIMAL(65, 0)) \
         NOT BETWEEN -9223372036854775808 AND 9223372036854775807 LIMIT 1"
    );
    let beyond =
        sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch_optional(connection).await?;
    Ok((beyond.is_none(), format!("CAST({column} AS SIGNED)")))
}

/// The columns that MariaDB keeps JSON in: texts with a check.
async fn documents(
    connection: &mut MySqlConnection,
    schema: &str,
    table: &str,
) -> Result<HashSet<String>, sqlx::Error> {
    let sql = "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS \
               WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?";
    let found = sqlx::query(sql).bind(schema).bind(table).fetch_all(connection).await;
    let rows = match found {
        Ok(rows) => rows,
        // MySQL's does not tell the table, and needs not: it has a type.
        Err(sqlx::Error::Database(_)) => return Ok(HashSet::new()),
        Err(error) => return Err(error),
    };
    let mut names = HashSet::new();
    for row in rows {
        let (name, clause) = (text(&row, 0)?, text(&row, 1)?);
        if clause == format!("json_valid({})", quoted(&name)) {
            names.insert(name);
        }
    }
    Ok(names)
}

/// What a column becomes.
fn typed(column: &str, kind: &str, shown: String, precision: u32, scale: u32) -> Typed {
    let written = format!("CAST({column} AS CHAR)");
    let is_unsigned = shown.contains("unsigned");
    let (kind, form, sql) = match kind {
        "tinyint" if shown == "tinyint(1)" => {
            (ColumnType::Bool, Form::Truth, format!("CAST({column} AS SIGNED)"))
        }
        "bit" if shown == "bit(1)" => {
            (ColumnType::Bool, Form::Truth, format!("CAST({column} AS SIGNED)"))
        }
        "bit" if shown == "bit(64)" => {
            (UNSIGNED, Form::Decimal, format!("CAST(CAST({column} AS UNSIGNED) AS CHAR)"))
        }
        "bigint" if is_unsigned => (UNSIGNED, Form::Decimal, written),
        "bit" | "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => {
            (ColumnType::Int64, Form::Integer, format!("CAST({column} AS SIGNED)"))
        }
        // Times one: computed as a double, so that a float arrives as the double that it equals.
        "float" | "double" => (ColumnType::Double, Form::Double, format!("({column} * 1e0)")),
        "decimal" if precision <= DECIMAL_PRECISION_MAX => {
            (ColumnType::Decimal { precision, scale }, Form::Decimal, written)
        }
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            (ColumnType::String, Form::Text, format!("CONVERT({column} USING utf8mb4)"))
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            (ColumnType::Bytes, Form::Bytes, column.to_owned())
        }
        "json" => (ColumnType::Json, Form::Json, written),
        "datetime" | "timestamp" => (ColumnType::Timestamp, Form::WrittenTimestamp, written),
        "date" => (ColumnType::Date, Form::WrittenDate, written),
        other => {
            let is_shape = other.contains("geom")
                || ["point", "linestring", "polygon"].iter().any(|shape| other.ends_with(shape));
            let sql = if is_shape { format!("ST_AsText({column})") } else { written };
            let (kind, as_text) = (ColumnType::String, Some(shown));
            return Typed { kind, form: Form::Text, sql, as_text };
        }
    };
    Typed { kind, form, sql, as_text: None }
}

/// What holds every unsigned integer of 64 bits.
const UNSIGNED: ColumnType = ColumnType::Decimal { precision: 20, scale: 0 };

pub(super) fn rows<'s>(
    connection: &'s mut MySqlConnection,
    table: &'s Table,
) -> BoxStream<'s, Result<Vec<Raw>, sqlx::Error>> {
    let columns: Vec<_> = table.columns.iter().map(|column| column.sql.as_str()).collect();
    let sql = format!("SELECT {} FROM {}", columns.join(", "), table.sql);
    let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch(connection);
    rows.map(move |row| raw(&row?, table)).boxed()
}

fn raw(row: &MySqlRow, table: &Table) -> Result<Vec<Raw>, sqlx::Error> {
    let cell = |(at, form): (usize, Form)| {
        Ok(match form {
            Form::Truth | Form::Integer => {
                row.try_get_unchecked::<Option<i64>, _>(at)?.map_or(Raw::Null, Raw::Integer)
            }
            Form::Double => {
                row.try_get_unchecked::<Option<f64>, _>(at)?.map_or(Raw::Null, Raw::Double)
            }
            _ => {
                let bytes = row.try_get_unchecked::<Option<Vec<u8>>, _>(at)?;
                bytes.map_or(Raw::Null, Raw::Bytes)
            }
        })
    };
    table.columns.iter().map(|column| column.form).enumerate().map(cell).collect()
}

fn text(row: &MySqlRow, at: usize) -> Result<String, sqlx::Error> {
    Ok(optional_text(row, at)?.unwrap_or_default())
}

/// A name out of the catalogue, whose texts are of many types.
fn optional_text(row: &MySqlRow, at: usize) -> Result<Option<String>, sqlx::Error> {
    let bytes = row.try_get_unchecked::<Option<Vec<u8>>, _>(at)?;
    let text = bytes.map(String::from_utf8).transpose();
    text.map_err(|error| sqlx::Error::Decode(error.into()))
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
