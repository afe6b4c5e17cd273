//! Inserts that take the place of what is there, and deletes: many rows by one statement, whose
//! parameters are one array per column.

use std::borrow::Cow;

use lakesync::name::RowId;
use lakesync::row::Row;
use sqlx::postgres::PgConnection;

use super::copy::put_hex;
use super::names::quoted;
use super::statement::Statement;
use super::types::{self, DIALECT};
use crate::sql::error::Failure;
use crate::sql::merge::Changed;
use crate::sql::names::{HISTORY, Names, ROWS};
use crate::sql::render::{Rendered, render};
use crate::sql::shown::Shown;

/// About how much one statement carries.
const STATEMENT_BYTES: usize = 4 << 20;
/// How many rows one statement carries at most.
const STATEMENT_ROWS: usize = 4_000;

/// A change of the history, as its columns hold it.
pub(super) struct HistoryRecord<'d> {
    pub(super) log: [u8; 16],
    pub(super) position: i64,
    pub(super) index: i64,
    pub(super) table: &'d str,
    pub(super) row_id: &'d str,
    pub(super) delta_id: [u8; 32],
    pub(super) hlc: i64,
    /// Microseconds since the Unix epoch.
    pub(super) micros: i64,
    pub(super) client: &'d str,
    pub(super) op: &'static str,
    pub(super) cells: Option<String>,
    pub(super) exact: Vec<u8>,
}

/// Puts live rows into their table, in the place of those of the same key.
pub(super) async fn rows(
    connection: &mut PgConnection,
    names: &Names,
    table: &Shown<'_>,
    rows: &[(&RowId, &Row)],
) -> Result<(), Failure> {
    let sql = upsert_sql(names, table);
    for chunk in chunks(rows, |(_, row)| row.size()) {
        bound(&sql, table, chunk).run(connection).await?;
    }
    Ok(())
}

/// A statement over rows, whose parameters are the keys and then an array per column.
pub(super) fn bound(sql: &str, table: &Shown<'_>, rows: &[(&RowId, &Row)]) -> Statement {
    let ids: Vec<_> = rows.iter().map(|(row_id, _)| row_id.as_str()).collect();
    let mut statement = Statement::new(sql).bind(ids);
    for column in &table.columns {
        let cells = rows.iter().map(|(_, row)| {
            let value = &row.cell(column.column)?.value;
            render(&DIALECT, column.kind, value).map(text)
        });
        statement = statement.bind(cells.collect::<Vec<Option<Cow<'_, str>>>>());
    }
    statement
}

fn upsert_sql(names: &Names, table: &Shown<'_>) -> String {
    let key = quoted(&table.key);
    let (mut columns, mut values) = (key.clone(), "u.k".to_owned());
    let (mut arrays, mut aliases) = ("$1::text[]".to_owned(), "k".to_owned());
    let mut sets = Vec::new();
    for (at, column) in table.columns.iter().enumerate() {
        let (name, kind) = (quoted(&column.name), types::name(column.kind));
        columns += &format!(", {name}");
        values += &format!(", u.c{at}::{kind}");
        arrays += &format!(", ${}::text[]", at + 2);
        aliases += &format!(", c{at}");
        sets.push(format!("{name} = EXCLUDED.{name}"));
    }
    let conflict = match sets.is_empty() {
        true => "NOTHING".to_owned(),
        false => format!("UPDATE SET {}", sets.join(", ")),
    };
    format!(
        "INSERT INTO {} ({columns}) SELECT {values} FROM unnest({arrays}) AS u ({aliases}) \
         ON CONFLICT ({key}) DO {conflict}",
        names.synced(table.table)
    )
}

/// Takes rows out of their table, those that are there.
pub(super) async fn delete(
    connection: &mut PgConnection,
    names: &Names,
    table: &Shown<'_>,
    row_ids: &[&RowId],
) -> Result<(), Failure> {
    let key = quoted(&table.key);
    let sql = format!("DELETE FROM {} WHERE {key} = ANY($1)", names.synced(table.table));
    for chunk in row_ids.chunks(STATEMENT_ROWS) {
        let ids: Vec<_> = chunk.iter().map(|row_id| row_id.as_str()).collect();
        Statement::new(&sql).bind(ids).run(connection).await?;
    }
    Ok(())
}

/// Puts states into our own table, in the place of those there are.
pub(super) async fn states(
    connection: &mut PgConnection,
    names: &Names,
    table_id: i32,
    rows: &[&Changed<'_>],
) -> Result<(), Failure> {
    let sql = format!(
        "INSERT INTO {} (table_id, row_id, state) \
         SELECT $1, u.row_id, u.state FROM unnest($2::text[], $3::bytea[]) AS u (row_id, state) \
         ON CONFLICT (table_id, row_id) DO UPDATE SET state = EXCLUDED.state",
        names.own(ROWS)
    );
    for chunk in chunks(rows, |changed| changed.row.size()) {
        let ids: Vec<_> = chunk.iter().map(|changed| changed.row_id.as_str()).collect();
        let states: Vec<_> = chunk.iter().map(|changed| changed.row.encode()).collect();
        Statement::new(&sql).bind(table_id).bind(ids).bind(states).run(connection).await?;
    }
    Ok(())
}

/// Takes states out of our own table.
pub(super) async fn delete_states(
    connection: &mut PgConnection,
    names: &Names,
    table_id: i32,
    row_ids: &[&RowId],
) -> Result<(), Failure> {
    // Nobody but us writes these, and we hold the lock: so rows stay where they were found.
    let sql = format!(
        "DELETE FROM {0} WHERE ctid = ANY(ARRAY(SELECT r.ctid \
         FROM unnest($2::text[]) AS u (row_id) CROSS JOIN LATERAL \
         (SELECT ctid FROM {0} WHERE table_id = $1 AND row_id = u.row_id LIMIT 1) AS r))",
        names.own(ROWS)
    );
    for chunk in row_ids.chunks(STATEMENT_ROWS) {
        let ids: Vec<_> = chunk.iter().map(|row_id| row_id.as_str()).collect();
        Statement::new(&sql).bind(table_id).bind(ids).run(connection).await?;
    }
    Ok(())
}

/// Adds changes to the history. Those that it holds stay as they are.
pub(super) async fn history(
    connection: &mut PgConnection,
    names: &Names,
    records: &[HistoryRecord<'_>],
) -> Result<(), Failure> {
    let sql = format!(
        "INSERT INTO {} (log_id, position, index, table_name, row_id, delta_id, hlc, happened_at, \
         client, op, cells, exact) \
         SELECT u.l, u.p, u.i, u.t, u.r, u.d, u.h, \
         timestamptz 'epoch' + u.m * interval '1 microsecond', u.c, u.o, u.j::json, u.e \
         FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], \
         $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::bytea[]) \
         AS u (l, p, i, t, r, d, h, m, c, o, j, e) \
         ON CONFLICT (log_id, position, index) DO NOTHING",
        names.own(HISTORY)
    );
    for chunk in chunks(records, |record| 2 * record.exact.len()) {
        Statement::new(&sql)
            .bind(chunk.iter().map(|record| &record.log[..]).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.position).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.index).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.table).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.row_id).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| &record.delta_id[..]).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.hlc).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.micros).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.client).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.op).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.cells.as_deref()).collect::<Vec<_>>())
            .bind(chunk.iter().map(|record| record.exact.as_slice()).collect::<Vec<_>>())
            .run(connection)
            .await?;
    }
    Ok(())
}

fn text(rendered: Rendered<'_>) -> Cow<'_, str> {
    match rendered {
        Rendered::Text(text) => text,
        Rendered::Bytes(bytes) => {
            let mut hex = b"\\x".to_vec();
            put_hex(bytes, &mut hex);
            String::from_utf8(hex).expect("BUG: digits are text").into()
        }
    }
}

/// `items` in pieces that one statement can carry.
pub(super) fn chunks<T>(items: &[T], size: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fits = |item: &&T| {
            bytes += size(item);
            bytes <= STATEMENT_BYTES
        };
        let count = rest.iter().take(STATEMENT_ROWS).take_while(fits).count().max(1);
        let (chunk, after) = rest.split_at(count);
        rest = after;
        Some(chunk)
    })
}
