//! COPY: the fastest way in, for rows that are new. It takes no row that is there already.

use lakesync::adapter::AdapterError;
use lakesync::calendar::DAY_MICROS;
use lakesync::name::RowId;
use lakesync::row::Row;
use lakesync::schema::ColumnType;
use lakesync::value::Value;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgCopyIn};

use super::names::quoted;
use super::statement::Statement;
use super::types::{self, DIALECT};
use super::upsert::HistoryRecord;
use crate::sql::error::Failure;
use crate::sql::merge::Changed;
use crate::sql::names::{HISTORY, Names, ROWS};
use crate::sql::render::{Rendered, render};
use crate::sql::shown::{Shown, ShownColumn};

/// A buffer of this size is sent.
const BUFFER_BYTES: usize = 256 << 10;

/// So many rows are worth a look at the columns' types, which the binary form needs.
const BINARY_ROWS_MIN: usize = 100;

/// A COPY under way.
struct Copy<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    buffer: Vec<u8>,
}

/// Copies live rows into their table.
pub(super) async fn rows(
    connection: &mut PgConnection,
    names: &Names,
    table: &Shown<'_>,
    rows: &[(&RowId, &Row)],
) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = table.columns.iter().map(|column| &*column.name);
    let columns: Vec<_> = [&*table.key].into_iter().chain(columns).map(quoted).collect();
    let sql = format!("COPY {} ({}) FROM STDIN", names.synced(table.table), columns.join(", "));
    let is_decimal = |column: &ShownColumn<'_>| matches!(column.kind, ColumnType::Decimal { .. });
    match rows.len() < BINARY_ROWS_MIN || table.columns.iter().any(is_decimal) {
        true => rows_as_text(connection, &sql, table, rows).await,
        false => {
            rows_as_binary(connection, &sql, table, rows).await?;
            check_types(connection, names, table).await
        }
    }
}

/// Refuses columns of other types than we wrote: what is binary may pass for another number there.
/// Nobody alters the table any more, once rows were written in this transaction.
async fn check_types(
    connection: &mut PgConnection,
    names: &Names,
    table: &Shown<'_>,
) -> Result<(), Failure> {
    const SQL: &str = "
SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), u.kind
FROM unnest($2::text[], $3::text[]) AS u (name, kind)
JOIN pg_catalog.pg_attribute a
    ON a.attrelid = $1::regclass AND a.attname = u.name AND NOT a.attisdropped
WHERE pg_catalog.format_type(a.atttypid, a.atttypmod) <> u.kind
LIMIT 1";
    let columns = table.columns.iter().map(|column| &*column.name);
    let columns: Vec<_> = [&*table.key].into_iter().chain(columns).collect();
    let kinds = table.columns.iter().map(|column| types::name(column.kind));
    let kinds: Vec<_> = ["text".to_owned()].into_iter().chain(kinds).collect();
    let name = names.synced(table.table);
    let statement = Statement::new(SQL).bind(name).bind(columns).bind(kinds);
    let Some(row) = statement.row(connection).await? else { return Ok(()) };
    let [column, found, wanted] = [0, 1, 2].map(|at| row.try_get::<&str, _>(at));
    let (column, found, wanted) = (column?, found?, wanted?);
    let table = table.table;
    Err(AdapterError::Mismatch(format!(
        "table {table} has the column {column} as {found}, where {wanted} is wanted; put it back"
    ))
    .into())
}

/// The form that Postgres reads in half the time.
async fn rows_as_binary(
    connection: &mut PgConnection,
    sql: &str,
    table: &Shown<'_>,
    rows: &[(&RowId, &Row)],
) -> Result<(), Failure> {
    let mut copy = Copy::begin_binary(connection, &format!("{sql} (FORMAT binary)")).await?;
    let fields = i16::try_from(1 + table.columns.len()).expect("BUG: columns passed the capacity");
    for (row_id, row) in rows {
        copy.put_fields(fields);
        copy.put(row_id.as_str().as_bytes());
        for column in &table.columns {
            match row.cell(column.column) {
                None => copy.put_null(),
                Some(cell) => copy.put_shown(column.kind, &cell.value),
            }
        }
        copy.send_if_full().await?;
    }
    copy.finish_binary().await
}

/// The form that has decimals too, whose binary one is Postgres' own affair.
async fn rows_as_text(
    connection: &mut PgConnection,
    sql: &str,
    table: &Shown<'_>,
    rows: &[(&RowId, &Row)],
) -> Result<(), Failure> {
    let mut copy = Copy::begin(connection, sql).await?;
    for (row_id, row) in rows {
        put_escaped(row_id.as_str(), &mut copy.buffer);
        for column in &table.columns {
            copy.buffer.push(b'\t');
            let cell = row.cell(column.column);
            match cell.and_then(|cell| render(&DIALECT, column.kind, &cell.value)) {
                None => copy.buffer.extend(b"\\N"),
                Some(Rendered::Text(text)) => put_escaped(&text, &mut copy.buffer),
                Some(Rendered::Bytes(bytes)) => {
                    copy.buffer.extend(b"\\\\x");
                    put_hex(bytes, &mut copy.buffer);
                }
            }
        }
        copy.buffer.push(b'\n');
        copy.send_if_full().await?;
    }
    copy.finish().await
}

/// Copies states into our own table.
pub(super) async fn states(
    connection: &mut PgConnection,
    names: &Names,
    table_id: i32,
    rows: &[&Changed<'_>],
) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql =
        format!("COPY {} (table_id, row_id, state) FROM STDIN (FORMAT binary)", names.own(ROWS));
    let mut copy = Copy::begin_binary(connection, &sql).await?;
    for changed in rows {
        copy.put_fields(3);
        copy.put(&table_id.to_be_bytes());
        copy.put(changed.row_id.as_str().as_bytes());
        copy.put(&changed.row.encode());
        copy.send_if_full().await?;
    }
    copy.finish_binary().await
}

/// Copies changes into the history.
pub(super) async fn history(
    connection: &mut PgConnection,
    names: &Names,
    records: impl Iterator<Item = HistoryRecord<'_>>,
) -> Result<(), Failure> {
    let sql = format!(
        "COPY {} (log_id, position, index, table_name, row_id, delta_id, hlc, happened_at, client, \
         op, cells, exact) FROM STDIN (FORMAT binary)",
        names.own(HISTORY)
    );
    let mut copy = Copy::begin_binary(connection, &sql).await?;
    for record in records {
        copy.put_fields(12);
        copy.put(&record.log);
        copy.put(&record.position.to_be_bytes());
        copy.put(&record.index.to_be_bytes());
        copy.put(record.table.as_bytes());
        copy.put(record.row_id.as_bytes());
        copy.put(&record.delta_id);
        copy.put(&record.hlc.to_be_bytes());
        copy.put(&(record.micros - POSTGRES_EPOCH_MICROS).to_be_bytes());
        copy.put(record.client.as_bytes());
        copy.put(record.op.as_bytes());
        match &record.cells {
            Some(cells) => copy.put(cells.as_bytes()),
            None => copy.put_null(),
        }
        copy.put(&record.exact);
        copy.send_if_full().await?;
    }
    copy.finish_binary().await
}

/// Postgres counts from 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = POSTGRES_EPOCH_DAYS as i64 * DAY_MICROS;
const POSTGRES_EPOCH_DAYS: i32 = 10_957;

impl<'c> Copy<'c> {
    async fn begin(connection: &'c mut PgConnection, sql: &str) -> Result<Self, Failure> {
        let copy = connection.copy_in_raw(sql).await?;
        Ok(Self { copy, buffer: Vec::with_capacity(BUFFER_BYTES + (BUFFER_BYTES >> 2)) })
    }

    async fn begin_binary(connection: &'c mut PgConnection, sql: &str) -> Result<Self, Failure> {
        let mut copy = Self::begin(connection, sql).await?;
        copy.buffer.extend(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        Ok(copy)
    }

    fn put_fields(&mut self, count: i16) {
        self.buffer.extend(count.to_be_bytes());
    }

    fn put(&mut self, field: &[u8]) {
        let len = i32::try_from(field.len()).expect("BUG: a field of 2 GiB passed the limits");
        self.buffer.extend(len.to_be_bytes());
        self.buffer.extend_from_slice(field);
    }

    /// A value in a column of type `kind`, as [`render`] has it: what the column can't hold is NULL.
    fn put_shown(&mut self, kind: ColumnType, value: &Value) {
        match (kind, value) {
            _ if DIALECT.capacity.check(kind, value).is_err() => self.put_null(),
            (ColumnType::Bool, Value::Bool(truth)) => self.put(&[u8::from(*truth)]),
            (ColumnType::Int64, Value::Int64(number)) => self.put(&number.to_be_bytes()),
            (ColumnType::Double, Value::Double(number)) => self.put(&number.to_be_bytes()),
            (ColumnType::Double, Value::Int64(number)) => {
                self.put(&(*number as f64).to_be_bytes());
            }
            (ColumnType::Timestamp, Value::Timestamp(micros)) => {
                self.put(&(micros - POSTGRES_EPOCH_MICROS).to_be_bytes());
            }
            (ColumnType::Timestamp, Value::Date(days)) => {
                match i64::from(*days).checked_mul(DAY_MICROS) {
                    Some(micros) => self.put_shown(kind, &Value::Timestamp(micros)),
                    None => self.put_null(),
                }
            }
            (ColumnType::Date, Value::Date(days)) => {
                self.put(&(days - POSTGRES_EPOCH_DAYS).to_be_bytes());
            }
            (ColumnType::Uuid, Value::Uuid(bytes)) => self.put(bytes),
            _ => match render(&DIALECT, kind, value) {
                // The first byte is the version of jsonb's binary form.
                Some(Rendered::Text(text)) if kind == ColumnType::Json => {
                    self.put(&[b"\x01", text.as_bytes()].concat());
                }
                Some(Rendered::Text(text)) => self.put(text.as_bytes()),
                Some(Rendered::Bytes(bytes)) => self.put(bytes),
                None => self.put_null(),
            },
        }
    }

    fn put_null(&mut self) {
        self.buffer.extend((-1_i32).to_be_bytes());
    }

    async fn send_if_full(&mut self) -> Result<(), Failure> {
        if BUFFER_BYTES <= self.buffer.len() {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Failure> {
        self.copy.send(self.buffer.as_slice()).await?;
        self.buffer.clear();
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Failure> {
        self.send().await?;
        self.copy.finish().await?;
        Ok(())
    }

    async fn finish_binary(mut self) -> Result<(), Failure> {
        self.buffer.extend((-1_i16).to_be_bytes());
        self.finish().await
    }
}

/// `text` as COPY reads it: its own signs escaped.
fn put_escaped(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend(b"\\\\"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            other => out.push(other),
        }
    }
}

/// Bytes as Postgres reads them, after their `\x`.
pub(super) fn put_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend([byte >> 4, byte & 0xf].map(|digit| DIGITS[usize::from(digit)]));
    }
}
