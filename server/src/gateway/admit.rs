//! Admission: which changes of a push take effect, on which rows, and what is said of the others.
//! Pure: rows and time are arguments.

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use lakesync::delta::{Delta, Op};
use lakesync::error::Reason;
use lakesync::hlc::{Clock, Hlc};
use lakesync::limits::ROW_BYTES_MAX;
use lakesync::merge::Effect;
use lakesync::name::TableName;
use lakesync::proto::v1::{Outcome, outcome};
use lakesync::row::Row;
use lakesync::schema::{ColumnType, Schema};
use lakesync::wire::{Offer, Refusal};

use super::keys;

/// The reason of an outcome that tells of a change pushed before: it took effect then.
pub const REPLAYED: &str = "REPLAYED";

/// What admission is judged by.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) schema: &'a Schema,
    pub(super) clock: &'a Clock,
    pub(super) wall_ms: u64,
    /// Deletes before this may have been forgotten.
    pub(super) horizon: Hlc,
}

/// The rows that a batch of pushes touches, by key: loaded before, stored after.
#[derive(Debug, Default)]
pub(super) struct Rows(HashMap<Bytes, Touched>);

#[derive(Clone, Debug, Default)]
struct Touched {
    row: Row,
    /// The size of the row's stored form, or an upper bound of it.
    bytes: usize,
    dirty: bool,
}

/// What became of a push.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// The changes that took effect, reduced to the cells that did.
    pub(super) effective: Vec<Delta>,
    /// What is said of those that did not simply take effect.
    pub(super) outcomes: Vec<Outcome>,
    /// The newest admitted reading of the client's clock.
    pub(super) newest: Hlc,
    /// How many more rows exist than before.
    pub(super) rows_gained: i64,
    /// Rows that were deleted, and when.
    pub(super) deleted: Vec<(Hlc, Bytes)>,
}

/// Admits a push, change by change, into `rows`. With `atomic`, the first refusal refuses all and
/// leaves `rows` as they were.
pub(super) fn admit(
    rules: &Rules<'_>,
    rows: &mut Rows,
    offers: Vec<Offer>,
    atomic: bool,
) -> Result<Admitted, Refusal> {
    let mut admitted = Admitted::default();
    let mut columns = Columns::default();
    let mut undo = Vec::new();
    for Offer { table, row, delta } in offers {
        let merged = delta.and_then(|delta| {
            let key = keys::row(&delta.table, &delta.row_id);
            if atomic {
                undo.push((key.clone(), rows.0.get(&key).cloned()));
            }
            let effect = merge_one(rules, &mut columns, rows, key, &delta, &mut admitted)?;
            Ok((delta, effect))
        });
        match merged {
            Ok((delta, effect)) => {
                admitted.newest = admitted.newest.max(delta.stamp.hlc);
                admitted.outcomes.extend(outcome_of(&delta, &effect, table, row));
                admitted.effective.extend(reduce(delta, &effect));
            }
            Err(refusal) if atomic => {
                rows.restore(undo);
                let Refusal { reason, message, columns } = refusal;
                let message = format!("tables[{table}].rows[{row}]: {message}");
                return Err(Refusal { reason, message, columns });
            }
            Err(refusal) => admitted.outcomes.push(rejected(refusal, table, row)),
        }
    }
    Ok(admitted)
}

fn merge_one<'a>(
    rules: &Rules<'a>,
    columns: &mut Columns<'a>,
    rows: &mut Rows,
    key: Bytes,
    delta: &Delta,
    admitted: &mut Admitted,
) -> Result<Effect, Refusal> {
    columns.check(rules.schema, delta)?;
    rules
        .clock
        .check(delta.stamp.hlc, rules.wall_ms)
        .map_err(|drift| Refusal::new(Reason::ClockDrift, drift))?;
    let touched = rows.0.entry_ref(&key).or_default();
    if !touched.row.is_live() && delta.stamp.hlc < rules.horizon {
        let message = "the change is older than deletes are remembered, and its row does not exist";
        return Err(Refusal::new(Reason::TooOld, message));
    }
    touched.make_room(delta)?;
    let was_live = touched.row.is_live();
    let effect = touched.row.merge(delta);
    if effect.effective {
        touched.dirty = true;
        admitted.rows_gained += i64::from(touched.row.is_live()) - i64::from(was_live);
        if delta.op == Op::Delete {
            admitted.deleted.push((delta.stamp.hlc, key));
        }
    }
    Ok(effect)
}

impl Rows {
    /// The rows that `offers` touch, each key once. They do not exist until they are loaded.
    pub(super) fn touched<'a>(offers: impl Iterator<Item = &'a Offer>) -> (Self, Vec<Bytes>) {
        let (mut rows, mut wanted) = (HashMap::new(), Vec::new());
        for delta in offers.filter_map(|offer| offer.delta.as_ref().ok()) {
            let key = keys::row(&delta.table, &delta.row_id);
            if let Entry::Vacant(place) = rows.entry(key) {
                wanted.push(place.key().clone());
                place.insert(Touched::default());
            }
        }
        (Self(rows), wanted)
    }

    /// Takes in a row's stored state.
    pub(super) fn load(&mut self, key: Bytes, row: Row, bytes: usize) {
        self.0.insert(key, Touched { row, bytes, dirty: false });
    }

    /// The rows that changed, in their stored form.
    pub(super) fn changed(&self) -> Vec<(Bytes, Option<Bytes>)> {
        let dirty = self.0.iter().filter(|(_, touched)| touched.dirty);
        dirty.map(|(key, touched)| (key.clone(), Some(touched.row.encode().into()))).collect()
    }

    /// Puts rows back, the newest first, so that the oldest image stays.
    fn restore(&mut self, undo: Vec<(Bytes, Option<Touched>)>) {
        for (key, image) in undo.into_iter().rev() {
            match image {
                Some(touched) => self.0.insert(key, touched),
                None => self.0.remove(&key),
            };
        }
    }
}

impl Touched {
    /// Refuses a change that would make the row too large. The sum of sizes is an upper bound, and
    /// only rows near the limit are measured.
    fn make_room(&mut self, delta: &Delta) -> Result<(), Refusal> {
        let more = size(delta);
        if self.bytes + more <= ROW_BYTES_MAX {
            self.bytes += more;
            return Ok(());
        }
        let mut merged = self.row.clone();
        merged.merge(delta);
        let bytes = merged.encode().len();
        if ROW_BYTES_MAX < bytes {
            let message = format!("the row would have {bytes} bytes; the limit is {ROW_BYTES_MAX}");
            return Err(Refusal::new(Reason::TooLarge, message));
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// An upper bound of what a change adds to its row's stored form.
fn size(delta: &Delta) -> usize {
    const STAMP_BYTES: usize = 160;
    let cells = match &delta.op {
        Op::Delete => 0,
        Op::Upsert(cells) => {
            cells.iter().map(|cell| 8 + cell.column.as_str().len() + cell.value.size()).sum()
        }
    };
    STAMP_BYTES + cells
}

/// The columns of the tables seen so far, so that wide tables are searched once a push.
#[derive(Debug, Default)]
struct Columns<'a>(HashMap<TableName, HashMap<&'a str, ColumnType>>);

impl<'a> Columns<'a> {
    fn check(&mut self, schema: &'a Schema, delta: &Delta) -> Result<(), Refusal> {
        let mismatch = |message: String| Refusal::new(Reason::SchemaMismatch, message);
        if !self.0.contains_key(&delta.table) {
            let table = schema.table(&delta.table);
            let table = table.ok_or_else(|| mismatch(format!("unknown table {}", delta.table)))?;
            let columns = table.columns.iter().map(|column| (column.name.as_str(), column.kind));
            self.0.insert(delta.table.clone(), columns.collect());
        }
        let (known, Op::Upsert(cells)) = (&self.0[&delta.table], &delta.op) else { return Ok(()) };
        for cell in cells {
            let (column, value) = (cell.column.as_str(), &cell.value);
            let message = match known.get(column) {
                None => format!("unknown column {column} of table {}", delta.table),
                Some(kind) if !kind.fits(value) => {
                    format!("column {column} is {kind} and can't hold this {}", value.kind())
                }
                Some(_) => continue,
            };
            return Err(Refusal { columns: vec![column.to_owned()], ..mismatch(message) });
        }
        Ok(())
    }
}

/// What took effect of a change, if anything did.
fn reduce(mut delta: Delta, effect: &Effect) -> Option<Delta> {
    if !effect.effective {
        return None;
    }
    if let Op::Upsert(cells) = &mut delta.op
        && !(effect.lost.is_empty() && effect.tied.is_empty())
    {
        let idle = |cell: &lakesync::delta::Cell| {
            effect.lost.contains(&cell.column) || effect.tied.contains(&cell.column)
        };
        cells.retain(|cell| !idle(cell));
    }
    Some(delta)
}

/// What is said of an admitted change that did not simply take effect.
fn outcome_of(delta: &Delta, effect: &Effect, table: u32, row: u32) -> Option<Outcome> {
    if effect.effective && effect.lost.is_empty() {
        return None;
    }
    let all_lost = match &delta.op {
        Op::Upsert(cells) => {
            effect.hidden || (!cells.is_empty() && effect.lost.len() == cells.len())
        }
        // Whether it is the row's delete already or an older one: merging it again is harmless.
        Op::Delete => false,
    };
    let (kind, reason, message) = match (effect.lost.is_empty(), all_lost) {
        (true, false) => (outcome::Kind::Superseded, REPLAYED, "pushed before"),
        (_, true) => (outcome::Kind::Superseded, "", "a newer write won"),
        (false, false) => (outcome::Kind::PartlySuperseded, "", "a newer write won some cells"),
    };
    let columns = effect.lost.iter().map(ToString::to_string).collect();
    let (reason, message) = (reason.to_owned(), message.to_owned());
    Some(Outcome { table, row, kind: kind.into(), reason, message, columns })
}

fn rejected(refusal: Refusal, table: u32, row: u32) -> Outcome {
    let Refusal { reason, message, columns } = refusal;
    let (kind, reason) = (outcome::Kind::Rejected.into(), reason.to_string());
    Outcome { table, row, kind, reason, message, columns }
}

#[cfg(test)]
mod tests;
