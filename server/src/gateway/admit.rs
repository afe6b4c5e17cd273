//! Admission: which changes of a push take effect, on which rows, and what is said of the others.
//! Pure: rows and time are arguments.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::{Entry, EntryRef};
use lakesync::adapter::Capacity;
use lakesync::delta::{Delta, Op};
use lakesync::error::Reason;
use lakesync::hlc::{Clock, Hlc};
use lakesync::limits::KEY_CELLS_BYTES_MAX;
use lakesync::merge::Effect;
use lakesync::name::{ColumnName, Position, TableName};
use lakesync::proto::v1::{Outcome, outcome};
use lakesync::row::Row;
use lakesync::schema::{ColumnType, Schema};
use lakesync::value::Value;
use lakesync::wire::{Offer, Refusal};

use super::access::{self, Access, Grave, Spot};
use super::index::{Index, Moves};
use super::keys;
use super::stored::{self, Stored};

mod keyed;
mod touched;

use keyed::Keyed;
use touched::Touched;

/// The reason of an outcome that tells of a change pushed before: it took effect then.
pub const REPLAYED: &str = "REPLAYED";

/// What admission is judged by.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) schema: &'a Schema,
    /// What all backends can hold.
    pub(super) capacity: Capacity,
    pub(super) clock: &'a Clock,
    pub(super) wall_ms: u64,
    /// Deletes before this may have been forgotten.
    pub(super) horizon: Hlc,
    /// What the pusher may change.
    pub(super) access: Access<'a>,
    /// The indexes to keep.
    pub(super) indexes: &'a [Arc<Index>],
    /// The position that the commit will have.
    pub(super) position: Position,
}

/// The rows that a batch of pushes touches, by key: loaded before, stored after.
#[derive(Debug, Default)]
pub(super) struct Rows(HashMap<Bytes, Touched>);

/// What the rows that an atomic push touched were before it.
#[derive(Debug, Default)]
struct Undo(HashMap<Bytes, Option<Touched>>);

/// What became of a push.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// The changes that took effect, reduced to the cells that did.
    pub(super) effective: Vec<Delta>,
    /// What is said of those that did not simply take effect.
    pub(super) outcomes: Vec<Outcome>,
    /// The newest admitted stamp that is within the drift limit: the gateway's clock follows it.
    pub(super) newest: Hlc,
    /// The newest admitted stamp of all. It is ahead of `newest` where a row had one from the future
    /// already.
    pub(super) furthest: Hlc,
    /// How many more rows exist than before.
    pub(super) rows_gained: i64,
    /// How much was added for key cells that rows took from their ids.
    taken_bytes: usize,
    /// Rows that were deleted, and when.
    pub(super) deleted: Vec<(Hlc, Bytes)>,
    /// Where the rows that changed were before, for the indexes.
    pub(super) moves: Moves,
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
    let mut undo = Undo::default();
    for Offer { table, row, delta } in offers {
        let merged = delta.and_then(|mut delta| {
            let key = keys::row(&delta.table, &delta.row_id);
            if atomic {
                undo.keep(&key, rows);
            }
            let effect = merge_one(rules, &mut columns, rows, key, &mut delta, &mut admitted)?;
            Ok((delta, effect))
        });
        match merged {
            Ok((delta, effect)) => {
                let stamp = delta.stamp.hlc;
                admitted.furthest = admitted.furthest.max(stamp);
                if rules.clock.check(stamp, rules.wall_ms).is_ok() {
                    admitted.newest = admitted.newest.max(stamp);
                }
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
    delta: &mut Delta,
    admitted: &mut Admitted,
) -> Result<Effect, Refusal> {
    let known = columns.of(rules, delta)?;
    known.check(rules, delta)?;
    let touched = rows.0.entry_ref(&key).or_default();
    let (stamp, clock, wall_ms) = (delta.stamp.hlc, rules.clock, rules.wall_ms);
    let drift = clock.check(stamp, wall_ms).err();
    if let Some(drift) = drift.filter(|_| !touched.is_followed_by(stamp, clock, wall_ms)) {
        return Err(Refusal::new(Reason::ClockDrift, drift));
    }
    let taken_bytes = known.key.judge(touched.row.is_live(), delta)?;
    if 0 < taken_bytes {
        admitted.taken_bytes += taken_bytes;
        if KEY_CELLS_BYTES_MAX < admitted.taken_bytes {
            let message = "too many new rows of this push lack their key's cells; send those";
            return Err(Refusal::new(Reason::TooLarge, message));
        }
        known.check(rules, delta)?;
    }
    merge_known(rules, touched, key, delta, admitted).map_err(|refusal| match drift {
        // Who may not see the row must not learn from the reason that it has a stamp this far ahead.
        Some(drift) if refusal.reason == Reason::OutOfScope => {
            Refusal::new(Reason::ClockDrift, drift)
        }
        _ => refusal,
    })
}

/// Merges a change whose stamp may be taken.
fn merge_known(
    rules: &Rules<'_>,
    touched: &mut Touched,
    key: Bytes,
    delta: &Delta,
    admitted: &mut Admitted,
) -> Result<Effect, Refusal> {
    let spot = |row: &Row| Spot::of(rules.indexes, delta, row);
    // Before anything is said of the row, which may not be the pusher's to know of.
    let before = spot(&touched.row);
    match rules.access.check(&before) {
        // It took effect before, and the row has left since: that is no fault of the pusher's.
        Err(_) if access::holds(&touched.row, delta) => return Ok(lost_whole()),
        checked => checked?,
    }
    touched.remember(delta, rules.horizon)?;
    let knew = |grave: &Grave| rules.access.knew(rules.indexes, grave, delta);
    if !before.live && delta.op == Op::Delete && !knew(&touched.grave) {
        // Whoever could leave a tombstone there would forbid the id to others.
        return Err(access::out_of_scope());
    }
    let undo = rules.access.is_limited().then(|| touched.clone());
    touched.make_room(delta)?;
    let effect = touched.row.merge(delta);
    let after = spot(&touched.row);
    // What a delete hides is the pusher's to know if the row was; else it is as if it had never been.
    let judged = match before.live || after.live || knew(&touched.grave) {
        true => rules.access.check(&after),
        false => rules.access.check(&Spot::alone(rules.indexes, delta)),
    };
    if let (Some(undo), Err(refusal)) = (undo, judged) {
        *touched = undo;
        return Err(refusal);
    }
    if effect.effective {
        touched.dirty = true;
        touched.position = rules.position;
        touched.grave = match (before.live, after.live) {
            (_, true) => Grave::default(),
            (true, false) => Grave::at(rules.indexes, &before),
            (false, false) => std::mem::take(&mut touched.grave),
        };
        admitted.rows_gained += i64::from(after.live) - i64::from(before.live);
        if !rules.indexes.is_empty() {
            admitted.moves.note(&key, delta, (before, after), admitted.effective.len());
        }
        if delta.op == Op::Delete {
            admitted.deleted.push((delta.stamp.hlc, key));
        }
    }
    Ok(effect)
}

/// Of a change that has no effect any more.
fn lost_whole() -> Effect {
    Effect { hidden: true, outlived: true, ..Effect::default() }
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
    pub(super) fn load(&mut self, key: Bytes, stored: Stored, bytes: usize) {
        let Stored { position, grave, row } = stored;
        self.0.insert(key, Touched::loaded(position, grave, row, bytes));
    }

    /// A row as it is by now.
    pub(super) fn get(&self, key: &Bytes) -> Option<&Row> {
        self.0.get(key).map(|touched| &touched.row)
    }

    /// The rows that changed, in their stored form.
    pub(super) fn changed(&self) -> Vec<(Bytes, Option<Bytes>)> {
        let dirty = self.0.iter().filter(|(_, touched)| touched.dirty);
        let stored =
            |touched: &Touched| stored::encode(touched.position, &touched.grave, &touched.row);
        dirty.map(|(key, touched)| (key.clone(), Some(stored(touched)))).collect()
    }

    /// Puts rows back.
    fn restore(&mut self, undo: Undo) {
        for (key, image) in undo.0 {
            match image {
                Some(touched) => self.0.insert(key, touched),
                None => self.0.remove(&key),
            };
        }
    }
}

impl Undo {
    /// Remembers a row that is about to change, unless it is remembered already: rows may be large.
    fn keep(&mut self, key: &Bytes, rows: &Rows) {
        self.0.entry_ref(key).or_insert_with(|| rows.0.get(key).cloned());
    }
}

/// What is known of the tables seen so far, so that wide tables are searched once a push.
#[derive(Debug, Default)]
struct Columns<'a>(HashMap<TableName, Known<'a>>);

/// What is known of a table.
#[derive(Debug)]
struct Known<'a> {
    columns: HashMap<&'a str, ColumnType>,
    key: Keyed,
}

impl<'a> Columns<'a> {
    /// What is known of the table that a change is of.
    fn of(&mut self, rules: &Rules<'a>, delta: &Delta) -> Result<&Known<'a>, Refusal> {
        match self.0.entry_ref(&delta.table) {
            EntryRef::Occupied(known) => Ok(known.into_mut()),
            EntryRef::Vacant(place) => {
                let table = rules.schema.table(&delta.table).ok_or_else(|| {
                    let message = format!("unknown table {}", delta.table);
                    Refusal::new(Reason::SchemaMismatch, message)
                })?;
                let kinds = table.columns.iter().map(|column| (column.name.as_str(), column.kind));
                let known = Known { columns: kinds.collect(), key: Keyed::of(table) };
                Ok(place.insert(known))
            }
        }
    }
}

impl Known<'_> {
    /// Refuses cells of columns that are not there, or that can't hold them.
    fn check(&self, rules: &Rules<'_>, delta: &Delta) -> Result<(), Refusal> {
        let Op::Upsert(cells) = &delta.op else { return Ok(()) };
        for cell in cells {
            let (column, value) = (cell.column.as_str(), &cell.value);
            let message = match self.columns.get(column) {
                None => format!("unknown column {column} of table {}", delta.table),
                Some(ColumnType::Uuid) if matches!(value, Value::String(_)) => format!(
                    "column {column} is uuid and can't hold this string; a UUID is written with 32 \
                     digits, hyphens and lower-case letters"
                ),
                Some(kind) if !kind.fits(value) => {
                    let held = value.kind();
                    format!(
                        "column {column} is {kind} and can't hold this {held}; it may be made again \
                         once PutSchema has widened the column, to any if need be"
                    )
                }
                Some(kind) => match rules.capacity.check(*kind, value) {
                    Ok(()) => continue,
                    Err(shortage) => format!(
                        "column {column}: a backend that is configured can't hold {shortage}"
                    ),
                },
            };
            let columns = vec![column.to_owned()];
            return Err(Refusal { reason: Reason::SchemaMismatch, message, columns });
        }
        Ok(())
    }
}

/// What took effect of a change, if anything did.
fn reduce(mut delta: Delta, effect: &Effect) -> Option<Delta> {
    if !effect.effective {
        return None;
    }
    if let Op::Upsert(cells) = &mut delta.op {
        // Both list columns in the order of the cells.
        let mut lost = effect.lost.iter().peekable();
        let mut tied = effect.tied.iter().peekable();
        cells.retain(|cell| {
            let same = |column: &&ColumnName| **column == cell.column;
            lost.next_if(same).is_none() && tied.next_if(same).is_none()
        });
    }
    Some(delta)
}

/// What is said of an admitted change that did not simply take effect. A change that lost as a whole
/// names no columns: all of its own are concerned, and there may be many.
fn outcome_of(delta: &Delta, effect: &Effect, table: u32, row: u32) -> Option<Outcome> {
    let lost_whole = match &delta.op {
        Op::Upsert(cells) => {
            effect.hidden || (!cells.is_empty() && effect.lost.len() == cells.len())
        }
        Op::Delete => effect.outlived,
    };
    let (kind, reason, message) = if lost_whole {
        (outcome::Kind::Superseded, "", "a newer write won")
    } else if !effect.lost.is_empty() {
        (outcome::Kind::PartlySuperseded, "", "a newer write won some cells")
    } else if !effect.effective {
        (outcome::Kind::Superseded, REPLAYED, "pushed before")
    } else {
        return None;
    };
    let columns = match kind {
        outcome::Kind::PartlySuperseded => effect.lost.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
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
