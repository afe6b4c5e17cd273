//! Checkpoints: every row anew, in chunks that survive a kill, and at the end the removal of what
//! was not among them. Unsent changes survive everything.
//!
//! If the log was replaced, what the new one lacks may be held by replicas only. Then nothing is
//! removed: it is given back.

use std::collections::BTreeMap;
use std::time::Duration;

use lakesync::name::RowId;
use lakesync::wire::Arrival;

use super::apply::{Applying, Mode};
use super::error::DbError;
use super::held::{Held, load};
use super::restore::{self, Horizon};
use super::session::Work;
use super::sql::{Statement, integer, script, text};
use super::{Applied, Ended, layout};

/// Rows looked at together for removal.
const ROWS_MAX: i64 = 5_000;

/// Begins a checkpoint, or finds the one under way: the token to resume with. `replaced` if the log
/// is another than before: how long a replica may stay away from it. That is remembered until a
/// checkpoint has ended.
pub(super) async fn begin(
    work: &mut Work<'_>,
    replaced: Option<Duration>,
) -> Result<String, DbError> {
    if let Some(offline_max) = replaced {
        restore::begin(work, offline_max).await?;
    }
    if let Some(resume) = layout::get(work.connection(), "checkpoint").await? {
        return Ok(resume);
    }
    let generation = generation(work).await? + 1;
    let connection = work.connection();
    layout::put(connection, "generation", &generation.to_string()).await?;
    layout::put(connection, "checkpoint", "").await?;
    Ok(String::new())
}

/// The number of the checkpoint under way, if one is, and if what arrives beside it says that the
/// gateway has a row. What a replaced log had, its successor may not have.
pub(super) async fn under_way(work: &mut Work<'_>) -> Result<Option<i64>, DbError> {
    let begun = layout::get(work.connection(), "checkpoint").await?.is_some();
    if !begun || restore::under_way(work).await?.is_some() {
        return Ok(None);
    }
    Ok(Some(generation(work).await?))
}

/// Applies a chunk.
pub(super) async fn chunk(
    work: &mut Work<'_>,
    arrivals: Vec<Arrival>,
    resume: &str,
) -> Result<Applied, DbError> {
    let generation = generation(work).await?;
    let horizon = restore::under_way(work).await?;
    let mut applying = Applying::begin(work).await?;
    applying.join(work, arrivals, Mode::Whole(generation, horizon)).await?;
    applying.postpone_references(work).await?;
    let applied = applying.end(work).await?;
    layout::put(work.connection(), "checkpoint", resume).await?;
    Ok(applied)
}

/// Ends a checkpoint.
pub(super) async fn end(
    work: &mut Work<'_>,
    cursor: &str,
    complete: bool,
) -> Result<Ended, DbError> {
    let generation = generation(work).await?;
    let horizon = restore::under_way(work).await?;
    let mut applying = Applying::begin(work).await?;
    let mut removed = 0;
    if complete || horizon.is_some() {
        for from in ["rows", "parked"] {
            removed += settle_unseen(work, &mut applying, from, generation, horizon).await?;
        }
    }
    applying.resume_references(work).await?;
    applying.check_references(work).await?;
    applying.retry_parked(work, true).await?;
    let applied = applying.end(work).await?;
    layout::put(work.connection(), "cursor", cursor).await?;
    layout::forget(work.connection(), "checkpoint").await?;
    layout::forget(work.connection(), "last_cursor").await?;
    Ok(Ended { applied, removed, restored: restore::end(work).await? })
}

/// Settles rows that the checkpoint did not contain: they are given back if there is a `horizon`,
/// and removed if not. Rows of tables that the gateway does not declare are never removed. How many
/// rows left their tables.
async fn settle_unseen(
    work: &mut Work<'_>,
    applying: &mut Applying,
    from: &str,
    generation: i64,
    horizon: Option<Horizon>,
) -> Result<usize, DbError> {
    let mut removed = 0;
    let (mut table, mut row_id) = (0, String::new());
    loop {
        let sql = format!(
            "SELECT tbl, row_id FROM _lakesync_{from} \
             WHERE (tbl, row_id) > (?, ?) AND seen <> ? ORDER BY tbl, row_id LIMIT ?"
        );
        let statement = Statement::new(sql).bind(table).bind(row_id.as_str());
        let rows = statement.bind(generation).bind(ROWS_MAX).rows(work.connection()).await?;
        let mut by_table: BTreeMap<i64, Vec<RowId>> = BTreeMap::new();
        for row in &rows {
            (table, row_id) = (integer(row, 0)?, text(row, 1)?);
            let Ok(row_id) = RowId::parse(&row_id) else { continue };
            by_table.entry(table).or_default().push(row_id);
        }
        for (id, row_ids) in by_table {
            let Some(table) = work.registry.by_id(id).cloned() else { continue };
            if horizon.is_none() && !work.registry.is_declared(id) {
                continue;
            }
            let mut held = load(work, &table, &row_ids).await?;
            let before: Vec<_> =
                held.iter_mut().map(|held| std::mem::take(&mut held.known)).enumerate().collect();
            if let Some(horizon) = horizon {
                restore::queue(work, &table, &mut held, &before, horizon).await?;
                held.iter_mut().for_each(|held| held.seen = generation);
            }
            let leaves = |held: &&Held| held.image.is_some() && !held.visible().is_live();
            removed += held.iter().filter(leaves).count();
            applying.finish(work, &table, held).await?;
        }
        if rows.len() < ROWS_MAX as usize {
            return Ok(removed);
        }
    }
}

/// Forgets a checkpoint under way.
pub(super) async fn abandon(work: &mut Work<'_>) -> Result<(), DbError> {
    script(work.connection(), "DELETE FROM _lakesync_unchecked").await?;
    Ok(layout::forget(work.connection(), "checkpoint").await?)
}

async fn generation(work: &mut Work<'_>) -> Result<i64, DbError> {
    let text = layout::get(work.connection(), "generation").await?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}
