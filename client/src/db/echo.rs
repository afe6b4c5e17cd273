//! Echoes: what triggers of the application do to synced tables while remote rows are applied. Where
//! the rows come from, the same triggers have done their work, and it was sent. What they do here as
//! well is nobody's edit, and would leave every replica with other rows, so it is undone. What they
//! do to other tables, such as a full-text index, stays.
//!
//! While rows are applied, triggers of ours note each row that anybody writes, as it was before. Rows
//! that LakeSync wrote are to show what it wrote; the others, what they were.

use std::collections::{BTreeMap, HashMap};

use lakesync::name::RowId;
use sqlx::SqliteConnection;

use super::error::DbError;
use super::held::{Held, Wish, load};
use super::session::Work;
use super::show::{self, Refusal};
use super::sql::{Statement, Stored, integer, quoted, script, stored, text};
use super::table::{Registry, Table};

mod writers;

/// Times that rows are put back while the triggers which changed them go on doing so.
const LOUD_MAX: usize = 3;
/// Times that rows are put back without those triggers. What they do was the last of it.
const QUIET_MAX: usize = 2;

/// What a row is to show: nothing, or these values.
type Image = Option<Vec<Stored>>;

/// Rows by table and id.
type Images = BTreeMap<(i64, RowId), Image>;

/// Whether the application has triggers at all.
pub(super) async fn has_sources(connection: &mut SqliteConnection) -> Result<bool, DbError> {
    Ok(!sources(connection).await?.is_empty())
}

/// Undoes what triggers did since the last time. `held` says what LakeSync has made `table` show;
/// those `refused` are in no table.
pub(super) async fn undo(
    work: &mut Work<'_>,
    table: &Table,
    held: &[Held],
    refused: &[Refusal],
) -> Result<(), DbError> {
    if !work.registry.noting {
        return Ok(());
    }
    let written: HashMap<&RowId, Option<&Held>> = held
        .iter()
        .enumerate()
        .map(|(at, held)| {
            let is_refused = refused.iter().any(|(other, _)| *other == at);
            (&held.row_id, (!is_refused).then_some(held))
        })
        .collect();
    let mut wanted = Images::new();
    let mut silenced = Vec::new();
    for round in 0..LOUD_MAX + QUIET_MAX {
        let mut noted = take(work).await?;
        // Where the row of a refused one is, nobody can say: it is tried again as it is.
        noted.retain(|(id, row_id), image| {
            if *id == table.id
                && let Some(held) = written.get(row_id)
            {
                *image = held.and_then(|held| held.image.clone());
                return held.is_some();
            }
            true
        });
        let rows: Vec<_> = noted.keys().cloned().collect();
        // A row that is put back is noted again, as what it was put back from.
        noted.append(&mut wanted);
        wanted = noted;
        if round == LOUD_MAX {
            silenced = silence(work).await?;
        }
        if !put_back(work, &wanted, rows).await? {
            break;
        }
    }
    for sql in silenced {
        script(work.connection(), sql).await?;
    }
    // What the last of it noted is the putting back itself.
    take(work).await?;
    Ok(())
}

/// Makes these rows show what is wanted of them. Whether any had to be changed.
async fn put_back(
    work: &mut Work<'_>,
    wanted: &Images,
    rows: Vec<(i64, RowId)>,
) -> Result<bool, DbError> {
    let mut by_table: BTreeMap<i64, Vec<RowId>> = BTreeMap::new();
    for (id, row_id) in rows {
        by_table.entry(id).or_default().push(row_id);
    }
    let mut changed = false;
    for (id, row_ids) in by_table {
        let Some(table) = work.registry.by_id(id).cloned() else { continue };
        let mut held = load(work, &table, &row_ids).await?;
        let desired = held.iter().map(|held| {
            let image = wanted.get(&(id, held.row_id.clone())).cloned().flatten();
            image.map(|values| values.into_iter().map(Wish::Value).collect())
        });
        let desired = desired.collect();
        changed |= !show::write(work, &table, &mut held, desired).await?.changed.is_empty();
    }
    Ok(changed)
}

/// Takes the notes: rows as they were, or `None` for those that were not there.
async fn take(work: &mut Work<'_>) -> Result<Images, DbError> {
    let sql = "DELETE FROM _lakesync_touched RETURNING tbl, row_id, born";
    let notes = Statement::new(sql).rows(work.connection()).await?;
    if notes.is_empty() {
        return Ok(Images::new());
    }
    let mut images = Images::new();
    for note in notes {
        let (id, born) = (integer(&note, 0)?, integer(&note, 2)? != 0);
        let Some(table) = work.registry.by_id(id) else { continue };
        let Ok(row_id) = RowId::parse(&text(&note, 1)?) else { continue };
        let image = (!born).then(|| vec![Stored::Null; table.columns.len()]);
        images.insert((id, row_id), image);
    }
    let sql = "DELETE FROM _lakesync_touched_cells RETURNING tbl, row_id, col, value";
    for cell in Statement::new(sql).rows(work.connection()).await? {
        let id = integer(&cell, 0)?;
        let place = column_place(&work.registry, id, integer(&cell, 2)?);
        let (Ok(row_id), Some(place)) = (RowId::parse(&text(&cell, 1)?), place) else { continue };
        if let Some(Some(image)) = images.get_mut(&(id, row_id)) {
            image[place] = stored(&cell, 3)?;
        }
    }
    Ok(images)
}

fn column_place(registry: &Registry, id: i64, field_id: i64) -> Option<usize> {
    let columns = &registry.by_id(id)?.columns;
    columns.iter().position(|column| i64::from(column.field_id) == field_id)
}

/// Drops the triggers that write synced tables: they undo their being undone. What makes them again.
async fn silence(work: &mut Work<'_>) -> Result<Vec<String>, DbError> {
    let mut silenced = Vec::new();
    for (name, sql) in sources(work.connection()).await? {
        let is_synced = |table: &str| {
            let captured = work.registry.captured().iter();
            captured.into_iter().any(|known| known.shape.name.eq_ignore_ascii_case(table))
        };
        if writers::written(&sql).iter().any(|table| is_synced(table)) {
            script(work.connection(), format!("DROP TRIGGER {}", quoted(&name))).await?;
            silenced.push(sql);
        }
    }
    Ok(silenced)
}

/// The triggers of the application: names, and the statements that make them.
async fn sources(connection: &mut SqliteConnection) -> Result<Vec<(String, String)>, DbError> {
    let sql = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' \
               AND lower(substr(name, 1, 10)) <> '_lakesync_'";
    let rows = Statement::new(sql).rows(connection).await?;
    let pairs = rows.iter().map(|row| Ok((text(row, 0)?, text(row, 1)?)));
    Ok(pairs.collect::<Result<_, sqlx::Error>>()?)
}
