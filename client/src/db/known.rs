//! Recording what the gateway is known to have: stamps of rows and cells, the values that unsent
//! writes hide, cells of columns that the table lacks, and whole rows that are parked.
//!
//! Most cells of a row share one stamp. It is written once, and only cells that differ are listed.

use lakesync::row::Row;
use lakesync::stamp::Stamp;

use super::convert::to_stored;
use super::error::DbError;
use super::held::{Held, is_local};
use super::session::{Work, to_sql};
use super::sql::{Statement, Stored, chunk_rows, insert_rows};
use super::table::{LocalColumn, Place, Table};

/// Rows of LakeSync's own tables, to be inserted together.
#[derive(Default)]
struct Records {
    rows: Vec<Vec<Stored>>,
    cells: Vec<Vec<Stored>>,
    base: Vec<Vec<Stored>>,
    aside: Vec<Vec<Stored>>,
}

/// Records rows that the table shows as it should.
pub(super) async fn record(
    work: &mut Work<'_>,
    table: &Table,
    held: &[Held],
) -> Result<(), DbError> {
    let unrecorded: Vec<&Held> = held.iter().filter(|held| held.recorded).collect();
    for from in ["cells", "unknown"] {
        delete(work, table, from, &unrecorded).await?;
    }
    let saved: Vec<&Held> =
        held.iter().filter(|held| !held.base.is_empty() || !held.pending.is_empty()).collect();
    delete(work, table, "base", &saved).await?;
    let empty = Row::default();
    let gone: Vec<&Held> =
        held.iter().filter(|held| held.recorded && held.known == empty).collect();
    delete(work, table, "rows", &gone).await?;
    let parked: Vec<&Held> = held.iter().filter(|held| held.parked_since.is_some()).collect();
    delete(work, table, "parked", &parked).await?;

    let mut records = Records::default();
    for held in held.iter().filter(|held| held.known != empty) {
        describe(work, table, held, &mut records).await?;
    }
    let connection = work.connection();
    let head = "INSERT OR REPLACE INTO _lakesync_rows (tbl, row_id, width, hlc, client, \
                written_hlc, written_client, deleted_hlc, deleted_client, seen)";
    insert_rows(connection, head, &records.rows).await?;
    let head = "INSERT INTO _lakesync_cells (tbl, row_id, col, hlc, client)";
    insert_rows(connection, head, &records.cells).await?;
    let head = "INSERT INTO _lakesync_base (tbl, row_id, col, value)";
    insert_rows(connection, head, &records.base).await?;
    let head = "INSERT INTO _lakesync_unknown (tbl, row_id, col, hlc, client, value)";
    insert_rows(connection, head, &records.aside).await?;
    Ok(())
}

/// Puts rows aside whole, with the reason why the table refuses them.
pub(super) async fn park(
    work: &mut Work<'_>,
    table: &Table,
    held: &[(&Held, &str)],
    now_ms: i64,
) -> Result<(), DbError> {
    let rows: Vec<&Held> = held.iter().map(|(held, _)| *held).collect();
    for from in ["rows", "cells", "base", "unknown"] {
        delete(work, table, from, &rows).await?;
    }
    let record = |(held, reason): &(&Held, &str)| {
        vec![
            Stored::Integer(table.id),
            Stored::Text(held.row_id.to_string()),
            Stored::Blob(held.known.encode()),
            Stored::Text((*reason).to_owned()),
            Stored::Integer(held.parked_since.unwrap_or(now_ms)),
            Stored::Integer(held.seen),
        ]
    };
    let records: Vec<_> = held.iter().map(record).collect();
    let head = "INSERT OR REPLACE INTO _lakesync_parked (tbl, row_id, row, reason, since, seen)";
    insert_rows(work.connection(), head, &records).await?;
    Ok(())
}

async fn delete(
    work: &mut Work<'_>,
    table: &Table,
    from: &str,
    rows: &[&Held],
) -> Result<(), DbError> {
    let full = chunk_rows(1);
    for chunk in rows.chunks(full) {
        let marks = vec!["?"; chunk.len()].join(",");
        let sql = format!("DELETE FROM _lakesync_{from} WHERE tbl = ? AND row_id IN ({marks})");
        let mut statement = Statement::new(sql).bind(table.id);
        chunk.iter().for_each(|held| statement.add(held.row_id.as_str()));
        let common = chunk.len() == full || chunk.len() == 1;
        let statement = if common { statement } else { statement.once() };
        statement.run(work.connection()).await?;
    }
    Ok(())
}

async fn describe(
    work: &mut Work<'_>,
    table: &Table,
    held: &Held,
    records: &mut Records,
) -> Result<(), DbError> {
    let id = || [Stored::Integer(table.id), Stored::Text(held.row_id.to_string())];
    let common = common_stamp(table, &held.known);
    let mut row: Vec<Stored> = id().into();
    row.push(Stored::Integer(i64::from(if common.is_some() { table.width() } else { 0 })));
    for stamp in [common.as_ref(), held.known.written(), held.known.deleted()] {
        row.extend(columns(work, stamp).await?);
    }
    row.push(Stored::Integer(held.seen));
    records.rows.push(row);

    if common.is_some() {
        for column in &table.columns {
            let stamp = held.known.cell(&column.name).map(|cell| &cell.stamp);
            if stamp != common.as_ref() {
                let mut cell: Vec<Stored> = id().into();
                cell.push(Stored::Integer(i64::from(column.field_id)));
                cell.extend(columns(work, stamp).await?);
                records.cells.push(cell);
            }
        }
    }
    for cell in held.known.cells() {
        let Some(Place::Aside(field_id)) = table.place(&cell.column) else { continue };
        let mut bytes = Vec::new();
        cell.value.encode(&mut bytes);
        let mut aside: Vec<Stored> = id().into();
        aside.push(Stored::Integer(i64::from(field_id)));
        aside.extend(columns(work, Some(&cell.stamp)).await?);
        aside.push(Stored::Blob(bytes));
        records.aside.push(aside);
    }
    for (field_id, value) in hidden(table, held) {
        let mut base: Vec<Stored> = id().into();
        base.extend([Stored::Integer(i64::from(field_id)), value]);
        records.base.push(base);
    }
    Ok(())
}

/// The values that unsent writes hide from the table.
fn hidden(table: &Table, held: &Held) -> Vec<(u32, Stored)> {
    if held.pending.is_empty() {
        return Vec::new();
    }
    let visible = held.visible();
    let hidden = |column: &LocalColumn| {
        let known = held.known.cell(&column.name)?;
        let shown = visible.cell(&column.name).map(|cell| &cell.stamp);
        let is_shown = visible.is_live() && shown == Some(&known.stamp);
        (!is_shown).then(|| (column.field_id, to_stored(&known.value)))
    };
    table.columns.iter().filter_map(hidden).collect()
}

/// The stamp that most cells in the table share.
fn common_stamp(table: &Table, known: &Row) -> Option<Stamp> {
    let mut counts: Vec<(&Stamp, usize)> = Vec::new();
    for cell in known.cells().iter().filter(|cell| is_local(table, &cell.column)) {
        match counts.iter_mut().find(|(stamp, _)| **stamp == cell.stamp) {
            Some((_, count)) => *count += 1,
            None => counts.push((&cell.stamp, 1)),
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(stamp, _)| stamp.clone())
}

async fn columns(work: &mut Work<'_>, stamp: Option<&Stamp>) -> Result<[Stored; 2], DbError> {
    let Some(stamp) = stamp else { return Ok([Stored::Null, Stored::Null]) };
    let number = work.number_of(&stamp.client).await?;
    Ok([Stored::Integer(to_sql(stamp.hlc)), Stored::Integer(number)])
}
