//! Unsent changes, taken in batches. A push is one commit, so a batch ends where a transaction did
//! if that can be known, and what is overwritten within a batch is left out of it.
//!
//! A batch has a target that suits the line, and hard limits that suit a message. It ends at the last
//! known boundary within the target; where there is none, at the first one beyond it: a transaction
//! is not split for being larger than the target. Only one that a message can't hold is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lakesync::delta::{Delta, Op};
use lakesync::error::Reason;
use lakesync::limits::{PUSH_ROWS_MAX, ROW_BYTES_MAX};
use lakesync::name::RowId;
use lakesync::stamp::Stamp;

use super::Rejected;
use super::error::DbError;
use super::held::{load, op, read_cells};
use super::layout::{OP_DELETE, OWN_CLIENT, is_restored};
use super::rejected::{self, Refused};
use super::session::Work;
use super::sql::{Statement, Stored, integer, script, text};
use super::table::Table;

/// About the size of the largest push: below what a message may have, with room for its frame.
pub(crate) const PUSH_BYTES_MAX: usize = 7 << 19;
/// A pause between two changes that is longer than this parts two transactions, most likely.
const CLEAR_PAUSE_MS: u64 = 1_000;
/// Rows read at once.
const WINDOW_ROWS: i64 = 500;
/// What a change costs beside its cells.
const CHANGE_BYTES: usize = 24;

/// How much to take at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// The most changes.
    pub(crate) rows_max: usize,
    /// About how many bytes; more where a transaction is larger.
    pub(crate) bytes_target: usize,
}

/// Unsent changes, taken together: one push, one commit.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The changes in the order they were made. Empty if all were refused right here: settle the
    /// batch without sending it.
    pub(crate) deltas: Vec<Delta>,
    /// About how large the push will be.
    pub(crate) bytes: usize,
    /// What stands in the outbox for them.
    pub(super) entries: Vec<Entry>,
    /// Changes that were refused before leaving.
    pub(super) refused: Vec<Rejected>,
}

/// A change in the outbox.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) seq: i64,
    pub(super) table: Arc<Table>,
    pub(super) row_id: RowId,
    pub(super) stamp: Stamp,
    pub(super) op: i64,
    pub(super) raw: HashMap<u32, Stored>,
    /// Its place in the batch's deltas; `None` if others cover all of it.
    pub(super) delta: Option<usize>,
    /// Cells that later changes of the batch overwrite: the column, and the entry that does.
    pub(super) covered: Vec<(u32, usize)>,
    /// Whether others cover all of it.
    needless: bool,
    bytes: usize,
}

/// The next changes to push: what `share` says, and no more than a message holds. Those whose numbers
/// are in `waiting`, which is sorted, are passed over.
pub(super) async fn take(
    work: &mut Work<'_>,
    share: Share,
    waiting: &[i64],
) -> Result<Option<Batch>, DbError> {
    let connection = work.connection();
    // The transaction under way stands between those of the application: a boundary for sure.
    let mark = "INSERT OR IGNORE INTO _lakesync_marks (seq) SELECT c.seq FROM _lakesync_clock c \
                WHERE EXISTS (SELECT 1 FROM _lakesync_outbox)";
    script(connection, mark).await?;
    let mut reader = Reader { work, after: 0, waiting, refused: Vec::new() };
    let rows_max = share.rows_max.clamp(1, PUSH_ROWS_MAX);
    let mut entries = reader.read(Share { rows_max, ..share }).await?;
    let refused = reader.refused;
    if entries.is_empty() && refused.is_empty() {
        // Statements that were ignored in the end may have saved values that nothing hides.
        let idle = "DELETE FROM _lakesync_base WHERE NOT EXISTS (SELECT 1 FROM _lakesync_outbox)";
        script(work.connection(), idle).await?;
        return Ok(None);
    }
    let brief = brief_rows(work, &entries).await?;
    coalesce(&mut entries, &brief);
    let mut batch = Batch { deltas: Vec::new(), bytes: 0, entries, refused };
    for entry in &mut batch.entries {
        let Some(delta) = entry.remaining() else { continue };
        entry.delta = Some(batch.deltas.len());
        batch.bytes += bytes_of(&delta);
        batch.deltas.push(delta);
    }
    Ok(Some(batch))
}

struct Reader<'a, 'w> {
    work: &'a mut Work<'w>,
    after: i64,
    waiting: &'a [i64],
    refused: Vec<Rejected>,
}

impl Reader<'_, '_> {
    /// Reads entries until they are enough for a push.
    async fn read(&mut self, share: Share) -> Result<Vec<Entry>, DbError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        // Once the target is passed: how many entries are within it, and the boundary to reach.
        let mut beyond: Option<(usize, Option<i64>)> = None;
        loop {
            let window = self.window().await?;
            if window.is_empty() {
                return Ok(entries);
            }
            for entry in window.into_iter().flatten() {
                bytes += entry.bytes;
                let full = entries.len() == share.rows_max || PUSH_BYTES_MAX < bytes;
                if let (Some(first), Some(last)) = (entries.first(), entries.last())
                    && (full || share.bytes_target < bytes)
                {
                    let (within, boundary) = match beyond {
                        Some(found) => found,
                        None => {
                            if let Some(mark) = self.last_mark(first.seq, last.seq).await? {
                                entries.truncate(entries.partition_point(|one| one.seq <= mark));
                                return Ok(entries);
                            }
                            (entries.len(), self.next_mark(last.seq).await?)
                        }
                    };
                    beyond = Some((within, boundary));
                    if boundary.is_some_and(|boundary| boundary < entry.seq) {
                        return Ok(entries);
                    }
                    if full {
                        entries.truncate(likely_boundary(&entries, within, share.bytes_target));
                        return Ok(entries);
                    }
                }
                entries.push(entry);
            }
        }
    }

    /// The last known boundary from one entry to another.
    async fn last_mark(&mut self, first: i64, last: i64) -> Result<Option<i64>, DbError> {
        let sql = "SELECT max(seq) FROM _lakesync_marks WHERE seq BETWEEN ? AND ?";
        self.mark(Statement::new(sql).bind(first).bind(last)).await
    }

    /// The first known boundary after an entry.
    async fn next_mark(&mut self, after: i64) -> Result<Option<i64>, DbError> {
        let sql = "SELECT min(seq) FROM _lakesync_marks WHERE ? < seq";
        self.mark(Statement::new(sql).bind(after)).await
    }

    async fn mark(&mut self, statement: Statement) -> Result<Option<i64>, DbError> {
        let row = statement.row(self.work.connection()).await?;
        let seq = row.map_or(Ok(0), |row| integer(&row, 0))?;
        Ok((seq != 0).then_some(seq))
    }

    /// The next rows of the outbox. Those that can't travel are refused on the spot.
    async fn window(&mut self) -> Result<Vec<Option<Entry>>, DbError> {
        let ids: Vec<String> =
            self.work.registry.sent().map(|table| table.id.to_string()).collect();
        // Changes of a table that is not captured at the moment, or that the gateway lacks, wait
        // until it is.
        let sql = format!(
            "SELECT seq, tbl, row_id, hlc, op FROM _lakesync_outbox \
             WHERE seq > ? AND tbl IN ({}) ORDER BY seq LIMIT ?",
            ids.join(",")
        );
        let statement = Statement::new(sql).bind(self.after).bind(WINDOW_ROWS);
        let rows = statement.rows(self.work.connection()).await?;
        let mut cells = read_cells(self.work, &rows, 0).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let (seq, table) = (integer(&row, 0)?, integer(&row, 1)?);
            self.after = seq;
            if self.waiting.binary_search(&seq).is_ok() {
                entries.push(None);
                continue;
            }
            let refused = Refused {
                seq,
                table,
                row_id: text(&row, 2)?,
                op: integer(&row, 4)?,
                cells: cells.remove(&seq).unwrap_or_default(),
            };
            entries.push(self.entry(refused, integer(&row, 3)?).await?);
        }
        Ok(entries)
    }

    async fn entry(&mut self, found: Refused, hlc: i64) -> Result<Option<Entry>, DbError> {
        let Some(table) = self.work.registry.by_id(found.table).cloned() else { return Ok(None) };
        let stamp = self.work.clients.stamp(Some(hlc), OWN_CLIENT)?;
        let garbled = found.cells.values().any(|value| matches!(value, Stored::Garbled(_)));
        let (row_id, stamp) = match (RowId::parse(&found.row_id), stamp) {
            (Ok(row_id), Some(stamp)) if !garbled => (row_id, stamp),
            (Err(error), _) => return self.refuse(found, error.to_string()).await,
            _ => return self.refuse(found, "a text is not UTF-8".to_owned()).await,
        };
        let op = op(&table, found.op, &found.cells);
        let change = Delta { table: table.name().clone(), row_id: row_id.clone(), stamp, op };
        let bytes = bytes_of(&change);
        if ROW_BYTES_MAX < bytes {
            let message = format!("the change has {bytes} bytes; the limit is {ROW_BYTES_MAX}");
            return self.refuse_as(found, Reason::TooLarge, message).await;
        }
        Ok(Some(Entry {
            seq: found.seq,
            table,
            row_id,
            stamp: change.stamp,
            op: found.op,
            raw: found.cells,
            delta: None,
            covered: Vec::new(),
            needless: false,
            bytes,
        }))
    }

    async fn refuse(&mut self, found: Refused, message: String) -> Result<Option<Entry>, DbError> {
        self.refuse_as(found, Reason::InvalidRequest, message).await
    }

    /// Refuses a change before it leaves. What the table shows stays: nobody else has seen it.
    async fn refuse_as(
        &mut self,
        found: Refused,
        reason: Reason,
        message: String,
    ) -> Result<Option<Entry>, DbError> {
        let rejected = rejected::put(self.work, &found, reason.as_str(), &message).await?;
        rejected::remove_from_outbox(self.work, &[found.seq]).await?;
        self.refused.push(rejected);
        Ok(None)
    }
}

impl Entry {
    /// What is left of the change to send; `None` if later ones cover all of it.
    fn remaining(&self) -> Option<Delta> {
        if self.needless {
            return None;
        }
        let mut raw = self.raw.clone();
        self.covered.iter().for_each(|(column, _)| _ = raw.remove(column));
        let op = op(&self.table, self.op, &raw);
        let (table, row_id) = (self.table.name().clone(), self.row_id.clone());
        Some(Delta { table, row_id, stamp: self.stamp.clone(), op })
    }
}

/// How many of the entries to send, where no boundary is known and more wait than a message holds.
/// Transactions are short and the time between them is not: the last clear pause within the target
/// is taken for a boundary, else the first one beyond it. `within` entries are within the target.
fn likely_boundary(entries: &[Entry], within: usize, bytes_target: usize) -> usize {
    let pause =
        |at: &usize| entries[*at].stamp.hlc.ms().saturating_sub(entries[*at - 1].stamp.hlc.ms());
    let mut bytes = 0;
    let small = |entry: &&Entry| {
        bytes += entry.bytes;
        bytes < bytes_target / 2
    };
    // A batch of a few changes would be a waste of a round trip.
    let half = entries.iter().take_while(small).count().min(entries.len().div_ceil(2));
    let from = half.clamp(1, within);
    let longest = (from..entries.len()).map(|at| pause(&at)).max().unwrap_or(0);
    let clear = longest.div_ceil(2).clamp(1, CLEAR_PAUSE_MS);
    let is_clear = |at: &usize| clear <= pause(at);
    let likely = (from..within).rfind(is_clear);
    likely.or_else(|| (within..entries.len()).find(is_clear)).unwrap_or(within)
}

/// A row, by its table.
type Name = (i64, RowId);

/// The rows that the batch makes and deletes: nobody but us knows of any that is there.
async fn brief_rows(work: &mut Work<'_>, entries: &[Entry]) -> Result<HashSet<Name>, DbError> {
    let (mut written, mut tables) = (HashSet::new(), HashMap::new());
    for entry in entries {
        if entry.op != OP_DELETE {
            written.insert((entry.table.id, &entry.row_id));
        } else if written.contains(&(entry.table.id, &entry.row_id)) {
            let fresh = || (Arc::clone(&entry.table), Vec::new());
            tables.entry(entry.table.id).or_insert_with(fresh).1.push(entry.row_id.clone());
        }
    }
    let mut brief = HashSet::new();
    for (table, row_ids) in tables.into_values() {
        let held = load(work, &table, &row_ids).await?;
        let unknown = held.into_iter().filter(|held| !held.known.is_live());
        brief.extend(unknown.map(|held| (table.id, held.row_id)));
    }
    Ok(brief)
}

/// Leaves out of each upsert what later changes of the same row in the batch overwrite. What a
/// `brief` row was is sent before its delete: under sync rules the gateway judges by it who may delete
/// the row, and for whom.
fn coalesce(entries: &mut [Entry], brief: &HashSet<Name>) {
    /// What the later changes of a row do.
    #[derive(Default)]
    struct Later {
        written: HashMap<u32, usize>,
        deleted: Option<usize>,
    }
    let mut later: HashMap<Name, Later> = HashMap::new();
    for at in (0..entries.len()).rev() {
        let entry = &mut entries[at];
        // What is given back has stamps of its own, and is not older for standing further ahead.
        if is_restored(entry.op) {
            continue;
        }
        let name = (entry.table.id, entry.row_id.clone());
        let hides = !brief.contains(&name);
        let followed = later.contains_key(&name);
        let later = later.entry(name).or_default();
        if entry.op == OP_DELETE {
            *later = Later { written: HashMap::new(), deleted: hides.then_some(at) };
            continue;
        }
        for column in entry.raw.keys() {
            match later.deleted.or_else(|| later.written.get(column).copied()) {
                Some(by) => entry.covered.push((*column, by)),
                None => _ = later.written.insert(*column, at),
            }
        }
        // A change that never had cells says that its row exists, and is always sent.
        let empty = entry.covered.len() == entry.raw.len();
        entry.needless = followed && empty && !entry.raw.is_empty();
    }
}

/// About how many bytes a change takes on the wire and in the store.
fn bytes_of(delta: &Delta) -> usize {
    let cells = match &delta.op {
        Op::Delete => 0,
        Op::Upsert(cells) => cells.iter().map(|cell| 8 + cell.value.size()).sum(),
    };
    CHANGE_BYTES + delta.row_id.as_str().len() + cells
}
