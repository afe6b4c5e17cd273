//! The index that sync rules need: which rows each bucket instance holds, and what each commit means
//! to its readers. Written in the commit's own group, so it is never behind.
//!
//! A bucket without filters holds whole tables: their rows and the log are its index, and nothing is
//! written for it.
//!
//! A commit as a whole is judged: the instances that a row was in before it, against those after it.
//! Who had the row and keeps it gets its change; who gains it gets the whole row; who loses it gets
//! an exit, or the delete; nobody else learns of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use lakesync::delta::{Delta, Op};
use lakesync::name::{Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::rules::{Instance, SyncRules};
use lakesync::schema::Schema;

use super::access::Spot;
use super::keys;
use super::part::{self, Part, Place};
use super::{Bug, Planted};

/// Rules in force, and the number that their index entries carry. Every change of rules is another
/// generation, with an index of its own.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) generation: u32,
    pub(super) rules: SyncRules,
}

impl Index {
    /// The entries of a row as it is.
    pub(super) fn entries(
        &self,
        row_key: &[u8],
        table: &TableName,
        row_id: &RowId,
        row: &Row,
    ) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        let instances = self.rules.instances(table, row_id, row).into_iter();
        let kept = instances.filter(|instance| self.rules.whole_tables(instance).is_none());
        kept.map(|one| (keys::bucket_row(self.generation, &one, row_key), Some(Bytes::new())))
    }
}

/// How many indexes there are at most: of the rules in force, and of those on their way.
pub(super) const INDEXES_MAX: usize = 2;

/// The rows that a commit changes, where they were and where they are.
#[derive(Debug, Default)]
pub(super) struct Moves {
    places: HashMap<Bytes, usize>,
    rows: Vec<Moved>,
}

#[derive(Debug)]
struct Moved {
    key: Bytes,
    table: TableName,
    row_id: RowId,
    before: Spot,
    after: Spot,
    /// How many changes of it took effect; the last of them, and the last delete, by their places in
    /// the commit.
    changes: usize,
    last: usize,
    last_delete: Option<usize>,
}

impl Moves {
    /// Notes that the change at `place` of the commit took effect. Of several changes of a row the
    /// first `before` and the last `after` count.
    pub(super) fn note(
        &mut self,
        key: &Bytes,
        delta: &Delta,
        (before, after): (Spot, Spot),
        place: usize,
    ) {
        let delete = (delta.op == Op::Delete).then_some(place);
        if let Some(at) = self.places.get(key) {
            let moved = &mut self.rows[*at];
            moved.after = after;
            moved.changes += 1;
            moved.last = place;
            moved.last_delete = delete.or(moved.last_delete);
            return;
        }
        self.places.insert(key.clone(), self.rows.len());
        let (table, row_id) = (delta.table.clone(), delta.row_id.clone());
        let (changes, last, last_delete) = (1, place, delete);
        let key = key.clone();
        self.rows.push(Moved { key, table, row_id, before, after, changes, last, last_delete });
    }
}

/// What a commit writes to the index, and what it means to readers.
#[derive(Debug, Default)]
pub(super) struct Described {
    /// New states of index entries.
    pub(super) entries: Vec<(Bytes, Option<Bytes>)>,
    /// The parts of readers under the rules in force, sorted by instance.
    pub(super) parts: Vec<Part>,
    /// Instances of whole tables that the commit concerns: the log itself is their part.
    wakes: BTreeSet<Instance>,
}

/// What happened to a row, as one instance's readers are told.
#[derive(Clone, Copy, Debug)]
enum Told<'a> {
    /// A change of it, which they can take as it is, by its place in the commit.
    Change(usize),
    /// All of it.
    Whole(&'a TableName, &'a RowId, &'a Row),
    Exit(&'a TableName, &'a RowId),
}

/// A commit under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committed<'a> {
    pub(super) position: Position,
    pub(super) schema: &'a Schema,
    pub(super) effective: &'a [Delta],
    pub(super) planted: Option<&'a Planted>,
}

impl Committed<'_> {
    fn suffers(&self, bug: Bug) -> Option<&Planted> {
        self.planted.filter(|planted| planted.is(bug))
    }
}

/// Describes a commit to the indexes: of the first, whose rules are in force if `active`, its
/// readers' parts as well. `row` gives a row's state after the commit.
pub(super) fn describe<'a>(
    indexes: &[Arc<Index>],
    active: bool,
    moves: &'a Moves,
    commit: Committed<'a>,
    row: impl Fn(&Bytes) -> Option<&'a Row>,
) -> Described {
    let mut described = Described::default();
    // Whether the log does as a part. A delete of what was not there is nobody's to hear of, and of
    // several changes of a row only what is left of them is told.
    let told_as_is = |one: &Moved| one.changes == 1 && (one.before.live || one.after.live);
    let as_is = moves.rows.iter().all(told_as_is);
    for (nth, index) in indexes.iter().enumerate() {
        let is_log = |instance: &Instance| as_is && index.rules.whole_tables(instance).is_some();
        let mut told: Vec<(Instance, Told<'a>)> = Vec::with_capacity(moves.rows.len());
        for moved in &moves.rows {
            let row = row(&moved.key).expect("BUG: a row that moved was not loaded");
            let (before, after) = (&moved.before.instances[nth], &moved.after.instances[nth]);
            let alone = commit.suffers(Bug::FilterOnChange).is_some();
            let alone = alone.then(|| moved.judged_alone(index, commit.effective));
            let after = alone.as_ref().unwrap_or(after);
            for instance in before.iter().filter(|instance| !after.contains(instance)) {
                if is_log(instance) {
                    described.wakes.insert(*instance);
                    continue;
                }
                described.put(index, instance, &moved.key, None);
                let leaves = moved.leaves();
                if commit.suffers(Bug::ExitNotSent).is_none() {
                    told.push((*instance, leaves));
                }
                let strangers = commit.strangers(leaves, &[&before[..], &after[..]].concat());
                told.extend(strangers.into_iter().map(|stranger| (stranger, leaves)));
            }
            for instance in after {
                if is_log(instance) {
                    described.wakes.insert(*instance);
                    continue;
                }
                let had = before.contains(instance);
                if !had {
                    described.put(index, instance, &moved.key, Some(Bytes::new()));
                }
                let had = had || commit.suffers(Bug::EntryInPart).is_some();
                told.push((*instance, moved.stays(had, row)));
                commit.strangers(Told::Whole(&moved.table, &moved.row_id, row), after);
            }
        }
        if nth == 0 && active {
            let owed = index.rules.whole_instances().filter(|_| !as_is);
            described.tell(index, told, owed.collect(), commit);
            let whole = std::mem::take(&mut described.wakes).into_iter();
            described.parts.extend(whole.map(Part::of_whole_tables));
        }
        described.wakes.clear();
    }
    described.parts.sort_unstable_by_key(|part| part.instance);
    described
}

impl Described {
    fn put(&mut self, index: &Index, instance: &Instance, row_key: &[u8], value: Option<Bytes>) {
        if index.rules.whole_tables(instance).is_some() {
            return; // The rows themselves are its entries.
        }
        self.entries.push((keys::bucket_row(index.generation, instance, row_key), value));
    }

    /// Writes the parts of those who are told something, and empty ones for the others of `owed`.
    fn tell(
        &mut self,
        index: &Index,
        mut told: Vec<(Instance, Told<'_>)>,
        mut owed: Vec<Instance>,
        commit: Committed<'_>,
    ) {
        let places = places(commit.effective);
        told.sort_by_key(|(instance, _)| *instance);
        for some in told.chunk_by(|(one, _), (next, _)| one == next) {
            let instance = some[0].0;
            owed.retain(|other| *other != instance);
            self.write(index, instance, encode(some, &places, commit), commit.position);
        }
        for instance in owed {
            self.write(index, instance, encode(&[], &places, commit), commit.position);
        }
    }

    fn write(&mut self, index: &Index, instance: Instance, bytes: Bytes, position: Position) {
        let key = keys::bucket_commit(index.generation, &instance, position);
        self.entries.push((key, Some(bytes.clone())));
        self.parts.push(Part { instance, bytes });
    }
}

/// Where each change of a commit stands in its page.
fn places(effective: &[Delta]) -> Vec<Place> {
    let tables = effective.chunk_by(|one, next| one.table == next.table);
    let place = |(table, changes): (u16, &[Delta])| {
        (0..).take(changes.len()).map(move |row| Place { table, row }).collect::<Vec<_>>()
    };
    (0..).zip(tables).flat_map(place).collect()
}

impl Committed<'_> {
    /// Whom a planted bug tells of what is none of theirs.
    fn strangers(&self, told: Told<'_>, known: &[Instance]) -> Vec<Instance> {
        let strangers = [Bug::ExitToStrangers, Bug::DeleteToStrangers].map(|bug| {
            let all = self.suffers(bug).map(|planted| planted.strangers(known));
            let tells = match told {
                Told::Exit(..) => bug == Bug::ExitToStrangers,
                Told::Change(_) => bug == Bug::DeleteToStrangers,
                Told::Whole(..) => false,
            };
            all.filter(|_| tells).unwrap_or_default()
        });
        strangers.concat()
    }
}

impl Moved {
    /// Where a planted bug takes the row to be, which looks at its last change alone.
    fn judged_alone(&self, index: &Index, effective: &[Delta]) -> Vec<Instance> {
        let mut row = Row::default();
        row.merge(&effective[self.last]);
        index.rules.instances(&self.table, &self.row_id, &row)
    }

    /// What those are told who had the row and have it no longer.
    fn leaves(&self) -> Told<'_> {
        match self.last_delete.filter(|_| !self.after.live) {
            Some(delete) => Told::Change(delete),
            None => Told::Exit(&self.table, &self.row_id),
        }
    }

    /// What those are told who have the row now. Of several changes only what is left of them is
    /// told: between two of them the row may have been somebody else's.
    fn stays<'a>(&'a self, had: bool, row: &'a Row) -> Told<'a> {
        match self.changes {
            1 if had || self.before.fresh => Told::Change(self.last),
            _ => Told::Whole(&self.table, &self.row_id, row),
        }
    }
}

fn encode(told: &[(Instance, Told<'_>)], places: &[Place], commit: Committed<'_>) -> Bytes {
    let mut whole: BTreeMap<&TableName, Vec<(&RowId, &Row)>> = BTreeMap::new();
    let mut exits: BTreeMap<&TableName, Vec<&RowId>> = BTreeMap::new();
    let mut changes = Vec::with_capacity(told.len());
    for (_, told) in told {
        match *told {
            Told::Change(at) => changes.push(places[at]),
            Told::Whole(table, row_id, row) => whole.entry(table).or_default().push((row_id, row)),
            Told::Exit(table, row_id) => exits.entry(table).or_default().push(row_id),
        }
    }
    let mut part = part::Writer::begin(&changes);
    for (table, rows) in whole {
        let version = commit.schema.table(table).map_or(0, |table| table.version);
        part.whole(table, version, &rows);
    }
    for (table, rows) in exits {
        part.exits(table, &rows);
    }
    part.finish()
}
