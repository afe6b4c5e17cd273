//! The yardstick: the same rows into a plain table of the same columns and key, by COPY or by
//! INSERTs of many rows. They are made ready before the clock starts.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use lakesync::calendar::{self, DAY_MICROS};
use lakesync::proto::v1::value::Kind as ValueKind;
use lakesync::proto::v1::{PushRequest, RowChange};
use prost::Message;
use sqlx::mysql::MySqlArguments;
use sqlx::{Arguments, AssertSqlSafe};

use super::super::database::{Database, Kind};
use super::super::rows::{Load, TABLE};
use crate::exit::Exit;

/// Where the table is.
pub(super) const SCHEMA: &str = "plain";
/// How much of a COPY is sent at once.
const COPY_BYTES: usize = 256 << 10;
/// Rows in an INSERT, and INSERTs in a transaction. Others were not compared.
const INSERT_ROWS: usize = 500;
const TRANSACTION_INSERTS: usize = 200;
/// The table's columns, its key among them.
const COLUMNS: usize = 6;

/// Rows, ready to be written.
pub(super) enum Plain {
    Copy(Vec<Bytes>),
    Insert(Vec<(usize, MySqlArguments)>),
}

impl Plain {
    /// The rows of a load, and a table like the one in `schema` for them.
    pub(super) async fn new(database: &Database, load: &Load, schema: &str) -> Result<Self, Exit> {
        let like = match database.kind {
            Kind::Postgres => format!(
                "CREATE SCHEMA {SCHEMA}; \
                 CREATE TABLE {SCHEMA}.{TABLE} (LIKE {schema}.{TABLE} INCLUDING ALL)"
            ),
            Kind::MySql => format!(
                "CREATE DATABASE {SCHEMA}; CREATE TABLE {SCHEMA}.{TABLE} LIKE {schema}.{TABLE}"
            ),
        };
        database.run(like).await?;
        Ok(match database.kind {
            Kind::Postgres => Self::Copy(copied(load)),
            Kind::MySql => Self::Insert(inserted(load)),
        })
    }

    /// Writes the rows, and says how long that took until they were durable.
    pub(super) async fn write(self, database: &Database) -> Result<Duration, Exit> {
        match self {
            Self::Copy(parts) => {
                let mut connection = database.postgres().await?;
                let start = Instant::now();
                let sql = format!("COPY {SCHEMA}.{TABLE} FROM STDIN");
                let mut copy = connection.copy_in_raw(&sql).await.map_err(Exit::unavailable)?;
                for part in parts {
                    copy.send(&part[..]).await.map_err(Exit::unavailable)?;
                }
                copy.finish().await.map_err(Exit::unavailable)?;
                Ok(start.elapsed())
            }
            Self::Insert(statements) => {
                let mut connection = database.mysql().await?;
                let start = Instant::now();
                let statements = statements.into_iter().map(Some);
                let mut statements = statements.collect::<Vec<_>>();
                for group in statements.chunks_mut(TRANSACTION_INSERTS) {
                    script(&mut connection, "START TRANSACTION").await?;
                    for (rows, arguments) in group.iter_mut().filter_map(Option::take) {
                        let sql = AssertSqlSafe(insert(rows));
                        let query = sqlx::query_with(sql, arguments);
                        query.execute(&mut connection).await.map_err(Exit::unavailable)?;
                    }
                    script(&mut connection, "COMMIT").await?;
                }
                Ok(start.elapsed())
            }
        }
    }
}

async fn script(connection: &mut sqlx::MySqlConnection, sql: &'static str) -> Result<(), Exit> {
    sqlx::raw_sql(sql).execute(connection).await.map_err(Exit::unavailable)?;
    Ok(())
}

fn insert(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS].join(","));
    format!("INSERT INTO {SCHEMA}.{TABLE} VALUES {}", vec![row; rows].join(","))
}

/// The load's rows, in about the order in which a server is given them: a push of each client in turn.
fn rows(load: &Load) -> impl Iterator<Item = RowChange> {
    let rounds = load.clients.iter().map(|client| client.pushes.len()).max().unwrap_or_default();
    let pushes = (0..rounds)
        .flat_map(|at| load.clients.iter().filter_map(move |client| client.pushes.get(at)));
    pushes.flat_map(|push| {
        let request = PushRequest::decode(push.body.clone()).expect("BUG: our own");
        request.tables.into_iter().flat_map(|table| table.rows)
    })
}

fn copied(load: &Load) -> Vec<Bytes> {
    let (mut parts, mut part) = (Vec::new(), BytesMut::new());
    for row in rows(load) {
        part.put(row.row_id.as_bytes());
        for value in values(&row) {
            part.put_u8(b'\t');
            // Our own text has nothing in it that COPY reads otherwise.
            match value {
                ValueKind::StringValue(text) => part.put(text.as_bytes()),
                ValueKind::BoolValue(truth) => part.put_u8(if *truth { b't' } else { b'f' }),
                ValueKind::Int64Value(number) => part.put(number.to_string().as_bytes()),
                ValueKind::TimestampValue(micros) => {
                    part.put(timestamp(*micros).as_bytes());
                    part.put(&b"+00"[..]);
                }
                other => unreachable!("BUG: no column holds {other:?}"),
            }
        }
        part.put_u8(b'\n');
        if COPY_BYTES <= part.len() {
            parts.push(part.split().freeze());
        }
    }
    parts.push(part.freeze());
    parts
}

fn inserted(load: &Load) -> Vec<(usize, MySqlArguments)> {
    let (mut statements, mut arguments, mut count) = (Vec::new(), MySqlArguments::default(), 0);
    for row in rows(load) {
        add(&mut arguments, row.row_id.as_str());
        for value in values(&row) {
            match value {
                ValueKind::StringValue(text) => add(&mut arguments, text.as_str()),
                ValueKind::BoolValue(truth) => add(&mut arguments, *truth),
                ValueKind::Int64Value(number) => add(&mut arguments, *number),
                ValueKind::TimestampValue(micros) => add(&mut arguments, timestamp(*micros)),
                other => unreachable!("BUG: no column holds {other:?}"),
            }
        }
        count += 1;
        if count == INSERT_ROWS {
            statements.push((count, std::mem::take(&mut arguments)));
            count = 0;
        }
    }
    if 0 < count {
        statements.push((count, arguments));
    }
    statements
}

fn add<'v, T>(arguments: &mut MySqlArguments, value: T)
where
    T: sqlx::Encode<'v, sqlx::MySql> + sqlx::Type<sqlx::MySql> + 'v,
{
    arguments.add(value).expect("BUG: numbers and text can be encoded");
}

fn values(row: &RowChange) -> impl Iterator<Item = &ValueKind> {
    row.cells.iter().filter_map(|cell| cell.value.as_ref()?.kind.as_ref())
}

/// Microseconds since 1970, as both databases read them.
fn timestamp(micros: i64) -> String {
    let (year, month, day) = calendar::date(micros.div_euclid(DAY_MICROS));
    let (hour, minute, second, micro) = calendar::time(micros);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micro:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_dates_and_times() {
        for (micros, text) in [
            (0, "1970-01-01 00:00:00.000000"),
            (-1, "1969-12-31 23:59:59.999999"),
            (951_782_400_000_000, "2000-02-29 00:00:00.000000"),
            (1_700_000_000_123_456, "2023-11-14 22:13:20.123456"),
            (4_107_542_399_000_000, "2100-02-28 23:59:59.000000"),
        ] {
            assert_eq!(timestamp(micros), text);
        }
    }

    #[test]
    fn rows_are_all_of_a_load() {
        let load = Load::of_new_rows(3, 7, 100, 1_800_000_000_000);
        assert_eq!(rows(&load).count(), 100);
        let text = copied(&load).concat();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 100);
        assert_eq!(inserted(&load).iter().map(|(rows, _)| rows).sum::<usize>(), 100);
    }
}
