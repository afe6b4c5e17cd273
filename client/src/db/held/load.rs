//! Looking rows up: stamps, values, unsent changes and what the table shows, many rows a query.

use std::collections::HashMap;

use lakesync::delta::Delta;
use lakesync::name::{ColumnName, RowId};
use lakesync::row::{Row, StampedCell};
use lakesync::stamp::Stamp;
use lakesync::value::Value;
use sqlx::sqlite::SqliteRow;

use super::{Held, Pending, on_key, op};
use crate::db::convert::from_stored;
use crate::db::error::DbError;
use crate::db::key::Key;
use crate::db::layout::OWN_CLIENT;
use crate::db::session::Work;
use crate::db::sql::{
    Statement, Stored, chunk_rows, integer, maybe_integer, placeholders, quoted, stored, text,
};
use crate::db::table::{LocalColumn, Table};

/// What the file holds of these rows, in their order.
pub(in crate::db) async fn load(
    work: &mut Work<'_>,
    table: &Table,
    row_ids: &[RowId],
) -> Result<Vec<Held>, DbError> {
    let mut all = Vec::with_capacity(row_ids.len());
    for chunk in row_ids.chunks(chunk_rows(1 + table.key.columns().len())) {
        all.extend(Loader { work, table, chunk }.load().await?);
    }
    Ok(all)
}

struct Loader<'a, 'w> {
    work: &'a mut Work<'w>,
    table: &'a Table,
    chunk: &'a [RowId],
}

/// The recorded stamps of one row.
#[derive(Default)]
struct Stamps {
    width: i64,
    base: Option<Stamp>,
    written: Option<Stamp>,
    deleted: Option<Stamp>,
    /// Columns whose stamp differs; `None` for those never written.
    cells: HashMap<i64, Option<Stamp>>,
    aside: Vec<StampedCell>,
}

impl Loader<'_, '_> {
    async fn load(mut self) -> Result<Vec<Held>, DbError> {
        let keys = self.keys().await?;
        let mut held: Vec<Held> =
            self.chunk.iter().zip(keys).map(|(row_id, key)| Held::new(row_id, key)).collect();
        let places: HashMap<String, usize> =
            self.chunk.iter().enumerate().map(|(at, id)| (id.to_string(), at)).collect();
        self.read_images(&mut held).await?;
        for row in self.of_chunk("row_id, col, value", "base").await? {
            let (at, column) = (places[&text(&row, 0)?], integer(&row, 1)?);
            held[at].base.insert(column as u32, stored(&row, 2)?);
        }
        let mut stamps = self.stamps(&mut held, &places).await?;
        for (at, held) in held.iter_mut().enumerate() {
            if let Some(stamps) = stamps.remove(&at) {
                held.known = assemble(self.table, stamps, held);
            }
        }
        for row in self.of_chunk("row_id, row, since, seen", "parked").await? {
            let held = &mut held[places[&text(&row, 0)?]];
            let Stored::Blob(bytes) = stored(&row, 1)? else { continue };
            held.known = Row::decode(&bytes).map_err(|error| DbError::Damaged {
                table: "_lakesync_parked",
                what: error.to_string(),
            })?;
            held.parked_since = Some(integer(&row, 2)?);
            held.seen = integer(&row, 3)?;
        }
        self.read_pending(&mut held, &places).await?;
        for held in &mut held {
            let visible = held.visible();
            let written = |column: &LocalColumn| visible.cell(&column.name).is_some();
            held.written = self.table.columns.iter().map(written).collect();
        }
        Ok(held)
    }

    /// Rows of one of LakeSync's tables that belong to the chunk.
    async fn of_chunk(&mut self, columns: &str, from: &str) -> Result<Vec<SqliteRow>, DbError> {
        let marks = vec!["?"; self.chunk.len()].join(",");
        let sql =
            format!("SELECT {columns} FROM _lakesync_{from} WHERE tbl = ? AND row_id IN ({marks})");
        let mut statement = Statement::new(sql).bind(self.table.id);
        self.chunk.iter().for_each(|row_id| statement.add(row_id.as_str()));
        let statement = if self.is_common_size() { statement } else { statement.once() };
        Ok(statement.rows(self.work.connection()).await?)
    }

    fn is_common_size(&self) -> bool {
        self.chunk.len() == 1 || self.chunk.len() == chunk_rows(1 + self.table.key.columns().len())
    }

    async fn keys(&mut self) -> Result<Vec<Option<Vec<Stored>>>, DbError> {
        let Key::Mapped { ids, .. } = &self.table.key else {
            return Ok(self.chunk.iter().map(|row_id| self.table.key.parse(row_id)).collect());
        };
        let marks = vec!["?"; self.chunk.len()].join(",");
        let sql = format!("SELECT row_id, rowid FROM {} WHERE row_id IN ({marks})", quoted(ids));
        let mut statement = Statement::new(sql);
        self.chunk.iter().for_each(|row_id| statement.add(row_id.as_str()));
        let mut rowids = HashMap::new();
        for row in statement.rows(self.work.connection()).await? {
            rowids.insert(text(&row, 0)?, integer(&row, 1)?);
        }
        let key = |id: &RowId| rowids.get(id.as_str()).map(|rowid| vec![Stored::Integer(*rowid)]);
        Ok(self.chunk.iter().map(key).collect())
    }

    async fn read_images(&mut self, held: &mut [Held]) -> Result<(), DbError> {
        let keyed: Vec<usize> = (0..held.len()).filter(|at| held[*at].key.is_some()).collect();
        if keyed.is_empty() {
            return Ok(());
        }
        let columns: String =
            self.table.columns.iter().map(|column| format!(", _t.{}", column.sql)).collect();
        let sql = format!(
            "SELECT _v.column1{columns} FROM (VALUES {}) _v CROSS JOIN {} _t ON {}",
            placeholders(keyed.len(), 1 + self.table.key.columns().len()),
            self.table.sql(),
            on_key(self.table, "_v", 2)
        );
        let mut statement = Statement::new(sql);
        for at in &keyed {
            statement.add(*at as i64);
            held[*at].key.iter().flatten().for_each(|value| statement.push(value));
        }
        let statement = if self.is_common_size() { statement } else { statement.once() };
        for row in statement.rows(self.work.connection()).await? {
            let values = (1..=self.table.columns.len()).map(|at| stored(&row, at));
            held[integer(&row, 0)? as usize].image = Some(values.collect::<Result<_, _>>()?);
        }
        Ok(())
    }

    async fn stamps(
        &mut self,
        held: &mut [Held],
        places: &HashMap<String, usize>,
    ) -> Result<HashMap<usize, Stamps>, DbError> {
        let mut all: HashMap<usize, Stamps> = HashMap::new();
        let columns = "row_id, width, hlc, client, written_hlc, written_client, deleted_hlc, \
                       deleted_client, seen";
        for row in self.of_chunk(columns, "rows").await? {
            let at = places[&text(&row, 0)?];
            let clients = &self.work.clients;
            let stamp = |at| clients.stamp(maybe_integer(&row, at)?, integer(&row, at + 1)?);
            let (base, written, deleted) = (stamp(2)?, stamp(4)?, stamp(6)?);
            let width = integer(&row, 1)?;
            all.insert(at, Stamps { width, base, written, deleted, ..Stamps::default() });
            (held[at].recorded, held[at].seen) = (true, integer(&row, 8)?);
        }
        if all.is_empty() {
            return Ok(all);
        }
        for row in self.of_chunk("row_id, col, hlc, client", "cells").await? {
            let stamp = self.work.clients.stamp(maybe_integer(&row, 2)?, integer(&row, 3)?)?;
            if let Some(stamps) = all.get_mut(&places[&text(&row, 0)?]) {
                stamps.cells.insert(integer(&row, 1)?, stamp);
            }
        }
        for row in self.of_chunk("row_id, col, hlc, client, value", "unknown").await? {
            let stamp = self.work.clients.stamp(maybe_integer(&row, 2)?, integer(&row, 3)?)?;
            let (Some(stamp), Some(column), Stored::Blob(bytes)) =
                (stamp, column_name(self.table, integer(&row, 1)?), stored(&row, 4)?)
            else {
                continue;
            };
            let value = Value::decode(&mut bytes.as_slice()).map_err(|error| DbError::Damaged {
                table: "_lakesync_unknown",
                what: error.to_string(),
            })?;
            if let Some(stamps) = all.get_mut(&places[&text(&row, 0)?]) {
                stamps.aside.push(StampedCell { column, stamp, value });
            }
        }
        Ok(all)
    }

    async fn read_pending(
        &mut self,
        held: &mut [Held],
        places: &HashMap<String, usize>,
    ) -> Result<(), DbError> {
        let mut rows = self.of_chunk("row_id, seq, hlc, op", "outbox").await?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut cells = read_cells(self.work, &rows, 1).await?;
        let by_seq = |row: &SqliteRow| integer(row, 1).unwrap_or(0);
        rows.sort_by_key(by_seq);
        for row in rows {
            let held = &mut held[places[&text(&row, 0)?]];
            let seq = integer(&row, 1)?;
            let stamp = self.work.clients.stamp(maybe_integer(&row, 2)?, OWN_CLIENT)?;
            let Some(stamp) = stamp else { continue };
            let raw = cells.remove(&seq).unwrap_or_default();
            let op = op(self.table, integer(&row, 3)?, &raw);
            let (table, row_id) = (self.table.name().clone(), held.row_id.clone());
            held.pending.push(Pending { seq, delta: Delta { table, row_id, stamp, op }, raw });
        }
        Ok(())
    }
}

/// The cells of outbox rows, whose numbers stand in column `at`.
pub(in crate::db) async fn read_cells(
    work: &mut Work<'_>,
    rows: &[SqliteRow],
    at: usize,
) -> Result<HashMap<i64, HashMap<u32, Stored>>, DbError> {
    let mut cells: HashMap<i64, HashMap<u32, Stored>> = HashMap::new();
    let numbers = rows.iter().map(|row| integer(row, at)).collect::<Result<Vec<_>, _>>()?;
    for chunk in numbers.chunks(chunk_rows(1)) {
        let marks = vec!["?"; chunk.len()].join(",");
        let sql =
            format!("SELECT seq, col, value FROM _lakesync_outbox_cells WHERE seq IN ({marks})");
        let mut statement = Statement::new(sql);
        chunk.iter().for_each(|seq| statement.add(*seq));
        let full = chunk.len() == chunk_rows(1);
        let statement = if full { statement } else { statement.once() };
        for row in statement.rows(work.connection()).await? {
            let of = cells.entry(integer(&row, 0)?).or_default();
            of.insert(integer(&row, 1)? as u32, stored(&row, 2)?);
        }
    }
    Ok(cells)
}

/// The row that recorded stamps and the values in base and table make.
fn assemble(table: &Table, mut stamps: Stamps, held: &Held) -> Row {
    let mut cells = std::mem::take(&mut stamps.aside);
    for (at, column) in table.columns.iter().enumerate() {
        let field_id = i64::from(column.field_id);
        if stamps.width < field_id && !stamps.cells.contains_key(&field_id) {
            continue;
        }
        let stamp = match stamps.cells.remove(&field_id) {
            Some(own) => own,
            None => stamps.base.clone(),
        };
        let Some(stamp) = stamp else { continue };
        let shown = || held.image.as_ref().map(|image| &image[at]);
        let value = held.base.get(&column.field_id).or_else(shown).unwrap_or(&Stored::Null);
        let value = from_stored(column.kind, value).unwrap_or(Value::Null);
        cells.push(StampedCell { column: column.name.clone(), stamp, value });
    }
    Row::assemble(cells, stamps.written, stamps.deleted)
}

fn column_name(table: &Table, field_id: i64) -> Option<ColumnName> {
    let same = |column: &&lakesync::schema::Column| i64::from(column.field_id) == field_id;
    table.schema.columns.iter().find(same).map(|column| column.name.clone())
}
