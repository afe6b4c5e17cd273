//! Reading Postgres: its catalogue, and rows in forms that are exact whatever the session's settings.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lakesync::schema::ColumnType;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row};

use super::column::{Form, Raw, Typed};
use super::source::{Described, Found, Table};

/// The snapshot stands until the end, however long the gateway takes; rows that policies hide are an
/// error rather than missing; and what has no better form is written in one way.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; \
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
    SET LOCAL row_security = off; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; \
    SET LOCAL intervalstyle = 'postgres'; SET LOCAL bytea_output = 'hex'; \
    SET LOCAL extra_float_digits = 1";

pub(super) async fn open(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse().map_err(configuration)?;
    let options = options.extra_float_digits(None).disable_statement_logging();
    let mut connection = options.connect().await?;
    sqlx::raw_sql(BEGIN).execute(&mut connection).await?;
    Ok(connection)
}

/// A URL that can't be read, without a word of it.
pub(super) fn configuration(error: sqlx::Error) -> sqlx::Error {
    match error {
        error @ sqlx::Error::Configuration(_) => error,
        error => sqlx::Error::Configuration(error.into()),
    }
}

pub(super) async fn default_schema(
    connection: &mut PgConnection,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT current_schema()::text").fetch_one(connection).await
}

pub(super) async fn tables(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let sql = "SELECT c.relname::text FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1";
    sqlx::query_scalar(sql).bind(schema).fetch_all(connection).await
}

pub(super) async fn describe(
    connection: &mut PgConnection,
    schema: &str,
    table: &str,
) -> Result<Found, sqlx::Error> {
    let sql = format!("{}.{}", quoted(schema), quoted(table));
    // Domains stand for what they are made of.
    let columns = "WITH RECURSIVE base (num, name, oid, typmod) AS ( \
            SELECT a.attnum, a.attname, a.atttypid, a.atttypmod FROM pg_catalog.pg_attribute a \
            WHERE a.attrelid = $1::regclass AND 0 < a.attnum AND NOT a.attisdropped \
            UNION ALL SELECT b.num, b.name, t.typbasetype, t.typtypmod \
            FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid WHERE t.typtype = 'd') \
        SELECT b.name::text, CASE n.nspname WHEN 'pg_catalog' THEN t.typname::text ELSE '' END, \
            b.typmod::int8, pg_catalog.format_type(b.oid, b.typmod) \
        FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid \
        JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
        WHERE t.typtype <> 'd' ORDER BY b.num";
    let rows = sqlx::query(columns).bind(&sql).fetch_all(&mut *connection).await?;
    let mut columns = Vec::new();
    for row in rows {
        let (name, kind, shown): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
        let typed = typed(&quoted(&name), &kind, row.try_get(2)?, shown);
        columns.push(Described { name, typed });
    }
    let key = "SELECT a.attname::text FROM pg_catalog.pg_index i \
        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k (num, at) \
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num \
        WHERE i.indrelid = $1::regclass AND i.indisprimary AND k.at <= i.indnkeyatts ORDER BY k.at";
    let key = sqlx::query_scalar(key).bind(&sql).fetch_all(&mut *connection).await?;
    let references = "SELECT a.attname::text FROM pg_catalog.pg_constraint c \
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey) \
        WHERE c.conrelid = $1::regclass AND c.contype = 'f'";
    let references = sqlx::query_scalar(references).bind(&sql).fetch_all(&mut *connection).await?;
    let rows = "SELECT greatest(reltuples, 0)::int8, relkind IN ('v', 'm', 'f') \
                FROM pg_catalog.pg_class WHERE oid = $1::regclass";
    let row = sqlx::query(rows).bind(&sql).fetch_one(connection).await?;
    let (rows, is_view): (i64, bool) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Found { sql, columns, key, references, is_view, rows: u64::try_from(rows).unwrap_or(0) })
}

/// Whether all values of a column are integers of 64 bits, and what selects it as such.
pub(super) async fn integers(
    connection: &mut PgConnection,
    table: &str,
    column: &str,
) -> Result<(bool, String), sqlx::Error> {
    let column = quoted(column);
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {table} WHERE {column} \
         NOT BETWEEN -9223372036854775808 AND 9223372036854775807)"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false);
    let beyond: bool = query.fetch_one(connection).await?;
    Ok((!beyond, format!("{column}::int8")))
}

/// What a column becomes. `kind` is empty for a type that is not Postgres' own.
fn typed(column: &str, kind: &str, typmod: i64, shown: String) -> Typed {
    let (kind, form, sql) = match kind {
        "bool" => (ColumnType::Bool, Form::Truth, format!("{column}::int4::int8")),
        "int2" | "int4" | "int8" => (ColumnType::Int64, Form::Integer, format!("{column}::int8")),
        "float4" | "float8" => (ColumnType::Double, Form::Double, format!("{column}::float8")),
        "text" | "varchar" | "bpchar" | "name" | "citext" => {
            (ColumnType::String, Form::Text, format!("{column}::text"))
        }
        "bytea" => (ColumnType::Bytes, Form::Bytes, column.to_owned()),
        "json" | "jsonb" => (ColumnType::Json, Form::Json, format!("{column}::text")),
        "timestamptz" => {
            let sql = format!("pg_catalog.timestamptz_send({column})");
            (ColumnType::Timestamp, Form::Micros2000, sql)
        }
        "timestamp" => {
            let sql = format!("pg_catalog.timestamp_send({column})");
            (ColumnType::Timestamp, Form::Micros2000, sql)
        }
        "date" => (ColumnType::Date, Form::Days2000, format!("pg_catalog.date_send({column})")),
        "uuid" => (ColumnType::Uuid, Form::Uuid, format!("pg_catalog.uuid_send({column})")),
        "numeric" if decimal(typmod).is_some() => {
            let kind = decimal(typmod).unwrap_or(ColumnType::String);
            (kind, Form::Decimal, format!("{column}::text"))
        }
        _ => {
            let sql = format!("{column}::text");
            let (kind, as_text) = (ColumnType::String, Some(shown));
            return Typed { kind, form: Form::Text, sql, as_text };
        }
    };
    Typed { kind, form, sql, as_text: None }
}

/// The decimal of a numeric's modifier, if it has one that fits.
fn decimal(typmod: i64) -> Option<ColumnType> {
    let packed = u32::try_from(typmod.checked_sub(4)?).ok()?;
    let precision = i64::from(packed >> 16);
    // Eleven bits with a sign: digits are rounded off before the point, or only stand behind it.
    let scale = i64::from(packed & 0x7ff);
    let scale = if scale < 1_024 { scale } else { scale - 2_048 };
    let (precision, scale) = match scale {
        ..0 => (precision - scale, 0),
        scale => (precision.max(scale), scale),
    };
    let (precision, scale) = (u32::try_from(precision).ok()?, u32::try_from(scale).ok()?);
    (precision <= lakesync::limits::DECIMAL_PRECISION_MAX)
        .then_some(ColumnType::Decimal { precision, scale })
}

pub(super) fn rows<'s>(
    connection: &'s mut PgConnection,
    table: &'s Table,
) -> BoxStream<'s, Result<Vec<Raw>, sqlx::Error>> {
    let columns: Vec<_> = table.columns.iter().map(|column| column.sql.as_str()).collect();
    let sql = format!("SELECT {} FROM {}", columns.join(", "), table.sql);
    let rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch(connection);
    rows.map(move |row| raw(&row?, table)).boxed()
}

fn raw(row: &PgRow, table: &Table) -> Result<Vec<Raw>, sqlx::Error> {
    let cell = |(at, form): (usize, Form)| {
        Ok(match form {
            Form::Truth | Form::Integer => {
                row.try_get::<Option<i64>, _>(at)?.map_or(Raw::Null, Raw::Integer)
            }
            Form::Double => row.try_get::<Option<f64>, _>(at)?.map_or(Raw::Null, Raw::Double),
            _ => {
                let bytes = row.try_get_unchecked::<Option<Vec<u8>>, _>(at)?;
                bytes.map_or(Raw::Null, Raw::Bytes)
            }
        })
    };
    table.columns.iter().map(|column| column.form).enumerate().map(cell).collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_as_wide_as_their_modifier_says() {
        let typmod = |precision: i64, scale: i64| ((precision << 16) | (scale & 0x7ff)) + 4;
        for (precision, scale, expected) in [
            (38, 10, Some((38, 10))),
            (39, 0, None),
            (5, -2, Some((7, 0))),
            (3, 5, Some((5, 5))),
            (38, -1, None),
        ] {
            let expected =
                expected.map(|(precision, scale)| ColumnType::Decimal { precision, scale });
            assert_eq!(decimal(typmod(precision, scale)), expected, "({precision}, {scale})");
        }
        assert_eq!(decimal(-1), None);
    }
}
