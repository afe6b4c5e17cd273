//! Changes that were refused: kept where anybody can read them, with their reason, until they are
//! retried or dropped.

use std::collections::HashMap;

use lakesync::name::RowId;
use serde_json::{Map, Number, Value as Json};

use super::apply::Applying;
use super::convert::hex;
use super::error::DbError;
use super::held::load;
use super::layout::{NOW_MS, OP_DELETE, OP_UPSERT, is_delete, stamp_above};
use super::session::Work;
use super::sql::{Statement, Stored, chunk_rows, insert_rows, integer, text};
use super::table::Table;
use super::{Applied, Rejected};

/// A change of the outbox that is refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) seq: i64,
    pub(super) table: i64,
    pub(super) row_id: String,
    pub(super) op: i64,
    pub(super) cells: HashMap<u32, Stored>,
}

/// Keeps a refused change. It is still in the outbox.
pub(super) async fn put(
    work: &mut Work<'_>,
    refused: &Refused,
    reason: &str,
    message: &str,
) -> Result<Rejected, DbError> {
    let table = work.registry.by_id(refused.table).cloned();
    let name = table.as_ref().map_or_else(String::new, |table| table.name().to_string());
    let kind = if is_delete(refused.op) { "delete" } else { "upsert" };
    let cells = match &table {
        Some(table) => cells_text(table, &refused.cells),
        None => "{}".to_owned(),
    };
    let sql = format!(
        "INSERT INTO _lakesync_rejected (tbl, table_name, row_id, kind, cells, reason, message, at_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT {NOW_MS} + offset_ms FROM _lakesync_clock)) \
         RETURNING id, table_name, row_id, kind, cells, reason, message, at_ms"
    );
    let statement = Statement::new(sql).bind(refused.table).bind(name.as_str());
    let statement = statement.bind(refused.row_id.as_str()).bind(kind).bind(cells.as_str());
    let statement = statement.bind(reason).bind(message);
    let row = statement.row(work.connection()).await?;
    let row = row.ok_or_else(|| DbError::Damaged {
        table: "_lakesync_rejected",
        what: "a row just inserted is missing".to_owned(),
    })?;
    let rejected = read(&row)?;
    let cell = |(column, value): (&u32, &Stored)| {
        vec![Stored::Integer(rejected.id), Stored::Integer(i64::from(*column)), value.clone()]
    };
    let rows: Vec<_> = refused.cells.iter().map(cell).collect();
    let head = "INSERT INTO _lakesync_rejected_cells (id, col, value)";
    insert_rows(work.connection(), head, &rows).await?;
    Ok(rejected)
}

/// Removes changes from the outbox.
pub(super) async fn remove_from_outbox(
    work: &mut Work<'_>,
    numbers: &[i64],
) -> Result<(), DbError> {
    for chunk in numbers.chunks(chunk_rows(1)) {
        let marks = vec!["?"; chunk.len()].join(",");
        for table in ["outbox", "outbox_cells"] {
            let sql = format!("DELETE FROM _lakesync_{table} WHERE seq IN ({marks})");
            let mut statement = Statement::new(sql);
            chunk.iter().for_each(|seq| statement.add(*seq));
            let common = chunk.len() == 1 || chunk.len() == chunk_rows(1);
            let statement = if common { statement } else { statement.once() };
            statement.run(work.connection()).await?;
        }
    }
    Ok(())
}

/// All refused changes, oldest first.
pub(super) async fn list(
    connection: &mut sqlx::SqliteConnection,
) -> Result<Vec<Rejected>, DbError> {
    let sql = "SELECT id, table_name, row_id, kind, cells, reason, message, at_ms \
               FROM _lakesync_rejected ORDER BY id";
    Statement::new(sql).rows(connection).await?.iter().map(read).collect()
}

/// Queues a refused change again, as if it were made now. False if there is none of this number, or
/// its table is not synced any more, or its row id can't be sent at all.
pub(super) async fn retry(work: &mut Work<'_>, id: i64) -> Result<bool, DbError> {
    let sql = "SELECT tbl, row_id, kind FROM _lakesync_rejected WHERE id = ?";
    let Some(row) = Statement::new(sql).bind(id).row(work.connection()).await? else {
        return Ok(false);
    };
    let table = work.registry.by_id(integer(&row, 0)?).cloned();
    let (Some(table), Ok(row_id)) = (table, RowId::parse(&text(&row, 1)?)) else {
        return Ok(false);
    };
    let op = if text(&row, 2)? == "delete" { OP_DELETE } else { OP_UPSERT };
    let mut applying = Applying::begin(work).await?;
    let sql = format!(
        "UPDATE _lakesync_clock SET seq = seq + 1, \
         hlc = max(hlc + 1, ({NOW_MS} + offset_ms) << 16) WHERE id = 1 RETURNING seq, hlc"
    );
    let clock = Statement::new(sql).row(work.connection()).await?;
    let (seq, hlc) = clock
        .map_or(Ok((0, 0)), |row| Ok::<_, sqlx::Error>((integer(&row, 0)?, integer(&row, 1)?)))?;
    let stamp = stamp_above(table.id, "?3", "?4");
    let sql = format!(
        "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op) VALUES (?1, ?2, ?3, {stamp}, ?5)"
    );
    let statement = Statement::new(sql).bind(seq).bind(table.id).bind(row_id.as_str());
    statement.bind(hlc).bind(op).run(work.connection()).await?;
    let sql = "INSERT INTO _lakesync_outbox_cells (seq, col, value) \
               SELECT ?, col, value FROM _lakesync_rejected_cells WHERE id = ?";
    Statement::new(sql).bind(seq).bind(id).run(work.connection()).await?;
    forget(work, id).await?;
    let held = load(work, &table, &[row_id]).await?;
    applying.finish(work, &table, held).await?;
    applying.check_references(work).await?;
    let _: Applied = applying.end(work).await?;
    Ok(true)
}

/// Forgets a refused change. False if there is none of this number.
pub(super) async fn forget(work: &mut Work<'_>, id: i64) -> Result<bool, DbError> {
    let cells = Statement::new("DELETE FROM _lakesync_rejected_cells WHERE id = ?").bind(id);
    cells.run(work.connection()).await?;
    let rows = Statement::new("DELETE FROM _lakesync_rejected WHERE id = ?").bind(id);
    Ok(rows.run(work.connection()).await? != 0)
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Rejected, DbError> {
    Ok(Rejected {
        id: integer(row, 0)?,
        table: text(row, 1)?,
        row_id: text(row, 2)?,
        kind: text(row, 3)?,
        cells: text(row, 4)?,
        reason: text(row, 5)?,
        message: text(row, 6)?,
        at_ms: u64::try_from(integer(row, 7)?).unwrap_or(0),
    })
}

/// Cells as a JSON object, for people. Exact values stand in `_lakesync_rejected_cells`.
fn cells_text(table: &Table, cells: &HashMap<u32, Stored>) -> String {
    /// Long values are cut: they are for reading.
    const BYTES_SHOWN_MAX: usize = 100;
    let mut object = Map::new();
    for column in &table.schema.columns {
        let value = match cells.get(&column.field_id) {
            None => continue,
            Some(Stored::Null) => Json::Null,
            Some(Stored::Integer(value)) => Json::from(*value),
            Some(Stored::Real(value)) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Some(Stored::Text(text)) => Json::String(text.chars().take(BYTES_SHOWN_MAX).collect()),
            Some(Stored::Garbled(bytes) | Stored::Blob(bytes)) => {
                Json::String(hex(&bytes[..bytes.len().min(BYTES_SHOWN_MAX)]))
            }
        };
        object.insert(column.name.to_string(), value);
    }
    Json::Object(object).to_string()
}
