//! Giving back to a gateway what it has lost: its log was replaced by an older copy or a new one,
//! and what it once had acknowledged may be held by replicas only.
//!
//! What is known here and newer than what the gateway has now is queued again. It keeps its values
//! and its clock readings, so that several replicas which do the same agree on the last writer; only
//! the client of the stamps is this one. Nothing of it is an edit of now.

use std::collections::BTreeMap;
use std::time::Duration;

use lakesync::delta::Delta;
use lakesync::hlc::Hlc;
use lakesync::row::{Row, StampedCell};

use super::convert::to_stored;
use super::error::DbError;
use super::held::{Held, Pending, op};
use super::layout::{self, OP_RESTORED, OP_RESTORED_DELETE};
use super::session::{Work, to_sql};
use super::sql::{Statement, Stored, insert_rows, integer};
use super::table::Table;

/// Counts the rows queued again. It stands in `_lakesync_meta` while a checkpoint of a replaced log
/// has not ended, however often it is resumed.
const MARK: &str = "restored";
/// How long a replica may stay away by the gateway's word, in milliseconds, beside the mark.
const OFFLINE_MAX: &str = "restored_offline_max";
/// What the oldest stamp stays away from the bound, so that it can still be sent.
const MARGIN_MS: u64 = 24 * 60 * 60 * 1_000;

/// What the gateway lacks of a row: its cells by clock reading. A reading without cells says that
/// the row exists.
struct Lack<'a> {
    deleted: Option<Hlc>,
    written: BTreeMap<Hlc, Vec<&'a StampedCell>>,
}

/// A change that gives something back.
struct Change<'a> {
    hlc: Hlc,
    /// As `_lakesync_outbox.op`.
    kind: i64,
    cells: Vec<&'a StampedCell>,
}

/// The clock reading before which changes are no longer taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Horizon(Hlc);

impl Horizon {
    /// The horizon at the server's time `now_ms`.
    fn at(now_ms: i64, offline_max_ms: u64) -> Self {
        let kept = offline_max_ms.saturating_sub(MARGIN_MS);
        Self(Hlc::from_ms(u64::try_from(now_ms).unwrap_or(0).saturating_sub(kept)))
    }

    /// The reading to send for `hlc`. Readings from before the horizon come to lie behind it, in
    /// their order.
    fn admit(self, hlc: Hlc) -> Hlc {
        // All readings of this age shrink to less than a day, which is the margin.
        const SHRINK_BITS: u32 = 15;
        hlc.max(Hlc(self.0.0 + (hlc.0 >> SHRINK_BITS)))
    }
}

/// Remembers that the log was replaced, until a checkpoint of its successor has ended.
pub(super) async fn begin(work: &mut Work<'_>, offline_max: Duration) -> Result<(), DbError> {
    let offline_max = offline_max.as_millis().to_string();
    layout::put(work.connection(), OFFLINE_MAX, &offline_max).await?;
    if layout::get(work.connection(), MARK).await?.is_none() {
        layout::put(work.connection(), MARK, "0").await?;
    }
    Ok(())
}

/// Whether the log was replaced and the checkpoint of its successor has not ended: the horizon then.
pub(super) async fn under_way(work: &mut Work<'_>) -> Result<Option<Horizon>, DbError> {
    if layout::get(work.connection(), MARK).await?.is_none() {
        return Ok(None);
    }
    let offline_max = layout::get(work.connection(), OFFLINE_MAX).await?;
    let offline_max_ms = offline_max.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    let sql = format!("SELECT {} + offset_ms FROM _lakesync_clock", layout::NOW_MS);
    let row = Statement::new(sql).row(work.connection()).await?;
    let now_ms = row.map_or(Ok(0), |row| integer(&row, 0))?;
    Ok(Some(Horizon::at(now_ms, offline_max_ms)))
}

/// Notes that the checkpoint has ended. How many rows were queued again, in all of its parts.
pub(super) async fn end(work: &mut Work<'_>) -> Result<usize, DbError> {
    let count = layout::get(work.connection(), MARK).await?;
    layout::forget(work.connection(), MARK).await?;
    layout::forget(work.connection(), OFFLINE_MAX).await?;
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

/// Queues again what was known of rows and is newer than what is known of them now: `before` says
/// what it was, by index.
pub(super) async fn queue(
    work: &mut Work<'_>,
    table: &Table,
    held: &mut [Held],
    before: &[(usize, Row)],
    horizon: Horizon,
) -> Result<(), DbError> {
    let mut given = Vec::new();
    let mut rows: i64 = 0;
    for (at, before) in before {
        let changes = changes(lack(before, &held[*at].known), horizon);
        rows += i64::from(!changes.is_empty());
        given.extend(changes.into_iter().map(|change| (*at, change)));
    }
    if given.is_empty() {
        return Ok(());
    }
    let mut seq = reserve(work, given.len()).await?;
    let (mut entries, mut cells) = (Vec::new(), Vec::new());
    for (at, change) in given {
        seq += 1;
        let pending = change.pending(work, table, &held[at], seq)?;
        entries.push(vec![
            Stored::Integer(seq),
            Stored::Integer(table.id),
            Stored::Text(held[at].row_id.to_string()),
            Stored::Integer(to_sql(change.hlc)),
            Stored::Integer(change.kind),
        ]);
        let cell = |(column, value): (&u32, &Stored)| {
            vec![Stored::Integer(seq), Stored::Integer(i64::from(*column)), value.clone()]
        };
        cells.extend(pending.raw.iter().map(cell));
        held[at].pending.push(pending);
    }
    let head = "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op)";
    insert_rows(work.connection(), head, &entries).await?;
    let head = "INSERT INTO _lakesync_outbox_cells (seq, col, value)";
    insert_rows(work.connection(), head, &cells).await?;
    let sql = "UPDATE _lakesync_meta SET value = CAST(value + ? AS TEXT) WHERE key = ?";
    Statement::new(sql).bind(rows).bind(MARK).run(work.connection()).await?;
    Ok(())
}

/// What `now` lacks of `before`.
fn lack<'a>(before: &'a Row, now: &Row) -> Lack<'a> {
    let deleted = before.deleted().filter(|deleted| now.deleted() < Some(*deleted));
    let mut written: BTreeMap<Hlc, Vec<&StampedCell>> = BTreeMap::new();
    for cell in before.cells() {
        let other = now.cell(&cell.column);
        let older = other.is_none_or(|other| other.stamp < cell.stamp);
        // Another replica may have given it back under its own name.
        let same =
            |other: &StampedCell| other.stamp.hlc == cell.stamp.hlc && other.value == cell.value;
        if older && now.deleted() < Some(&cell.stamp) && !other.is_some_and(same) {
            written.entry(cell.stamp.hlc).or_default().push(cell);
        }
    }
    let reading = now.written().map(|stamp| stamp.hlc);
    let exists = before.written().filter(|stamp| before.is_live() && reading < Some(stamp.hlc));
    if let Some(stamp) = exists.filter(|stamp| now.deleted() < Some(*stamp)) {
        written.entry(stamp.hlc).or_default();
    }
    Lack { deleted: deleted.map(|stamp| stamp.hlc), written }
}

/// The changes that bring what is lacking, each newer than the one before it: a write of the same
/// reading as its row's delete would be hidden by it.
fn changes(lack: Lack<'_>, horizon: Horizon) -> Vec<Change<'_>> {
    let deleted = lack.deleted.map(|hlc| (hlc, OP_RESTORED_DELETE, Vec::new()));
    let written = lack.written.into_iter().map(|(hlc, cells)| (hlc, OP_RESTORED, cells));
    let mut last = Hlc::default();
    let change = |(hlc, kind, cells)| {
        last = horizon.admit(hlc).max(Hlc(last.0 + 1));
        Change { hlc: last, kind, cells }
    };
    deleted.into_iter().chain(written).map(change).collect()
}

impl Change<'_> {
    /// The change as it is held unsent.
    fn pending(
        &self,
        work: &Work<'_>,
        table: &Table,
        held: &Held,
        seq: i64,
    ) -> Result<Pending, DbError> {
        let raw = |cell: &&StampedCell| {
            let column = table.schema.column(&cell.column)?;
            Some((column.field_id, to_stored(&cell.value)))
        };
        let raw = self.cells.iter().filter_map(raw).collect();
        let stamp = work.clients.own(self.hlc)?;
        let op = op(table, self.kind, &raw);
        let (table, row_id) = (table.name().clone(), held.row_id.clone());
        Ok(Pending { seq, delta: Delta { table, row_id, stamp, op }, raw })
    }
}

/// Reserves numbers for so many unsent changes. The last number before them.
async fn reserve(work: &mut Work<'_>, count: usize) -> Result<i64, DbError> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let sql = "UPDATE _lakesync_clock SET seq = seq + ?1 WHERE id = 1 RETURNING seq - ?1";
    let row = Statement::new(sql).bind(count).row(work.connection()).await?;
    Ok(row.map_or(Ok(0), |row| integer(&row, 0))?)
}

#[cfg(test)]
mod tests;
