//! Taking the answer to a push. What was accepted is known from now on; what lost falls back to
//! what the gateway has; what was refused is kept aside with its reason.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use lakesync::delta::{Delta, Op};
use lakesync::error::Reason;
use lakesync::name::{ColumnName, RowId};
use lakesync::proto::v1::Outcome;
use lakesync::proto::v1::outcome::Kind;
use lakesync::row::Row;

use super::apply::Applying;
use super::error::DbError;
use super::held::load;
use super::layout::{OP_ADOPTED, OP_RESTORED_DELETE, is_restored};
use super::outbox::{Batch, Entry};
use super::rejected::{self, Refused};
use super::session::Work;
use super::sql::{Statement, chunk_rows};
use super::table::Table;
use super::{Settled, Superseded, checkpoint, ranges};

const OUT_OF_SCOPE: &str = Reason::OutOfScope.as_str();
/// The reason of a superseded change that had been pushed before.
const REPLAYED: &str = "REPLAYED";

/// What the gateway made of one change.
#[derive(Clone, Debug)]
enum Verdict {
    Accepted,
    /// These columns lost; all of them if none are named.
    Superseded(Vec<ColumnName>),
    Rejected {
        reason: String,
        message: String,
    },
    /// To be stamped again and pushed again.
    Drifted,
}

impl Verdict {
    fn is_final(&self) -> bool {
        matches!(self, Self::Accepted | Self::Superseded(_))
    }
}

/// Settles a batch.
pub(super) async fn settle(
    work: &mut Work<'_>,
    batch: Batch,
    outcomes: &[Outcome],
) -> Result<Settled, DbError> {
    let verdicts = verdicts(&batch.deltas, outcomes)?;
    let mut applying = Applying::begin(work).await?;
    let judged = judge(work, &batch, &verdicts).await?;
    let settled = judged.apply(work, &batch, &mut applying).await?;
    applying.check_references(work).await?;
    applying.end(work).await?;
    Ok(settled)
}

/// What an answer comes to.
#[derive(Default)]
struct Judged {
    settled: Settled,
    /// The rows that it concerns, by table.
    rows: BTreeMap<i64, Rows>,
    /// Changes that are done with.
    finished: Vec<i64>,
    /// Changes of which these columns are left to be sent.
    trimmed: Vec<(i64, Vec<u32>)>,
    /// Rows that were to be given back, and which the gateway does not take.
    not_taken: HashSet<(i64, RowId)>,
}

/// What the verdicts mean for each change. Those that were refused are kept aside.
async fn judge(
    work: &mut Work<'_>,
    batch: &Batch,
    verdicts: &[Verdict],
) -> Result<Judged, DbError> {
    let mut judged = Judged::default();
    judged.settled.rejected.clone_from(&batch.refused);
    let standing = standing(work, &batch.entries).await?;
    let is_taken =
        |entry: &&Entry| entry.delta.is_some_and(|at| matches!(verdicts[at], Verdict::Accepted));
    let taken = batch.entries.iter().filter(is_taken);
    let taken: HashSet<_> = taken.map(|entry| (entry.table.id, &entry.row_id)).collect();
    for entry in &batch.entries {
        let verdict = entry.delta.map(|at| &verdicts[at]);
        let change = entry.delta.map(|at| &batch.deltas[at]);
        // A change that was stamped again meanwhile stays; the gateway has the older one.
        let stands = standing.contains(&entry.seq);
        match (verdict, change) {
            (Some(Verdict::Accepted), Some(delta)) if !stands => {
                judged.touch(entry).push(delta.clone());
                continue;
            }
            _ if !stands => continue,
            (Some(Verdict::Drifted), _) => {
                judged.settled.drifted.push(entry.seq);
                continue;
            }
            // By what was taken of it the row may have come into scope: it is asked once more.
            (Some(Verdict::Rejected { reason, .. }), _)
                if reason == OUT_OF_SCOPE && taken.contains(&(entry.table.id, &entry.row_id)) =>
            {
                continue;
            }
            (Some(Verdict::Rejected { reason, message }), _) => {
                judged.reject(work, entry, reason, message).await?;
                continue;
            }
            (Some(Verdict::Accepted), Some(delta)) => {
                judged.settled.accepted += 1;
                judged.touch(entry).push(delta.clone());
            }
            (Some(Verdict::Superseded(lost)), Some(delta)) => {
                let (winner, event) = superseded(delta, lost);
                // That another was faster to give something back is no news of an edit.
                match is_restored(entry.op) {
                    true => judged.settled.outrun = true,
                    false => judged.settled.superseded.push(event),
                }
                judged.touch(entry).extend(winner);
            }
            _ => _ = judged.touch(entry),
        }
        match uncovered(entry, &batch.entries, verdicts) {
            columns if columns.is_empty() => judged.finished.push(entry.seq),
            columns => judged.trimmed.push((entry.seq, columns)),
        }
    }
    Ok(judged)
}

impl Judged {
    /// What was accepted of the row of this change, which the answer concerns.
    fn touch(&mut self, entry: &Entry) -> &mut Vec<Delta> {
        let fresh = || (Arc::clone(&entry.table), HashMap::new(), Vec::new());
        let (_, deltas, order) = self.rows.entry(entry.table.id).or_insert_with(fresh);
        deltas.entry(entry.row_id.clone()).or_insert_with(|| {
            order.push(entry.row_id.clone());
            Vec::new()
        })
    }

    async fn reject(
        &mut self,
        work: &mut Work<'_>,
        entry: &Entry,
        reason: &str,
        message: &str,
    ) -> Result<(), DbError> {
        // What the gateway lost of a delete is nothing that anybody could mend.
        if entry.op != OP_RESTORED_DELETE || reason != OUT_OF_SCOPE {
            let kept = rejected::put(work, &refused(entry), reason, message).await?;
            self.settled.rejected.push(kept);
        }
        self.finished.push(entry.seq);
        if is_restored(entry.op) {
            self.not_taken.insert((entry.table.id, entry.row_id.clone()));
        }
        if entry.op != OP_ADOPTED {
            self.touch(entry);
        }
        Ok(())
    }

    /// Takes out of the outbox what is done with, and shows the rows as they are now.
    async fn apply(
        self,
        work: &mut Work<'_>,
        batch: &Batch,
        applying: &mut Applying,
    ) -> Result<Settled, DbError> {
        let Self { settled, rows, finished, trimmed, not_taken } = self;
        let seen = checkpoint::under_way(work).await?;
        // What the rows showed is looked up before the outbox forgets why.
        let mut loaded = Vec::new();
        for (table, deltas, row_ids) in rows.into_values() {
            loaded.push((load(work, &table, &row_ids).await?, table, deltas));
        }
        rejected::remove_from_outbox(work, &finished).await?;
        for (seq, columns) in &trimmed {
            trim(work, *seq, columns).await?;
        }
        forget_marks(work).await?;
        let finished: HashSet<i64> = finished.into_iter().collect();
        for (mut held, table, deltas) in loaded {
            for held in &mut held {
                held.seen = seen.unwrap_or(held.seen);
                held.pending.retain(|pending| !finished.contains(&pending.seq));
                for (seq, columns) in &trimmed {
                    let same = held.pending.iter_mut().filter(|pending| pending.seq == *seq);
                    same.for_each(|pending| pending.trim(columns, &table));
                }
                for delta in deltas.get(&held.row_id).into_iter().flatten() {
                    held.known.merge(delta);
                }
            }
            // A row of before the adoption that nobody else has stays as it is, and so does one that
            // the gateway does not take back. One that lost to a delete is gone.
            held.retain(|held| {
                let alone = not_taken.contains(&(table.id, held.row_id.clone()));
                let alone = held.pending.is_empty() && alone;
                held.known != Row::default() || !(alone || is_left_alone(batch, held))
            });
            applying.finish(work, &table, held).await?;
            ranges::keep(work, &table).await?;
        }
        Ok(settled)
    }
}

/// The rows of one table that an answer concerns, in order, and what it accepted of each.
type Rows = (Arc<Table>, HashMap<RowId, Vec<Delta>>, Vec<RowId>);

/// Whether nothing but its adoption was ever said of a row, and that was refused.
fn is_left_alone(batch: &Batch, held: &super::held::Held) -> bool {
    let adopted = |entry: &Entry| entry.op == OP_ADOPTED && entry.row_id == held.row_id;
    held.pending.is_empty() && batch.entries.iter().any(adopted)
}

/// The verdict on each delta, in order.
fn verdicts(deltas: &[Delta], outcomes: &[Outcome]) -> Result<Vec<Verdict>, DbError> {
    // The index of the first delta of each group that `encode_push` makes.
    let starts: Vec<usize> = (0..deltas.len())
        .filter(|at| *at == 0 || deltas[*at].table != deltas[*at - 1].table)
        .collect();
    let mut verdicts = vec![Verdict::Accepted; deltas.len()];
    for outcome in outcomes {
        let start = starts.get(outcome.table as usize).copied();
        let index = start.map_or(usize::MAX, |start| start + outcome.row as usize);
        let bad = DbError::BadAnswer { index, count: deltas.len() };
        *verdicts.get_mut(index).ok_or(bad)? = verdict(outcome);
    }
    Ok(verdicts)
}

fn verdict(outcome: &Outcome) -> Verdict {
    let columns = || outcome.columns.iter().filter_map(|name| ColumnName::parse(name).ok());
    match outcome.kind() {
        Kind::Superseded if outcome.reason == REPLAYED => Verdict::Accepted,
        Kind::Superseded | Kind::PartlySuperseded => Verdict::Superseded(columns().collect()),
        Kind::Rejected if outcome.reason == Reason::ClockDrift.as_str() => Verdict::Drifted,
        Kind::Rejected | Kind::Unspecified => {
            Verdict::Rejected { reason: outcome.reason.clone(), message: outcome.message.clone() }
        }
    }
}

/// What took effect of a change that lost in part, and the event that tells of it.
fn superseded(delta: &Delta, lost: &[ColumnName]) -> (Option<Delta>, Superseded) {
    let (table, row_id) = (delta.table.clone(), delta.row_id.clone());
    let Op::Upsert(cells) = &delta.op else {
        // The row outlived its delete, which hides for everybody what was written before it: what
        // is here of the row is that. The newer write is there already, or comes with a pull.
        return (Some(delta.clone()), Superseded { table, row_id, columns: Vec::new() });
    };
    if lost.is_empty() {
        let columns = cells.iter().map(|cell| cell.column.clone()).collect();
        return (None, Superseded { table, row_id, columns });
    }
    let won: Vec<_> = cells.iter().filter(|cell| !lost.contains(&cell.column)).cloned().collect();
    let winner = (!won.is_empty()).then(|| Delta { op: Op::Upsert(won), ..delta.clone() });
    (winner, Superseded { table, row_id, columns: lost.to_vec() })
}

/// Columns that were left out for the sake of later changes which did not make it: they are to be
/// sent after all.
fn uncovered(entry: &Entry, entries: &[Entry], verdicts: &[Verdict]) -> Vec<u32> {
    let made_it = |by: usize| entries[by].delta.is_some_and(|at| verdicts[at].is_final());
    let lost = entry.covered.iter().filter(|(_, by)| !made_it(*by));
    lost.map(|(column, _)| *column).collect()
}

fn refused(entry: &Entry) -> Refused {
    Refused {
        seq: entry.seq,
        table: entry.table.id,
        row_id: entry.row_id.to_string(),
        op: entry.op,
        cells: entry.raw.clone(),
    }
}

/// The numbers of those entries that are in the outbox as they were when they were taken.
async fn standing(work: &mut Work<'_>, entries: &[Entry]) -> Result<HashSet<i64>, DbError> {
    let mut standing = HashSet::new();
    for chunk in entries.chunks(chunk_rows(1)) {
        let marks = vec!["?"; chunk.len()].join(",");
        let sql = format!("SELECT seq, hlc FROM _lakesync_outbox WHERE seq IN ({marks})");
        let mut statement = Statement::new(sql);
        chunk.iter().for_each(|entry| statement.add(entry.seq));
        let common = chunk.len() == 1 || chunk.len() == chunk_rows(1);
        let statement = if common { statement } else { statement.once() };
        let mut found = HashMap::new();
        for row in statement.rows(work.connection()).await? {
            found.insert(super::sql::integer(&row, 0)?, super::sql::integer(&row, 1)?);
        }
        let same = |entry: &&Entry| {
            found
                .get(&entry.seq)
                .is_some_and(|hlc| super::session::from_sql(*hlc) == entry.stamp.hlc)
        };
        standing.extend(chunk.iter().filter(same).map(|entry| entry.seq));
    }
    Ok(standing)
}

/// Leaves only these columns of a change in the outbox.
async fn trim(work: &mut Work<'_>, seq: i64, columns: &[u32]) -> Result<(), DbError> {
    let kept = columns.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let sql = format!("DELETE FROM _lakesync_outbox_cells WHERE seq = ? AND col NOT IN ({kept})");
    Statement::new(sql).bind(seq).once().run(work.connection()).await?;
    Ok(())
}

/// Boundaries before the oldest unsent change are of no use any more.
async fn forget_marks(work: &mut Work<'_>) -> Result<(), DbError> {
    let sql = "DELETE FROM _lakesync_marks \
               WHERE seq < coalesce((SELECT min(seq) FROM _lakesync_outbox), 9223372036854775807)";
    Statement::new(sql).run(work.connection()).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
